"""What the Ray engine asks, and how it judges the answers of clusters that misbehave or are older.

A recording server stands in for Ray where a real one can't be made to answer so; what a real one does is tested by
test_conformance.py and tests/flows/test_ray.py.
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from launching import start
from ray_head import Answer, Head, job, node, serving

from runner import ray
from runner.base import EngineUnavailable, Launch, LaunchError, Liveness, MachineGone, StartingEngine
from runner.ray import GIB, RENEW_SECONDS, Kind, RayEngine

BIG = Kind(8.0, 32.0, 2, "T4", {"zone": "b"}, 3)
MEMBER = "QXR0ZW1wdDo3"
NAME = "sim-0123456789-kfmfemc2k4yxozcen4zq"


@pytest.fixture
def head() -> Iterator[Head]:
    with serving() as head:
        yield head


@pytest.fixture
async def make(head: Head, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., RayEngine]]:
    monkeypatch.setattr(ray, "LISTING_SECONDS", 0.0)  # the head's state is changed between two calls
    monkeypatch.setattr(ray, "END_SECONDS", 0.0)
    monkeypatch.setattr(ray, "MONITOR_SECONDS", 0.0)
    made: list[RayEngine] = []

    def make(**more: Any) -> RayEngine:
        given: dict[str, Any] = {"installation": "0123456789", "token": "t0ken", **more}
        made.append(RayEngine("gpu", head.url, "https://sim.example.org/graphql", **given))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def engine(make: Callable[..., RayEngine]) -> RayEngine:
    return make()


def launch(member: str = MEMBER, key: str = "n1", **more: Any) -> Launch:
    return Launch(
        member_id=member, attempt_id=MEMBER, simulation_id="s", machine_key=key,
        **{"token": "one-hello", "cpus": 1.5, "memory_gib": 2.0, "gpus": 0, **more},
    )  # fmt: skip


def test_it_is_an_engine(engine: RayEngine) -> None:
    checked: StartingEngine = engine
    assert checked.name == "ray:gpu"


# --- machines --------------------------------------------------------------------------------------------------------


async def test_every_living_node_with_cpus_is_a_machine(head: Head, engine: RayEngine) -> None:
    labels = {"ray.io/node-id": "n3", "ray.io/accelerator-type": "H100", "zone": "a"}
    head.nodes = [
        node("n1"),
        node("n2", state="DEAD"),
        node("head", resources_total={"memory": 1.0}, is_head_node=True),
        node("n3", resources_total={"CPU": 96, "memory": 512 * GIB, "GPU": 8}, labels=labels, node_name="big"),
        node("n4", resources_total={"CPU": 8, "GPU": 1, "accelerator_type:T4": 1}, labels=None),
    ]
    found = {each.key: each for each in await engine.discover()}
    assert list(found) == ["n1", "n3", "n4"]
    big = found["n3"]
    assert (big.name, big.host, big.cpus, big.memory_gib) == ("gpu-big", None, 96, 512)
    assert (big.gpus, big.gpu_model) == (8, "H100")
    assert big.labels == {"ray.io/accelerator-type": "H100", "zone": "a", "simulations/engine": "ray"}
    assert (found["n4"].gpus, found["n4"].gpu_model) == (1, "T4")
    assert (found["n1"].gpus, found["n1"].gpu_model) == (0, None)
    assert head.tokens == {"Bearer t0ken"}


@pytest.mark.parametrize(
    ("labels", "price"),
    [
        ({}, "0.5"),
        ({"simulations/price-per-hour": "2.25", "ray.io/node-group": "big"}, "2.25"),
        ({"simulations/price-per-hour": "free", "ray.io/node-group": "big"}, "7"),
        ({"simulations/price-per-hour": "-1"}, "0.5"),
        ({"simulations/price-per-hour": "NaN"}, "0.5"),
        ({"node.kubernetes.io/instance-type": "p5.48xlarge", "ray.io/node-group": "big"}, "98"),
        ({"ray.io/node-group": "unheard-of"}, "0.5"),
    ],
)
async def test_a_price_is_that_of_the_label_the_instance_type_or_the_cluster(
    head: Head, make: Callable[..., RayEngine], labels: dict[str, str], price: str
) -> None:
    head.nodes = [node("n1", labels=labels)]
    prices = {"big": Decimal(7), "p5.48xlarge": Decimal(98)}
    [found] = await make(price_per_hour=Decimal("0.5"), prices=prices).discover()
    assert found.price_per_hour == Decimal(price)


async def test_a_node_on_which_a_job_waits_for_too_long_takes_no_more_work(
    head: Head, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(ray, "monotonic", lambda: now[0])
    await start(engine, launch())
    assert len(await engine.discover()) == 2
    now[0] += ray.START_SECONDS
    assert len(await engine.discover()) == 2
    now[0] += 1
    assert [each.key for each in await engine.discover()] == ["n2"]
    head.jobs[NAME]["status"] = "RUNNING"
    assert len(await engine.discover()) == 2


async def test_a_node_that_begins_one_job_after_another_takes_work_however_long_the_last_one_waits(
    head: Head, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(ray, "monotonic", lambda: now[0])
    members = ["one", "two", "three"]
    for member in members:
        await start(engine, launch(member))
    await engine.discover()
    for name in list(head.jobs)[:2]:
        now[0] += ray.START_SECONDS
        head.jobs[name]["status"] = "RUNNING"
        assert len(await engine.discover()) == 2
        assert engine.is_starting("three")
    now[0] += ray.START_SECONDS + 1
    assert [each.key for each in await engine.discover()] == ["n2"]
    assert not engine.is_starting("three")


async def test_a_job_whose_packages_are_installed_may_take_longer(
    head: Head, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(ray, "monotonic", lambda: now[0])
    launched = launch(runtime_env={"pip": ["torch"]})
    await start(engine, launched)
    assert len(await engine.discover()) == 2
    assert engine.is_starting(launched.member_id)
    now[0] += ray.BUILD_SECONDS
    assert len(await engine.discover()) == 2
    assert engine.is_starting(launched.member_id)
    now[0] += 1
    assert [each.key for each in await engine.discover()] == ["n2"]
    assert not engine.is_starting(launched.member_id)
    head.jobs[NAME]["status"] = "RUNNING"
    assert len(await engine.discover()) == 2
    assert not engine.is_starting(launched.member_id)


async def test_a_runtime_environment_that_can_not_be_built_is_told_by_the_end_of_the_message(
    head: Head, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(ray, "monotonic", lambda: now[0])
    launched = launch(runtime_env={"pip": ["torch"]})
    await start(engine, launched)
    message = "Traceback\n" * 1_000 + "ERROR:\0 No matching distribution\n  found for torch\n"
    head.jobs[NAME] |= {"status": "FAILED", "error_type": "RUNTIME_ENV_SETUP_FAILURE", "message": message}
    now[0] += 1
    assert await engine.probe(launched.member_id) is Liveness.DEAD
    said = engine.never_started(launched.member_id)
    assert said is not None
    assert said.startswith("Ray could not build its runtime environment: ")
    assert said.endswith("ERROR: No matching distribution found for torch")
    assert len(said) < 700
    head.jobs[NAME] |= {"error_type": "JOB_SUPERVISOR_ACTOR_DIED"}
    now[0] += 1
    assert await engine.probe(launched.member_id) is Liveness.UNKNOWN
    assert engine.never_started(launched.member_id) is None


# --- nodes that are started ------------------------------------------------------------------------------------------


async def test_what_the_cluster_can_start_is_listed_with_its_price(make: Callable[..., RayEngine]) -> None:
    found = [each for each in await make(starts={"big": BIG}, prices={"big": Decimal(8)}).discover() if each.most]
    [big] = found
    assert (big.key, big.name, big.cpus, big.memory_gib, big.gpus, big.gpu_model) == ("big", "gpu-big", 8, 32, 2, "T4")
    assert (big.labels, big.price_per_hour, big.most) == ({"zone": "b"}, Decimal(8), 3)


@pytest.mark.parametrize(
    ("labels", "memory"),
    [
        ({"ray.io/node-group": "big"}, 4),
        ({"zone": "b"}, 4),
        ({"ray.io/node-group": "small", "zone": "b"}, 32),
        ({"zone": "a"}, 32),
    ],
)
async def test_a_kind_has_no_more_than_the_nodes_that_were_started_of_it(
    head: Head, make: Callable[..., RayEngine], labels: dict[str, str], memory: float
) -> None:
    engine = make(starts={"big": BIG})
    head.nodes = [node("n1", labels=labels, resources_total={"CPU": 16.0, "memory": 4.0 * GIB, "GPU": 2.0})]
    for _ in range(2):
        [big] = [each for each in await engine.discover() if each.most]
        assert (big.cpus, big.memory_gib, big.gpus) == (8, memory, 2)
        head.nodes = []  # it has been stopped, and is not forgotten


async def test_nodes_are_wanted_by_jobs_that_ask_for_a_whole_one_each(
    head: Head, make: Callable[..., RayEngine]
) -> None:
    await make().want({})
    assert head.asked == []
    engine = make(starts={"big": BIG})
    for _ in range(2):
        await engine.want({"big": 2})
    assert [each["entrypoint"] for each in head.submitted] == ["true", "true"]
    assert head.submitted[0]["entrypoint_num_cpus"] == 8
    assert head.submitted[0]["entrypoint_num_gpus"] == 2
    assert head.submitted[0]["entrypoint_label_selector"] == {"zone": "b"}
    assert len({each["submission_id"] for each in head.submitted}) == 2
    assert await engine.members() == [], "they are no members"


async def test_a_job_for_a_node_is_deleted_when_it_ran_and_is_not_wanted_and_repeated_after_a_while_if_it_is(
    head: Head, make: Callable[..., RayEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(ray, "monotonic", lambda: now[0])
    engine = make(starts={"big": BIG})
    await engine.want({"big": 1})
    [name] = head.jobs
    head.jobs[name]["status"] = "SUCCEEDED"
    for _ in range(2):
        await engine.want({"big": 1})
        now[0] += 1
    assert (list(head.jobs), len(head.submitted)) == ([name], 1)
    now[0] += RENEW_SECONDS
    for _ in range(2):
        await engine.want({"big": 1})
    assert (head.jobs[name]["status"], len(head.submitted)) == ("PENDING", 2)
    await engine.want({})
    assert name in head.jobs, "what waits can't be stopped, and ends when it runs"
    head.jobs[name]["status"] = "SUCCEEDED"
    for _ in range(2):
        now[0] += 1
        await engine.want({})
    assert head.jobs == {}


# --- launching -------------------------------------------------------------------------------------------------------


async def test_a_job_is_pinned_declares_its_grant_and_shows_no_secret_but_the_token_of_one_hello(
    head: Head, engine: RayEngine
) -> None:
    await engine.discover()
    await start(engine, launch(gpus=2))
    [wanted] = head.submitted
    assert wanted["submission_id"] == NAME
    assert wanted["entrypoint_label_selector"] == {"ray.io/node-id": "n1"}
    assert (wanted["entrypoint_num_cpus"], wanted["entrypoint_num_gpus"]) == (1.5, 2)
    assert wanted["entrypoint_memory"] == 2 * GIB
    passed = json.loads(wanted["runtime_env"]["env_vars"].pop("SIMULATIONS_LAUNCH"))
    assert passed["token"] == "one-hello"
    assert passed["address"] == "https://sim.example.org/graphql"
    assert "t0ken" not in json.dumps(head.submitted)
    [(name, package)] = head.packages.items()
    assert wanted["runtime_env"] == {"working_dir": f"gcs://{name}", "env_vars": {}}
    with zipfile.ZipFile(io.BytesIO(package)) as outer:
        assert outer.namelist() == ["supervisor.pyz"]
        with zipfile.ZipFile(io.BytesIO(outer.read("supervisor.pyz"))) as inner:
            assert "runner/supervisor/job.py" in inner.namelist()


async def test_a_runtime_environment_is_handed_through_and_what_is_ours_stays(head: Head, engine: RayEngine) -> None:
    given = {"pip": ["numpy"], "config": {"setup_timeout_seconds": 9}, "working_dir": "https://evil.example/x.zip"}
    await start(engine, launch(runtime_env={**given, "env_vars": {"A": "1"}}, package="a" * 64))
    [wanted] = head.submitted
    environment = wanted["runtime_env"]
    assert (environment["pip"], environment["config"]) == (["numpy"], {"setup_timeout_seconds": 9})
    assert environment["working_dir"].startswith("gcs://_ray_pkg_")
    assert set(environment["env_vars"]) == {"SIMULATIONS_LAUNCH"}
    assert json.loads(environment["env_vars"]["SIMULATIONS_LAUNCH"])["package"] == "a" * 64


async def test_every_launch_has_a_package_of_its_own(head: Head, engine: RayEngine) -> None:
    """Ray deletes a package with the last job that used it, also while another one is about to."""
    for member in ("one", "two"):
        await start(engine, launch(member, token=f"for-{member}"))
    assert len({each["runtime_env"]["working_dir"] for each in head.submitted}) == len(head.packages) == 2


async def test_an_older_cluster_gets_the_address_instead_of_the_label(head: Head, engine: RayEngine) -> None:
    head.is_old = True
    for member in ("one", "two"):
        await start(engine, launch(member, "n2"))
    assert [each["entrypoint_resources"] for each in head.submitted] == [{"node:10.0.0.2": 0.001}] * 2
    assert head.asked_for("POST", "/api/jobs/") == 3


async def test_a_node_that_left_is_no_error_of_the_launch_but_a_lost_machine(head: Head, engine: RayEngine) -> None:
    await engine.discover()
    with pytest.raises(MachineGone, match="has left the cluster gpu"):
        await start(engine, launch(key="n9"))
    assert head.submitted == []


async def test_jobs_are_submitted_side_by_side_but_not_all_at_once_and_fail_alone(
    engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, eight = 0, 0, asyncio.Event()

    async def count(asked: Launch) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 8:
            eight.set()
        await eight.wait()
        at_once -= 1
        if asked.member_id == "3":
            raise MachineGone("The node has left the cluster gpu.")
        if asked.member_id == "4":
            raise EngineUnavailable("The Ray cluster gpu can't be reached.")

    monkeypatch.setattr(engine, "_launch", count)
    failures = await engine.launch([launch(str(number)) for number in range(20)])
    assert [type(each) for each in failures[2:6]] == [type(None), MachineGone, EngineUnavailable, type(None)]
    assert [each is None for each in failures].count(True) == 18
    assert most == 8


async def test_a_refused_job_is_an_error_with_the_last_line_of_the_reason(head: Head, engine: RayEngine) -> None:
    head.answer = lambda method, path: (500, "Traceback ...\nValueError: no") if method == "POST" else None
    with pytest.raises(LaunchError, match="refused the job: ValueError: no"):
        await start(engine, launch())


async def test_a_job_that_another_scheduler_submitted_meanwhile_is_the_launch(head: Head, engine: RayEngine) -> None:
    def answer(method: str, path: str) -> Answer | None:
        if method == "POST":
            head.jobs[NAME] = job(NAME, "RUNNING")
            return 500, "ValueError: already exists"
        return None

    head.answer = answer
    await start(engine, launch())
    assert await engine.probe(MEMBER) is Liveness.ALIVE


async def test_a_first_launch_asks_for_no_list_of_jobs(head: Head, engine: RayEngine) -> None:
    await engine.discover()
    before = head.asked_for("GET", "/api/jobs/")
    await start(engine, launch(is_repeated=False))
    assert [each["submission_id"] for each in head.submitted] == [NAME]
    assert head.asked_for("GET", "/api/jobs/") == before


async def test_an_id_that_ray_would_never_run_is_refused(engine: RayEngine) -> None:
    with pytest.raises(LaunchError, match="too long to name a job"):
        await start(engine, launch("x" * 100))


# --- judging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "liveness"),
    [
        ("PENDING", None, Liveness.ALIVE),
        ("RUNNING", None, Liveness.ALIVE),
        ("SUCCEEDED", 0, Liveness.DEAD),
        ("SUCCEEDED", None, Liveness.DEAD),
        ("FAILED", 1, Liveness.DEAD),
        ("FAILED", 127, Liveness.DEAD),  # no python3: nothing was started
        ("FAILED", 3, Liveness.UNKNOWN),  # the guard could not kill all
        ("FAILED", None, Liveness.UNKNOWN),  # the node's daemon died, perhaps alone
        ("FAILED", -9, Liveness.UNKNOWN),  # the guard was killed, perhaps alone
        ("FAILED", 137, Liveness.UNKNOWN),
        ("STOPPED", None, Liveness.UNKNOWN),  # not by us
    ],
)
async def test_only_an_exit_of_the_guard_proves_that_a_member_is_dead(
    head: Head, engine: RayEngine, status: str, code: int | None, liveness: Liveness
) -> None:
    head.jobs[NAME] = job(NAME, status, code)
    assert await engine.probe(MEMBER) is liveness


@pytest.mark.parametrize(
    ("error", "liveness"),
    [
        ("RUNTIME_ENV_SETUP_FAILURE", Liveness.DEAD),
        ("JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", Liveness.DEAD),
        ("JOB_SUPERVISOR_ACTOR_DIED", Liveness.UNKNOWN),
        ("JOB_SUPERVISOR_ACTOR_START_TIMEOUT", Liveness.UNKNOWN),  # it may start after all
    ],
)
async def test_a_job_that_could_not_start_is_dead(
    head: Head, engine: RayEngine, error: str, liveness: Liveness
) -> None:
    head.jobs[NAME] = {**job(NAME, "FAILED"), "error_type": error}
    assert await engine.probe(MEMBER) is liveness


async def test_a_job_that_the_cluster_has_forgotten_is_unknown(engine: RayEngine) -> None:
    assert await engine.probe(MEMBER) is Liveness.UNKNOWN


async def test_a_job_that_we_ended_is_dead_also_when_ray_calls_it_failed_afterwards(
    head: Head, engine: RayEngine
) -> None:
    await start(engine, launch())
    head.jobs[NAME]["status"] = "RUNNING"
    await engine.end(MEMBER)
    assert await engine.probe(MEMBER) is Liveness.DEAD
    head.jobs[NAME] = job(NAME, "FAILED")
    assert await engine.probe(MEMBER) is Liveness.DEAD
    await engine.forget(MEMBER)
    assert head.jobs == {}
    head.jobs[NAME] = job(NAME, "FAILED")  # Ray writes it once more
    assert await engine.probe(MEMBER) is Liveness.DEAD
    await engine.forget(MEMBER)
    assert head.jobs == {}


async def test_a_job_that_does_not_end_is_not_ended(head: Head, engine: RayEngine) -> None:
    head.answer = lambda method, path: (200, {"stopped": True}) if path.endswith("/stop") else None
    await start(engine, launch())
    with pytest.raises(TimeoutError, match="is still PENDING"):
        await engine.end(MEMBER)
    assert await engine.probe(MEMBER) is Liveness.ALIVE


async def test_what_is_not_proven_dead_is_not_forgotten(head: Head, engine: RayEngine) -> None:
    for status in ("RUNNING", "FAILED"):
        head.jobs[NAME] = job(NAME, status)
        assert not await engine.forget(MEMBER)
        assert NAME in head.jobs


async def test_a_job_that_just_ended_is_deleted_only_after_ray_has_noticed(
    head: Head, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(ray, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray, "MONITOR_SECONDS", 5.0)
    head.jobs[NAME] = job(NAME, "SUCCEEDED", 0)
    assert await engine.forget(MEMBER)
    assert await engine.members() == [MEMBER]
    now[0] += 5
    assert await engine.forget(MEMBER)
    assert await engine.members() == []
    head.jobs[NAME] = job(NAME, "FAILED")  # it had not, and has lost the metadata and the exit code
    now[0] += 1
    assert await engine.probe(MEMBER) is Liveness.DEAD


async def test_a_job_that_ray_does_not_delete_is_an_error_of_forgetting(head: Head, engine: RayEngine) -> None:
    head.jobs[NAME] = job(NAME, "SUCCEEDED", 0)
    head.answer = lambda method, path: (500, "still running") if method == "DELETE" else None
    with pytest.raises(OSError, match="does not delete the job"):
        await engine.forget(MEMBER)


async def test_jobs_of_others_are_left_alone(head: Head, engine: RayEngine) -> None:
    for name in ("raysubmit_x", "sim-9876543210-kfmfemc2k4yxozcen4zq", "sim-0123456789-!", None):
        head.jobs[str(name)] = {"submission_id": name, "status": "RUNNING"}
    assert await engine.members() == []


# --- a cluster that does not answer, or not so -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((401, "Unauthorized"), r"refuses the token \(401\)"),
        ((403, "Forbidden"), r"refuses the token \(403\)"),
        ((200, "<html>"), "answered GET"),
        ((200, {"data": 1}), "answered GET"),
        ((503, "busy"), "503 'busy'"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_unavailable_cluster(
    head: Head, engine: RayEngine, answer: Answer, why: str
) -> None:
    head.answer = lambda *_: answer
    with pytest.raises(EngineUnavailable, match=why):
        await engine.discover()
    with pytest.raises(EngineUnavailable, match=why):
        await engine.members()


async def test_a_cluster_without_an_answer_is_unavailable(head: Head, engine: RayEngine) -> None:
    await start(engine, launch())
    head.close()
    for call in (engine.discover(), engine.members(), engine.probe(MEMBER), engine.end(MEMBER)):
        with pytest.raises(EngineUnavailable, match="can't be reached"):
            await call


async def test_the_jobs_are_listed_once_for_all_probes_of_a_round(
    head: Head, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "LISTING_SECONDS", 1_000.0)
    head.jobs[NAME] = job(NAME, "RUNNING")
    for number in range(20):
        await engine.probe(str(number))
    assert await engine.running([MEMBER, "other"]) == {MEMBER}
    assert head.asked_for("GET", "/api/jobs/") == 1
