"""The numbers of simulations that have not ended: kept by triggers, added up, and always what a count would give."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from db import overview
from db.overview import ACTIVE
from db.projects import Scope
from db.states import SimulationState

Rows = Any  # the fixture of conftest.py

COUNT = (
    "SELECT state, count(*) FROM simulations WHERE state IN ('QUEUED', 'STARTING', 'RUNNING') "
    "AND (:project = 0 OR project_id = :project) GROUP BY state"
)
ADD = (
    "INSERT INTO simulations (project_id, name, entrypoint, created_by, state) "
    "SELECT :project, 's', '{x}', 'me', :state FROM generate_series(1, :number)"
)


async def kept(rows: Rows, scope: Scope = None) -> Mapping[SimulationState, int]:
    async with rows.sessions() as session:
        return await overview.counts(session, scope)


async def counted(rows: Rows, project: int = 0) -> Mapping[SimulationState, int]:
    found = dict.fromkeys(ACTIVE, 0)
    found.update({SimulationState(each["state"]): each["count"] for each in await rows.query(COUNT, project=project)})
    return found


async def fold(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        await overview.fold(session)


async def changes(rows: Rows) -> int:
    return int(await rows.value("SELECT count(*) FROM simulation_counts"))


async def other_project(rows: Rows) -> int:
    return int(await rows.value("INSERT INTO projects (name) VALUES ('other') RETURNING id"))


async def test_they_follow_what_is_created_moved_deleted_and_rolled_back(rows: Rows) -> None:
    assert await kept(rows) == dict.fromkeys(ACTIVE, 0)
    other = await other_project(rows)
    await rows.query(ADD, project=1, state="QUEUED", number=5)
    await rows.query(ADD, project=other, state="RUNNING", number=3)
    await rows.query(ADD, project=1, state="FINISHED", number=2)
    started = await rows.start()
    assert (await kept(rows))[SimulationState.RUNNING] + (await kept(rows))[SimulationState.STARTING] == 4

    await rows.query("UPDATE simulations SET project_id = :other WHERE id = (SELECT min(id) FROM simulations)",
                     other=other)  # fmt: skip
    await rows.query("UPDATE simulations SET name = 'renamed', state = state")
    await rows.query("DELETE FROM simulations WHERE state = 'FINISHED'")
    await rows.query("DELETE FROM simulations WHERE id = (SELECT max(id) FROM simulations WHERE state = 'QUEUED')")
    await rows.query("UPDATE simulations SET state = 'FAILED' WHERE id = :id", id=started.simulation_id)
    async with rows.sessions() as session:
        await session.execute(text(ADD), {"project": 1, "state": "QUEUED", "number": 50})
        await session.execute(text("DELETE FROM simulations WHERE project_id = 1"))
        await session.rollback()
    for _ in range(2):
        assert await kept(rows) == await counted(rows)
        for project in (1, other):
            assert await kept(rows, frozenset({project})) == await counted(rows, project)
        assert await kept(rows, frozenset({1, other})) == await counted(rows)
        assert await kept(rows, frozenset()) == dict.fromkeys(ACTIVE, 0)
        await fold(rows)
    assert await changes(rows) == 2, "one row of each project"


async def test_a_thousand_at_once_are_one_change_and_what_has_ended_leaves_no_row(rows: Rows) -> None:
    await rows.query(ADD, project=1, state="QUEUED", number=1_000)
    assert await changes(rows) == 1
    await rows.query("UPDATE simulations SET state = 'CANCELLED'")
    assert await kept(rows) == dict.fromkeys(ACTIVE, 0)
    await fold(rows)
    assert await changes(rows) == 0


async def test_a_change_waits_for_no_other_and_is_not_counted_before_its_commit(rows: Rows) -> None:
    async with rows.sessions() as first, rows.sessions() as second:
        for session in (first, second):
            await session.execute(text(ADD), {"project": 1, "state": "QUEUED", "number": 7})
        await second.commit()
        await fold(rows)  # beside one that is open
        assert (await kept(rows))[SimulationState.QUEUED] == 7
        await first.commit()
    assert (await kept(rows))[SimulationState.QUEUED] == 14


async def test_several_writers_and_those_that_add_up_agree_with_a_count(rows: Rows) -> None:
    projects = (1, await other_project(rows))
    choose = "(SELECT id FROM simulations ORDER BY id OFFSET :place LIMIT 1)"

    async def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(25):
            state, project = chance.choice(tuple(SimulationState)).value, chance.choice(projects)
            place = chance.randrange(20)
            statement, values = chance.choice([
                (ADD, {"project": project, "state": state, "number": chance.randrange(3)}),
                (f"UPDATE simulations SET state = :state WHERE id = {choose}", {"state": state, "place": place}),
                (f"DELETE FROM simulations WHERE id = {choose}", {"place": place}),
            ])  # fmt: skip
            async with rows.sessions() as session:
                await session.execute(text(statement), values)
                await (session.commit() if chance.random() < 0.8 else session.rollback())

    async def add_up() -> None:
        for _ in range(25):
            await fold(rows)

    await asyncio.gather(write(1), write(2), write(3), add_up(), add_up())
    assert await kept(rows) == await counted(rows)
    await fold(rows)
    assert await kept(rows) == await counted(rows)
    for project in projects:
        assert await kept(rows, frozenset({project})) == await counted(rows, project)
