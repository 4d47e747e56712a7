"""report() and parameters() of the package `simulations`: values, steps, ranks, the pipe, and outside a simulation."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import simulations
from simulations import _reporting

VARIABLES = (_reporting.PIPE_VARIABLE, _reporting.ID_VARIABLE, _reporting.PARAMETERS_VARIABLE)


class Pipe:
    """The reading end, as the supervisor holds it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def lines(self) -> list[dict[str, object]]:
        try:
            return [json.loads(line) for line in os.read(self.descriptor, 1 << 20).splitlines()]
        except BlockingIOError:
            return []


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *_reporting.RANK_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_reporting, "_channel", _reporting._Channel())
    monkeypatch.setattr(_reporting, "_warned", set())


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "report")
    monkeypatch.setenv(_reporting.PIPE_VARIABLE, str(tmp_path / "report"))
    yield pipe
    os.close(pipe.descriptor)


def test_numbers_of_any_library_are_reported(pipe: Pipe) -> None:
    simulations.report(
        step=np.int64(3), loss=0.5, n=2, f32=np.float32(0.25), one=np.array([1.5]), d=Decimal("0.125"), **{"val/x": 1}
    )
    assert pipe.lines() == [{"step": 3, "loss": 0.5, "n": 2, "f32": 0.25, "one": 1.5, "d": 0.125, "val/x": 1}]


def test_values_that_are_not_finite_are_reported(pipe: Pipe) -> None:
    simulations.report(step=1, a=math.nan, b=math.inf, c=-math.inf)
    (line,) = pipe.lines()
    assert math.isnan(line["a"])  # type: ignore[arg-type]
    assert (line["b"], line["c"]) == (math.inf, -math.inf)


def test_what_is_no_number_is_named_once_and_the_rest_is_reported(pipe: Pipe, capsys: pytest.CaptureFixture) -> None:
    class Odd:
        def __float__(self) -> float:
            raise RuntimeError("odd")

    for step in range(3):
        simulations.report(
            step=step, loss=1.0, name="x", flag=True, none=None, many=np.zeros(2), odd=Odd(), z=1j, big=10**400
        )
    assert pipe.lines() == [{"step": step, "loss": 1.0} for step in range(3)]
    warned = capsys.readouterr().err.splitlines()
    assert [line.split("'")[1] for line in warned] == ["name", "flag", "none", "many", "odd", "z", "big"]


@pytest.mark.parametrize("step", [-1, 0.5, "3", True, 2**53 + 1, math.nan])
def test_an_impossible_step_is_named_and_nothing_is_reported(
    step: object, pipe: Pipe, capsys: pytest.CaptureFixture
) -> None:
    simulations.report(step=step, loss=1.0)  # type: ignore[arg-type]
    simulations.report(step=2.0, loss=1.0)  # type: ignore[arg-type]
    assert pipe.lines() == [{"step": 2, "loss": 1.0}]
    assert capsys.readouterr().err.startswith("simulations: step must be a whole number")


def test_a_report_without_a_step_leaves_the_count_to_the_supervisor(pipe: Pipe) -> None:
    simulations.report(loss=1.0)
    assert pipe.lines() == [{"loss": 1.0}]


def test_no_write_is_longer_than_what_the_kernel_keeps_in_one_piece(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda to, line: sizes.append(len(line)) or write(to, line))
    metrics = {f"metric number {index} of very many": float(index) for index in range(500)}
    simulations.report(step=7, **metrics)
    lines = pipe.lines()
    assert max(sizes) <= _reporting.PIPE_BUF
    assert len(sizes) == len(lines) > 1
    assert {name: value for line in lines for name, value in line.items()} == {"step": 7, **metrics}


@pytest.mark.parametrize("variable", _reporting.RANK_VARIABLES)
def test_only_rank_0_reports(variable: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in ("1", "0", "x", "12"):
        monkeypatch.setenv(variable, rank)
        simulations.report(step=1, **{f"rank {rank}": 1.0})
    assert [list(line)[1] for line in pipe.lines()] == ["rank 0", "rank x"]


def test_outside_a_simulation_nothing_happens(capfd: pytest.CaptureFixture) -> None:
    simulations.report(step=1, loss=object(), name="x")
    assert simulations.parameters() == {}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["gone", "a file", ""])
def test_without_a_readable_pipe_lines_go_to_standard_output(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "a file").mkdir()
    monkeypatch.setenv(_reporting.ID_VARIABLE, "x")
    if path:
        monkeypatch.setenv(_reporting.PIPE_VARIABLE, str(tmp_path / path))
    with os.fdopen(os.dup(1), "w") as real, open(os.devnull, "w") as nowhere:
        monkeypatch.setattr("sys.stdout", nowhere)  # as a script does that silences a library
        monkeypatch.setattr("sys.__stdout__", real)
        simulations.report(step=1, loss=0.5)
    assert capfd.readouterr().out == '{"step": 1, "loss": 0.5}\n'


def test_a_pipe_that_breaks_is_named_once_and_raises_nothing(pipe: Pipe, capsys: pytest.CaptureFixture) -> None:
    simulations.report(step=1, loss=1.0)
    descriptor = _reporting._channel._descriptor
    assert descriptor is not None
    os.close(descriptor)
    _reporting._channel._descriptor = os.open(os.devnull, os.O_RDONLY)  # a write there fails
    simulations.report(step=2, loss=1.0)
    simulations.report(step=3, loss=1.0)
    os.close(_reporting._channel._descriptor)
    assert capsys.readouterr().err.count("metrics are not reported: OSError") == 1


def test_a_forked_process_reports_through_the_same_pipe(pipe: Pipe) -> None:
    simulations.report(step=1, parent=1.0)
    child = os.fork()
    if child == 0:
        simulations.report(step=2, child=1.0)
        os._exit(0)
    os.waitpid(child, 0)
    assert pipe.lines() == [{"step": 1, "parent": 1.0}, {"step": 2, "child": 1.0}]


@pytest.mark.parametrize(
    ("text", "found"), [('{"lr": 0.1, "net": "small"}', {"lr": 0.1, "net": "small"}), ("{", {}), ("[1]", {}), ("", {})]
)
def test_parameters_are_those_of_the_simulation(text: str, found: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_reporting.PARAMETERS_VARIABLE, text)
    assert simulations.parameters() == found
