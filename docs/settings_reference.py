"""Writes docs/settings.md out of settings.py: `make docs`.

Headings and remarks are the comments there, so that they are written once; names, types, defaults and bounds are
pydantic's.
"""

from __future__ import annotations

import ast
import re
import sys
import types
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydantic.fields import FieldInfo  # noqa: E402  # after the path

from settings import Settings  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
BARE = ("host", "port", "database_url")
UNITS = {"seconds": "seconds", "per_hour": "money per hour, in the installation's currency"}
INTRODUCTION = """\
# Settings

All of them are environment variables, read once at start. A value that can't be used is refused with the variable's
name, what was expected and what was given. What has to do with others reaching the service is told in
[SECURITY.md](../SECURITY.md#from-where).

This page is made out of [`settings.py`](../settings.py) by `make docs`.
"""


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for heading, names in _headings().items():
        lines += [f"## {heading}", "", "| variable | takes | default | |", "|---|---|---|---|"]
        remarks = _remarks()
        for name in names:
            field = Settings.model_fields[name]
            cells = (f"`{_variable(name)}`", _takes(field), _default(field), _meaning(name, remarks))
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def _variable(name: str) -> str:
    return name.upper() if name in BARE else f"SIMULATIONS_{name.upper()}"


def _source() -> tuple[list[str], ast.ClassDef]:
    text = (ROOT / "settings.py").read_text(encoding="utf-8")
    [found] = [each for each in ast.parse(text).body if isinstance(each, ast.ClassDef) and each.name == "Settings"]
    return text.splitlines(), found


def _fields() -> dict[str, ast.AnnAssign]:
    return {
        each.target.id: each
        for each in _source()[1].body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def _headings() -> dict[str, list[str]]:
    """Each heading, a comment on a line of its own, with the settings below it."""
    lines, _ = _source()
    found: dict[str, list[str]] = {}
    for name, node in _fields().items():
        above = [lines[number] for number in range(node.lineno - 1) if re.match(r"    # ", lines[number])]
        heading = above[-1].strip(" #").split(";")[0]
        found.setdefault(heading, []).append(name)
    assert sorted(each for names in found.values() for each in names) == sorted(Settings.model_fields)
    return found


def _remarks() -> dict[str, str]:
    """What is said behind a setting."""
    lines, _ = _source()
    found = {}
    for name, node in _fields().items():
        text = " ".join(lines[(node.end_lineno or node.lineno) - 1 : node.end_lineno])
        if "  # " in text:
            found[name] = text.split("  # ", 1)[1].strip()
    return found


def _meaning(name: str, remarks: dict[str, str]) -> str:
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), None)
    remark = re.sub(r"(^|; )None: ", r"\1without it: ", remarks.get(name, ""))
    told = [each for each in (unit, remark) if each]
    return "; ".join(told).replace("*", r"\*")


def _takes(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        [kind] = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    if get_origin(kind) is tuple:
        return "paths, separated by colons" if get_args(kind)[0] is Path else "a list, separated by commas"
    name = {
        int: "a whole number", float: "a number", str: "text", bool: "`true` or `false`", Path: "a path",
        Decimal: "a decimal",
    }[kind]  # type: ignore[index]  # fmt: skip
    return f"{name}{_bounds(field)}"


def _bounds(field: FieldInfo) -> str:
    told = []
    for each in field.metadata:
        for attribute, words in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"), ("pattern", "like")):
            value = getattr(each, attribute, None)
            if value is not None:
                told.append(f"{words} {f'{value:,}' if isinstance(value, int | float) else f'`{value}`'}")
    return f", {' '.join(told)}" if told else ""


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
