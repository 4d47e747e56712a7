"""Lists through the API: sorted by metrics, parameters and costs, filtered, paged, refused; objectives; references."""

from __future__ import annotations

from typing import Any

import pytest

from db.public_ids import encode
from scheduler.sweeps import Sweeps

World = Any  # the fixtures of conftest.py
Api = Any

LIST = """
query ($filter: SimulationFilter, $orderBy: SimulationOrder, $first: Int! = 50, $after: String) {
  simulations(filter: $filter, orderBy: $orderBy, first: $first, after: $after) {
    totalCount nodes { name } pageInfo { hasNextPage endCursor }
  }
}
"""
CREATE = """
mutation ($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id number name } userErrors { message } }
}
"""


async def made(api: Api, name: str, **given: Any) -> Any:
    payload = await api.data(CREATE, {"input": {"entrypoint": ["python", "train.py"], "name": name, **given}})
    assert payload["userErrors"] == []
    return payload["simulation"]


async def names(api: Api, first: int = 50, **given: Any) -> list[str]:
    """All pages."""
    found: list[str] = []
    after = None
    while True:
        page = await api.data(LIST, {"first": first, "after": after, **given})
        found += [each["name"] for each in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            assert page["totalCount"] == len(found)
            return found
        after = page["pageInfo"]["endCursor"]


async def test_lists_are_sorted_and_filtered_by_what_simulations_were_given(
    api: Api, subtests: pytest.Subtests
) -> None:
    await made(api, "vit-a", parameters={"lr": 0.1, "opt": {"name": "adam", "on": True}}, tags=["sweep", "a"])
    await made(api, "vit-b", parameters={"lr": 1e-4, "opt": {"name": "lion"}}, tags=["sweep"])
    await made(api, "resnet", parameters={"lr": 2}, tags=["b"])
    await made(api, "plain")
    for given, expected in (
        ({}, ["plain", "resnet", "vit-b", "vit-a"]),
        ({"orderBy": {"field": "PARAMETER", "name": "lr"}}, ["resnet", "vit-a", "vit-b", "plain"]),
        ({"orderBy": {"field": "PARAMETER", "name": "lr", "direction": "ASC"}}, ["vit-b", "vit-a", "resnet", "plain"]),
        ({"orderBy": {"field": "COST"}}, ["plain", "resnet", "vit-b", "vit-a"]),
        ({"filter": {"name": "vit*"}}, ["vit-b", "vit-a"]),
        ({"filter": {"name": "v?t-a"}}, ["vit-a"]),
        ({"filter": {"name": "v%"}}, []),
        ({"filter": {"text": "TRAIN.PY"}}, ["plain", "resnet", "vit-b", "vit-a"]),
        ({"filter": {"tags": ["sweep", "a"]}}, ["vit-a"]),
        ({"filter": {"anyTags": ["a", "b"]}}, ["resnet", "vit-a"]),
        ({"filter": {"createdBy": "no-such-user"}}, []),
        ({"filter": {"createdFrom": "2020-01-01T00:00:00Z", "createdTo": "2020-01-02T00:00:00"}}, []),
        ({"filter": {"parameters": [{"name": "lr", "comparison": "LT", "value": 1e-3}]}}, ["vit-b"]),
        ({"filter": {"parameters": [{"name": "lr", "value": 2}]}}, ["resnet"]),
        ({"filter": {"parameters": [{"name": "opt.name", "comparison": "NE", "value": "adam"}]}}, ["vit-b"]),
        ({"filter": {"parameters": [{"name": "opt.on", "value": True}]}}, ["vit-a"]),
        ({"filter": {"parameters": [{"name": "lr", "value": "'; DROP TABLE simulations; --"}]}}, []),
    ):
        with subtests.test(str(given)):
            if "DROP" in str(given) or expected:
                assert await names(api, **given) == expected
                assert await names(api, 1, **given) == expected
            else:
                assert await names(api, **given) == []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown metric": ({"orderBy": {"field": "BEST", "name": "val/loss"}}, "No simulation has reported a metric"),
    "an unknown parameter": ({"orderBy": {"field": "PARAMETER", "name": "lr"}}, "No simulation has a parameter 'lr'"),
    "a comparison of one": ({"filter": {"parameters": [{"name": "lr", "value": 1}]}}, "No simulation has a parameter"),
    "a metric without a name": ({"orderBy": {"field": "LAST"}}, "orderBy.name: LAST needs a name"),
    "an empty name": ({"orderBy": {"field": "LAST", "name": ""}}, "orderBy.name"),
    "a name with NUL": ({"orderBy": {"field": "LAST", "name": "a\0"}}, "orderBy.name"),
    "a long name": ({"orderBy": {"field": "LAST", "name": "x" * 257}}, "orderBy.name"),
    "a name where none belongs": ({"orderBy": {"field": "NAME", "name": "x"}}, "not to NAME"),
    "no direction": ({"orderBy": {"field": "BEST", "name": "x"}}, "pass MIN or MAX"),
    "100 conditions": ({"filter": {"parameters": [{"name": "a", "value": 1}] * 100}}, "at most 20 items"),
    "100 tags": ({"filter": {"tags": ["t"] * 100}}, "at most 20 items"),
    "a list as value": ({"filter": {"parameters": [{"name": "a", "value": [1]}]}}, "a number, a text or a boolean"),
    "null as value": ({"filter": {"parameters": [{"name": "a", "value": None}]}}, ""),
    "a long word": ({"filter": {"parameters": [{"name": "a", "value": "x" * 401}]}}, "at most 400 characters"),
    "NUL in a word": ({"filter": {"parameters": [{"name": "a", "value": "\0"}]}}, "NUL"),
    "NUL in a text": ({"filter": {"text": "a\0b"}}, "control characters"),
    "an empty text": ({"filter": {"text": ""}}, "filter.text"),
    "a long text": ({"filter": {"text": "x" * 100_000}}, "filter.text"),
    "an impossible time": ({"filter": {"createdFrom": "0001-01-01T00:00:00+14:00"}}, "years 1 to 9999"),
}


async def test_what_makes_no_sense_is_refused_in_words(api: Api, subtests: pytest.Subtests) -> None:
    for name, (given, words) in BAD.items():
        with subtests.test(name):
            error = await api.error(LIST, given)
            assert words in error["message"]
            assert "Something went wrong" not in error["message"]
            assert len(error["message"]) < 600
    for literal, words in (("1e999", "finite number"), ("-1e999", "finite number"), ("9" * 500, "400 digits")):
        with subtests.test(literal[:10]):
            query = f'{{ simulations(filter: {{parameters: [{{name: "a", value: {literal}}}]}}) {{ nodes {{ id }} }} }}'
            assert words in (await api.error(query))["message"]


async def test_a_list_is_sorted_by_a_metric_while_its_simulations_run(world: World) -> None:
    for name, value in (("worse", 0.9), ("better", 0.1)):
        supervisor = await world.running(await world.simulation(name=name))
        await supervisor.send({"val/acc": {"steps": [1], "values": [value], "elapsed": [0.1]}})
    for order, expected in (
        ({"field": "BEST", "name": "val/acc"}, ["worse", "better"]),
        ({"field": "BEST", "name": "val/acc", "mode": "MIN"}, ["better", "worse"]),
        ({"field": "LAST", "name": "val/acc", "direction": "ASC"}, ["better", "worse"]),
    ):
        assert await names(world.api, orderBy=order) == expected


async def test_the_direction_of_a_metric_is_taken_from_what_submissions_said(world: World) -> None:
    best = {"orderBy": {"field": "BEST", "name": "gap"}}
    for name, value, mode in (("a", 0.1, None), ("b", 0.9, "MIN"), ("c", 0.5, "MAX")):
        objective = {"objective": {"metric": "gap", "mode": mode}} if mode else {}
        supervisor = await world.running((await made(world.api, name, **objective))["id"])
        await supervisor.send({"gap": {"steps": [1], "values": [value], "elapsed": [0.1]}})
        if mode is None:
            assert "does not imply" in (await world.api.error(LIST, best))["message"]
        else:
            assert await names(world.api, **best) == {"MIN": ["a", "b"], "MAX": ["b", "c", "a"]}[mode]
    assert await names(world.api, orderBy={"field": "LAST", "name": "gap"}) == ["b", "c", "a"]


async def test_names_are_found_among_those_of_all_simulations(world: World) -> None:
    await made(world.api, "a", parameters={"lr": 0.1, "opt": {"Name": "adam", "on": True}})
    ended = await world.running(await world.simulation(name="ended"))
    await ended.send({name: {"steps": [1], "values": [0.5], "elapsed": [0.1]} for name in ("val/acc", "epoch", "100%")})
    await ended.exit()
    runs = await world.running(await world.simulation(name="runs"))
    await runs.send({"val/loss": {"steps": [1], "values": [0.5], "elapsed": [0.1]}})
    query = 'query ($contains: String! = "") { names(contains: $contains) { metrics { name direction } parameters } }'
    known = {"100%": None, "epoch": None, "val/acc": "MAX", "val/loss": "MIN"}
    for contains, metrics, parameters in (
        ("", [*known], ["lr", "opt.Name", "opt.on"]),
        ("VAL/", ["val/acc", "val/loss"], []),
        ("name", [], ["opt.Name"]),
        ("%", ["100%"], []),
        ("val_", [], []),
    ):
        found = await world.api.data(query, {"contains": contains})
        assert {each["name"]: each["direction"] for each in found["metrics"]} == {name: known[name] for name in metrics}
        assert found["parameters"] == parameters
    for bad in ("a\0", "x" * 201):
        assert "at most 200 characters" in (await world.api.error(query, {"contains": bad}))["message"]


# --- references ------------------------------------------------------------------------------------------------

SHOW = "query ($id: ID!) { simulation(id: $id) { name number } }"
CANCEL = """
mutation ($id: ID!) { cancelSimulation(input: {id: $id}) { simulation { name } userErrors { code message field } } }
"""


async def test_a_number_a_name_and_a_beginning_stand_for_an_id(api: Api, subtests: pytest.Subtests) -> None:
    first = await made(api, "vit-base")
    second = await made(api, "vit-large")
    third = await made(api, "vit-large-2")
    assert first["id"] == encode("Simulation", first["number"])
    for reference, expected in (
        (first["id"], "vit-base"),
        (f"#{second['number']}", "vit-large"),
        (str(third["number"]), "vit-large-2"),
        ("vit-b", "vit-base"),
        ("vit-large", "vit-large"),  # a whole name comes before a beginning
        ("vit-large-", "vit-large-2"),
    ):
        with subtests.test(reference):
            assert (await api.data(SHOW, {"id": reference}))["name"] == expected
    for reference in ("nothing", "#999999", "999999", ""):
        with subtests.test(reference):
            error = await api.error(SHOW, {"id": reference})
            assert error["extensions"]["code"] == "BAD_USER_INPUT"
            assert error["message"] == f"{reference!r} is not the id, number or name of a simulation."
    error = await api.error(SHOW, {"id": "vit"})
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    for each in (first, second, third):
        assert f"#{each['number']} {each['name']} (default, QUEUED)" in error["message"]
    assert "'vit' is ambiguous" in error["message"]

    payload = await api.data(CANCEL, {"id": "vit-base"})
    assert payload["simulation"] == {"name": "vit-base"}
    [error] = (await api.data(CANCEL, {"id": "nothing"}))["userErrors"]
    assert (error["code"], error["field"]) == ("NOT_FOUND", ["id"])
    [error] = (await api.data(CANCEL, {"id": "vit-l"}))["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["id"])


async def test_a_name_that_looks_like_a_number_is_ambiguous_where_both_are_meant(api: Api) -> None:
    first = await made(api, "first")
    number = str(first["number"])
    named = await made(api, number)
    error = await api.error(SHOW, {"id": number})
    assert f"#{first['number']} first" in error["message"]
    assert f"#{named['number']} {number}" in error["message"]
    assert (await api.data(SHOW, {"id": f"#{number}"}))["name"] == "first"
    later = await made(api, "1000001")
    assert (await api.data(SHOW, {"id": "1000001"}))["number"] == later["number"]


async def test_subscriptions_take_names_too(world: World) -> None:
    await world.running(await world.simulation(name="followed"))
    query = "subscription ($id: ID!) { convergence(simulationId: $id) { state } }"
    async with world.api.subscribe(query, {"id": "followed"}) as events:
        assert (await events.next())["state"] == "RUNNING"


SWEEP = """
mutation ($input: CreateSweepInput!) { createSweep(input: $input) { sweep { id number name } userErrors { message } } }
"""


async def test_the_trials_of_a_sweep_are_listed_by_its_id_number_and_name(world: World, api: Api) -> None:
    await made(api, "other")
    asked = {
        "simulation": {"entrypoint": ["t", "{x}"]}, "parameters": [{"name": "x", "low": 0, "high": 1}], "trials": 3,
        "parallel": 3, "objective": {"metric": "loss"}, "name": "of x",
    }  # fmt: skip
    sweep = (await api.data(SWEEP, {"input": asked}))["sweep"]
    await api.data(SWEEP, {"input": {**asked, "name": "empty", "parallel": 1}})
    await Sweeps(world.sessions, world.api.settings).run_once()
    for reference in (sweep["id"], str(sweep["number"]), f"#{sweep['number']}", "of x"):
        assert await names(api, 2, filter={"sweep": reference}) == ["of x-2", "of x-1", "of x-0"]
    assert await names(api, filter={"sweep": "empty"}, orderBy={"field": "NAME"}) == ["empty-0"]
    order = {"field": "PARAMETER", "name": "x", "direction": "ASC"}
    found = await world.select("SELECT name FROM simulations WHERE sweep_id = :id ORDER BY (parameters->>'x')::float8",
                               id=sweep["number"])  # fmt: skip
    assert await names(api, 1, filter={"sweep": "of x"}, orderBy=order) == [name for (name,) in found]
    for reference, words in (
        (encode("Sweep", 424_242), "There is no such sweep"),
        ("no such", "is not the id, number or name of a sweep"), ("", "is not the id, number or name of a sweep"),
        (encode("Project", 1), "the id of a Sweep is expected"), ("a\0", "of a sweep"),
    ):  # fmt: skip
        assert words in (await api.error(LIST, {"filter": {"sweep": reference}}))["message"]
