"""The built-in simulation."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys

import pytest

from runner import demo


def test_the_same_seed_gives_the_same_curve_and_another_seed_another() -> None:
    assert list(demo.points(50, 1, False)) == list(demo.points(50, 1, False)) != list(demo.points(50, 2, False))


def test_the_loss_falls_and_the_accuracy_rises() -> None:
    first, *_, last = demo.points(200, 0, False)
    assert last["loss"] < first["loss"] / 5
    assert last["accuracy"] > first["accuracy"] + 0.5


def test_a_diverging_run_turns_round_and_ends_as_nan() -> None:
    records = list(demo.points(90, 0, True))
    assert records[50]["loss"] > records[0]["loss"] > records[29]["loss"]
    assert all(math.isnan(record["loss"]) for record in records[60:])


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_the_shortest_runs_work_too(steps: int) -> None:
    assert len(list(demo.points(steps, 0, True))) == steps


def test_it_prints_json_lines_and_ends_with_0() -> None:
    command = [sys.executable, "-m", "runner.demo", "--steps", "5", "--interval", "0", "--diverge"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line)["step"] for line in ran.stdout.splitlines()] == [0, 1, 2, 3, 4]
    assert ran.stderr == ""


def test_sigterm_ends_it_quietly() -> None:
    command = [sys.executable, "-m", "runner.demo", "--interval", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, b"", b"")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", "-1"], "expected a whole number from 0 up, got '-1'"),
        (["--steps", "ten"], "expected a whole number from 0 up, got 'ten'"),
        (["--interval", "nan"], "expected seconds from 0 to 86400, got 'nan'"),
        (["--interval", "-1"], "expected seconds from 0 to 86400, got '-1'"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_bad_options_are_refused_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        demo.main(arguments)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err
