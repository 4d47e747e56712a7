"""References to simulations: a public id, a number (`#108`, `108`), a name, or a beginning that only one name has.

The only place that resolves them. Simulations outside the scope are never found, and never named in an error.
"""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import public_ids
from db.errors import NotFound, Refusal
from db.models import Project, Simulation
from db.projects import Scope, within

MOST_SHOWN = 5  # candidates of an ambiguous reference
LONGEST = 200  # characters of a name


class Ambiguous(Refusal):
    """Several simulations are meant."""


async def resolve(session: AsyncSession, reference: str, *, scope: Scope = None, field: str = "id") -> int:
    """Return the number of the simulation that is meant. A public id is only decoded: the simulation may not exist.

    Whole names come before beginnings of names. Raises `Refusal` for an id of something else, `NotFound`, `Ambiguous`.
    """
    try:
        kind, number = public_ids.decode(reference)
    except ValueError:
        return await _find(session, reference, scope, field)
    if kind != "Simulation":
        raise Refusal(f"This is the id of a {_short(kind)}; the id of a Simulation is expected.", field=field)
    return number


async def _find(session: AsyncSession, reference: str, scope: Scope, field: str) -> int:
    if not 0 < len(reference) <= LONGEST or not is_storable(reference):
        raise Refusal(f"{_short(reference)} is not the id, number or name of a simulation.", field=field)
    number = _number(reference.removeprefix("#"))
    if reference.startswith("#"):
        whole = Simulation.id == (number or 0)  # numbers begin at 1
    else:
        whole = or_(Simulation.name == reference, *([Simulation.id == number] if number is not None else []))
    beginning = Simulation.name.startswith(reference, autoescape=True)
    # A number is never a beginning: one that was deleted would mean another simulation.
    for condition in (whole, beginning) if number is None else (whole,):
        statement = (
            select(Simulation.id, Simulation.name, Simulation.state, Project.name.label("project"))
            .join(Project, Project.id == Simulation.project_id)
            .where(within(Simulation.project_id, scope), condition)
            .order_by(Simulation.id.desc())
            .limit(MOST_SHOWN + 1)
        )
        found = (await session.execute(statement)).all()
        if len(found) == 1:
            return int(found[0].id)
        if found:
            shown = [f"#{row.id} {row.name} ({row.project}, {row.state.value})" for row in found[:MOST_SHOWN]]
            more = "" if len(found) <= MOST_SHOWN else ", and older ones"
            raise Ambiguous(
                f"{_short(reference)} is ambiguous: {'; '.join(shown)}{more}. Pass a number, as #{found[0].id}.",
                field=field,
            )
    raise NotFound(f"{_short(reference)} is not the id, number or name of a simulation.", field=field)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
