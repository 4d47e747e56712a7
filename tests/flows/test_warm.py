"""Processes that are forked instead of started anew: all that a test can see of them is as it would be otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from live import BRISK, eventually, is_alive, kill

SHOW = """
import json, os, sys
print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), __name__,
                  sorted(map(int, os.listdir('/proc/self/fd')))[:3], os.getppid()]))
print("to stderr", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def start(program: str, directory: Path, *arguments: str) -> warm.Process:
    with (directory / "output").open("w") as output:
        return warm.start(
            ("-c", program, *arguments), environment={"PATH": os.defpath}, directory=directory, stdout=output
        )


@pytest.mark.parametrize("code", [0, 3])
def test_arguments_environment_directory_output_and_status_are_those_that_were_given(tmp_path: Path, code: int) -> None:
    given = {"PATH": os.defpath, "WORD": "ü", "LC_ALL": "C.UTF-8"}  # in another locale Python sets a variable
    ran = warm.run(("-c", SHOW, str(code), "a b"), environment=given, directory=tmp_path, timeout=60)
    cold = subprocess.run(
        [sys.executable, "-c", SHOW, str(code), "a b"], env=given, cwd=tmp_path, capture_output=True, text=True,
        start_new_session=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, cold.returncode) == (code, code)
    assert ran.stderr == cold.stderr == "to stderr\n"
    without_parent = [told.rpartition(",")[0] for told in (ran.stdout, cold.stdout)]
    assert without_parent[0] == without_parent[1]


@pytest.mark.parametrize(
    "words",
    [("-m", "cli", "up"), ("-m", "graph"), ("-m", "scheduler"), ("-m", "cli", "show", "--nonsense"), ("-m", "cli")],
    ids=" ".join,
)
def test_a_program_says_the_same_as_one_that_was_started_anew(tmp_path: Path, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "DATABASE_URL": "mysql://x", "SIMULATIONS_DATA_DIR": str(tmp_path)}
    ran = warm.run(words, environment=environment, directory=tmp_path, timeout=60)
    cold = subprocess.run(
        [sys.executable, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == cold.returncode != 0
    assert (ran.stdout, ran.stderr) == (cold.stdout, cold.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
async def test_a_signal_ends_it_and_is_its_status(tmp_path: Path, number: signal.Signals) -> None:
    process = start("import signal; print('on', flush=True); signal.pause()", tmp_path)
    await eventually(lambda: "on" in (tmp_path / "output").read_text(), "it runs")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.send_signal(number)
    assert process.wait(60) == process.poll() == process.returncode == -number
    process.kill()  # nothing is there any more


def test_its_status_is_there_again_while_the_nursery_still_holds_the_pipe_that_it_came_by() -> None:
    reading, writing = os.pipe()
    process = warm.Process(["program"], os.getpid(), reading)
    assert process.poll() is None
    os.write(writing, b"-15")
    assert [process.wait(60), process.wait(0), process.poll(), process.returncode] == [-15] * 4
    process.kill()  # sends nothing
    os.close(writing)


STARTS = """
import asyncio, sys

async def main():
    print_it = [sys.executable, "-c", "print(input())"]
    process = await asyncio.create_subprocess_exec(*print_it, stdin=-1, stdout=-1)
    print(*await process.communicate(b"handed on"), process.returncode)

asyncio.run(main())
"""


def test_it_starts_other_programs_as_they_are(tmp_path: Path) -> None:
    """Those that are no parts of the service: the process of Apprise is one."""
    ran = warm.run(("-c", STARTS), environment={"PATH": os.defpath}, directory=tmp_path, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "b'handed on\\n' None 0\n", "")


async def test_its_command_line_shows_the_program_and_kill_finds_its_parts(lend: Any) -> None:
    async with lend(**BRISK) as service:
        assert service.process is not None
        up = psutil.Process(service.process.pid)
        assert up.cmdline()[1:] == ["-m", "cli", "up"]
        assert Path(up.cmdline()[0]).resolve() == Path(sys.executable).resolve()
        for name in ("graph", "scheduler"):
            part = service.child(name)
            assert part.cmdline()[1:] == ["-P", "-m", name]
            assert part.cmdline()[0].startswith("//"), "forked: the path fills what is left of the nursery's"
            assert (part.ppid(), part.cwd()) == (up.pid, str(service.data_directory))
            assert os.getsid(part.pid) == part.pid
        before = service.child("graph")
        kill(before)
        await service.whole()
        assert service.child("graph") != before
        assert service.child("graph").cmdline()[0].startswith("//"), "forked again, from an `up` with threads"
        logged = service.log_of_start
        assert "graph ended (SIGKILL" in logged
        assert "Traceback" not in logged
        parts = [service.child("graph"), service.child("scheduler")]
        kill(up)  # the kernel ends its parts
        assert await service.ended() == -signal.SIGKILL
        await eventually(lambda: not any(map(is_alive, parts)), "its parts have ended")


async def test_a_part_is_started_anew_beside_a_thread_that_may_hold_a_lock() -> None:
    """Alone, it is forked: see the test above."""

    async def execute(*_: object, **options: Any) -> dict[str, Any]:
        return options

    given = {"env": {}, "preexec_fn": lambda: None}
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert await warm._fork(execute, sys.executable, "-m", "graph", **given) == given
    finally:
        done.set()
        thread.join()


async def test_parts_log_as_if_up_had_never_been_configured_in_them(lend: Any) -> None:
    """`up` logs warnings alone; its parts are forked from it, and log at the level that was set."""
    async with lend(**BRISK) as service:
        await eventually(lambda: '"event": "serving"' in service.log_of_start, "graph logs")
        await eventually(lambda: "leadership_won" in service.log_of_start, "and the scheduler does")
