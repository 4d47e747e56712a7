"""Attempts: the statements by which they are created, launched, bound, reported for, stopped and closed.

Who calls them when is in `transitions`; what a silence or a limit means is judged by `policy.retry`, for the candidates
that are found here.

The attempt's own row is the fence: every statement of a report is guarded by `ended_at IS NULL` on that row, so that
what an old attempt sends can't be stored after its successor began.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Attempt, Coverage, Simulation
from db.states import Reason, SimulationState


class Standing(StrEnum):
    """Whether a claim to be an attempt's supervisor holds."""

    CURRENT = "CURRENT"
    OVER = "OVER"  # it has ended, or another supervisor was first
    UNKNOWN = "UNKNOWN"  # no such attempt, or not with this token


@dataclass(frozen=True, slots=True)
class Claim:
    """What a supervisor proves itself by: the attempt, the SHA-256 of its token, and the nonce of its hello."""

    attempt_id: int
    token_digest: bytes
    nonce: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a report. `stored`: this very batch is to be stored now, in this transaction."""

    standing: Standing
    stored: bool = False
    simulation_id: int = 0
    number: int = 0
    expected_batch: int = 1
    stop_reason: Reason | None = None


# --- from assignment to the end --------------------------------------------------------------------------------


async def create(session: AsyncSession, **values: Any) -> int:
    """Insert the next attempt; its id. The caller has moved its simulation to STARTING in this transaction."""
    attempt_id: int | None = await session.scalar(insert(Attempt).values(**values).returning(Attempt.id))
    assert attempt_id is not None
    return attempt_id


async def close(
    session: AsyncSession,
    simulation_id: int,
    number: int,
    *,
    reason: Reason,
    reason_detail: str | None,
    exit_code: int | None,
    signal: int | None,
) -> int | None:
    """End an attempt: from here on nothing of it is stored. Its id; None if it is not current."""
    return await session.scalar(
        update(Attempt)
        .where(Attempt.simulation_id == simulation_id, Attempt.number == number, Attempt.ended_at.is_(None))
        .values(ended_at=func.now(), reason=reason, reason_detail=reason_detail, exit_code=exit_code, signal=signal)
        .returning(Attempt.id)
        .execution_options(synchronize_session=False)
    )


async def want_stop(session: AsyncSession, simulation_id: int, reason: Reason, by: str) -> int | None:
    """Write the intent to stop a simulation that is on a machine. Its project; None if it is on none, or has one."""
    return await session.scalar(
        update(Simulation)
        .where(
            Simulation.id == simulation_id,
            Simulation.state.in_((SimulationState.STARTING, SimulationState.RUNNING)),
            Simulation.stop_wanted_at.is_(None),
        )
        .values(stop_wanted_at=func.now(), stop_wanted_by=by, stop_reason=reason)
        .returning(Simulation.project_id)
        .execution_options(synchronize_session=False)
    )


async def bind(session: AsyncSession, claim: Claim) -> Attempt | None:
    """Bind the attempt to the claim's nonce, if it is current and bound to no other; a heartbeat too."""
    return await session.scalar(
        update(Attempt)
        .where(
            Attempt.id == claim.attempt_id,
            Attempt.token_digest == claim.token_digest,
            Attempt.ended_at.is_(None),
            func.coalesce(Attempt.nonce, claim.nonce) == claim.nonce,
        )
        .values(nonce=claim.nonce, heartbeat_at=func.now())
        .returning(Attempt)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


async def note_started(session: AsyncSession, attempt_id: int) -> None:
    """Its supervisor has said hello."""
    await session.execute(
        update(Attempt)
        .where(Attempt.id == attempt_id)
        .values(started_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def lock(session: AsyncSession, attempt_id: int) -> Attempt | None:
    """Lock a current attempt and read it; None if it has ended. The caller holds the simulation's lock."""
    return await session.scalar(
        select(Attempt)
        .where(Attempt.id == attempt_id, Attempt.ended_at.is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


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
    """Attempts that are to be stopped and whose launch is unclaimed: there is no supervisor to receive it."""
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


# --- what supervisors say --------------------------------------------------------------------------------------


async def has_token(session: AsyncSession, token_digest: bytes) -> bool:
    """Whether this is the token of some attempt, ended ones included. What it may do is judged where it is used."""
    return await session.scalar(select(Attempt.id).where(Attempt.token_digest == token_digest)) is not None


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


async def simulation_of(session: AsyncSession, attempt_id: int, token_digest: bytes) -> int | None:
    """The simulation of an attempt with this token; the way to its lock, which comes before the attempt's."""
    return await session.scalar(
        select(Attempt.simulation_id).where(Attempt.id == attempt_id, Attempt.token_digest == token_digest)
    )


async def accept(session: AsyncSession, claim: Claim, batch: int | None) -> Receipt:
    """Take note of a report: its batch is the next one, or it is a heartbeat (no batch, a duplicate, a gap).

    `stored` tells the caller to store the batch in this transaction; otherwise `expected_batch` says which is next.
    """
    connection = await session.connection()
    proof = (claim.attempt_id, claim.token_digest, claim.nonce)
    if batch is not None:
        row = (await connection.exec_driver_sql(ACCEPT, (*proof, batch))).one_or_none()
        if row is not None:
            return receipt_of(row, stored=True)
    row = (await connection.exec_driver_sql(_BEAT, proof)).one_or_none()
    if row is not None:
        receipt = receipt_of(row, stored=False)
        if receipt.expected_batch != batch:
            return receipt
        # The hello, or the batch before, was committed between the two statements. Now the row is ours.
        return receipt_of((await connection.exec_driver_sql(ACCEPT, (*proof, batch))).one(), stored=True)
    known = await session.scalar(
        select(Attempt.next_batch).where(Attempt.id == claim.attempt_id, Attempt.token_digest == claim.token_digest)
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
    """Note that a process of this role is alive; a silence longer than `gap`, or a clock that jumped, begins anew.

    For a transaction of things that are said again and again: a crash of the server may take it back.
    By the time at which the row is ours, not by that of the transaction: one that began earlier and came later would
    take another process's beat for a clock that was set back.
    """
    await session.execute(_SAY_ALIVE, {"role": role, "gap": gap})


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


async def find_quiet(session: AsyncSession, lease: timedelta) -> Sequence[Attempt]:
    """Current attempts of which nothing was heard for a lease: the candidates of a loss."""
    return (
        await session.scalars(
            select(Attempt)
            .where(Attempt.ended_at.is_(None), Attempt.heartbeat_at < func.now() - lease)
            .order_by(Attempt.id)
        )
    ).all()


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
                WHERE (SELECT max(queued_at) FROM simulations WHERE state = 'QUEUED') > now()  -- one entry of an index
                  AND s.state = 'QUEUED' AND s.queued_at > now() AND s.queued_at > clock_timestamp() AND NOT EXISTS (
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


async def find_beyond_limit(session: AsyncSession) -> Sequence[tuple[Attempt, timedelta]]:
    """Current attempts that began longer ago than their limit, with it, and that nothing has stopped yet."""
    rows = await session.execute(
        select(Attempt, Simulation.max_runtime)
        .join(Simulation, Simulation.id == Attempt.simulation_id)
        .where(
            Attempt.ended_at.is_(None),
            Simulation.stop_wanted_at.is_(None),
            Attempt.started_at + Simulation.max_runtime < func.now(),
        )
        .order_by(Attempt.id)
    )
    return [(attempt, limit) for attempt, limit in rows if limit is not None]


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
