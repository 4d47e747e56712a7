"""uvicorn's configuration: how connections are kept, limited and ended."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from db.connection import Sessions
from graph.app import create_app
from graph.http.dashboard_files import DashboardFiles
from graph.http.shutdown import Shutdown
from graph.schema import Schema
from graph.wire.http import http_wires
from graph.wire.proxies import Proxies
from graph.wire.websocket import wires
from settings import Settings

# Longer than clients and proxies keep an idle connection: a server that closes first would lose a request.
KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 3  # for open requests; streams end at once, and their clients reconnect
DRAIN_STEP_SECONDS = 0.05
MESSAGE_BYTES = 1_048_576  # of one WebSocket message from a client


class Server(uvicorn.Server):
    """uvicorn's server, which ends streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, shutdown: Shutdown, drain_seconds: float = 0.0) -> None:
        super().__init__(config)
        self._shutdown = shutdown
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down: end streams over HTTP, close WebSockets with 1012, give other requests a moment to finish.

        Before that the server goes on for `drain_seconds` with a failing `/readyz`, until proxies have noticed: a
        request that arrives when the socket closes is lost, and only the proxy could have avoided it. A second Ctrl-C
        ends the drain.
        """
        self._shutdown.announce()
        drained_at = asyncio.get_running_loop().time() + self._drain_seconds
        while asyncio.get_running_loop().time() < drained_at and not self.force_exit:  # noqa: ASYNC110  # uvicorn's flag
            await asyncio.sleep(DRAIN_STEP_SECONDS)
        self._shutdown.begin()
        await super().shutdown(sockets)


def build_server(settings: Settings, *, sessions: Sessions | None = None) -> Server:
    """Make the server of a graph process. `run()` serves until a signal, `serve()` does in a loop that runs."""
    shutdown = Shutdown()
    return Server(build_config(settings, shutdown, sessions=sessions), shutdown, settings.drain_seconds)


def build_config(
    settings: Settings,
    shutdown: Shutdown,
    *,
    sessions: Sessions | None = None,
    dashboard: DashboardFiles | None = None,
    schema: Schema | None = None,
) -> uvicorn.Config:
    """Say how uvicorn is to serve the application."""
    app = create_app(settings, sessions=sessions, shutdown=shutdown, dashboard=dashboard, schema=schema)
    return uvicorn.Config(
        Proxies(app, settings.trusted_proxies) if settings.trusted_proxies else app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=http_wires(settings.socket_stall_seconds, settings.connections),  # type: ignore[arg-type]  # as below
        ws=wires(settings.socket_stall_seconds),  # type: ignore[arg-type]  # called, as a class would be
        ws_per_message_deflate=False,  # costs a third of the CPU and twice the memory per socket
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=None,  # ours are graphql-transport-ws's own; 1011, how these end, is fatal to its clients
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # `Proxies`; uvicorn would trust every client on this host
    )
