"""Lent services: the next test gets the same service, emptied, or a new one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from databases import Databases
from lending import Lender, Lent
from live import BRISK, Service, eventually, kill
from observers import Watch, Witness

# Of the start: its host and machine, its own token, the project that is always there.
COUNTS = """
SELECT (SELECT count(*) FROM simulations), (SELECT count(*) FROM attempts), (SELECT count(*) FROM convergence),
       (SELECT count(*) FROM machines), (SELECT count(*) FROM hosts), (SELECT count(*) FROM projects),
       (SELECT count(*) FROM tokens)
"""
TOKEN = 'mutation { createToken(input: {name: "a", role: VIEWER}) { userErrors { message } } }'
MACHINE = """
mutation { createMachine(input: {name: "m", cpus: 2, memoryGib: 1}) { userErrors { message } } }
"""

OTHER = {**BRISK, "SIMULATIONS_CURRENCY": "EUR"}


async def use(service: Service) -> None:
    """Leave something of each kind behind."""
    witness = Witness.on(service)
    witness.permit("speak")
    watch = Watch.of(service, await service.submit(*witness.command, project="p"))
    await watch.has_received(5)
    await watch.leave()
    await service.submit("true", resources={"gpus": 100})
    for mutation in (TOKEN, MACHINE):
        await service.execute(mutation)


async def test_it_is_the_same_with_nothing_in_it(lender: Lender) -> None:
    async with lender.lend(**BRISK) as service:
        process, before = service.process, await service.fetch(COUNTS)
        await use(service)
        assert await service.fetch(COUNTS) != before
    async with lender.lend(**BRISK) as again:
        assert again is service
        assert again.process is process
        assert await again.fetch(COUNTS) == before
        assert not again.processes_of()
        assert not (again.data_directory / "witness").exists()
        assert (await again.finished(await again.submit("true")))["state"] == "FINISHED"


async def test_the_scheduler_of_one_that_waits_is_stopped_while_others_are_lent(lender: Lender) -> None:
    async with lender.lend(**BRISK) as service:
        scheduler = service.child("scheduler")
    async with lender.lend(**OTHER):
        assert scheduler.status() == psutil.STATUS_STOPPED
    async with lender.lend(**BRISK) as again:
        assert again is service
        assert again.child("scheduler") == scheduler
        assert (await again.finished(await again.submit("true")))["state"] == "FINISHED"


async def test_a_scheduler_that_was_killed_while_it_was_stopped_is_started_again(lender: Lender) -> None:
    async with lender.lend(**BRISK) as service:
        scheduler = service.child("scheduler")
    async with lender.lend(**OTHER):
        kill(scheduler)
    async with lender.lend(**BRISK) as again:
        assert again is service
        assert again.child("scheduler") != scheduler
        assert (await again.finished(await again.submit("true")))["state"] == "FINISHED"


async def test_one_that_ended_while_it_waited_is_reported_and_done_away_with(lender: Lender) -> None:
    async with lender.lend(**BRISK) as service:
        pass
    assert await service.end(signal.SIGKILL) != 0
    with pytest.raises(LookupError, match="scheduler"):
        async with lender.lend(**OTHER):
            pass
    assert not service.data_directory.exists()
    async with lender.lend(**BRISK) as another:
        assert another is not service
    async with lender.lend(**OTHER):
        assert await another.end(signal.SIGKILL) != 0
    with pytest.raises(AssertionError, match="up ended with -9"):
        async with lender.lend(**BRISK):
            pass
    assert not another.data_directory.exists()


async def test_one_whose_scheduler_is_stopped_is_done_away_with_as_any_other(
    databases: Databases, fill: Callable[[Path], None]
) -> None:
    lent = await Lent.start(databases.lend(), BRISK, fill)
    process, path = lent.service.process, lent.service.data_directory / "up-1.log"
    assert process is not None
    await lent.rest()
    with path.open() as log:
        await lent.drop()
        assert process.poll() == 0
        assert "had to be killed" not in log.read()


async def test_a_part_that_can_not_be_asked_about_is_not_left_stopped(lender: Lender) -> None:
    async with lender.lend(**BRISK) as service:
        scheduler, environment = service.child("scheduler"), service.environment
        service.environment = {**environment, "DATABASE_URL": "postgresql:///simulations?host=/nowhere"}
        with pytest.raises(FileNotFoundError):
            await service.pause("scheduler")
        assert scheduler.status() != psutil.STATUS_STOPPED
        service.environment = environment
        kill(scheduler)
        with pytest.raises(AssertionError, match="scheduler has ended"):
            await service._is_paused("scheduler", scheduler)


async def test_two_with_the_same_settings_are_both_ended(lender: Lender) -> None:
    async with lender.lend(**BRISK) as one, lender.lend(**BRISK) as two:
        assert one is not two
    assert not one.data_directory.exists()
    assert two.data_directory.exists()


async def test_it_is_the_same_after_the_death_of_a_part(lender: Lender) -> None:
    async with lender.lend(**BRISK) as service:
        process, graph = service.process, service.child("graph")
        kill(graph)
        await eventually(lambda: "starting it again" in service.log, "`up` has noticed")
    async with lender.lend(**BRISK) as again:
        assert again is service
        assert again.process is process
        assert again.child("graph") != graph
        assert (await again.finished(await again.submit("true")))["state"] == "FINISHED"
        again.spent = True


async def test_it_is_another_one_after_a_failure_many_deaths_or_a_change(lender: Lender) -> None:
    lent = []
    with suppress(RuntimeError):
        async with lender.lend(**BRISK) as service:
            lent.append(service)
            raise RuntimeError
    async with lender.lend(**BRISK, failed=lambda: True) as service:
        lent.append(service)
    async with lender.lend(**BRISK) as service:
        lent.append(service)

        async def dies_often() -> bool:
            if service.has("graph"):
                kill(service.child("graph"))
            return "starting it again in 2 s" in service.log  # at once or after 0.5 s, after 1 s, after 2 s

        await eventually(dies_often, "`up` pauses for long")
    async with lender.lend(**BRISK) as service:
        lent.append(service)
    assert len({id(each) for each in lent}) == 4
    for service in lent[:3]:
        assert not service.data_directory.exists()
        assert service.everything() == []
