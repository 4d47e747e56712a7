"""A subscription, followed to its end through cut connections.

Whoever follows keeps a cursor: after a cut the next connection goes on behind what came last, so that nothing is
missed and nothing comes twice. What a server says about the request itself (no such simulation, a bad metric) ends it;
a server that was there once and is gone is tried again for ever, with growing pauses; one that was never there is an
error. Fails with `CommandError` where it makes no sense to go on.
"""

from __future__ import annotations

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
MOST_SERVER_ERRORS = (
    5  # in a row, without any event between them: a restarting database mends itself, a defect does not
)
GONE = "The connection is gone; trying again …"
ABOUT_THE_REQUEST = frozenset({"NOT_FOUND", "BAD_USER_INPUT", "UNAUTHENTICATED", "FORBIDDEN"})


class Cut(Exception):
    """The connection ended before what is followed did."""

    def __init__(self, meaning: CommandError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


class Resuming:
    """Something of one simulation that is followed. Subclasses say what, in `follow`."""

    def __init__(self, server: Server, simulation_id: str, outage: Callable[[str], None]) -> None:
        """outage: told that the connection is gone and will be tried again, once for each try."""
        self._server = server
        self._id = simulation_id
        self._outage = outage
        self._came = 0  # how much came so far
        self._accepted = False  # whether the server ever answered
        self._server_errors = 0

    async def run(self) -> None:
        """Follow to the end. Raises `CommandError`."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_another_try),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            # A connection that brought something and was cut then begins a new row of tries, with short pauses.
            while True:
                finished: bool = await retrying(self._connection)
                if finished:
                    return
                self._outage(GONE)
        except Cut as cut:
            raise cut.meaning from cut

    async def follow(self, session: AsyncClientSession) -> None:
        """Follow over one connection, to the end. Raises `Cut` if it ended too early."""
        raise NotImplementedError

    def accepted(self) -> None:
        """The server knows what is asked for: from now on it is tried again when it is gone."""
        self._accepted = True

    def came(self) -> None:
        """Something came."""
        self._came += 1
        self._server_errors = 0

    async def now(self, session: AsyncClientSession) -> Simulation:
        """Read the simulation as it is now. Raises `ServerRefused` where there is none."""
        answer = await session.execute(prepare(SIMULATION, {"id": self._id}))
        found = answer.get("simulation")
        if found is None:
            raise unknown_simulation(self._id)
        return read_answer(Simulation, found)

    def ended_early(self) -> Cut:
        """A server that shuts down completes its streams; what is followed is complete only in a final state."""
        return Cut(ServerRefused("The server ended the stream before the simulation's end."))

    def _is_worth_another_try(self, error: BaseException) -> bool:
        return isinstance(error, Cut) and self._accepted

    def _tell(self, _: RetryCallState) -> None:
        self._outage(GONE)

    async def _connection(self) -> bool:
        """Follow over one connection: True at the end, False if it was cut after something came."""
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
        """Raise what the server says about the request, or keeps saying."""
        codes = {
            str((each.get("extensions") or {}).get("code")) for each in error.errors or () if isinstance(each, dict)
        }
        if self._accepted and "UNAVAILABLE" in codes:
            return  # the database is away, and comes back
        self._server_errors += 1
        if not self._accepted or codes & ABOUT_THE_REQUEST or self._server_errors >= MOST_SERVER_ERRORS:
            raise explain(error, self._server) from error
