"""Attempts: the statements that create, launch, bind, stop and close them, and accept their reports.

`transitions` decides when they are called; `policy.retry` judges silence and limits, for the candidates found here.

An attempt has members, each one process on one machine; today there is one, of rank 0. The member's row is the fence of
its reports: every statement of a report is guarded by `members.ended_at IS NULL`, which is set for all members in the
transaction that ends the attempt, so a report of an old attempt can't be stored after its successor began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import ColumnElement, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Attempt, Coverage, Member, Simulation
from db.states import Reason, SimulationState


@dataclass(frozen=True, slots=True)
class Execution:
    """An attempt with its leading member, the one of rank 0."""

    attempt: Attempt
    lead: Member

    @property
    def id(self) -> int:
        return self.attempt.id


@dataclass(frozen=True, slots=True)
class StopIntent:
    """Intent to end an attempt: since when, by which actor and why, on which evidence."""

    wanted_at: datetime
    by: str
    reason: Reason
    evidence: Mapping[str, Any] | None = None


class Standing(StrEnum):
    """Whether a claim to be an attempt's supervisor holds."""

    CURRENT = "CURRENT"
    OVER = "OVER"  # it has ended, or another supervisor was first
    UNKNOWN = "UNKNOWN"  # no such attempt, or not with this token


@dataclass(frozen=True, slots=True)
class Claim:
    """Credentials of a supervisor: the attempt, the SHA-256 of its token, and the nonce of its hello."""

    attempt_id: int
    token_digest: bytes
    nonce: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a report. `stored`: the batch has to be stored now, in this transaction."""

    standing: Standing
    stored: bool = False
    simulation_id: int = 0
    number: int = 0
    expected_batch: int = 1
    stop_reason: Reason | None = None
    amended: Mapping[str, Any] | None = None  # what has changed of the attempt's order since its hello


LEAD = 0  # the rank of the member whose points are the curve

_EXECUTIONS = (
    select(Attempt, Member)
    .join(Member, (Member.attempt_id == Attempt.id) & (Member.rank == LEAD))
    .execution_options(populate_existing=True)
)
_CURRENT = _EXECUTIONS.where(Attempt.ended_at.is_(None), Member.ended_at.is_(None))  # both: by the partial indexes


# --- from assignment to the end --------------------------------------------------------------------------------


async def create(session: AsyncSession, simulation_id: int, number: int, **grant: Any) -> int:
    """Insert the next attempt and its member; return its id. The caller has moved its simulation to STARTING.

    grant: the member's columns of machine, resources and price.
    """
    attempt_id: int | None = await session.scalar(
        insert(Attempt).values(simulation_id=simulation_id, number=number).returning(Attempt.id)
    )
    assert attempt_id is not None
    await session.execute(insert(Member).values(attempt_id=attempt_id, rank=LEAD, **grant))
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
    """End an attempt and its members: no later report is stored. Returns its id; None if it is not current."""
    attempt_id = await session.scalar(
        update(Attempt)
        .where(Attempt.simulation_id == simulation_id, Attempt.number == number, Attempt.ended_at.is_(None))
        .values(ended_at=func.now(), reason=reason, reason_detail=reason_detail, exit_code=exit_code, signal=signal)
        .returning(Attempt.id)
        .execution_options(synchronize_session=False)
    )
    if attempt_id is not None:
        await session.execute(
            update(Member)
            .where(Member.attempt_id == attempt_id, Member.ended_at.is_(None))
            .values(ended_at=func.now(), exit_code=exit_code, signal=signal)
            .execution_options(synchronize_session=False)
        )
    return attempt_id


async def find_current(session: AsyncSession, simulation_id: int) -> Attempt | None:
    """The current attempt of a simulation, None if it is on no machine. Stable while the caller holds its lock."""
    return await session.scalar(
        select(Attempt)
        .where(Attempt.simulation_id == simulation_id, Attempt.ended_at.is_(None))
        .execution_options(populate_existing=True)
    )


async def count_preempted(session: AsyncSession, simulation_id: int) -> int:
    """Count the preempted attempts, which use up no retry."""
    counted = select(func.count()).where(Attempt.simulation_id == simulation_id, Attempt.reason == Reason.PREEMPTED)
    return int((await session.scalars(counted)).one())


_PREEMPTED_TIME = text(
    """
    SELECT coalesce(sum(a.ended_at - a.started_at), interval '0') FROM attempts AS a
    WHERE a.simulation_id = :id AND a.reason = 'PREEMPTED' AND a.number > coalesce((
        SELECT max(o.number) FROM attempts AS o
        WHERE o.simulation_id = :id AND o.ended_at IS NOT NULL AND o.reason <> 'PREEMPTED'
    ), 0)
    """
)


async def preempted_time(session: AsyncSession, simulation_id: int) -> timedelta:
    """How long the attempts ran that the next one continues: those preempted since the last that failed or was lost."""
    return (await session.execute(_PREEMPTED_TIME, {"id": simulation_id})).scalar_one()  # type: ignore[no-any-return]


async def want_stop(
    session: AsyncSession, attempt_id: int, reason: Reason, by: str, evidence: dict[str, Any] | None
) -> bool:
    """Write the intent to stop a current attempt; False if it has one already.

    The first intent stands, but one that ends the simulation replaces a preemption.
    """
    replaceable: ColumnElement[bool] = Attempt.stop_wanted_at.is_(None)
    if reason is not Reason.PREEMPTED:
        replaceable = replaceable | (Attempt.stop_reason == Reason.PREEMPTED)
    written = await session.scalar(
        update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.ended_at.is_(None), replaceable)
        .values(stop_wanted_at=func.now(), stop_wanted_by=by, stop_reason=reason, stop_evidence=evidence)
        .returning(Attempt.id)
        .execution_options(synchronize_session=False)
    )
    return written is not None


async def amend(session: AsyncSession, attempt_id: int, amended: Mapping[str, Any]) -> None:
    """Write what has changed of a current attempt's order; it goes out with the replies to its reports."""
    await session.execute(
        update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.ended_at.is_(None))
        .values(amended=dict(amended))
        .execution_options(synchronize_session=False)
    )


async def bind(session: AsyncSession, claim: Claim) -> Execution | None:
    """Bind the member to the claim's nonce, if it is current and bound to no other; a heartbeat too."""
    member = await session.scalar(
        update(Member)
        .where(
            Member.attempt_id == claim.attempt_id,
            Member.token_digest == claim.token_digest,
            Member.ended_at.is_(None),
            func.coalesce(Member.nonce, claim.nonce) == claim.nonce,
        )
        .values(nonce=claim.nonce, heartbeat_at=func.now())
        .returning(Member)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if member is None:
        return None
    attempt = await session.get(Attempt, claim.attempt_id, populate_existing=True)
    return Execution(attempt, member) if attempt is not None else None


async def note_started(session: AsyncSession, attempt_id: int) -> None:
    """Note the supervisor's hello."""
    await session.execute(
        update(Attempt)
        .where(Attempt.id == attempt_id)
        .values(started_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def lock(session: AsyncSession, attempt_id: int) -> Execution | None:
    """Lock a current attempt and its leading member and read them; None if it has ended.

    The caller holds the simulation's lock. While this one is held, no report comes in.
    """
    row = (
        await session.execute(
            _EXECUTIONS.where(Attempt.id == attempt_id, Attempt.ended_at.is_(None)).with_for_update(key_share=True)
        )
    ).one_or_none()
    return Execution(*row) if row is not None else None


# --- launching -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hosted:
    """A current attempt on a host, with its simulation."""

    attempt: Attempt
    member: Member
    simulation: Simulation


async def open_on_host(session: AsyncSession, host: str, *, not_launched: bool = False) -> Sequence[Hosted]:
    """The current attempts on a host, oldest first; all, or those still to be launched."""
    statement = (
        select(Attempt, Member, Simulation)
        .join(Member, Member.attempt_id == Attempt.id)
        .join(Simulation, Simulation.id == Attempt.simulation_id)
        .where(Member.host == host, Member.ended_at.is_(None))
        .order_by(Member.id)
        .execution_options(populate_existing=True)
    )
    if not_launched:
        statement = statement.where(Member.launched_at.is_(None))
    return [Hosted(*row) for row in await session.execute(statement)]


async def claim_launch(session: AsyncSession, attempt_id: int, token_digest: bytes) -> bool:
    """Bind a freshly minted token to an attempt that is about to be launched; False if nothing is to be launched.

    A launch that was cut off before its hello is repeated: the older token is then invalid.
    """
    claimed = await session.scalar(
        update(Member)
        .where(Member.attempt_id == attempt_id, Member.rank == LEAD, Member.ended_at.is_(None), Member.nonce.is_(None))
        .values(token_digest=token_digest, heartbeat_at=func.now())
        .returning(Member.id)
        .execution_options(synchronize_session=False)
    )
    return claimed is not None


async def note_launched(session: AsyncSession, attempt_id: int) -> None:
    """Note that the engine has started the supervisor."""
    await session.execute(
        update(Member)
        .where(Member.attempt_id == attempt_id, Member.rank == LEAD)
        .values(launched_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def find_unwanted(session: AsyncSession) -> Sequence[Execution]:
    """Find attempts with a stop intent and an unclaimed launch: no supervisor can receive the intent."""
    unwanted = _CURRENT.where(
        Member.token_digest.is_(None), Member.launched_at.is_(None), Attempt.stop_wanted_at.is_not(None)
    )
    return [Execution(*row) for row in await session.execute(unwanted.order_by(Member.attempt_id))]


# --- reports of supervisors --------------------------------------------------------------------------------------


async def has_token(session: AsyncSession, token_digest: bytes) -> bool:
    """Whether this is the token of some attempt, ended ones included. What it may do is judged where it is used."""
    return await session.scalar(select(Member.id).where(Member.token_digest == token_digest)) is not None


# Fence, order, idempotency and heartbeat in one row lock, the member's. The attempt is only read: no lock, no wait.
# `convergence.take_in` stores what it lets in with the same statement.
ACCEPT = """
    UPDATE members AS m SET next_batch = m.next_batch + 1, heartbeat_at = now()
    FROM attempts AS a
    WHERE m.attempt_id = $1 AND m.token_digest = $2 AND m.nonce = $3 AND m.ended_at IS NULL
      AND m.next_batch = $4 AND a.id = m.attempt_id
    RETURNING a.simulation_id, a.number, m.next_batch, a.stop_reason, a.amended::text
"""
_BEAT = """
    UPDATE members AS m SET heartbeat_at = now()
    FROM attempts AS a
    WHERE m.attempt_id = $1 AND m.token_digest = $2 AND m.nonce = $3 AND m.ended_at IS NULL
      AND a.id = m.attempt_id
    RETURNING a.simulation_id, a.number, m.next_batch, a.stop_reason, a.amended::text
"""


async def simulation_of(session: AsyncSession, attempt_id: int, token_digest: bytes) -> int | None:
    """The simulation of an attempt with this token; the way to its lock, which comes before the attempt's."""
    return await session.scalar(
        select(Attempt.simulation_id)
        .join(Member, Member.attempt_id == Attempt.id)
        .where(Attempt.id == attempt_id, Member.token_digest == token_digest)
    )


async def accept(session: AsyncSession, claim: Claim, batch: int | None) -> Receipt:
    """Record a report: its batch is the next one, or it is a heartbeat (no batch, a duplicate, a gap).

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
        select(Member.next_batch).where(
            Member.attempt_id == claim.attempt_id, Member.token_digest == claim.token_digest
        )
    )
    if known is None:
        return Receipt(Standing.UNKNOWN)
    return Receipt(Standing.OVER, expected_batch=known)


def receipt_of(row: Sequence[Any], *, stored: bool) -> Receipt:
    """Read what `ACCEPT` returned."""
    simulation_id, number, next_batch, stop_reason, amended = row
    reason = Reason(stop_reason) if stop_reason is not None else None
    changes = orjson.loads(amended) if amended is not None else None
    return Receipt(Standing.CURRENT, stored, simulation_id, number, next_batch, reason, changes)


# --- losing them -----------------------------------------------------------------------------------------------


# Every process beats once a second, which must not slow down deliveries: one statement, written out, and its commit
# waits for no disk. A beat lost in a crash of the server only makes a lease begin later.
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

    For a transaction of repeated writes: a crash of the server may lose it. The time is taken under the row's lock, not
    at the transaction's begin: a transaction that began earlier and got the lock later would take another process's
    beat for a clock that was set back.
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


async def find_quiet(session: AsyncSession, lease: timedelta) -> Sequence[Execution]:
    """Find current attempts without a report for a lease: the candidates of a loss."""
    quiet = _CURRENT.where(Member.heartbeat_at < func.now() - lease)
    return [Execution(*row) for row in await session.execute(quiet.order_by(Member.attempt_id))]


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


# --- reading ---------------------------------------------------------------------------------------------------


async def newest_minted(session: AsyncSession) -> int:
    """The highest id that an attempt of this database ever had, deleted ones included; 0 before the first."""
    statement = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts_id_seq")
    return int((await session.execute(statement)).scalar_one())


async def clock(session: AsyncSession) -> datetime:
    """Read Postgres' clock, which wrote every `*_at`."""
    return (await session.scalars(select(func.now()))).one()


async def of_simulation(session: AsyncSession, simulation_id: int) -> Sequence[Execution]:
    """All attempts of a simulation, first to last."""
    rows = await session.execute(_EXECUTIONS.where(Attempt.simulation_id == simulation_id).order_by(Attempt.number))
    return [Execution(*row) for row in rows]


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[Execution]:
    rows = await session.execute(_EXECUTIONS.where(Attempt.id.in_(ids)))
    return [Execution(*row) for row in rows]


async def stops_of(session: AsyncSession, ids: Collection[int]) -> Mapping[int, StopIntent]:
    """Stop intents of these simulations' newest attempts; simulations without one are left out.

    A queued simulation has no intent, whatever ended its last attempt.
    """
    rows = await session.execute(
        select(
            Simulation.id, Attempt.stop_wanted_at, Attempt.stop_wanted_by, Attempt.stop_reason, Attempt.stop_evidence
        )
        .join(Attempt, (Attempt.simulation_id == Simulation.id) & (Attempt.number == Simulation.attempt))
        .where(Simulation.id.in_(ids), Simulation.state != SimulationState.QUEUED, Attempt.stop_wanted_at.is_not(None))
    )
    return {
        simulation_id: StopIntent(wanted_at, by or "", reason, evidence)
        for simulation_id, wanted_at, by, reason, evidence in rows
        if wanted_at is not None and reason is not None
    }


async def current_ids(session: AsyncSession, ids: Collection[int]) -> frozenset[int]:
    """Which of these attempts are current."""
    return frozenset(
        (await session.scalars(select(Attempt.id).where(Attempt.id.in_(ids), Attempt.ended_at.is_(None)))).all()
    )
