"""`python -m graph`: check the database, then serve until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import sys

import structlog
import uvicorn

import settings as knobs
from db.connection import DatabaseError
from db.schema import SchemaMismatch
from graph.app import check_database, create_app

# Longer than clients and proxies keep an idle connection: whoever closes first must not be the one who is asked.
KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 3  # for open requests; streams are told to come back at once


def main() -> int:
    """Serve; 2 if the settings or the database can't be used, with the reason on stderr."""
    try:
        settings = knobs.load()
        if settings.database_url is None:
            raise knobs.SettingsError("DATABASE_URL is not set. `simulations up` brings a database of its own.")
        asyncio.run(check_database(settings))
    except (knobs.SettingsError, DatabaseError, SchemaMismatch) as error:
        print(error, file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    knobs.configure_logs(settings)
    structlog.get_logger().info("serving", host=settings.host, port=settings.port)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,  # costs a third of the CPU and twice the memory per socket
        ws_max_size=1_048_576,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        access_log=False,
        log_config=None,
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
