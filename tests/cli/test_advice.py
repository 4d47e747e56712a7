"""Advice on a missing Python module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
TRACEBACK = "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'torch.nn'"


@pytest.fixture
def failed(server: Any, simulation: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A simulation that ended with an exit code, and what it wrote."""

    def failed(program: str, text: str, reason: str = "EXIT_CODE") -> None:
        details = {
            **simulation(id="x", state="FAILED", reason=reason, finishedAt="2026-01-01T12:02:01Z"),
            "entrypoint": [program, "train.py"], "parameters": {}, "environment": {}, "workingDirectory": None,
            "tags": [], "priority": 0, "createdBy": "ada", "attempts": [], "events": [], "retryOf": None,
            "resources": {
                "cpus": 1.0, "memoryGib": 0.0, "gpus": 0, "gpuModel": None, "labels": {}, "machine": None,
                "maxPricePerHour": None,
            },
            "limits": {"maxRuntimeSeconds": None, "maxRetries": 3, "retryOn": []},
        }  # fmt: skip
        chunk = {
            "cursor": "1", "attempt": 1, "stream": "STDERR", "text": text, "receivedAt": "2026-01-01T12:00:00Z",
        }  # fmt: skip
        end = {"hasNextPage": False, "endCursor": None}
        server.answers["Details"] = lambda _: {"simulation": details}
        server.answers["LogPage"] = lambda _: {"simulation": {"logs": {"nodes": [chunk], "pageInfo": end}}}

    return failed


def test_a_missing_module_is_reported_with_the_interpreter(failed: Callable[..., None], run: Run) -> None:
    failed("python", TRACEBACK)
    said = run("show", "x").stderr
    assert "`python` is the interpreter that runs the service, and has no module torch.nn." in said
    assert "/path/to/.venv/bin/python" in said


@pytest.mark.parametrize(
    ("program", "text", "reason"),
    [
        ("/home/me/.venv/bin/python", TRACEBACK, "EXIT_CODE"),
        ("python", "ValueError: no", "EXIT_CODE"),
        ("python", TRACEBACK, "MAX_RUNTIME"),
    ],
)
def test_another_failure_is_left_to_its_log(
    failed: Callable[..., None], run: Run, program: str, text: str, reason: str
) -> None:
    failed(program, text, reason)
    assert run("show", "x").stderr == ""


def test_the_demo_prints_its_own_subscription(server: Any, run: Run, simulation: Callable[..., dict[str, Any]]) -> None:
    server.answers["Create"] = lambda _: {"createSimulation": {"simulation": simulation(id="own"), "userErrors": []}}
    said = run("demo").stderr
    assert 'subscription { convergence(simulationId: "own") { state series { metric steps values } } }' in said
