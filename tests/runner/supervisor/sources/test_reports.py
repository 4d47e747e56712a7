"""The named pipe of reports: JSON lines of any program, and of the package `simulations`, beside printed lines."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.sources.reports import Reports

CLIENT = {"PYTHONPATH": str(Path(__file__).parents[4] / "client")}


@pytest.fixture
def reports(taken: Any, tmp_path: Path) -> Reports:
    return Reports(tmp_path / "report", taken.curve, taken.spool, taken.notices)


def write(reports: Reports, text: str) -> None:
    Path(reports.variables["SIMULATION_REPORT"]).write_text(text)


def test_lines_become_points_and_what_is_no_point_a_notice(taken: Any, reports: Reports) -> None:
    write(reports, '{"step": 3, "loss": 0.5}\n{"loss": 0.25, "inner": {"x": NaN}}\n{"step": 4, "loss": 1}\nno\n{"a":')
    assert reports.read(1.0)
    assert not reports.read(1.0)
    write(reports, ' 1}\n{"step": -1, "b": 1}\n{"c": "text"}\n')
    reports.close(2.0)
    assert taken.points("loss") == [(3, 0.5), (4, 0.25)]
    assert taken.points("inner/x") == [(4, "NaN")]
    assert taken.points("a") == [(5, 1.0)]
    assert taken.counts == {"NOT_RISING": 1, "NEARLY_JSON": 1, "STEP_UNUSABLE": 1, "VALUES_UNUSABLE": 1}
    assert not os.path.exists(reports.variables["SIMULATION_REPORT"])


def test_a_report_replaces_printed_lines_of_the_same_metric_without_a_notice(service: Any, supervise: Any) -> None:
    code = """
import os, time
def report(line):
    with open(os.environ["SIMULATION_REPORT"], "w") as pipe: pipe.write(line + "\\n")
print('{"step": 1, "loss": 1.0, "other": 1.0}', flush=True)
time.sleep(0.3)
report('{"step": 1, "loss": 1.0}'); report('{"step": 2, "loss": 2.0}')
time.sleep(0.3)
print('{"step": 2, "loss": 2.0, "other": 2.0}', flush=True)
"""
    assert supervise(code).wait() == 0
    assert service.points("loss") == service.points("other") == [(1, 1.0), (2, 2.0)]
    assert service.notices == {}


def test_reports_arrive_wherever_standard_output_goes(service: Any, supervise: Any, tmp_path: Path) -> None:
    code = """
import contextlib, io, os, simulations, subprocess, sys
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
for step in range(1000): simulations.report(step=step, loss=1 / (step + 1))
with contextlib.redirect_stdout(io.StringIO()): simulations.report(step=1000, loss=0.0)
child = "import simulations; simulations.report(step=1, child=simulations.parameters()['lr'])"
subprocess.run([sys.executable, "-c", child], capture_output=True, close_fds=True, check=True)
higher = "import simulations; simulations.report(step=2, child=1)"
subprocess.run([sys.executable, "-c", higher], env={**os.environ, "RANK": "1"}, check=True)
"""
    parameters = {"SIMULATION_PARAMETERS": '{"lr": 0.1}'}
    assert supervise(code, environment={**CLIENT, **parameters}, metricsFrom="NONE").wait() == 0
    assert service.points("loss") == [*((step, 1 / (step + 1)) for step in range(1000)), (1000, 0.0)], service.logs
    assert service.points("child") == [(1, 0.1)]
    assert not list(tmp_path.glob("**/report")), "the pipe is removed"


def test_a_script_on_python_3_9_reports(service: Any, supervise: Any) -> None:
    place = Path(__file__).parents[1] / "test_python_3_9.py"
    spec = importlib.util.spec_from_file_location("python_3_9", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    python = module.find_python()
    if python is None:
        pytest.skip("no Python 3.9 here")
    code = "import simulations; simulations.report(step=1, loss=0.5); simulations.report(loss=0.25)"
    assert supervise(entrypoint=[python, "-c", code], environment=CLIENT).wait() == 0
    assert service.points("loss") == [(1, 0.5), (2, 0.25)], service.logs
