"""Queue of the planner: new arrivals, and the waiting reason of each class.

Each arrival is read once: the planner keeps the queue in memory. Simulations of a project with equal requirements are
one class (`simulations.queue_class`): they wait for the same reason, which is one row for all of them. A reason of one
simulation alone (its backoff, a watcher) is read from its own row on request, and stored nowhere.

What is **held** (paused, or waiting for the end of others) is no candidate and in no class until it is released.

Arrivals are found by transaction ids: a row carries the id of the transaction that queued it, and a read begins at the
oldest transaction that was still open at the last read. So no arrival is missed, however late its commit. What leaves
the queue by a pause or a cancellation carries the id of that transaction, and is found in the same way. A read of a
queue in which nothing has changed reads three entries of three indexes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, column, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import THIS_TRANSACTION, QueueClass
from db.models import Simulation as S
from db.notifications import EVERYTHING, Channel, notify, payload_of
from db.states import Reason

MOST_TOLD = 100  # of those whose class has a new sentence: what a page shows
MOST_COLLECTED = 1000  # ids in one notification; more are "look at all"

_EVER = datetime.fromtimestamp(0, UTC)

# Three entries of three indexes, and the row of the plan: the newest arrival, the next that comes to the end of its
# backoff, the newest that left.
_CLOCK = text(
    """
    SELECT now() AS at, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
           (SELECT max(queued_xid) FROM simulations WHERE state = 'QUEUED' AND NOT held) AS newest,
           (SELECT min(queued_at) FROM simulations WHERE state = 'QUEUED' AND NOT held AND queued_at > :since)
               AS next_due,
           (SELECT max(queued_xid) FROM simulations WHERE state = 'CANCELLED' OR (state = 'QUEUED' AND held))
               AS newest_left,
           (SELECT asked_xid FROM plans) AS asked
    """
)
# What was cancelled or paused while it was queued carries the id of that transaction.
_LEFT = text(
    """
    SELECT id FROM simulations
    WHERE (state = 'CANCELLED' OR (state = 'QUEUED' AND held)) AND queued_xid >= :horizon
    """
)
# A preempted run whose last attempt has stored its checkpoint has it everywhere. Else it is on the machine of that
# attempt, or another one of its host where that was deleted; 0: it is gone. Those few look it up.
_COLUMNS = """
    s.id, s.queue_class, s.attempt, s.priority, s.created_at, s.cpus, s.memory_gib, s.gpus, s.gpu_model, s.labels,
    s.machine_id, s.machine_name, s.max_price_per_hour, s.machines, s.project_id, s.name, s.learning_class,
    s.preemptible, s.max_runtime, s.max_steps, s.attained, s.steps_done, s.step_rate,
    CASE WHEN s.attained > interval '0' AND NOT EXISTS (
        SELECT FROM stored_files AS f
        WHERE f.simulation_id = s.id AND f.kind = 'CHECKPOINT' AND f.attempt = s.attempt
    ) THEN (
        SELECT coalesce(m.machine_id, (SELECT min(id) FROM machines WHERE host = m.host), 0)
        FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id AND m.rank = 0
        WHERE a.simulation_id = s.id AND a.number = s.attempt
    ) END AS checkpoint_machine,
    CASE WHEN s.attained > interval '0' THEN s.queued_at END AS waiting_since
"""
_READ = (
    S.id, S.queue_class, S.attempt, S.priority, S.created_at, S.cpus, S.memory_gib, S.gpus, S.gpu_model, S.labels,
    S.machine_id, S.machine_name, S.max_price_per_hour, S.machines, S.project_id, S.name, S.learning_class,
    S.preemptible, S.max_runtime, S.max_steps, S.attained, S.steps_done, S.step_rate,
    column("checkpoint_machine", BigInteger), column("waiting_since", DateTime(timezone=True)),
)  # fmt: skip
_ARRIVED = text(
    f"""
    SELECT {_COLUMNS} FROM simulations AS s
    WHERE state = 'QUEUED' AND NOT held AND NOT attended AND queued_at <= now()
      AND (queued_xid >= :horizon OR queued_at > :since)
    """  # noqa: S608  # the constant above
).columns(*_READ)
_IDS = text("SELECT id FROM simulations WHERE state = 'QUEUED' AND NOT held AND NOT attended AND queued_at <= now()")
_DUE = text(
    """
    SELECT id FROM simulations
    WHERE state = 'QUEUED' AND NOT held AND queued_at > :since AND queued_at <= now() AND attempt > 0
    ORDER BY queued_at LIMIT :most
    """
)

_WATCHED = text(
    f"""
    SELECT {_COLUMNS} FROM simulations AS s
    WHERE s.state = 'QUEUED' AND NOT s.held AND s.attended AND s.queued_at <= now() AND s.id IN (
        SELECT simulation_id FROM watchers WHERE watched_until > clock_timestamp()
    )
    ORDER BY s.id
    """  # noqa: S608  # the constant above
).columns(*_READ)
_NOTE = text(
    """
    INSERT INTO queue_classes AS q (queue_class, reason, detail)
    SELECT w.queue_class, w.reason, w.detail
    FROM unnest(CAST(:classes AS uuid[]), CAST(:reasons AS text[]), CAST(:details AS text[]))
         AS w (queue_class, reason, detail)
    ORDER BY w.queue_class
    ON CONFLICT (queue_class) DO UPDATE SET reason = excluded.reason, detail = excluded.detail
    WHERE (q.reason, q.detail) IS DISTINCT FROM (excluded.reason, excluded.detail)
    RETURNING q.queue_class
    """
)
_AWAITING = text(
    """
    SELECT s.cpus, s.memory_gib, s.gpus, s.gpu_model, s.labels, s.machine_id, s.machine_name, s.max_price_per_hour,
           s.machines
    FROM simulations AS s JOIN queue_classes AS q ON q.queue_class = s.queue_class
    WHERE q.reason = :reason AND s.state = 'QUEUED' AND NOT s.held AND s.queued_at <= now()
      AND (NOT s.attended OR s.id IN (SELECT simulation_id FROM watchers WHERE watched_until > clock_timestamp()))
    ORDER BY s.priority DESC, s.created_at, s.id LIMIT :most
    """
).columns(
    S.cpus, S.memory_gib, S.gpus, S.gpu_model, S.labels, S.machine_id, S.machine_name, S.max_price_per_hour, S.machines,
)  # fmt: skip
_MEMBERS = text(
    """
    SELECT s.id FROM unnest(CAST(:classes AS uuid[])) AS c (queue_class) CROSS JOIN LATERAL (
        SELECT id FROM simulations WHERE state = 'QUEUED' AND NOT held AND queue_class = c.queue_class
        ORDER BY attended, priority DESC, created_at, id
        LIMIT :most
    ) AS s
    LIMIT :most
    """
)
_WAITING = text(
    """
    SELECT s.id, s.max_retries, s.attempt, s.paused, f.name AS awaits, f.state AS awaits_state,
           f.condition AS awaits_condition, s.dependencies_left - 1 AS awaits_others,
           s.attended AND NOT EXISTS (
               SELECT FROM watchers AS w WHERE w.simulation_id = s.id AND w.watched_until > clock_timestamp()
           ) AS unattended,
           CASE WHEN s.queued_at > now() THEN s.queued_at END AS until,
           extract(epoch FROM s.queued_at - now())::float8 AS seconds_left,
           a.reason AS ended, a.exit_code, a.signal,
           coalesce(own.why ->> 0, q.reason) AS reason, coalesce(own.why ->> 1, q.detail) AS detail
    FROM simulations AS s
    LEFT JOIN LATERAL (SELECT plans.own -> s.id::text AS why FROM plans) AS own ON true
    LEFT JOIN attempts AS a ON a.simulation_id = s.id AND a.number = s.attempt
    LEFT JOIN queue_classes AS q ON q.queue_class = s.queue_class
    LEFT JOIN LATERAL (
        SELECT other.name, other.state, d.condition
        FROM dependencies AS d JOIN simulations AS other ON other.id = d.after_id
        WHERE d.simulation_id = s.id AND other.state IN ('QUEUED', 'STARTING', 'RUNNING')
        ORDER BY d.after_id LIMIT 1
    ) AS f ON s.dependencies_left > 0
    WHERE s.id = ANY(:ids) AND s.state = 'QUEUED'
    """
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A simulation that could be placed now: queued, past its backoff, and watched if attended."""

    id: int
    queue_class: UUID
    attempt: int  # the fence
    priority: int
    created_at: datetime
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    machine_id: int | None
    machine_name: str | None
    max_price_per_hour: Decimal | None
    machines: int
    project_id: int
    name: str
    learning_class: int
    preemptible: bool
    max_runtime: timedelta | None
    max_steps: int | None
    attained: timedelta
    steps_done: int | None
    step_rate: float | None
    checkpoint_machine: int | None  # where its progress is; None: it has none
    waiting_since: datetime | None  # its newest queueing; None: it has no progress


@dataclass(frozen=True, slots=True)
class Awaiting:
    """What a simulation requires that waits for machines to be started, and how many."""

    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    machine_id: int | None
    machine_name: str | None
    max_price_per_hour: Decimal | None
    machines: int


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Position at which a look ended and the next one begins."""

    horizon: int  # the oldest transaction that was open then
    at: datetime


@dataclass(frozen=True, slots=True)
class Look:
    """Result of a look at the queue."""

    bookmark: Bookmark
    arrived: Sequence[Candidate]  # in no order; those that need a watcher are in `watched`
    left: Sequence[int]  # cancelled or paused since the last look
    due: Sequence[int]  # whose backoff has passed since the last look, at most `MOST_COLLECTED`
    is_empty: bool  # nothing at all is queued
    is_asked: bool = False  # a plan was asked for since the last look


@dataclass(frozen=True, slots=True)
class Waiting:
    """Facts about a waiting simulation, judged by `policy.waiting`."""

    paused: bool
    awaits: str | None  # the name of the first unfinished simulation that it runs after
    awaits_state: str
    awaits_condition: str
    awaits_others: int
    unattended: bool
    until: datetime | None  # the end of its backoff
    seconds_left: float
    attempts_made: int
    max_retries: int
    ended: Reason | None  # how its last attempt did
    exit_code: int | None
    signal: int | None
    class_reason: str | None  # of its class, or its own where the plan has one; None: the planner has not looked yet
    class_detail: str | None


async def look(session: AsyncSession, since: Bookmark | None) -> Look:
    """Find the arrivals since the bookmark, and what has left the queue; without one, the whole queue."""
    begin, horizon = (since.at, since.horizon) if since is not None else (_EVER, 0)
    clock = (await session.execute(_CLOCK, {"since": begin})).one()
    bookmark = Bookmark(clock.horizon, clock.at)
    is_due = clock.next_due is not None and clock.next_due <= clock.at
    left: Sequence[int] = ()
    if since is not None and clock.newest_left is not None and clock.newest_left >= horizon:
        left = (await session.scalars(_LEFT, {"horizon": horizon})).all()
    is_asked = since is not None and clock.asked is not None and clock.asked >= horizon
    if clock.newest is None or (clock.newest < horizon and not is_due):
        return Look(bookmark, (), left, (), is_empty=clock.newest is None, is_asked=is_asked)
    # Where a queue has just grown, no statistics say how little of it this reads: by the indexes, in any case.
    await session.execute(text("SET LOCAL enable_seqscan = off"))
    arrived = [Candidate(*row) for row in await session.execute(_ARRIVED, {"horizon": horizon, "since": begin})]
    await session.execute(text("SET LOCAL enable_seqscan = on"))
    due: Sequence[int] = ()
    if since is not None and is_due:
        due = (await session.scalars(_DUE, {"since": begin, "most": MOST_COLLECTED})).all()
    return Look(bookmark, arrived, left, due, is_empty=False, is_asked=is_asked)


async def ids(session: AsyncSession) -> frozenset[int]:
    """Read the ids of all that could be placed now and needs no watcher."""
    return frozenset((await session.scalars(_IDS)).all())


async def watched(session: AsyncSession) -> Sequence[Candidate]:
    """Read the queued attended simulations that are watched now: at most as many as there are subscribers."""
    return [Candidate(*row) for row in await session.execute(_WATCHED)]


async def note_left(session: AsyncSession, simulation_id: int) -> None:
    """Mark a queued simulation that was cancelled: the next look finds that it has left the queue."""
    await session.execute(
        update(S)
        .where(S.id == simulation_id)
        .values(queued_xid=THIS_TRANSACTION)
        .execution_options(synchronize_session=False)
    )


async def note_reasons(
    session: AsyncSession, reasons: Sequence[tuple[UUID, str, str]], *, new: Collection[UUID] = ()
) -> None:
    """Write down why these classes (class, reason, sentence) wait, and notify of those that wait for something else.

    new: classes whose reason is another one than it was: all of their simulations are notified of. Where only the
    sentence changed, a number in it mostly, the first that are found are: it changes with each start and end.
    """
    if not reasons:
        return
    classes, codes, details = zip(*reasons, strict=True)
    rows = await session.scalars(_NOTE, {"classes": list(classes), "reasons": list(codes), "details": list(details)})
    changed = frozenset(rows)
    entered = [each for each in changed if each in new]
    ids = await _members(session, entered, MOST_COLLECTED)
    if len(ids) < MOST_TOLD:
        ids = [*ids, *await _members(session, changed.difference(entered), MOST_TOLD)]
    await notify_of(session, ids)


async def notify_of(session: AsyncSession, ids: Sequence[int]) -> None:
    """Notify of simulations whose waiting reason changed."""
    if ids:
        await notify(session, Channel.SIMULATIONS, payload_of(ids) if len(ids) < MOST_COLLECTED else EVERYTHING)


async def awaiting(session: AsyncSession, reason: str, most: int) -> Sequence[Awaiting]:
    """Read what simulations require whose class waits for this reason, by priority and age, at most so many."""
    return [Awaiting(*row) for row in await session.execute(_AWAITING, {"reason": reason, "most": most})]


async def forget(session: AsyncSession, classes: Collection[UUID]) -> None:
    """Delete the reasons of classes with no simulation waiting for a machine."""
    if classes:
        await session.execute(delete(QueueClass).where(QueueClass.queue_class.in_(classes)))


async def noted(session: AsyncSession) -> frozenset[UUID]:
    """Return the classes that have a reason."""
    return frozenset(await session.scalars(select(QueueClass.queue_class)))


async def waiting_of(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Waiting]:
    """Read the waiting facts of those of these simulations that are queued, by id."""
    rows = await session.execute(_WAITING, {"ids": list(ids)})
    return {
        row.id: Waiting(
            paused=row.paused, awaits=row.awaits, awaits_state=row.awaits_state or "",
            awaits_condition=row.awaits_condition or "", awaits_others=row.awaits_others,
            unattended=row.unattended, until=row.until, seconds_left=row.seconds_left, attempts_made=row.attempt,
            max_retries=row.max_retries, ended=Reason(row.ended) if row.ended is not None else None,
            exit_code=row.exit_code, signal=row.signal, class_reason=row.reason, class_detail=row.detail,
        )
        for row in rows
    }  # fmt: skip


async def _members(session: AsyncSession, classes: Collection[UUID], most: int) -> Sequence[int]:
    if not classes:
        return []
    return (await session.scalars(_MEMBERS, {"classes": list(classes), "most": most})).all()
