"""`submit --wait`: exit codes, without watching the curve."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from typer.testing import Result

from cli import waiting

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def queued(server: Any, simulation: Make) -> Any:
    """A server that accepts a submission and sends no change."""
    made = simulation(state="QUEUED")
    server.answers["Create"] = lambda _: {"createSimulation": {"simulation": made, "userErrors": []}}

    async def silent(_: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    server.streams["Changes"] = silent
    return server


@pytest.mark.parametrize(("state", "code"), [("FINISHED", 0), ("FAILED", 1), ("CANCELLED", 5)])
def test_the_exit_code_is_that_of_the_final_state(
    queued: Any, run: Run, simulation: Make, state: str, code: int
) -> None:
    states = iter(["QUEUED", "RUNNING", state])
    looked = asyncio.Event()

    def look(_: Any) -> dict[str, Any]:
        looked.set()
        return {"simulation": simulation(state=next(states))}

    async def changes(_: Any) -> AsyncIterator[Any]:
        while True:
            await looked.wait()
            looked.clear()
            yield {"simulationChanged": simulation(state="RUNNING")}

    queued.answers["Simulation"] = look

    queued.streams["Changes"] = changes
    result = run("submit", "--wait", "--", "run")
    assert result.exit_code == code, result.output
    assert result.stdout.strip() == "U2ltdWxhdGlvbjox"
    assert f"train: {state}" in result.stderr
    assert queued.variables("Convergence") == [], "a subscription to the curve would count as watching"


def test_a_change_that_came_before_it_listened_is_seen_by_looking_again(
    queued: Any, run: Run, simulation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_AGAIN_SECONDS", 0.01)
    states = iter(["QUEUED", "RUNNING", "FINISHED"])
    queued.answers["Simulation"] = lambda _: {"simulation": simulation(state=next(states))}
    assert run("submit", "--wait", "--", "run").exit_code == 0


def test_a_cut_connection_is_opened_again(queued: Any, run: Run, simulation: Make, cut: type[Exception]) -> None:
    states = iter(["RUNNING", "RUNNING", "FINISHED"])
    queued.answers["Simulation"] = lambda _: {"simulation": simulation(state=next(states))}

    async def changes(_: Any) -> AsyncIterator[Any]:
        raise cut
        yield

    queued.streams["Changes"] = changes
    assert run("submit", "--wait", "--", "run").exit_code == 0
    assert queued.sockets == 3


def test_ctrl_c_stops_waiting_and_reports_that_the_simulation_goes_on(queued: Any, simulation: Make) -> None:
    queued.answers["Simulation"] = lambda _: {"simulation": simulation(state="RUNNING")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "submit", "--wait", "--url", queued.url, "--", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "train: RUNNING" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the simulation goes on" in said
    assert "Traceback" not in said
