"""The Starlette application, wired top to bottom. What it needs, its lifespan makes and hands on as typed state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import TypedDict

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute

from db import attempts
from db.connection import DatabaseError, check_server, create_engine, session_factory
from db.schema import SchemaMismatch, require_current
from graph.context import Sessions
from graph.errors import DATABASE_AWAY
from graph.hub import Hub
from graph.schema import build_schema
from graph.transport import Endpoint
from settings import Settings

log = structlog.get_logger()

LAST_BEAT_SECONDS = 2.0  # how long the end waits for a beat that is on its way
BEAT_SECONDS = 1.0  # how often a graph process says that reports can be delivered; with a short lease, more often


class State(TypedDict):
    """What a request finds in `request.state`."""

    engine: AsyncEngine
    sessions: Sessions
    hub: Hub


def create_app(settings: Settings, *, sessions: Sessions | None = None) -> Starlette:
    """Build the application. It expects a database that answers and whose schema is current (`check_database`).

    sessions: the factory that every resolver opens its session from; a test may give its own.
    """
    if settings.database_url is None:
        raise ValueError("settings.database_url is not set: `simulations up` starts a database and sets it")
    url = settings.database_url

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            engine = create_engine(url, pool_size=settings.database_pool_size, application="graph")
            stack.push_async_callback(engine.dispose)
            factory = sessions or session_factory(engine)
            hub = Hub(factory)
            await stack.enter_async_context(hub.running(url if settings.notifications else None))
            await stack.enter_async_context(_beating(factory, timedelta(seconds=settings.lease_seconds)))
            yield {"engine": engine, "sessions": factory, "hub": hub}

    endpoint = Endpoint(build_schema(), settings)
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/graphql", endpoint),
            WebSocketRoute("/graphql", endpoint),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *(Route(path, to_explorer) for path in ("/", "/docs", "/redoc")),
        ],
    )


async def check_database(settings: Settings) -> None:
    """Raise `DatabaseError` or `SchemaMismatch`, whose messages say what to do, unless the database can be used."""
    assert settings.database_url is not None
    engine = create_engine(settings.database_url, pool_size=1, application="graph")
    try:
        await check_server(engine)
        await require_current(engine)
    finally:
        await engine.dispose()


async def healthz(_request: Request) -> Response:
    """The process is alive."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Response:
    """The database answers and its schema is this version's; 503 and the reason otherwise."""
    try:
        await check_server(request.state.engine)
        await require_current(request.state.engine)
    except (DatabaseError, SchemaMismatch) as error:
        return JSONResponse({"status": "not ready", "reason": str(error)}, status_code=503)
    except DATABASE_AWAY as error:
        log.warning("not_ready", error=str(error))
        return JSONResponse({"status": "not ready", "reason": "The database does not answer."}, status_code=503)
    return JSONResponse({"status": "ready"})


async def to_explorer(_request: Request) -> Response:
    return RedirectResponse("/graphql")


@asynccontextmanager
async def _beating(sessions: Sessions, lease: timedelta) -> AsyncIterator[None]:
    """Say again and again, while the block runs, that reports can be delivered: else no attempt counts as lost."""
    ending = asyncio.Event()
    task = asyncio.create_task(_beat(sessions, lease, ending), name="beat")
    try:
        yield
    finally:
        ending.set()  # cancelled in the midst of connecting, it would leave half a connection behind
        _, unfinished = await asyncio.wait({task}, timeout=LAST_BEAT_SECONDS)
        for each in unfinished:
            each.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat(sessions: Sessions, lease: timedelta, ending: asyncio.Event) -> None:
    period = min(BEAT_SECONDS, attempts.beat_period(lease).total_seconds())
    failing = False
    while not ending.is_set():
        try:
            async with sessions() as session, session.begin():
                await attempts.beat(session, "graph", attempts.coverage_gap(lease))
            failing = False
        except DATABASE_AWAY as error:
            if not failing:
                log.warning("beat_failed", error=str(error))
            failing = True
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), period)
