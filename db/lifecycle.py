"""The state machine's row: the one guarded statement that writes `simulations.state`, and the lock that comes first.

    QUEUED --assign--> STARTING --hello--> RUNNING --settle--> FINISHED | FAILED | CANCELLED
      ^                   |                   |
      +------ settle, to be retried ----------+            QUEUED --cancel--> CANCELLED

`transitions` decides when a simulation moves, and is the only room that calls `move`, `begin`, `finish` and `end`. A
move is one guarded UPDATE (id, source state, fence) with its event and its hint, in the caller's transaction; a False
is a fact about the row (another transaction was first), never an error.

Locks: simulation, attempt, member, machine, project, budget, in this order, several rows of one table by id, FOR NO KEY
UPDATE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, results
from db.attempts import Claim, Endpoint, Receipt, Work
from db.billing import AMOUNT
from db.events import Actor, may_alert
from db.models import Simulation
from db.notifications import MAX_PAYLOAD_BYTES
from db.outage import Driver
from db.states import FINAL_STATES, Reason, SimulationState

S = SimulationState

TRANSITIONS: dict[SimulationState, frozenset[SimulationState]] = {
    S.QUEUED: frozenset({S.STARTING, S.CANCELLED}),
    S.STARTING: frozenset({S.RUNNING, S.QUEUED}) | FINAL_STATES,
    S.RUNNING: frozenset({S.QUEUED}) | FINAL_STATES,
    S.FINISHED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}


# Made once: to build a statement and its cache key takes longer than to execute it.
_LOCK = select(Simulation).with_for_update(key_share=True, of=Simulation).execution_options(populate_existing=True)
_LOCK_ONE = _LOCK.where(Simulation.id == bindparam("id"))
_LOCK_ALL = _LOCK.where(Simulation.id.in_(bindparam("ids", expanding=True))).order_by(Simulation.id)
_LOCK_OF = """
    SELECT s.id FROM simulations AS s
    JOIN attempts AS a ON a.simulation_id = s.id
    JOIN members AS m ON m.attempt_id = a.id
    WHERE a.id = $1 AND m.token_digest = $2
    FOR NO KEY UPDATE OF s
"""


async def lock(session: AsyncSession, simulation_id: int) -> Simulation | None:
    """Lock the simulation's row, the first lock of every transaction that takes more than one, and read it."""
    return await session.scalar(_LOCK_ONE, {"id": simulation_id})


async def lock_of(session: AsyncSession, attempt_id: int, token_digest: bytes) -> int | None:
    """Lock the simulation of an attempt with this token, and return its id; None if there is no such attempt."""
    found = await (await session.connection()).exec_driver_sql(_LOCK_OF, (attempt_id, token_digest))
    return found.scalar_one_or_none()


async def lock_all(session: AsyncSession, ids: Collection[int]) -> Sequence[Simulation]:
    """Like `lock`, for several simulations: those that exist, locked in the order of their ids."""
    return (await session.scalars(_LOCK_ALL, {"ids": list(ids)})).all()


@dataclass(frozen=True, slots=True)
class Move:
    """One simulation of a move: `fence` is the number of its newest attempt, `detail` the one of its event.

    reason_detail: a sentence, of a final state.
    """

    simulation_id: int
    fence: int
    detail: Mapping[str, Any]
    reason_detail: str | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """How an attempt ends."""

    reason: Reason
    detail: str | None = None
    exit_code: int | None = None
    signal: int | None = None


_AMOUNT = AMOUNT.format(rate="m.price_per_hour * m.share", to="coalesce(m.ended_at, now())", since="m.assigned_at")

# One round trip for the state, what is written with it, the events and the hint. A long list of ids is "look at all".
_GIVEN = """
    given AS (
        SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $13::bool[], $9::text[])
            WITH ORDINALITY AS g (id, fence, detail, alerts, reason_detail, place)
    )
"""


def _moved(condition: str) -> str:
    """Write the end of a statement, up to FROM. condition: of the rows that move."""
    return f"""
        moved AS (
            UPDATE simulations AS s SET
                state = $4::text,
                attempt = s.attempt + CASE WHEN $4::text = 'STARTING' THEN 1 ELSE 0 END,
                started_at = CASE WHEN $4::text = 'RUNNING' THEN coalesce(s.started_at, now()) ELSE s.started_at END,
                queued_at = CASE WHEN $4::text = 'QUEUED' THEN now() + $6::interval ELSE s.queued_at END,
                queued_xid = CASE WHEN $4::text = 'QUEUED' THEN pg_current_xact_id()::text::bigint
                                  ELSE s.queued_xid END,
                finished_at = CASE WHEN $7::bool THEN now() ELSE s.finished_at END,
                final_cost = CASE WHEN $7::bool THEN coalesce((
                    SELECT sum({_AMOUNT}) FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id
                    WHERE a.simulation_id = s.id
                ), 0) END,
                reason = $8::text,
                reason_detail = given.reason_detail
            FROM given
            WHERE {condition} s.id = given.id AND s.attempt = given.fence AND s.state = ANY($5::text[])
            RETURNING s.id, s.project_id, s.attempt, given.detail, given.alerts, given.place
        ), begun AS (
            UPDATE attempts AS a SET started_at = now() FROM moved
            WHERE $4::text = 'RUNNING' AND a.simulation_id = moved.id AND a.number = moved.attempt
        ), recorded AS (
            INSERT INTO events (kind, actor, origin, object_type, object_id, project_id, detail, alert_pending)
            SELECT $4::text, $10::text, $11::text, 'Simulation', id, project_id, detail::jsonb, alerts
            FROM moved ORDER BY place
        ), hint AS (
            SELECT array_agg(id ORDER BY place) AS ids, string_agg(id::text, ',' ORDER BY place) AS payload,
                   bool_or(alerts) AS alerts
            FROM moved
        )
        SELECT ids, pg_notify('simulations', CASE WHEN length(payload) <= $12::int THEN payload ELSE '*' END),
               CASE WHEN alerts THEN pg_notify('alerts', '') END
    """  # noqa: S608  # constants


_MOVE = f"WITH {_GIVEN}, {_moved('')} FROM hint WHERE ids IS NOT NULL"
_CLOSE = attempts.CLOSE.format(reason="$14::text", detail="$15::text", exit_code="$16::int", signal="$17::int")
_END = f"""
    WITH {_GIVEN}, {_CLOSE}, {_moved("EXISTS (SELECT FROM closed) AND")},
        closed.id, EXISTS (SELECT FROM dependencies WHERE after_id = ANY($1)),
        EXISTS (SELECT FROM metrics WHERE simulation_id = ANY($1))
    FROM closed, hint
"""  # noqa: S608  # constants


# A hello that begins an attempt: its only member is bound, and nothing else has to be read for the answer.
_ONLY = "s.machines = 1 AND s.max_cost IS NULL AND a.started_at IS NULL AND a.stop_wanted_at IS NULL AND"
_BEGIN = f"""
    WITH {attempts.GREETED.format(condition=_ONLY)}, bound AS ({attempts.BIND.format(address="$13", port="$14")}),
    given AS (
        SELECT id, number AS fence, jsonb_build_object('attempt', number)::text AS detail, false AS alerts,
               $9::text AS reason_detail, 1 AS place
        FROM bound
    ), {_moved("")}, bound.* FROM bound, hint WHERE ids IS NOT NULL
"""  # noqa: S608  # constants


async def begin(driver: Driver, claim: Claim, endpoint: Endpoint, actor: Actor) -> Work | None:
    """Bind the only member of an attempt to the claim's nonce and move its simulation to RUNNING, by one statement.

    It is a transaction of its own. None: nothing was written, as another member, a limit of cost, a stop intent or a
    repeated hello needs more (`attempts.bind`).
    """
    target = SimulationState.RUNNING
    row = await driver.fetchrow(
        _BEGIN,
        claim.attempt_id, claim.token_digest, claim.nonce,
        target.value, [source.value for source, targets in TRANSITIONS.items() if target in targets],
        timedelta(0), target.is_final, None, None, actor.name, actor.origin, MAX_PAYLOAD_BYTES,
        endpoint.address, endpoint.port,
    )  # fmt: skip
    if row is None:
        return None
    _ids, _notified, _alerted, _is_new, *of_work = row
    return attempts.work_of(of_work)


_EXITED = attempts.EXITED.format(batch="$13::int", exit_code="$16::int", signal="$17::int")
_FINISH = f"""
    WITH {_EXITED}, given AS (
        SELECT id, number AS fence, (jsonb_build_object('attempt', number) || $14::jsonb)::text AS detail,
               $15::bool AS alerts, $9::text AS reason_detail, 1 AS place
        FROM exited
    ), {_moved("")}, exited.* FROM exited, hint WHERE ids IS NOT NULL
"""  # noqa: S608  # constants


async def finish(
    driver: Driver,
    claim: Claim,
    batch: int,
    closing: Closing,
    target: SimulationState,
    actor: Actor,
    detail: Mapping[str, Any],
) -> tuple[Receipt, int] | None:
    """Accept a report of an exit and nothing else, and end its attempt and simulation, by one statement.

    It is a transaction of its own. Returns the attempt's id, too. None: nothing was written, as it is not the next
    batch of a current attempt, or more has to be written (`attempts.EXITED`). detail: of the event, beside the attempt.
    """
    assert target.is_final
    row = await driver.fetchrow(
        _FINISH,
        claim.attempt_id, claim.token_digest, claim.nonce,
        target.value, [source.value for source, targets in TRANSITIONS.items() if target in targets],
        timedelta(0), target.is_final, closing.reason.value, closing.detail, actor.name, actor.origin,
        MAX_PAYLOAD_BYTES, batch, orjson.dumps(detail).decode(), may_alert(target.value, detail),
        closing.exit_code, closing.signal,
    )  # fmt: skip
    if row is None:
        return None
    _ids, _notified, _alerted, *accepted, attempt_id = row
    return attempts.receipt_of(accepted, stored=True), attempt_id


async def move(
    session: AsyncSession,
    moves: Sequence[Move],
    target: SimulationState,
    actor: Actor,
    *,
    queued_after: timedelta = timedelta(0),
    reason: Reason | None = None,
    only_from: SimulationState | None = None,
) -> frozenset[int]:
    """Write a new state where the row is still in one from which it may be entered, and its newest attempt is `fence`.

    With a final state its results and its cost are kept, to sort lists by: its attempt has ended before.

    Returns the simulations that have moved: one that has not holds up no other. Their rows in the session are as they
    were read before. The caller holds the locks of several simulations (`lock_all`).

    queued_after: the wait of a simulation that returns to the queue; reason: of a final state.
    """
    sources = [only_from] if only_from else [source for source, targets in TRANSITIONS.items() if target in targets]
    given = _given(moves, target, sources, actor, queued_after, reason)
    row = (await (await session.connection()).exec_driver_sql(_MOVE, given)).one_or_none()
    moved = frozenset[int](row[0] if row is not None else ())
    if target.is_final and moved:
        await results.keep(session, moved)
    return moved


@dataclass(frozen=True, slots=True)
class Closed:
    """An attempt that was ended. is_awaited: others run after its simulation."""

    attempt_id: int
    is_awaited: bool


async def end(
    session: AsyncSession,
    of: Move,
    closing: Closing,
    target: SimulationState,
    actor: Actor,
    *,
    queued_after: timedelta = timedelta(0),
) -> Closed | None:
    """End the attempt `of.fence` with its members, so that no later report is stored, and move its simulation.

    None if it is not the current attempt: then nothing is written. The simulation's reason is that of a final state.
    """
    reason = None
    if target.is_final:
        reason, of = closing.reason, replace(of, reason_detail=closing.detail)
    sources = [source for source, targets in TRANSITIONS.items() if target in targets]
    given = (
        *_given([of], target, sources, actor, queued_after, reason),
        closing.reason.value, closing.detail, closing.exit_code, closing.signal,
    )  # fmt: skip
    row: Any = (await (await session.connection()).exec_driver_sql(_END, given)).one_or_none()
    if row is None:
        return None
    ids, _, _, attempt_id, is_awaited, has_metrics = row
    assert ids, f"{of} was current, but its simulation was on no machine"
    if target.is_final and has_metrics:
        await results.keep(session, [of.simulation_id])
    return Closed(attempt_id, is_awaited)


def _given(
    moves: Sequence[Move],
    target: SimulationState,
    sources: Sequence[SimulationState],
    actor: Actor,
    queued_after: timedelta,
    reason: Reason | None,
) -> tuple[object, ...]:
    return (
        [each.simulation_id for each in moves],
        [each.fence for each in moves],
        [orjson.dumps(each.detail).decode() for each in moves],
        target.value,
        [source.value for source in sources],
        queued_after,
        target.is_final,
        reason.value if reason is not None else None,
        [each.reason_detail for each in moves],
        actor.name,
        actor.origin,
        MAX_PAYLOAD_BYTES,
        [may_alert(target.value, each.detail) for each in moves],
    )
