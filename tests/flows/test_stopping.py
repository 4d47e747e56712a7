"""Stop rules on real processes: a NaN, a plateau, a hopeless run, a killed scheduler, rules added later, a dry run."""

from __future__ import annotations

import math
from typing import Any

import psutil
import pytest
from live import PATIENCE_SECONDS, ROOT, Service, eventually, kill, points, within

from policy.stopping import StopRules, judge

# Prints the values that it is given, one line each, then waits: what it takes to stop it comes without another point.
TELLS = """
import json, signal, sys
for step, value in enumerate(json.loads(sys.argv[1])):
    print(json.dumps({"step": step, "val/loss": value}), flush=True)
signal.pause()
"""
WALKS = """
import itertools, json, time
for step in itertools.count():
    print(json.dumps({"step": step, "val/loss": 1.0}), flush=True)
    time.sleep(0.02)
"""
STOPPING = """
query Stopping($id: ID!) {
  simulation(id: $id) {
    state reason reasonDetail
    objective { metric mode bestValue bestStep }
    stopping { evidence { rule step value bestStep bestValue sentence } wouldHaveStopped { reason step } notices }
    events { kind }
  }
}
"""
UPDATE = """
mutation Update($input: UpdateSimulationInput!) { updateSimulation(input: $input) { userErrors { message } } }
"""
PATIENT = StopRules("val/loss", patience=5)
FLAT = [1.0, 0.5, *[0.6] * 5]


async def tells(service: Service, values: list[Any], **given: Any) -> str:
    text = "[" + ", ".join("NaN" if math.isnan(value) else repr(value) for value in values) + "]"
    return await service.submit("python", "-c", TELLS, text, **given)


async def stopping_of(service: Service, simulation_id: str) -> Any:
    return (await service.execute(STOPPING, id=simulation_id))["simulation"]


async def test_a_nan_stops_a_run_that_reports_nothing_more(service: Service) -> None:
    simulation = await tells(service, [1.0, 0.5, float("nan")], stopping=[{"metric": "val/loss"}])
    shown = await service.finished(simulation)

    assert (shown["state"], shown["reason"]) == ("FAILED", "NON_FINITE_METRIC")
    assert shown["reasonDetail"] == "val/loss was NaN at step 2."
    assert [attempt["signal"] for attempt in shown["attempts"]] == [15], "it is stopped by SIGTERM, and not retried"
    kinds = [event["kind"] for event in shown["events"]]
    assert kinds == ["QUEUED", "STARTING", "RUNNING", "STOP_WANTED", "FAILED"]


async def test_a_plateau_stops_with_its_evidence(service: Service) -> None:
    simulation = await tells(
        service, [1 / (step + 1) for step in range(20)] + [0.05] * 15, stopping=[{"metric": "val/loss"}]
    )
    await service.finished(simulation)
    shown = await stopping_of(service, simulation)

    assert (shown["state"], shown["reason"]) == ("FINISHED", "PATIENCE_EXHAUSTED")
    evidence = shown["stopping"]["evidence"]
    assert (evidence["rule"], evidence["step"], evidence["bestStep"], evidence["bestValue"]) == (
        "PLATEAU",
        34,
        19,
        0.05,
    )
    assert evidence["sentence"] == shown["reasonDetail"]
    assert "val/loss has not improved on 0.05 (step 19) for 15 evaluations" in evidence["sentence"]
    assert shown["objective"] == {"metric": "val/loss", "mode": "MIN", "bestValue": 0.05, "bestStep": 19}


async def test_a_hopeless_learning_rate_of_the_digits_example_is_stopped_by_itself(service: Service) -> None:
    pytest.importorskip("sklearn")
    simulation = await service.submit(
        "python", str(ROOT / "examples" / "digits.py"), "--learning-rate", "1000", "--epochs", "1000000",
        objective={"metric": "loss"}, stopping=[{"metric": "loss"}, {"metric": "accuracy"}],
    )  # fmt: skip
    shown = await service.finished(simulation)
    assert shown["reason"] in ("NON_FINITE_METRIC", "PATIENCE_EXHAUSTED")
    assert shown["reasonDetail"].startswith(("loss ", "accuracy "))


async def test_a_scheduler_killed_between_point_and_verdict_reaches_the_same_verdict_after_its_restart(
    service: Service,
) -> None:
    rule = {"metric": "val/loss", "patience": 5}
    values = [1.0, 0.5, 0.6, 0.6, 0.4, *[0.7] * 12]
    expected = judge(PATIENT, range(len(values)), values)
    assert expected is not None
    go = service.data_directory / "go"
    program = TELLS.replace("import json", "import os, time, json").replace(
        "for step", f"print('ready', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nfor step"
    )
    simulation = await service.submit("python", "-c", program, repr(values), stopping=[rule])
    await service.until(simulation, "RUNNING")
    scheduler: psutil.Process = await service.pause("scheduler")
    go.touch()

    async def is_stored() -> bool:
        return bool((await service.fetch("SELECT coalesce(max(last_step), -1) AS s FROM metrics"))[0]["s"] == 16)

    await eventually(is_stored, "the points are stored")
    assert (await stopping_of(service, simulation))["state"] == "RUNNING"
    kill(scheduler)
    await service.whole()

    await service.finished(simulation)
    shown = await stopping_of(service, simulation)
    evidence = shown["stopping"]["evidence"]
    assert shown["reason"] == expected.reason
    assert (evidence["rule"], evidence["step"], evidence["bestStep"]) == (
        expected.rule, expected.step, expected.best_step,
    )  # fmt: skip
    assert evidence["sentence"].startswith(expected.sentence())


async def test_rules_that_are_added_while_it_runs_stop_it_at_its_next_points(service: Service) -> None:
    simulation = await service.submit("python", "-c", WALKS)
    events: list[dict[str, Any]] = []
    added_at = None
    async with within(PATIENCE_SECONDS, "the rule that is added stops it"):
        async for event in service.curve(simulation):
            events.append(event)
            curve = points(events, "val/loss")
            if added_at is None and len(curve) >= 20:
                added_at = curve[-1][0]
                rules = [{"metric": "val/loss", "patience": 5}]
                changed = await service.execute(UPDATE, input={"id": simulation, "stopping": rules})
                assert not changed["updateSimulation"]["userErrors"]
    shown = await stopping_of(service, simulation)
    assert (shown["state"], shown["reason"]) == ("FINISHED", "PATIENCE_EXHAUSTED")
    assert added_at is not None
    assert shown["stopping"]["evidence"]["step"] > added_at
    kinds = [each["kind"] for each in shown["events"]]
    assert kinds == ["QUEUED", "STARTING", "RUNNING", "UPDATED", "STOP_WANTED", "FINISHED"]


async def test_a_dry_run_records_what_it_would_have_stopped_and_stops_nothing(service: Service) -> None:
    rule = {"metric": "val/loss", "patience": 5, "dryRun": True}
    simulation = await tells(service, FLAT, stopping=[rule, {"metric": "val/acc"}])

    async def is_recorded() -> bool:
        return bool((await stopping_of(service, simulation))["stopping"]["wouldHaveStopped"])

    await eventually(is_recorded, "the dry run is recorded")
    shown = await stopping_of(service, simulation)
    assert (shown["state"], shown["stopping"]["evidence"]) == ("RUNNING", None)
    assert shown["stopping"]["wouldHaveStopped"] == [{"reason": "PATIENCE_EXHAUSTED", "step": 6}]
    assert shown["stopping"]["notices"] == [
        "The stop rule's metric val/acc was never reported: it has reported val/loss."
    ]
    assert [each["kind"] for each in shown["events"]] == ["QUEUED", "STARTING", "RUNNING", "WOULD_STOP"]
    await service.cancel(simulation)
    assert (await service.finished(simulation))["reason"] == "CANCELLED"


async def test_a_run_is_stopped_by_its_cost_limit_before_it_costs_more(service: Service) -> None:
    await eventually(service.is_free, "its machine has joined")
    made = await service.execute(
        "mutation Join($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }",
        input={"name": "dear", "cpus": 1, "memoryGib": 1, "labels": {"dear": "yes"}, "pricePerHour": "3600"},
    )
    assert not made["createMachine"]["userErrors"]
    simulation = await service.submit(
        "sleep", "600", resources={"cpus": 1, "labels": {"dear": "yes"}}, limits={"maxCost": "12"}
    )
    shown = await service.finished(simulation)
    assert (shown["state"], shown["reason"]) == ("FAILED", "MAX_COST")
    cost = await service.execute("query ($id: ID!) { simulation(id: $id) { cost { amount } } }", id=simulation)
    assert 0 < float(cost["simulation"]["cost"]["amount"]) <= 12, "at a dollar a second, the grace of the stop included"
