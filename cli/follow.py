"""Convergence subscription with reconnection (`cli.resuming`).

Each event carries the cursor to resume from. A parallel subscription to `simulationChanged` updates the state line
before the first point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Protocol

from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportError

from cli.answers import FINAL_STATES, ConvergenceEvent, Simulation
from cli.documents import CHANGES, CONVERGENCE
from cli.resuming import Resuming
from cli.server import Server, prepare, read_answer


class Display(Protocol):
    """Consumer of the events. Called in order, never concurrently."""

    def simulation(self, simulation: Simulation) -> None:
        """Show the simulation's current state: at first, after each change, and at the end."""

    def event(self, event: ConvergenceEvent) -> None:
        """Show the next event of the curve."""

    def outage(self, sentence: str) -> None:
        """Show that the connection is lost and will be retried; called once for each try."""


class Follower(Resuming):
    """Subscription to one simulation's curve, with the current cursor."""

    def __init__(self, server: Server, simulation_id: str, metrics: Sequence[str], display: Display) -> None:
        super().__init__(server, simulation_id, display.outage)
        self._metrics = list(metrics) or None
        self._display = display
        self._cursor: str | None = None
        self._state: str | None = None

    async def follow(self, session: AsyncClientSession) -> None:
        changes = asyncio.create_task(self._follow_changes(session))
        try:
            self._display.simulation(await self.now(session))
            self.accepted()
            request = prepare(CONVERGENCE, {"id": self._id, "metrics": self._metrics, "after": self._cursor})
            async with aclosing(session.subscribe(request)) as events:
                async for answer in events:
                    event = read_answer(ConvergenceEvent, answer.get("convergence"))
                    self._cursor, self._state = event.cursor, event.state
                    self.came()
                    self._display.event(event)
        finally:
            changes.cancel()
            with suppress(asyncio.CancelledError, TransportError):
                await changes
        if self._state not in FINAL_STATES:
            raise self.ended_early()
        self._display.simulation(await self.now(session))

    async def _follow_changes(self, session: AsyncClientSession) -> None:
        # Failures are ignored: the subscription of the curve detects them itself.
        with suppress(TransportError, TimeoutError):
            request = prepare(CHANGES, {"id": self._id})
            async with aclosing(session.subscribe(request)) as changes:
                async for answer in changes:
                    self._display.simulation(read_answer(Simulation, answer.get("simulationChanged")))
