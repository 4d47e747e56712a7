"""Sweeps, their trials and the results at rungs: create, find, count. `transitions.sweep` begins and ends them.

The row of a simulation names its sweep and its trial (`sweep_id`, `trial`); state, results and cost are read from the
simulation, as always. The row of a trial keeps its parameters and outcome, which the sampler needs, even after its
simulations are deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlalchemy import case, func, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, public_ids
from db.errors import NotFound, Refusal, Taken
from db.events import Actor
from db.models import Machine, RungResult, Sweep, Trial
from db.notifications import Channel, notify
from db.pages import Ordering, Page, page
from db.projects import Scope, within
from db.references import Ambiguous, is_storable
from db.simulations import Wanted

MOST_ACTIVE = 1_000  # in one round of the scheduler

_WANTED: TypeAdapter[Wanted] = TypeAdapter(Wanted)


@dataclass(frozen=True, slots=True)
class WantedSweep:
    """A requested sweep: validated. template: what a trial is, before its parameters."""

    template: Wanted
    name: str
    space: list[dict[str, Any]]  # policy.search_space
    sampler: str
    seed: int
    objective_metric: str
    objective_mode: str
    trials: int
    parallel: int = 1
    seeds: int = 1
    max_cost: Decimal | None = None
    patience: int | None = None
    target: float | None = None
    grace_period: int | None = None
    reduction_factor: int | None = None

    def columns(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        template = self.template
        return {
            **values, "project_id": template.project_id, "template": pack(template), "package_id": template.package_id,
        }  # fmt: skip


def pack(template: Wanted) -> dict[str, Any]:
    """Write a template as JSON values."""
    packed: dict[str, Any] = _WANTED.dump_python(template, mode="json")
    for name in ("package_id", "package_source", "runtime_env"):
        if packed[name] is None:  # digests that are kept were made before there were any
            del packed[name]
    return packed


def template_of(sweep: Sweep) -> Wanted:
    """Read the template of a sweep."""
    return _WANTED.validate_python(sweep.template)


# --- one sweep -------------------------------------------------------------------------------------------------


async def create(
    session: AsyncSession,
    wanted: WantedSweep,
    actor: Actor,
    *,
    client_key: str | None,
    given_seed: bool,
    trials_named: str | None = None,
) -> Sweep:
    """Create a sweep. The same key with the same content returns the existing one, else raises `Taken`.

    given_seed: whether the seed was asked for; one that was drawn is no part of the content.
    trials_named: name of the trials before their number, None: the template's.
    """
    values = wanted.columns()
    content = {name: value for name, value in values.items() if given_seed or name != "seed"}
    del content["package_id"]  # it is in the template, if there is one
    content["template"] = {name: each for name, each in values["template"].items() if name != "package_source"}
    digest = sha256(orjson.dumps(content, default=str, option=orjson.OPT_SORT_KEYS)).digest()
    if trials_named is not None:  # after the digest: those that are kept were made of the template's own name
        values["template"] = {**values["template"], "name": trials_named}
    made: Sweep | None = await session.scalar(
        insert(Sweep)
        .values(**values, created_by=actor.name, client_key=client_key, client_digest=digest)
        .on_conflict_do_nothing(index_elements=["project_id", "client_key"])
        .returning(Sweep)
    )
    if made is None:
        existing = (
            await session.scalars(
                select(Sweep).where(Sweep.project_id == wanted.template.project_id, Sweep.client_key == client_key)
            )
        ).one()
        if existing.client_digest != digest:
            raise Taken(
                f"The client key {client_key!r} was used in this project for another sweep ({existing.name}): use a "
                "new key for new content.",
                field="clientKey",
            )
        return existing
    await events.record(
        session, "CREATED", actor, "Sweep", made.id, project_id=made.project_id, detail={"name": made.name}
    )
    await notify(session, Channel.SWEEPS, "")
    return made


async def get(session: AsyncSession, sweep_id: int, *, scope: Scope = None) -> Sweep:
    return _seen(await session.get(Sweep, sweep_id, populate_existing=True), scope)


async def lock(session: AsyncSession, sweep_id: int, *, scope: Scope = None) -> Sweep:
    """Lock a sweep: before any simulation, and never after one."""
    return _seen(await session.get(Sweep, sweep_id, with_for_update={"key_share": True}, populate_existing=True), scope)


def _seen(sweep: Sweep | None, scope: Scope) -> Sweep:
    if sweep is None or (scope is not None and sweep.project_id not in scope):
        raise NotFound("There is no such sweep.", field="id")
    return sweep


async def has_budget(session: AsyncSession, sweep_id: int | None) -> bool:
    """Whether the sweep exists and has a limit on the total cost of its trials."""
    return sweep_id is not None and (await get(session, sweep_id)).max_cost is not None


async def change(session: AsyncSession, sweep_id: int, values: Mapping[str, object]) -> Sweep:
    """Set columns of a sweep, which is locked."""
    await session.execute(
        update(Sweep).where(Sweep.id == sweep_id).values(**values).execution_options(synchronize_session=False)
    )
    return await get(session, sweep_id)


async def by_ids(session: AsyncSession, ids: Collection[int], *, scope: Scope = None) -> Sequence[Sweep]:
    return (await session.scalars(select(Sweep).where(Sweep.id.in_(ids), within(Sweep.project_id, scope)))).all()


async def page_matching(
    session: AsyncSession, *, project_id: int | None, active: bool | None, first: int, after: str | None, scope: Scope
) -> Page[Sweep]:
    """List sweeps, newest first. active: only those that have not ended, or only those that have."""
    statement = select(Sweep).where(within(Sweep.project_id, scope))
    if project_id is not None:
        statement = statement.where(Sweep.project_id == project_id)
    if active is not None:
        statement = statement.where(Sweep.ended_at.is_(None) if active else Sweep.ended_at.is_not(None))
    return await page(session, statement, Ordering((Sweep.id,), descending=True), first=first, after=after)


async def resolve(session: AsyncSession, reference: str, *, scope: Scope = None) -> int:
    """Resolve a public id, a number (`#3`, `3`), a name or the beginning of a name to the number of a sweep.

    Whole names come before beginnings of names. The sweep of an id may not exist. Raises
    `Refusal` for an id of something else, `NotFound`, `Ambiguous`.
    """
    try:
        kind, number = public_ids.decode(reference)
    except ValueError:
        return await _named(session, reference, scope)
    if kind != "Sweep":
        raise Refusal(f"This is the id of a {kind[:40]}; the id of a Sweep is expected.", field="id")
    return number


async def _named(session: AsyncSession, reference: str, scope: Scope) -> int:
    digits = reference.removeprefix("#")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else None
    sentence = f"{reference[:40]!r} is not the id, number or name of a sweep."
    if not 0 < len(reference) <= 200 or not is_storable(reference):
        raise Refusal(sentence, field="id")
    beginning = Sweep.name.startswith(reference, autoescape=True)
    # A number is never a beginning: one that there is not yet would mean another sweep.
    meant = [Sweep.id == number] if number is not None else [Sweep.name == reference, beginning]
    for condition in meant:
        statement = select(Sweep.id, Sweep.name).where(condition, within(Sweep.project_id, scope))
        found = (await session.execute(statement.order_by(Sweep.id.desc()).limit(2))).all()
        if len(found) == 1:
            return int(found[0].id)
        if found:
            have = "have the name" if condition is not beginning else "begin with"
            raise Ambiguous(f"Several sweeps {have} {reference[:40]!r}: pass a number, as #{found[0].id}.", field="id")
    raise NotFound(sentence, field="id")


# Of a sweep that waits for its trials, nothing but their ends is due.
_ACTIVE = text(
    """
    SELECT w.id, coalesce(o.has_ended, false) OR CASE WHEN w.reason IS NULL THEN o.open < w.parallel ELSE o.open = 0 END
    FROM sweeps AS w CROSS JOIN LATERAL (
        SELECT count(*) AS open, bool_or(NOT EXISTS (
            SELECT FROM simulations AS s
            WHERE s.sweep_id = t.sweep_id AND s.trial = t.number AND s.state IN ('QUEUED', 'STARTING', 'RUNNING')
        )) AS has_ended
        FROM sweep_trials AS t WHERE t.sweep_id = w.id AND t.outcome IS NULL
    ) AS o
    WHERE w.ended_at IS NULL
    ORDER BY w.id LIMIT :most
    """
)


async def active(session: AsyncSession) -> Mapping[int, bool]:
    """List the sweeps that have not ended, oldest first, each with whether the scheduler has to act on it."""
    return {row[0]: row[1] for row in await session.execute(_ACTIVE, {"most": MOST_ACTIVE})}


# --- trials ----------------------------------------------------------------------------------------------------


async def begin_trial(
    session: AsyncSession, sweep_id: int, number: int, parameters: Mapping[str, Any], notes: Mapping[str, Any]
) -> bool:
    """Add a trial; False if it has begun already."""
    added = await session.scalar(
        insert(Trial)
        .values(sweep_id=sweep_id, number=number, parameters=dict(parameters), notes=dict(notes))
        .on_conflict_do_nothing()
        .returning(Trial.number)
    )
    return added is not None


async def end_trial(session: AsyncSession, sweep_id: int, number: int, values: Mapping[str, object]) -> None:
    """Write how a trial ended."""
    await session.execute(
        update(Trial)
        .where(Trial.sweep_id == sweep_id, Trial.number == number)
        .values(ended_at=func.clock_timestamp(), **values)
        .execution_options(synchronize_session=False)
    )


async def history(session: AsyncSession, sweep_id: int) -> Sequence[Trial]:
    """Read all trials of a sweep, by number."""
    return (await session.scalars(select(Trial).where(Trial.sweep_id == sweep_id).order_by(Trial.number))).all()


@dataclass(frozen=True, slots=True)
class Ended:
    """An ended trial, as the limits of its sweep count it."""

    outcome: str
    value: float | None
    cost: Decimal


async def ended(session: AsyncSession, sweep_id: int) -> Sequence[Ended]:
    """Read the ended trials of a sweep in the order of their ends."""
    statement = (
        select(Trial.outcome, Trial.value, Trial.cost)
        .where(Trial.sweep_id == sweep_id, Trial.outcome.is_not(None))
        .order_by(Trial.ended_at, Trial.number)
    )
    return [Ended(str(outcome), value, cost or Decimal(0)) for outcome, value, cost in await session.execute(statement)]


async def find_trials(session: AsyncSession, places: Collection[tuple[int, int]]) -> Sequence[Trial]:
    """Read trials by (sweep, number)."""
    numbers: dict[int, list[int]] = {}
    for sweep_id, number in places:
        numbers.setdefault(sweep_id, []).append(number)
    found: list[Trial] = []
    for sweep_id, of in numbers.items():
        found += await session.scalars(select(Trial).where(Trial.sweep_id == sweep_id, Trial.number.in_(of)))
    return found


async def page_of_trials(session: AsyncSession, sweep_id: int, *, first: int, after: str | None) -> Page[Trial]:
    """List the trials of a sweep by number."""
    statement = select(Trial).where(Trial.sweep_id == sweep_id)
    return await page(session, statement, Ordering((Trial.number,)), first=first, after=after)


async def best_trials(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Trial]:
    """Find the complete trial with the best value of each of these sweeps; of equal ones the first."""
    badness = case((Sweep.objective_mode == "MAX", -Trial.value), else_=Trial.value)
    found = await session.scalars(
        select(Trial)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(Trial.sweep_id.in_(ids), Trial.outcome == "COMPLETE", Trial.value.is_not(None))
        .ext(distinct_on(Trial.sweep_id))
        .order_by(Trial.sweep_id, badness, Trial.number)
    )
    return {each.sweep_id: each for each in found}


@dataclass(frozen=True, slots=True)
class Counts:
    """Trials of a sweep by outcome, and the total cost and mean duration of those that have ended."""

    open: int = 0
    running: int = 0  # of the open ones: with a simulation on a machine
    by_outcome: Mapping[str, int] = field(default_factory=dict)
    mean: timedelta | None = None

    @property
    def begun(self) -> int:
        return self.open + self.ended

    @property
    def ended(self) -> int:
        return sum(self.by_outcome.values())


_COUNTS = text(
    """
    SELECT t.sweep_id, coalesce(t.outcome, ''), count(*),
           avg(t.ended_at - t.begun_at) FILTER (WHERE t.outcome NOT IN ('FAIL', 'CANCELLED')),
           count(*) FILTER (WHERE t.outcome IS NULL AND EXISTS (
               SELECT FROM simulations AS s
               WHERE s.sweep_id = t.sweep_id AND s.trial = t.number AND s.state IN ('STARTING', 'RUNNING')
           ))
    FROM sweep_trials AS t
    WHERE t.sweep_id = ANY(:ids) GROUP BY 1, 2
    """
)


async def counts(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Counts]:
    """Count the trials of sweeps; those without one are left out."""
    rows: dict[int, list[Any]] = {}
    for row in await session.execute(_COUNTS, {"ids": list(ids)}):
        rows.setdefault(row[0], []).append(row)
    found = {}
    for sweep_id, of in rows.items():
        ended = [row for row in of if row[1]]
        timed = [row for row in ended if row[3] is not None]
        total = sum(row[2] for row in timed)
        found[sweep_id] = Counts(
            open=sum(row[2] for row in of if not row[1]),
            running=sum(row[4] for row in of),
            by_outcome={row[1]: row[2] for row in ended},
            mean=sum((row[3] * row[2] for row in timed), timedelta()) / total if total else None,
        )
    return found


async def open_numbers(session: AsyncSession, sweep_id: int) -> Sequence[int]:
    """List the trials that have not ended."""
    statement = select(Trial.number).where(Trial.sweep_id == sweep_id, Trial.outcome.is_(None)).order_by(Trial.number)
    return (await session.scalars(statement)).all()


# --- simulations of trials -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrialRun:
    """A simulation of an open trial. best: of the objective; step, value: of the newest rung that it has reached."""

    trial: int
    simulation_id: int
    is_final: bool
    reason: str | None
    max_cost: Decimal | None
    final_cost: Decimal | None
    best: float | None
    step: int | None
    value: float | None


_RUNS = text(
    """
    SELECT s.trial, s.id, s.state IN ('FINISHED', 'FAILED', 'CANCELLED'), s.reason, s.max_cost, s.final_cost,
           CASE w.objective_mode WHEN 'MAX' THEN r.max_value ELSE r.min_value END, g.step, g.value
    FROM sweeps AS w
    JOIN sweep_trials AS t ON t.sweep_id = w.id AND t.outcome IS NULL
    JOIN simulations AS s ON s.sweep_id = w.id AND s.trial = t.number
    LEFT JOIN results AS r ON r.simulation_id = s.id AND r.metric = w.objective_metric
    LEFT JOIN LATERAL (
        SELECT step, value FROM sweep_rungs WHERE sweep_id = w.id AND simulation_id = s.id AND s.reason = 'PRUNED'
        ORDER BY step DESC LIMIT 1
    ) AS g ON true
    WHERE w.id = :id
    ORDER BY s.trial, s.id
    """
)


async def open_runs(session: AsyncSession, sweep_id: int) -> Sequence[TrialRun]:
    """Read the simulations of open trials, by trial."""
    return [TrialRun(*row) for row in await session.execute(_RUNS, {"id": sweep_id})]


_SIMULATIONS = text(
    """
    SELECT s.sweep_id, s.trial, s.id
    FROM unnest(CAST(:sweeps AS bigint[]), CAST(:trials AS int[])) AS t (sweep_id, trial)
    JOIN simulations AS s ON s.sweep_id = t.sweep_id AND s.trial = t.trial
    ORDER BY s.id
    """
)


async def simulations_of(
    session: AsyncSession, places: Collection[tuple[int, int]]
) -> Mapping[tuple[int, int], Sequence[int]]:
    """List the simulations of trials, by (sweep, trial)."""
    values = {"sweeps": [sweep for sweep, _ in places], "trials": [number for _, number in places]}
    found: dict[tuple[int, int], list[int]] = {}
    for sweep_id, number, simulation_id in await session.execute(_SIMULATIONS, values):
        found.setdefault((sweep_id, number), []).append(simulation_id)
    return found


async def not_ended(session: AsyncSession, sweep_id: int) -> Sequence[int]:
    """List the simulations of a sweep that have not ended, by id."""
    rows = await session.scalars(
        text(
            "SELECT id FROM simulations WHERE sweep_id = :id AND state IN ('QUEUED', 'STARTING', 'RUNNING') ORDER BY id"
        ),
        {"id": sweep_id},
    )
    return rows.all()


_REPORTED = text(
    """
    SELECT s.id, ARRAY(SELECT DISTINCT m.metric FROM metrics AS m WHERE m.simulation_id = s.id)
    FROM simulations AS s WHERE s.sweep_id = :id AND s.reason = ANY(:reasons)
    """
)


async def reported(session: AsyncSession, sweep_id: int, reasons: Collection[str]) -> Sequence[str] | None:
    """List the metrics of a sweep's simulations that ended for these reasons, by name; None if there is none."""
    found = [set(row[1]) for row in await session.execute(_REPORTED, {"id": sweep_id, "reasons": list(reasons)})]
    return sorted(set().union(*found)) if found else None


# --- costs -----------------------------------------------------------------------------------------------------

_COSTS = text(
    """
    SELECT given.id, coalesce((
        SELECT sum(t.cost) FROM sweep_trials AS t WHERE t.sweep_id = given.id AND t.outcome IS NOT NULL
    ), 0) + coalesce((
        SELECT sum(s.final_cost) FROM sweep_trials AS t JOIN simulations AS s
            ON s.sweep_id = t.sweep_id AND s.trial = t.number
        WHERE t.sweep_id = given.id AND t.outcome IS NULL AND s.final_cost IS NOT NULL
    ), 0), ARRAY(
        SELECT s.id FROM sweep_trials AS t JOIN simulations AS s ON s.sweep_id = t.sweep_id AND s.trial = t.number
        WHERE t.sweep_id = given.id AND t.outcome IS NULL AND s.final_cost IS NULL
    )
    FROM unnest(CAST(:ids AS bigint[])) AS given (id)
    """
)


async def costs(session: AsyncSession, ids: Collection[int]) -> Mapping[int, tuple[Decimal, Sequence[int]]]:
    """Read the cost of these sweeps' ended simulations, and the simulations whose cost is not included yet."""
    return {row[0]: (row[1], row[2]) for row in await session.execute(_COSTS, {"ids": list(ids)})}


_DEAREST = text(
    """
    SELECT max(rate) FROM (
        SELECT sum(m.price_per_hour * m.share) AS rate
        FROM simulations AS s JOIN attempts AS a ON a.simulation_id = s.id JOIN members AS m ON m.attempt_id = a.id
        WHERE s.sweep_id = :id GROUP BY a.id
    ) AS attempt
    """
)


async def dearest_rate(session: AsyncSession, sweep_id: int) -> Decimal | None:
    """Read the highest cost per hour among a sweep's attempts; None without an attempt."""
    rate = await session.scalar(_DEAREST, {"id": sweep_id})
    return None if rate is None else Decimal(rate)


async def dearest_price(session: AsyncSession) -> Decimal:
    """Read the highest price per hour of a machine; 0 without a machine."""
    return await session.scalar(select(func.max(Machine.price_per_hour))) or Decimal(0)


# --- rungs -----------------------------------------------------------------------------------------------------

# Of two numbers, as the leader's is of one.
_RUNG_LOCK = text("SELECT pg_advisory_xact_lock(22, hashint8(:id))")


async def reach_rung(
    session: AsyncSession, sweep_id: int, step: int, simulation_id: int, value: float
) -> tuple[float, Sequence[float]]:
    """Store the result of a simulation at a rung, once; return it, and the results that were stored before it.

    The last lock of a transaction: results of one sweep are added one after the other, so that their ids are in the
    order in which others see them.
    """
    await session.execute(_RUNG_LOCK, {"id": sweep_id})
    await session.execute(
        insert(RungResult)
        .values(sweep_id=sweep_id, step=step, simulation_id=simulation_id, value=value)
        .on_conflict_do_nothing(index_elements=["sweep_id", "step", "simulation_id"])
    )
    rows = (
        await session.execute(
            select(RungResult.id, RungResult.simulation_id, RungResult.value).where(
                RungResult.sweep_id == sweep_id, RungResult.step == step
            )
        )
    ).all()
    own = next(row for row in rows if row.simulation_id == simulation_id)
    return own.value, [row.value for row in rows if row.id < own.id]


_LEAVE_AVERAGE = text(
    """
    INSERT INTO sweep_rungs (sweep_id, step, simulation_id, value, average)
    VALUES (:sweep, :step, :simulation, :value, :average)
    ON CONFLICT (sweep_id, step, simulation_id) DO NOTHING RETURNING id
    """
)


async def leave_average(
    session: AsyncSession, sweep_id: int, step: int, simulation_id: int, value: float, average: float
) -> bool:
    """Store the result of a simulation at a step of the median rule; False if it was stored before."""
    values = {"sweep": sweep_id, "step": step, "simulation": simulation_id, "value": value, "average": average}
    return await session.scalar(_LEAVE_AVERAGE, values) is not None


_FINISHED = text(
    """
    SELECT r.average FROM sweep_rungs AS r
    JOIN simulations AS s ON s.id = r.simulation_id
    JOIN sweep_trials AS t ON t.sweep_id = s.sweep_id AND t.number = s.trial AND t.outcome = 'COMPLETE'
    WHERE r.sweep_id = :sweep AND r.step = :step AND r.average IS NOT NULL
    """
)


async def averages_of_finished(session: AsyncSession, sweep_id: int, step: int) -> Sequence[float]:
    """Read the running averages at a step of the complete trials of a sweep."""
    return (await session.scalars(_FINISHED, {"sweep": sweep_id, "step": step})).all()
