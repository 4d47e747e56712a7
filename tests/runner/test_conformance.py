"""What every engine does alike, of this host and of a real Ray cluster: real processes, and a service to report to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from launching import start
from live import eventually

from runner.base import Engine, Launch, Liveness
from runner.local import LocalEngine
from runner.ray import RayEngine

pytestmark = pytest.mark.timeout(900)  # the first test that asks also starts the cluster
ATTEMPT = "QXR0ZW1wdDo3Lw=="  # that of `service`
SIMULATION = "U2ltdWxhdGlvbjox"
TOKEN = "token-of-this-attempt"
PATIENCE_SECONDS = 120  # a job of Ray starts a Python worker first
# A child with two descendants, one in a session of its own, all of which ignore SIGTERM.
STUBBORN = (
    "import os, signal, subprocess, time\nsignal.signal(15, signal.SIG_IGN)\n"
    "for own in (True, False):\n"
    "    print('pid', subprocess.Popen(['sleep', '1000'], start_new_session=own).pid)\n"
    "print('pid', os.getpid()); print('supervisor', os.getppid()); print('{\"ready\": 1}')\ntime.sleep(1000)"
)


@dataclass
class Trial:
    """An engine under test: how another process would make it again, and where its members may run."""

    make: Callable[[], Engine]
    engine: Engine
    closed: Callable[[Engine], Awaitable[None]]
    keys: list[str] = field(default_factory=list)
    others: list[Engine] = field(default_factory=list)

    def again(self) -> Engine:
        """Another engine object on the same machines, as after a restart of the scheduler."""
        self.others.append(self.make())
        return self.others[-1]

    def launch(self, member: str = ATTEMPT, *, key: str | None = None, **more: Any) -> Launch:
        given: dict[str, Any] = {
            "simulation_id": SIMULATION, "cpus": 0.1, "memory_gib": 0.1, "token": TOKEN, **more
        }  # fmt: skip
        return Launch(member_id=member, attempt_id=ATTEMPT, machine_key=key or self.keys[0], **given)

    async def reaches(self, member: str, liveness: Liveness) -> None:
        async def is_so() -> bool:
            return await self.engine.probe(member) is liveness

        await eventually(is_so, f"the member is {liveness}", PATIENCE_SECONDS)

    async def is_forgotten(self) -> bool:
        """Whether nothing is left, after one more attempt to forget it: Ray needs some seconds."""
        assert await self.engine.forget(ATTEMPT)
        return ATTEMPT not in await self.engine.members()

    async def end(self) -> None:
        """Leave nothing: a late end of a job may be noted after it was forgotten."""
        for member in await self.engine.members():
            await self.engine.end(member)
        for each in (self.engine, *self.others):
            await self.closed(each)


async def _close_local(engine: Any) -> None:
    engine.close()


async def _close_ray(engine: Any) -> None:
    await engine.close()


@pytest.fixture(params=["local", "ray"])
async def trial(request: pytest.FixtureRequest, service: Any, tmp_path: Path) -> AsyncIterator[Trial]:
    make: Callable[[], Engine]
    if request.param == "local":

        def make() -> Engine:
            return LocalEngine(tmp_path, service.url, host="this-host", machine_name="here")

        made = Trial(make, make(), _close_local)
    else:
        cluster, installation = request.getfixturevalue("ray_cluster"), secrets.token_hex(5)

        def make() -> Engine:
            return RayEngine(
                "test", cluster.url, service.url,
                installation=installation, token=cluster.token, directory=str(tmp_path),
            )  # fmt: skip

        made = Trial(make, make(), _close_ray)
    made.keys = [each.key for each in await made.engine.discover()]
    yield made
    await made.end()


def order(service: Any, code: str) -> None:
    service.order["entrypoint"] = ["python", "-c", code]


async def told(service: Any, condition: Callable[[], object]) -> None:
    await asyncio.to_thread(service.wait, condition)


async def ready(service: Any) -> list[int]:
    """Wait for a `STUBBORN` child; the pids of its three processes."""
    await told(service, lambda: service.points("ready") and service.log("STDOUT").count("pid ") >= 3)
    return [int(found) for found in re.findall(r"pid (\d+)", service.log("STDOUT"))]


async def test_machines_have_keys_of_their_own_that_stay(trial: Trial) -> None:
    found = await trial.engine.discover()
    assert found
    assert len({each.key for each in found}) == len({each.name for each in found}) == len(found)
    assert all(each.cpus > 0 and each.memory_gib > 0.1 for each in found)
    assert [each.key for each in await trial.again().discover()] == [each.key for each in found]


async def test_a_member_that_was_never_launched_is_not_alive_and_ends_at_once(trial: Trial) -> None:
    assert await trial.engine.probe("eA==") is not Liveness.ALIVE
    await trial.engine.end("eA==")
    await trial.engine.forget("eA==")
    assert list(await trial.engine.members()) == []


async def test_a_member_lives_until_it_is_over_and_is_then_forgotten(service: Any, trial: Trial) -> None:
    code = "import os, json; print('{\"loss\": 0.5}'); print('environment', json.dumps(dict(os.environ)))"
    order(service, code)
    await start(trial.engine, trial.launch())
    assert await trial.engine.probe(ATTEMPT) is Liveness.ALIVE
    assert await trial.engine.running([ATTEMPT, "another"]) == {ATTEMPT}
    assert not await trial.engine.forget(ATTEMPT)
    assert list(await trial.engine.members()) == [ATTEMPT]
    await told(service, lambda: service.exit)
    await trial.reaches(ATTEMPT, Liveness.DEAD)
    assert service.exit["exitCode"] == 0
    assert service.points("loss") == [(0, 0.5)]
    assert await trial.again().probe(ATTEMPT) is Liveness.DEAD
    assert list(await trial.engine.members()) == [ATTEMPT]
    await eventually(trial.is_forgotten, "it is forgotten")
    assert await trial.engine.forget(ATTEMPT)
    assert await trial.engine.running([ATTEMPT]) == set()

    # The token is for the supervisor alone, and the credentials of a cluster for none of ours.
    [line] = [each for each in service.log("STDOUT").splitlines() if each.startswith("environment ")]
    environment = json.loads(line.removeprefix("environment "))
    assert TOKEN not in line
    assert not [name for name in environment if name.startswith(("RAY_", "SIMULATIONS_"))]
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


async def test_the_end_of_a_member_is_that_of_all_its_processes(
    service: Any, trial: Trial, exists: Callable[[int], bool]
) -> None:
    order(service, STUBBORN)
    await start(trial.engine, trial.launch())
    pids = await ready(service)
    assert await trial.engine.probe(ATTEMPT) is Liveness.ALIVE
    assert all(map(exists, pids))
    await trial.engine.end(ATTEMPT)
    await eventually(lambda: not any(map(exists, pids)), "they are gone")
    await trial.reaches(ATTEMPT, Liveness.DEAD)
    await trial.engine.end(ATTEMPT)
    assert service.exit is None


async def test_another_engine_object_finds_what_runs(service: Any, trial: Trial) -> None:
    order(service, STUBBORN)
    await start(trial.engine, trial.launch())
    await ready(service)
    other = trial.again()
    assert list(await other.members()) == [ATTEMPT]
    assert await other.probe(ATTEMPT) is Liveness.ALIVE
    await other.end(ATTEMPT)
    assert await other.probe(ATTEMPT) is Liveness.DEAD


async def test_a_killed_supervisor_leaves_no_process(service: Any, trial: Trial, exists: Callable[[int], bool]) -> None:
    order(service, STUBBORN)
    await start(trial.engine, trial.launch())
    pids = await ready(service)
    [supervisor] = re.findall(r"supervisor (\d+)", service.log("STDOUT"))
    os.kill(int(supervisor), signal.SIGKILL)
    await trial.reaches(ATTEMPT, Liveness.DEAD)
    assert not any(map(exists, pids))


async def test_a_second_launch_takes_the_place_of_the_first(
    service: Any, trial: Trial, exists: Callable[[int], bool], tmp_path: Path
) -> None:
    order(service, STUBBORN)
    await start(trial.engine, trial.launch())
    first = await ready(service)
    order(service, f"open({str(tmp_path / 'second')!r}, 'w')")
    await start(trial.again(), trial.launch())
    await eventually((tmp_path / "second").exists, "the second one runs", PATIENCE_SECONDS)
    assert not any(map(exists, first))
    assert len(service.nonces) == 2
    assert list(await trial.engine.members()) == [ATTEMPT]


async def test_members_of_one_attempt_live_and_end_each_for_itself(
    service: Any, trial: Trial, exists: Callable[[int], bool]
) -> None:
    order(service, STUBBORN)
    keys = (trial.keys * 2)[:2]
    launches = [trial.launch(member, key=key) for member, key in zip((ATTEMPT, "second"), keys, strict=True)]
    assert list(await trial.engine.launch(launches)) == [None, None]
    await told(service, lambda: len(service.nonces) == 2)
    assert sorted(await trial.engine.members()) == sorted([ATTEMPT, "second"])
    await trial.engine.end("second")
    assert await trial.engine.probe("second") is Liveness.DEAD
    assert await trial.engine.probe(ATTEMPT) is Liveness.ALIVE


async def test_a_member_begins_with_a_copy_of_another_simulations_checkpoint(
    service: Any, trial: Trial, tmp_path: Path
) -> None:
    adds = "import os, pathlib\nkept = pathlib.Path(os.environ['SIMULATION_CHECKPOINT_DIR'], 'steps')\n"
    adds += "with kept.open('a') as file: file.write('.')\npathlib.Path({!r}).write_text(kept.read_text())"
    for member, steps, of in (
        (ATTEMPT, ".", {}),
        ("copy", "..", {"simulation_id": "U2ltdWxhdGlvbjoy", "checkpoint_of": SIMULATION}),
        ("original", "..", {}),  # is as it was
    ):
        order(service, adds.format(str(tmp_path / member)))
        await start(trial.engine, trial.launch(member, **of))
        await eventually((tmp_path / member).exists, f"{member} runs", PATIENCE_SECONDS)
        await trial.reaches(member, Liveness.DEAD)
        assert (tmp_path / member).read_text() == steps
        service.stored.clear()  # the next one counts its batches from one, too
