"""What a dead supervisor left on disk is stored, in order and once each, before its attempt is settled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import public_ids
from runner.base import Engine, Liveness, Undelivered, UndeliveredExit
from runner.local import LocalEngine
from runner.supervisor import assignment
from runner.supervisor.spool import Spool
from scheduler.host import HostLoop
from scheduler.leftovers import deliver
from scheduler.planner import Planner

World = Any  # the fixtures of conftest.py
ScriptedEngine = Any
BACKOFF = timedelta(seconds=5)


@pytest.fixture
def host(world: World, scripted: ScriptedEngine) -> HostLoop:
    engine: Engine = scripted
    return HostLoop(world.sessions, world.settings, engine, world.host_id)


@dataclass
class Dead:
    """A simulation whose supervisor has died, and what that left."""

    world: World
    engine: ScriptedEngine
    simulation_id: int
    attempt_id: int
    public_id: str
    token: str

    def leaves(self, *left: Undelivered) -> None:
        self.engine.left[self.public_id] = [replace(each, token=each.token or self.token) for each in left]

    async def deliver(self) -> bool:
        return await deliver(self.world.sessions, self.engine, self.attempt_id, backoff=BACKOFF)

    async def steps(self) -> list[int]:
        query = "SELECT unnest(steps) FROM convergence WHERE simulation_id = :id ORDER BY batch"
        async with self.world.sessions() as session:
            return list(await session.scalars(text(query), {"id": self.simulation_id}))


@pytest.fixture
async def dead(world: World, scripted: ScriptedEngine, host: HostLoop) -> Dead:
    await host.run_once()
    simulation_id = await world.simulation()
    await Planner(world.sessions, world.settings).plan()
    await host.launch_assigned()
    await world.hello(simulation_id)
    attempt = await world.attempt_of(simulation_id)
    public_id = public_ids.encode("Attempt", attempt.id)
    scripted.liveness[public_id] = Liveness.DEAD
    return Dead(world, scripted, simulation_id, attempt.id, public_id, scripted.launches[-1].token)


def batch(number: int, *steps: int, end: UndeliveredExit | None = None, **given: Any) -> Undelivered:
    points = {"loss": (list(steps), [float(step) for step in steps], [0.1] * len(steps))} if steps else {}
    fields = {"token": "", "nonce": "nonce", "number": number, "points": points, "logs": [], "exit": end}
    return Undelivered(**{**fields, **given})


async def test_batches_are_stored_before_the_attempt_is_lost(dead: Dead, host: HostLoop) -> None:
    dead.leaves(batch(1, 0, 1), batch(2, 2), batch(3, 3, 4, logs=[("STDOUT", "a\nb")]))
    assert (await host.run_once()).ended == 1
    assert await dead.steps() == [0, 1, 2, 3, 4]
    assert (await dead.world.attempt_of(dead.simulation_id)).reason == "MACHINE_LOST"


async def test_an_exit_among_them_is_how_it_ended(dead: Dead, host: HostLoop) -> None:
    dead.leaves(batch(1, 0), batch(2, end=UndeliveredExit(0, None, None, None)))
    assert (await host.run_once()).ended == 1
    simulation = await dead.world.get(dead.simulation_id)
    assert (simulation.state, simulation.reason) == ("FINISHED", "COMPLETED")
    assert await dead.steps() == [0]


async def test_batches_that_were_delivered_already_are_not_stored_again(dead: Dead) -> None:
    dead.leaves(batch(1, 0), batch(2, 1))
    assert not await dead.deliver()
    dead.leaves(batch(1, 0), batch(2, 1), batch(3, 2))
    assert not await dead.deliver()
    assert await dead.steps() == [0, 1, 2]


async def test_a_batch_that_the_full_disk_did_not_take_leaves_a_gap_and_the_rest_is_stored(dead: Dead) -> None:
    dead.leaves(batch(1, 0), batch(4, 3), batch(5, 4))
    await dead.deliver()
    assert await dead.steps() == [0, 3, 4]


@pytest.mark.parametrize(
    "broken",
    [
        {"points": {"loss": ([2, 1], [0.5, 0.5], [0.1, 0.1])}},
        {"points": {"loss": ([1], ["much"], [0.1])}},
        {"logs": [("SOMEWHERE", "a line")]},
    ],
    ids=["steps that fall", "no number", "no such stream"],
)
async def test_a_batch_that_breaks_the_rules_is_replaced_by_a_sentence(dead: Dead, broken: dict[str, Any]) -> None:
    dead.leaves(batch(1, **broken), batch(2, 5))
    await dead.deliver()
    assert await dead.steps() == [5]
    async with dead.world.sessions() as session:
        said = await session.scalar(text("SELECT text FROM log_chunks WHERE batch = 1"))
    assert "Batch 1 on the disk of the machine was refused and its content is lost" in said


@pytest.mark.parametrize("wrong", [{"token": "another"}, {"nonce": "another"}])
async def test_a_spool_of_another_supervisor_is_not_taken(dead: Dead, wrong: dict[str, str]) -> None:
    dead.leaves(batch(1, 0, **wrong))
    assert not await dead.deliver()
    assert await dead.steps() == []


async def test_files_that_cannot_be_read_keep_no_attempt_from_its_end(dead: Dead, host: HostLoop) -> None:
    dead.engine.left[dead.public_id] = OSError("input/output error")
    assert (await host.run_once()).ended == 1
    assert (await dead.world.attempt_of(dead.simulation_id)).reason == "MACHINE_LOST"


@pytest.mark.parametrize("is_of_an_earlier_version", [False, True])
def test_the_files_of_a_spool_are_what_an_engine_gives(tmp_path: Path, is_of_an_earlier_version: bool) -> None:
    """Everything above takes a scripted engine: here is what the real one reads (tests/runner has the rest)."""
    engine = LocalEngine(tmp_path, "http://127.0.0.1:1/graphql", host="h", machine_name="m")
    directory = tmp_path / "attempts" / "A"
    directory.mkdir()
    place = directory
    if is_of_an_earlier_version:
        for name in ("token", "nonce"):
            (directory / name).write_text(name)
        assignment.write(directory, {"attempt_id": "A"})
        place = directory / "spool"
        place.mkdir()
    else:
        assignment.write(directory, {"attempt_id": "A", "token": "token"})
        assert engine._undelivered("A", 0) is None, "there was no hello"
        assignment.append(directory, {"nonce": "nonce"})
        with (directory / "config.json").open("a") as file:
            file.write('\n{"child": {"pid"')  # torn
    spool = Spool(place, 1 << 20, 1 << 20)
    spool.add_points(7, 0.5, [("loss", 1.5), ("rate", "NaN")])
    spool.add_log("STDOUT", "a line")
    spool.write_out()
    assert engine._undelivered("A", 0) == Undelivered(
        "token", "nonce", 1, {"loss": ([7], [1.5], [0.5]), "rate": ([7], ["NaN"], [0.5])}, [("STDOUT", "a line")], None
    )
    spool.add_notice("NOT_RISING", 3, "a line", "advice")
    spool.write_out()
    left = engine._undelivered("A", 0)
    assert left is not None
    assert left.notices == (("NOT_RISING", 3, "a line", "advice"),)
    assert engine._undelivered("A", 1) is None
