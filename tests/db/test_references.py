"""References to simulations: whole ones before beginnings, ambiguous ones with their candidates, none of others."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import projects, references
from db.errors import NotFound, Refusal
from db.events import Actor
from db.projects import Scope
from db.public_ids import encode
from db.references import Ambiguous

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]
USER = Actor("user")


async def resolve(sessions: Sessions, reference: str, scope: Scope = None) -> int:
    async with sessions() as session:
        return await references.resolve(session, reference, scope=scope)


async def test_ids_numbers_names_and_beginnings_of_names(rows: Rows, sessions: Sessions) -> None:
    first = await rows.simulation(name="vit")
    second = await rows.simulation(name="vit-large")
    percent = await rows.simulation(name="100%_done")
    hashed = await rows.simulation(name="#tagged")
    for reference, expected in {
        encode("Simulation", first): first,
        encode("Simulation", 10**17): 10**17,  # it may not exist: its reader finds out
        f"#{second}": second,
        str(second): second,
        "vit": first,
        "vit-": second,
        "100%": percent,
        "#tag": hashed,
    }.items():
        assert await resolve(sessions, reference) == expected, reference
    for reference in ("VIT", "it", "10", "1_0", "%", "#0", "#-1", "#999999", "999999999999999999", "9" * 19):
        with pytest.raises(NotFound):
            await resolve(sessions, reference)
    for reference in ("", "a\0b", "\ud800", "x" * 201, encode("Machine", 1)):
        with pytest.raises(Refusal) as refused:
            await resolve(sessions, reference)
        assert not isinstance(refused.value, NotFound)
        assert len(refused.value.message) < 200


async def test_an_ambiguous_reference_is_refused_with_the_newest_candidates(rows: Rows, sessions: Sessions) -> None:
    ids = [await rows.simulation(name="same") for _ in range(7)]
    with pytest.raises(Ambiguous) as refused:
        await resolve(sessions, "same")
    assert all(f"#{each} same (default, QUEUED)" in refused.value.message for each in ids[2:])
    assert f"#{ids[1]} " not in refused.value.message
    assert "and older ones" in refused.value.message
    assert refused.value.field == "id"


async def test_simulations_of_other_projects_are_neither_found_nor_named(rows: Rows, sessions: Sessions) -> None:
    async with sessions.begin() as session:
        other = (await projects.named(session, "other", USER)).id
    hidden = await rows.simulation(name="vit", project_id=other)
    mine = await rows.simulation(name="vit")
    scope = frozenset({(await rows.get(mine)).project_id})
    assert await resolve(sessions, "vit", scope) == mine
    assert await resolve(sessions, "vi", scope) == mine
    for reference in (f"#{hidden}", str(hidden)):
        with pytest.raises(NotFound):
            await resolve(sessions, reference, scope)
    for nothing in (frozenset(), frozenset({999})):
        with pytest.raises(NotFound):
            await resolve(sessions, "vit", nothing)
    with pytest.raises(Ambiguous):
        await resolve(sessions, "vit")
