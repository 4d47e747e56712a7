"""Shell completion of ids and names from the server.

A shell waits for the candidates at each Tab: a server that takes longer than a second, or refuses, gives none. Names
are other users' input: `cli.shells` quotes them for the shell, and this module drops candidates that the command would
parse as an option (a machine called `--url=http://elsewhere` would get the token).
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import typer

from cli.errors import CommandError
from cli.terminal import shows_as_written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.answers import Words
    from cli.server import Server

PATIENCE_SECONDS = 1.0
MOST = 50  # more are of no use

ACTIVE = ("QUEUED", "STARTING", "RUNNING")


def simulations(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete ids of the newest simulations, with their names."""
    return _simulations(context, incomplete, ())


def active_simulations(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete ids of simulations that have not ended."""
    return _simulations(context, incomplete, ACTIVE)


def projects(context: typer.Context, incomplete: str) -> list[str]:
    """Complete names of projects."""
    from cli import requests

    with suppress(CommandError):
        found = (each.name for each in requests.projects(_server(context)))
        return list(islice((name for name in found if _fits(name, incomplete)), MOST))
    return []


def alert_targets(context: typer.Context, incomplete: str) -> list[str]:
    """Complete names of alert targets."""
    from cli import requests

    with suppress(CommandError):
        found = (each.name for each in requests.alert_targets(_server(context)))
        return list(islice((name for name in found if _can_be_typed(name) and _fits(name, incomplete)), MOST))
    return []


def machines(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete names of machines, with their states; the id if a name can't be typed."""
    from cli import requests

    with suppress(CommandError):
        found = requests.machines(_server(context), name=incomplete or None)
        told = ((each.name, each.state) if _can_be_typed(each.name) else (each.id, each.name) for each in found)
        return list(islice((pair for pair in told if _fits(pair[0], incomplete)), MOST))
    return []


def metrics(context: typer.Context, incomplete: str) -> list[str]:
    """Complete names of metrics that the newest simulations have reported."""
    found = (each["name"] for simulation in _words(context) for each in simulation.metrics if each.get("name"))
    return [name for name in dict.fromkeys(found) if _fits(name, incomplete)][:MOST]


def tags(context: typer.Context, incomplete: str) -> list[str]:
    """Complete tags of the newest simulations."""
    found = (tag for simulation in _words(context) for tag in simulation.tags)
    return [tag for tag in dict.fromkeys(found) if _fits(tag, incomplete)][:MOST]


def sort_keys(context: typer.Context, incomplete: str) -> list[str]:
    """Complete what `list --sort` takes."""
    from cli.listing import FIELDS

    return [*(each for each in FIELDS if each.startswith(incomplete)), *metrics(context, incomplete)]


def states(incomplete: str) -> list[str]:
    """Complete states of simulations."""
    from cli.arguments import STATES

    return [state for state in map(str.lower, STATES) if state.startswith(incomplete)]


def _words(context: typer.Context) -> Sequence[Words]:
    from cli import requests

    with suppress(CommandError):
        return requests.words(_server(context), MOST)
    return ()


def _simulations(context: typer.Context, incomplete: str, states: tuple[str, ...]) -> list[tuple[str, str]]:
    from cli import requests

    with suppress(CommandError):
        newest = requests.newest_first(_server(context), states=states, limit=MOST)
        told = [("last", "the newest"), *((each.id, f"{each.name}, {each.state}") for each in newest)]
        return [pair for pair in told if _fits(pair[0], incomplete)]
    return []


def _server(context: typer.Context) -> Server:
    from cli.server import parse_server

    given = context.params
    server = parse_server(given.get("url"), given.get("token"), given.get("token_file"))
    return dataclasses.replace(server, patience_seconds=PATIENCE_SECONDS)


def _fits(word: str, incomplete: str) -> bool:
    return word.startswith(incomplete) and _can_be_typed(word)


def _can_be_typed(word: str) -> bool:
    """Whether a word reaches the command unchanged: no option, all visible, no ~ (which fish leaves unquoted)."""
    return bool(word) and not word.startswith(("-", "~")) and shows_as_written(word)
