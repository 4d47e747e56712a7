"""Subscriptions with reconnection.

A subclass keeps a cursor: after a lost connection the next one resumes after the last event, so that no event is
missed or repeated. An error about the request itself (unknown simulation, bad metric) ends the subscription. A server
that has answered once is retried without limit, with growing pauses; one that never answered is an error. Raises
`CommandError` if a retry is of no use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from gql import Client
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportError, TransportQueryError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from cli.answers import Simulation
from cli.documents import SIMULATION
from cli.errors import CommandError, ServerRefused
from cli.server import Server, explain, prepare, read_answer, unknown_simulation, websocket_transport

LONGEST_PAUSE_SECONDS = 3.0
MOST_SERVER_ERRORS = 5  # consecutive, without an event in between: a restarting database recovers, a defect does not
GONE = "Connection lost; reconnecting …"
ABOUT_THE_REQUEST = frozenset({"NOT_FOUND", "BAD_USER_INPUT", "UNAUTHENTICATED", "FORBIDDEN"})


class Cut(Exception):
    """The connection ended before the subscription was complete."""

    def __init__(self, meaning: CommandError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


class Resuming(ABC):
    """Base of subscriptions to one simulation. Subclasses implement `follow`."""

    def __init__(self, server: Server, simulation_id: str, outage: Callable[[str], None]) -> None:
        """outage: called with a message before each reconnection."""
        self._server = server
        self._id = simulation_id
        self._outage = outage
        self._came = 0  # number of events so far
        self._accepted = False  # whether the server has accepted the request once
        self._server_errors = 0

    async def run(self) -> None:
        """Run the subscription to its end. Raises `CommandError`."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_another_try),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            # A connection that delivered an event resets the backoff.
            while True:
                finished: bool = await retrying(self._connection)
                if finished:
                    return
                self._outage(GONE)
        except Cut as cut:
            raise cut.meaning from cut

    @abstractmethod
    async def follow(self, session: AsyncClientSession) -> None:
        """Subscribe over one connection, to the end. Raises `Cut` if it ended early."""

    def accepted(self) -> None:
        """Note that the server has accepted the request: from now on lost connections are retried."""
        self._accepted = True

    def came(self) -> None:
        """Something came."""
        self._came += 1
        self._server_errors = 0

    async def now(self, session: AsyncClientSession) -> Simulation:
        """Get the simulation's current state. Raises `ServerRefused` if it does not exist."""
        answer = await session.execute(prepare(SIMULATION, {"id": self._id}))
        found = answer.get("simulation")
        if found is None:
            raise unknown_simulation(self._id)
        simulation = read_answer(Simulation, found)
        self._id = simulation.id  # a name may mean another one by the time of a reconnection
        return simulation

    def ended_early(self) -> Cut:
        """Return the error for a stream that completed before a final state, as when a server shuts down."""
        return Cut(ServerRefused("The server ended the stream before the simulation's end."))

    def _is_worth_another_try(self, error: BaseException) -> bool:
        return isinstance(error, Cut) and self._accepted

    def _tell(self, _: RetryCallState) -> None:
        self._outage(GONE)

    async def _connection(self) -> bool:
        """Subscribe over one connection: True at the end, False if it was lost after an event."""
        before = self._came
        try:
            async with Client(transport=websocket_transport(self._server)) as session:
                await self.follow(session)
                return True
        except TransportQueryError as error:
            self._judge(error)
            cut = Cut(explain(error, self._server))
        except (TransportError, TimeoutError, OSError) as error:
            cut = Cut(explain(error, self._server))
            if isinstance(cut.meaning, ServerRefused):
                raise cut.meaning from error
        except Cut as error:
            cut = error
        if self._came != before:
            return False
        raise cut

    def _judge(self, error: TransportQueryError) -> None:
        """Raise an error about the request, or one that persists."""
        codes = {
            str((each.get("extensions") or {}).get("code")) for each in error.errors or () if isinstance(each, dict)
        }
        if self._accepted and "UNAVAILABLE" in codes:
            return  # the database is away, and comes back
        self._server_errors += 1
        if not self._accepted or codes & ABOUT_THE_REQUEST or self._server_errors >= MOST_SERVER_ERRORS:
            raise explain(error, self._server) from error
