"""Lent services: the next test gets the same service, emptied, or a new one."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import psutil
from lending import Lender
from live import BRISK, Service, eventually, is_alive, kill
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
    other = {**BRISK, "SIMULATIONS_CURRENCY": "EUR"}
    async with lender.lend(**BRISK) as service:
        scheduler = service.child("scheduler")
    async with lender.lend(**other):
        assert scheduler.status() == psutil.STATUS_STOPPED
    async with lender.lend(**BRISK) as again:
        assert again is service
        assert again.child("scheduler") == scheduler
        assert (await again.finished(await again.submit("true")))["state"] == "FINISHED"


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
        while "starting it again in 2 s" not in service.log:  # at once or after 0.5 s, after 1 s, after 2 s
            graph = service.child("graph")
            kill(graph)
            await eventually(lambda graph=graph: not is_alive(graph), "it is dead")  # type: ignore[misc]
            await eventually(partial(service.has, "graph"), "it runs again")
    async with lender.lend(**BRISK) as service:
        lent.append(service)
    assert len({id(each) for each in lent}) == 4
    for service in lent[:3]:
        assert not service.data_directory.exists()
        assert service.everything() == []
