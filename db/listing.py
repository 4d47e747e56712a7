"""Lists of simulations: filters, sort orders, pages, counts.

An order by a column of `simulations` is a plain keyset page. Metrics, parameters and costs are ranked: a page is read
from sources of (simulation, value), each in the order of an index; what has not ended comes from a source of its own,
computed from what it has reported so far, and what has no value comes last, newest first. A cursor names the phase, the
value and the id of a row. What has ended keeps its place, so pages of it neither miss nor repeat a row; a value that
improves between two pages moves its simulation.

Simulations without their commands: see `simulations.commands`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Numeric,
    Select,
    TextualSelect,
    and_,
    any_,
    case,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db import public_ids
from db.billing import AMOUNT
from db.errors import InvalidCursor, Refusal
from db.events import UNVERIFIED
from db.models import Attempt, Member, Metric, ParameterValue, Result, Simulation
from db.pages import FOREIGN_CURSOR, Ordering, Page, pack, page, unpack
from db.projects import Scope, within
from db.results import LIVE
from db.simulations import WITHOUT_COMMANDS
from db.states import SimulationState

LARGEST_ID = 2**63 - 1
FEW = 1_000  # simulations with a parameter, that are sorted faster than found along an order


class Sort(StrEnum):
    """Sort order of a list of simulations. The last three are by a metric or a parameter of a name."""

    CREATED_AT = "CREATED_AT"
    NAME = "NAME"
    PRIORITY = "PRIORITY"
    STARTED_AT = "STARTED_AT"
    FINISHED_AT = "FINISHED_AT"
    COST = "COST"
    BEST = "BEST"
    LAST = "LAST"
    PARAMETER = "PARAMETER"


NAMED = frozenset({Sort.BEST, Sort.LAST, Sort.PARAMETER})
_COLUMNS = {
    Sort.CREATED_AT: (Simulation.id,),  # minted in the order of creation
    Sort.NAME: (Simulation.name, Simulation.id),
    Sort.PRIORITY: (Simulation.priority, Simulation.id),
}


@dataclass(frozen=True, slots=True)
class SortOrder:
    """A sort order. name: of the metric or the parameter; is_max: the best value is the greatest."""

    sort: Sort = Sort.CREATED_AT
    descending: bool = True
    name: str = ""
    is_max: bool = False


class Comparison(StrEnum):
    """How a parameter is compared with a value."""

    EQ = "EQ"
    NE = "NE"
    LT = "LT"
    LE = "LE"
    GT = "GT"
    GE = "GE"


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a parameter; one that is missing, or a word where a number is compared, does not match."""

    name: str
    comparison: Comparison
    value: Decimal | str


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter of simulations; None matches any."""

    states: tuple[SimulationState, ...] | None = None
    project_id: int | None = None
    machine_id: int | None = None
    name_contains: str | None = None
    tag: str | None = None
    text: str | None = None  # in the name, the command or the notes; or the number or the public id
    name_like: str | None = None  # a pattern of LIKE
    tags: tuple[str, ...] = ()  # all of them
    any_tags: tuple[str, ...] = ()  # at least one of them
    created_by: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None  # excluded
    parameters: tuple[Condition, ...] = ()
    sweep_id: int | None = None
    scope: Scope = None


async def page_matching(
    session: AsyncSession, wanted: Filter, order: SortOrder, *, first: int, after: str | None
) -> Page[Simulation]:
    """One page of the simulations that match. Raises `Refusal` for a metric or parameter that none has."""
    conditions = list(_conditions(wanted))
    if len(conditions) > 1 or order.sort not in _COLUMNS:
        await session.execute(_PLAN_FOR_THESE_VALUES)
    if order.sort in _COLUMNS:
        ordering = Ordering(_COLUMNS[order.sort], order.descending)
        statement = select(Simulation).options(*WITHOUT_COMMANDS).where(*conditions)
        found = await page(session, statement, ordering, first=first, after=after)
    else:
        found = await _page_ranked(session, await _ranked_among(session, wanted), order, first, after, wanted.scope)
    if not found.rows and after is None:
        for each in wanted.parameters:
            await _require_known(session, Sort.PARAMETER, each.name, wanted.scope)
    return found


async def count_matching(session: AsyncSession, wanted: Filter) -> int:
    """Count the matching simulations: an index scan, only when a client selects the count."""
    return int((await session.scalars(select(func.count(Simulation.id)).where(*_conditions(wanted)))).one())


async def objective_mode(session: AsyncSession, metric: str, *, scope: Scope = None) -> str | None:
    """The direction that was given to the newest simulation with this objective; None: none was."""
    statement = (
        select(Simulation.objective_mode)
        .where(
            Simulation.objective_metric == metric,
            Simulation.objective_mode.is_not(None),
            within(Simulation.project_id, scope),
        )
        .order_by(Simulation.id.desc())
        .limit(1)
    )
    return await session.scalar(statement)


# For this transaction only. A prepared statement's general plan would walk an index for a tag of a hundred simulations
# as for one of all: 250 ms instead of 5 of 100,000. And a page takes less than compiling its plan, or other processes.
_PLAN_FOR_THESE_VALUES = text(
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true), "
    "set_config('max_parallel_workers_per_gather', '0', true)"
)


# --- filters ---------------------------------------------------------------------------------------------------


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    found = [within(Simulation.project_id, wanted.scope)]
    if wanted.states is not None:
        found.append(Simulation.state.in_(wanted.states))
    if wanted.project_id is not None:
        found.append(Simulation.project_id == wanted.project_id)
    if wanted.machine_id is not None:
        on_machine = (
            select(Attempt.simulation_id)
            .join(Member, Member.attempt_id == Attempt.id)
            .where(Member.machine_id == wanted.machine_id, Attempt.number == Simulation.attempt)
        )
        found.append(Simulation.id.in_(on_machine))
    if wanted.name_contains is not None:
        found.append(Simulation.name.icontains(wanted.name_contains, autoescape=True))
    if wanted.name_like is not None:
        found.append(Simulation.name.like(wanted.name_like))
    if wanted.text is not None:
        found.append(_has_text(wanted.text))
    tags = [*wanted.tags, *([wanted.tag] if wanted.tag is not None else [])]
    if tags:
        found.append(Simulation.tags.contains(tags))
    if wanted.any_tags:
        found.append(Simulation.tags.overlap(list(wanted.any_tags)))
    if wanted.created_by is not None:
        found.append(Simulation.created_by.in_((wanted.created_by, wanted.created_by + UNVERIFIED)))
    if wanted.created_from is not None:
        found.append(Simulation.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        found.append(Simulation.created_at < wanted.created_to)
    if wanted.sweep_id is not None:
        found.append(Simulation.sweep_id == wanted.sweep_id)
    found += [_meets(each) for each in wanted.parameters]
    return found


def _has_text(wanted: str) -> ColumnElement[bool]:
    """Whether the text is in name, command or notes, or is the number or the id. Three letters go by an index."""
    digits = wanted.removeprefix("#")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else None
    if number is not None and digits != wanted:
        return Simulation.id == number
    if number is None:
        number = _number_of(wanted)
    whole = func.simulation_text(Simulation.name, Simulation.entrypoint, Simulation.notes)
    sought = func.lower(wanted)
    inside = func.strpos(whole, sought) > 0
    if len(wanted) >= 3:
        inside = and_(func.trigrams(whole).op("@>")(func.trigrams(sought)), inside)
    return inside if number is None else or_(Simulation.id == number, inside)


def _number_of(public_id: str) -> int | None:
    """The number of a simulation by its public id; None for any other text."""
    try:
        kind, number = public_ids.decode(public_id)
    except ValueError:
        return None
    return number if kind == "Simulation" else None


_OPERATORS = {
    Comparison.EQ: "=",
    Comparison.NE: "<>",
    Comparison.LT: "<",
    Comparison.LE: "<=",
    Comparison.GT: ">",
    Comparison.GE: ">=",
}


def _meets(condition: Condition) -> ColumnElement[bool]:
    return Simulation.id.in_(_simulations_with(condition))


def _simulations_with(condition: Condition) -> Select[Any]:
    column = ParameterValue.word if isinstance(condition.value, str) else ParameterValue.number
    compared = column.bool_op(_OPERATORS[condition.comparison])(condition.value)
    return select(ParameterValue.simulation_id).where(ParameterValue.name == condition.name, compared)


@dataclass(frozen=True, slots=True)
class _Among:
    """What a ranked list is of. ids: the only simulations that come into question, where they are few."""

    conditions: Sequence[ColumnElement[bool]]
    ids: frozenset[int] | None = None

    def of(self, simulation_id: Any) -> Sequence[ColumnElement[bool]]:
        """The conditions, where rows are sought by this column."""
        if self.ids is None:
            return self.conditions
        return [*self.conditions, simulation_id == any_(literal(list(self.ids), ARRAY(BigInteger)))]


async def _ranked_among(session: AsyncSession, wanted: Filter) -> _Among:
    """Look for comparisons of parameters that few simulations meet: those are sorted, instead of sought in an order.

    PostgreSQL can't tell: its statistics are of the numbers of all parameters, not of one.
    """
    ids: frozenset[int] | None = None
    many = []
    for each in wanted.parameters:
        found = await _few_with(session, each)
        if found is None:
            many.append(each)
        else:
            ids = found if ids is None else ids & found
    return _Among(list(_conditions(replace(wanted, parameters=tuple(many)))), ids)


async def _few_with(session: AsyncSession, condition: Condition) -> frozenset[int] | None:
    """Find the simulations that meet a comparison; None if they are more than `FEW`."""
    some = _simulations_with(condition).limit(FEW + 1).subquery()
    ids = func.coalesce(func.array_agg(some.c.simulation_id), literal([], ARRAY(BigInteger)))
    found = await session.scalar(select(case((func.count() <= FEW, ids))).select_from(some))
    return None if found is None else frozenset(found)


# --- ranked orders ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """Simulations with a value, none of them null."""

    statement: Select[Any]  # of (id, value)
    id: ColumnElement[int] | InstrumentedAttribute[int]
    value: ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class _Phase:
    """A part of a ranked list: values of one kind, merged from its sources."""

    kind: type[float] | type[Decimal] | type[str] | type[datetime]
    sources: Sequence[_Source]


# As the index of it has it: a scan of all simulations takes ten times as long as their page.
_BEGUN = and_(Simulation.attempt > 0, Simulation.state.in_([each for each in SimulationState if not each.is_final]))
_LIVE_COST = f"""
    SELECT coalesce(sum({
    AMOUNT.format(rate="m.price_per_hour * m.share", to="coalesce(m.ended_at, now())", since="m.assigned_at")
}), 0) AS value
    FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id
    WHERE a.simulation_id = simulations.id
"""  # noqa: S608  # constants


def _phases(order: SortOrder) -> tuple[Sequence[_Phase], ColumnElement[bool]]:
    """The phases of an order, and the condition of what has a value in none of them."""
    match order.sort:
        case Sort.STARTED_AT | Sort.FINISHED_AT:
            column = Simulation.started_at if order.sort is Sort.STARTED_AT else Simulation.finished_at
            return [_Phase(datetime, [_own(column)])], column.is_(None)
        case Sort.COST:
            live = text(_LIVE_COST).columns(value=Numeric(18, 6))
            rest = and_(Simulation.final_cost.is_(None), not_(_BEGUN))
            return [_Phase(Decimal, [_own(Simulation.final_cost), _live(live)])], rest
        case Sort.PARAMETER:
            is_named = ParameterValue.name == order.name
            of = ParameterValue.simulation_id
            return [
                _Phase(Decimal, [_of(of, ParameterValue.number, is_named)]),
                _Phase(str, [_of(of, ParameterValue.word, is_named)]),
            ], not_(exists().where(of == Simulation.id, is_named))
        case _:
            name = "last_value" if order.sort is Sort.LAST else "max_value" if order.is_max else "min_value"
            column_of_ended = getattr(Result, name)
            live = text(LIVE[name]).bindparams(metric=order.name).columns(value=Float(53))
            is_named = Result.metric == order.name
            ended = exists().where(Result.simulation_id == Simulation.id, is_named, column_of_ended.is_not(None))
            sources = [_of(Result.simulation_id, column_of_ended, is_named), _live(live)]
            rest = and_(not_(ended), or_(not_(_BEGUN), live.scalar_subquery().is_(None)))
            return [_Phase(float, sources)], rest


def _own(column: Any) -> _Source:
    statement = select(Simulation.id.label("id"), column.label("value")).where(column.is_not(None))
    return _Source(statement, Simulation.id, column)


def _of(simulation_id: Any, value: Any, *conditions: ColumnElement[bool]) -> _Source:
    statement = (
        select(simulation_id.label("id"), value.label("value"))
        .join(Simulation, Simulation.id == simulation_id)
        .where(value.is_not(None), *conditions)
    )
    return _Source(statement, simulation_id, value)


def _live(value: TextualSelect) -> _Source:
    """What has begun and has not ended. value: of the row of `simulations` beside it."""
    found = value.lateral("live")
    statement = select(Simulation.id.label("id"), found.c.value.label("value")).join(found, true())
    return _Source(statement.where(_BEGUN, found.c.value.is_not(None)), Simulation.id, found.c.value)


async def _page_ranked(
    session: AsyncSession,
    among: _Among,
    order: SortOrder,
    first: int,
    after: str | None,
    scope: Scope,
) -> Page[Simulation]:
    phases, without_value = _phases(order)
    begin, value, last_id = _decode(after, phases) if after is not None else (0, None, None)
    found: list[tuple[int, Any, Simulation]] = []
    for place, phase in enumerate(phases[begin:], start=begin):
        if len(found) > first:
            break
        behind = (value, last_id) if place == begin and last_id is not None else None
        ranked = _ranked(phase, among, behind, first + 1 - len(found), descending=order.descending)
        found += [(place, key, row) for row, key in await session.execute(ranked)]
    if not found and after is None and order.sort in NAMED:
        await _require_known(session, order.sort, order.name, scope)
    if len(found) <= first:
        rest = select(Simulation).options(*WITHOUT_COMMANDS).where(*among.of(Simulation.id), without_value)
        if begin == len(phases) and last_id is not None:
            rest = rest.where(Simulation.id < last_id)
        rest = rest.order_by(Simulation.id.desc()).limit(first + 1 - len(found))
        found += [(len(phases), None, row) for row in await session.scalars(rest)]
    shown = found[:first]
    cursors = [_encode(place, key, row.id) for place, key, row in shown]
    return Page([row for _, _, row in shown], cursors, len(found) > first)


def _ranked(
    phase: _Phase,
    among: _Among,
    behind: tuple[Any, int] | None,
    limit: int,
    *,
    descending: bool,
) -> Select[Any]:
    """The first simulations of a phase behind a key, with their values.

    Of each source as many keys, in the order of its index; whole rows are only read of those that are left.
    """
    parts = []
    for source in phase.sources:
        part = source.statement.where(*among.of(source.id))
        if behind is not None:
            key, place = tuple_(source.value, source.id), tuple_(*behind)
            part = part.where(key < place if descending else key > place)
        ends = (source.value.desc(), source.id.desc()) if descending else (source.value.asc(), source.id.asc())
        part_limited = part.order_by(*ends).limit(limit).subquery()
        parts.append(select(part_limited.c.id, part_limited.c.value))
    every = (union_all(*parts) if len(parts) > 1 else parts[0]).subquery()
    keys = select(every.c.id, every.c.value).order_by(*_ordered(every, descending)).limit(limit).subquery("keys")
    statement = select(Simulation, keys.c.value).options(*WITHOUT_COMMANDS).join(keys, keys.c.id == Simulation.id)
    return statement.order_by(*_ordered(keys, descending))


def _ordered(keys: FromClause, descending: bool) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return (keys.c.value.desc(), keys.c.id.desc()) if descending else (keys.c.value, keys.c.id)


def _encode(phase: int, value: Any, simulation_id: int) -> str:
    if isinstance(value, Decimal):
        value = str(value)
    elif isinstance(value, datetime):
        value = value.isoformat()
    return pack([phase, value, simulation_id])


def _decode(cursor: str, phases: Sequence[_Phase]) -> tuple[int, Any, int]:
    key, problem = unpack(cursor), InvalidCursor(FOREIGN_CURSOR)
    if len(key) != 3:
        raise problem
    phase, value, simulation_id = key
    if type(phase) is not int or not 0 <= phase <= len(phases):
        raise problem
    if type(simulation_id) is not int or not 0 <= simulation_id <= LARGEST_ID:
        raise problem
    if phase == len(phases):
        if value is not None:
            raise problem
        return phase, None, simulation_id
    kind = phases[phase].kind
    try:
        if kind is float and type(value) in (int, float) and math.isfinite(value):
            return phase, float(value), simulation_id
        if kind is Decimal and type(value) is str and len(value) <= 500 and (number := Decimal(value)).is_finite():
            return phase, number, simulation_id
        if kind is str and type(value) is str and "\0" not in value:
            return phase, value, simulation_id
        if kind is datetime and type(value) is str and (at := datetime.fromisoformat(value)).tzinfo is not None:
            return phase, at, simulation_id
    except (ValueError, InvalidOperation, OverflowError):
        raise problem from None
    raise problem


async def _require_known(session: AsyncSession, sort: Sort, name: str, scope: Scope) -> None:
    """Raise `Refusal` if no simulation in the scope has a metric, or a parameter, of this name."""
    of_scope = within(Simulation.project_id, scope)
    if sort is Sort.PARAMETER:
        of = ParameterValue.simulation_id
        known = [select(of).where(ParameterValue.name == name, Simulation.id == of, of_scope)]
    else:
        known = [
            select(Result.simulation_id).where(Result.metric == name, Simulation.id == Result.simulation_id, of_scope),
            select(Metric.simulation_id).where(
                Metric.metric == name, Simulation.id == Metric.simulation_id, _BEGUN, of_scope
            ),
        ]
    if not await session.scalar(select(or_(*(each.exists() for each in known)))):
        kind = "a parameter" if sort is Sort.PARAMETER else "reported a metric"
        shown = name if len(name) <= 60 else f"{name[:60]}…"
        raise Refusal(f"No simulation has {kind} {shown!r}.", field="name")
