"""Pruning: results at rungs are rows, and a restart reaches the verdicts that there were."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from db import lifecycle
from db.convergence import Column, store
from db.events import Actor
from db.models import RungResult, Simulation
from db.simulations import Wanted
from db.states import Reason
from db.sweeps import WantedSweep, create, history
from policy.search_space import Parameter, encode
from policy.sweep import Halving, Median, at_rung
from scheduler.judge import Judge
from scheduler.planner import Planner
from scheduler.rungs import Climb, Reached
from scheduler.sweeps import Sweeps
from transitions.settle import Ending, end
from transitions.update import update

World = Any  # the fixture of conftest.py
USER = Actor("user")
RULE = Halving(max_steps=100, grace_period=10, reduction_factor=3)


# --- a climb ---------------------------------------------------------------------------------------------------


def test_a_climb_leaves_its_best_value_at_each_rung_that_it_passes() -> None:
    climb = Climb("loss", RULE)
    assert climb.feed(1, [1, 9], [5.0, 3.0]) is None
    assert climb.feed(1, [9, 11, 20], [1.0, 4.0, 2.0]) == Reached("loss", [(10, 3.0)]), "9 does not rise"
    assert climb.feed(1, [95], [7.0]) == Reached("loss", [(30, 2.0), (90, 2.0)])
    assert climb.is_decided
    assert climb.feed(1, [99], [0.1]) is None


def test_values_that_are_not_finite_are_no_results() -> None:
    climb = Climb("loss", Halving(100, "MAX", 10, 3))
    assert climb.feed(1, [10], [math.nan]) == Reached("loss", [(10, math.inf)])
    assert climb.feed(1, [12, 30], [-5.0, math.inf]) == Reached("loss", [(30, -5.0)])
    assert at_rung(climb.pruning, 10, math.inf, [1.0, 2.0]) is not None, "infinite is worst, whatever the mode"


def test_any_way_to_cut_a_curve_into_batches_passes_the_same_rungs() -> None:
    steps, values = list(range(0, 100, 3)), [1 / (1 + step) for step in range(0, 100, 3)]
    whole = Climb("loss", RULE).feed(1, steps, values)
    assert whole is not None
    for size in (1, 2, 7):
        climb, passed = Climb("loss", RULE), []
        for begin in range(0, len(steps), size):
            found = climb.feed(1, steps[begin : begin + size], values[begin : begin + size])
            passed += found.results if found is not None else []
        assert passed == list(whole.results)


def test_a_plan_of_one_step_has_nothing_to_decide() -> None:
    assert Climb("loss", Halving(1)).is_decided


# --- the judge -------------------------------------------------------------------------------------------------


async def sweep_of(
    world: World, count: int, mode: str = "MIN", reduction_factor: int | None = 3
) -> Sequence[Simulation]:
    """Running trials of a new sweep, with rungs at 10, 30 and 90; without a factor by the median rule: 10, 20, ..."""
    template = Wanted(project_id=1, name="s", entrypoint=("train",), max_steps=100)
    wanted = WantedSweep(
        template=template, name="s", space=encode([Parameter("x", low=0, high=1)]), sampler="RANDOM", seed=1,
        objective_metric="loss", objective_mode=mode, trials=count, parallel=count, grace_period=10,
        reduction_factor=reduction_factor,
    )  # fmt: skip
    async with world.sessions.begin() as session:
        made = await create(session, wanted, USER, client_key=None, given_seed=True)
    loop = Sweeps(world.sessions, world.settings)
    while (await loop.run_once()).begun:
        pass
    async with world.sessions() as session:
        statement = select(Simulation).where(Simulation.sweep_id == made.id).order_by(Simulation.id)
        found = (await session.scalars(statement)).all()
    await world.machine(f"m{made.id}", cpus=1000.0)
    while (await Planner(world.sessions, world.settings).tick()).assigned:
        pass
    for each in found:
        await world.hello(each.id)
    return found


_batches = itertools.count(1)


async def report(world: World, simulation_id: int, steps: Sequence[int], values: Sequence[float]) -> None:
    row = await world.get(simulation_id)
    async with world.sessions.begin() as session:
        column = Column(list(steps), list(values), [float(each) for each in steps])
        await store(session, simulation_id, row.attempt, next(_batches), {"loss": column})


async def stopped(world: World, simulations: Sequence[Simulation]) -> list[bool]:
    return [await world.stop_of(each.id) is not None for each in simulations]


async def test_a_trial_that_is_worse_than_most_at_a_rung_is_stopped_with_its_evidence(world: World) -> None:
    found = await sweep_of(world, 4)
    judge = Judge(world.sessions)
    for value, each in zip((0.1, 0.2, 0.9, 0.05), found, strict=True):
        await report(world, each.id, [1, 10], [1.0, value])
        await judge.run_once()
    assert await stopped(world, found) == [False, False, True, False]
    stop = await world.stop_of(found[2].id)
    assert (stop.reason, stop.by) == (Reason.PRUNED, "judge")
    facts = {name: stop.evidence[name] for name in ("rule", "metric", "step", "value", "better", "seen")}
    assert facts == {"rule": "PRUNED", "metric": "loss", "step": 10, "value": 0.9, "better": 2, "seen": 3}
    assert stop.evidence["sentence"].startswith("2 of 3 trials at step 10 are better than its 0.9")

    async with world.sessions.begin() as session:
        await end(session, found[2].id, 1, Ending(Reason.PRUNED), USER)
    await Sweeps(world.sessions, world.settings).run_once()
    ended = await world.get(found[2].id)
    assert (ended.state, ended.reason) == ("FINISHED", "PRUNED")
    async with world.sessions() as session:
        assert found[2].sweep_id is not None
        trial = (await history(session, found[2].sweep_id))[2]
    assert (trial.outcome, trial.value, trial.step) == ("PRUNED", 0.9, 10)


async def test_a_restart_finds_its_own_results_and_decides_alike(world: World) -> None:
    found = await sweep_of(world, 4)
    curves = [(0.3, 0.3), (0.1, 0.1), (0.2, 0.05), (0.25, 0.25)]
    for once in (True, False):
        judge = Judge(world.sessions)
        if once:
            for each, (value, _) in zip(found, curves, strict=True):
                await report(world, each.id, [10], [value])
                await judge.run_once()
        first = await stopped(world, found)
        await judge.run_once()
        assert await stopped(world, found) == first == [False, False, True, True]
    async with world.sessions() as session:
        rows = (await session.scalars(select(RungResult).order_by(RungResult.id))).all()
    assert [(each.simulation_id, each.step, each.value) for each in rows] == [
        (each.id, 10, value) for each, (value, _) in zip(found, curves, strict=True)
    ]
    # The first one came when there was nothing to compare it with: later results don't change that.
    await report(world, found[0].id, [30], [0.3])
    await report(world, found[1].id, [30], [0.1])
    await report(world, found[2].id, [30], [0.05])
    await Judge(world.sessions).run_once()
    async with world.sessions() as session:
        at_30 = (await session.scalars(select(RungResult).where(RungResult.step == 30).order_by(RungResult.id))).all()
    verdicts = [
        at_rung(RULE, 30, each.value, [other.value for other in at_30 if other.id < each.id]) is not None
        for each in at_30
    ]
    by_id = {each.simulation_id: verdict for each, verdict in zip(at_30, verdicts, strict=True)}
    assert (await stopped(world, found))[:2] == [by_id[each.id] for each in found[:2]]


async def test_a_trial_that_ended_before_the_judge_looked_leaves_its_results(world: World) -> None:
    found = await sweep_of(world, 3)
    for value, each in zip((0.1, 0.2), found, strict=False):
        await report(world, each.id, [4, 12, 31], [1.0, value, 0.01])
        async with world.sessions.begin() as session:
            await end(session, each.id, 1, Ending(Reason.COMPLETED), USER)
    await Sweeps(world.sessions, world.settings).run_once()
    async with world.sessions() as session:
        rows = (await session.scalars(select(RungResult).order_by(RungResult.step, RungResult.id))).all()
    assert [(each.step, each.value) for each in rows] == [(10, 0.1), (10, 0.2), (30, 0.01), (30, 0.01)]
    await report(world, found[2].id, [10], [0.5])
    await Judge(world.sessions).run_once()
    assert (await stopped(world, found))[2]


async def test_a_trial_that_begins_anew_keeps_the_results_of_its_first_attempt(world: World) -> None:
    found = await sweep_of(world, 3)
    judge = Judge(world.sessions)
    await report(world, found[0].id, [10], [0.5])
    await judge.run_once()
    async with world.sessions.begin() as session:
        await end(session, found[0].id, 1, Ending(Reason.MACHINE_LOST), USER, retry_after=timedelta(0))
    await world.host()
    await Planner(world.sessions, world.settings).tick()
    await world.hello(found[0].id)
    await report(world, found[0].id, [5, 10, 30], [0.9, 0.9, 0.9])
    await judge.run_once()
    async with world.sessions() as session:
        rows = (await session.scalars(select(RungResult).order_by(RungResult.step))).all()
    assert [(each.step, each.value) for each in rows] == [(10, 0.5), (30, 0.9)]


async def test_higher_is_better_if_the_objective_says_so(world: World) -> None:
    found = await sweep_of(world, 3, mode="MAX")
    judge = Judge(world.sessions)
    for value, each in zip((0.8, 0.9, 0.1), found, strict=True):
        await report(world, each.id, [10], [value])
        await judge.run_once()
    assert await stopped(world, found) == [False, False, True]


async def test_rules_that_a_user_sets_instead_end_the_comparison(world: World) -> None:
    found = await sweep_of(world, 3)
    judge = Judge(world.sessions)
    async with world.sessions.begin() as session:
        row = await lifecycle.lock(session, found[2].id)
        assert row is not None
        await update(session, row, {"stopping": None}, USER, stop_grace=timedelta(0))
    for value, each in zip((0.1, 0.2, 0.9), found, strict=True):
        await report(world, each.id, [10], [value])
        await judge.run_once()
    assert await stopped(world, found) == [False, False, False]


# --- the median rule -------------------------------------------------------------------------------------------


def test_a_climb_by_the_median_rule_has_averages_of_finite_values() -> None:
    climb = Climb("loss", Median(100, grace_period=10))
    assert climb.feed(1, [1, 9], [5.0, math.nan]) is None
    assert climb.feed(1, [10, 35], [3.0, 1.0]) == Reached("loss", [(10, 3.0), (20, 1.0), (30, 1.0)], [4.0, 3.0, 3.0])
    assert climb.renewed().feed(1, [10], [math.nan]) == Reached("loss", [(10, math.inf)], [math.inf])


async def test_a_trial_below_the_median_of_finished_ones_is_stopped_once_five_have_finished(world: World) -> None:
    found = await sweep_of(world, 8, reduction_factor=None)
    judge = Judge(world.sessions)
    for value, each in zip((0.1, 0.2, 0.3, 0.4), found, strict=False):
        await report(world, each.id, [1, 10], [1.0, value])
        await judge.run_once()
        async with world.sessions.begin() as session:
            await end(session, each.id, 1, Ending(Reason.COMPLETED), USER)
    await Sweeps(world.sessions, world.settings).run_once()
    early, fifth, worse, better = found[4:]
    await report(world, early.id, [10], [0.9])
    await judge.run_once()
    assert not any(await stopped(world, [early])), "four have finished"

    await report(world, fifth.id, [1, 10], [1.0, 0.5])
    async with world.sessions.begin() as session:  # before the judge has looked
        await end(session, fifth.id, 1, Ending(Reason.COMPLETED), USER)
    await Sweeps(world.sessions, world.settings).run_once()
    await report(world, worse.id, [10], [0.7])
    await report(world, better.id, [10], [0.64])
    for _ in range(2):  # a restart changes nothing: the first comparison of each was made
        await Judge(world.sessions).run_once()
        assert await stopped(world, [early, worse, better]) == [False, True, False]
    stop = await world.stop_of(worse.id)
    assert (stop.reason, stop.by) == (Reason.PRUNED, "judge")
    facts = {name: stop.evidence[name] for name in ("rule", "metric", "step", "value", "median", "seen")}
    assert facts == {"rule": "PRUNED", "metric": "loss", "step": 10, "value": 0.7, "median": 0.65, "seen": 5}

    async with world.sessions.begin() as session:
        await end(session, worse.id, 1, Ending(Reason.PRUNED), USER)
    await Sweeps(world.sessions, world.settings).run_once()
    async with world.sessions() as session:
        assert worse.sweep_id is not None
        trial = (await history(session, worse.sweep_id))[6]
    assert (trial.outcome, trial.value, trial.step) == ("PRUNED", 0.7, 10)
