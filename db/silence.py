"""Silence: heartbeats of processes and members, and the candidates of what is lost, overdue or spent.

Every process beats once a second (`coverage`): a member's silence counts only while its reports could have come in.
`policy.retry` judges; here are the statements that find the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.attempts import CURRENT_MEMBERS, Hosted, clock
from db.models import Attempt, Coverage, Member, Simulation
from db.outage import Driver
from db.states import Reason, SimulationState

# The candidates of `find_quiet` and `find_beyond_limit`, for `due.find_due`.
QUIET = "SELECT FROM members AS m WHERE m.ended_at IS NULL AND m.heartbeat_at < now() - {lease}"
BEYOND_LIMIT = """
    SELECT FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id
    WHERE a.ended_at IS NULL AND (a.stop_wanted_at IS NULL OR a.stop_reason = 'PREEMPTED')
      AND a.started_at + s.max_runtime < now()
"""


# Every process beats once a second, which must not slow down deliveries: one statement, written out, and its commit
# waits for no disk. A beat lost in a crash of the server only makes a lease begin later.
BEAT = """
    INSERT INTO coverage AS c (role, covered_since, beat_at)
    SELECT $1::text, clock_timestamp(), clock_timestamp() FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (role) DO UPDATE SET
        covered_since = CASE
            WHEN clock_timestamp() - c.beat_at BETWEEN interval '0' AND $2::interval THEN c.covered_since
            ELSE clock_timestamp()
        END,
        beat_at = clock_timestamp()
"""


async def beat(session: AsyncSession, role: str, gap: timedelta) -> None:
    """Note that a process of this role is alive; a silence longer than `gap`, or a clock that jumped, begins anew.

    For a transaction of repeated writes: a crash of the server may lose it. The time is taken under the row's lock, not
    at the transaction's begin: a transaction that began earlier and got the lock later would take another process's
    beat for a clock that was set back.
    """
    await (await session.connection()).exec_driver_sql(BEAT, (role, gap))


async def beat_alone(driver: Driver, role: str, gap: timedelta) -> None:
    """The same as a transaction of its own."""
    await driver.execute(BEAT, role, gap)


@dataclass(frozen=True, slots=True)
class Beats:
    """The beats of a role: without a gap since `covered_since`, the newest at `beat_at`."""

    covered_since: datetime
    beat_at: datetime


@dataclass(frozen=True, slots=True)
class Listening:
    """The beats of each role, None before its first, and the time: whether and since when reports can come in."""

    now: datetime
    graph: Beats | None
    scheduler: Beats | None


async def listening(session: AsyncSession) -> Listening:
    """Read the beats of both roles, and the time by Postgres' clock."""
    found = {row.role: Beats(row.covered_since, row.beat_at) for row in await session.scalars(_COVERAGE)}
    return Listening(await clock(session), found.get("graph"), found.get("scheduler"))


_COVERAGE = select(Coverage).execution_options(populate_existing=True)


async def find_quiet(session: AsyncSession, lease: timedelta) -> Sequence[Hosted]:
    """Find members of current attempts without a report for a lease: the candidates of a loss."""
    quiet = CURRENT_MEMBERS.where(Member.heartbeat_at < func.now() - lease)
    return [Hosted(*row) for row in await session.execute(quiet.order_by(Member.attempt_id, Member.rank))]


async def forgive_clock(session: AsyncSession) -> None:
    """After Postgres' clock was set back, what has happened may lie in the future: it counts from now.

    A heartbeat, for else a silent attempt would not be found; and the begin of a wait in the queue, unless it was put
    off on purpose, after an attempt that ended in the past. The past ends at clock_timestamp(): now() is this
    transaction's begin, and what another leader has ended and committed since would count as the future.
    """
    await session.execute(
        text(
            """
            UPDATE simulations SET queued_at = now() WHERE id IN (
                SELECT s.id FROM simulations AS s
                WHERE (SELECT max(queued_at) FROM simulations WHERE state = 'QUEUED' AND NOT held) > now()  -- one entry
                  AND s.state = 'QUEUED' AND NOT s.held AND s.queued_at > now()
                  AND s.queued_at > clock_timestamp() AND NOT EXISTS (
                    SELECT FROM attempts AS a
                    WHERE a.simulation_id = s.id AND a.number = s.attempt AND a.ended_at <= clock_timestamp()
                )
                ORDER BY s.id FOR NO KEY UPDATE
            )
            """
        )
    )
    await session.execute(
        update(Member)
        .where(Member.ended_at.is_(None), Member.heartbeat_at > func.now())
        .values(heartbeat_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def find_beyond_limit(session: AsyncSession) -> Sequence[tuple[Attempt, timedelta]]:
    """Current attempts that began longer ago than their limit, with it, and that nothing has stopped yet."""
    rows = await session.execute(
        select(Attempt, Simulation.max_runtime)
        .join(Simulation, Simulation.id == Attempt.simulation_id)
        .where(
            Attempt.ended_at.is_(None),
            Attempt.stop_wanted_at.is_(None) | (Attempt.stop_reason == Reason.PREEMPTED),
            Attempt.started_at + Simulation.max_runtime < func.now(),
        )
        .order_by(Attempt.id)
    )
    return [(attempt, limit) for attempt, limit in rows if limit is not None]


async def find_with_max_cost(session: AsyncSession) -> Sequence[tuple[Attempt, Decimal]]:
    """Current attempts of simulations with a cost limit that nothing has stopped yet, with that limit."""
    rows = await session.execute(
        select(Attempt, Simulation.max_cost)
        .join(Simulation, Simulation.id == Attempt.simulation_id)
        .where(
            Simulation.max_cost.is_not(None),
            Simulation.state.in_((SimulationState.STARTING, SimulationState.RUNNING)),
            Attempt.ended_at.is_(None),
            Attempt.stop_wanted_at.is_(None) | (Attempt.stop_reason == Reason.PREEMPTED),
        )
        .order_by(Attempt.id)
    )
    return [(attempt, limit) for attempt, limit in rows if limit is not None]
