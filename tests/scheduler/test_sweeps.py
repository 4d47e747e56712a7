"""Sweeps: trials begin and end, budgets, seeds, restarts at any point, cancel and extend, what a round costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from statements import sent_by

from db import simulations, sweeps
from db.convergence import Column, store
from db.errors import Refusal, Taken, WrongState
from db.events import Actor
from db.models import Project, Simulation, Sweep, Trial
from db.simulations import Wanted
from db.states import Reason
from db.sweeps import WantedSweep
from policy.search_space import Parameter, encode
from scheduler import sweeps as sweeps_module
from scheduler.planner import Planner
from scheduler.sweeps import Sweeps
from transitions import sweep as transitions
from transitions.settle import Ending, end
from transitions.submit import repeat
from transitions.update import update

World = Any  # the fixture of conftest.py
USER = Actor("user")
SPACE = encode([Parameter("lr", low=1e-4, high=1e-1, log=True), Parameter("batch", choices=(64, 128))])


@pytest.fixture
def loop(world: World) -> Sweeps:
    return Sweeps(world.sessions, world.settings)


async def wanted(world: World, template: dict[str, Any] | None = None, **given: Any) -> WantedSweep:
    async with world.sessions() as session:
        project = (await session.scalars(select(Project.id).where(Project.name == "default"))).one()
    command = {"entrypoint": ("train", "--lr={lr}", "{batch}"), "parameters": {"fixed": 1}}
    made: dict[str, Any] = {
        "template": Wanted(project_id=project, name="s", **{**command, **(template or {})}), "name": "s",
        "space": SPACE, "sampler": "RANDOM", "seed": 7, "objective_metric": "val/loss", "objective_mode": "MIN",
        "trials": 4, "parallel": 2,
    }  # fmt: skip
    return WantedSweep(**{**made, **given})


async def create(world: World, template: dict[str, Any] | None = None, **given: Any) -> int:
    async with world.sessions.begin() as session:
        made = await sweeps.create(
            session, await wanted(world, template, **given), USER, client_key=None, given_seed=True
        )
        return made.id


async def get(world: World, sweep_id: int) -> Sweep:
    async with world.sessions() as session:
        return await sweeps.get(session, sweep_id)


async def trials(world: World, sweep_id: int) -> Sequence[Trial]:
    async with world.sessions() as session:
        return await sweeps.history(session, sweep_id)


async def runs(world: World, sweep_id: int) -> Sequence[Simulation]:
    async with world.sessions() as session:
        found = await session.scalars(select(Simulation).where(Simulation.sweep_id == sweep_id).order_by(Simulation.id))
        return found.all()


async def start(world: World) -> None:
    """Everything that waits gets a machine, and says hello."""
    await world.machine(cpus=1000.0)
    while (await Planner(world.sessions, world.settings).tick()).assigned:
        pass
    async with world.sessions() as session:
        starting = (await session.scalars(select(Simulation.id).where(Simulation.state == "STARTING"))).all()
    for each in starting:
        await world.hello(each)


async def finish(world: World, run: Simulation, value: float | None, reason: Reason = Reason.COMPLETED) -> None:
    """A running simulation reports its value, and ends."""
    async with world.sessions.begin() as session:
        if value is not None:
            await store(session, run.id, 1, 1, {"val/loss": Column([1], [value], [1.0])})
    async with world.sessions.begin() as session:
        assert await end(session, run.id, 1, Ending(reason), USER)


async def play(world: World, sweep_id: int, *, restarts: bool = False) -> None:
    """Run a sweep to its end; with `restarts` each round by another scheduler. The value is a function of lr."""
    loop = Sweeps(world.sessions, world.settings)
    while (await get(world, sweep_id)).ended_at is None:
        await loop.run_once()
        if restarts:
            loop = Sweeps(world.sessions, world.settings)
        await start(world)
        running = [each for each in await runs(world, sweep_id) if each.state == "RUNNING"]
        for each in running[:1]:
            await finish(world, each, abs(each.parameters["lr"] - 0.01))


# --- trials ----------------------------------------------------------------------------------------------------


async def test_trials_begin_as_many_at_once_as_may_with_their_parameters_in_the_command(
    world: World, loop: Sweeps
) -> None:
    sweep_id = await create(world)
    summary = await loop.run_once()
    assert (summary.active, summary.begun, summary.unfinished) == (1, 2, False)
    assert (await loop.run_once()).begun == 0
    found = await runs(world, sweep_id)
    assert [(each.name, each.trial) for each in found] == [("s-0", 0), ("s-1", 1)]
    for each, trial in zip(found, await trials(world, sweep_id), strict=True):
        assert each.parameters == {**trial.parameters, "fixed": 1}
        assert each.entrypoint == ["train", f"--lr={trial.parameters['lr']}", str(trial.parameters["batch"])]
        assert each.created_by == "scheduler"
        assert trial.outcome is None


async def test_an_ended_trial_makes_room_for_the_next_and_the_last_one_ends_the_sweep(
    world: World, loop: Sweeps
) -> None:
    sweep_id = await create(world)
    await loop.run_once()
    await start(world)
    first, second = await runs(world, sweep_id)
    await finish(world, second, 0.25)
    summary = await loop.run_once()
    assert (summary.ended, summary.begun) == (1, 1)
    told = (await trials(world, sweep_id))[1]
    assert (told.outcome, told.value, told.spread, told.step) == ("COMPLETE", 0.25, None, None)
    assert told.ended_at is not None

    await finish(world, first, None, Reason.EXIT_CODE)
    await loop.run_once()
    await loop.run_once()
    row = await get(world, sweep_id)
    assert (row.reason, row.ended_at) == ("COMPLETED", None), "all have begun, two have not ended"
    await start(world)
    for each in (await runs(world, sweep_id))[2:]:
        await finish(world, each, 0.5)
    await loop.run_once()
    assert (await get(world, sweep_id)).ended_at is not None
    assert [each.outcome for each in await trials(world, sweep_id)] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert (await loop.run_once()).active == 0
    async with world.sessions() as session:
        best = (await sweeps.best_trials(session, [sweep_id]))[sweep_id]
    assert (best.number, best.value) == (1, 0.25)


@pytest.mark.parametrize("sampler", ["TPE", "CMA_ES"])
async def test_a_scheduler_that_is_replaced_each_round_gives_the_same_parameters(world: World, sampler: str) -> None:
    given = {"sampler": sampler, "space": SPACE[:1], "trials": 13, "parallel": 2}
    command = {"entrypoint": ("train", "{lr}")}
    one, other = await create(world, command, **given), await create(world, command, **given)
    await play(world, one)
    await play(world, other, restarts=True)
    parameters = [each.parameters for each in await trials(world, one)]
    assert parameters == [each.parameters for each in await trials(world, other)]
    assert len({each["lr"] for each in parameters}) == 13


async def test_two_leaders_begin_each_trial_once(world: World) -> None:
    sweep_id = await create(world, parallel=4)
    await asyncio.gather(*(Sweeps(world.sessions, world.settings).run_once() for _ in range(3)))
    await Sweeps(world.sessions, world.settings).run_once()
    assert [each.trial for each in await runs(world, sweep_id)] == [0, 1, 2, 3]
    first = await create(world, parallel=4)
    await Sweeps(world.sessions, world.settings).run_once()
    assert [each.parameters for each in await trials(world, sweep_id)] == [
        each.parameters for each in await trials(world, first)
    ]


async def test_a_preempted_trial_goes_on_and_one_on_no_machine_is_open(world: World, loop: Sweeps) -> None:
    sweep_id = await create(world, trials=1)
    await loop.run_once()
    await start(world)
    [run] = await runs(world, sweep_id)
    async with world.sessions.begin() as session:
        await end(session, run.id, 1, Ending(Reason.PREEMPTED), USER, retry_after=timedelta(0))
    assert (await loop.run_once()).ended == 0
    assert (await trials(world, sweep_id))[0].outcome is None


async def test_seeds_are_simulations_of_their_own_and_their_mean_is_the_result(world: World, loop: Sweeps) -> None:
    command = {"entrypoint": ("train", "--lr={lr}", "{batch}", "{seed}")}
    sweep_id = await create(world, command, seeds=3, parallel=1)
    await loop.run_once()
    found = await runs(world, sweep_id)
    assert [(each.name, each.trial, each.entrypoint[-1]) for each in found] == [
        ("s-0-seed0", 0, "0"), ("s-0-seed1", 0, "1"), ("s-0-seed2", 0, "2"),
    ]  # fmt: skip
    assert len({each.entrypoint[1] for each in found}) == 1
    await start(world)
    for value, each in zip((1.0, 2.0, 3.0), found, strict=True):
        await finish(world, each, value)
        await loop.run_once()
    [told, _] = await trials(world, sweep_id)
    assert (told.outcome, told.value, told.spread) == ("COMPLETE", 2.0, 1.0)


async def test_a_command_that_always_fails_ends_the_sweep(world: World, loop: Sweeps) -> None:
    sweep_id = await create(world, trials=100, parallel=1)
    for number in range(5):
        await loop.run_once()
        await start(world)
        await finish(world, (await runs(world, sweep_id))[number], None, Reason.EXIT_CODE)
    await loop.run_once()
    row = await get(world, sweep_id)
    assert (row.reason, len(await runs(world, sweep_id))) == ("TRIALS_FAILED", 5)
    assert row.ended_at is not None


async def test_a_sampler_that_raises_holds_up_no_other_sweep(
    world: World, loop: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = await create(world, seed=1), await create(world, seed=2)
    real = sweeps_module.ask

    def ask(sampler: Any, space: Any, mode: str, seed: int, history: Any) -> Any:
        if seed == 1:
            raise ArithmeticError("singular")
        return real(sampler, space, mode, seed, history)

    monkeypatch.setattr(sweeps_module, "ask", ask)
    assert (await loop.run_once()).begun == 2
    assert (len(await runs(world, broken)), len(await runs(world, sound))) == (0, 2)
    monkeypatch.setattr(sweeps_module, "ask", real)
    await loop.run_once()
    assert len(await runs(world, broken)) == 2


async def test_a_sampler_that_goes_on_to_raise_ends_its_sweep_with_a_sentence(
    world: World, loop: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_id = await create(world)

    def ask(*_: Any) -> Any:
        raise ArithmeticError("singular")

    monkeypatch.setattr(sweeps_module, "ask", ask)
    for _ in range(sweeps_module.MOST_FAILURES):
        assert (await get(world, sweep_id)).reason is None
        await loop.run_once()
    await loop.run_once()
    row = await get(world, sweep_id)
    assert (row.reason, row.reason_detail) == (
        "TRIALS_FAILED",
        "The next trial can't be submitted: the sampler RANDOM can't choose its parameters (singular).",
    )
    assert row.ended_at is not None
    monkeypatch.undo()
    async with world.sessions.begin() as session:
        await transitions.extend(session, sweep_id, {"trials": 5}, USER)
    assert (await loop.run_once()).begun == 2


async def test_a_sweep_can_not_be_extended_beyond_its_grid_or_a_thousand_simulations_at_once(world: World) -> None:
    space = encode([Parameter("batch", choices=(64, 128))])
    sweep_id = await create(world, {"entrypoint": ("x",)}, sampler="GRID", space=space, trials=1, seeds=50)
    for given, words in (({"trials": 3}, "its grid has 2"), ({"parallel": 21}, "more than 1,000 simulations at once")):
        async with world.sessions.begin() as session:
            with pytest.raises(Refusal, match=words):
                await transitions.extend(session, sweep_id, given, USER)
    async with world.sessions.begin() as session:
        await transitions.extend(session, sweep_id, {"trials": 2, "parallel": 20}, USER)


async def test_a_trial_that_can_not_be_submitted_ends_its_sweep_and_no_other(world: World, loop: Sweeps) -> None:
    gone = await world.machine("gone")
    broken = await create(world, {"machine_id": gone, "machine_name": "gone"})
    sound = await create(world)
    await world.execute("DELETE FROM machines WHERE id = :id", id=gone)
    assert (await loop.run_once()).begun == 2
    assert len(await runs(world, sound)) == 2
    await loop.run_once()
    row = await get(world, broken)
    assert (row.reason, row.reason_detail) == (
        "TRIALS_FAILED", "The next trial can't be submitted: There is no such machine.",
    )  # fmt: skip
    assert row.ended_at is not None


async def test_a_sweep_whose_objective_no_trial_reports_says_which_metrics_there_are(
    world: World, loop: Sweeps
) -> None:
    sweep_id = await create(world, objective_metric="val_loss", trials=2)
    other = await create(world, objective_metric="val/loss", trials=1)
    crashed = await create(world, objective_metric="val_loss", trials=1)
    await loop.run_once()
    await start(world)
    for each in [*await runs(world, sweep_id), *await runs(world, other)]:
        await finish(world, each, 0.5)
    [run] = await runs(world, crashed)
    await finish(world, run, 0.5, Reason.EXIT_CODE)
    await loop.run_once()
    row = await get(world, sweep_id)
    assert row.ended_at is not None
    assert (row.reason, row.reason_detail) == (
        "TRIALS_FAILED",
        "None of its 2 trials has a result. No trial reported val_loss; they reported val/loss: create a sweep with it "
        "as its objective.",
    )
    row = await get(world, other)
    assert (row.reason, row.reason_detail) == ("COMPLETED", "Its only trial has begun.")
    row = await get(world, crashed)
    assert (row.reason, row.reason_detail) == ("TRIALS_FAILED", "Its trial has no result.")
    async with world.sessions.begin() as session:
        await transitions.extend(session, sweep_id, {"trials": 3}, USER)
    assert (await loop.run_once()).begun == 1


# --- money -----------------------------------------------------------------------------------------------------


async def test_limits_of_what_runs_and_costs_of_what_ended_never_exceed_the_budget(world: World, loop: Sweeps) -> None:
    sweep_id = await create(world, {"max_cost": Decimal(3)}, max_cost=Decimal(8), trials=50, parallel=2)
    for _ in range(200):
        await loop.run_once()
        if (await get(world, sweep_id)).ended_at is not None:
            break
        await world.machine(
            price_per_hour=Decimal("0.36"), cpus=4.0
        )  # it also beats: this may take longer than a lease
        while (await Planner(world.sessions, world.settings).tick()).assigned:
            pass
        found = await runs(world, sweep_id)
        open_ = [each for each in found if not each.state.is_final]
        assert open_
        assert all(each.max_cost is not None and each.max_cost <= 3 for each in open_)
        spent = sum((each.final_cost for each in found if each.final_cost is not None), Decimal(0))
        assert spent + sum((each.max_cost or Decimal(0) for each in open_), Decimal(0)) <= 8
        [ends, *_] = [each for each in open_ if each.state != "QUEUED"]
        if ends.state == "STARTING":
            await world.hello(ends.id)
        await world.execute(  # 9 cents an hour for a quarter of the machine: 90 cents
            "UPDATE members SET assigned_at = now() - interval '10 h' WHERE attempt_id IN "
            "(SELECT id FROM attempts WHERE simulation_id = :id)",
            id=ends.id,
        )
        await finish(world, ends, 0.5)
    row = await get(world, sweep_id)
    assert row.reason == "MAX_COST", row.reason
    total = sum((each.cost or Decimal(0) for each in await trials(world, sweep_id)), Decimal(0))
    assert 4 < total <= 8
    assert row.reason_detail is not None
    assert "less than a trial has cost" in row.reason_detail


async def test_a_trial_is_paid_its_stop_grace_beside_what_one_has_cost(world: World) -> None:
    loop = Sweeps(world.sessions, world.settings.model_copy(update={"stop_grace_seconds": 3600.0}))
    sweep_id = await create(world, max_cost=Decimal(3), trials=50, parallel=1)
    await loop.run_once()
    await world.machine(price_per_hour=Decimal(4), cpus=4.0)  # of which a trial has a quarter
    await Planner(world.sessions, world.settings).tick()
    [first] = await runs(world, sweep_id)
    await world.hello(first.id)
    await world.execute("UPDATE members SET assigned_at = now() - interval '1 h'")
    await finish(world, first, 0.5)
    async with world.sessions.begin() as session:  # 1 for the trial, and 1 for an hour of grace
        await transitions.extend(session, sweep_id, {"max_cost": Decimal("2.9")}, USER)
    await loop.run_once()
    row = await get(world, sweep_id)
    assert (row.reason, len(await runs(world, sweep_id))) == ("MAX_COST", 1)
    async with world.sessions.begin() as session:
        await transitions.extend(session, sweep_id, {"max_cost": Decimal("3.1")}, USER)
    await loop.run_once()
    [_, second] = await runs(world, sweep_id)
    assert second.max_cost is not None
    assert second.max_cost >= 2


async def test_the_first_trials_are_paid_the_stop_grace_of_the_dearest_machine(world: World) -> None:
    """They had a share each, whatever its size: all were cut short at once, and the sweep had failed."""
    loop = Sweeps(world.sessions, world.settings.model_copy(update={"stop_grace_seconds": 3600.0}))
    await world.machine(price_per_hour=Decimal(4), cpus=4.0)
    sweep_id = await create(world, max_cost=Decimal(9), trials=50, parallel=8)
    await loop.run_once()
    assert [each.max_cost for each in await runs(world, sweep_id)] == [Decimal("4.5"), Decimal("4.5")]
    poor = await create(world, max_cost=Decimal(3), trials=50, parallel=8)
    await loop.run_once()
    assert [each.max_cost for each in await runs(world, poor)] == [Decimal(3)]


async def test_the_share_of_a_trial_is_no_limit_to_change(world: World, loop: Sweeps) -> None:
    sweep_id = await create(world, max_cost=Decimal(8))
    await loop.run_once()
    [run, _] = await runs(world, sweep_id)
    async with world.sessions.begin() as session:
        row = await simulations.get(session, run.id)
        with pytest.raises(WrongState, match="its share of the budget of its sweep"):
            await update(session, row, {"max_cost": Decimal(100)}, USER, stop_grace=timedelta(0))


# --- on request ------------------------------------------------------------------------------------------------


async def test_a_cancelled_sweep_cancels_what_is_open_and_ends_with_it(world: World, loop: Sweeps) -> None:
    sweep_id = await create(world)
    await loop.run_once()
    first, second = await runs(world, sweep_id)
    await world.machine(cpus=1.0)
    await Planner(world.sessions, world.settings).tick()
    async with world.sessions.begin() as session:
        await transitions.cancel(session, sweep_id, USER)
    async with world.sessions.begin() as session:
        await transitions.cancel(session, sweep_id, USER)  # idempotent
    assert await world.state(second.id) == "CANCELLED"
    stop = await world.stop_of(first.id)
    assert stop is not None
    assert stop.reason is Reason.CANCELLED
    await loop.run_once()
    assert (await get(world, sweep_id)).ended_at is None
    async with world.sessions.begin() as session:
        await end(session, first.id, 1, Ending(Reason.CANCELLED), USER)
    await loop.run_once()
    row = await get(world, sweep_id)
    assert row.ended_at is not None
    assert (row.reason, row.reason_detail) == ("CANCELLED", "Cancelled by user.")
    assert [each.outcome for each in await trials(world, sweep_id)] == ["CANCELLED", "CANCELLED"]
    async with world.sessions.begin() as session:
        with pytest.raises(WrongState):
            await transitions.extend(session, sweep_id, {"trials": 9}, USER)


async def test_a_sweep_is_not_extended_by_trials_that_would_not_begin(world: World) -> None:
    reached = await create(world, trials=6, target=1e9)
    patient = await create(world, trials=6, patience=1)
    for each in (reached, patient):
        await play(world, each)
    async with world.sessions.begin() as session:
        with pytest.raises(Refusal, match=r"no more would begin\. A trial has reached .* another target"):
            await transitions.extend(session, reached, {"trials": 9}, USER)
    async with world.sessions.begin() as session:
        with pytest.raises(Refusal, match="a larger patience, too"):
            await transitions.extend(session, patient, {"trials": 9}, USER)
    async with world.sessions.begin() as session:
        assert (await transitions.extend(session, patient, {"trials": 9, "patience": 9}, USER)).reason is None
    assert (await get(world, reached)).trials == 6


async def test_an_extended_sweep_goes_on_where_it_was(world: World, loop: Sweeps) -> None:
    sweep_id = await create(world, trials=2)
    longer = await create(world, trials=4)
    await play(world, sweep_id)
    async with world.sessions.begin() as session:
        with pytest.raises(Refusal, match="2 have begun"):
            await transitions.extend(session, sweep_id, {"trials": 1}, USER)
        with pytest.raises(WrongState):
            await transitions.cancel(session, sweep_id, USER)
        row = await transitions.extend(session, sweep_id, {"trials": 4}, USER)
        assert (row.reason, row.ended_at) == (None, None)
    await play(world, sweep_id)
    await play(world, longer)
    assert [each.parameters for each in await trials(world, sweep_id)] == [
        each.parameters for each in await trials(world, longer)
    ]


async def test_a_budget_can_be_raised_and_not_lowered_below_what_is_spent_or_allotted(
    world: World, loop: Sweeps
) -> None:
    sweep_id = await create(world, max_cost=Decimal(8))
    await loop.run_once()
    async with world.sessions.begin() as session:
        with pytest.raises(Refusal, match="spent or allotted"):
            await transitions.extend(session, sweep_id, {"max_cost": Decimal(7)}, USER)
        row = await transitions.extend(session, sweep_id, {"max_cost": Decimal(9)}, USER)
        assert row.max_cost == 9
    free = await create(world)
    async with world.sessions.begin() as session:
        with pytest.raises(WrongState, match="no budget"):
            await transitions.extend(session, free, {"max_cost": Decimal(7)}, USER)


async def test_the_same_key_returns_the_sweep_and_another_content_is_refused(world: World) -> None:
    one = await wanted(world)

    async def keyed(content: WantedSweep, *, given_seed: bool = False) -> int:
        async with world.sessions.begin() as session:
            made = await sweeps.create(session, content, USER, client_key="k", given_seed=given_seed)
            return made.id

    first = await keyed(one)
    assert await keyed(one) == first
    assert await keyed(await wanted(world, seed=8)) == first, "the seed was drawn"
    with pytest.raises(Taken):
        await keyed(await wanted(world, trials=5))


async def test_the_winner_is_repeated_without_what_its_sweep_had_set(world: World, loop: Sweeps) -> None:
    template = {"max_cost": Decimal(5), "max_steps": 100}
    sweep_id = await create(world, template, max_cost=Decimal(8), grace_period=10, reduction_factor=3, trials=1)
    await loop.run_once()
    await start(world)
    [run] = await runs(world, sweep_id)
    assert (run.max_cost, run.stopping is not None) == (Decimal(5), True)
    await finish(world, run, 0.5)
    async with world.sessions.begin() as session:
        again = await repeat(session, run.id, USER)
        assert (again.sweep_id, again.trial, again.max_cost, again.stopping) == (None, None, Decimal(5), None)
        assert (again.parameters, again.entrypoint) == (run.parameters, run.entrypoint)
    with pytest.raises(WrongState, match="not yet noted"):
        async with world.sessions.begin() as session:
            await simulations.delete_ended(session, run.id, USER)
    await loop.run_once()
    async with world.sessions.begin() as session:
        await simulations.delete_ended(session, run.id, USER)
    assert (await trials(world, sweep_id))[0].value == 0.5, "the trial outlives its simulation"


# --- what a round costs ----------------------------------------------------------------------------------------


async def test_without_sweeps_a_hint_is_nothing_and_the_planners_look_finds_new_ones(
    world: World, loop: Sweeps
) -> None:
    assert not loop.note()
    planner = Planner(world.sessions, world.settings)
    assert not (await planner.tick()).has_sweeps
    sweep_id = await create(world, trials=1)
    assert (await planner.tick()).has_sweeps
    assert loop.note(found=True)
    await loop.run_once()
    await loop.run_once()
    assert loop.note(), "now the end of any simulation may concern one"
    async with sent_by(world.sessions) as sent:
        await loop.run_once()
    assert len([each for each in sent if "SELECT" in each]) == 1, "nothing is due"
    await start(world)
    await finish(world, (await runs(world, sweep_id))[0], 1.0)
    await loop.run_once()
    await loop.run_once()
    assert not (await planner.tick()).has_sweeps
    assert not loop.note()


async def test_a_hint_during_a_round_is_not_lost(world: World, loop: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(world, trials=1)
    real = sweeps.active

    async def active(session: Any) -> Any:
        found = await real(session)
        loop.note(found=True)
        return found

    await loop.run_once()
    await loop.run_once()
    monkeypatch.setattr(sweeps_module.sweeps, "active", active)
    await loop.run_once()
    assert loop.is_due
