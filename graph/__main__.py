"""`python -m graph`: check the database, then serve until SIGTERM or SIGINT."""

from __future__ import annotations

# ruff: noqa: E402  # the first import decides how long the others take
import gc

gc.disable()  # collections in the midst of the imports were a tenth of the start; `_set_collector` turns it on again

import asyncio
import resource
import sys
import warnings
from contextlib import suppress

import structlog

import settings as knobs
from db.errors import DatabaseError
from db.require_admin_token import NoWayIn
from db.schema import SchemaMismatch
from graph.app import check_database
from graph.server import build_server

STARTUP_FAILED = 3  # uvicorn's own exit code
COLLECT_AFTER = (5_000, 4, 10)  # new objects; collections of the generation before
OTHER_FILES = 600  # the database's connections, at most 500, and what a process has anyway


def main() -> int:
    """Serve; return 2 if the settings or the database are unusable or no login exists; the reason is on stderr."""
    try:
        settings = knobs.load()
        if settings.database_url is None:
            raise knobs.SettingsError("DATABASE_URL is not set. `simulations up` brings a database of its own.")
        asyncio.run(check_database(settings))
    except (knobs.SettingsError, DatabaseError, SchemaMismatch, NoWayIn) as error:
        print(error, file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    knobs.configure_logs(settings)
    # graphql-core makes the coroutines of a list's items before it awaits them: an operation that is cancelled in
    # between, as by a client that leaves, drops them, and Python would warn of each.
    warnings.filterwarnings("ignore", r"coroutine 'Executor\.", RuntimeWarning)
    _allow_open_files(settings.connections)
    structlog.get_logger().info("serving", host=settings.host, port=settings.port, login=settings.requires_login)
    server = build_server(settings)
    _set_collector()
    with suppress(KeyboardInterrupt):  # raised once more by uvicorn, when it has ended in peace
        server.run()
    return 0 if server.started else STARTUP_FAILED


def _set_collector() -> None:
    """Keep garbage collection from holding up every stream: what was made until now is never looked at again.

    A full collection over the libraries' 160,000 objects took 200 ms, during which no point is delivered. Requests
    leave some cycles, so it can't be turned off. The young generation is larger than by default, since most of them die
    at once, and the others smaller: an object takes up to 1 us to free, so that no collection frees 50,000 of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()


def _allow_open_files(connections: int) -> None:
    """Let so many connections be open, as far as the system allows; its usual limit is a thousand files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            structlog.get_logger().info("few_connections", open_files=most, connections=connections)


if __name__ == "__main__":
    sys.exit(main())
