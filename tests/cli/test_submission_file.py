"""`submit --file`: valid files reach the server, mistakes are reported with line and nearest valid key."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import Result

from cli.errors import UsageError
from cli.submission_file import read_submissions

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]

WHOLE = """
name: n
project: p
entrypoint: [python, train.py, --epochs, "20"]
parameters: {rate: 0.1, when: 2024-01-01, on: yes, nested: {a: [1, null, true]}}
environment: {DEBUG: "1"}
working_directory: sub
tags: [a, b]
resources:
  cpus: 2
  memory_gib: 0.5
  gpus: 1
  gpu_model: A100
  labels: {zone: eu}
  machine: big
  max_price_per_hour: 2.50
limits: {max_runtime: 1h30m, max_retries: 0, retry_on: [MACHINE_LOST, EXIT_CODE]}
metrics: {accuracy: MAX}
priority: -3
machines: 4
attended: true
attended_grace: 90
client_key: k
tensorboard: [logs, /shared/runs]
system_metrics: 90s
"""


@pytest.fixture
def order(tmp_path: Path) -> Callable[[str], Path]:
    """Write a submission file."""

    def order(text: str) -> Path:
        path = tmp_path / "order.yaml"
        path.write_text(text)
        return path

    return order


@pytest.fixture
def accepting(server: Any, simulation: Make, machine: Make) -> Any:
    server.answers["Create"] = lambda _: {"createSimulation": {"simulation": simulation(), "userErrors": []}}
    server.answers["Machines"] = lambda _: {
        "machines": {"nodes": [machine()], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }
    return server


def test_every_word_reaches_the_server(accepting: Any, run: Run, order: Callable[[str], Path], tmp_path: Path) -> None:
    result = run("submit", "--file", str(order(WHOLE)))
    assert result.exit_code == 0, result.stderr
    (sent,) = accepting.variables("Create")
    assert sent["input"] == {
        "name": "n", "project": "p", "entrypoint": ["python", "train.py", "--epochs", "20"],
        "parameters": {"rate": 0.1, "when": "2024-01-01", "on": "yes", "nested": {"a": [1, None, True]}},
        "environment": {"DEBUG": "1"}, "workingDirectory": str(tmp_path / "sub"), "tags": ["a", "b"],
        "resources": {
            "cpus": 2.0, "memoryGib": 0.5, "gpus": 1, "gpuModel": "A100", "labels": {"zone": "eu"},
            "machine": "TWFjaGluZTox", "maxPricePerHour": "2.5",
        },
        "limits": {"maxRuntimeSeconds": 5400, "maxRetries": 0, "retryOn": ["MACHINE_LOST", "EXIT_CODE"]},
        "metrics": [{"name": "accuracy", "mode": "MAX"}], "priority": -3, "machines": 4, "attended": True,
        "attendedGraceSeconds": 90, "clientKey": "k", "tensorboard": ["logs", "/shared/runs"],
        "systemMetricsSeconds": 90,
    }  # fmt: skip


def test_options_win_over_the_file_key_by_key(accepting: Any, run: Run, order: Callable[[str], Path]) -> None:
    run(
        "submit", "--file", str(order(WHOLE)), "--name", "mine", "--cpus", "4", "-p", "rate=2", "--label", "disk=ssd",
        "--max-retries", "1", "--metric-mode", "wer=min", "--tag", "c", "--machine", "TWFjaGluZToy", "--", "sleep", "1",
    )  # fmt: skip
    (sent,) = accepting.variables("Create")
    wanted = sent["input"]
    assert (wanted["name"], wanted["entrypoint"], wanted["tags"]) == ("mine", ["sleep", "1"], ["c"])
    assert wanted["parameters"]["rate"] == 2
    assert wanted["parameters"]["on"] == "yes"
    assert wanted["resources"]["cpus"] == 4.0
    assert wanted["resources"]["labels"] == {"zone": "eu", "disk": "ssd"}
    assert wanted["resources"]["machine"] == "TWFjaGluZToy"
    assert wanted["limits"] == {"maxRuntimeSeconds": 5400, "maxRetries": 1, "retryOn": ["MACHINE_LOST", "EXIT_CODE"]}
    assert wanted["metrics"] == [{"name": "accuracy", "mode": "MAX"}, {"name": "wer", "mode": "MIN"}]


def test_an_order_comes_through_a_pipe(
    accepting: Any, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"entrypoint: [a]\nworking_directory: .\n")))
    assert read_submissions("-") == {"entrypoint": ["a"], "workingDirectory": str(tmp_path)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmae: x", "order.yaml:1: nmae: unknown key; did you mean name?"),
        ("\ncommand: [a]", "order.yaml:2: command: unknown key; did you mean entrypoint?"),
        ("resources:\n  cpus: 1\n  memroy_gib: 1", ":3: resources.memroy_gib: unknown key; did you mean m"),
        ("maxRuntime: 1h", ":1: maxRuntime: unknown key here; it is limits.max_runtime"),
        ("max_runtime_seconds: 1", ":1: max_runtime_seconds: unknown key"),
        ("limits: {\n cpus: 1}", ":2: limits.cpus: unknown key here; it is resources.cpus"),
        ("zzz: 1", ":1: zzz: unknown key; a submission file has name, project, entrypoint"),
        ("resources: {memory_gib: 16GB}", "resources.memory_gib: expected a number of GiB, 14.9, got '16GB'"),
        ("resources: {memory_gib: 512 MiB}", "expected a number of GiB, 0.5, got '512 MiB'"),
        ('resources: {cpus: "4"}', "resources.cpus: expected a number without a unit or quotes, 4, got '4'"),
        ("resources: {gpus: 1.5}", "resources.gpus: expected a whole number, got 1.5"),
        ("limits: {max_cost: 2 USD}", "expected an amount like 12.50, without a currency"),
        ("resources: {max_price_per_hour: 2 USD}", "expected a price per hour like 2.50, without a currency"),
        ("resources: 3", ":1: resources: expected a mapping, got 3"),
        ("limits: {max_runtime: 2 hours}", "limits.max_runtime: expected a duration like 90s, 15m, 1h30m or 2d"),
        ("limits: {max_runtime: 2 hours}", "hours is written h"),
        ("limits: {max_runtime: 5 hors}", "hors is written h"),
        ("limits: {max_runtime: 1:30:00}", "expected a duration like 90s, 15m, 1h30m or 2d, got '1:30:00'"),
        ("limits: {max_runtime: true}", "expected a duration"),
        ("entrypoint: !!python/object/apply:os.system [id]", ":1: entrypoint: expected a list or a mapping"),
        ("parameters: {a: !!set {x}}", ":1: parameters.a: expected a list or a mapping, got !!set"),
        ("limits: {retry_on: [machine_lost]}", "did you mean MACHINE_LOST?"),
        ("environment:\n  A: b\n  FLAG: true", ':3: environment.FLAG: expected text, got true: quote it, "true"'),
        ("entrypoint: python train.py", 'entrypoint: expected a list of words, for no shell reads it: ["python"'),
        ("entrypoint:\n- a\n- 3", ':3: entrypoint.1: expected text, got 3: quote it, "3"'),
        ("attended: yes", "attended: expected true or false, got yes"),
        ("tags: one", "tags: expected a list, got one"),
        ("metrics: {accuracy: up}", "metrics.accuracy: expected 'MIN' or 'MAX', got up"),
        ("parameters: {a: .nan}", "parameters.a: expected a number that JSON knows, got .nan"),
        (f"parameters: {{a: 1,\n b: [{2**64}]}}", f":2: parameters.b.0: {2**64} is a whole number beyond 64 bits"),
        ("parameters: {a: 0xfffffffffffffffff}", "a: 0xfffffffffffffffff is a whole number beyond 64 bits"),
        ("name: a\nname: b", ":2: name is given twice, first in line 1"),
        ("- a", ":1: expected a mapping"),
        ("a: [", ":1: this is not YAML"),
        ("a: b: c", ":1: this is not YAML"),
        ("? [a]\n: b", ":1: expected a key before the colon"),
        ("a: &a [*a]", "grows too large or too deep"),
        ("a: !!python/object/apply:os.system [true]", "a: unknown key"),
        ("parameters: {a: !!python/name:os.system }", "parameters.a: this value can't be read"),
        ("name: \x00", "this is not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line_and_the_nearest_valid_key(
    server: Any, run: Run, order: Callable[[str], Path], text: str, said: str
) -> None:
    result = run("submit", "--file", str(order(text)), "--", "run")
    assert result.exit_code == 2
    assert said in result.stderr
    assert server.asked == []


def test_numbers_are_read_as_people_write_them(order: Callable[[str], Path]) -> None:
    numbers = "{a: 1e-3, b: -2.5E+3, c: .5, d: 010, e: 0x1F, f: 12:30:45, g: 1_000, h: =}"
    assert read_submissions(str(order(f"parameters: {numbers}"))) == {
        "parameters": {"a": 0.001, "b": -2500.0, "c": 0.5, "d": 10, "e": 31, "f": "12:30:45", "g": "1_000", "h": "="}
    }


@pytest.mark.parametrize("none", ["0", "0s", '"0"', "0.0"])
def test_no_system_metrics_is_an_interval_of_zero(order: Callable[[str], Path], none: str) -> None:
    assert read_submissions(str(order(f"system_metrics: {none}"))) == {"systemMetricsSeconds": 0}
    with pytest.raises(UsageError, match=r"limits\.max_runtime: expected a duration"):
        read_submissions(str(order(f"limits: {{max_runtime: {none}}}")))


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(order: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError) as caught:
        read_submissions(str(order("nmae: a\nname: b\nname: c\nresources:\n  gpu: 1\npriority: x\n")))
    lines = str(caught.value).splitlines()
    assert [int(line.split(":")[1]) for line in lines] == [1, 3, 5, 6]


def test_a_small_file_can_not_grow_without_end(order: Callable[[str], Path]) -> None:
    bomb = "a: &b0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    with pytest.raises(UsageError, match="too large or too deep"):
        read_submissions(str(order(bomb)))
    with pytest.raises(UsageError, match="at most"):
        read_submissions(str(order("#" * 1_000_001)))


def test_an_unreadable_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"name: \xff")
    for path, said in (("missing", "No such file"), (".", "Is a directory"), ("latin", "no text in UTF-8")):
        with pytest.raises(UsageError, match=said):
            read_submissions(str(tmp_path / path))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
WORDS = [*yaml.safe_load(WHOLE), "cpus", "machine", "unknown"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), values, max_size=4))
def test_any_yaml_is_a_submission_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(wanted))
    try:
        json.dumps(read_submissions(str(path)), allow_nan=False)
        said = ""
    except UsageError as error:
        said = str(error)
    assert all(line.startswith((f"{path}:", "...")) for line in said.splitlines())


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_submission_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with suppress(UsageError):
        read_submissions(str(path))
