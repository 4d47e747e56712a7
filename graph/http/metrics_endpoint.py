"""`/metrics` for Prometheus: numbers of the whole installation, from the database, and counters of this process.

Queue, machines and cost are rows, so each graph process exports the same numbers of them, and a query needs one of them
(`max by (...)`). Counters belong to a process, and are summed. Rows are read
at a scrape, once a second at most, with one statement for each number. Without the database the counters remain, with
`simulations_database_up 0`. The scheduler exports the planner's numbers on its own port (scheduler/metrics.py), so they
need no database.

Where a login is needed it is needed here, too: any role, for all projects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from db import health_queries
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from db.health_queries import Vitals
from graph.auth.authenticate import Authenticator, NotAdmitted
from graph.errors import Forbidden, Unauthenticated
from graph.http import protocol
from graph.http.protocol import Refusal
from graph.live.hub import Hub
from graph.metrics import Metrics
from graph.operation.permissions import READ_EVERYWHERE, require
from settings import Settings

log = structlog.get_logger()

FRESH_SECONDS = 1.0
PATIENCE_SECONDS = 5.0  # for the rows; Prometheus gives up after ten


class MetricsEndpoint:
    """The endpoint."""

    def __init__(self, metrics: Metrics, authenticator: Authenticator, settings: Settings) -> None:
        self._metrics = metrics
        self._authenticator = authenticator
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._vitals: Vitals | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            viewer, _ = await self._authenticator.find(request.state.sessions, request)
            require(viewer, READ_EVERYWHERE)
        except NotAdmitted as refused:
            refusal = Refusal(refused.status, refused.message, refused.headers)
        except Unauthenticated as error:
            refusal = Refusal(HTTPStatus.UNAUTHORIZED, error.message, {"WWW-Authenticate": "Bearer"})
        except Forbidden as error:
            refusal = Refusal(HTTPStatus.FORBIDDEN, error.message)
        else:
            await (await self._answer(request))(scope, receive, send)
            return
        await refusal.response(protocol.JSON)(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        found = await self._read(request.state.sessions)
        everything = CollectorRegistry(auto_describe=False)
        everything.register(self._metrics.registry)
        everything.register(_Told([*_of_rows(found), *_of_process(request.state.engine, request.state.live.hub)]))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(everything), headers={"Content-Type": content_type})

    async def _read(self, sessions: Sessions) -> Vitals | None:
        """The rows, a second old at most; None while the database is away."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at >= FRESH_SECONDS:
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS), sessions() as session:
                        self._vitals = await health_queries.read(session, self._lease)
                except (DatabaseUnavailable, TimeoutError) as error:
                    log.debug("vitals_not_read", error=str(error))
                    self._vitals = None
                self._asked_at = asyncio.get_running_loop().time()
            return self._vitals


class _Told(Collector):
    """Numbers that are known already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _of_rows(found: Vitals | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("simulations_database_up", "Whether the rows could be read.", value=found is not None)
    if found is None:
        return
    length = GaugeMetricFamily("simulations_queue_length", "Simulations that wait, by why.", labels=["reason"])
    age = GaugeMetricFamily(
        "simulations_queue_oldest_seconds", "For how long the first of them has waited.", labels=["reason"]
    )
    for reason, queue in found.queue.items():
        length.add_metric([reason], queue.count)
        age.add_metric([reason], queue.oldest_seconds)
    yield length
    yield age
    yield _by("simulations_active", "Simulations on machines, by state.", "state", found.active)
    yield _by("simulations_machines", "Machines, by state.", "state", found.machines)
    yield _by(
        "simulations_price_per_hour", "What all that runs costs an hour.", "currency",
        {currency: float(price) for currency, price in found.price_per_hour.items()},
    )  # fmt: skip
    yield GaugeMetricFamily(
        "simulations_lost_attempts", "Lost attempts of simulations that were not deleted.", value=found.lost_attempts
    )
    yield _by(
        "simulations_silence_seconds", "Since the last beat of any process of a role: graph, scheduler.", "role",
        found.silences,
    )  # fmt: skip


def _of_process(engine: AsyncEngine, hub: Hub) -> Iterator[Metric]:
    yield _by("simulations_subscribers", "Subscriptions that run here.", "kind", hub.subscribers())
    pool = engine.pool
    if isinstance(pool, QueuePool):
        yield GaugeMetricFamily(
            "simulations_database_connections_used", "Of this process's pool.", value=pool.checkedout()
        )
        yield GaugeMetricFamily("simulations_database_connections", "As many as its pool may have.", value=pool.size())


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
