"""Changes of a simulation through the API that are no rules: its tags."""

from __future__ import annotations

from typing import Any

World = Any  # a fixture of conftest.py

CREATE = """
mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id tags } } }
"""
UPDATE = """
mutation ($input: UpdateSimulationInput!) {
  updateSimulation(input: $input) { simulation { tags events { kind } } userErrors { code field message } }
}
"""


async def test_tags_are_added_and_removed_and_the_others_stay(world: World) -> None:
    made = await world.api.data(CREATE, {"input": {"entrypoint": ["true"], "tags": ["a", "b"]}})

    async def change(**given: Any) -> Any:
        return await world.api.data(UPDATE, {"input": {"id": made["simulation"]["id"], **given}})

    assert (await change(addTags=["c", "a"]))["simulation"]["tags"] == ["a", "b", "c"]
    assert (await change(removeTags=["b", "unheard of"]))["simulation"]["tags"] == ["a", "c"]
    assert (await change(addTags=["d"], removeTags=["a", "d"]))["simulation"]["tags"] == ["c", "d"]
    assert (await change(tags=["x", "y"], addTags=["z"], removeTags=["x"]))["simulation"]["tags"] == ["y", "z"]
    changed = (await change(addTags=["z"], removeTags=None))["simulation"]
    assert [each["kind"] for each in changed["events"]].count("UPDATED") == 4, "what was there already is no change"
    payload = await change(addTags=[str(number) for number in range(49)])
    assert payload == {
        "simulation": None,
        "userErrors": [
            {"code": "INVALID", "field": ["addTags"], "message": "addTags: a simulation has at most 50 tags."}
        ],
    }
    assert (await change(notes="as they were"))["simulation"]["tags"] == ["y", "z"]
