"""Weight and quota of a project: changed, refused, recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from db.public_ids import encode

World = Any  # the fixtures of conftest.py

UPDATE = """mutation ($input: UpdateProjectInput!) {
  updateProject(input: $input) { project { id name weight gpuQuota } userErrors { code message field } }
}"""
DEFAULT = encode("Project", 1)


async def change(world: World, **given: Any) -> Any:
    return await world.api.data(UPDATE, {"input": {"id": DEFAULT, **given}})


async def test_a_project_has_the_weight_one_and_no_quota_until_they_are_set(world: World) -> None:
    query = "query { projects { nodes { name weight gpuQuota } } }"
    assert (await world.api.data(query))["nodes"] == [{"name": "default", "weight": "1", "gpuQuota": None}]
    changed = await change(world, weight="2.5", gpuQuota=8)
    assert changed["project"] == {"id": DEFAULT, "name": "default", "weight": "2.5", "gpuQuota": 8}
    assert (await change(world, weight="0.000001"))["project"]["gpuQuota"] == 8, "what is left out stays"
    assert (await change(world, weight=None))["project"]["weight"] == "0.000001"
    assert (await change(world, gpuQuota=None))["project"]["gpuQuota"] is None
    assert (await change(world, gpuQuota=0))["project"]["gpuQuota"] == 0
    found = await world.select("SELECT kind, actor, detail FROM events WHERE object_type = 'Project' ORDER BY id")
    assert [(kind, detail) for kind, _, detail in found] == [
        ("UPDATED", {"weight": "2.5", "gpu_quota": "8"}),
        ("UPDATED", {"weight": "0.000001"}),
        ("UPDATED", {"gpu_quota": None}),
        ("UPDATED", {"gpu_quota": "0"}),
    ]


async def test_the_same_change_again_records_nothing_also_when_made_at_once(world: World) -> None:
    payloads = await asyncio.gather(*(change(world, weight="3", gpuQuota=4) for _ in range(5)))
    assert [each["userErrors"] for each in payloads] == [[]] * 5
    assert await world.select("SELECT count(*) FROM events WHERE object_type = 'Project'") == [(1,)]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"weight": "0"}, "weight"),
        ({"weight": "-1"}, "weight"),
        ({"weight": "0.0000001"}, "weight"),
        ({"weight": "1000001"}, "weight"),
        ({"gpuQuota": -1}, "gpuQuota"),
        ({"gpuQuota": 1_000_001}, "gpuQuota"),
    ],
)
async def test_a_weight_of_zero_and_other_absurd_values_are_refused_and_change_nothing(
    world: World, given: dict[str, Any], field: str
) -> None:
    payload = await change(world, **{"weight": "2", "gpuQuota": 2, **given})
    assert payload["project"] is None
    [error] = payload["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", [field])
    if given == {"weight": "0"}:
        assert error["message"] == "weight: Input should be greater than 0"
    assert await world.select("SELECT weight = 1, gpu_quota FROM projects") == [(True, None)]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "", "two", "1,5"])
async def test_a_weight_that_is_no_number_is_refused(world: World, value: str) -> None:
    answer = await world.api.execute(UPDATE, {"input": {"id": DEFAULT, "weight": value}})
    data = answer.get("data") or {}
    assert answer.get("errors") or data["updateProject"]["userErrors"], answer
    assert await world.select("SELECT weight = 1 FROM projects") == [(True,)]


async def test_there_is_no_such_project(world: World) -> None:
    for wrong in (encode("Project", 99), encode("Machine", 1), "x", ""):
        payload = await world.api.data(UPDATE, {"input": {"id": wrong, "weight": "2"}})
        assert [each["field"] for each in payload["userErrors"]] == [["id"]], wrong
