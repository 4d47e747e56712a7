"""Which fields below a resolver's own the operation selects, so that columns that no client asked for are not read.

A field in a fragment counts whatever type the fragment is on: at worst, more is read than is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from strawberry.types.nodes import SelectedField, Selection

if TYPE_CHECKING:
    from graph.context import Info


def selects(info: Info, *path: str) -> bool:
    """True if the field at this path below the one that is resolved is selected, after @skip and @include."""
    return any(_reaches(field.selections, path) for field in info.selected_fields)


def _reaches(selections: Sequence[Selection], path: Sequence[str]) -> bool:
    if not path:
        return True
    for each in selections:
        if not _is_included(each):
            continue
        if not isinstance(each, SelectedField):
            if _reaches(each.selections, path):
                return True
        elif each.name == path[0] and _reaches(each.selections, path[1:]):
            return True
    return False


def _is_included(selection: Selection) -> bool:
    skipped = selection.directives.get("skip", {}).get("if", False)
    return not skipped and bool(selection.directives.get("include", {}).get("if", True))
