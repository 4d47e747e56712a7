"""A subscription over HTTP: server-sent events in the "distinct connections" form of graphql-sse (PROTOCOL.md there).

    event: next                 every event; `id` is its cursor, with which a browser reconnects by itself
    id: 1-42                    (`Last-Event-ID`, which wins over the argument `after`)
    data: {"data": {...}}

    event: complete             the end. A client that reconnects with its `id` gets 204, the only answer that
    id: end                     keeps an EventSource (HTML Living Standard, 9.2) from reconnecting for ever
    data:

Comments are sent during silence. A reader that stalls makes its own stream wait, not the server's memory grow: uvicorn
holds at most its high-water mark and one event; it is cut off when nothing was taken for `stall_seconds`. When the
process ends, or the token that a stream was opened with, it ends without `complete`: its client reconnects, and gets
the error. Events are executed and encoded once for all subscribers (live/shared_execution.py), and sent by one loop
(graph/live/broadcast.py), as on WebSockets.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import AbstractContextManager, ExitStack, aclosing, suppress
from typing import Any, Protocol, TypeVar

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from strawberry.http import process_result
from strawberry.types.execution import ExecutionResult, PreExecutionError

from graph.http.shutdown import Shutdown
from graph.live.shared_execution import Encoded, Feed, dumps, wanted_feed

log = structlog.get_logger()

T = TypeVar("T")

END = "end"  # the id of the last event; no cursor looks like it
COMPLETE = f"event: complete\nid: {END}\ndata:\n\n"
STILL_HERE = ": still here\n\n"
KEEP_ALIVE_SECONDS = 15.0  # of silence; proxies give up after a minute
RETRY_MILLISECONDS = (1_000, 2_000)  # not all at once, after a restart
OPENING_TURNS = 200  # of OPENING_SECONDS: then the stream begins, and later errors are sent in it
OPENING_SECONDS = 0.01  # how soon a stream that has no event yet begins
FAREWELL_SECONDS = 1.0  # for the last bytes, before the connection is cut off

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"vary", b"Accept"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events
]


class EventFeed(Feed):
    """The feed of a stream whose texts are whole blocks, with the cursor of their event in them."""

    event: object = None  # the one that was pulled last

    @property
    def key(self) -> Hashable:
        return (EventFeed, super().key)

    async def text(self, event: object) -> bytes | None:
        text = await super().text(event)
        return block(f'{{"data":{text.decode()}}}', event).encode() if text is not None else None

    async def observe(self, events: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Note each event: its cursor becomes the id of its block, and a result does not show which event it is of."""
        async with aclosing(events) as source:  # type: ignore[type-var]  # resolvers give generators
            async for event in source:
                self.event = event
                yield event


def block(data: str, event: object = None) -> str:
    """One `next`, with the event's cursor as its id if it has one. JSON has no bare line breaks."""
    cursor = getattr(event, "cursor", None)
    line = f"id: {cursor}\n" if isinstance(cursor, str) else ""
    return f"event: next\n{line}data: {data}\n\n"


def body_of(result: ExecutionResult) -> str:
    """The whole stream of a query or a mutation."""
    return block(dumps(process_result(result))) + COMPLETE


def come_back() -> Response:
    """A stream that ends at once and not for good: any status but 200 would keep an EventSource away for ever."""
    content = f"retry: {random.randint(*RETRY_MILLISECONDS)}\n\n"
    return Response(content, headers={name.decode(): value.decode() for name, value in HEADERS})


class _Transport(Protocol):
    """The used part of asyncio.Transport, from which uvloop's does not inherit."""

    def abort(self) -> None: ...

    def get_write_buffer_size(self) -> int: ...


class EventStream:
    """An ASGI response: the results of one subscription, sent as they come."""

    def __init__(
        self,
        results: AsyncGenerator[Any, None],
        *,
        shutdown: Shutdown | None,
        stall_seconds: float,
        revocation: AbstractContextManager[asyncio.Event] | None = None,
    ) -> None:
        """results: of `schema.stream`, not begun yet. shutdown: None where no server announces it.

        revocation: held while the stream is open; its event is set when the token becomes invalid
        (auth/token_revocation.py).
        """
        self._results = results
        self._shutdown = shutdown
        self._revocation = revocation
        self._stall_seconds = stall_seconds
        self._feed = EventFeed()
        self._first = asyncio.create_task(self._open(), name="subscription")
        self._send: Send | None = None
        self._is_started = False
        self._sent_at = self._now()
        self._sending_since: float | None = None

    async def refusal(self) -> PreExecutionError | None:
        """Return the errors of the operation itself, while a status can still report them."""
        try:
            for _ in range(OPENING_TURNS):  # nothing tells that there is a source; while the database is away, none is
                if self._first.done() or self._feed.source is not None:
                    break
                await asyncio.wait({self._first}, timeout=OPENING_SECONDS)
        except asyncio.CancelledError:
            self._first.cancel()
            raise
        if not self._first.done() or not isinstance(result := self._first.result(), PreExecutionError):
            return None
        await self._results.aclose()
        return result

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        transport: _Transport | None = getattr(getattr(receive, "__self__", None), "transport", None)
        telling = asyncio.create_task(self._tell(), name="telling")
        gone = asyncio.create_task(_gone(receive), name="gone")
        watching = asyncio.create_task(self._watch(transport), name="watching")
        tasks: set[asyncio.Task[Any]] = {telling, gone, watching}
        if self._shutdown is not None:
            tasks.add(asyncio.create_task(self._shutdown.wait(), name="shutdown"))
        revocation = ExitStack()
        if self._revocation is not None:
            tasks.add(asyncio.create_task(revocation.enter_context(self._revocation).wait(), name="revocation"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done() and not await self._ended(telling, watching):
                if transport is not None:  # ASGI has no word for it, and closing would wait for who does not read
                    transport.abort()
                await asyncio.wait({gone}, timeout=FAREWELL_SECONDS)
        finally:
            revocation.close()
            for task in tasks:
                task.cancel()
            self._first.cancel()
            await asyncio.gather(*tasks, self._first, return_exceptions=True)
            await self._free()

    # --- the events ----------------------------------------------------------------------------------------------

    async def _open(self) -> Any:
        wanted_feed.set(self._feed)  # here, in a task: the connection's next request may inherit the caller's context
        return await anext(self._results, None)

    async def _tell(self) -> None:
        assert self._send is not None
        await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        self._is_started = True
        await self._write(f"retry: {random.randint(*RETRY_MILLISECONDS)}\n\n".encode())
        result = await self._first
        while result is not None:
            event = self._feed.event if not result.errors else None
            await self._write(block(dumps(process_result(result)), event).encode())
            if isinstance(result.data, Encoded) and self._feed.source is not None:
                result = await self._tell_shared()
            else:
                result = await anext(self._results, None)
        await self._write(COMPLETE.encode(), is_last=True)

    async def _tell_shared(self) -> ExecutionResult | None:
        """Send the rest as it is encoded once for everybody; return the error that it ended with, if it did."""
        assert self._feed.source is not None
        self._feed.send = self._write  # from here on broadcasts may include it
        try:
            async for event in self._feed.source:
                text = await self._feed.text(event)
                if text is None:
                    raise RuntimeError("an event that could be shared before can't be shared now")
                await self._write(text)
        except Exception as error:  # noqa: BLE001  # the stream reports it, as if it had been raised there
            failed: ExecutionResult = await self._results.athrow(error)
            return failed
        return None

    async def _write(self, text: bytes, *, is_last: bool = False) -> None:
        assert self._send is not None
        self._sending_since = self._now()
        try:
            await self._send({"type": "http.response.body", "body": text, "more_body": not is_last})
        finally:
            self._sent_at, self._sending_since = self._now(), None

    # --- the connection ------------------------------------------------------------------------------------------

    async def _watch(self, transport: _Transport | None) -> None:
        """Break silences; return when the reader has taken nothing for too long."""
        unsent_bytes = 0
        while True:
            if self._sending_since is not None:
                since, waiting = self._sending_since, transport.get_write_buffer_size() if transport else 0
                await asyncio.sleep(self._stall_seconds)
                unsent_bytes = transport.get_write_buffer_size() if transport else 0
                if self._sending_since == since and unsent_bytes >= waiting:
                    break
                continue
            silence_seconds = self._now() - self._sent_at
            if silence_seconds < KEEP_ALIVE_SECONDS:
                await asyncio.sleep(min(KEEP_ALIVE_SECONDS - silence_seconds, self._stall_seconds))
                continue
            try:
                async with asyncio.timeout(self._stall_seconds):
                    await self._write(STILL_HERE.encode())
            except TimeoutError:
                break
        log.info("stream_stalled", unsent_bytes=unsent_bytes)

    async def _ended(self, telling: asyncio.Task[None], watching: asyncio.Task[None]) -> bool:
        """End the response in peace; False if the reader does not take it. Raises what telling broke on, a defect."""
        assert self._send is not None
        telling.cancel()
        await asyncio.wait({telling})
        if not telling.cancelled():
            telling.result()
            return True
        if not self._is_started or watching.done():
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                return True
        return False

    async def _free(self) -> None:
        """Close the generators now: collected some time later, they would still count as subscribers."""
        source: Any = self._feed.source
        if source is not None:
            await source.aclose()
        await self._results.aclose()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
