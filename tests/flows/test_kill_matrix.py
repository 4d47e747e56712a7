"""Kill matrix: kill -9 of each process at each moment; the promises hold.

Each cell kills one part of a service while one simulation is before its hello, running, being stopped, or
just ended. Then everything comes back (by itself, or `up` is started again) and the simulation ends as it should;
every point that was stored is there once and in order, and a subscriber saw just those; no two children lived at
once; nothing of it is left; the machine is free.

Each cell once here; `make chaos` goes over all of them `KILL_PASSES` times, `make chaos-ray` on a Ray cluster, and
`make test-ray` four of them there.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any

import pytest
import witness
from effort import KILL_PASSES
from engines import LONGEST_SECONDS, Engine
from live import Service, eventually, held, is_alive, kill, points
from observers import Watch, Witness

pytestmark = pytest.mark.timeout(LONGEST_SECONDS)
FEW = 5  # points to see before something happens
MANY = 20  # points that take the supervisor more than one report


class Victim(StrEnum):
    GRAPH = "graph"
    SCHEDULER = "scheduler"
    BOTH = "both"
    SUPERVISOR = "supervisor"
    CHILD = "child"
    LAUNCHER = "launcher"  # which started the supervisor: on Ray, the guard
    POSTGRES = "postgres"
    UP = "up"
    SERVICE = "service"  # all that `up` started, and itself, at once
    MACHINE = "machine"  # the simulation with it, as when the power fails; on this host, the service too


OWN_DATABASE = (Victim.POSTGRES, Victim.UP, Victim.SERVICE, Victim.MACHINE)
WITHOUT_SUPERVISOR = (Victim.SUPERVISOR, Victim.MACHINE)


class Moment(StrEnum):
    BEFORE_HELLO = "before-hello"
    RUNNING = "running"
    STOPPING = "stopping"
    AFTER_EXIT = "after-exit"


@dataclass(frozen=True)
class Outcome:
    """How a simulation ends: its state, its reason, and the reasons of its attempts."""

    state: str
    reason: str
    attempts: list[str]


def promised(victim: Victim, moment: Moment, engine: Engine) -> Outcome:
    """What DESIGN promises. Nothing that is killed in the service itself changes the course of a simulation."""
    if moment is Moment.STOPPING:
        # It was to be stopped, and it has stopped, for any reason: no other attempt follows.
        return Outcome("CANCELLED", "CANCELLED", ["CANCELLED"])
    if victim in WITHOUT_SUPERVISOR and not (moment is Moment.AFTER_EXIT and engine.delivers_of_the_dead):
        # No process is left to report: the attempt is lost, and retried. (An exit that was written down counts, where
        # it can be read.)
        return Outcome("FINISHED", "COMPLETED", ["MACHINE_LOST", "COMPLETED"])
    if victim is Victim.CHILD and moment is not Moment.AFTER_EXIT:
        # A simulation that dies of a signal has failed; only MACHINE_LOST was to be retried.
        return Outcome("FAILED", "EXIT_CODE", ["EXIT_CODE"])
    return Outcome("FINISHED", "COMPLETED", ["COMPLETED"])


@dataclass
class Cell:
    """One simulation on one service, and who is to be killed."""

    service: Service
    engine: Engine
    victim: Victim
    witness: Witness
    simulation_id: str = ""
    said_at_strike: int = 0
    exit_counts: bool = False

    async def submit(self) -> None:
        limits = {"maxRetries": 1, "retryOn": ["MACHINE_LOST"]}
        self.simulation_id = await self.service.submit(*self.witness.command, limits=limits)

    @cached_property
    def watch(self) -> Watch:
        """A subscriber, from now on."""
        return Watch.of(self.service, self.simulation_id)

    async def strike(self) -> None:
        """Kill the victim."""
        service = self.service
        self.exit_counts = self.engine.delivers_of_the_dead and self.exit_is_on_disk()
        match self.victim:
            case Victim.GRAPH | Victim.SCHEDULER:
                kill(service.child(self.victim))
            case Victim.BOTH:
                kill(service.child("graph"), service.child("scheduler"))
            case Victim.SUPERVISOR | Victim.CHILD:
                kill(*service.recorded(self.victim))
            case Victim.LAUNCHER:
                kill(*self.engine.launchers(service))
            case Victim.POSTGRES:
                kill(service.postmaster)
            case Victim.UP:
                assert await service.end(signal.SIGKILL) != 0
            case Victim.SERVICE:
                kill(*service.itself())
                assert await service.ended() != 0
            case Victim.MACHINE:
                await self.engine.lose_machine(service)
        self.said_at_strike = self.witness.said

    def exit_is_on_disk(self) -> bool:
        """Whether the supervisor has written down how the child ended."""
        written = (each.glob(name) for each in self.service.attempts for name in ("*/*.jsonl", "*/config.json"))
        for path in chain.from_iterable(written):
            with suppress(FileNotFoundError):
                if '["exit",' in path.read_text():
                    return True
        return False

    async def recover(self) -> None:
        """Have it all run again: `up` does that by itself, unless it was the one that was killed."""
        if self.service.process is None or self.service.process.poll() is not None:
            self.service.start()
        await self.service.whole()


# --- the moments -----------------------------------------------------------------------------------------------------


async def before_hello(cell: Cell) -> None:
    """A supervisor's hello is not answered. A child exists only after the answer: it dies before its first output."""
    graph = cell.service.child("graph")
    if cell.victim is Victim.CHILD:
        await cell.submit()
        await cell.witness.has_noted("begun")
    else:
        async with cell.service.paused("scheduler"):
            await cell.submit()
            await cell.service.pause("graph")
    with held(graph):
        await eventually(lambda: bool(cell.service.recorded("supervisor")), "its supervisor is started")
        await cell.strike()
    cell.witness.permit("speak")
    await cell.recover()
    if cell.victim is not Victim.CHILD:
        await cell.witness.has_noted("begun", 2 if cell.victim in WITHOUT_SUPERVISOR else 1)
        cell.witness.permit("finish")


async def running(cell: Cell) -> None:
    """Points come in."""
    await speaking(cell)
    await cell.strike()
    await cell.recover()
    if cell.victim is not Victim.CHILD:
        if cell.victim in WITHOUT_SUPERVISOR:
            await cell.witness.has_noted("begun", 2)
        await cell.witness.has_said(FEW)
        cell.witness.permit("finish")


async def stopping(cell: Cell) -> None:
    """It was asked to stop, and takes its time: it ends while the service is away, or never by itself."""
    await speaking(cell)
    await cell.service.cancel(cell.simulation_id)
    await cell.witness.has_noted("told")
    await cell.strike()
    if cell.victim not in WITHOUT_SUPERVISOR:
        cell.witness.permit("let-go")
    await cell.recover()


async def after_exit(cell: Cell) -> None:
    """It has ended, and no graph process takes the report. (A child can be killed then only until it is reaped.)"""
    await speaking(cell)
    async with cell.service.paused("graph"):
        await cell.witness.has_said(MANY)
        with held(*cell.service.recorded("supervisor") if cell.victim is Victim.CHILD else ()):
            [child] = cell.service.recorded("child")
            cell.witness.permit("finish")
            await cell.witness.has_noted("printed")
            await eventually(lambda: not is_alive(child), "the child has exited")
            if cell.victim in WITHOUT_SUPERVISOR:
                await eventually(cell.exit_is_on_disk, "its supervisor has written down how it ended")
            await cell.strike()
    await cell.recover()


async def speaking(cell: Cell) -> None:
    cell.witness.permit("speak")
    await cell.submit()
    await cell.watch.has_received(FEW)


MOMENTS = {
    Moment.BEFORE_HELLO: before_hello,
    Moment.RUNNING: running,
    Moment.STOPPING: stopping,
    Moment.AFTER_EXIT: after_exit,
}


@pytest.mark.parametrize("number", range(1, KILL_PASSES + 1))
@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("victim", list(Victim))
async def test_what_was_promised_holds_whatever_is_killed(
    lend: Any, runs_on: Engine, victim: Victim, moment: Moment, number: int
) -> None:
    # A database of the service's own is there to be killed; any other is quicker to make.
    async with lend(own_database=victim in OWN_DATABASE, **runs_on.settings) as service:
        await runs_on.adopt(service)
        cell = Cell(service, runs_on, victim, Witness.on(service))
        await MOMENTS[moment](cell)
        await cell.watch.to_the_end()
        await runs_on.restore(service)

        await it_ended_as_promised(cell, promised(victim, moment, runs_on))
        await nothing_was_lost_or_doubled(cell)
        await nothing_is_left(service)


# --- what was promised -----------------------------------------------------------------------------------------------


async def it_ended_as_promised(cell: Cell, outcome: Outcome) -> None:
    shown = await cell.service.show(cell.simulation_id)
    attempts = [attempt["reason"] for attempt in shown["attempts"]]
    assert Outcome(shown["state"], shown["reason"], attempts) == outcome, shown
    last = cell.watch.events[-1]
    assert (last["state"], last["reason"]) == (outcome.state, outcome.reason)
    if cell.victim is Victim.CHILD and outcome.reason != "COMPLETED":
        assert shown["attempts"][0]["signal"] == signal.SIGKILL


async def nothing_was_lost_or_doubled(cell: Cell) -> None:
    stored = await cell.service.log_of(cell.simulation_id, "loss")
    assert cell.watch.received("loss") == stored
    assert not cell.witness.notes("second"), "two children lived at once"
    for attempt in {attempt for attempt, _, _ in stored} | {1}:
        steps = [step for number, step, _ in stored if number == attempt]
        assert steps == list(range(len(steps))), "in order, and none is missing"
        assert [value for number, _, value in stored if number == attempt] == [
            witness.loss(attempt, step) for step in steps
        ]
        # A supervisor that was killed took what it had not written down with it. Any other has sent all that it read.
        if not (cell.victim in WITHOUT_SUPERVISOR and attempt == 1 and not cell.exit_counts):
            printed = cell.witness.notes("printed", attempt)
            assert [len(steps)] == printed if printed else len(steps) >= cell.said_at_strike
    last = max((attempt for attempt, _, _ in stored), default=0)
    curve = [(step, value) for attempt, step, value in stored if attempt == last]
    assert points(cell.watch.events, "loss") == curve, "an attempt that begins anew takes the place of the one before"


async def nothing_is_left(service: Service) -> None:
    await eventually(lambda: not service.processes_of(), "no supervisor, no child, no grandchild")
    await eventually(service.is_free, "the machine is free again")
    # That it ends with 0, and no process of it is left then, holds for every service that is lent (lending.py).
