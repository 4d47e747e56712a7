"""`submit --wait`: wait for a simulation's end without its curve (this does not count as watching)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from gql.client import AsyncClientSession
from rich.status import Status
from rich.text import Text

from cli.advice import say_advice
from cli.answers import Simulation
from cli.browse import short_objective
from cli.documents import CHANGES
from cli.errors import ExitCode
from cli.resuming import Resuming
from cli.server import Server, prepare, read_answer
from cli.terminal import clean, say, stderr

LOOK_AGAIN_SECONDS = 15.0  # a change may fall between the query and the subscription


def wait(server: Server, simulation_id: str) -> ExitCode:
    """Wait for a simulation's end and return the exit code of its final state. Raises `CommandError`."""
    told = Told()
    try:
        asyncio.run(Waiter(server, simulation_id, told.simulation, told.outage).run())
    except KeyboardInterrupt:
        told.end()
        say(f"Stopped waiting; the simulation goes on. Stop it: simulations cancel {clean(simulation_id)}")
        return ExitCode.INTERRUPTED
    finally:
        told.end()
    say_advice(server, told.now)
    return ExitCode.of(told.state)


class Waiter(Resuming):
    """Subscription to a simulation's state, until it is final."""

    def __init__(
        self,
        server: Server,
        simulation_id: str,
        show: Callable[[Simulation], None],
        outage: Callable[[str], None],
    ) -> None:
        super().__init__(server, simulation_id, outage)
        self._show = show

    async def follow(self, session: AsyncClientSession) -> None:
        request = prepare(CHANGES, {"id": self._id})
        changed = asyncio.Event()

        async def listen() -> None:
            async with aclosing(session.subscribe(request)) as changes:
                async for answer in changes:
                    read_answer(Simulation, answer.get("simulationChanged"))
                    changed.set()

        listening = asyncio.create_task(listen())
        try:
            while True:
                changed.clear()
                simulation = await self.now(session)
                self.accepted()
                self.came()
                self._show(simulation)
                if simulation.is_final:
                    return
                woken = asyncio.create_task(changed.wait())
                await asyncio.wait({woken, listening}, timeout=LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if listening.done():
                    listening.result()  # raises its exception
                    raise self.ended_early()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


class Told:
    """Progress of the wait: an updated line on a terminal, elsewhere a line for each state."""

    def __init__(self) -> None:
        self.state = ""
        self.now: Simulation | None = None
        self._line = ""
        console = stderr()
        self._status = Status("", console=console) if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def simulation(self, simulation: Simulation) -> None:
        self.state, self.now = simulation.state, simulation
        line = f"{clean(simulation.name)}: {simulation.state} {clean(simulation.why)}".rstrip()
        reached = short_objective(simulation.objective) if simulation.is_final else ""
        line += f", {reached}" if reached else ""
        if self._status is not None and not simulation.is_final:
            self._status.update(Text(line))
        elif line != self._line:
            self.end()
            say(line)
        self._line = line

    def outage(self, sentence: str) -> None:
        if self._status is not None:
            self._status.update(Text(sentence))
        elif sentence != self._line:
            say(sentence)
        self._line = sentence

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()
