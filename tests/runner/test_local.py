"""The local engine, with real processes and a service to report to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from launching import dead, start
from live import eventually

from runner import local, processes
from runner.base import Engine, Launch, LaunchError, Liveness
from runner.local import LocalEngine
from runner.supervisor import assignment

ATTEMPT = "QXR0ZW1wdDo3Lw=="  # with a slash, so to speak: base64 has / and + and =
Exists = Callable[[int], bool]
Until = Callable[[Callable[[], object]], None]


def launch(token: str = "token-of-this-attempt") -> Launch:
    return Launch(
        member_id=ATTEMPT, attempt_id=ATTEMPT, simulation_id="U2ltdWxhdGlvbjox", token=token, machine_key="this-host"
    )


@pytest.fixture
async def make_engine(service: Any, tmp_path: Path) -> AsyncIterator[Callable[..., LocalEngine]]:
    made: list[LocalEngine] = []

    def make(directory: Path = tmp_path, **more: Any) -> LocalEngine:
        made.append(LocalEngine(directory, service.url, host="this-host", machine_name="here", **more))
        return made[-1]

    yield make
    for engine in made:
        for attempt in await engine.members():
            await engine.end(attempt)
        engine.close()


@pytest.fixture
def engine(make_engine: Callable[..., LocalEngine]) -> LocalEngine:
    return make_engine()


async def test_a_runtime_environment_of_ray_is_refused_here(engine: LocalEngine) -> None:
    with pytest.raises(
        LaunchError, match=r"here is no node of a Ray cluster: require the label simulations/engine=ray"
    ):
        await start(engine, replace(launch(), runtime_env={"pip": ["numpy"]}))
    assert await engine.members() == []


def directory(tmp_path: Path) -> Path:
    return next((tmp_path / "attempts").iterdir())


def supervisor_of(tmp_path: Path) -> int:
    return int(json.loads((directory(tmp_path) / "supervisor.json").read_bytes())["pid"])


def sleeping(service: Any) -> None:
    """Order a child with two descendants, one in a session of its own, all of which ignore SIGTERM."""
    code = (
        "import os, signal, subprocess, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "for own in (True, False):\n"
        "    print('pid', subprocess.Popen(['sleep', '1000'], start_new_session=own).pid)\n"
        "print('pid', os.getpid()); print('{\"ready\": 1}')\ntime.sleep(1000)"
    )
    service.order["entrypoint"] = ["python", "-c", code]


def pids(service: Any) -> list[int]:
    return [int(found) for found in re.findall(r"pid (\d+)", service.log("STDOUT"))]


async def ready(service: Any) -> None:
    await asyncio.to_thread(service.wait, lambda: service.points("ready") and len(pids(service)) == 3)


def test_it_is_an_engine(engine: LocalEngine) -> None:
    checked: Engine = engine
    assert checked.name == "local"


async def test_it_discovers_this_host(engine: LocalEngine) -> None:
    (machine,) = await engine.discover()
    assert (machine.key, machine.name, machine.host) == ("this-host", "here", "this-host")
    assert 1 <= machine.cpus <= (os.cpu_count() or 1)
    assert machine.memory_gib > 0.1
    assert (machine.gpus, machine.gpu_model) == (0, None) or machine.gpu_model


async def test_gpus_are_counted_and_named_if_they_are_all_the_same(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for models, expected in ((["A100", "A100"], (2, "A100")), (["A100", "T4"], (2, None)), ([], (0, None))):
        monkeypatch.setattr(local, "_gpu_models", lambda models=models: models)
        (machine,) = await engine.discover()
        assert (machine.gpus, machine.gpu_model) == expected


async def test_an_attempt_lives_until_it_is_over_and_is_then_forgotten(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    code = (
        "import os, sys, pathlib; print(sys.executable); pathlib.Path('model').write_text('weights'); "
        "pathlib.Path(os.environ['SIMULATION_CHECKPOINT_DIR'], 'kept').touch(); "
        "pathlib.Path(os.environ['SIMULATION_OUTPUT_DIR'], 'result').touch()"
    )
    service.order["entrypoint"] = ["python", "-c", code]
    await start(engine, launch())
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    assert list(await engine.members()) == [ATTEMPT]
    await asyncio.to_thread(service.wait, lambda: service.exit)
    await dead(engine, ATTEMPT)
    assert service.log("STDOUT") == sys.executable
    assert await engine.forget(ATTEMPT)
    assert list(await engine.members()) == []
    assert await engine.probe(ATTEMPT) is Liveness.DEAD
    assert (tmp_path / "checkpoints" / "U2ltdWxhdGlvbjox" / "kept").exists()
    assert (tmp_path / "outputs" / "U2ltdWxhdGlvbjox" / "result").exists()
    assert [path.read_text() for path in (tmp_path / "work").rglob("model")] == ["weights"]
    await engine.forget(ATTEMPT)
    [simulation] = await engine.simulations()
    await engine.discard(simulation)
    assert await engine.simulations() == []
    assert list((tmp_path / "outputs").iterdir()) == []
    await engine.discard(simulation)


async def test_what_a_simulation_leaves_beside_its_directory_goes_however_deep_it_is(
    engine: LocalEngine, service: Any, tmp_path: Path
) -> None:
    code = "import os\nos.chdir('..')\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
    service.order["entrypoint"] = [sys.executable, "-c", code]
    await start(engine, launch())
    await asyncio.to_thread(service.wait, lambda: service.exit)
    await dead(engine, ATTEMPT)
    await engine.forget(ATTEMPT)
    assert list(await engine.members()) == []


async def test_discarding_removes_a_link_and_nothing_behind_it(engine: LocalEngine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "work" / "of-it").mkdir(parents=True)
    for link in (tmp_path / "checkpoints" / "of-it", tmp_path / "work" / "of-it" / "attempt"):
        link.symlink_to(elsewhere)
    assert await engine.simulations() == ["of-it"]
    await engine.discard("of-it")
    assert await engine.simulations() == []
    assert (elsewhere / "precious").exists()


async def test_only_the_owner_can_look_into_an_attempt(service: Any, engine: LocalEngine, tmp_path: Path) -> None:
    sleeping(service)
    await start(engine, launch())
    await ready(service)
    place = directory(tmp_path)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "config.json").stat().st_mode) == 0o600
    pid = supervisor_of(tmp_path)
    for name in ("cmdline", "environ"):
        assert b"token-of-this-attempt" not in Path("/proc", str(pid), name).read_bytes()
    assert os.getsid(pid) == pid
    assert "token-of-this-attempt" not in repr(launch())


async def test_after_kill_9_of_the_supervisor_dead_means_that_nothing_is_left(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    sleeping(service)
    await start(engine, launch())
    await ready(service)
    assert all(map(exists, pids(service)))
    os.kill(supervisor_of(tmp_path), signal.SIGKILL)

    async def is_found() -> bool:
        return await engine.probe(ATTEMPT) is not Liveness.ALIVE

    await eventually(is_found, "its death is found")
    assert await engine.probe(ATTEMPT) is Liveness.DEAD
    assert not any(map(exists, pids(service)))


@pytest.mark.parametrize("lost", ["config.json", "supervisor.json", "both", "the directory"])
async def test_leftovers_are_found_without_the_records_too(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists, until: Until, lost: str
) -> None:
    sleeping(service)
    await start(engine, launch())
    await ready(service)
    supervisor = supervisor_of(tmp_path)
    os.kill(supervisor, signal.SIGKILL)
    await asyncio.to_thread(until, lambda: not exists(supervisor))
    if lost == "the directory":
        shutil.rmtree(directory(tmp_path))
    else:
        for name in ("config.json", "supervisor.json") if lost == "both" else (lost,):
            (directory(tmp_path) / name).write_text('{"pid": ')  # cut off
    await engine.end(ATTEMPT)
    assert not any(map(exists, pids(service)))


async def test_ending_kills_all_of_it_and_may_be_repeated(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    sleeping(service)
    await start(engine, launch())
    await ready(service)
    supervisor = supervisor_of(tmp_path)
    assert not await engine.forget(ATTEMPT)
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    assert await engine.running([ATTEMPT, "b3RoZXI="]) == {ATTEMPT}
    await engine.end(ATTEMPT)
    assert not exists(supervisor)
    assert not any(map(exists, pids(service)))
    assert await engine.running([ATTEMPT]) == set()
    assert await engine.probe(ATTEMPT) is Liveness.DEAD
    await engine.end(ATTEMPT)


async def test_ending_or_probing_what_was_never_launched_is_no_error(engine: LocalEngine) -> None:
    await engine.end("bmV2ZXI=")
    assert await engine.probe("bmV2ZXI=") is Liveness.DEAD
    await engine.forget("bmV2ZXI=")
    assert await engine.probe("../..") is Liveness.DEAD


async def test_a_second_launch_ends_the_first(
    service: Any, engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    sleeping(service)
    await start(engine, launch())
    await ready(service)
    first = [supervisor_of(tmp_path), *pids(service)]
    service.stored.clear()
    await start(engine, launch())
    assert not any(map(exists, first))
    await ready(service)
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    assert len(service.nonces) == 2


async def test_an_engine_in_a_new_process_knows_what_the_old_one_knew(
    service: Any, make_engine: Callable[..., LocalEngine], tmp_path: Path, exists: Exists
) -> None:
    sleeping(service)
    await start(make_engine(), launch())
    await ready(service)
    second = make_engine()
    assert list(await second.members()) == [ATTEMPT]
    assert await second.probe(ATTEMPT) is Liveness.ALIVE
    await second.end(ATTEMPT)
    assert await second.probe(ATTEMPT) is Liveness.DEAD
    assert not any(map(exists, pids(service)))


async def test_a_simulation_outlives_the_engine_that_launched_it(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until, exists: Exists
) -> None:
    sleeping(service)
    code = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom runner.base import Launch\n"
        "from runner.local import LocalEngine\n"
        f"engine = LocalEngine(Path({str(tmp_path)!r}), {service.url!r}, host='h', machine_name='m')\n"
        f"asyncio.run(engine.launch([Launch({ATTEMPT!r}, {ATTEMPT!r}, 's', 'token-of-this-attempt', 'h')]))\n"
        "os.killpg(0, signal.SIGKILL)"
    )
    scheduler = await asyncio.create_subprocess_exec(sys.executable, "-c", code, start_new_session=True)
    assert await scheduler.wait() == -signal.SIGKILL
    await ready(service)
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE
    assert all(map(exists, pids(service)))


async def test_another_installation_with_the_same_attempt_is_left_alone(
    service: Any, make_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    sleeping(service)
    ours, other = make_engine(tmp_path / "ours"), make_engine(tmp_path / "other")
    await start(ours, launch())
    await ready(service)
    await other.end(ATTEMPT)
    assert await ours.probe(ATTEMPT) is Liveness.ALIVE


async def test_an_unrelated_process_with_a_recorded_pid_is_left_alone(
    engine: LocalEngine, tmp_path: Path, exists: Exists
) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    try:
        identity = processes.identify(stranger.pid)
        assert identity is not None
        place = tmp_path / "attempts" / "eA%3D%3D"
        place.mkdir()
        earlier = processes.Identity(identity.pid, identity.start_time - 1, identity.boot_id)
        before_the_boot = processes.Identity(identity.pid, identity.start_time, "another boot")
        for record in (earlier, before_the_boot):
            processes.write_identity(place / "supervisor.json", record)
            processes.write_identity(place / "child.json", record)  # as an earlier version did
            (place / "config.json").unlink(missing_ok=True)
            assignment.write(place, {"child": asdict(record)})
            assert await engine.probe("eA==") is Liveness.DEAD
            await engine.end("eA==")
            assert exists(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_new_address_reaches_running_supervisors(service: Any, engine: LocalEngine) -> None:
    sleeping(service)
    await start(engine, launch())
    await ready(service)
    service.close()
    engine.publish_address(service.open())
    beats = service.heartbeats
    await asyncio.to_thread(service.wait, lambda: service.heartbeats > beats + 1)


async def test_settings_reach_the_supervisor(
    service: Any, make_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    engine = make_engine(allowed_roots=[tmp_path / "data"], give_up_after=timedelta(minutes=1))
    service.order["workingDirectory"] = "/"
    await start(engine, launch())
    await asyncio.to_thread(service.wait, lambda: service.exit)
    assert f"not inside a directory allowed on this machine ({tmp_path / 'data'})" in service.exit["message"]
    assert assignment.read(directory(tmp_path))["give_up_seconds"] == 60


async def test_what_can_not_be_launched_is_said_in_a_sentence(
    make_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    with pytest.raises(LaunchError, match=r"The supervisor can't be started on here: .*no-python"):
        await start(make_engine(python="/no-python"), launch())
    with pytest.raises(LaunchError, match="too long"):
        await start(make_engine(), Launch("x" * 300, "x", "s", "t", "m"))


async def test_a_directory_that_can_not_be_written_is_said_in_a_sentence(service: Any, tmp_path: Path) -> None:
    engine = LocalEngine(tmp_path, service.url, host="this-host", machine_name="here")
    (tmp_path / "attempts").rmdir()
    (tmp_path / "attempts").write_text("in the way")
    with pytest.raises(LaunchError, match=r"The supervisor can't be started on here: .*Not a directory"):
        await start(engine, launch())


async def test_probes_and_launches_of_one_attempt_do_not_get_into_each_others_way(
    service: Any, engine: LocalEngine
) -> None:
    sleeping(service)
    await asyncio.gather(start(engine, launch()), *(engine.probe(ATTEMPT) for _ in range(10)))
    assert await engine.probe(ATTEMPT) is Liveness.ALIVE


async def test_the_exit_of_a_run_that_printed_nothing_is_delivered_for_its_dead_supervisor(
    service: Any, engine: LocalEngine, tmp_path: Path, until: Until
) -> None:
    service.order["entrypoint"] = ["sh", "-c", "exit 3"]
    service.misbehave = lambda name, _: (503, b"later") if name == "reportAttempt" else None
    await start(engine, launch())
    await asyncio.to_thread(until, lambda: "last" in assignment.read(directory(tmp_path)))
    os.kill(supervisor_of(tmp_path), signal.SIGKILL)
    await dead(engine, ATTEMPT)
    left = await engine.undelivered(ATTEMPT, 0)
    assert left is not None
    assert (left.number, left.exit and left.exit.exit_code, left.points, left.logs) == (1, 3, {}, [])
    assert await engine.undelivered(ATTEMPT, 1) is None
