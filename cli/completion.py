"""What a shell completes beyond words that are known here: ids and names, asked of the server.

A shell waits for it at each Tab: whoever does not answer within a second, or does not let us in, completes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import typer

from cli.errors import CommandError

if TYPE_CHECKING:
    from cli.server import Server

PATIENCE_SECONDS = 1.0
MOST = 50  # more help nobody to choose

ACTIVE = ("QUEUED", "STARTING", "RUNNING")


def simulations(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest simulations, by id, with their names."""
    return _simulations(context, incomplete, ())


def active_simulations(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The same, of those that have not ended."""
    return _simulations(context, incomplete, ACTIVE)


def projects(context: typer.Context, incomplete: str) -> list[str]:
    """The names of projects."""
    from cli import requests

    with suppress(CommandError):
        found = (each.name for each in requests.projects(_server(context)))
        return list(islice(_fitting(found, incomplete), MOST))
    return []


def machines(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The names of machines, with their states."""
    from cli import requests

    with suppress(CommandError):
        found = requests.machines(_server(context), name=incomplete or None)
        return [(each.name, each.state) for each in islice(found, MOST) if each.name.startswith(incomplete)]
    return []


def states(incomplete: str) -> list[str]:
    """The states of simulations."""
    from cli.arguments import STATES

    return list(_fitting(map(str.lower, STATES), incomplete))


def roles(incomplete: str) -> list[str]:
    """The roles of tokens."""
    return list(_fitting(("viewer", "operator", "admin"), incomplete))


def _simulations(context: typer.Context, incomplete: str, states: tuple[str, ...]) -> list[tuple[str, str]]:
    from cli import requests

    with suppress(CommandError):
        newest = requests.newest_first(_server(context), states=states, limit=MOST)
        told = [("last", "the newest"), *((each.id, f"{each.name}, {each.state}") for each in newest)]
        return [pair for pair in told if pair[0].startswith(incomplete)]
    return []


def _server(context: typer.Context) -> Server:
    from cli.options import DEFAULT_URL
    from cli.server import parse_server

    given = context.params
    server = parse_server(given.get("url") or DEFAULT_URL, given.get("token"), given.get("token_file"))
    return dataclasses.replace(server, patience_seconds=PATIENCE_SECONDS)


def _fitting(words: Iterator[str] | tuple[str, ...], incomplete: str) -> Iterator[str]:
    return (word for word in words if word.startswith(incomplete))
