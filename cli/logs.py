"""`simulations logs`: what a simulation printed that was no point, and what its supervisor said of it.

First what there is, page by page; then, with `follow`, what comes, to the simulation's end, through cut connections.
Text goes to standard output as it was written, but for what could harm a terminal; `--json` gives it whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Protocol

from gql.client import AsyncClientSession

from cli import requests
from cli.answers import LogChunk
from cli.documents import LOGS
from cli.errors import ExitCode
from cli.resuming import Resuming
from cli.server import Server, prepare, read_answer
from cli.terminal import clean_lines, print_json, say, stdout

STYLES = {"STDERR": "yellow", "SUPERVISOR": "dim"}


class Display(Protocol):
    """Whoever shows it."""

    def show(self, chunk: LogChunk) -> None:
        """Take the next stretch."""

    def end(self) -> None:
        """Nothing comes after it."""


def logs(
    server: Server,
    simulation_id: str,
    *,
    streams: frozenset[str],
    tail: int | None,
    after: str | None,
    follow: bool,
    as_json: bool,
) -> ExitCode:
    """Print a log. streams: only these; none: all. tail: at most so many of the last lines. Raises `CommandError`."""
    display: Display = JsonLines() if as_json else Plain()
    place = after
    seen = False

    def wanted(chunks: Iterable[LogChunk]) -> Iterable[LogChunk]:
        nonlocal place, seen
        for chunk in chunks:
            place = chunk.cursor
            if not streams or chunk.stream in streams:
                seen = True
                yield chunk

    try:
        past = wanted(requests.log(server, simulation_id, after))
        for chunk in past if tail is None else _last_lines(past, tail):
            display.show(chunk)
        if follow:

            def show(chunk: LogChunk) -> None:
                for each in wanted([chunk]):
                    display.show(each)

            asyncio.run(LogFollower(server, simulation_id, place, show, Outage()).run())
    except KeyboardInterrupt:
        display.end()
        say("Not following any more; what runs goes on." if follow else "Interrupted.")
        return ExitCode.INTERRUPTED
    display.end()
    if not seen and not as_json:
        say("There is nothing in its log. Points are not: simulations watch shows them.")
    return ExitCode.OK


class LogFollower(Resuming):
    """The `logs` subscription, from a cursor on."""

    def __init__(
        self,
        server: Server,
        simulation_id: str,
        after: str | None,
        show: Callable[[LogChunk], None],
        outage: Outage,
    ) -> None:
        super().__init__(server, simulation_id, outage.begins)
        self._after = after
        self._show = show
        self._back = outage.ends

    async def follow(self, session: AsyncClientSession) -> None:
        await self.now(session)
        self.accepted()
        self._back()
        request = prepare(LOGS, {"id": self._id, "after": self._after})
        async with aclosing(session.subscribe(request)) as chunks:
            async for answer in chunks:
                self._take(read_answer(LogChunk, answer.get("logs")))
        if not (await self.now(session)).is_final:
            raise self.ended_early()
        # A server that went away may have ended the stream before the log, and the simulation may be over since.
        for chunk in await asyncio.to_thread(lambda: list(requests.log(self._server, self._id, self._after))):
            self._take(chunk)

    def _take(self, chunk: LogChunk) -> None:
        self._after = chunk.cursor
        self.came()
        self._show(chunk)


class Outage:
    """Says once that the connection is gone, however often it is tried, and once that it is back."""

    def __init__(self) -> None:
        self._is_out = False

    def begins(self, sentence: str) -> None:
        if not self._is_out:
            say(sentence)
        self._is_out = True

    def ends(self) -> None:
        if self._is_out:
            say("Connected again.")
        self._is_out = False


class Plain:
    """The text itself; on a terminal in colours that tell who wrote it."""

    def __init__(self) -> None:
        self._console = stdout()
        self._attempt = 1
        self._stream: str | None = None  # of the line that is not at its end

    def show(self, chunk: LogChunk) -> None:
        if chunk.attempt != self._attempt:
            self.end()
            say(f"--- attempt {chunk.attempt} ---", style="dim")
            self._attempt = chunk.attempt
        if self._stream is not None and self._stream != chunk.stream:
            self.end()
        text = clean_lines(chunk.text)
        self._console.write(text, STYLES.get(chunk.stream, ""))
        if text:
            self._stream = None if text.endswith("\n") else chunk.stream

    def end(self) -> None:
        if self._stream is not None:
            self._console.write("\n")
        self._stream = None


class JsonLines:
    """The chunks as the API sends them, one JSON object on each line."""

    def show(self, chunk: LogChunk) -> None:
        print_json(chunk.as_json())

    def end(self) -> None:
        pass


def _last_lines(chunks: Iterable[LogChunk], count: int) -> Iterable[LogChunk]:
    """Keep the last lines, whoever wrote them, and no more than these."""
    kept: deque[LogChunk] = deque()
    ends = 0  # of lines; a line may go on in the next chunk
    for chunk in chunks:
        kept.append(chunk)
        ends += chunk.text.count("\n")
        while ends - kept[0].text.count("\n") > count:
            ends -= kept.popleft().text.count("\n")
    surplus = ends + (bool(kept) and not kept[-1].text.endswith("\n")) - count
    while surplus > 0:
        first = kept.popleft()
        rest = first.text.split("\n", surplus)
        surplus -= len(rest) - 1
        if surplus == 0 and rest[-1]:
            kept.appendleft(first.model_copy(update={"text": rest[-1]}))
    return kept
