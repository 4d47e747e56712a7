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
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Numeric,
    Select,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
    text,
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
from db.states import FINAL_STATES, SimulationState

LARGEST_ID = 2**63 - 1


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
class Order:
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
    scope: Scope = None


async def page_matching(
    session: AsyncSession, wanted: Filter, order: Order, *, first: int, after: str | None
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
        found = await _page_ranked(session, conditions, order, first, after, wanted.scope)
    if not found.rows and after is None:
        for each in wanted.parameters:
            await _require_known(session, Sort.PARAMETER, each.name, wanted.scope)
    return found


async def count_matching(session: AsyncSession, wanted: Filter) -> int:
    """Count the matching simulations: an index scan, only when a client selects the count."""
    return int((await session.scalars(select(func.count(Simulation.id)).where(*_conditions(wanted)))).one())


# A prepared statement's general plan would walk an index for a tag of a hundred simulations as for one of all: 250 ms
# instead of 5 of 100,000. For this transaction only.
_PLAN_FOR_THESE_VALUES = text("SET LOCAL plan_cache_mode = force_custom_plan")


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
    column = ParameterValue.word if isinstance(condition.value, str) else ParameterValue.number
    compared = column.bool_op(_OPERATORS[condition.comparison])(condition.value)
    return Simulation.id.in_(
        select(ParameterValue.simulation_id).where(ParameterValue.name == condition.name, compared)
    )


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


_BEGUN = and_(Simulation.attempt > 0, Simulation.state.not_in(FINAL_STATES))
_LIVE_COST = f"""
    SELECT s.id AS simulation_id, coalesce(sum({
    AMOUNT.format(rate="m.price_per_hour * m.share", to="coalesce(m.ended_at, now())", since="m.assigned_at")
}), 0) AS value
    FROM simulations AS s
    LEFT JOIN attempts AS a ON a.simulation_id = s.id
    LEFT JOIN members AS m ON m.attempt_id = a.id
    WHERE s.attempt > 0 AND s.state IN ('QUEUED', 'STARTING', 'RUNNING')
    GROUP BY s.id
"""  # noqa: S608  # constants


def _phases(order: Order) -> tuple[Sequence[_Phase], ColumnElement[bool]]:
    """The phases of an order, and the condition of what has a value in none of them."""
    match order.sort:
        case Sort.STARTED_AT | Sort.FINISHED_AT:
            column = Simulation.started_at if order.sort is Sort.STARTED_AT else Simulation.finished_at
            return [_Phase(datetime, [_own(column)])], column.is_(None)
        case Sort.COST:
            live = text(_LIVE_COST).columns(simulation_id=BigInteger, value=Numeric(18, 6)).subquery("live")
            rest = and_(Simulation.final_cost.is_(None), not_(_BEGUN))
            return [_Phase(Decimal, [_own(Simulation.final_cost), _of(live.c.simulation_id, live.c.value)])], rest
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
            live = (
                text(LIVE[name])
                .bindparams(metric=order.name)
                .columns(simulation_id=BigInteger, value=Float(53))
                .subquery("live")
            )
            is_named = Result.metric == order.name
            with_value = select(live.c.simulation_id).where(live.c.value.is_not(None))
            ended = exists().where(Result.simulation_id == Simulation.id, is_named, column_of_ended.is_not(None))
            sources = [_of(Result.simulation_id, column_of_ended, is_named), _of(live.c.simulation_id, live.c.value)]
            return [_Phase(float, sources)], and_(not_(ended), Simulation.id.not_in(with_value))


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


async def _page_ranked(
    session: AsyncSession,
    conditions: Sequence[ColumnElement[bool]],
    order: Order,
    first: int,
    after: str | None,
    scope: Scope,
) -> Page[Simulation]:
    phases, without_value = _phases(order)
    begin, value, last_id = _decode(after, phases) if after is not None else (0, None, None)
    keys: list[tuple[int, Any, int]] = []
    for place, phase in enumerate(phases[begin:], start=begin):
        if len(keys) > first:
            break
        behind = (value, last_id) if place == begin and last_id is not None else None
        merged = _merged(phase, conditions, behind, first + 1 - len(keys), descending=order.descending)
        keys += [(place, row.value, row.id) for row in await session.execute(merged)]
    if not keys and after is None and order.sort in NAMED:
        await _require_known(session, order.sort, order.name, scope)
    if len(keys) <= first:
        rest = select(Simulation.id).where(*conditions, without_value)
        if begin == len(phases) and last_id is not None:
            rest = rest.where(Simulation.id < last_id)
        rest = rest.order_by(Simulation.id.desc()).limit(first + 1 - len(keys))
        keys += [(len(phases), None, each) for each in await session.scalars(rest)]
    shown = keys[:first]
    statement = select(Simulation).options(*WITHOUT_COMMANDS).where(Simulation.id.in_([key[2] for key in shown]))
    rows = {row.id: row for row in await session.scalars(statement)}
    shown = [key for key in shown if key[2] in rows]  # one may have been deleted since
    return Page([rows[key[2]] for key in shown], [_encode(*key) for key in shown], len(keys) > first)


def _merged(
    phase: _Phase,
    conditions: Sequence[ColumnElement[bool]],
    behind: tuple[Any, int] | None,
    limit: int,
    *,
    descending: bool,
) -> Select[Any]:
    """The first rows of a phase behind a key: as many of each source, each in the order of its index."""
    parts = []
    for source in phase.sources:
        part = source.statement.where(*conditions)
        if behind is not None:
            key, place = tuple_(source.value, source.id), tuple_(*behind)
            part = part.where(key < place if descending else key > place)
        ends = (source.value.desc(), source.id.desc()) if descending else (source.value.asc(), source.id.asc())
        part_limited = part.order_by(*ends).limit(limit).subquery()
        parts.append(select(part_limited.c.id, part_limited.c.value))
    whole = (union_all(*parts) if len(parts) > 1 else parts[0]).subquery()
    ordered = (whole.c.value.desc(), whole.c.id.desc()) if descending else (whole.c.value, whole.c.id)
    return select(whole.c.id, whole.c.value).order_by(*ordered).limit(limit)


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
