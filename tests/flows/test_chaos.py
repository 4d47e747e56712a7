"""Chaos: many simulations, and at random moments a random part of it all is killed with kill -9.

All of them are preemptible from the first moment, and the second half is short: it takes the place of the first.

What happens follows from a seed, which is printed (CHAOS_SEED=... repeats the choices, not the machine's timing).
The short form runs with the other tests; `make chaos` runs longer, with more simulations, `make chaos-ray` on a Ray
cluster, of which nodes are killed too.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
import walker
from effort import CHAOS_SECONDS, CHAOS_SIMULATIONS
from engines import Engine
from live import Service, eventually, kill, service_on
from observers import Watch

SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(10**6))))
STEPS = 40
WATCHED = 8
GANG_EVERY = 5  # so many walkers, one has two members: its attempt ends with the first that is killed
RECOVERY_SECONDS = 300 + 2 * CHAOS_SECONDS

LIMITS = {"maxRetries": 1000, "retryOn": ["MACHINE_LOST", "EXIT_CODE"]}
PREEMPTED = "SELECT count(*) FROM attempts WHERE reason = 'PREEMPTED'"
WEIGHTS = {"supervisor": 5, "child": 5, "launcher": 2, "graph": 3, "scheduler": 3, "cancel": 3, "postgres": 1, "up": 1}
# For gangs.
MACHINE = "mutation ($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }"
OPEN = "SELECT count(*) FROM simulations WHERE state IN ('QUEUED', 'STARTING', 'RUNNING')"


@dataclass
class Chaos:
    """Who kills, and what was done."""

    service: Service
    engine: Engine
    choose: random.Random
    simulations: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    done: dict[str, int] = field(default_factory=dict)

    async def rage(self, seconds: float) -> None:
        """Kill one after the other, for so long; each time before all of it has recovered."""
        weights = {**WEIGHTS, **({"machine": 2} if self.engine.has_nodes else {})}
        now = time.monotonic()
        end, next_strike = now + seconds, now
        while now < end:
            if now >= next_strike:
                what = self.choose.choices(list(weights), list(weights.values()))[0]
                # Whatever was chosen may be dead already, or away: then it is as if nothing had been chosen.
                with suppress(LookupError, psutil.Error, AssertionError, httpx.TransportError, FileNotFoundError):
                    await self._strike(what)
                    self.done[what] = self.done.get(what, 0) + 1
                next_strike = time.monotonic() + self.choose.uniform(0.05, 0.8)
            await asyncio.sleep(0.02)
            now = time.monotonic()

    async def _strike(self, what: str) -> None:
        match what:
            case "graph" | "scheduler":
                kill(self.service.child(what))
            case "supervisor" | "child":
                kill(self.choose.choice([each for each in self.service.recorded(what) if each.is_running()]))
            case "launcher":
                kill(*self.engine.launchers(self.service))
            case "machine":
                self.engine.disturb(self.choose)
            case "postgres":
                kill(self.service.postmaster)
            case "up":
                await self.service.end(signal.SIGKILL)
                self.service.start()
            case "cancel":
                chosen = self.choose.choice(self.simulations)
                await self.service.cancel(chosen)
                self.cancelled.add(chosen)

    async def still_open(self) -> int:
        with suppress(OSError, asyncpg.PostgresError, AssertionError):
            return int((await self.service.fetch(OPEN))[0][0])
        return -1


@pytest.mark.timeout(60 + RECOVERY_SECONDS + CHAOS_SECONDS)
async def test_whatever_is_killed_at_random_nothing_is_lost_or_doubled_and_nothing_is_left(runs_on: Engine) -> None:
    count = int(CHAOS_SIMULATIONS * runs_on.share)
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={CHAOS_SECONDS:g} simulations: {count}")  # noqa: T201  # to repeat it
    with service_on(None, **{**runs_on.settings, **runs_on.short_lease, "SIMULATIONS_MIN_RUN_SECONDS": "0"}) as service:
        await service.up()
        await eventually(lambda: service.says("SELECT count(*) > 0 FROM hosts"), "a host is known")
        await runs_on.adopt(service)
        if not runs_on.has_nodes:
            made = await service.execute(MACHINE, input={"name": "other", "cpus": 2, "memoryGib": 1})
            assert not made["createMachine"]["userErrors"], made
        chaos = Chaos(service, runs_on, random.Random(SEED))
        places = service.data_directory / "locks"
        places.mkdir()
        command = ("python", walker.__file__, str(places), str(STEPS))
        wanted = {"entrypoint": list(command), "resources": {"cpus": runs_on.cpus}, "preemptible": True}
        longest = [200_000 if number < count // 2 else 2_000 for number in range(count)]
        chaos.simulations += await service.submit_many(
            [
                {
                    **wanted,
                    "name": f"walker-{number}",
                    "limits": {**LIMITS, "maxRuntimeSeconds": seconds},
                    "machines": 1 if number % GANG_EVERY else 2,
                }
                for number, seconds in enumerate(longest)
            ]
        )
        watches = [Watch.of(service, each) for each in chaos.simulations[:WATCHED]]

        await chaos.rage(CHAOS_SECONDS)

        runs_on.repair()
        if service.process is None or service.process.poll() is not None:
            service.start()
        await service.whole()
        deadline = time.monotonic() + RECOVERY_SECONDS
        while (left := await chaos.still_open()) != 0:
            assert time.monotonic() < deadline, f"{left} simulations did not end; {chaos.done}\n{service.log[-6000:]}"
            await asyncio.sleep(0.05)

        [[preempted]] = await service.fetch(PREEMPTED)
        print(f"killed: {chaos.done}; preempted: {preempted}")  # noqa: T201  # what it went through
        assert not (places / "second").exists(), (places / "second").read_text()
        for watch in watches:
            await watch.to_the_end()
            assert watch.received("loss") == await service.log_of(watch.simulation_id, "loss")
        for simulation in chaos.simulations:
            await it_is_whole(service, simulation, simulation in chaos.cancelled)
        await eventually(lambda: not service.processes_of(), "no supervisor, no child")
        await runs_on.restore(service)
        machines = await service.machines()
        assert [each["free"] for each in machines] == [each["resources"] for each in machines]
        assert await service.end() == 0
        await eventually(lambda: not service.everything(), "no process of the service")


async def it_is_whole(service: Service, simulation: str, cancelled: bool) -> None:
    """It ended as it should, and every attempt's points are there once, in order, without a gap."""
    shown: dict[str, Any] = await service.show(simulation)
    assert shown["state"] in ({"FINISHED", "CANCELLED"} if cancelled else {"FINISHED"}), shown
    stored = await service.log_of(simulation, "loss")
    for attempt in {attempt for attempt, _, _ in stored}:
        mine = [(step, value) for number, step, value in stored if number == attempt]
        assert mine == [(step, walker.value_at(attempt, step)) for step in range(len(mine))]
    if shown["state"] == "FINISHED":
        last = shown["attempts"][-1]["number"]
        assert sum(attempt == last for attempt, _, _ in stored) == STEPS
