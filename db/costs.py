"""Where the money went: cost by project, user, machine, name, tag and day, week or month.

Of every member the part of its time that lies between two times is billed. A simulation counts under each of its tags;
totals count it once. Amounts of different currencies are never added. What was deleted still counts: its members were
copied (`keep`).

Wasted is the cost of attempts that failed, were lost or preempted, unless a later attempt continued behind their first
step, from a checkpoint. Saved is what the evidence of a stop estimates as `saved.amount`, at the attempt's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.billing import AMOUNT
from db.projects import Scope

MOST_ROWS = 10_000
# Reasons of attempts that ended as intended: what they cost is no waste.
AS_INTENDED = ("COMPLETED", "CANCELLED", "STOPPING_THRESHOLD", "PATIENCE_EXHAUSTED", "PRUNED", "UNWATCHED")


class TooMany(Exception):
    """More groups than an answer holds."""


class Key(StrEnum):
    """What costs are grouped by. At most one of the last three at once."""

    PROJECT = "PROJECT"
    USER = "USER"
    MACHINE = "MACHINE"
    NAME = "NAME"
    TAG = "TAG"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


TIMES = (Key.DAY, Key.WEEK, Key.MONTH)
_COLUMNS = {
    Key.PROJECT: "p.name",
    Key.USER: "b.created_by",
    Key.MACHINE: "b.machine_name",
    Key.NAME: "b.simulation_name",
    Key.TAG: "t.tag",
}


@dataclass(frozen=True, slots=True)
class Question:
    """Which costs, and how they are grouped."""

    group_by: Sequence[Key]
    since: datetime | None
    to: datetime
    zone: str  # name of the time zone whose days, weeks and months are meant
    scope: Scope = None
    project_id: int | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """Costs of one group in one currency. The keys that it was not grouped by are None."""

    currency: str
    amount: Decimal
    wasted: Decimal
    saved: Decimal
    attempts: int
    simulations: int
    project: str | None = None
    user: str | None = None
    machine: str | None = None
    name: str | None = None
    tag: str | None = None
    begin: datetime | None = None


# Whether a later attempt began behind the first step of this one: it continued from a checkpoint.
_CONTINUED = """EXISTS (
    SELECT FROM metrics AS old JOIN metrics AS later ON later.simulation_id = old.simulation_id
        AND later.metric = old.metric AND later.attempt > old.attempt AND later.first_step > old.first_step
    WHERE old.simulation_id = a.simulation_id AND old.attempt = a.number
)"""
_WASTED = f"a.ended_at IS NOT NULL AND a.reason <> ALL(CAST(:intended AS text[])) AND NOT {_CONTINUED}"
_SAVED = """CASE WHEN m.rank = 0 AND a.stop_evidence #>> '{saved,amount}' ~ '^[0-9]{1,12}([.][0-9]+)?$'
    THEN (a.stop_evidence #>> '{saved,amount}')::numeric ELSE 0 END"""
_MEMBERS = f"""
    SELECT s.project_id, s.id AS simulation_id, s.name AS simulation_name, s.created_by, s.tags, a.number AS attempt,
           m.machine_name, m.price_per_hour, m.share, m.currency, m.assigned_at,
           coalesce(m.ended_at, greatest(CAST(:now AS timestamptz), m.assigned_at)) AS ended_at,
           {_WASTED} AS is_wasted, CASE WHEN m.ended_at IS NULL THEN 0 ELSE {_SAVED} END AS saved
    FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id JOIN simulations AS s ON s.id = a.simulation_id
"""  # noqa: S608  # constants of this module
_KEPT_COLUMNS = """project_id, simulation_id, simulation_name, created_by, tags, attempt, machine_name, price_per_hour,
    share, currency, assigned_at, ended_at, is_wasted, saved"""
_KEEP = text(
    f"INSERT INTO deleted_members ({_KEPT_COLUMNS}) "  # noqa: S608  # constants of this module
    f"SELECT * FROM ({_MEMBERS} WHERE s.id = :id AND m.ended_at IS NOT NULL AND m.price_per_hour * m.share > 0) AS b"
)


async def read(session: AsyncSession, question: Question) -> tuple[Sequence[Sums], Sequence[Sums], datetime]:
    """Return the groups (by time, then the dearest first), the totals of each currency, and the time they end at.

    Raises `TooMany` for more than `MOST_ROWS` groups.
    """
    now = (await session.execute(text("SELECT now()"))).scalar_one()
    arguments = {
        "now": now, "to": min(question.to, now), "zone": question.zone, "intended": list(AS_INTENDED),
        "since": question.since or datetime.fromtimestamp(0, now.tzinfo), "most": MOST_ROWS + 1,
    }  # fmt: skip
    scope = question.scope
    if question.project_id is not None:
        scope = frozenset({question.project_id}) if scope is None or question.project_id in scope else frozenset()
    if scope is not None:
        arguments["scope"] = list(scope)
    bounded = question.since is not None
    total = await session.execute(_statement((), is_scoped=scope is not None, is_bounded=bounded), arguments)
    totals = [_sums(row, ()) for row in total]
    rows = totals
    if question.group_by:
        keys = tuple(dict.fromkeys(question.group_by))
        statement = _statement(keys, is_scoped=scope is not None, is_bounded=bounded)
        rows = [_sums(row, keys) for row in await session.execute(statement, arguments)]
    if len(rows) > MOST_ROWS:
        raise TooMany
    return rows, totals, arguments["to"]


async def keep(session: AsyncSession, simulation_id: int) -> None:
    """Copy what the members of an ended simulation cost, before it is deleted."""
    await session.execute(_KEEP, {"id": simulation_id, "intended": list(AS_INTENDED), "now": None})


def _statement(keys: Sequence[Key], *, is_scoped: bool, is_bounded: bool) -> Any:
    unit = next((each.value.lower() for each in keys if each in TIMES), None)
    columns = [_COLUMNS.get(each, "w.begin") for each in keys]
    chosen = "".join(f"{column} AS key_{number}, " for number, column in enumerate(columns))
    grouped = "".join(f", {column}" for column in columns)
    order = "w.begin, " if unit is not None else ""
    within = " AND project_id = ANY(CAST(:scope AS bigint[]))" if is_scoped else ""
    of_members = within.replace("project_id", "s.project_id")
    since = " AND {}.ended_at > CAST(:since AS timestamptz)" if is_bounded else ""
    # Three branches, so that each goes by its own index however much has ended.
    billed = f"""
        {_MEMBERS} WHERE m.ended_at IS NOT NULL AND m.assigned_at < :to{since.format("m")}{of_members}
        UNION ALL {_MEMBERS} WHERE m.ended_at IS NULL AND m.assigned_at < :to{of_members}
        UNION ALL SELECT {_KEPT_COLUMNS} FROM deleted_members AS d WHERE d.assigned_at < :to{since.format("d")}{within}
    """  # noqa: S608  # constants of this module
    whole = "greatest(b.assigned_at, CAST(:since AS timestamptz)) AS since, least(b.ended_at, :to) AS until"
    window = f"CROSS JOIN LATERAL (SELECT NULL::timestamptz AS begin, {whole}) AS w"
    if unit is not None:
        # By the clock on the wall: a day has 23 or 25 hours when clocks change.
        window = f"""CROSS JOIN LATERAL (
            SELECT each AT TIME ZONE :zone AS begin,
                   greatest(whole.since, each AT TIME ZONE :zone) AS since,
                   least(whole.until, (each + interval '1 {unit}') AT TIME ZONE :zone) AS until
            FROM (SELECT {whole}) AS whole CROSS JOIN LATERAL generate_series(
                date_trunc('{unit}', whole.since AT TIME ZONE :zone), whole.until AT TIME ZONE :zone,
                interval '1 {unit}'
            ) AS each
        ) AS w"""  # noqa: S608  # constants of this module
    tags = "LEFT JOIN LATERAL unnest(b.tags) AS t (tag) ON true" if Key.TAG in keys else ""
    projects = "JOIN projects AS p ON p.id = b.project_id" if Key.PROJECT in keys else ""
    amount = AMOUNT.format(rate="b.price_per_hour * b.share", since="w.since", to="w.until")
    return text(
        f"""
        SELECT {chosen}b.currency, sum({amount}) AS amount,
               coalesce(sum({amount}) FILTER (WHERE b.is_wasted), 0) AS wasted,
               coalesce(sum(b.saved) FILTER (WHERE b.ended_at = w.until), 0) AS saved,
               count(DISTINCT (b.simulation_id, b.attempt)) AS attempts,
               count(DISTINCT b.simulation_id) AS simulations
        FROM ({billed}) AS b {window} {tags} {projects}
        WHERE w.until > w.since
        GROUP BY b.currency{grouped}
        ORDER BY {order}amount DESC, b.currency{grouped}
        LIMIT :most
        """  # noqa: S608  # constants of this module
    )


def _sums(row: Row[Any], keys: Sequence[Key]) -> Sums:
    named = {
        "begin" if each in TIMES else each.value.lower(): getattr(row, f"key_{number}")
        for number, each in enumerate(keys)
    }
    return Sums(
        currency=row.currency, amount=row.amount, wasted=row.wasted, saved=row.saved, attempts=row.attempts,
        simulations=row.simulations, **named,
    )  # fmt: skip
