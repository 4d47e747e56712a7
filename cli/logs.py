"""`simulations logs`: a simulation's output other than metric points, and messages of its supervisor.

Existing lines come page by page; with `follow`, new lines until the simulation ends, with reconnection. With `grep` the
service searches the existing ones, so that a long log is not transferred; new lines are searched here. Lines go to
standard output as written, without control characters; `--json` prints them unchanged. Colours of the program are asked
for and drawn on a terminal only, each line's own, and not with NO_COLOR. A chunk is whole lines joined
by newlines, without the last newline; one that begins with a carriage return replaces the line of its stream before it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Protocol

from gql.client import AsyncClientSession
from rich.cells import cell_len

from cli import requests
from cli.answers import LogChunk
from cli.documents import LOGS
from cli.errors import ExitCode
from cli.resuming import Resuming
from cli.server import Server, prepare, read_answer
from cli.terminal import clean, clean_lines, coloured_lines, print_json, say, stdout

COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
LINE_UP = "\x1b[1A\x1b[2K"  # to the beginning of the line before, which is erased
STYLES = {"STDERR": "yellow", "SUPERVISOR": "dim"}


class Display(Protocol):
    """Output format of a log."""

    def show(self, chunk: LogChunk) -> None:
        """Print the next lines."""


def logs(
    server: Server,
    simulation_id: str,
    *,
    streams: frozenset[str],
    tail: int | None,
    after: str | None,
    follow: bool,
    as_json: bool,
    grep: str | None = None,
    rank: int = 0,
) -> ExitCode:
    """Print a log. streams: filter; empty: all. tail: only the last lines. rank: whose. Raises `CommandError`.

    grep: only lines that contain this text, without regard to the case of ASCII letters.
    """
    display: Display = JsonLines() if as_json else Plain()
    ansi = not as_json and draws_colours()
    place = after
    seen = False

    def wanted(chunks: Iterable[LogChunk]) -> Iterable[LogChunk]:
        nonlocal place, seen
        for chunk in chunks:
            place = chunk.cursor
            found = chunk if grep is None else matching(grep, chunk)
            if found is not None and (not streams or chunk.stream in streams):
                seen = True
                yield found

    try:
        # What is followed begins behind the last chunk that was read, which a search by the service does not return.
        contains = None if follow else grep
        past = wanted(requests.log(server, simulation_id, after, ansi=ansi, contains=contains, rank=rank))
        past = past if as_json or grep is not None else settled(past)
        for chunk in past if tail is None else _last_lines(past, tail):
            display.show(chunk)
        if follow:

            def show(chunk: LogChunk) -> None:
                for each in wanted([chunk]):
                    display.show(each)

            asyncio.run(LogFollower(server, simulation_id, place, show, Outage(), ansi=ansi, rank=rank).run())
    except KeyboardInterrupt:
        say("Stopped following; the simulation continues." if follow else "Interrupted.")
        return ExitCode.INTERRUPTED
    if not seen and not as_json:
        say(
            "The log is empty. It holds no points: simulations watch shows them."
            if grep is None
            else f"No line of the log contains “{clean(grep)}”."
        )
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
        *,
        ansi: bool = False,
        rank: int = 0,
    ) -> None:
        super().__init__(server, simulation_id, outage.begins)
        self._after = after
        self._show = show
        self._back = outage.ends
        self._ansi = ansi
        self._rank = rank

    async def follow(self, session: AsyncClientSession) -> None:
        await self.now(session)
        self.accepted()
        self._back()
        request = prepare(LOGS, {"id": self._id, "after": self._after, "ansi": self._ansi, "rank": self._rank})
        async with aclosing(session.subscribe(request)) as chunks:
            async for answer in chunks:
                self._take(read_answer(LogChunk, answer.get("logs")))
        if not (await self.now(session)).is_final:
            raise self.ended_early()
        # A server that shut down may have ended the stream early, and the simulation may have ended since.
        for chunk in await asyncio.to_thread(self._rest):
            self._take(chunk)

    def _rest(self) -> list[LogChunk]:
        return list(requests.log(self._server, self._id, self._after, ansi=self._ansi, rank=self._rank))

    def _take(self, chunk: LogChunk) -> None:
        self._after = chunk.cursor
        self.came()
        self._show(chunk)


class Outage:
    """Reports a lost connection once for any number of tries, and its return once."""

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


def draws_colours() -> bool:
    """Whether standard output is a terminal that shows colours."""
    console = stdout()
    return console.is_terminal and not console.no_color and console.color_system is not None


class Plain:
    """Lines; on a terminal in a colour for each stream, and in their own.

    On a terminal a line that begins with a carriage return is drawn over the one it replaces, if that was the last.
    """

    def __init__(self) -> None:
        self._console = stdout()
        self._attempt = 1
        self._last = ""  # stream whose line was printed last
        self._rows = 1  # of the screen that this line takes

    def show(self, chunk: LogChunk) -> None:
        if chunk.attempt != self._attempt:
            say(f"--- attempt {chunk.attempt} ---", style="dim")
            self._attempt = chunk.attempt
        replaces = chunk.text.startswith("\r") and self._last == chunk.stream
        if replaces and self._console.is_terminal:
            self._console.write(LINE_UP * self._rows)
        text, style = collapsed(chunk.text), STYLES.get(chunk.stream, "")
        if self._console.is_terminal:
            lines = coloured_lines(text, style)
            self._console.draw(lines)
            width = cell_len(lines.plain[:-1].rpartition("\n")[2].expandtabs())
            self._rows = max(-(-width // self._console.width), 1)
        else:
            self._console.write(f"{clean_lines(text)}\n")
        self._last = chunk.stream


class JsonLines:
    """Chunks as in the API, one JSON object per line."""

    def show(self, chunk: LogChunk) -> None:
        print_json(chunk.as_json())


def collapsed(text: str) -> str:
    """Drop the lines that the next one replaces: it begins with a carriage return."""
    if "\r" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(line for line, after in zip(lines, [*lines[1:], ""], strict=True) if not after.startswith("\r"))


def settled(chunks: Iterable[LogChunk]) -> Iterable[LogChunk]:
    """Drop the lines that were replaced, also by the next chunk of their stream."""
    held: LogChunk | None = None
    for chunk in chunks:
        if held is not None:
            is_replaced = chunk.text.startswith("\r") and (chunk.stream, chunk.attempt) == (held.stream, held.attempt)
            kept, newline, _ = held.text.rpartition("\n") if is_replaced else (held.text, "\n", "")
            if newline:
                yield held.model_copy(update={"text": kept})
        held = chunk.model_copy(update={"text": collapsed(chunk.text)})
    if held is not None:
        yield held


def matching(sought: str, chunk: LogChunk) -> LogChunk | None:
    """Keep the lines of a chunk that contain a text, without regard to the case of ASCII letters; None without one."""
    needle = sought.encode().lower()  # of bytes: ASCII alone
    lines = [line.removeprefix("\r") for line in chunk.text.split("\n")]
    found = [line for line in lines if needle in COLOURS.sub("", line).encode(errors="replace").lower()]
    return chunk.model_copy(update={"text": "\n".join(found)}) if found else None


def _last_lines(chunks: Iterable[LogChunk], count: int) -> Iterable[LogChunk]:
    """Keep the last `count` lines over all streams."""
    kept: deque[LogChunk] = deque()
    lines = 0
    for chunk in chunks:
        kept.append(chunk)
        lines += _lines(chunk)
        while lines - _lines(kept[0]) >= count:
            lines -= _lines(kept.popleft())
    if lines > count:
        first = kept.popleft()
        kept.appendleft(first.model_copy(update={"text": first.text.split("\n", lines - count)[-1]}))
    return kept


def _lines(chunk: LogChunk) -> int:
    return chunk.text.count("\n") + 1
