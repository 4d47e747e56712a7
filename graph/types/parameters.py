"""Parameters by path: `optimizer.lr` is `lr` in the object `optimizer`, unless a parameter has that very name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEEPEST = 5  # levels, as in `parameter_values`


def at_path(parameters: Mapping[str, Any], path: str) -> Any:
    """Find a parameter; None if there is none."""
    return _below(parameters, path, DEEPEST)


def _below(values: Mapping[str, Any], path: str, levels: int) -> Any:
    if path in values:
        return values[path]
    if levels > 1:
        for end, letter in enumerate(path):
            inner = values.get(path[:end]) if letter == "." else None
            if isinstance(inner, Mapping) and (found := _below(inner, path[end + 1 :], levels - 1)) is not None:
                return found
    return None
