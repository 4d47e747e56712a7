"""Objective, stop rules and limits through the API: created, changed while it runs, refused, read; and in orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

World = Any  # the fixtures of conftest.py

FIELDS = """
  id name tags priority
  objective { metric mode value bestValue bestStep }
  stopping {
    rules {
      metric mode minDelta patience gracePeriod stoppingThreshold divergenceThreshold checkFinite smoothing plateau
      rising aggressive dryRun
    }
    evidence { reason rule metric step value bestStep bestValue sentence detail }
    wouldHaveStopped { reason step sentence }
    notices
  }
  limits { maxRuntimeSeconds maxCost maxSteps maxRetries retryOn }
  events { kind actor detail }
"""
CREATE = f"""
mutation Create($input: CreateSimulationInput!) {{
  createSimulation(input: $input) {{ simulation {{ {FIELDS} }} userErrors {{ code message field }} }}
}}
"""
UPDATE = f"""
mutation Update($input: UpdateSimulationInput!) {{
  updateSimulation(input: $input) {{ simulation {{ {FIELDS} }} userErrors {{ code message field }} }}
}}
"""
SHOW = f"query Show($id: ID!) {{ simulation(id: $id) {{ {FIELDS} }} }}"
HELLO = """
mutation Hello($input: HelloAttemptInput!) {
  helloAttempt(input: $input) { order { heartbeatSeconds maxRuntimeSeconds maxCostSeconds } }
}
"""
REPORT = """
mutation Report($input: ReportAttemptInput!) {
  reportAttempt(input: $input) { orderChange { heartbeatSeconds maxRuntimeSeconds maxCostSeconds } }
}
"""
DEFAULT_RULE = {
    "metric": "val/loss", "mode": "MIN", "minDelta": 0.0, "patience": None, "gracePeriod": 0,
    "stoppingThreshold": None, "divergenceThreshold": None, "checkFinite": True, "smoothing": 0.0, "plateau": True,
    "rising": True, "aggressive": False, "dryRun": False,
}  # fmt: skip


async def create(world: World, **given: Any) -> Any:
    return await world.api.data(CREATE, {"input": {"entrypoint": ["true"], **given}})


async def change(world: World, simulation_id: str, **given: Any) -> Any:
    return await world.api.data(UPDATE, {"input": {"id": simulation_id, **given}})


async def show(world: World, simulation_id: str) -> Any:
    return await world.api.data(SHOW, {"id": simulation_id})


async def order(supervisor: Any) -> Any:
    given = {"attemptId": supervisor.attempt_id, "nonce": supervisor.nonce}
    body = await supervisor.api.execute(HELLO, {"input": given}, token=supervisor.token)
    return body["data"]["helloAttempt"]["order"]


async def order_change(supervisor: Any) -> Any:
    given = {"attemptId": supervisor.attempt_id, "nonce": supervisor.nonce}
    body = await supervisor.api.execute(REPORT, {"input": given}, token=supervisor.token)
    return body["data"]["reportAttempt"]["orderChange"]


async def test_a_rule_needs_its_metric_alone_and_gives_the_objective(world: World) -> None:
    made = (await create(world, stopping=[{"metric": "val/loss"}]))["simulation"]
    assert made["stopping"] == {
        "rules": [DEFAULT_RULE], "evidence": None, "wouldHaveStopped": [], "notices": [],
    }  # fmt: skip
    assert made["objective"] == {
        "metric": "val/loss", "mode": "MIN", "value": None, "bestValue": None, "bestStep": None,
    }  # fmt: skip


async def test_every_option_of_rules_and_limits_is_kept_and_repeated(world: World) -> None:
    rule = {
        "metric": "acc", "mode": "MAX", "minDelta": 0.01, "patience": 5, "gracePeriod": 100, "stoppingThreshold": 0.9,
        "divergenceThreshold": 0.1, "checkFinite": False, "smoothing": 0.5, "plateau": False, "rising": False,
        "aggressive": False, "dryRun": True,
    }  # fmt: skip
    limits = {"maxCost": "12.5", "maxSteps": 1000, "maxRuntimeSeconds": 60, "maxRetries": 1, "retryOn": ["EXIT_CODE"]}
    objective = {"metric": "acc"}
    made = (await create(world, objective=objective, stopping=[rule, {"metric": "val/loss"}], limits=limits))[
        "simulation"
    ]
    assert made["stopping"]["rules"] == [rule, {**DEFAULT_RULE, "checkFinite": False}], "acc is the objective"
    assert Decimal(made["limits"].pop("maxCost")) == Decimal("12.5")
    assert made["limits"] == {name: value for name, value in limits.items() if name != "maxCost"}

    await world.cancel(made["id"])
    repeat = f"mutation ($id: ID!) {{ retrySimulation(input: {{id: $id}}) {{ simulation {{ {FIELDS} }} }} }}"
    again = (await world.api.data(repeat, {"id": made["id"]}))["simulation"]
    assert (again["stopping"], again["objective"]) == (made["stopping"], made["objective"])


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "patience below 0": ({"stopping": [{"metric": "loss", "patience": -1}]}, ["stopping", "0", "patience"]),
    "thresholds on the wrong sides": (
        {"stopping": [{"metric": "loss", "stoppingThreshold": 2.0, "divergenceThreshold": 1.0}]},
        ["stopping", "0", "stoppingThreshold"],
    ),
    "thresholds on the wrong sides upwards": (
        {"stopping": [{"metric": "acc", "stoppingThreshold": 0.1, "divergenceThreshold": 0.5}]},
        ["stopping", "0", "stoppingThreshold"],
    ),
    "an empty metric": ({"stopping": [{"metric": ""}]}, ["stopping", "0", "metric"]),
    "a metric with control characters": ({"stopping": [{"metric": "a\nloss"}]}, ["stopping", "0", "metric"]),
    "a metric that is too long": ({"stopping": [{"metric": "loss" * 100}]}, ["stopping", "0", "metric"]),
    "no metric": ({"stopping": [{"patience": 3}]}, ["stopping", "0", "metric"]),
    "no direction": ({"stopping": [{"metric": "loss"}, {"metric": "x"}]}, ["stopping", "1", "mode"]),
    "two directions": (
        {"objective": {"metric": "x", "mode": "MAX"}, "stopping": [{"mode": "MIN"}]},
        ["stopping", "0", "mode"],
    ),
    "a negative delta": ({"stopping": [{"metric": "loss", "minDelta": -0.1}]}, ["stopping", "0", "minDelta"]),
    "smoothing of one": ({"stopping": [{"metric": "loss", "smoothing": 1.0}]}, ["stopping", "0", "smoothing"]),
    "finite for another metric": (
        {"stopping": [{"metric": "loss"}, {"metric": "val/loss", "checkFinite": True}]},
        ["stopping", "1", "checkFinite"],
    ),
    "aggressive without a plan": (
        {"stopping": [{"metric": "loss", "aggressive": True}]}, ["stopping", "0", "aggressive"],
    ),
    "a cost of nothing": ({"limits": {"maxCost": "0"}}, ["limits", "maxCost"]),
    "a cost that is no number": ({"limits": {"maxCost": "NaN"}}, ["limits", "maxCost"]),
    "no steps": ({"limits": {"maxSteps": 0}}, ["limits", "maxSteps"]),
    "an empty objective": ({"objective": {"metric": ""}}, ["objective", "metric"]),
    "a blank objective": ({"objective": {"metric": " ", "mode": "MIN"}}, ["objective", "metric"]),
    "an objective with an escape sequence": (
        {"objective": {"metric": "\x1b[31mloss", "mode": "MIN"}}, ["objective", "metric"],
    ),
    "a metric with an escape sequence": (
        {"stopping": [{"metric": "\x1b[31mloss", "mode": "MIN"}]}, ["stopping", "0", "metric"],
    ),
}  # fmt: skip


async def test_bad_rules_are_user_errors_that_name_the_field(world: World, subtests: pytest.Subtests) -> None:
    good = (await create(world))["simulation"]["id"]
    for case, (given, field) in BAD.items():
        with subtests.test(case):
            payload = await create(world, **given)
            assert payload["simulation"] is None
            assert [(each["code"], each["field"]) for each in payload["userErrors"]] == [("INVALID", field)]
            assert payload["userErrors"][0]["message"].startswith(f"{'.'.join(field)}: ")
            if case != "no metric":
                assert [each["field"] for each in (await change(world, good, **given))["userErrors"]] == [field]
    assert await world.select("SELECT count(*) FROM simulations") == [(1,)]


async def test_too_many_rules_and_numbers_that_are_none_are_refused(world: World) -> None:
    [error] = (await create(world, stopping=[{"metric": "loss"}] * 11))["userErrors"]
    assert error["field"] == ["stopping"]
    query = CREATE.replace("$input: CreateSimulationInput!", "$x: Int").replace(
        "input: $input", 'input: {entrypoint: ["true"], stopping: [{metric: "loss", stoppingThreshold: 1e999}]}'
    )
    body = await world.api.execute(query, {})
    assert body.get("errors") or body["data"]["createSimulation"]["userErrors"]


async def test_rules_and_limits_change_while_it_runs_once_and_reach_the_supervisor(world: World) -> None:
    supervisor = await world.running()
    simulation_id, usual = supervisor.simulation_id, world.api.settings.heartbeat_seconds
    assert (await order(supervisor))["heartbeatSeconds"] == usual
    assert await order_change(supervisor) is None
    await supervisor.send({"val/loss": {"steps": [0, 7], "values": [1.0, 1.0], "elapsed": [0.0, 1.0]}})

    for repeated in (False, True):
        payload = await change(
            world, simulation_id, stopping=[{"metric": "val/loss", "patience": 3}], name="renamed", tags=["a", "b"],
            priority=3, limits={"maxRuntimeSeconds": 100, "maxSteps": 50, "maxCost": "3"},
        )  # fmt: skip
        changed = payload["simulation"]
        assert payload["userErrors"] == []
        kinds = [each["kind"] for each in changed["events"]]
        assert kinds.count("UPDATED") == 1, f"repeated: {repeated}"
    assert (changed["name"], changed["tags"], changed["priority"]) == ("renamed", ["a", "b"], 3)
    assert changed["stopping"]["rules"][0]["patience"] == 3
    [updated] = [each["detail"] for each in changed["events"] if each["kind"] == "UPDATED"]
    assert (updated["max_cost"], updated["stopping"]["rules"][0]["since_step"]) == ("3", 7)
    expected = {"heartbeatSeconds": min(0.5, usual), "maxRuntimeSeconds": 100.0, "maxCostSeconds": None}
    assert await order_change(supervisor) == expected, "its machine costs nothing"
    assert (await order(supervisor)) == expected, "a hello that is repeated gets the same"

    await change(world, simulation_id, stopping=[], limits={"maxRuntimeSeconds": None, "maxCost": None})
    assert await order_change(supervisor) == {
        "heartbeatSeconds": usual, "maxRuntimeSeconds": None, "maxCostSeconds": None,
    }  # fmt: skip
    limits = (await show(world, simulation_id))["limits"]
    assert (limits["maxRuntimeSeconds"], limits["maxCost"], limits["maxSteps"]) == (None, None, 50)


async def test_the_plan_that_a_rule_needs_is_removed_only_with_the_rule(world: World) -> None:
    rule = {"metric": "loss", "aggressive": True}
    made = (await create(world, stopping=[rule], limits={"maxSteps": 50}))["simulation"]["id"]
    payload = await change(world, made, limits={"maxSteps": None})
    assert payload["userErrors"] == [
        {
            "code": "INVALID", "field": ["limits", "maxSteps"],
            "message": "limits.maxSteps: change the stop rule of loss, too: aggressive needs maxSteps, and no "
                       "stoppingThreshold: it has no effect otherwise.",
        }
    ]  # fmt: skip
    assert (await show(world, made))["limits"]["maxSteps"] == 50

    assert (await change(world, made, limits={"maxSteps": 60}))["userErrors"] == []
    both = await change(world, made, limits={"maxSteps": None}, stopping=[{"metric": "loss"}])
    assert both["userErrors"] == []
    assert (await show(world, made))["limits"]["maxSteps"] is None
    plain = (await create(world, stopping=[{"metric": "loss"}], limits={"maxSteps": 50}))["simulation"]["id"]
    assert (await change(world, plain, limits={"maxSteps": None}))["userErrors"] == [], "a rule that needs no plan"


async def test_after_the_end_only_name_and_tags_change(world: World) -> None:
    ended = await world.in_state("FINISHED")
    assert (await change(world, ended, name="kept", tags=["good"]))["simulation"]["name"] == "kept"
    [error] = (await change(world, ended, limits={"maxSteps": 3}))["userErrors"]
    assert (error["code"], error["field"]) == ("WRONG_STATE", ["id"])
    [error] = (await change(world, "U2ltdWxhdGlvbjo5OTk=", name="x"))["userErrors"]
    assert error["code"] == "NOT_FOUND"


async def test_the_cost_limit_becomes_seconds_of_the_order_with_what_was_spent_deducted(world: World) -> None:
    made = (await create(world, limits={"maxCost": "2", "maxRetries": 5}, stopping=[{"metric": "loss"}]))["simulation"]
    first = await world.attempt(made["id"])
    await world.select("UPDATE members SET price_per_hour = 3600, share = 0.001")  # 0.001 a second
    grace = world.api.settings.stop_grace_seconds
    given = await order(first)
    assert given["heartbeatSeconds"] == min(0.5, world.api.settings.heartbeat_seconds)
    seconds = given["maxCostSeconds"]
    assert 2000 - grace - 600 < seconds <= 2000 - grace, "the time from its assignment to its hello is paid, too"
    assert (await order(first))["maxCostSeconds"] == seconds

    await world.select("UPDATE members SET assigned_at = now() - interval '500 s'")
    await world.select("UPDATE attempts SET assigned_at = now() - interval '500 s', started_at = now()")
    await world.lose(first)
    second = await world.attempt(made["id"])
    await world.select("UPDATE members SET price_per_hour = 3600, share = 0.001")
    left = (await order(second))["maxCostSeconds"]
    assert 1500 - grace - 600 < left <= 1500 - grace


async def test_the_objective_is_guessed_and_has_no_best_without_a_direction(world: World) -> None:
    supervisor = await world.running()
    assert (await show(world, supervisor.simulation_id))["objective"] is None
    column = {"steps": [1, 2, 3], "values": [3.0, 1.0, 2.0], "elapsed": [0.0, 0.0, 0.0]}
    await supervisor.send({"system/cpu": column, "alpha": column})
    assert (await show(world, supervisor.simulation_id))["objective"] == {
        "metric": "alpha", "mode": None, "value": 2.0, "bestValue": None, "bestStep": None,
    }  # fmt: skip
    await supervisor.send({"train/loss": column})
    assert (await show(world, supervisor.simulation_id))["objective"]["metric"] == "train/loss"
    await supervisor.send({"val/accuracy": column})
    assert (await show(world, supervisor.simulation_id))["objective"] == {
        "metric": "val/accuracy", "mode": "MAX", "value": 2.0, "bestValue": 3.0, "bestStep": 1,
    }  # fmt: skip
    await change(world, supervisor.simulation_id, objective={"metric": "alpha", "mode": "MIN"})
    assert (await show(world, supervisor.simulation_id))["objective"] == {
        "metric": "alpha", "mode": "MIN", "value": 2.0, "bestValue": 1.0, "bestStep": 2,
    }  # fmt: skip


async def test_an_objective_is_given_back_to_the_guess(world: World) -> None:
    supervisor = await world.running()
    simulation = supervisor.simulation_id
    column = {"steps": [1, 2, 3], "values": [3.0, 1.0, 2.0], "elapsed": [0.0, 0.0, 0.0]}
    await supervisor.send({"alpha": column, "train/loss": column})
    await change(world, simulation, objective={"metric": "alpha", "mode": "MAX"})
    await change(world, simulation, name="left out, it stays")
    assert (await show(world, simulation))["objective"]["metric"] == "alpha"
    await change(world, simulation, objective=None)
    guessed = (await show(world, simulation))["objective"]
    assert (guessed["metric"], guessed["mode"]) == ("train/loss", "MIN")
    assert await world.select("SELECT objective_metric, objective_mode FROM simulations") == [(None, None)]
    # Rules are about an objective: that of the first one, those that stand and those that are given.
    rules = [{"metric": "alpha", "mode": "MAX"}]
    await change(world, simulation, objective={"metric": "train/loss"}, stopping=rules)
    for asked in ({"objective": None}, {"objective": None, "stopping": rules}):
        await change(world, simulation, objective={"metric": "train/loss"})
        await change(world, simulation, **asked)
        objective = (await show(world, simulation))["objective"]
        assert (objective["metric"], objective["mode"]) == ("alpha", "MAX"), asked


@pytest.mark.parametrize("asked", [{"objective": {"metric": "system/cpu"}}, {"stopping": [{"metric": "system/cpu"}]}])
async def test_a_measurement_of_the_machine_has_no_rule_and_is_no_objective(
    world: World, asked: dict[str, Any]
) -> None:
    existing = await world.simulation()
    for mutation, given in (("createSimulation", {"entrypoint": ["true"]}), ("updateSimulation", {"id": existing})):
        kind = f"{mutation[0].upper()}{mutation[1:]}Input"
        document = f"mutation M($input: {kind}!) {{ {mutation}(input: $input) {{ userErrors {{ field message }} }} }}"
        [error] = (await world.api.data(document, {"input": {**given, **asked}}))["userErrors"]
        assert "measures its machine" in error["message"]
        assert error["field"][0] == next(iter(asked))


async def test_a_metric_never_reported_and_one_that_is_not_finite_are_notices(world: World) -> None:
    supervisor = await world.running(stopping=[{"metric": "val/loss"}])
    await supervisor.send({"loss": {"steps": [1], "values": ["NaN"], "elapsed": [0.0]}})
    notices = (await show(world, supervisor.simulation_id))["stopping"]["notices"]
    assert notices == [
        "The stop rule's metric val/loss was never reported: it has reported loss.",
        "loss is not finite at step 1. It is not the objective.",
    ]


async def test_the_evidence_of_a_budget_is_none_of_a_stop_rule(world: World) -> None:
    supervisor = await world.running(stopping=[{"metric": "val/loss"}])
    evidence = (
        '{"reason": "BUDGET_EXHAUSTED", "rule": "budget", "budget": "QnVkZ2V0OjE=", "period": "TOTAL", '
        '"periodBegin": "1970-01-01T00:00:00+00:00", "amount": "1", "spent": "1", "perHour": "2", "currency": "USD", '
        '"sentence": "The total budget of this installation is used up."}'
    )
    async with world.sessions.begin() as session:
        await session.execute(
            text("UPDATE attempts SET stop_wanted_at = now(), stop_reason = 'BUDGET_EXHAUSTED', stop_evidence = :e"),
            {"e": evidence},
        )
    assert (await show(world, supervisor.simulation_id))["stopping"]["evidence"] is None


async def test_the_evidence_of_a_stop_and_of_a_dry_run_is_read(world: World) -> None:
    supervisor = await world.running(stopping=[{"metric": "val/loss"}])
    evidence = (
        '{"reason": "NON_FINITE_METRIC", "sentence": "val/loss was NaN at step 3.", "rule": "NON_FINITE", '
        '"metric": "val/loss", "step": 3, "value": null, "bestStep": 2, "bestValue": 0.5}'
    )
    async with world.sessions.begin() as session:
        await session.execute(
            text("UPDATE attempts SET stop_wanted_at = now(), stop_reason = 'NON_FINITE_METRIC', stop_evidence = :e"),
            {"e": evidence},
        )
        await session.execute(
            text("UPDATE simulations SET would_stop = jsonb_build_object('0', CAST(:e AS jsonb))"), {"e": evidence}
        )
    stopping = (await show(world, supervisor.simulation_id))["stopping"]
    assert stopping["wouldHaveStopped"] == [
        {"reason": "NON_FINITE_METRIC", "step": 3, "sentence": "val/loss was NaN at step 3."}
    ]
    found = stopping["evidence"]
    assert (found["rule"], found["step"], found["value"], found["bestStep"]) == ("NON_FINITE", 3, None, 2)
    await supervisor.send(exit={"signal": 15, "reason": "NON_FINITE_METRIC"})
    shown = await world.show(supervisor.simulation_id)
    assert (shown["state"], shown["reason"]) == ("FAILED", "NON_FINITE_METRIC")
