"""`watch`: output, exit codes and reconnection."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from typer.testing import Result

import cli.resuming

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]
Stream = Callable[[dict[str, Any]], AsyncIterator[Any]]


@pytest.fixture
def watched(server: Any, simulation: Make) -> Any:
    """A server with one simulation, which ends with its `final`."""
    server.final = {"state": "FINISHED", "reason": "COMPLETED"}
    server.asked_before_end = 1

    def answer(variables: dict[str, Any]) -> dict[str, Any]:
        times, asked = len(server.variables("Simulation")), variables["id"]
        if times <= server.asked_before_end:
            return {"simulation": simulation(id=asked)}
        return {"simulation": simulation(id=asked, finishedAt="2026-01-01T12:00:13.300Z", **server.final)}

    async def changes(_: object) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    server.answers["Simulation"] = answer
    server.streams["Changes"] = changes
    return server


def plays(*events: dict[str, Any] | Exception) -> Stream:
    async def stream(_: object) -> AsyncIterator[Any]:
        for each in events:
            if isinstance(each, Exception):
                raise each
            yield each

    return stream


def test_a_curve_is_followed_to_its_end_one_line_for_each_event(watched: Any, run: Run, event: Make) -> None:
    watched.streams["Convergence"] = plays(
        event("a", {"loss": {0: 2.0, 1: 1.5}, "accuracy": {1: 0.25}}),
        event("b", {"loss": {199: 0.021}}),
        event("c", state="FINISHED", reason="COMPLETED"),
    )
    result = run("watch", "x")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "train: RUNNING",
        "step 1  loss=1.5 accuracy=0.25",
        "step 199  loss=0.021",
        "FINISHED (COMPLETED) after 12.3 s, loss 0.021 at step 199, accuracy 0.25 at step 1",
    ]
    assert watched.variables("Convergence") == [{"id": "x", "metrics": None, "after": None}]


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [("FINISHED", "COMPLETED", 0), ("FAILED", "EXIT_CODE", 1), ("CANCELLED", "CANCELLED", 5)],
)
def test_the_exit_code_is_that_of_the_final_state(
    watched: Any, run: Run, event: Make, state: str, reason: str, code: int
) -> None:
    watched.final = {"state": state, "reason": reason, "reasonDetail": "In a sentence."}
    watched.streams["Convergence"] = plays(event("a", state=state, reason=reason))
    result = run("watch", "x")
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1] == f"{state} ({reason}) after 12.3 s: In a sentence."


def test_a_cut_connection_is_resumed_behind_the_last_event(
    watched: Any, run: Run, event: Make, cut: type[Exception]
) -> None:
    watched.asked_before_end = 3
    pieces = {
        None: [event("a", {"loss": {0: 2.0}}), event("b", {"loss": {1: 1.0}}), cut()],
        "b": [event("c", {"loss": {2: 0.5}}), cut()],
        "c": [event("d", state="FINISHED", reason="COMPLETED")],
    }

    async def stream(variables: dict[str, Any]) -> AsyncIterator[Any]:
        async for each in plays(*pieces[variables["after"]])(variables):
            yield each

    watched.streams["Convergence"] = stream
    result = run("watch", "x", "--json")
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["cursor"] for line in result.stdout.splitlines()] == ["a", "b", "c", "d"]
    assert [each["after"] for each in watched.variables("Convergence")] == [None, "b", "c"]
    assert result.stderr.count("reconnecting") == 2
    assert result.stderr.count("Connected again.") == 2


def test_a_connection_that_breaks_before_any_event_is_tried_again(
    watched: Any, run: Run, event: Make, cut: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.resuming, "LONGEST_PAUSE_SECONDS", 0.01)
    watched.asked_before_end = 5

    async def stream(_: object) -> AsyncIterator[Any]:
        if watched.sockets < 5:
            raise cut()
        yield event("a", {"loss": {0: 2.0}}, state="FINISHED", reason="COMPLETED")

    watched.streams["Convergence"] = stream
    assert run("watch", "x").exit_code == 0
    assert watched.sockets == 5


def test_a_stream_that_completes_before_the_final_state_is_resumed(watched: Any, run: Run, event: Make) -> None:
    watched.asked_before_end = 2

    async def stream(variables: dict[str, Any]) -> AsyncIterator[Any]:
        if variables["after"] is None:
            yield event("a", {"loss": {0: 2.0}})
        else:
            yield event("b", {"loss": {1: 1.0}}, state="FINISHED", reason="COMPLETED")

    watched.streams["Convergence"] = stream
    result = run("watch", "x")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "FINISHED (COMPLETED) after 12.3 s, loss 1 at step 1"


def test_superseded_points_are_reported_and_not_counted(watched: Any, run: Run, event: Make) -> None:
    watched.streams["Convergence"] = plays(
        event("a", {"loss": {0: 9.0, 50: 8.0}}),
        event("b", {"loss": {10: 1.0}}, attempt=2, supersedes_from=10, state="FINISHED", reason="COMPLETED"),
    )
    lines = run("watch", "x").stdout.splitlines()
    assert "attempt 2: loss goes on from step 10" in lines
    assert lines[-1].endswith("loss 1 at step 10")


def test_values_that_are_not_finite_are_printed_and_skipped_in_the_summary(watched: Any, run: Run, event: Make) -> None:
    watched.final = {"state": "FAILED", "reason": "EXIT_CODE"}
    watched.streams["Convergence"] = plays(
        event("a", {"loss": {0: 3.0, 1: None}}), event("b", state="FAILED", reason="EXIT_CODE")
    )
    result = run("watch", "x")
    assert "step 1  loss=not finite" in result.stdout
    assert result.stdout.splitlines()[-1] == "FAILED (EXIT_CODE) after 12.3 s, loss 3 at step 0"


def test_hostile_names_are_harmless(watched: Any, run: Run, event: Make, simulation: Make) -> None:
    evil = "\x1b[2J[red]x\u202e\r\n"
    watched.answers["Simulation"] = lambda _: {"simulation": simulation(name=evil)}
    watched.streams["Convergence"] = plays(event("a", {evil: {0: 1.0}}, state="FINISHED", reason=evil))
    shown = run("watch", "x").stdout
    assert "[2J[red]x" in shown
    assert not any(character in shown for character in "\x1b\u202e\r")


def test_an_unknown_simulation_is_a_sentence(watched: Any, run: Run) -> None:
    watched.answers["Simulation"] = lambda _: {"simulation": None}
    result = run("watch", "unknown")
    assert result.exit_code == 6
    assert "There is no simulation with the number, name or id unknown." in result.stderr


def test_a_metric_that_can_not_be_sent_is_wrong_usage(watched: Any, run: Run) -> None:
    result = run("watch", "x", "--metric", "\udcff")
    assert result.exit_code == 2
    assert "letters that are no UTF-8" in result.stderr


def test_an_error_about_the_request_ends_the_command(
    watched: Any, run: Run, event: Make, refuse: type[Exception]
) -> None:
    watched.streams["Convergence"] = plays(refuse("At most 100 metrics can be asked for.", "BAD_USER_INPUT"))
    result = run("watch", "x", "--metric", "loss")
    assert result.exit_code == 6
    assert result.stderr.strip() == "At most 100 metrics can be asked for."
    assert watched.variables("Convergence")[0]["metrics"] == ["loss"]


def test_a_server_that_keeps_failing_is_given_up(
    watched: Any, run: Run, refuse: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.resuming, "LONGEST_PAUSE_SECONDS", 0.01)
    watched.asked_before_end = 100
    watched.streams["Convergence"] = plays(refuse("Something went wrong on the server."))
    result = run("watch", "x")
    assert result.exit_code == 6
    assert "Something went wrong on the server." in result.stderr
    assert watched.sockets == cli.resuming.MOST_SERVER_ERRORS


def test_a_server_whose_database_is_away_is_not(
    watched: Any, run: Run, event: Make, refuse: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.resuming, "LONGEST_PAUSE_SECONDS", 0.01)
    answers = iter([refuse("The database does not answer.", "UNAVAILABLE")] * (2 * cli.resuming.MOST_SERVER_ERRORS))

    async def stream(_: object) -> AsyncIterator[Any]:
        for failure in answers:
            raise failure
        yield event("a", {"loss": {0: 1.0}}, state="FINISHED", reason="COMPLETED")

    watched.asked_before_end = 100
    watched.streams["Convergence"] = stream
    result = run("watch", "x")
    assert (result.exit_code, next(answers, None)) == (0, None)


def test_a_change_is_shown_while_nothing_is_printed_yet(watched: Any, run: Run, event: Make, simulation: Make) -> None:
    told = asyncio.Event()

    async def changes(_: object) -> AsyncIterator[Any]:
        waiting = {"reason": "MACHINES_BUSY", "detail": "All machines are busy."}
        yield {"simulationChanged": simulation(state="QUEUED", waiting=waiting)}
        told.set()

    async def stream(_: object) -> AsyncIterator[Any]:
        await told.wait()
        yield event("a", state="FINISHED", reason="COMPLETED")

    watched.streams.update(Changes=changes, Convergence=stream)
    assert "train: QUEUED All machines are busy." in run("watch", "x").stdout.splitlines()


def test_the_token_goes_into_the_handshake_and_connection_init(watched: Any, run: Run, event: Make) -> None:
    watched.streams["Convergence"] = plays(event("a", state="FINISHED", reason="COMPLETED"))
    run("watch", "x", "--token", "secret")
    assert watched.headers[-1]["authorization"] == "Bearer secret"
    assert watched.init_payloads == [{"Authorization": "Bearer secret"}]


def test_a_batch_of_ten_thousand_points_in_one_frame_is_taken(watched: Any, run: Run, event: Make) -> None:
    points = {metric: {step: step / 7 for step in range(10_000)} for metric in "abcdef"}
    watched.streams["Convergence"] = plays(event("a", points), event("b", state="FINISHED", reason="COMPLETED"))
    result = run("watch", "x")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("a 1428.4, b 1428.4, c 1428.4, d 1428.4 at step 9999")


def test_submit_and_watch_in_one(watched: Any, run: Run, event: Make, simulation: Make) -> None:
    watched.final = {"state": "FAILED", "reason": "EXIT_CODE"}
    watched.answers["Create"] = lambda _: {"createSimulation": {"simulation": simulation(id="new"), "userErrors": []}}
    watched.streams["Convergence"] = plays(event("a", {"loss": {0: 1.0}}, state="FAILED", reason="EXIT_CODE"))
    result = run("submit", "--watch", "--", "run")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == "new"
    assert result.stdout.splitlines()[-1].startswith("FAILED (EXIT_CODE)")
    assert watched.variables("Convergence")[0]["id"] == "new"


def test_ctrl_c_stops_watching_and_reports_that_the_simulation_goes_on(watched: Any, event: Make) -> None:
    async def stream(_: object) -> AsyncIterator[Any]:
        yield event("a", {"loss": {0: 2.0}})
        await asyncio.Event().wait()

    watched.streams["Convergence"] = stream
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "watch", "x", "--url", watched.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "loss=2" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the simulation goes on" in said
    assert "Traceback" not in said


def test_a_terminal_gets_a_drawing_and_the_same_last_line(watched: Any, event: Make) -> None:
    watched.streams["Convergence"] = plays(
        event("a", {"loss": {step: 1 / (step + 1) for step in range(200)}}),
        event("b", state="FINISHED", reason="COMPLETED"),
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "watch", "x", "--log", "--url", watched.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert any("\u2801" <= character <= "\u28ff" for character in text)
    assert "loss (log)" in text
    assert "FINISHED (COMPLETED) after 12.3 s, loss 0.005 at step 199" in text


def test_the_objective_leads_the_last_line(watched: Any, run: Run, event: Make) -> None:
    watched.final["objective"] = {"metric": "val/loss", "mode": "MIN", "value": 0.5, "bestValue": 0.25, "bestStep": 4}
    watched.streams["Convergence"] = plays(
        event("a", {"loss": {9: 2.0}, "val/loss": {9: 0.5}}), event("b", state="FINISHED", reason="COMPLETED")
    )
    result = run("watch", "x")
    assert result.exit_code == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.endswith("best val/loss 0.25 at step 4, val/loss 0.5, loss 2 at step 9")


def test_a_name_is_followed_by_the_id_that_it_had(watched: Any, run: Run, event: Make, simulation: Make) -> None:
    watched.asked_before_end = 99
    watched.answers["Simulation"] = lambda _: {"simulation": simulation(id="the-id", **watched.final)}
    watched.streams["Convergence"] = plays(event("b", state="FINISHED", reason="COMPLETED"))
    assert run("watch", "a-name").exit_code == 0
    assert [each["id"] for each in watched.variables("Convergence")] == ["the-id"]
    assert [each["id"] for each in watched.variables("Simulation")] == ["a-name", "the-id"]
