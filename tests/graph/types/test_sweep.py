"""Sweeps through the API: created with all that can be wrong, listed, shown, changed, cancelled; who sees them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db.public_ids import encode
from scheduler.sweeps import Sweeps

Serve = Any  # the fixtures of conftest.py
World = Any

FIELDS = """
  id number name state reason reasonDetail sampler seed
  parameters { name choices low high step log integer } objective { metric mode }
  tri: trialsPlanned parallel seeds maxCost patience stoppingThreshold
  pruning { rule gracePeriod reductionFactor rungs }
  entrypoint maxSteps createdBy endedAt project { name }
  counts { planned queued running complete pruned failed cancelled } estimatedEnd
  best { number value } cost { amount currency perHour } importances { name importance } events { kind }
  trials { nodes {
    number state parameters value spread step endedAt finalCost simulations { name number trial sweep { id } }
  } pageInfo { hasNextPage } }
"""
ERRORS = "userErrors { code message field }"
CREATE = f"mutation ($input: CreateSweepInput!) {{ createSweep(input: $input) {{ sweep {{ {FIELDS} }} {ERRORS} }} }}"
UPDATE = f"mutation ($input: UpdateSweepInput!) {{ updateSweep(input: $input) {{ sweep {{ {FIELDS} }} {ERRORS} }} }}"
CANCEL = f"mutation ($input: SweepInput!) {{ cancelSweep(input: $input) {{ sweep {{ {FIELDS} }} {ERRORS} }} }}"
SHOW = f"query ($id: ID!) {{ sweep(id: $id) {{ {FIELDS} }} }}"
LIST = "query ($project: ID, $active: Boolean) { sweeps(project: $project, active: $active) { nodes { name } } }"
LR = {"name": "lr", "low": 1e-4, "high": 0.1, "log": True}
BATCH = {"name": "batch", "choices": [64, 128]}
ASKED: dict[str, Any] = {
    "simulation": {"entrypoint": ["train", "--lr", "{lr}", "{batch}"], "environment": {"KEY": "secret"}},
    "parameters": [LR, BATCH], "objective": {"metric": "val/loss"}, "trials": 3, "parallel": 2, "seed": 7,
}  # fmt: skip


async def made(world: World, **given: Any) -> Any:
    payload = await world.api.data(CREATE, {"input": {**ASKED, **given}})
    assert payload["userErrors"] == [], payload
    return payload["sweep"]


async def refused(world: World, **given: Any) -> list[tuple[str, str]]:
    """The errors of a sweep with these values, as (field, message)."""
    asked = {name: value for name, value in {**ASKED, **given}.items() if value is not None}
    payload = await world.api.data(CREATE, {"input": asked})
    assert payload["sweep"] is None
    assert {each["code"] for each in payload["userErrors"]} == {"INVALID"}
    return [(".".join(each["field"]), each["message"]) for each in payload["userErrors"]]


async def begin(world: World) -> None:
    await Sweeps(world.sessions, world.api.settings).run_once()


async def test_a_sweep_is_shown_with_its_trials(world: World) -> None:
    sweep = await made(world, maxCost="10", patience=5, stoppingThreshold=0.01)
    assert (sweep["name"], sweep["state"], sweep["reason"], sweep["sampler"]) == ("train", "RUNNING", None, "TPE")
    assert sweep["parameters"] == [
        {**LR, "choices": None, "step": None, "integer": False},
        {**BATCH, "low": None, "high": None, "step": None, "log": False, "integer": False},
    ]
    assert sweep["objective"] == {"metric": "val/loss", "mode": "MIN"}
    assert (sweep["tri"], sweep["parallel"], sweep["seeds"], sweep["maxCost"]) == (3, 2, 1, "10")
    assert (sweep["patience"], sweep["stoppingThreshold"], sweep["pruning"]) == (5, 0.01, None)
    assert sweep["entrypoint"] == ["train", "--lr", "{lr}", "{batch}"]
    assert sweep["trials"]["nodes"] == []
    assert (sweep["best"], sweep["importances"], sweep["estimatedEnd"]) == (None, [], None)

    await begin(world)
    shown = await world.api.data(SHOW, {"id": sweep["id"]})
    assert shown["counts"] == {
        "planned": 3, "queued": 2, "running": 0, "complete": 0, "pruned": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    first, second = shown["trials"]["nodes"]
    assert (first["state"], first["value"], first["finalCost"]) == ("OPEN", None, None)
    assert set(first["parameters"]) == {"lr", "batch"}
    assert [each["name"] for each in first["simulations"]] == ["train-0"]
    assert second["simulations"][0]["trial"] == 1
    assert second["simulations"][0]["sweep"] == {"id": sweep["id"]}
    assert shown["cost"] == {"amount": "0", "currency": "USD", "perHour": "0"}
    assert [each["kind"] for each in shown["events"]] == ["CREATED"]
    assert "secret" not in json.dumps(shown)
    for reference in (str(sweep["number"]), f"#{sweep['number']}", "train"):
        assert (await world.api.data(SHOW, {"id": reference}))["id"] == sweep["id"]


async def test_trials_are_named_after_their_sweep_unless_their_simulation_has_a_name(world: World) -> None:
    named = {**ASKED["simulation"], "name": "mine"}
    for given, expected in (({"name": "search"}, "search-0"), ({"name": "other", "simulation": named}, "mine-0")):
        sweep = await made(world, **given)
        await begin(world)
        shown = await world.api.data(SHOW, {"id": sweep["id"]})
        assert shown["name"] == given["name"]
        assert shown["trials"]["nodes"][0]["simulations"][0]["name"] == expected
        await world.api.data(CANCEL, {"input": {"id": sweep["id"]}})


async def test_pruning_follows_the_plan_unless_it_is_asked_otherwise(world: World) -> None:
    planned = {**ASKED["simulation"], "limits": {"maxSteps": 1000}}
    for simulation, pruning, expected in (
        (ASKED["simulation"], None, None),
        (planned, None, {"gracePeriod": 100, "reductionFactor": 3, "rungs": [100, 300, 900]}),
        (planned, {"rule": "NONE"}, None),
        (
            planned,
            {"gracePeriod": 50, "reductionFactor": 4},
            {"gracePeriod": 50, "reductionFactor": 4, "rungs": [50, 200, 800]},
        ),
        (ASKED["simulation"], {"gracePeriod": 7}, {"gracePeriod": 7, "reductionFactor": 3}),
        (
            planned,
            {"rule": "MEDIAN"},
            {
                "rule": "MEDIAN",
                "gracePeriod": 100,
                "reductionFactor": None,
                "rungs": [100, 200, 300, 400, 500, 600, 700, 800, 900],
            },
        ),
        (ASKED["simulation"], {"rule": "MEDIAN", "gracePeriod": 7}, {"rule": "MEDIAN", "gracePeriod": 7}),
    ):
        sweep = await made(world, simulation=simulation, pruning=pruning)
        found = sweep["pruning"]
        assert found is None if expected is None else {**found, "rule": "HALVING", **expected} == found
    for simulation, pruning in (
        (ASKED["simulation"], {"rule": "HALVING"}),
        (planned, {"gracePeriod": 1000}),
        (planned, {"rule": "NONE", "reductionFactor": 3}),
        (planned, {"rule": "MEDIAN", "reductionFactor": 3}),
        (ASKED["simulation"], {"rule": "MEDIAN"}),
    ):
        [(field, _)] = await refused(world, simulation=simulation, pruning=pruning)
        assert field.startswith("pruning")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"parameters": [{"name": "lr", "low": 1, "high": 0.1}]}, "parameters.0.low"),
    ({"parameters": [{"name": "lr", "low": 0, "high": 0.1, "log": True}]}, "parameters.0.low"),
    ({"parameters": [{"name": "lr", "choices": []}]}, "parameters.0.choices"),
    ({"parameters": [{"name": "lr", "choices": [[1]]}]}, "parameters.0.choices.0"),
    ({"parameters": [{"name": "lr", "choices": [2**63]}]}, "parameters.0.choices"),
    ({"parameters": [{"name": "lr", "low": 1, "high": 2.0**54, "integer": True}]}, "parameters.0.high"),
    ({"parameters": [{"name": "lr", "low": -1e308, "high": 1e308}]}, "parameters.0.high"),
    ({"parameters": [LR, LR]}, "parameters.1.name"),
    ({"parameters": [{**LR, "name": ""}]}, "parameters.0.name"),
    ({"parameters": []}, "parameters"),
    ({"trials": None}, "trials"),
    ({"trials": 0}, "trials"),
    ({"trials": 1_000_000}, "trials"),
    ({"parallel": 0}, "parallel"),
    ({"parallel": 1000, "seeds": 2}, "parallel"),
    ({"seeds": 0}, "seeds"),
    ({"patience": 0}, "patience"),
    ({"maxCost": "0"}, "maxCost"),
    ({"maxCost": "NaN"}, "maxCost"),
    ({"objective": {"metric": "fitness"}}, "objective.mode"),
    ({"objective": {"metric": "system/cpu"}}, "objective.metric"),
    ({"sampler": "GRID"}, "parameters.0.log"),
    ({"sampler": "CMA_ES"}, "parameters.1.choices"),
    ({"simulation": {"entrypoint": ["{learning_rate}"]}}, "simulation.entrypoint.0"),
    ({"simulation": {"entrypoint": ["x", "{seed}"]}}, "simulation.entrypoint.1"),
    ({"simulation": {"entrypoint": ["x"], "parameters": {"lr": 1}}}, "parameters.0.name"),
    ({"simulation": {"entrypoint": ["x"], "parameters": {"seed": 1}}, "seeds": 2}, "seeds"),
    ({"simulation": {"entrypoint": ["x"], "clientKey": "k"}}, "simulation.clientKey"),
    ({"simulation": {"entrypoint": ["x"], "attended": True}}, "simulation.attended"),
    ({"simulation": {"entrypoint": []}}, "simulation.entrypoint"),
    ({"simulation": {"entrypoint": ["x"], "objective": {"metric": "loss"}}}, "simulation.objective"),
    ({"parameters": [LR, {**BATCH, "name": "LR"}]}, "parameters"),
]


async def test_what_can_not_be_searched_is_refused_with_its_place(world: World, subtests: pytest.Subtests) -> None:
    for given, field in REFUSED:
        asked = {**given}
        if "parameters" in given and "simulation" not in given:
            asked["simulation"] = {"entrypoint": ["train"]}
        with subtests.test(f"{field} {given}"[:100]):
            assert [each for each, _ in await refused(world, **asked)] == [field]
    [(_, message)] = await refused(world, trials=None)
    assert message == "trials: give the number of trials, or the sampler GRID, which tries all combinations"


async def test_a_brace_that_is_text_is_doubled_and_the_message_says_so(world: World) -> None:
    [(_, message)] = await refused(world, simulation={"entrypoint": ["python", "-c", "print(f'{lr} {other}')"]})
    assert message == (
        "simulation.entrypoint.2: {other} is no parameter of this sweep; if it is meant as text, write {{other}}"
    )
    await made(world, simulation={"entrypoint": ["python", "-c", "print(f'{lr} {{other}} {0}')", '{"a": 1}']})


async def test_a_grid_has_a_size_of_its_own(world: World) -> None:
    grid = [BATCH, {"name": "x", "low": 0, "high": 1, "step": 0.5}, {"name": "n", "low": 1, "high": 4, "integer": True}]
    simulation = {"entrypoint": ["train"]}
    sweep = await made(world, parameters=grid, sampler="GRID", simulation=simulation, trials=None)
    assert sweep["tri"] == 2 * 3 * 4
    assert (await made(world, parameters=grid, sampler="GRID", simulation=simulation, trials=9_999))["tri"] == 24
    wide = [{"name": "n", "low": 1, "high": 2.0**53, "integer": True}]
    [(field, message)] = await refused(world, parameters=wide, sampler="GRID", simulation=simulation)
    assert field == "parameters"
    assert "9,007,199,254,740,992 trials: at most 10,000" in message


async def test_numbers_beyond_the_doubles_are_choices_with_all_their_digits(world: World) -> None:
    big = 2**60 + 1
    await made(
        world, parameters=[{"name": "n", "choices": [big]}], simulation={"entrypoint": ["train", "{n}"]}, trials=1
    )
    await begin(world)
    [row] = await world.select("SELECT entrypoint, parameters::text FROM simulations WHERE trial = 0")
    assert row[0] == ["train", str(big)]
    assert json.loads(row[1]) == {"n": big}


async def test_the_same_key_creates_one_sweep(world: World) -> None:
    first = await made(world, clientKey="k")
    assert (await made(world, clientKey="k"))["id"] == first["id"]
    payload = await world.api.data(CREATE, {"input": {**ASKED, "clientKey": "k", "trials": 4}})
    assert [(each["code"], each["field"]) for each in payload["userErrors"]] == [("TAKEN", ["clientKey"])]


async def test_sweeps_are_listed_and_cancelled(world: World) -> None:
    first, second = await made(world, name="one"), await made(world, name="two")
    assert await world.api.data(LIST) == {"nodes": [{"name": "two"}, {"name": "one"}]}
    await begin(world)
    payload = await world.api.data(CANCEL, {"input": {"id": first["id"]}})
    assert payload["userErrors"] == []
    assert (payload["sweep"]["state"], payload["sweep"]["reason"]) == ("CANCELLED", "CANCELLED")
    await begin(world)
    assert await world.api.data(LIST, {"active": False}) == {"nodes": [{"name": "one"}]}
    assert await world.api.data(LIST, {"active": True}) == {"nodes": [{"name": "two"}]}
    assert [each["kind"] for each in (await world.api.data(SHOW, {"id": "one"}))["events"]] == [
        "CREATED", "CANCEL_REQUESTED", "ENDED",
    ]  # fmt: skip
    payload = await world.api.data(UPDATE, {"input": {"id": first["id"], "trials": 9}})
    assert [each["code"] for each in payload["userErrors"]] == ["WRONG_STATE"]
    payload = await world.api.data(UPDATE, {"input": {"id": second["id"], "trials": 9, "parallel": 3}})
    assert (payload["sweep"]["tri"], payload["sweep"]["parallel"]) == (9, 3)
    payload = await world.api.data(UPDATE, {"input": {"id": second["id"], "trials": 1}})
    assert [(each["code"], each["field"]) for each in payload["userErrors"]] == [("INVALID", ["trials"])]
    assert await made(world, name="two")
    error = await world.api.error(SHOW, {"id": "two"})
    assert "Several sweeps have the name 'two'" in error["message"]
    assert (await world.api.data(SHOW, {"id": "on"}))["name"] == "one"
    assert await made(world, name="one_more")
    assert (await world.api.data(SHOW, {"id": "one"}))["name"] == "one", "whole names come before beginnings"
    assert "Several sweeps begin with 'on'" in (await world.api.error(SHOW, {"id": "on"}))["message"]
    assert "is not the id, number or name" in (await world.api.error(SHOW, {"id": "_ne"}))["message"]


async def test_cancelled_trials_are_no_failed_ones(world: World) -> None:
    """Also once their simulations are deleted, and when one trial of the same sweep failed."""
    sweep = await made(world, trials=3, parallel=3, seeds=2)
    await begin(world)
    await world.select(
        "UPDATE simulations SET state = 'FAILED', reason = 'EXIT_CODE', finished_at = now(), final_cost = 0 "
        "WHERE id = (SELECT min(id) FROM simulations WHERE trial = 1) RETURNING 1"
    )
    await world.api.data(CANCEL, {"input": {"id": sweep["id"]}})
    await begin(world)
    await world.select("DELETE FROM simulations RETURNING 1")
    shown = await world.api.data(SHOW, {"id": sweep["id"]})
    assert [each["state"] for each in shown["trials"]["nodes"]] == ["CANCELLED", "FAILED", "CANCELLED"]
    assert shown["counts"] == {
        "planned": 3, "queued": 0, "running": 0, "complete": 0, "pruned": 0, "failed": 1, "cancelled": 2,
    }  # fmt: skip


async def test_a_page_of_sweeps_takes_as_many_statements_as_a_single_one(
    serve: Serve, world: World, engine: Any, statements: Any
) -> None:
    api = await serve(sessions=world.sessions)
    query = """query ($first: Int!) { sweeps(first: $first) { nodes {
        name counts { complete running } best { number value simulations { id } } cost { amount perHour }
        project { name } estimatedEnd
    } } }"""
    for mode in ("MIN", "MAX", "MIN", "MAX"):
        await made(world, name=mode, objective={"metric": "score", "mode": mode})
    await begin(world)
    await world.select(
        "UPDATE sweep_trials SET outcome = 'COMPLETE', value = number + 1, ended_at = begun_at + interval '10 s', "
        "cost = 0.5 RETURNING 1"
    )
    await begin(world)  # what is open has a cost of its own
    sent = []
    for first in (1, 4):
        with statements.of(engine):
            nodes = (await api.data(query, {"first": first}))["nodes"]
        sent.append(sorted(statements))
        statements.clear()
    assert [(each["name"], each["best"]["number"], each["best"]["value"]) for each in nodes] == [
        ("MAX", 1, 2), ("MIN", 0, 1), ("MAX", 1, 2), ("MIN", 0, 1),
    ]  # fmt: skip
    assert {each["cost"]["amount"] for each in nodes} == {"1"}
    assert len(sent[0]) == len(sent[1]) > 0


async def test_importance_is_computed_once_for_the_same_trials(world: World) -> None:
    sweep = await made(world, trials=8, parallel=8)
    await begin(world)
    await world.select(
        "UPDATE sweep_trials SET outcome = 'COMPLETE', value = abs(ln((parameters->>'lr')::float8 / 0.003)), "
        "ended_at = begun_at + interval '10 s', cost = 0.5 RETURNING 1"
    )
    shown = await world.api.data(SHOW, {"id": sweep["id"]})
    assert sum(each["importance"] for each in shown["importances"]) == pytest.approx(1)
    assert {each["name"] for each in shown["importances"]} == {"lr", "batch"}
    assert (await world.api.data(SHOW, {"id": sweep["id"]}))["importances"] == shown["importances"]
    assert shown["cost"]["amount"] == "4"
    best = min(shown["trials"]["nodes"], key=lambda trial: trial["value"])
    assert shown["best"] == {"number": best["number"], "value": best["value"]}


async def test_what_is_of_another_project_is_not_found(world: World) -> None:
    sweep = await made(world)
    for reference in (encode("Sweep", 99), "99", "unheard of"):
        payload = await world.api.data(CANCEL, {"input": {"id": reference}})
        assert [each["code"] for each in payload["userErrors"]] == ["NOT_FOUND"]
    payload = await world.api.data(CANCEL, {"input": {"id": encode("Simulation", sweep["number"])}})
    assert [each["code"] for each in payload["userErrors"]] == ["INVALID"]
