"""The convergence subscription, followed to its end through cut connections.

A cursor over the log: each event brings one, and after a cut the next connection goes on behind the last. Nothing is
missed and nothing comes twice. Beside it runs `simulationChanged`, a hint that makes the state line move while nothing
is printed yet. What a server says about the request itself (no such simulation, a bad metric) ends it; a server that
was there once and is gone is tried again for ever, with growing pauses; one that was never there is an error.
Fails with `CommandError` where it makes no sense to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Protocol

from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportError, TransportQueryError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from cli.answers import FINAL_STATES, ConvergenceEvent, Simulation
from cli.documents import CHANGES, CONVERGENCE, SIMULATION
from cli.errors import CommandError, ServerRefused
from cli.server import Server, explain, read_answer, unknown_simulation, websocket_transport

LONGEST_PAUSE_SECONDS = 3.0
MOST_SERVER_ERRORS = (
    5  # in a row, without any event between them: a restarting database mends itself, a defect does not
)
GONE = "The connection is gone; trying again …"
ABOUT_THE_REQUEST = frozenset({"NOT_FOUND", "BAD_USER_INPUT", "UNAUTHENTICATED", "FORBIDDEN"})


class Display(Protocol):
    """Whoever shows it. Called in order, never concurrently."""

    def simulation(self, simulation: Simulation) -> None:
        """Take the simulation as it is now: at first, after each change, and at the end."""

    def event(self, event: ConvergenceEvent) -> None:
        """Take the next event of the curve."""

    def outage(self, sentence: str) -> None:
        """Take note that the connection is gone and will be tried again; told once for each try."""


class _Cut(Exception):
    """The connection ended before the curve did."""

    def __init__(self, meaning: CommandError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


class Follower:
    """One watched simulation: where we are on its curve."""

    def __init__(self, server: Server, simulation_id: str, metrics: Sequence[str], display: Display) -> None:
        self._server = server
        self._id = simulation_id
        self._metrics = list(metrics) or None
        self._display = display
        self._cursor: str | None = None
        self._state: str | None = None
        self._accepted = False  # whether the server ever answered
        self._server_errors = 0

    async def run(self) -> None:
        """Follow until the curve is complete. Raises `CommandError`."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_another_try),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            # A connection that brought events and was cut then begins a new row of tries, with short pauses.
            while True:
                finished: bool = await retrying(self._connection)
                if finished:
                    return
                self._display.outage(GONE)
        except _Cut as cut:
            raise cut.meaning from cut

    def _is_worth_another_try(self, error: BaseException) -> bool:
        return isinstance(error, _Cut) and self._accepted

    def _tell(self, _: RetryCallState) -> None:
        self._display.outage(GONE)

    async def _connection(self) -> bool:
        """Follow over one connection: True at the end of the curve, False if it was cut after an event."""
        before = self._cursor
        try:
            async with Client(transport=websocket_transport(self._server)) as session:
                await self._follow(session)
                return True
        except TransportQueryError as error:
            self._judge(error)
            cut = _Cut(explain(error, self._server))
        except (TransportError, TimeoutError, OSError) as error:
            cut = _Cut(explain(error, self._server))
            if isinstance(cut.meaning, ServerRefused):
                raise cut.meaning from error
        except _Cut as error:
            cut = error
        if self._cursor != before:
            return False
        raise cut

    def _judge(self, error: TransportQueryError) -> None:
        """Raise what the server says about the request, or keeps saying."""
        codes = {
            str((each.get("extensions") or {}).get("code")) for each in error.errors or () if isinstance(each, dict)
        }
        self._server_errors += 1
        if not self._accepted or codes & ABOUT_THE_REQUEST or self._server_errors >= MOST_SERVER_ERRORS:
            raise explain(error, self._server) from error

    async def _follow(self, session: AsyncClientSession) -> None:
        changes = asyncio.create_task(self._follow_changes(session))
        try:
            await self._show_now(session)
            self._accepted = True
            request = GraphQLRequest(
                CONVERGENCE, variable_values={"id": self._id, "metrics": self._metrics, "after": self._cursor}
            )
            async with aclosing(session.subscribe(request)) as events:
                async for answer in events:
                    event = read_answer(ConvergenceEvent, answer.get("convergence"))
                    self._cursor, self._state = event.cursor, event.state
                    self._server_errors = 0
                    self._display.event(event)
        finally:
            changes.cancel()
            with suppress(asyncio.CancelledError, TransportError):
                await changes
        if self._state not in FINAL_STATES:
            # A server that shuts down completes its streams; the curve is complete only in a final state.
            raise _Cut(ServerRefused("The server ended the stream before the simulation's end."))
        await self._show_now(session)

    async def _follow_changes(self, session: AsyncClientSession) -> None:
        # Only a hint: when it fails, the curve's own subscription notices what there is to notice.
        with suppress(TransportError, TimeoutError):
            request = GraphQLRequest(CHANGES, variable_values={"id": self._id})
            async with aclosing(session.subscribe(request)) as changes:
                async for answer in changes:
                    self._display.simulation(read_answer(Simulation, answer.get("simulationChanged")))

    async def _show_now(self, session: AsyncClientSession) -> None:
        answer = await session.execute(GraphQLRequest(SIMULATION, variable_values={"id": self._id}))
        found = answer.get("simulation")
        if found is None:
            raise unknown_simulation(self._id)
        self._display.simulation(read_answer(Simulation, found))
