"""Attempts: the statements that create, launch, bind, stop and close them, and accept their reports.

`transitions` decides when they are called. What is silent or beyond a limit is found in `db.silence`, and judged by
`policy.retry`.

An attempt has members, each one process on one machine. The member's row is the fence of its reports: every statement
of a report is guarded by `members.ended_at IS NULL`, which is set when the member ends, and for all that are left in
the transaction that ends the attempt, so a report of an old attempt can't be stored after its successor began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import Boolean, ColumnElement, case, func, insert, literal_column, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only, undefer

from db.models import Attempt, Machine, Member, Package, Simulation
from db.outage import Driver
from db.states import MetricsFrom, Reason, SimulationState


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
    rank: int = 0


LEAD = 0  # the rank of the member whose points are the curve

_EXECUTIONS = (
    select(Attempt, Member)
    .join(Member, (Member.attempt_id == Attempt.id) & (Member.rank == LEAD))
    .execution_options(populate_existing=True)
)
_HOSTED = (
    select(Attempt, Member).join(Member, Member.attempt_id == Attempt.id).execution_options(populate_existing=True)
)
CURRENT_MEMBERS = _HOSTED.where(Attempt.ended_at.is_(None), Member.ended_at.is_(None))  # both: by the partial indexes


# What a host's loop reads of them each second: all columns would take three times as long.
_OF_HOST = (
    load_only(
        Attempt.simulation_id, Attempt.number, Attempt.stop_wanted_at, Attempt.reason, raiseload=True
    ),
    load_only(
        Member.attempt_id, Member.rank, Member.machine_id, Member.machine_name, Member.host, Member.nonce,
        Member.launched_at, Member.heartbeat_at, Member.saved_at, Member.ended_at, raiseload=True,
    ),
)  # fmt: skip
_GRANT = (undefer(Member.cpus), undefer(Member.memory_gib), undefer(Member.gpus))  # what a launch takes beside it


# --- from assignment to the end --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Next:
    """The next attempt of a simulation. grants: by rank, the members' columns of machine, resources and price."""

    simulation_id: int
    number: int
    grants: Sequence[Mapping[str, Any]]


async def create(session: AsyncSession, wanted: Sequence[Next]) -> Mapping[int, int]:
    """Insert attempts and their members; return the attempts' ids by simulation, which the caller moved to STARTING."""
    rows = await session.execute(
        insert(Attempt).returning(Attempt.simulation_id, Attempt.id),
        [{"simulation_id": each.simulation_id, "number": each.number} for each in wanted],
    )
    made: dict[int, int] = {row[0]: row[1] for row in rows}
    members = [
        {"attempt_id": made[each.simulation_id], "rank": rank, **grant}
        for each in wanted
        for rank, grant in enumerate(each.grants)
    ]
    await session.execute(insert(Member), members)
    return made


# A part of `lifecycle.end`: the attempt of the row of `given`, with its members, which are found by what the first part
# returns, so the attempt is locked first.
CLOSE = """
    closed AS (
        UPDATE attempts AS a
        SET ended_at = now(), reason = {reason}, reason_detail = {detail}, exit_code = {exit_code}, signal = {signal}
        FROM given WHERE a.simulation_id = given.id AND a.number = given.fence AND a.ended_at IS NULL
        RETURNING a.id
    ), ended AS (
        UPDATE members SET ended_at = now(), exit_code = {exit_code}, signal = {signal}
        FROM closed WHERE members.attempt_id = closed.id AND members.ended_at IS NULL
    )
"""


async def find_current(session: AsyncSession, simulation_id: int) -> Attempt | None:
    """The current attempt of a simulation, None if it is on no machine. Stable while the caller holds its lock."""
    return await session.scalar(
        select(Attempt)
        .where(Attempt.simulation_id == simulation_id, Attempt.ended_at.is_(None))
        .execution_options(populate_existing=True)
    )


async def end_member(
    session: AsyncSession, attempt_id: int, rank: int, *, exit_code: int | None, signal: int | None
) -> None:
    """End one member of a current attempt: no later report of it is stored, and its grant is free."""
    await session.execute(
        update(Member)
        .where(Member.attempt_id == attempt_id, Member.rank == rank, Member.ended_at.is_(None))
        .values(ended_at=func.now(), exit_code=exit_code, signal=signal)
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True, slots=True)
class Gang:
    """The members of an attempt beside the one that ends, for an attempt with several."""

    attempt_id: int
    size: int
    machine_name: str  # of the one that ends
    is_open: bool  # the one that ends has not ended yet
    open: int  # others that have not ended
    failed: int  # others that have ended in another way than with exit code 0


@dataclass(frozen=True, slots=True)
class Settling:
    """What the end of a current attempt is judged by. `preempted` attempts used up no retry.

    first: the end of the member for which the attempt is stopped, from the evidence of the intent.
    """

    number: int
    stop_reason: Reason | None
    stop_sentence: str | None  # of the evidence
    preempted: int
    max_retries: int
    retry_on: frozenset[str]
    max_cost: Decimal | None
    attempt_id: int
    machines: int
    first: Mapping[str, Any] | None


async def find_settling(session: AsyncSession, simulation_id: int) -> Settling | None:
    """Read the current attempt of a simulation for its end; None if it is on no machine. The caller holds its lock."""
    found = await (await session.connection()).exec_driver_sql(_SETTLING, (simulation_id,))
    row: Any = found.one_or_none()
    return _settling(row) if row is not None else None


def _settling(row: Sequence[Any]) -> Settling:
    number, stop_reason, stop_sentence, preempted, max_retries, retry_on, max_cost, attempt_id, machines, first = row
    reason = Reason(stop_reason) if stop_reason is not None else None
    return Settling(
        number, reason, stop_sentence, preempted, max_retries, frozenset(retry_on), max_cost, attempt_id, machines,
        orjson.loads(first) if first is not None else None,
    )  # fmt: skip


_JUDGED_BY = """
    a.number, a.stop_reason, a.stop_evidence ->> 'sentence' AS stop_sentence,
    (SELECT count(*) FROM attempts AS p WHERE p.simulation_id = s.id AND p.reason = 'PREEMPTED') AS preempted,
    s.max_retries, s.retry_on, s.max_cost, a.id AS attempt_id, s.machines, a.stop_evidence ->> 'member' AS first
"""
_SETTLING = f"""
    SELECT {_JUDGED_BY} FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id
    WHERE a.simulation_id = $1 AND a.ended_at IS NULL
"""  # noqa: S608  # the constant above


async def find_gang(session: AsyncSession, attempt_id: int, rank: int) -> Gang:
    """Read the members of a current attempt for the end of one. The caller holds the simulation's lock."""
    row: Any = (await session.execute(_GANG, {"attempt_id": attempt_id, "rank": rank})).one()
    return Gang(attempt_id, *row)


_GANG = text(
    """
    SELECT count(*), max(machine_name) FILTER (WHERE rank = :rank),
           bool_or(ended_at IS NULL) FILTER (WHERE rank = :rank),
           count(*) FILTER (WHERE rank <> :rank AND ended_at IS NULL),
           count(*) FILTER (WHERE rank <> :rank AND ended_at IS NOT NULL AND exit_code IS DISTINCT FROM 0)
    FROM members WHERE attempt_id = :attempt_id
    """
)


async def want_stop(
    session: AsyncSession, attempt_id: int, reason: Reason, by: str, evidence: dict[str, Any] | None
) -> bool:
    """Write the intent to stop a current attempt; False if it has one already.

    The first intent stands, but one that ends the simulation replaces a preemption, and the stop of the other members
    after the end of one (`member` in the evidence), which itself replaces none.
    """
    replaceable: ColumnElement[bool] = Attempt.stop_wanted_at.is_(None)
    if reason is not Reason.PREEMPTED and "member" not in (evidence or {}):
        replaceable |= (Attempt.stop_reason == Reason.PREEMPTED) | Attempt.stop_evidence.bool_op("?")("member")
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


@dataclass(frozen=True, slots=True)
class Work:
    """What a supervisor is to do: from its member, the attempt, the simulation, and the name of its project."""

    attempt_id: int
    number: int
    stop_reason: Reason | None  # of the attempt's stop intent
    rank: int
    gpu_indices: Sequence[int]
    simulation_id: int
    name: str
    project: str
    entrypoint: Sequence[str]
    environment: Mapping[str, str]
    parameters: Mapping[str, Any]
    working_directory: str | None
    machines: int
    max_runtime: timedelta | None
    attained: timedelta  # of that, by the attempts that this one continues
    max_cost: Decimal | None
    metrics_from: MetricsFrom
    metrics_patterns: Sequence[str]
    tensorboard: Sequence[str]
    system_metrics_seconds: float | None
    is_judged: bool  # it has stop rules


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound member's work. `is_new`: its attempt has neither begun nor a stop intent."""

    is_new: bool
    work: Work


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a member's host is reached by those of the others, and a port that is free there."""

    address: str | None = None
    port: int | None = None


NOWHERE = Endpoint()  # of a single member: it has none to meet


async def bind(session: AsyncSession, claim: Claim, endpoint: Endpoint = NOWHERE) -> Bound | None:
    """Lock the simulation and its attempt, and bind the member to the claim's nonce; a heartbeat too.

    None if there is no such member (`is_known`), or it has ended, or is bound to another nonce.
    """
    given = (claim.attempt_id, claim.token_digest, claim.nonce, endpoint.address, endpoint.port)
    row: Any = (await (await session.connection()).exec_driver_sql(_BIND, given)).one_or_none()
    if row is None:
        return None
    is_new, *of_work = row
    return Bound(is_new, work_of(of_work))


def work_of(row: Sequence[Any]) -> Work:
    """Read what `BIND` returned behind `is_new`."""
    attempt_id, number, stop_reason, rank, gpu_indices, simulation_id, name, project, *asked = row
    entrypoint, environment, parameters, directory, machines, runtime, attained, cost, metrics_from, *rest = asked
    return Work(
        attempt_id, number, Reason(stop_reason) if stop_reason is not None else None, rank, gpu_indices,
        simulation_id, name, project, entrypoint, orjson.loads(environment), orjson.loads(parameters), directory,
        machines, runtime, attained, cost, MetricsFrom(metrics_from), *rest,
    )  # fmt: skip


# The locks are taken in the order of their names, and a row that has changed meanwhile is read again. The member's
# conditions are those of the update, which reads it again likewise. `lifecycle.begin` binds with the same parts.
GREETED = """
    mine AS (
        SELECT m.id AS member_id, a.started_at IS NULL AND a.stop_wanted_at IS NULL AS is_new, a.id AS attempt_id,
               a.number, a.stop_reason, s.id, s.name, p.name AS project, s.entrypoint, s.environment, s.parameters,
               s.working_directory, s.machines, s.max_runtime, s.attained, s.max_cost, s.metrics_from,
               s.metrics_patterns, s.tensorboard, s.system_metrics_seconds, s.stopping IS NOT NULL AS is_judged
        FROM members AS m
        JOIN attempts AS a ON a.id = m.attempt_id
        JOIN simulations AS s ON s.id = a.simulation_id
        JOIN projects AS p ON p.id = s.project_id
        WHERE {condition} m.attempt_id = $1 AND m.token_digest = $2
        FOR NO KEY UPDATE OF s, a
    )
"""
BIND = """
    UPDATE members AS m SET nonce = $3, heartbeat_at = now(),
        address = coalesce({address}::text, m.address), port = coalesce({port}::integer, m.port)
    FROM mine
    WHERE m.id = mine.member_id AND m.token_digest = $2 AND m.ended_at IS NULL AND coalesce(m.nonce, $3) = $3
    RETURNING mine.is_new, mine.attempt_id, mine.number, mine.stop_reason, m.rank, m.gpu_indices, mine.id, mine.name,
        mine.project, mine.entrypoint, mine.environment::text, mine.parameters::text, mine.working_directory,
        mine.machines, mine.max_runtime, mine.attained, mine.max_cost, mine.metrics_from, mine.metrics_patterns,
        mine.tensorboard, mine.system_metrics_seconds, mine.is_judged
"""
_BIND = f"WITH {GREETED.format(condition='')} {BIND.format(address='$4', port='$5')}"


async def is_known(session: AsyncSession, claim: Claim) -> bool:
    """Whether the attempt has a member with this token, an ended one included."""
    mine = (Member.attempt_id == claim.attempt_id) & (Member.token_digest == claim.token_digest)
    return await session.scalar(select(Member.id).where(mine)) is not None


async def are_all_bound(session: AsyncSession, attempt_id: int) -> bool:
    """Whether all members of an attempt are bound. The caller holds the simulation's lock, so the last one sees it."""
    missing = select(Member.id).where(Member.attempt_id == attempt_id, Member.nonce.is_(None)).limit(1)
    return await session.scalar(missing) is None


async def note_greeted(session: AsyncSession, attempt_id: int) -> datetime:
    """Note that a member has said hello and waits for others; return when the first did."""
    greeted_at: datetime | None = await session.scalar(
        update(Attempt)
        .where(Attempt.id == attempt_id)
        .values(greeted_at=func.coalesce(Attempt.greeted_at, func.now()))
        .returning(Attempt.greeted_at)
        .execution_options(synchronize_session=False)
    )
    assert greeted_at is not None, "the caller has bound a member of it"
    return greeted_at


async def members_of(session: AsyncSession, ids: Collection[int]) -> Sequence[Member]:
    """The members of these attempts, each attempt's by rank."""
    statement = select(Member).where(Member.attempt_id.in_(ids)).order_by(Member.attempt_id, Member.rank)
    return (await session.scalars(statement.execution_options(populate_existing=True))).all()


_WAITED = text("SELECT coalesce(started_at - assigned_at, interval '0') FROM attempts WHERE id = :id")


async def waited(session: AsyncSession, attempt_id: int) -> timedelta:
    """How long an attempt was assigned before its hello; nothing before that."""
    return (await session.execute(_WAITED, {"id": attempt_id})).scalar_one()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Hosted:
    """A member, and the attempt that it belongs to. size: how many members that has, where it was asked for.

    checkpoint_of: the simulation whose checkpoint it begins with a copy of; 0 for one that was deleted.
    begins_from_store: that checkpoint is stored, and is not to be copied on the machine where it was written.
    package: the digest of the code that it starts in. runtime_env: for Ray. is_claimed: a launch may have started it.
    These only of one that is to be launched.
    """

    attempt: Attempt
    member: Member
    size: int = 1
    checkpoint_of: int | None = None
    begins_from_store: bool = False
    package: bytes | None = None
    runtime_env: Mapping[str, Any] | None = None
    is_claimed: bool = False

    @property
    def id(self) -> int:
        """The attempt's."""
        return self.attempt.id


async def lock(session: AsyncSession, attempt_id: int, rank: int = LEAD) -> Hosted | None:
    """Lock a current attempt and one member of it and read them; None if one of them has ended.

    The caller holds the simulation's lock. While this one is held, no report of the member comes in.
    """
    row = (
        await session.execute(
            CURRENT_MEMBERS.where(Attempt.id == attempt_id, Member.rank == rank).with_for_update(key_share=True)
        )
    ).one_or_none()
    return Hosted(*row) if row is not None else None


# --- launching -------------------------------------------------------------------------------------------------


async def open_on_host(session: AsyncSession, host: str, *, not_launched: bool = False) -> Sequence[Hosted]:
    """The members of current attempts on a host, oldest first; all, or those still to be launched."""
    return await _open(session, Member.host == host, not_launched)


async def open_on_engine(session: AsyncSession, engine: str, *, not_launched: bool = False) -> Sequence[Hosted]:
    """The members of current attempts on an engine's machines, likewise."""
    there = select(Machine.id).where(Machine.engine == engine)  # a machine with open members can't be deleted
    return await _open(session, Member.machine_id.in_(there), not_launched)


_CHECKPOINT_OF = case((Simulation.from_checkpoint, func.coalesce(Simulation.retry_of, 0)))
_PACKAGE = select(Package.digest).where(Package.id == Simulation.package_id).scalar_subquery()
_LAUNCHED_WITH = (_PACKAGE, Simulation.runtime_env, Member.token_digest.is_not(None))


# A copy on the machine is newer, where the last attempt has stored none.
_BEGINS_FROM_STORE: ColumnElement[bool] = literal_column(
    """
    simulations.from_checkpoint AND EXISTS (
        SELECT FROM stored_files AS f JOIN simulations AS old ON old.id = f.simulation_id
        WHERE old.id = simulations.retry_of AND f.kind = 'CHECKPOINT' AND (
            f.attempt = old.attempt OR NOT EXISTS (
                SELECT FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id
                WHERE a.simulation_id = old.id AND a.number = old.attempt AND m.host = members.host
            )
        )
    )
    """,
    Boolean,
)


async def _open(session: AsyncSession, where: ColumnElement[bool], not_launched: bool) -> Sequence[Hosted]:
    statement = (
        select(
            Attempt,
            Member,
            Simulation.machines,
            _CHECKPOINT_OF,
            _BEGINS_FROM_STORE,
            *(_LAUNCHED_WITH if not_launched else ()),
        )
        .options(*_OF_HOST, *(_GRANT if not_launched else ()))
        .join(Member, Member.attempt_id == Attempt.id)
        .join(Simulation, Simulation.id == Attempt.simulation_id)
        .where(where, Member.ended_at.is_(None))
        .order_by(Member.id)
        .execution_options(populate_existing=True)
    )
    if not_launched:
        statement = statement.where(Member.launched_at.is_(None))
    return [Hosted(*row) for row in await session.execute(statement)]


# Several rows are locked in the order of their ids: another scheduler of this host, or an end, may hold one of them.
_CLAIM = text(
    """
    UPDATE members SET token_digest = claimed.digest, heartbeat_at = now()
    FROM (
        SELECT m.id, given.digest
        FROM unnest(CAST(:ids AS bigint[]), CAST(:digests AS bytea[])) AS given (id, digest)
        JOIN members AS m ON m.id = given.id
        WHERE m.ended_at IS NULL AND m.nonce IS NULL
        ORDER BY m.id FOR NO KEY UPDATE OF m
    ) AS claimed
    WHERE members.id = claimed.id
    RETURNING members.id
    """
)
_NOTE_LAUNCHED = text(
    """
    UPDATE members SET launched_at = now() FROM (
        SELECT m.id FROM members AS m WHERE m.id = ANY(:ids)
        ORDER BY m.id FOR NO KEY UPDATE
    ) AS launched
    WHERE members.id = launched.id
    """
)
_NOTE_STARTING = text(
    """
    UPDATE members SET heartbeat_at = now() FROM (
        SELECT m.id FROM members AS m WHERE m.id = ANY(:ids) AND m.nonce IS NULL AND m.ended_at IS NULL
        ORDER BY m.id FOR NO KEY UPDATE
    ) AS starting
    WHERE members.id = starting.id
    """
)


async def claim_launches(session: AsyncSession, digests: Mapping[int, bytes]) -> frozenset[int]:
    """Bind freshly minted tokens to members about to be launched; return the members that are to be launched.

    digests: of the tokens, by the member's id. A launch that was cut off before its hello is repeated: the older token
    is then invalid.
    """
    if not digests:
        return frozenset()
    claimed = await session.scalars(_CLAIM, {"ids": list(digests), "digests": list(digests.values())})
    return frozenset(claimed.all())


async def note_launched(session: AsyncSession, member_ids: Collection[int]) -> None:
    """Note that the engine has started the supervisors of these members."""
    if member_ids:
        await session.execute(_NOTE_LAUNCHED, {"ids": list(member_ids)})


async def note_starting(session: AsyncSession, member_ids: Collection[int]) -> None:
    """Note that supervisors of members, which have not said hello, are about to be run: they are not silent yet."""
    await session.execute(_NOTE_STARTING, {"ids": list(member_ids)})


# The candidates of `find_unwanted`, for `due.find_due`.
UNWANTED = """
    SELECT FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id
    WHERE m.ended_at IS NULL AND m.token_digest IS NULL AND m.launched_at IS NULL AND a.stop_wanted_at IS NOT NULL
"""


async def find_unwanted(session: AsyncSession) -> Sequence[Hosted]:
    """Find members with an unclaimed launch in attempts with a stop intent: no supervisor can receive it."""
    unwanted = CURRENT_MEMBERS.where(
        Member.token_digest.is_(None), Member.launched_at.is_(None), Attempt.stop_wanted_at.is_not(None)
    )
    return [Hosted(*row) for row in await session.execute(unwanted.order_by(Member.attempt_id, Member.rank))]


# --- reports of supervisors --------------------------------------------------------------------------------------


async def has_token(driver: Driver, token_digest: bytes) -> bool:
    """Whether this is the token of some attempt, ended ones included. What it may do is judged where it is used."""
    return await driver.fetchval("SELECT true FROM members WHERE token_digest = $1", token_digest) is not None


# Fence, order, idempotency and heartbeat in one row lock, the member's. The attempt is only read: no lock, no wait.
# `convergence.take_in` stores what it lets in with the same statement.
ACCEPT = """
    UPDATE members AS m SET next_batch = m.next_batch + 1, heartbeat_at = now()
    FROM attempts AS a
    WHERE m.attempt_id = $1 AND m.token_digest = $2 AND m.nonce = $3 AND m.ended_at IS NULL
      AND m.next_batch = $4 AND a.id = m.attempt_id
    RETURNING a.simulation_id, a.number, m.next_batch, a.stop_reason, a.amended::text, m.rank
"""
_BEAT = """
    UPDATE members AS m SET heartbeat_at = now()
    FROM attempts AS a
    WHERE m.attempt_id = $1 AND m.token_digest = $2 AND m.nonce = $3 AND m.ended_at IS NULL
      AND a.id = m.attempt_id
    RETURNING a.simulation_id, a.number, m.next_batch, a.stop_reason, a.amended::text, m.rank
"""


# The same for a report with an exit, with the locks of an end and what it is judged by.
_ACCEPT_END = f"""
    WITH mine AS (
        SELECT m.id AS member_id, a.simulation_id, a.amended, {_JUDGED_BY}
        FROM members AS m
        JOIN attempts AS a ON a.id = m.attempt_id
        JOIN simulations AS s ON s.id = a.simulation_id
        WHERE m.attempt_id = $1 AND m.token_digest = $2
        FOR NO KEY UPDATE OF s, a
    )
    UPDATE members AS m SET next_batch = m.next_batch + 1, heartbeat_at = now()
    FROM mine
    WHERE m.id = mine.member_id AND m.token_digest = $2 AND m.nonce = $3 AND m.ended_at IS NULL AND m.next_batch = $4
    RETURNING mine.simulation_id, mine.number, m.next_batch, mine.stop_reason, mine.amended::text, m.rank,
        mine.number, mine.stop_reason, mine.stop_sentence, mine.preempted, mine.max_retries, mine.retry_on,
        mine.max_cost, mine.attempt_id, mine.machines, mine.first
"""  # noqa: S608  # the constant above


# The same for an exit that ends the simulation whatever is wanted of it, where nothing else is to be written: the only
# member's, of a simulation without metrics, after which no other one runs. The statement's snapshot is older than its
# locks, so a simulation that was written to in between is left out: `dependencies.hold` writes to those it holds.
EXITED = """
    mine AS (
        SELECT m.id AS member_id, a.id AS attempt_id, a.number, a.stop_reason, a.amended, s.id
        FROM members AS m
        JOIN attempts AS a ON a.id = m.attempt_id
        JOIN simulations AS s ON s.id = a.simulation_id
        JOIN simulations AS seen ON seen.id = s.id
        WHERE m.attempt_id = $1 AND m.token_digest = $2 AND a.ended_at IS NULL AND s.attempt = a.number
          AND s.state = ANY($5::text[]) AND s.machines = 1 AND s.ctid = seen.ctid
          AND NOT EXISTS (SELECT FROM dependencies WHERE after_id = s.id)
          AND NOT EXISTS (SELECT FROM metrics WHERE simulation_id = s.id)
        FOR NO KEY UPDATE OF s, a
    ), exited AS (
        UPDATE members AS m SET next_batch = m.next_batch + 1, heartbeat_at = now(), ended_at = now(),
            exit_code = {exit_code}, signal = {signal}
        FROM mine
        WHERE m.id = mine.member_id AND m.token_digest = $2 AND m.nonce = $3 AND m.ended_at IS NULL
          AND m.next_batch = {batch}
        RETURNING mine.id, mine.number, m.next_batch, mine.stop_reason, mine.amended::text, m.rank, mine.attempt_id
    ), closed AS (
        UPDATE attempts AS a
        SET ended_at = now(), reason = $8::text, reason_detail = $9::text, exit_code = {exit_code}, signal = {signal}
        FROM exited WHERE a.id = exited.attempt_id
    )
"""


async def accept_end(session: AsyncSession, claim: Claim, batch: int) -> tuple[Receipt, Settling] | None:
    """Lock the simulation and its attempt, and record a report with an exit; None if it is not the next batch.

    Returns what the end is judged by as well: one statement instead of three.
    """
    given = (claim.attempt_id, claim.token_digest, claim.nonce, batch)
    row: Any = (await (await session.connection()).exec_driver_sql(_ACCEPT_END, given)).one_or_none()
    return (receipt_of(row[:6], stored=True), _settling(row[6:])) if row is not None else None


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
    simulation_id, number, next_batch, stop_reason, amended, rank = row
    reason = Reason(stop_reason) if stop_reason is not None else None
    changes = orjson.loads(amended) if amended is not None else None
    return Receipt(Standing.CURRENT, stored, simulation_id, number, next_batch, reason, changes, rank)


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


async def known_members(session: AsyncSession, ids: Collection[int]) -> Mapping[tuple[int, int], Hosted]:
    """The members of these attempts, ended ones included, by attempt and rank."""
    statement = _HOSTED.options(*_OF_HOST).where(Attempt.id.in_(ids))
    rows = [Hosted(*row) for row in await session.execute(statement)]
    return {(each.attempt.id, each.member.rank): each for each in rows}
