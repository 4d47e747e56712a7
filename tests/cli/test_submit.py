"""`submit`, `cancel` and `retry`: requests, messages and failures."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.app import app

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def accepting(server: Any, simulation: Make) -> Any:
    """A server that accepts every submission."""
    server.answers["Create"] = lambda _: {
        "createSimulation": {"simulation": simulation(state="QUEUED", machine=None), "userErrors": []}
    }
    return server


def test_words_after_the_dashes_are_the_command_and_options_not_given_are_not_sent(accepting: Any, run: Run) -> None:
    result = run("submit", "--", "python", "train.py", "--epochs", "20", "--json")
    assert result.exit_code == 0
    assert result.stdout.strip() == "U2ltdWxhdGlvbjox"
    assert "simulations watch" in result.stderr
    (sent,) = accepting.variables("Create")
    assert sent["input"] == {"entrypoint": ["python", "train.py", "--epochs", "20", "--json"]}


def test_without_the_dashes_the_commands_own_options_are_still_its_own(accepting: Any, run: Run) -> None:
    result = run("submit", "--cpus", "2", "python", "train.py", "--epochs", "20", "--name", "x")
    assert result.exit_code == 0
    (sent,) = accepting.variables("Create")
    assert sent["input"]["entrypoint"] == ["python", "train.py", "--epochs", "20", "--name", "x"]


def test_every_option_reaches_the_server(accepting: Any, run: Run, machine: Make, tmp_path: Path) -> None:
    accepting.answers["Machines"] = lambda _: {
        "machines": {
            "nodes": [machine(id="a", name="bigger"), machine(id="b", name="big")],
            "pageInfo": {"hasNextPage": False, "endCursor": "x"},
        }
    }
    result = run(
        "submit", "--name", "n", "--project", "p", "-p", "rate=0.1", "-p", "kind=adam", "--env", "A=1", "--tag", "x",
        "--tag", "y", "--cpus", "2.5", "--memory-gib", "8", "--gpus", "1", "--gpu-model", "A100", "--label", "zone=eu",
        "--machines", "2",
        "--machine", "big", "--max-price-per-hour", "3.50", "--priority", "7", "--max-runtime", "1h30m",
        "--max-retries", "0", "--retry-on", "machine_lost,EXIT_CODE", "--retry-on", "launch_error",
        "--metric-mode", "accuracy=max", "--metric-mode", "a b=MIN",
        "--metrics", "json", "--metrics-pattern", r"loss=(?P<loss>\S+)",
        "--client-key", "k", "--tensorboard", "logs", "--tensorboard", "/shared", "--system-metrics", "0",
        "--working-directory", str(tmp_path),
        "--", "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    (sent,) = accepting.variables("Create")
    assert sent["input"] == {
        "name": "n", "project": "p", "entrypoint": ["run"], "parameters": {"rate": 0.1, "kind": "adam"},
        "environment": {"A": "1"}, "tags": ["x", "y"], "machines": 2, "priority": 7,
        "clientKey": "k",
        "workingDirectory": str(tmp_path),
        "resources": {
            "cpus": 2.5, "memoryGib": 8.0, "gpus": 1, "gpuModel": "A100", "labels": {"zone": "eu"}, "machine": "b",
            "maxPricePerHour": "3.50",
        },
        "limits": {
            "maxRuntimeSeconds": 5400, "maxRetries": 0, "retryOn": ["MACHINE_LOST", "EXIT_CODE", "LAUNCH_ERROR"],
        },
        "metrics": [{"name": "accuracy", "mode": "MAX"}, {"name": "a b", "mode": "MIN"}],
        "metricsFrom": "JSON", "metricsPatterns": [r"loss=(?P<loss>\S+)"],
        "tensorboard": ["logs", "/shared"],
        "systemMetricsSeconds": 0.0,
    }  # fmt: skip


def test_json_prints_the_simulation_in_the_apis_words(accepting: Any, run: Run) -> None:
    result = run("submit", "--json", "--", "run")
    assert json.loads(result.stdout)["createdAt"] == "2026-01-01T12:00:00Z"


def test_a_file_that_is_only_found_here_is_pointed_out(
    accepting: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    assert "train.py is a file here" in run("submit", "--", "python", "train.py").stderr
    assert "is a file here" not in run("submit", "-C", ".", "--", "python", "train.py").stderr


def test_each_user_error_is_a_line_and_nothing_is_printed_as_an_id(server: Any, run: Run) -> None:
    server.answers["Create"] = lambda _: {
        "createSimulation": {
            "simulation": None,
            "userErrors": [
                {"message": "must be above zero", "field": ["resources", "cpus"]},
                {"message": "name: is taken", "field": ["name"]},
                {"message": "Not today.", "field": None},
            ],
        }
    }
    result = run("submit", "--cpus", "-1", "--", "run")
    assert result.exit_code == 6
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["resources.cpus: must be above zero", "name: is taken", "Not today."]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--parameter", "novalue", "--", "run"], "--parameter: expected KEY=VALUE"),
        (["--max-runtime", "soon", "--", "run"], "expected a duration"),
        (["--retry-on", "exit", "--", "run"], "did you mean exit_code?"),
        (["--metric-mode", "accuracy=best", "--", "run"], "--metric-mode: expected one of min, max"),
        (["--metric-mode", "accuracy", "--", "run"], "--metric-mode: expected KEY=VALUE"),
        (["--url", "localhost:8000", "--", "run"], "--url: expected an address like"),
        (["--cpus", "many", "--", "run"], "Invalid value for '--cpus'"),
        ([], "No command given."),
        (["--cpus", "nan", "--", "run"], "a number that is not finite"),
        (["--memory-gib", "inf", "--", "run"], "a number that is not finite"),
        (["--name", "\udcff", "--", "run"], "letters that are no UTF-8"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(run: Run, server: Any, arguments: list[str], found: str) -> None:
    result = run("submit", *arguments)
    assert result.exit_code == 2
    assert found in result.stderr
    assert "Traceback" not in result.stderr
    assert server.asked == []


def test_an_unknown_machine_is_reported_with_similar_names(accepting: Any, run: Run, machine: Make) -> None:
    accepting.answers["Machines"] = lambda _: {
        "machines": {
            "nodes": [machine(id="a", name="bigger")],
            "pageInfo": {"hasNextPage": False, "endCursor": None},
        }
    }
    result = run("submit", "--machine", "big", "--", "run")
    assert result.exit_code == 6
    assert "There is no machine named big. Similar: bigger." in result.stderr
    assert accepting.variables("Create") == []


def test_an_unreachable_server_is_an_error_with_advice_to_start_one() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and never listening
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        for command in (
            ["submit", "--", "run"],
            ["list"],
            ["show", "last"],
            ["cancel", "x"],
            ["watch", "x"],
            ["retry", "x"],
        ):
            result = CliRunner().invoke(app, [*command[:1], "--url", url, *command[1:]])
            assert result.exit_code == 6
            assert f"No Simulations server answers at {url}. Start one with `make run`" in result.stderr
            assert "Traceback" not in result.stderr


def test_a_foreign_server_is_detected(server: Any, run: Run) -> None:
    result = run("list", "--url", f"{server.url}/somewhere")
    assert result.exit_code == 6
    assert "is no Simulations server (HTTP 404)" in result.stderr


@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [
        (
            b'{"errors": [{"message": "It does not answer.", "extensions": {"code": "UNAVAILABLE"}}]}',
            "application/json",
            "It does not answer.",
        ),
        (
            b"<h1>503</h1>",
            "text/html",
            "can't answer now (HTTP 503): its database is away, or it is being restarted. Try again",
        ),
    ],
    ids=["the server itself", "a proxy"],
)
def test_a_server_without_its_database_is_distinguished_from_a_foreign_one(
    run: Run, content: bytes, kind: str, sentence: str
) -> None:
    class Away(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Away) as away:
        threading.Thread(target=away.serve_forever, daemon=True).start()
        result = run("list", "--url", f"http://127.0.0.1:{away.server_port}")
        away.shutdown()
    assert result.exit_code == 6
    assert sentence in result.stderr


def test_an_answer_of_another_version_is_a_sentence(server: Any, run: Run) -> None:
    server.answers["Create"] = lambda _: {"createSimulation": {"simulation": {"id": "x"}, "userErrors": []}}
    result = run("submit", "--", "run")
    assert result.exit_code == 6
    assert "another version" in result.stderr


def test_a_graphql_error_is_shown_without_its_control_characters(
    server: Any, run: Run, refuse: type[Exception]
) -> None:
    def answer(_: object) -> None:
        raise refuse("No\x1b[2J such [bold]thing[/bold].", "BAD_USER_INPUT")

    server.answers["Create"] = answer
    result = run("submit", "--", "run")
    assert result.exit_code == 6
    assert result.stderr.strip() == "No[2J such [bold]thing[/bold]."


def test_the_token_is_sent_as_a_bearer(accepting: Any, run: Run) -> None:
    run("submit", "--", "run", env={"SIMULATIONS_TOKEN": "secret"})
    assert accepting.headers[-1]["authorization"] == "Bearer secret"
    run("submit", "--token", "other", "--", "run")
    assert accepting.headers[-1]["authorization"] == "Bearer other"


def test_cancel_goes_on_behind_one_that_is_refused(server: Any, run: Run, simulation: Make) -> None:
    def answer(variables: dict[str, Any]) -> dict[str, Any]:
        number = variables["input"]["id"]
        if number == "bad":
            refusal = {"message": "There is no such simulation.", "field": ["id"]}
            return {"cancelSimulation": {"simulation": None, "userErrors": [refusal]}}
        state = "CANCELLED" if number == "queued" else "RUNNING"
        return {"cancelSimulation": {"simulation": simulation(id=number, state=state), "userErrors": []}}

    server.answers["Cancel"] = answer
    result = run("cancel", "queued", "bad", "running")
    assert result.exit_code == 6
    assert result.stdout.splitlines() == ["queued  train: CANCELLED", "running  train: RUNNING, its end is on the way"]
    assert result.stderr.strip() == "bad: There is no such simulation."
    assert run("cancel", "queued").exit_code == 0


def test_last_is_the_newest_simulation(server: Any, run: Run, simulation: Make) -> None:
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": [simulation(id="newest")], "pageInfo": {"hasNextPage": True, "endCursor": "c"}}
    }
    server.answers["Retry"] = lambda _: {"retrySimulation": {"simulation": simulation(id="again"), "userErrors": []}}
    assert run("retry", "last").stdout.strip() == "again"
    assert server.variables("Retry") == [{"input": {"id": "newest"}}]
    assert [each["first"] for each in server.variables("List")] == [1]


def test_a_retry_with_changes_is_a_fork(server: Any, run: Run, simulation: Make) -> None:
    server.answers["Fork"] = lambda _: {"forkSimulation": {"simulation": simulation(id="new"), "userErrors": []}}
    changes = ("-p", "seed=9007199254740993", "-p", "opt=adam", "--without", "wd", "--name", "again", "--tag", "t")
    assert run("retry", "old", *changes, "--notes", "n", "--priority", "2", "--", "run", "-x").stdout.strip() == "new"
    assert server.variables("Fork") == [
        {
            "input": {
                "id": "old", "entrypoint": ["run", "-x"], "name": "again", "tags": ["t"], "notes": "n", "priority": 2,
                "parameters": {"seed": 9007199254740993, "opt": "adam", "wd": None},
            }
        }
    ]  # fmt: skip
    twice = run("retry", "old", "-p", "lr=1", "--without", "lr")
    assert twice.exit_code == 2
    assert "--without: lr" in twice.stderr


@pytest.mark.parametrize(
    ("command", "parameters", "advice"),
    [
        (["train.py", "--lr", "0.1"], {"lr": 0.2}, "train.py --lr '{lr}'"),
        (["train.py", "--lr=0.1", "-v"], {"lr": 0.2}, "train.py '--lr={lr}' -v"),
        (
            ["python", "-c", "import sys\nprint(1)", "--lr", "0.1"],
            {"lr": 0.2},
            "python -c … --lr '{lr}' (simulations retry new -- COMMAND)",
        ),
        (
            ["python", "-c", "print(1);" * 30, "--lr", "0.1"],
            {"lr": 0.2},
            "python -c … --lr '{lr}' (simulations retry new -- COMMAND)",
        ),
        (["train.py", "batch-size=8"], {"batch_size": 16}, "train.py 'batch-size={batch_size}'"),
        (["train.py", "--lr", "0.20"], {"lr": 0.2}, None),
        (["train.py", "--opt", "adam"], {"opt": "adam"}, None),
        (["train.py", "--seed", "0.1", "lr"], {"lr": 0.2}, None),
    ],
)
def test_a_value_that_is_written_out_in_the_command_is_pointed_out(
    server: Any, run: Run, simulation: Make, command: list[str], parameters: dict[str, Any], advice: str | None
) -> None:
    """The run would be the same under another label."""
    copy = {**simulation(id="new"), "entrypoint": command, "parameters": parameters}
    server.answers["Fork"] = lambda _: {"forkSimulation": {"simulation": copy, "userErrors": []}}
    [(name, value)] = parameters.items()
    result = run("retry", "old", "-p", f"{name}={value}")
    assert result.stdout.strip() == "new"
    assert ("written out" in result.stderr) is (advice is not None)
    if advice is not None:
        again = "" if "…" in advice else "simulations retry new -- "
        assert f"write {{{name}}} there: {again}{advice}" in " ".join(result.stderr.split())


def test_last_of_nothing_is_a_sentence(server: Any, run: Run) -> None:
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }
    result = run("cancel", "last")
    assert result.exit_code == 6
    assert "There is no simulation yet." in result.stderr


def test_an_attended_simulation_is_submitted_with_its_grace_and_the_output_names_what_it_waits_for(
    server: Any, simulation: Make, run: Run
) -> None:
    server.answers["Create"] = lambda _: {
        "createSimulation": {"simulation": simulation(state="QUEUED", attended=True), "userErrors": []}
    }
    result = run("submit", "--attended", "--attended-grace", "2m", "--", "run")
    assert result.exit_code == 0, result.stderr
    (sent,) = server.variables("Create")
    assert sent["input"] == {"entrypoint": ["run"], "attended": True, "attendedGraceSeconds": 120}
    assert "starts when a client watches its curve: simulations watch U2ltdWxhdGlvbjox" in result.stderr


def test_a_grace_without_attended_is_wrong_usage(accepting: Any, run: Run) -> None:
    result = run("submit", "--attended-grace", "2m", "--", "run")
    assert result.exit_code == 2
    assert "add --attended" in result.stderr
    assert accepting.variables("Create") == []
