"""Public ids, and what stands for those of simulations, converted to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from db import public_ids, references
from db.errors import Refusal
from graph.context import Info
from graph.errors import refusals_told


def number_of(public_id: str, type_name: str, *, field: str = "id") -> int:
    """The number behind the public id of a `type_name`. Raises `Refusal` for an id of anything else."""
    try:
        found, number = public_ids.decode(public_id)
    except ValueError:
        raise Refusal(f"{_short(public_id)} is not an id.", field=field) from None
    if found != type_name:
        raise Refusal(f"This is the id of a {_short(found)}; the id of a {type_name} is expected.", field=field)
    return number


def number_asked(public_id: str, type_name: str) -> int:
    """The same for arguments of queries and subscriptions. Raises `BadInput`."""
    with refusals_told():
        return number_of(public_id, type_name)


async def simulation_number(info: Info, reference: str) -> int:
    """The number of the simulation that an argument means. Raises `Refusal`: see `db.references.resolve`."""
    async with info.context.sessions() as session:
        return await references.resolve(session, reference, scope=info.context.scope)


async def simulation_asked(info: Info, reference: str) -> int:
    """The same for arguments of queries. Raises `BadInput`."""
    with refusals_told():
        return await simulation_number(info, reference)


async def simulations_asked(info: Info, given: Sequence[str]) -> list[int]:
    """The same for several, in their order; ids take no statement."""
    with refusals_told():
        async with info.context.sessions() as session:
            return [await references.resolve(session, each, scope=info.context.scope, field="ids") for each in given]


async def simulation_followed(info: Info, reference: str) -> int:
    """The same for subscriptions, which wait for a database that is away."""
    return await info.context.live.outage.patiently(partial(simulation_asked, info, reference))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
