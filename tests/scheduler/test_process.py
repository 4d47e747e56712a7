"""`python -m scheduler` and this host's own engine: real processes on a real database, and no API."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import warm

from db import public_ids
from db.connection import connect_raw
from runner.base import Liveness
from runner.local import LocalEngine
from scheduler.host import HostLoop
from scheduler.planner import Planner

World = Any  # the fixture of conftest.py
ROOT = Path(__file__).parents[2]
NO_API = "http://127.0.0.1:1/graphql"
PATIENCE_SECONDS = 60  # a bound for what takes well under a second on an idle machine


async def _until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.02)


class Schedulers:
    """Scheduler processes of a test, on data directories of their own."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self.directory = directory
        self._started: list[warm.Process] = []

    def start(self, name: str = "data", **environment: str) -> warm.Process:
        log = (self.directory / f"{name}-{len(self._started)}.log").open("w")
        with log:
            process = warm.start(
                ("-m", "scheduler"),
                directory=ROOT,
                environment={
                    **os.environ,
                    "DATABASE_URL": self._url,
                    "SIMULATIONS_DATA_DIR": str(self.directory / name),
                    "SIMULATIONS_PUBLIC_URL": NO_API.removesuffix("/graphql"),
                    "SIMULATIONS_MACHINE_NAME": name,
                    **environment,
                },
                stdout=log,
            )
        self._started.append(process)
        return process

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    async def ended(self, process: warm.Process) -> int:
        return await asyncio.to_thread(process.wait, PATIENCE_SECONDS)

    async def clear(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        for attempts in self.directory.glob("*/attempts"):
            engine = LocalEngine(attempts.parent, NO_API, host="test", machine_name="test")
            for each in await engine.members():
                await engine.end(each)


@pytest.fixture
async def schedulers(database_url: str, tmp_path: Path) -> AsyncIterator[Schedulers]:
    schedulers = Schedulers(database_url, tmp_path)
    yield schedulers
    await schedulers.clear()


@pytest.fixture
async def local(world: World, tmp_path: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(tmp_path, NO_API, host=world.host_id, machine_name="here")
    yield engine
    for each in await engine.members():
        await engine.end(each)
    engine.close()


async def _launched(world: World, simulation_id: int) -> bool:
    return any(each.launched_at is not None for each in await world.attempts_of(simulation_id))


async def test_a_real_supervisor_that_is_killed_is_proved_dead_and_replaced(world: World, local: LocalEngine) -> None:
    host = HostLoop(world.sessions, world.settings, local, world.host_id)
    planner = Planner(world.sessions, world.settings)
    await host.run_once()
    simulation_id = await world.simulation(max_retries=1)
    await planner.tick()
    assert (await host.launch_assigned()).launched == 1
    public_id = public_ids.encode("Attempt", (await world.attempt_of(simulation_id)).id)
    assert await local.probe(public_id) is Liveness.ALIVE
    assert (await host.run_once()).ended == 0

    await local.end(public_id)
    assert (await host.run_once()).ended == 1
    assert await local.members() == []
    await world.execute("UPDATE simulations SET queued_at = now()")
    await planner.tick()
    await host.run_once()
    assert [each.reason for each in await world.attempts_of(simulation_id)] == ["MACHINE_LOST", None]
    assert len(await local.members()) == 1


@pytest.mark.parametrize(
    "environment",
    [
        # With notifications the timer can't be what does it; without them it is all there is.
        {"SIMULATIONS_TICK_SECONDS": "60"},
        {"SIMULATIONS_TICK_SECONDS": "0.2", "SIMULATIONS_NOTIFICATIONS": "0"},
    ],
    ids=["by-notification", "by-timer"],
)
async def test_a_scheduler_launches_what_is_submitted_and_leaves_it_running_when_it_ends(
    world: World, schedulers: Schedulers, environment: dict[str, str]
) -> None:
    process = schedulers.start(**environment)

    async def started() -> bool:
        return "leadership_won" in schedulers.log and (process.poll() is None)

    await _until(started, "it leads")
    first = await world.simulation()
    await _until(lambda: _launched(world, first), "the first launch")
    second = await world.simulation()
    await _until(lambda: _launched(world, second), "the second launch")

    said = len(schedulers.log.splitlines())
    process.send_signal(signal.SIGTERM)
    assert await schedulers.ended(process) == 0
    said_since = schedulers.log.splitlines()[said:]
    assert len(said_since) == 1, "it begins nothing more, and waits for nothing that runs"
    assert "scheduler_stopped" in said_since[0]
    engine = LocalEngine(schedulers.directory / "data", NO_API, host="test", machine_name="test")
    for each in (first, second):
        public_id = public_ids.encode("Attempt", (await world.attempt_of(each)).id)
        assert await engine.probe(public_id) is Liveness.ALIVE
    assert "round_failed" not in schedulers.log


async def test_a_killed_leader_is_followed_by_the_next(world: World, schedulers: Schedulers) -> None:
    leader = schedulers.start("one", SIMULATIONS_TICK_SECONDS="0.2")

    async def leads() -> bool:
        return "leadership_won" in schedulers.log

    await _until(leads, "the first leads")
    schedulers.start("two", SIMULATIONS_TICK_SECONDS="0.2")

    async def both_joined() -> bool:
        return await _count(schedulers._url, "SELECT count(*) FROM machines") == 2

    await _until(both_joined, "both hosts have joined")
    assert schedulers.log.count("leadership_won") == 1

    leader.kill()
    await schedulers.ended(leader)
    # Its host would count as alive for another lease.
    await world.execute("UPDATE machines SET heartbeat_at = NULL WHERE name = 'one'")
    simulation_id = await world.simulation()
    await _until(lambda: _launched(world, simulation_id), "the second plans, and launches on its own host")
    assert schedulers.log.count("leadership_won") == 2
    assert (await world.attempt_of(simulation_id)).machine_name == "two"


async def test_a_second_scheduler_on_one_data_directory_ends_with_a_sentence(schedulers: Schedulers) -> None:
    schedulers.start()

    async def runs() -> bool:
        return "scheduler_started" in schedulers.log

    await _until(runs, "the first runs")
    second = schedulers.start()
    assert await schedulers.ended(second) == 2
    assert "Another scheduler runs on this data directory" in schedulers.log


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"DATABASE_URL": ""}, "No database: DATABASE_URL is not set"),
        ({"DATABASE_URL": "mysql://x"}, "not the URL of a PostgreSQL database"),
        ({"SIMULATIONS_TICK_SECONDS": "never"}, "SIMULATIONS_TICK_SECONDS"),
    ],
)
async def test_what_can_not_be_used_is_told_in_a_sentence(
    schedulers: Schedulers, environment: dict[str, str], sentence: str
) -> None:
    process = schedulers.start(**environment)
    assert await schedulers.ended(process) == 2
    assert sentence in schedulers.log
    assert "Traceback" not in schedulers.log


async def test_a_database_without_tables_is_refused_with_the_command_that_mends_it(
    empty_database_url: str, schedulers: Schedulers
) -> None:
    process = schedulers.start(DATABASE_URL=empty_database_url)
    assert await schedulers.ended(process) == 2
    assert "simulations migrate" in schedulers.log


async def test_a_database_that_is_not_there_yet_is_waited_for(schedulers: Schedulers, database_url: str) -> None:
    process = schedulers.start(DATABASE_URL=database_url.replace("port=5432", "port=1"))

    async def told() -> bool:
        return "database_away" in schedulers.log

    await _until(told, "it says that it waits")
    process.send_signal(signal.SIGINT)
    assert await schedulers.ended(process) == 0


async def test_a_database_that_goes_away_for_a_moment_ends_nothing(world: World, schedulers: Schedulers) -> None:
    process = schedulers.start(SIMULATIONS_TICK_SECONDS="0.2")

    async def leads() -> bool:
        return "leadership_won" in schedulers.log

    await _until(leads, "it leads")
    await _count(
        schedulers._url,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        # Not the test's own, which would be used while they are being ended.
        " WHERE application_name LIKE 'simulations-%' AND application_name <> 'simulations-test'",
    )
    simulation_id = await world.simulation()
    await _until(lambda: _launched(world, simulation_id), "it works again")
    assert process.poll() is None


async def _count(url: str, statement: str) -> int:
    connection = await connect_raw(url, application="test")
    try:
        return int(await connection.fetchval(statement))
    finally:
        await connection.close()
