"""`logs`: complete, in order, sanitised, and with reconnection."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]


def chunk(number: int, text: str, *, stream: str = "STDOUT", attempt: int = 1) -> dict[str, Any]:
    return {
        "cursor": str(number), "attempt": attempt, "stream": stream, "text": text,
        "receivedAt": "2026-01-01T12:00:00Z",
    }  # fmt: skip


def pages(chunks: list[dict[str, Any]], size: int = 2) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The log as a server with small pages answers it."""

    def answer(variables: dict[str, Any]) -> dict[str, Any]:
        rest = [each for each in chunks if int(each["cursor"]) > int(variables["after"] or 0)]
        more = len(rest) > size
        end = rest[:size][-1]["cursor"] if rest else None
        return {"simulation": {"logs": {"nodes": rest[:size], "pageInfo": {"hasNextPage": more, "endCursor": end}}}}

    return answer


@pytest.fixture
def logged(server: Any, simulation: Make) -> Any:
    """A server with a log of several pages, two attempts and all streams."""
    server.answers["LogPage"] = pages([
        chunk(1, "one\ntwo"), chunk(2, "three"), chunk(3, "four\n"), chunk(4, "oh", stream="STDERR"),
        chunk(5, "It was lost.", stream="SUPERVISOR"), chunk(6, "again", attempt=2),
    ])  # fmt: skip
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state="FINISHED")}
    return server


def test_all_pages_are_printed_as_they_were_written(logged: Any, run: Run) -> None:
    result = run("logs", "x")
    assert result.exit_code == 0
    assert result.stdout == "one\ntwo\nthree\nfour\n\noh\nIt was lost.\nagain\n"
    assert "attempt 2" in result.stderr
    assert len(logged.variables("LogPage")) == 3


def test_only_the_last_lines_or_one_stream_or_what_is_behind_a_cursor(logged: Any, run: Run) -> None:
    assert run("logs", "x", "--tail", "2").stdout == "It was lost.\nagain\n"
    assert run("logs", "x", "--tail", "5").stdout == "four\n\noh\nIt was lost.\nagain\n"
    assert run("logs", "x", "--tail", "4").stdout == "\noh\nIt was lost.\nagain\n"
    assert run("logs", "x", "--tail", "7").stdout == "two\nthree\nfour\n\noh\nIt was lost.\nagain\n"
    assert run("logs", "x", "--tail", "99").stdout.startswith("one\n")
    assert run("logs", "x", "--stream", "stderr,supervisor").stdout == "oh\nIt was lost.\n"
    assert run("logs", "x", "--after", "5").stdout == "again\n"
    wrong = run("logs", "x", "--stream", "stdrr")
    assert wrong.exit_code == 2
    assert "did you mean stderr?" in wrong.stderr


def test_the_log_of_another_rank_is_asked_for_page_by_page(logged: Any, run: Run) -> None:
    assert run("logs", "x", "--rank", "3").exit_code == 0
    run("logs", "x")
    assert [each["rank"] for each in logged.variables("LogPage")] == [3, 3, 3, 0, 0, 0]


def test_json_is_whole_and_in_ascii(server: Any, run: Run) -> None:
    hostile = "\x1b[2J\u202eevil\r\x07"
    server.answers["LogPage"] = pages([chunk(1, hostile)])
    shown = run("logs", "x", "--json").stdout
    assert shown.isascii()
    assert "\x1b" not in shown
    assert json.loads(shown)["text"] == hostile


def test_a_hostile_log_does_nothing_to_a_terminal(server: Any, run: Run) -> None:
    server.answers["LogPage"] = pages([chunk(1, "a\x1b[2Jb\u202ec\td\x07\r\n10%\r 20%\r100%")])
    assert run("logs", "x").stdout == "a[2Jbc\td\n100%\n"


def test_the_ends_of_chunks_are_ends_of_lines(server: Any, run: Run) -> None:
    """Ten lines that came one by one are ten lines; a chunk's text is without its last line's end."""
    server.answers["LogPage"] = pages([chunk(number, f"line {number}") for number in range(1, 11)])
    assert run("logs", "x").stdout == "".join(f"line {number}\n" for number in range(1, 11))
    assert run("logs", "x", "-n", "3").stdout == "line 8\nline 9\nline 10\n"
    server.answers["LogPage"] = pages(
        [chunk(1, "half"), chunk(2, "other", stream="STDERR"), chunk(3, ""), chunk(4, "end")]
    )
    assert run("logs", "x").stdout == "half\nother\n\nend\n"


def test_a_log_is_searched_by_the_service(logged: Any, run: Run) -> None:
    assert run("logs", "x", "--grep", "O").stdout == "one\ntwo\nfour\noh\nIt was lost.\n", (
        "in any case; the service filters, too"
    )
    assert [each["contains"] for each in logged.variables("LogPage")] == ["O"] * 3
    assert run("logs", "x", "-g", "o", "--stream", "stderr").stdout == "oh\n"
    assert run("logs", "x", "-g", "o", "-n", "2").stdout == "oh\nIt was lost.\n"
    assert [json.loads(line)["text"] for line in run("logs", "x", "-g", "TWO", "--json").stdout.splitlines()] == ["two"]
    missing = run("logs", "x", "--grep", "needle")
    assert (missing.exit_code, missing.stdout) == (0, "")
    assert "No line of the log contains “needle”." in missing.stderr


def test_a_search_that_follows_reads_the_log_itself_and_goes_on_behind_it(
    server: Any, run: Run, simulation: Make
) -> None:
    server.answers["LogPage"] = pages([chunk(1, "a loss\nepoch"), chunk(2, "epoch")])
    states = iter(["RUNNING"])
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state=next(states, "FINISHED"))}

    async def stream(variables: dict[str, Any]) -> AsyncIterator[Any]:
        assert variables["after"] == "2", "behind the last chunk, which does not match"
        yield {"logs": chunk(3, "nothing")}
        yield {"logs": chunk(4, "x\nLOSS")}

    server.streams["Logs"] = stream
    assert run("logs", "x", "--follow", "--grep", "loss").stdout == "a loss\nLOSS\n"
    assert {each["contains"] for each in server.variables("LogPage")} == {None}


def test_an_empty_log_is_reported_on_stderr(server: Any, run: Run) -> None:
    server.answers["LogPage"] = pages([])
    result = run("logs", "x")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "The log is empty." in result.stderr


def test_following_goes_on_behind_the_past_and_behind_each_cut(
    server: Any, run: Run, simulation: Make, cut: type[Exception]
) -> None:
    server.answers["LogPage"] = pages([chunk(1, "past")])
    states = iter(["RUNNING", "RUNNING", "FINISHED"])
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state=next(states, "FINISHED"))}

    async def stream(variables: dict[str, Any]) -> AsyncIterator[Any]:
        after = int(variables["after"])
        yield {"logs": chunk(after + 1, f"line {after + 1}")}
        if after < 3:
            raise cut

    server.streams["Logs"] = stream
    result = run("logs", "x", "--follow")
    assert result.exit_code == 0, result.output
    assert result.stdout == "past\nline 2\nline 3\nline 4\n"
    assert [each["after"] for each in server.variables("Logs")] == ["1", "2", "3"]
    assert result.stderr.count("reconnecting") == 2


def test_a_server_that_ends_the_stream_too_early_is_asked_for_the_rest(server: Any, run: Run, simulation: Make) -> None:
    """It shut down in order; meanwhile the simulation wrote more, and ended."""
    whole = [chunk(1, "past"), chunk(2, "rest")]
    told: list[dict[str, Any]] = whole[:1]
    server.answers["LogPage"] = lambda variables: pages(told)(variables)
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state="FINISHED")}

    async def stream(_: dict[str, Any]) -> AsyncIterator[Any]:
        told[:] = whole
        return
        yield

    server.streams["Logs"] = stream
    assert run("logs", "x", "--follow").stdout == "past\nrest\n"


def test_ctrl_c_while_following_reports_that_the_simulation_continues(server: Any, simulation: Make) -> None:
    server.answers["LogPage"] = pages([])
    server.answers["Simulation"] = lambda _: {"simulation": simulation()}

    async def stream(_: dict[str, Any]) -> AsyncIterator[Any]:
        yield {"logs": chunk(1, "here")}
        await asyncio.Event().wait()

    server.streams["Logs"] = stream
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "logs", "x", "--follow", "--url", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the simulation continues" in said
    assert "Traceback" not in said


def test_an_unknown_simulation_is_an_error(server: Any, run: Run) -> None:
    server.answers["LogPage"] = lambda _: {"simulation": None}
    result = run("logs", "unknown")
    assert result.exit_code == 6
    assert "There is no simulation with the number, name or id unknown" in result.stderr


def test_a_line_that_was_replaced_is_printed_once_in_its_last_form(server: Any, simulation: Make, run: Run) -> None:
    server.answers["LogPage"] = pages([
        chunk(1, "begin\nloading "), chunk(2, "\rloading done\nnext\n10%\n\r20%"), chunk(3, "\r30%"),
        chunk(4, "oh", stream="STDERR"), chunk(5, "\r40%"),
    ])  # fmt: skip
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state="FINISHED")}
    assert run("logs", "last-id").stdout.splitlines() == ["begin", "loading done", "next", "30%", "oh", "40%"]
    assert run("logs", "-n", "3", "last-id").stdout.splitlines() == ["30%", "oh", "40%"]


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """The output of `simulations logs` on a terminal of 40 columns."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "logs", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**kept, "TERM": "xterm-256color", "COLUMNS": "40", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode().replace("\r\n", "\n")


def test_colours_are_drawn_on_a_terminal_and_end_with_their_line(server: Any, run: Run, simulation: Make) -> None:
    server.answers["LogPage"] = pages([chunk(1, "\x1b[31mred\nplain \x1b[1;32mgreen\x1b[2J\x1b]0;title\x07\x1b[0m")])
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state="FINISHED")}
    assert on_a_terminal("x", "--url", server.url) == "\x1b[31mred\x1b[0m\nplain \x1b[1;32mgreen[2J]0;title\x1b[0m\n"
    assert server.variables("LogPage")[-1]["ansi"] is True
    for shown, asked in (
        (on_a_terminal("x", "--url", server.url, NO_COLOR="1"), False),
        (on_a_terminal("x", "--url", server.url, TERM="dumb"), False),
        (run("logs", "x").stdout, False),
        (run("logs", "x", "--json").stdout, False),
    ):
        assert "\x1b[31m" not in shown
        assert server.variables("LogPage")[-1]["ansi"] is asked


def test_a_bar_is_drawn_over_on_a_terminal_however_many_rows_it_takes(server: Any, simulation: Make) -> None:
    states = iter(["RUNNING", "FINISHED"])
    server.answers["Simulation"] = lambda _: {"simulation": simulation(state=next(states, "FINISHED"))}

    async def stream(_: dict[str, Any]) -> AsyncIterator[Any]:
        yield {"logs": chunk(2, "10%")}
        yield {"logs": chunk(3, "\r" + "20%" * 30)}  # 90 columns: three rows
        yield {"logs": chunk(4, "\r100%\nend")}
        yield {"logs": chunk(5, "\rreplaced")}

    server.streams["Logs"] = stream
    server.answers["LogPage"] = lambda variables: pages([chunk(1, "begin")] if variables["after"] is None else [])(
        variables
    )
    up = "\x1b[1A\x1b[2K"
    assert (
        on_a_terminal("x", "-f", "--url", server.url)
        == f"begin\n10%\n{up}{'20%' * 30}\n{up * 3}100%\nend\n{up}replaced\n"
    )
