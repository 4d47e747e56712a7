"""Writes docs/cli.md out of what `simulations --help` says, command by command: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import typer  # noqa: E402  # after the path
from typer.testing import CliRunner  # noqa: E402

from cli.app import app  # noqa: E402

PAGE = ROOT / "docs" / "cli.md"
COLUMNS = "100"
INTRODUCTION = """\
# The command line

`make run` puts it at `.venv/bin/simulations`. It is a client of the GraphQL API like any other, wherever the server is;
only `up`, `migrate`, `token` and `doctor` work on an installation itself. With `--help` each command says the same.

This page is made out of the commands by `make docs`.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for words in [(), *_commands(typer.main.get_command(app))]:
        told = CliRunner().invoke(app, [*words, "--help"], prog_name="simulations", env={"COLUMNS": COLUMNS})
        text = "\n".join(line.rstrip() for line in told.output.strip().splitlines())
        parts.append(f"## {' '.join(('simulations', *words))}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if not command.hidden:
            yield (*above, name)
            if hasattr(command, "commands"):
                yield from _commands(command, (*above, name))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
