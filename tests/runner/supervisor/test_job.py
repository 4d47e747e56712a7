"""The supervisor as a job: its directory, the guard, and what is left of both, as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner import archive
from runner.supervisor.job import LAUNCH_VARIABLE
from runner.supervisor.run import NOT_REPORTED, REPORTED

ATTEMPT = "QXR0ZW1wdDo3Lw=="  # that of `service`
PATIENCE_SECONDS = 60
Until = Callable[[Callable[[], object]], None]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(service: Any, tmp_path: Path) -> Iterator[Start]:
    """Start a job as a cluster does: in a session of its own, with the launch in its environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str, environment: Mapping[str, str] | None = None, **more: object) -> subprocess.Popen[bytes]:
        service.order["entrypoint"] = ["python", "-c", code]
        launch = {
            "installation": "i", "member": "m", "simulation": "s", "attempt_id": ATTEMPT, "simulation_id": "s",
            "token": "token-of-this-attempt", "address": service.url, "rank": 0, "world_size": 1, "gpus": 0,
            "directory": str(tmp_path), "allowed_roots": [], "give_up_seconds": 60, **more,
        }  # fmt: skip
        program = archive.install(tmp_path / "supervisors")
        started.append(
            subprocess.Popen(
                [sys.executable, "-I", "-S", str(program), "--job"],
                env={**os.environ, LAUNCH_VARIABLE: json.dumps(launch), **(environment or {})},
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            for process in (*psutil.Process(each.pid).children(recursive=True), each):
                process.kill()
        assert each.stderr is not None
        each.stderr.close()
        each.wait()


def place(tmp_path: Path) -> Path:
    return tmp_path / f"simulations-{os.getuid()}" / "i"


def test_a_job_that_reported_leaves_what_the_simulation_wrote_and_nothing_else(
    service: Any, start: Start, tmp_path: Path
) -> None:
    code = (
        "import os, pathlib; pathlib.Path('model').write_text('weights'); "
        "pathlib.Path(os.environ['SIMULATION_CHECKPOINT_DIR'], 'kept').touch(); "
        "pathlib.Path(os.environ['SIMULATION_OUTPUT_DIR'], 'result').touch()"
    )
    assert start(code).wait(PATIENCE_SECONDS) == REPORTED
    assert service.exit["exitCode"] == 0
    assert list((place(tmp_path) / "attempts").iterdir()) == []
    left = {path.relative_to(place(tmp_path)).as_posix() for path in place(tmp_path).rglob("*") if path.is_file()}
    assert left == {"work/s/m/model", "checkpoints/s/kept", "outputs/s/result"}
    assert place(tmp_path).parent.stat().st_mode & 0o077 == 0


def test_the_guard_kills_what_a_killed_supervisor_leaves(
    service: Any, start: Start, exists: Callable[[int], bool]
) -> None:
    job = start(
        "import os, signal, subprocess, time; signal.signal(15, signal.SIG_IGN)\n"
        "print(os.getppid(), os.getpid(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)\n"
        "time.sleep(1000)"
    )
    service.wait(lambda: len(service.log("STDOUT").split()) == 3)
    supervisor, *others = map(int, service.log("STDOUT").split())
    assert supervisor != job.pid
    os.kill(supervisor, signal.SIGKILL)
    assert job.wait(PATIENCE_SECONDS) == NOT_REPORTED
    assert not any(map(exists, others))


def test_the_supervisor_survives_the_end_of_the_jobs_process_group(service: Any, start: Start, until: Until) -> None:
    """Ray kills the group of a job whose own supervisor actor has died, which proves nothing about the simulation."""
    code = "import os, time\nprint('group', os.getppid(), os.getcwd())\n"
    job = start(code + "while not os.path.exists('go'): time.sleep(0.01)")
    service.wait(lambda: "group" in service.log("STDOUT"))
    _, pid, directory = service.log("STDOUT").split()
    supervisor = psutil.Process(int(pid))
    os.killpg(job.pid, signal.SIGKILL)
    assert job.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    beats = service.heartbeats
    service.wait(lambda: service.heartbeats > beats + 1)
    (Path(directory) / "go").touch()
    service.wait(lambda: service.exit)
    assert service.exit["exitCode"] == 0
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)


def test_sigterm_ends_the_simulation_without_an_exit_of_its_own(service: Any, start: Start) -> None:
    job = start("import time\nprint('begun')\ntime.sleep(1000)")
    service.wait(lambda: "begun" in service.log("STDOUT"))
    for process in (*psutil.Process(job.pid).children(recursive=True)[:1], job):  # as Ray: all at once
        process.send_signal(signal.SIGTERM)
    assert job.wait(PATIENCE_SECONDS) == NOT_REPORTED
    assert service.exit is None
    assert "the machine is going down" in service.log("SUPERVISOR")


@pytest.mark.parametrize(
    ("gpus", "devices", "seen"),
    [(2, "3,5", "3,5"), (1, "GPU-8f6d9a3c", "GPU-8f6d9a3c"), (0, "0,1,2,3", ""), (1, None, "")],
)
def test_the_gpus_are_those_that_the_cluster_assigned(
    service: Any, start: Start, gpus: int, devices: str | None, seen: str
) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": devices} if devices is not None else {}
    job = start("import os; print('devices', repr(os.environ['CUDA_VISIBLE_DEVICES']))", environment, gpus=gpus)
    assert job.wait(PATIENCE_SECONDS) == REPORTED
    assert f"devices {seen!r}" in service.log("STDOUT")


def test_a_directory_that_other_users_can_enter_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / f"simulations-{os.getuid()}").mkdir(mode=0o755)
    job = start("print('never')")
    assert job.wait(PATIENCE_SECONDS) == 1
    assert job.stderr is not None
    assert b"is not this user's own directory" in job.stderr.read()


def test_the_launch_is_in_no_environment_below_the_job(service: Any, start: Start) -> None:
    start("import os; print(sorted(os.environ))", {"RAY_AUTH_TOKEN_PATH": "/secret"}).wait(PATIENCE_SECONDS)
    assert LAUNCH_VARIABLE not in service.log("STDOUT")
    assert "RAY_" not in service.log("STDOUT")
