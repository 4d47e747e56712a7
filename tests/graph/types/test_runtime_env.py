"""Runtime environments of Ray: what is handed through, what is refused, and where such a simulation runs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from db import attempts, machines, public_ids
from graph.types.runtime_env import ENGINE_LABEL, MAX_BYTES, RAY, check_runtime_env, split
from runner import base

World = Any  # the fixture of conftest.py
CREATE = """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id } userErrors { code message field } }
}
"""
FORK = """
mutation Fork($input: ForkSimulationInput!) {
  forkSimulation(input: $input) { simulation { id } userErrors { code message field } }
}
"""
SHOW = "query Show($id: ID!) { simulation(id: $id) { runtimeEnv environment resources { labels } } }"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"pip": ["numpy==2.2", "torch"]},
        {"pip": {"packages": ["numpy"], "pip_check": False}},
        {"uv": ["numpy"], "config": {"setup_timeout_seconds": 60}},
        {"conda": "base"},
        {"conda": {"dependencies": ["pip", {"pip": ["numpy"]}]}},
        {"env_vars": {"HF_HOME": "/mnt"}},
        {
            "pip": [
                "x @ https://example.org/x.whl",
                "y @ git+ssh://git@example.org/y",
                "--index-url=https://a.b/c@d:e/f",
            ]
        },
    ],
)
def test_what_ray_can_be_given_is_taken(given: dict[str, Any]) -> None:
    assert check_runtime_env(given) == given


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"working_dir": "https://evil.example/x.zip"}, "working_dir can't be given: send the directory as a package"),
        ({"py_modules": ["s3://x/y.zip"]}, "py_modules can't be given"),
        ({"py_executable": "sh"}, "py_executable can't be given"),
        ({"image_uri": "x"}, "image_uri can't be given"),
        ({"worker_process_setup_hook": "x"}, "can't be given: it has pip, uv, conda, config, env_vars"),
        ({"\u202epip": []}, "u202epip can't be given"),
        ({"pip": "requirements.txt"}, "pip is a list"),
        ({"pip": [1]}, "pip is a list"),
        ({"uv": 3}, "uv is a list"),
        ({"conda": 1}, "conda is the name"),
        ({"config": []}, "config is an object"),
        ({"env_vars": ["A=1"]}, "env_vars is an object of strings"),
        ({"env_vars": {"A": 1}}, "env_vars is an object of strings"),
        ({"env_vars": {"SIMULATION_ID": "1"}}, "set by the service"),
        ({"env_vars": {"CUDA_VISIBLE_DEVICES": "0"}}, "set by the service"),
        ({"env_vars": {str(number): "" for number in range(1_001)}}, "more than 1,000 variables"),
        ({"pip": ["x" * MAX_BYTES]}, "more than 16,384 bytes"),
        ({"pip": ["--extra-index-url", "https://me:secret@pypi.example/simple"]}, "a URL with a password"),
        ({"conda": {"channels": [{"https://u:p@x/": []}]}}, "a URL with a password"),
    ],
)
def test_what_is_refused_is_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        check_runtime_env(given)
    assert str(error.value).isprintable()


def test_variables_go_past_ray() -> None:
    assert split({"pip": ["a"], "env_vars": {"A": "1"}}) == ({"pip": ["a"]}, {"A": "1"})


def test_the_label_is_that_of_the_engine() -> None:
    assert (ENGINE_LABEL, RAY) == (base.ENGINE_LABEL, base.RAY)


async def node(world: World, name: str = "gpu-1") -> int:
    """A node of a cluster."""
    async with world.sessions.begin() as session:
        return await machines.join(
            session, engine="ray:gpu", engine_key=name, name=name, host=None, cpus=4.0, memory_gib=8.0, gpus=0,
            gpu_model=None, labels={ENGINE_LABEL: RAY}, price_per_hour=Decimal(0),
        )  # fmt: skip


async def test_it_runs_on_nodes_of_clusters_alone(world: World) -> None:
    await world.machine()
    given = {"entrypoint": ["x"], "runtimeEnv": {"pip": ["numpy"], "env_vars": {"A": "1", "B": "2"}}}
    refused = await world.api.data(CREATE, {"input": given})
    assert [each["field"] for each in refused["userErrors"]] == [["runtimeEnv"]]
    assert "no Ray cluster is here" in refused["userErrors"][0]["message"]
    await node(world)
    simulation = await world.simulation(**given, environment={"B": "own"}, resources={"labels": {"zone": "a"}})
    shown = await world.api.data(SHOW, {"id": simulation})
    assert shown["runtimeEnv"] == {"pip": ["numpy"]}
    assert set(shown["environment"]) == {"A", "B"}
    assert shown["resources"]["labels"] == {"zone": "a", ENGINE_LABEL: RAY}
    assert await world.select("SELECT environment FROM simulations") == [({"A": "1", "B": "own"},)]


async def test_a_machine_that_is_no_node_is_refused(world: World) -> None:
    await node(world)
    machine = public_ids.encode("Machine", await world.machine())
    given = {"entrypoint": ["x"], "runtimeEnv": {"pip": ["a"]}, "resources": {"machine": machine}}
    refused = await world.api.data(CREATE, {"input": given})
    assert "is no node of a Ray cluster" in refused["userErrors"][0]["message"]


async def test_a_fork_has_the_same_one_another_one_or_none(world: World) -> None:
    await node(world)
    old = await world.simulation(runtimeEnv={"pip": ["a"], "env_vars": {"A": "1"}}, environment={"B": "2"})

    async def forked(**changes: Any) -> Any:
        made = await world.api.data(FORK, {"input": {"id": old, **changes}})
        assert made["userErrors"] == []
        return await world.api.data(SHOW, {"id": made["simulation"]["id"]})

    same = await forked(name="same")
    assert (same["runtimeEnv"], same["resources"]["labels"]) == ({"pip": ["a"]}, {ENGINE_LABEL: RAY})
    other = await forked(runtimeEnv={"pip": ["b"], "env_vars": {"C": "3", "A": "new"}})
    assert (other["runtimeEnv"], set(other["environment"])) == ({"pip": ["b"]}, {"A", "B", "C"})
    none = await forked(runtimeEnv={})
    assert (none["runtimeEnv"], none["resources"]["labels"]) == (None, {})
    assert await world.select("SELECT count(*) FROM simulations WHERE runtime_env = 'null'") == [(0,)]


async def test_a_launch_is_given_the_package_and_the_runtime_environment(world: World) -> None:
    await node(world)
    supervisor = await world.attempt(await world.simulation(runtimeEnv={"pip": ["a"]}))
    async with world.sessions() as session:
        [launched] = await attempts.open_on_host(session, "host-1")
        assert (launched.package, launched.runtime_env) == (None, None), "read at the launch only"
    await world.select("UPDATE members SET launched_at = NULL")
    async with world.sessions() as session:
        [hosted] = await attempts.open_on_host(session, "host-1", not_launched=True)
    assert (hosted.id, hosted.package, hosted.runtime_env) == (supervisor.number, None, {"pip": ["a"]})
