"""The Starlette application, wired top to bottom. Its lifespan creates the dependencies, as typed state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypedDict

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db import require_admin_token, silence
from db.connection import Sessions, check_server, create_engine, driver_of, session_factory, watching
from db.errors import DatabaseUnavailable
from db.outage import Outage
from db.schema import require_current
from graph.auth.authenticate import Authenticator
from graph.auth.token_revocation import TokenRevocation
from graph.http.admission import Admission
from graph.http.attempt_files import AttemptFiles
from graph.http.dashboard_files import DashboardFiles
from graph.http.endpoint import Endpoint
from graph.http.file_download import FileDownload
from graph.http.headers import Headers
from graph.http.health import Readiness, healthz
from graph.http.metrics_endpoint import MetricsEndpoint
from graph.http.origin_check import Hosts, OriginCheck
from graph.http.packages import Packages
from graph.http.request_id import RequestId
from graph.http.session import SessionEndpoint
from graph.http.shutdown import Shutdown
from graph.live.process import Live
from graph.metrics import Metrics
from graph.schema import Schema, build_schema
from graph.store.choose import choose
from graph.store.collector import Collector
from policy.retry import beat_period, coverage_gap
from settings import Settings

log = structlog.get_logger()

LAST_BEAT_SECONDS = 2.0  # how long the end waits for a beat that is on its way
BEAT_SECONDS = 1.0  # between two heartbeats of a graph process (reports can be delivered); shorter with a short lease


class State(TypedDict):
    """The typed content of `request.state`."""

    engine: AsyncEngine
    sessions: Sessions
    live: Live
    revocation: TokenRevocation
    shutdown: Shutdown


def create_app(
    settings: Settings,
    *,
    sessions: Sessions | None = None,
    shutdown: Shutdown | None = None,
    dashboard: DashboardFiles | None = None,
    schema: Schema | None = None,
) -> Starlette:
    """Build the application. It expects a database that answers and whose schema is current (`check_database`).

    sessions: the factory that every resolver opens its session from; a test may give its own.
    shutdown: begun by the server on SIGTERM; without one, streams end only with their connections.
    dashboard: the pages; a test may give others than those that were built.
    schema: a built one, which several applications may share; building it takes longer than all else here.
    """
    if settings.database_url is None:
        raise ValueError("settings.database_url is not set: `simulations up` starts a database and sets it")
    url = settings.database_url

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            outage = Outage()
            engine = create_engine(url, pool_size=settings.database_pool_size, application="graph", outage=outage)
            stack.push_async_callback(engine.dispose)
            factory = sessions or session_factory(engine)
            lease = timedelta(seconds=settings.lease_seconds)
            revocation = TokenRevocation(factory)
            live = Live.on(
                factory,
                lease,
                url=url if settings.notifications else None,
                outage=outage,
                metrics=metrics,
                tokens_changed=revocation.stir,
            )
            await stack.enter_async_context(watching(outage, url))
            await stack.enter_async_context(live.running())
            await stack.enter_async_context(revocation.running())
            await stack.enter_async_context(_beating(factory, lease))
            await stack.enter_async_context(metrics.watchdog.running())
            if store is not None:
                await stack.enter_async_context(Collector(factory, store, checkpoint_age).running())
            yield {
                "engine": engine,
                "sessions": factory,
                "live": live,
                "revocation": revocation,
                "shutdown": shutdown or Shutdown(),
            }

    metrics = Metrics()
    store = choose(settings)
    checkpoint_age = timedelta(days=settings.files_checkpoint_days) if settings.files_checkpoint_days else None
    authenticator = Authenticator(settings)
    dashboard = dashboard or DashboardFiles()
    endpoint = Endpoint(schema or build_schema(), settings, authenticator, dashboard)
    attempt_files = AttemptFiles(store, authenticator, settings)
    packages = Packages(store, authenticator, settings)
    endpoint.allowed_origins = frozenset({"*"})  # else Strawberry would check sockets again, without the settings
    return Application(
        metrics=metrics,
        middleware=[Middleware(OriginCheck, settings)],
        lifespan=lifespan,
        exception_handlers={HTTPStatus.NOT_FOUND: dashboard.not_found},
        routes=[
            Route("/graphql", endpoint),
            WebSocketRoute("/graphql", Admission(endpoint, settings.sockets_per_client)),
            Route("/session", SessionEndpoint(authenticator)),
            Route("/files/pieces/{digest}", attempt_files, methods=["GET", "PUT"]),
            Route("/files/{what}", attempt_files, methods=["POST"]),
            Route("/packages", packages, methods=["GET"]),
            Route("/packages/{digest}", packages, methods=["HEAD", "PUT"]),
            Route("/files/{simulation}/package", packages, methods=["GET", "HEAD"]),
            Route(
                "/files/{simulation}/{kind}/{rank:int}/{path:path}",
                FileDownload(store, authenticator),
                methods=["GET", "HEAD"],
            ),
            Route("/healthz", healthz),
            Route("/readyz", Readiness(None if settings.requires_login else Hosts(settings)), methods=["GET"]),
            Route("/metrics", MetricsEndpoint(metrics, authenticator, settings), methods=["GET"]),
            *(Route(path, to_explorer) for path in ("/docs", "/redoc")),
            *dashboard.routes,
        ],
    )


class Application(Starlette):
    """Starlette, with what every response has, those to defects included: an id, and security headers."""

    def __init__(self, *, metrics: Metrics, **given: Any) -> None:
        super().__init__(**given)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            self._metrics.watchdog.stir()
            return message

        self._metrics.watchdog.stir()
        await super().__call__(scope, received if scope["type"] == "websocket" else receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        return RequestId(Headers(super().build_middleware_stack()), self._metrics)


async def check_database(settings: Settings) -> None:
    """Check that the database is usable and, where a login is required, that at least one login exists.

    Raises `DatabaseError`, `SchemaMismatch`, `NoWayIn` or `SettingsError`, whose messages say what to do.
    """
    assert settings.database_url is not None
    engine = create_engine(settings.database_url, pool_size=1, application="graph")
    try:
        await check_server(engine)
        await require_current(engine)
        async with session_factory(engine)() as session, session.begin():
            await require_admin_token.require(session, settings.read_admin_token(), why=settings.why_login)
    finally:
        await engine.dispose()


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
    period = min(BEAT_SECONDS, beat_period(lease).total_seconds())
    while not ending.is_set():
        try:
            async with driver_of(sessions) as driver:
                await silence.beat_alone(driver, "graph", coverage_gap(lease))
        except DatabaseUnavailable as error:
            log.debug("beat_failed", error=str(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), period)
