"""Forecasts through the API: the end with its interval, targets, time and money, own history, and nothing to say."""

from __future__ import annotations

from typing import Any

import pytest

World = Any  # the fixtures of conftest.py

FIELDS = """
  metric mode step sentence
  end { at { step seconds cost } value low high rough history band { steps values lows highs } }
  target {
    value reachedStep notBefore { step seconds cost } halfUntil { step seconds cost } similar likelyNot rough
  }
"""
ASK = f"""
query Ask($id: ID!, $metric: String, $target: Float) {{
  simulation(id: $id) {{ forecast(metric: $metric, target: $target) {{ {FIELDS} }} }}
}}
"""
RULES = [{"metric": "loss", "stoppingThreshold": 0.05}]


def column(length: int, *, scale: float = 1.0) -> dict[str, Any]:
    """Of a run that falls like a power of its step."""
    return {
        "steps": list(range(length)),
        "values": [0.2 + scale * (step + 1) ** -0.5 for step in range(length)],
        "elapsed": [step / 10 for step in range(length)],
    }


async def ask(world: World, simulation_id: str, **given: Any) -> Any:
    return (await world.api.data(ASK, {"id": simulation_id, **given}))["forecast"]


async def finished(world: World, count: int, *, reason: str = "COMPLETED", project: str = "default") -> None:
    """Runs called `series` that have ended after 100 steps, each with another scale."""
    for number in range(count):
        made = await world.simulation(name="series", project=project)
        supervisor = await world.attempt(made)
        await supervisor.hello()
        await supervisor.send({"loss": column(100, scale=1 + number / 10)})
        await supervisor.exit()
    await world.select("UPDATE simulations SET reason = :reason WHERE state = 'FINISHED'", reason=reason)


async def test_the_value_at_the_declared_end_has_a_rough_interval_and_a_band(world: World) -> None:
    supervisor = await world.running(limits={"maxSteps": 100})
    await supervisor.send({"loss": column(50)})
    found = await ask(world, supervisor.simulation_id)
    assert (found["metric"], found["mode"], found["step"], found["target"]) == ("loss", "MIN", 49, None)
    end, best = found["end"], 0.2 + 50**-0.5
    assert end["at"]["step"] == 100
    assert (end["rough"], end["history"]) == (True, 0)
    assert end["low"] < end["value"] < end["high"] <= best
    assert end["value"] == pytest.approx(0.2 + 101**-0.5, rel=0.02)
    band = end["band"]
    assert (band["steps"][0], band["values"][0], band["lows"][0], band["highs"][0]) == (49, *[pytest.approx(best)] * 3)
    assert (band["steps"][-1], band["values"][-1], band["lows"][-1]) == (100, end["value"], end["low"])
    assert found["sentence"].startswith("By step 100 the best loss will be about 0.29")
    assert "; rough)" in found["sentence"]


async def test_time_and_cost_come_from_pace_and_price_and_cost_only_with_a_price(world: World) -> None:
    supervisor = await world.running(limits={"maxSteps": 149})
    await supervisor.send({"loss": column(50)})
    await world.select("UPDATE attempts SET started_at = now() - interval '1000 h'")
    at = (await ask(world, supervisor.simulation_id))["end"]["at"]
    assert at["seconds"] == pytest.approx(100 / 49 * 1000 * 3600, rel=0.01)
    assert at["cost"] is None
    await world.select("UPDATE members SET price_per_hour = 2, share = 0.5")
    found = await ask(world, supervisor.simulation_id)
    assert float(found["end"]["at"]["cost"]) == pytest.approx(100 / 49 * 1000, rel=0.01)
    assert " d and for 20" in found["sentence"].replace(",", "") or "more" in found["sentence"]


async def test_of_a_target_only_bounds_are_given(world: World) -> None:
    supervisor = await world.running(limits={"maxSteps": 100}, stopping=RULES)
    await supervisor.send({"loss": column(50)})
    target = (await ask(world, supervisor.simulation_id))["target"]
    assert target["value"] == 0.05, "by default the rule's"
    assert (target["likelyNot"], target["notBefore"]["step"], target["halfUntil"]) == (True, 100, None)
    found = await ask(world, supervisor.simulation_id, target=0.5)
    assert found["target"]["reachedStep"] == 11
    assert "was reached at step 11." in found["sentence"]


async def test_eight_completed_runs_of_the_name_and_project_replace_the_rough_factors(world: World) -> None:
    supervisor = await world.running(name="series", limits={"maxSteps": 99})
    await supervisor.send({"loss": column(50)})
    await finished(world, 7)
    await finished(world, 3, project="other")
    assert (await ask(world, supervisor.simulation_id))["end"]["rough"] is True
    await finished(world, 1)
    await supervisor.send({"loss": {"steps": [50], "values": [0.34], "elapsed": [5.0]}})
    end = (await ask(world, supervisor.simulation_id))["end"]
    assert (end["rough"], end["history"]) == (False, 8)


async def test_half_of_the_similar_runs_needs_no_declared_end(world: World) -> None:
    supervisor = await world.running(name="series")
    await supervisor.send({"loss": column(20)})
    await finished(world, 9, reason="STOPPING_THRESHOLD")
    found = await ask(world, supervisor.simulation_id, target=0.4)
    assert found["end"] is None
    target = found["target"]
    assert (target["notBefore"], target["similar"], target["likelyNot"]) == (None, 9, False)
    # 0.4 is reached once scale * (step + 1) ** -0.5 <= 0.2, the middle one's scale is 1.4.
    assert target["halfUntil"]["step"] == 48
    assert found["sentence"] == "Half of 9 similar runs needed until step 48 for loss 0.4."


async def test_too_little_is_null(world: World) -> None:
    supervisor = await world.running(limits={"maxSteps": 100})
    assert await ask(world, supervisor.simulation_id) is None, "no metric"
    await supervisor.send({"loss": column(9), "alpha": column(9)})
    assert await ask(world, supervisor.simulation_id) is None, "less than a tenth of the run"
    assert await ask(world, supervisor.simulation_id, metric="alpha") is None, "no direction"
    assert await ask(world, supervisor.simulation_id, metric="other") is None, "never reported"
    await supervisor.send({"loss": {"steps": [60], "values": [0.3], "elapsed": [6.0]}})
    assert await ask(world, supervisor.simulation_id) is not None
    await supervisor.exit()
    assert await ask(world, supervisor.simulation_id) is None, "it has completed: the end is known"


async def test_of_a_run_that_was_stopped_it_is_what_would_have_been(world: World) -> None:
    supervisor = await world.running(limits={"maxSteps": 100})
    await supervisor.send({"loss": column(50)})
    await world.cancel(supervisor.simulation_id)
    await supervisor.exit(143)
    found = await ask(world, supervisor.simulation_id)
    assert "would have been about" in found["sentence"]
    assert found["end"]["at"]["seconds"] is None


async def test_a_target_that_is_no_number_is_refused(world: World) -> None:
    supervisor = await world.running()
    query = ASK.replace("$target: Float", "$x: Int").replace("target: $target", "target: 1e999")
    body = await world.api.execute(query, {"id": supervisor.simulation_id})
    assert body.get("errors")
