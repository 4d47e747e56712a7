"""Attempts: launched, greeted, heard of, lost. What opens and ends one is in `lifecycle`.

The attempt's own row is the fence: every statement of a report is guarded by `ended_at IS NULL` on that row, so that
what an old attempt sends can't be stored after its successor began.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import func, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, lifecycle
from db.events import Actor
from db.models import Attempt, Coverage, Simulation
from db.states import Reason


class Standing(StrEnum):
    """What the row says to whoever claims to be an attempt's supervisor."""

    CURRENT = "CURRENT"
    OVER = "OVER"  # it has ended, or another supervisor was first
    UNKNOWN = "UNKNOWN"  # no such attempt, or not with this token


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello."""

    standing: Standing
    attempt: Attempt | None = None
    simulation: Simulation | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a report. `stored`: this very batch is to be stored now, in this transaction."""

    standing: Standing
    stored: bool = False
    simulation_id: int = 0
    number: int = 0
    expected_batch: int = 1
    stop_reason: Reason | None = None


# --- launching -------------------------------------------------------------------------------------------------


async def open_on_host(
    session: AsyncSession, host: str, *, not_launched: bool = False
) -> Sequence[tuple[Attempt, Simulation]]:
    """The current attempts on a host with their simulations, oldest first; all, or those still to be launched."""
    statement = (
        select(Attempt, Simulation)
        .join(Simulation, Simulation.id == Attempt.simulation_id)
        .where(Attempt.host == host, Attempt.ended_at.is_(None))
        .order_by(Attempt.id)
        .execution_options(populate_existing=True)
    )
    if not_launched:
        statement = statement.where(Attempt.launched_at.is_(None))
    return [(attempt, simulation) for attempt, simulation in await session.execute(statement)]


async def claim_launch(session: AsyncSession, attempt_id: int, token_digest: bytes) -> bool:
    """Bind a freshly minted token to an attempt that is about to be launched; False if nothing is to be launched.

    A launch that was cut off before it said hello is simply made again: the older token is worth nothing then.
    """
    claimed = await session.scalar(
        update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.ended_at.is_(None), Attempt.nonce.is_(None))
        .values(token_digest=token_digest, heartbeat_at=func.now())
        .returning(Attempt.id)
        .execution_options(synchronize_session=False)
    )
    return claimed is not None


async def note_launched(session: AsyncSession, attempt_id: int) -> None:
    """The engine has started the supervisor."""
    await session.execute(
        update(Attempt)
        .where(Attempt.id == attempt_id)
        .values(launched_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def find_unwanted(session: AsyncSession) -> Sequence[Attempt]:
    """Attempts that somebody wants stopped before anybody claimed their launch: no supervisor will ever hear of it."""
    return (
        await session.scalars(
            select(Attempt)
            .join(Simulation, Simulation.id == Attempt.simulation_id)
            .where(
                Attempt.ended_at.is_(None),
                Attempt.token_digest.is_(None),
                Attempt.launched_at.is_(None),
                Simulation.stop_wanted_at.is_not(None),
            )
            .order_by(Attempt.id)
        )
    ).all()


async def is_still_unclaimed(session: AsyncSession, attempt_id: int) -> bool:
    """Lock the attempt and look again: its launch may be claimed by now. The caller holds the simulation's lock."""
    found = await session.scalar(
        select(Attempt.id)
        .where(Attempt.id == attempt_id, Attempt.ended_at.is_(None), Attempt.token_digest.is_(None))
        .with_for_update(key_share=True)
    )
    return found is not None


# --- what supervisors say --------------------------------------------------------------------------------------


async def hello(
    session: AsyncSession, attempt_id: int, token_digest: bytes, nonce: str, actor: Actor = events.SUPERVISOR
) -> Greeting:
    """Bind the attempt to the first nonce and begin it; the same nonce again gets the same answer, any other OVER."""
    simulation_id = await session.scalar(
        select(Attempt.simulation_id).where(Attempt.id == attempt_id, Attempt.token_digest == token_digest)
    )
    if simulation_id is None:
        return Greeting(Standing.UNKNOWN)
    simulation = await lifecycle.lock(session, simulation_id)
    attempt = await session.scalar(
        update(Attempt)
        .where(
            Attempt.id == attempt_id,
            Attempt.token_digest == token_digest,
            Attempt.ended_at.is_(None),
            func.coalesce(Attempt.nonce, nonce) == nonce,
        )
        .values(nonce=nonce, heartbeat_at=func.now())
        .returning(Attempt)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if simulation is None or attempt is None:
        return Greeting(Standing.OVER)
    if attempt.started_at is None and simulation.stop_wanted_at is None:
        await lifecycle.begin(session, attempt, actor)
        await session.refresh(attempt)
        await session.refresh(simulation)
    return Greeting(Standing.CURRENT, attempt, simulation)


# Fence, order, idempotency and heartbeat in one row lock. The simulation is only read: no lock, no wait.
# `convergence.take_in` stores what it lets in with the same statement.
ACCEPT = """
    UPDATE attempts AS a SET next_batch = a.next_batch + 1, heartbeat_at = now()
    FROM simulations AS s
    WHERE a.id = $1 AND a.token_digest = $2 AND a.nonce = $3 AND a.ended_at IS NULL
      AND a.next_batch = $4 AND s.id = a.simulation_id
    RETURNING a.simulation_id, a.number, a.next_batch, s.stop_reason
"""
_BEAT = """
    UPDATE attempts AS a SET heartbeat_at = now()
    FROM simulations AS s
    WHERE a.id = $1 AND a.token_digest = $2 AND a.nonce = $3 AND a.ended_at IS NULL
      AND s.id = a.simulation_id
    RETURNING a.simulation_id, a.number, a.next_batch, s.stop_reason
"""


async def simulation_of(session: AsyncSession, attempt_id: int) -> int | None:
    """The simulation of an attempt; the way to its lock, which comes before the attempt's."""
    return await session.scalar(select(Attempt.simulation_id).where(Attempt.id == attempt_id))


async def accept(session: AsyncSession, attempt_id: int, token_digest: bytes, nonce: str, batch: int | None) -> Receipt:
    """Take note of a report: its batch is the next one, or it is a heartbeat (no batch, a duplicate, a gap).

    `stored` tells the caller to store the batch in this transaction; otherwise `expected_batch` says which is next.
    """
    connection = await session.connection()
    claim = (attempt_id, token_digest, nonce)
    if batch is not None:
        row = (await connection.exec_driver_sql(ACCEPT, (*claim, batch))).one_or_none()
        if row is not None:
            return receipt_of(row, stored=True)
    row = (await connection.exec_driver_sql(_BEAT, claim)).one_or_none()
    if row is not None:
        receipt = receipt_of(row, stored=False)
        if receipt.expected_batch != batch:
            return receipt
        # The hello, or the batch before, was committed between the two statements. Now the row is ours.
        return receipt_of((await connection.exec_driver_sql(ACCEPT, (*claim, batch))).one(), stored=True)
    known = await session.scalar(
        select(Attempt.next_batch).where(Attempt.id == attempt_id, Attempt.token_digest == token_digest)
    )
    if known is None:
        return Receipt(Standing.UNKNOWN)
    return Receipt(Standing.OVER, expected_batch=known)


def receipt_of(row: Sequence[Any], *, stored: bool) -> Receipt:
    """Read what `ACCEPT` returned."""
    simulation_id, number, next_batch, stop_reason = row
    reason = Reason(stop_reason) if stop_reason is not None else None
    return Receipt(Standing.CURRENT, stored, simulation_id, number, next_batch, reason)


# --- losing them -----------------------------------------------------------------------------------------------


# Each process says it every second, and what is delivered should not feel it: one statement, written out, whose commit
# waits for no disk. A beat that a crash of the server takes back only makes a lease begin later.
_SAY_ALIVE = text(
    """
    INSERT INTO coverage AS c (role, covered_since, beat_at)
    SELECT :role, clock_timestamp(), clock_timestamp() FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (role) DO UPDATE SET
        covered_since = CASE
            WHEN clock_timestamp() - c.beat_at BETWEEN interval '0' AND CAST(:gap AS interval) THEN c.covered_since
            ELSE clock_timestamp()
        END,
        beat_at = clock_timestamp()
    """
)


async def beat(session: AsyncSession, role: str, gap: timedelta) -> None:
    """Say that a process of this role is alive; a silence longer than `gap`, or a clock that jumped, begins anew.

    For a transaction of things that are said again and again: a crash of the server may take it back.
    By the time at which the row is ours, not by that of the transaction: one that began earlier and came later would
    take another process's beat for a clock that was set back.
    """
    await session.execute(_SAY_ALIVE, {"role": role, "gap": gap})


def coverage_gap(lease: timedelta) -> timedelta:
    """How long a role may be silent and still cover: a third of a lease, so that a slow round breaks nothing."""
    return lease / 3


def beat_period(lease: timedelta) -> timedelta:
    """How long a role waits from one beat to the next at most: three of them fit into a gap."""
    return coverage_gap(lease) / 3


async def heard_since(session: AsyncSession, gap: timedelta) -> datetime | None:
    """Since when reports could come in: some graph process beat, and the scheduler missed no tick. None: not now."""
    return await session.scalar(
        select(func.max(Coverage.covered_since))
        .where(Coverage.role.in_(("graph", "scheduler")), Coverage.beat_at >= func.now() - gap)
        .having(func.count() == 2)
    )


async def find_silent(session: AsyncSession, lease: timedelta, gap: timedelta) -> Sequence[Attempt]:
    """Attempts that were silent for a whole lease in which they could have been heard; otherwise nobody is silent."""
    since = await heard_since(session, gap)
    if since is None:
        return ()
    a_lease_ago = func.now() - lease
    return (
        await session.scalars(
            select(Attempt)
            .where(Attempt.ended_at.is_(None), Attempt.heartbeat_at < a_lease_ago)
            .where(a_lease_ago >= literal(since, Coverage.covered_since.type))
            .order_by(Attempt.id)
        )
    ).all()


async def is_still_silent(session: AsyncSession, attempt_id: int, lease: timedelta) -> bool:
    """Lock the attempt and look again: a report may have come in meanwhile. The caller holds the simulation's lock."""
    found = await session.scalar(
        select(Attempt.id)
        .where(Attempt.id == attempt_id, Attempt.ended_at.is_(None), Attempt.heartbeat_at < func.now() - lease)
        .with_for_update(key_share=True)
    )
    return found is not None


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
                WHERE s.state = 'QUEUED' AND s.queued_at > clock_timestamp() AND NOT EXISTS (
                    SELECT FROM attempts AS a
                    WHERE a.simulation_id = s.id AND a.number = s.attempt AND a.ended_at <= clock_timestamp()
                )
                ORDER BY s.id FOR NO KEY UPDATE
            )
            """
        )
    )
    await session.execute(
        update(Attempt)
        .where(Attempt.ended_at.is_(None), Attempt.heartbeat_at > func.now())
        .values(heartbeat_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def find_overdue(session: AsyncSession, margin: timedelta, gap: timedelta) -> Sequence[int]:
    """Simulations that nobody stopped, although their attempt began longer ago than their limit and the margin.

    Counted only while the scheduler missed no tick: an hour by which the clock jumped is no runtime, and neither is
    one by which it has jumped since the last tick.
    """
    return (
        await session.scalars(
            select(Simulation.id)
            .join(Attempt, Attempt.simulation_id == Simulation.id)
            .join(Coverage, (Coverage.role == "scheduler") & (Coverage.beat_at >= func.now() - gap))
            .where(
                Attempt.ended_at.is_(None),
                Attempt.started_at.is_not(None),  # `greatest` passes over what is null
                Simulation.stop_wanted_at.is_(None),
                func.greatest(Attempt.started_at, Coverage.covered_since) + Simulation.max_runtime + margin
                < func.now(),
            )
            .order_by(Simulation.id)
        )
    ).all()


# --- reading ---------------------------------------------------------------------------------------------------


async def newest_minted(session: AsyncSession) -> int:
    """The highest id that an attempt of this database ever had, deleted ones included; 0 before the first."""
    statement = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts_id_seq")
    return int((await session.execute(statement)).scalar_one())


async def clock(session: AsyncSession) -> datetime:
    """What time it is by Postgres' clock, the one that wrote every `*_at`."""
    return (await session.scalars(select(func.now()))).one()


async def of_simulation(session: AsyncSession, simulation_id: int) -> Sequence[Attempt]:
    """All attempts of a simulation, first to last."""
    return (
        await session.scalars(select(Attempt).where(Attempt.simulation_id == simulation_id).order_by(Attempt.number))
    ).all()


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[Attempt]:
    return (await session.scalars(select(Attempt).where(Attempt.id.in_(ids)))).all()


async def current_ids(session: AsyncSession, ids: Collection[int]) -> frozenset[int]:
    """Which of these attempts are current."""
    return frozenset(
        (await session.scalars(select(Attempt.id).where(Attempt.id.in_(ids), Attempt.ended_at.is_(None)))).all()
    )
