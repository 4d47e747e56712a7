"""Health figures of the whole installation, read from its rows for `/metrics` and `simulations doctor` only.

Every statement is read-only and reads from an index, however many finished rows there are.
All times are by Postgres' clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Executable, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import machines
from db.models import Machine

NOT_PLANNED = "NOT_PLANNED"  # why one waits that no planner has looked at yet

# The same judgement as `policy.waiting.why`.
QUEUE = text(
    "SELECT CASE WHEN s.paused THEN 'PAUSED' WHEN s.dependencies_left > 0 THEN 'DEPENDENCY'"
    " WHEN s.queued_at > now() THEN 'BACKOFF'"
    " WHEN s.attended AND w.simulation_id IS NULL THEN 'UNATTENDED' ELSE coalesce(q.reason, :not_planned) END,"
    " count(*), greatest(extract(epoch FROM clock_timestamp() - min(s.queued_at)), 0)::float8"
    " FROM simulations AS s LEFT JOIN queue_classes AS q ON q.queue_class = s.queue_class"
    " LEFT JOIN (SELECT DISTINCT simulation_id FROM watchers WHERE watched_until > clock_timestamp()) AS w"
    " ON w.simulation_id = s.id WHERE s.state = 'QUEUED' GROUP BY 1"
)
ACTIVE = text("SELECT state, count(*) FROM simulations WHERE state IN ('STARTING', 'RUNNING') GROUP BY 1")
SPENDING = text("SELECT currency, sum(price_per_hour * share) FROM members WHERE ended_at IS NULL GROUP BY 1")
LOST = text("SELECT count(*) FROM attempts WHERE reason = 'MACHINE_LOST'")
BEATS = text("SELECT role, extract(epoch FROM clock_timestamp() - beat_at)::float8 FROM coverage")


@dataclass(frozen=True, slots=True)
class Queue:
    """Waiting simulations of one reason."""

    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Vitals:
    """Health figures, read at one time."""

    queue: Mapping[str, Queue]  # by waiting reason
    active: Mapping[str, int]  # by state
    machines: Mapping[str, int]  # by state
    price_per_hour: Mapping[str, Decimal]  # by currency: what all that runs costs
    lost_attempts: int
    silences: Mapping[str, float]  # seconds since a role's last beat


async def read(session: AsyncSession, lease: timedelta) -> Vitals:
    """Read everything, a statement for each."""
    return Vitals(
        queue={
            reason: Queue(count, oldest)
            for reason, count, oldest in await session.execute(QUEUE, {"not_planned": NOT_PLANNED})
        },
        active=await _pairs(session, ACTIVE),
        machines=await machine_states(session, lease),
        price_per_hour=await _pairs(session, SPENDING),
        lost_attempts=int(await session.scalar(LOST) or 0),
        silences=await silences(session),
    )


async def machine_states(session: AsyncSession, lease: timedelta) -> Mapping[str, int]:
    """Count the machines in each state."""
    state = machines.state(lease).label("state")
    return await _pairs(session, select(state, func.count()).select_from(Machine).group_by(state))


async def silences(session: AsyncSession) -> Mapping[str, float]:
    """Seconds since the last beat of each role that ever beat; below zero: it lies in the future."""
    return await _pairs(session, BEATS)


async def offline(session: AsyncSession, lease: timedelta) -> Sequence[tuple[str, float | None]]:
    """Names of machines without a heartbeat for a lease, and the seconds since the last; None: never."""
    silence = func.extract("epoch", func.clock_timestamp() - Machine.heartbeat_at)
    rows = await session.execute(
        select(Machine.name, silence).where(~machines.is_online(lease)).order_by(Machine.name).limit(100)
    )
    return [(name, float(seconds) if seconds is not None else None) for name, seconds in rows]


async def from_the_future(session: AsyncSession) -> float:
    """By how many seconds the newest heartbeat lies ahead of the clock: it was set back. 0: none does."""
    found = await session.scalar(
        text(
            "SELECT extract(epoch FROM max(at) - clock_timestamp())::float8 FROM ("
            " SELECT max(heartbeat_at) FROM machines UNION ALL SELECT max(heartbeat_at) FROM hosts"
            " UNION ALL SELECT max(beat_at) FROM coverage"
            " UNION ALL SELECT max(heartbeat_at) FROM members WHERE ended_at IS NULL) AS newest (at)"
        )
    )
    return max(float(found or 0.0), 0.0)


async def connections(session: AsyncSession) -> tuple[int, int]:
    """How many connections the server has, of all databases, and how many it takes."""
    row = await session.execute(
        text("SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity WHERE pid IS NOT NULL"
             " AND backend_type = 'client backend'")
    )  # fmt: skip
    used, most = row.one()
    return used, most


async def forgotten(session: AsyncSession, longer_than: timedelta) -> Sequence[tuple[int, str, float]]:
    """Transactions idle for longer than this: Postgres' process, the application, the seconds."""
    rows = await session.execute(
        text(
            "SELECT pid, application_name, extract(epoch FROM clock_timestamp() - state_change)::float8"
            " FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
            " AND state_change < clock_timestamp() - cast(:longer_than AS interval) ORDER BY 3 DESC LIMIT 20"
        ),
        {"longer_than": longer_than},
    )
    return [(pid, application, seconds) for pid, application, seconds in rows]


async def _pairs(session: AsyncSession, statement: Executable) -> dict[str, Any]:
    return {name: value for name, value in (await session.execute(statement)).all()}  # noqa: C416  # rows are no pairs
