"""The launcher, from the engine's side: one per host, replaced when it is lost or outdated, and nothing escapes it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from launching import dead, start

from runner import archive, launches, processes
from runner.base import Launch, LaunchError, Liveness
from runner.local import LocalEngine
from runner.supervisor import assignment

Exists = Callable[[int], bool]
Until = Callable[[Callable[[], object]], None]
Make = Callable[..., LocalEngine]

ATTEMPT = "QXR0ZW1wdDo3Lw=="
ESCAPE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", "import os, time; print('pid', os.getpid(), flush=True)\\n"
            "print('{\\"ready\\": 1}', flush=True); time.sleep(1000)"], {})
    os._exit(0)
time.sleep(1000)
"""


@pytest.fixture
async def make_engine(service: Any, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[LocalEngine] = []

    def make(**more: Any) -> LocalEngine:
        made.append(LocalEngine(tmp_path, service.url, host="this-host", machine_name="here", **more))
        return made[-1]

    yield make
    for engine in made:
        for attempt in await engine.members():
            await engine.end(attempt)
        engine.close()


@pytest.fixture
def engine(make_engine: Make) -> LocalEngine:
    return make_engine()


def launchers(tmp_path: Path) -> list[int]:
    """The living launchers, oldest first."""
    found = []
    for path in (tmp_path / "launchers").iterdir():
        with suppress(FileNotFoundError):  # one that has just ended
            if path.is_socket():
                found.append((path.stat().st_mtime_ns, int(path.suffix[1:])))
    pids = [pid for _, pid in sorted(found)]
    return [pid for pid in pids if (identity := processes.identify(pid)) and processes.is_alive(identity)]


def supervisor(tmp_path: Path, attempt: str = ATTEMPT) -> int:
    path = next(path for path in (tmp_path / "attempts").iterdir() if path.name == attempt.replace("=", "%3D"))
    return int(json.loads((path / "supervisor.json").read_bytes())["pid"])


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])


async def launch(engine: LocalEngine, attempt: str = ATTEMPT) -> None:
    await start(engine, given(attempt))


def given(attempt: str) -> Launch:
    return Launch(attempt, attempt, "U2ltdWxhdGlvbjox", "token-of-this-attempt", "this-host")


async def runs(service: Any, engine: LocalEngine, code: str = "") -> None:
    """Launch a child that runs for ever, and wait for its first point."""
    code = code or "import os, time; print('pid', os.getpid()); print('{\"ready\": 1}'); time.sleep(1000)"
    service.order["entrypoint"] = [sys.executable, "-c", code]
    await launch(engine)
    await asyncio.to_thread(service.wait, lambda: service.points("ready") and pids(service))


def pids(service: Any) -> list[int]:
    return [int(found) for found in re.findall(r"pid (\d+)", service.log("STDOUT"))]


# --- forking ---------------------------------------------------------------------------------------------------------


async def test_supervisors_are_forked_by_one_launcher_and_have_nothing_of_it(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    service.order["entrypoint"] = ["sleep", "1000"]
    await launch(engine)
    await launch(engine, "b3RoZXI=")
    [launcher] = launchers(tmp_path)
    for attempt in (ATTEMPT, "b3RoZXI="):
        pid = supervisor(tmp_path, attempt)
        place = tmp_path / "attempts" / attempt.replace("=", "%3D")
        # By its hello it has become what it is.
        await asyncio.to_thread(until, lambda place=place: "nonce" in assignment.read(place))
        assert (parent(pid), os.getsid(pid)) == (launcher, pid)
        assert Path(f"/proc/{pid}/comm").read_text() == "supervisor\n"
        open_files = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) <= 2}
        log = place / "supervisor.log"  # made with its first line: a busy machine may give reason for one
        assert open_files == {os.devnull, str(log if log.exists() else tmp_path / "launchers" / "launcher.log")}
    # Every epoll instance has this name: a supervisor that reads its child has one of its own. The log is kept for what
    # comes before the first line of its own.
    shared = open_files_of(launcher)
    shared -= {os.devnull, "anon_inode:[eventpoll]", str(tmp_path / "launchers" / "launcher.log")}
    assert not shared & open_files_of(supervisor(tmp_path)), "a descriptor of the launcher is open in a supervisor"
    assert os.getsid(launcher) == launcher
    assert Path(f"/proc/{launcher}/comm").read_text() == "launcher\n"


def open_files_of(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            found.add(os.readlink(path))
    return found


async def test_only_its_user_can_reach_it(service: Any, engine: LocalEngine, tmp_path: Path) -> None:
    await launch(engine)
    assert (tmp_path / "launchers").stat().st_mode & 0o777 == 0o700


async def test_a_data_directory_with_a_long_name_has_a_launcher_too(service: Any, tmp_path: Path) -> None:
    place = tmp_path / ("long" * 30)
    place.mkdir()
    engine = LocalEngine(place, service.url, host="this-host", machine_name="here")
    again = LocalEngine(place, service.url, host="this-host", machine_name="here")
    service.order["entrypoint"] = ["sleep", "1000"]
    try:
        await launch(engine)
        await launch(again, "b3RoZXI=")
        assert len(launchers(place)) == 1
    finally:
        for attempt in await engine.members():
            await engine.end(attempt)
        engine.close()
        again.close()


async def test_the_environment_is_that_of_the_launch_and_not_of_the_launcher(
    service: Any, make_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    engine = make_engine()
    await runs(service, engine)
    monkeypatch.setenv("TZ", "Europe/Paris")
    service.stored.clear()
    service.order["entrypoint"] = ["sh", "-c", "echo $TZ"]
    await launch(engine, ATTEMPT)
    await asyncio.to_thread(service.wait, lambda: service.exit)
    assert service.log("STDOUT") == "Europe/Paris"


async def test_how_a_supervisor_ended_is_noted_once_nothing_is_left(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    service.order["entrypoint"] = ["true"]
    await launch(engine)
    await dead(engine, ATTEMPT)
    [gone] = (tmp_path / "attempts").glob("*/gone")  # it is there a moment before it is written
    await asyncio.to_thread(until, lambda: gone.read_text() == "exit 0\n")
    service.stored.clear()
    await runs(service, engine)
    assert not gone.exists()
    os.kill(supervisor(tmp_path), signal.SIGKILL)
    await dead(engine, ATTEMPT)
    await asyncio.to_thread(until, lambda: gone.read_text() == "signal 9\n")


async def test_what_can_not_be_launched_is_said_and_leaves_nothing(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    await runs(service, engine)
    inner = engine._launches  # what the engine prepares can't be missing
    [failure] = await asyncio.to_thread(inner.launch, [(tmp_path / "nowhere", {})])
    assert isinstance(failure, launches.LaunchRefused)
    assert "No such file or directory" in str(failure)
    [launcher] = launchers(tmp_path)
    await asyncio.to_thread(until, lambda: _children(launcher) == [supervisor(tmp_path)])


async def test_launches_that_are_asked_for_together_share_a_message_and_fail_alone(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runs(service, engine)
    [launcher] = launchers(tmp_path)
    sent: list[str] = []
    ask, prepare = launches._ask, LocalEngine._prepare

    def counted(connected: Any, request: str) -> Any:
        sent.append(request)
        return ask(connected, request)

    def stumble(engine: LocalEngine, directory: Path, launch: Launch) -> None:
        if launch.member_id == "ZGVmZWN0":
            raise RuntimeError("a defect")
        prepare(engine, directory, launch)
        if launch.member_id == "bm93aGVyZQ==":
            shutil.rmtree(directory)

    monkeypatch.setattr(launches, "_ask", counted)
    monkeypatch.setattr(LocalEngine, "_prepare", stumble)
    names = ["b25l", "ZGVmZWN0", "dHdv", "bm93aGVyZQ==", "x" * 300, "dGhyZWU="]
    failures = dict(zip(names, await engine.launch([given(each) for each in names]), strict=True))
    assert {type(failures.pop(name)) for name in ("bm93aGVyZQ==", "x" * 300)} == {LaunchError}
    assert str(failures.pop("ZGVmZWN0")) == "a defect"
    assert list(failures.values()) == [None] * 3
    assert len([each for each in sent if "launch" in json.loads(each)]) == 1
    recorded = {supervisor(tmp_path, name) for name in failures}
    assert len(recorded) == 3
    # The one that could not be recorded is gone, and never said hello.
    await asyncio.to_thread(until, lambda: set(_children(launcher)) == recorded | {supervisor(tmp_path)})


async def test_the_first_of_many_launches_waits_for_few_directories(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def launched(wanted: list[Any]) -> list[None]:
        seen.append((len(wanted), len(list((tmp_path / "attempts").iterdir()))))
        return [None] * len(wanted)

    monkeypatch.setattr(engine._launches, "launch", launched)
    assert await engine.launch([given(str(number)) for number in range(20)]) == [None] * 20
    assert seen == [(8, 8), (8, 16), (4, 20)]


async def test_launches_whose_launcher_is_lost_are_all_tried_again(
    service: Any, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.order["entrypoint"] = ["sleep", "1000"]
    kill_after, ask = [1, 1], launches._ask

    def ask_and_kill(connected: Any, request: str) -> Any:
        reply = ask(connected, request)
        if "launch" in json.loads(request) and kill_after:
            kill_after.pop()
            raise ConnectionResetError("it was killed, once it had launched all of them")
        return reply

    monkeypatch.setattr(launches, "_ask", ask_and_kill)
    names = ["b25l", "dHdv"]
    assert await engine.launch([given(each) for each in names]) == [None, None]
    assert not kill_after
    assert await engine.running(names) == set(names)
    assert len({supervisor(tmp_path, name) for name in names}) == 2
    await asyncio.gather(*(engine.end(name) for name in names))


@pytest.mark.parametrize(("length", "messages"), [(10, [8, 8, 4]), (30_000, [2] * 10)])
def test_a_message_has_room_for_some_launches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, messages: list[int]
) -> None:
    engine = launches.Launches(tmp_path / "launchers", tmp_path / "archives", sys.executable, {})
    sent: list[int] = []

    def answer(request: str) -> Any:
        wanted = json.loads(request)["launch"]
        sent.append(len(wanted))
        return {"launched": [{"pid": 1} for _ in wanted]}

    monkeypatch.setattr(engine, "_ask_current", answer)
    assert engine.launch([(tmp_path, {"NAME": "x" * length})] * 20) == [None] * 20
    assert sent == messages


def test_launches_that_were_sent_together_are_lost_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = launches.Launches(tmp_path / "launchers", tmp_path / "archives", sys.executable, {})

    def lose(_request: str) -> Any:
        raise launches.LauncherLost("it was killed")

    monkeypatch.setattr(engine, "_ask_current", lose)
    failures = engine.launch([(tmp_path, {})] * 2)
    assert [type(each) for each in failures] == [launches.LauncherLost] * 2
    assert {str(each) for each in failures} == {"it was killed"}


def _children(of: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it ended in this moment
            found += [int(name)] if parent(int(name)) == of else []
    return found


# --- descendants -----------------------------------------------------------------------------------------------------


async def test_after_kill_9_of_the_supervisor_no_descendant_escapes(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    await runs(service, engine, ESCAPE)
    [escaped] = pids(service)
    assert not Path(f"/proc/{escaped}/environ").read_bytes()
    os.kill(supervisor(tmp_path), signal.SIGKILL)
    await dead(engine, ATTEMPT)
    assert not exists(escaped)


async def test_ending_an_attempt_reaches_every_descendant(service: Any, engine: LocalEngine, exists: Exists) -> None:
    await runs(service, engine, ESCAPE)
    await engine.end(ATTEMPT)
    assert not any(map(exists, pids(service)))


async def test_what_another_attempt_hides_is_left_alone(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    await runs(service, engine, ESCAPE)
    [escaped] = pids(service)
    service.order["entrypoint"] = ["sleep", "1000"]
    await launch(engine, "b3RoZXI=")
    os.kill(supervisor(tmp_path, "b3RoZXI="), signal.SIGKILL)
    await dead(engine, "b3RoZXI=")
    assert exists(escaped)
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE


# --- lost, hung, outdated --------------------------------------------------------------------------------------------


async def test_kill_9_of_the_launcher_ends_no_simulation_and_the_next_launch_has_another(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    await runs(service, engine)
    [first] = launchers(tmp_path)
    os.kill(first, signal.SIGKILL)
    beats = service.heartbeats
    await asyncio.to_thread(service.wait, lambda: service.heartbeats > beats + 1)
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    await launch(engine, "b3RoZXI=")
    [second] = launchers(tmp_path)
    assert parent(supervisor(tmp_path, "b3RoZXI=")) == second != first
    await engine.end(ATTEMPT)
    assert not any(map(exists, pids(service)))


async def test_with_launcher_and_supervisor_killed_what_carries_the_mark_is_still_found(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    code = "import subprocess; print('pid', subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)\n"
    await runs(service, engine, f"{code}print('{{\"ready\": 1}}', flush=True)\nimport time; time.sleep(1000)")
    os.kill(launchers(tmp_path)[0], signal.SIGKILL)
    os.kill(supervisor(tmp_path), signal.SIGKILL)
    await dead(engine, ATTEMPT)
    assert not any(map(exists, pids(service)))


async def test_a_launcher_that_hangs_is_replaced(
    service: Any, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: Exists
) -> None:
    service.order["entrypoint"] = ["sleep", "1000"]
    await launch(engine)
    [first] = launchers(tmp_path)
    monkeypatch.setattr(launches, "ANSWER_SECONDS", 1.0)
    os.kill(first, signal.SIGSTOP)
    await launch(engine, "b3RoZXI=")
    assert not exists(first)
    assert await engine.probe("b3RoZXI=") is Liveness.ALIVE
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    os.kill(supervisor(tmp_path), signal.SIGKILL)
    await dead(engine, ATTEMPT)


async def test_a_launcher_that_hangs_keeps_no_attempt_from_being_found_dead(
    service: Any, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: Exists
) -> None:
    await runs(service, engine)
    monkeypatch.setattr(launches, "ANSWER_SECONDS", 1.0)
    os.kill(launchers(tmp_path)[0], signal.SIGSTOP)
    os.kill(supervisor(tmp_path), signal.SIGKILL)
    await dead(engine, ATTEMPT)
    assert launchers(tmp_path) == []
    assert not any(map(exists, pids(service)))


async def test_without_a_launcher_a_supervisor_is_started_all_the_same(
    service: Any, make_engine: Make, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *--launcher*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    engine = make_engine(python=str(python))
    await runs(service, engine)
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    await engine.end(ATTEMPT)
    assert await engine.probe(ATTEMPT) is Liveness.DEAD


async def test_a_launcher_of_another_archive_is_replaced_and_its_supervisors_go_on(
    service: Any, make_engine: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until, exists: Exists
) -> None:
    old = make_engine()
    await runs(service, old)
    [first] = launchers(tmp_path)
    old.close()
    monkeypatch.setattr(archive, "sources", lambda sources=archive.sources: {**sources(), "runner/newer.py": b""})
    new = make_engine()
    await launch(new, "b3RoZXI=")
    assert launchers(tmp_path)[0] == first
    assert parent(supervisor(tmp_path, "b3RoZXI=")) == launchers(tmp_path)[1]
    assert await new.probe(ATTEMPT) is Liveness.ALIVE
    os.kill(supervisor(tmp_path), signal.SIGKILL)
    await dead(new, ATTEMPT)
    assert not any(map(exists, pids(service)))
    await asyncio.to_thread(until, lambda: first not in launchers(tmp_path))


async def test_a_launcher_that_is_told_to_end_launches_no_more_and_ends_with_its_supervisors(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    await runs(service, engine)
    [first] = launchers(tmp_path)
    os.kill(first, signal.SIGTERM)
    await launch(engine, "b3RoZXI=")
    assert len(launchers(tmp_path)) == 2
    assert parent(supervisor(tmp_path, "b3RoZXI=")) != first
    await engine.end(ATTEMPT)
    await asyncio.to_thread(until, lambda: first not in launchers(tmp_path))


async def test_it_outlives_its_engine_while_supervisors_run_and_is_found_by_the_next(
    service: Any, make_engine: Make, tmp_path: Path, until: Until
) -> None:
    first = make_engine()
    await runs(service, first)
    first.close()
    second = make_engine()
    await launch(second, "b3RoZXI=")
    assert len(launchers(tmp_path)) == 1
    await second.end(ATTEMPT)
    await second.end("b3RoZXI=")
    assert len(launchers(tmp_path)) == 1
    second.close()
    await asyncio.to_thread(until, lambda: not launchers(tmp_path))


async def test_a_launcher_that_ended_after_its_engine_is_reaped_by_the_next(
    service: Any, make_engine: Make, tmp_path: Path, until: Until
) -> None:
    first = make_engine()
    await runs(service, first)
    [launcher] = launchers(tmp_path)
    first.close()
    second = make_engine()
    await second.end(ATTEMPT)
    second.close()

    def is_reaped() -> bool:
        make_engine().close()
        return not Path(f"/proc/{launcher}").exists()

    await asyncio.to_thread(until, is_reaped)


async def test_a_launcher_that_can_not_be_started_is_said_in_a_sentence(make_engine: Make) -> None:
    with pytest.raises(LaunchError, match=r"The supervisor can't be started on here: .*no-python"):
        await launch(make_engine(python="/no-python"))


async def test_a_short_attempt_makes_few_files(service: Any, engine: LocalEngine, tmp_path: Path, until: Until) -> None:
    """Each new file costs ext4 a look at all inodes that were freed within the last minute."""
    service.order["entrypoint"] = ["true"]
    await launch(engine)
    place = tmp_path / "attempts" / ATTEMPT.replace("=", "%3D")
    await asyncio.to_thread(until, (place / "gone").exists)
    made = {path.name for path in place.iterdir()} - {"supervisor.log"}  # of a complaint, on a busy machine
    assert made == {"config.json", "gone", "work"}
    assert stat.S_IMODE((place / "config.json").stat().st_mode) == 0o600
    assert assignment.read(place).keys() >= {"token", "nonce", "child"}


def test_the_launcher_imports_nothing_that_only_few_supervisors_use() -> None:
    """Each page of it costs each fork: these libraries were a quarter of the launcher's memory."""
    imported = "import sys; sys.path.insert(0, sys.argv[1]); import runner.supervisor.launcher; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", imported, str(archive.ROOM.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"runner.supervisor.files.store", "runner.supervisor.sources.server"} <= set(run.stdout.split())
    late = {"http.client", "http.server", "email", "ssl", "hashlib", "_hashlib", "tarfile", "gzip", "traceback"}
    assert not late & set(run.stdout.split())


async def test_what_a_supervisor_complains_of_is_in_a_log_of_its_own(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    service.order["entrypoint"] = ["true"]
    service.misbehave = lambda name, _: (503, b"later") if name == "helloAttempt" else None
    await launch(engine)
    log = tmp_path / "attempts" / ATTEMPT.replace("=", "%3D") / "supervisor.log"
    await asyncio.to_thread(until, log.exists)
    await asyncio.to_thread(until, lambda: "the service can't be reached" in log.read_text())
    service.misbehave = lambda *_: None
    await asyncio.to_thread(service.wait, lambda: service.exit)
