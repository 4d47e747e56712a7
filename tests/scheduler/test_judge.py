"""The judge: verdicts by the stored curve, dry runs, restarts, superseded points, changed rules, what is read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from statements import sent_by

from db import convergence, curve, judged, lifecycle
from db.convergence import Column
from db.events import PLANNER, Actor
from db.notifications import Channel
from db.states import Reason
from policy.rule_documents import Declared, encode
from policy.stopping import StopRules
from policy.stopping import judge as judge_curve
from scheduler import judge as judge_module
from scheduler.judge import Judge, JudgeSummary
from scheduler.planner import Planner
from transitions.settle import Ending, end
from transitions.update import update

World = Any  # the fixture of conftest.py
USER = Actor("user")
PATIENT = StopRules("val/loss", patience=3)


@pytest.fixture
def judge(world: World) -> Judge:
    return Judge(world.sessions)


class Run:
    """A running simulation that reports a metric."""

    def __init__(self, world: World, simulation_id: int) -> None:
        self.world, self.id = world, simulation_id
        self._batches = itertools.count(1)
        self._step = itertools.count()

    async def report(self, *values: float, metric: str = "val/loss", since: int | None = None) -> None:
        """One batch of points, at the next steps, or from a step on."""
        if since is not None:
            self._step = itertools.count(since)
        steps = [next(self._step) for _ in values]
        simulation = await self.world.get(self.id)
        async with self.world.sessions.begin() as session:
            column = Column(steps, list(values), [float(step) for step in steps])
            await convergence.store(session, self.id, simulation.attempt, next(self._batches), {metric: column})

    async def stop(self) -> Any:
        return await self.world.stop_of(self.id)

    async def change(self, **asked: Any) -> None:
        async with self.world.sessions.begin() as session:
            simulation = await lifecycle.lock(session, self.id)
            await update(session, simulation, asked, USER, stop_grace=timedelta(0))


async def start(world: World, *rules: StopRules, dry_run: bool = False, **given: Any) -> Run:
    if rules:
        given = {
            "stopping": encode([Declared(each, dry_run) for each in rules]), "objective_metric": rules[0].metric,
            "objective_mode": rules[0].mode, **given,
        }  # fmt: skip
    simulation_id = await world.simulation(**given)
    if not await machines(world):
        await world.machine(cpus=1000.0)
    assert (await Planner(world.sessions, world.settings).tick()).assigned == 1
    await world.hello(simulation_id)
    return Run(world, simulation_id)


async def machines(world: World) -> Sequence[Any]:
    async with world.sessions() as session:
        from db import machines as rows

        return await rows.every(session)


async def test_a_run_that_no_longer_improves_is_stopped_with_its_evidence(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT)
    await run.report(1.0, 0.5)
    assert (await judge.run_once()).stopped == 0
    assert await run.stop() is None
    await run.report(0.6, 0.6)
    assert (await judge.run_once()).stopped == 0
    await run.report(0.6, 0.7)

    summary = await judge.run_once()

    assert (summary.stopped, summary.recorded, summary.unfinished) == (1, 0, False)
    stop = await run.stop()
    assert (stop.reason, stop.by) == (Reason.PATIENCE_EXHAUSTED, "judge")
    facts = {name: stop.evidence[name] for name in ("rule", "metric", "step", "value", "bestStep", "bestValue")}
    assert facts == {
        "rule": "PATIENCE", "metric": "val/loss", "step": 4, "value": 0.6, "bestStep": 1, "bestValue": 0.5,
    }  # fmt: skip
    assert "val/loss has not improved on 0.5 (step 1) for 3 evaluations" in stop.evidence["sentence"]
    [told] = [each for each in await world.events_of(run.id) if each.kind == "STOP_WANTED"]
    assert told.detail == {"reason": "PATIENCE_EXHAUSTED", "evidence": dict(stop.evidence)}
    assert (await judge.run_once()).stopped == 0, "it is stopped once"


async def test_the_end_has_the_reason_and_the_sentence_of_the_rule(world: World, judge: Judge) -> None:
    for rules, values, expected in (
        (PATIENT, (1.0, 2.0, 2.0, 2.0), ("FINISHED", "PATIENCE_EXHAUSTED")),
        (StopRules("loss", stopping_threshold=0.1), (1.0, 0.05), ("FINISHED", "STOPPING_THRESHOLD")),
        (StopRules("loss", divergence_threshold=10.0), (1.0, 11.0), ("FAILED", "DIVERGENCE_THRESHOLD")),
        (StopRules("loss"), (1.0, math.nan), ("FAILED", "NON_FINITE_METRIC")),
    ):
        run = await start(world, rules, max_retries=3, retry_on=("MACHINE_LOST", "EXIT_CODE"))
        await run.report(*values, metric=rules.metric)
        assert (await judge.run_once()).stopped == 1
        await world.silence(run.id, leases=3)
        await world.cover(leases=10)
        await world.host_dies()
        await Planner(world.sessions, world.settings).tick()  # lost after its stop: no retry
        ended = await world.get(run.id)
        assert (ended.state, ended.reason) == expected
        assert ended.reason_detail.startswith(f"{rules.metric} ")
        await world.host()


@pytest.mark.parametrize("rules", [PATIENT, StopRules("val/loss"), StopRules("val/loss", max_steps=60, smoothing=0.3)])
async def test_every_way_to_read_the_curve_reaches_the_verdict_of_the_whole_curve(
    world: World, rules: StopRules
) -> None:
    values = [1 / (step + 1) + (0.3 if step > 8 else 0) + 0.01 * (step % 3) for step in range(50)]
    expected = judge_curve(rules, range(50), values)
    assert expected is not None

    async def steps_of(renewed: bool) -> Mapping[str, Any]:
        judge = Judge(world.sessions)
        run = await start(world, rules, max_steps=rules.max_steps)
        for begin in range(0, 50, 3):
            await run.report(*values[begin : begin + 3])
            if renewed:  # a restart, or a change of leader
                judge = Judge(world.sessions)
            await judge.run_once()
        return dict((await run.stop()).evidence)

    for renewed in (False, True):
        found = await steps_of(renewed)
        assert (found["rule"], found["step"], found["values"]) == (
            expected.rule, expected.step, list(expected.values),
        )  # fmt: skip


async def test_a_verdict_that_was_not_carried_out_is_reached_again(
    world: World, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start(world, PATIENT)
    await run.report(1.0, 2.0, 2.0, 2.0)
    with monkeypatch.context() as patch:
        patch.setattr("scheduler.judge.stop_locked", _killed)
        with pytest.raises(ConnectionError):
            await judge.run_once()
    assert await run.stop() is None
    assert (await judge.run_once(everything=False)).stopped == 1, "it judges all of them after a failure"


async def _killed(*_: object, **__: object) -> bool:
    raise ConnectionError("the scheduler was killed here")


async def test_a_dry_run_records_once_and_stops_nothing(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT, dry_run=True, max_steps=100)
    await run.report(1.0, 2.0, 2.0, 2.0)
    assert (await judge.run_once()).recorded == 1
    assert await run.stop() is None
    recorded = (await world.get(run.id)).would_stop["0"]
    assert (recorded["reason"], recorded["step"]) == ("PATIENCE_EXHAUSTED", 3)
    assert recorded["sentence"].startswith("Dry run, nothing was stopped: val/loss has not improved")
    assert recorded["sentence"].endswith(" would have been saved, by maxSteps of 100.")
    await run.report(2.0, 2.0)
    assert (await judge.run_once()).recorded == (await Judge(world.sessions).run_once()).recorded == 0
    kinds = [each.kind for each in await world.events_of(run.id)]
    assert (kinds.count("WOULD_STOP"), kinds.count("STOP_WANTED")) == (1, 0)
    assert (await world.state(run.id)) == "RUNNING"


async def test_what_a_stop_saves_is_estimated_from_the_planned_steps(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT, max_steps=13)
    await world.execute("UPDATE members SET price_per_hour = 2, share = 0.5")
    await world.execute("UPDATE attempts SET started_at = now() - interval '3600 s'")
    await run.report(1.0, 2.0, 2.0, 2.0)
    await judge.run_once()
    evidence = (await run.stop()).evidence
    assert round(evidence["saved"]["seconds"] / 60) == 10 * 60 / 3
    assert (evidence["saved"]["by"], evidence["saved"]["currency"]) == ("MAX_STEPS", "USD")
    assert (evidence["saved"]["endStep"], evidence["saved"]["similar"]) == (13, 0)
    assert "About 3 h 20 min and 3.33 USD saved, by maxSteps of 13." in evidence["sentence"]


async def test_without_a_plan_the_end_of_similar_runs_is_what_a_stop_saves(world: World, judge: Judge) -> None:
    for last in (12, 13, 14):
        done = await start(world, cpus=0.1)
        await done.report(1.0, since=last)
        await world.execute(
            "UPDATE simulations SET state = 'FINISHED', reason = 'COMPLETED', finished_at = now() WHERE id = :id",
            id=done.id,
        )
    run = await start(world, PATIENT, cpus=0.1)
    await world.execute("UPDATE members SET price_per_hour = 2, share = 0.5")
    await world.execute("UPDATE attempts SET started_at = now() - interval '3600 s'")
    await run.report(1.0, 2.0, 2.0, 2.0)
    await judge.run_once()
    evidence = (await run.stop()).evidence
    assert {**evidence["saved"], "seconds": 0} == {
        "seconds": 0, "amount": evidence["saved"]["amount"], "currency": "USD", "by": "FORECAST", "endStep": 13,
        "similar": 3,
    }  # fmt: skip
    told = "About 3 h 20 min and 3.33 USD saved, by a forecast end of 13, the median of 3 similar runs."
    assert told in evidence["sentence"]


async def test_several_rules_are_judged_at_once_and_only_the_objective_must_be_finite(
    world: World, judge: Judge
) -> None:
    run = await start(world, StopRules("val/loss"), StopRules("acc", "MAX", stopping_threshold=0.9))
    await run.report(math.nan, 0.5, metric="acc")
    assert (await judge.run_once()).stopped == 0, "NaN of another metric is a notice"
    await run.report(0.95, metric="acc")
    assert (await judge.run_once()).stopped == 1
    assert (await run.stop()).reason is Reason.STOPPING_THRESHOLD


async def test_points_that_a_later_attempt_supersedes_do_not_count(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT, max_retries=1)
    await run.report(1.0, 0.5, 0.6, 0.6)
    assert (await judge.run_once()).stopped == 0
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, run.id)
        assert await end(session, run.id, 1, Ending(Reason.MACHINE_LOST), PLANNER, retry_after=timedelta(0))
    await judge.run_once()
    await Planner(world.sessions, world.settings).tick()
    await world.hello(run.id)
    again = Run(world, run.id)
    await again.report(0.6, since=2)  # with the two of the first attempt it would be three

    assert (await judge.run_once(everything=True)).stopped == 0
    summary = await judge.run_once()
    assert summary.stopped == 0
    await again.report(0.6, 0.6)
    assert (await judge.run_once()).stopped == 1
    assert (await again.stop()).evidence["step"] == 4


async def test_rules_that_are_added_while_it_runs_decide_by_new_points_only(world: World, judge: Judge) -> None:
    run = await start(world)
    await run.report(1.0, 2.0, 2.0, 2.0, 2.0)
    assert (await judge.run_once()).points == 0
    rules = encode([Declared(PATIENT, since_step=4)])
    await run.change(stopping=rules, objective_metric="val/loss", objective_mode="MIN")
    judge.hear(Channel.SIMULATIONS, frozenset({run.id}))
    assert (await judge.run_once(everything=False)).stopped == 0, "all of it was there before the rules"
    await run.report(2.0)
    judge.hear(Channel.CONVERGENCE, frozenset({run.id}))
    assert (await judge.run_once(everything=False)).stopped == 1
    assert (await run.stop()).evidence["step"] == 5


@pytest.mark.parametrize(
    ("rules", "values", "given", "asked"),
    [
        pytest.param(
            StopRules("val/loss"), [1.0 / (1 + n) for n in range(40)] + [1.0] * 12 + [0.01], {"max_steps": 1000},
            {"max_steps": 60}, id="a plateau that a shorter plan would have been",
        ),
        pytest.param(
            StopRules("acc", "MAX", patience=100), [0.1, math.nan, 0.2], {"objective_metric": "val/loss"},
            {"objective_metric": "acc", "objective_mode": "MAX"}, id="a NaN of what was not the objective",
        ),
    ],
)  # fmt: skip
async def test_what_was_before_stops_nothing_when_its_rules_are_judged_otherwise(
    world: World, judge: Judge, rules: StopRules, values: Sequence[float], given: Mapping[str, Any],
    asked: Mapping[str, Any],
) -> None:  # fmt: skip
    run = await start(world, rules, **given)
    await run.report(*values, metric=rules.metric)
    assert (await judge.run_once()).stopped == 0
    await run.change(**asked)
    assert (await judge.run_once()).stopped == 0
    assert await run.stop() is None
    await run.report(math.nan, metric=rules.metric)
    assert (await judge.run_once()).stopped == 1


async def test_rules_that_were_changed_in_an_attempt_decide_by_all_points_of_the_next(
    world: World, judge: Judge
) -> None:
    run = await start(world, max_retries=1)
    await run.report(1.0, 2.0, 2.0, 2.0, 2.0)
    rules = encode([Declared(PATIENT)])
    await run.change(stopping=rules, objective_metric="val/loss", objective_mode="MIN")
    assert (await judge.run_once()).stopped == 0
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, run.id)
        assert await end(session, run.id, 1, Ending(Reason.MACHINE_LOST), PLANNER, retry_after=timedelta(0))
    await Planner(world.sessions, world.settings).tick()
    await world.hello(run.id)
    again = Run(world, run.id)
    await again.report(1.0, math.nan)
    assert (await judge.run_once()).stopped == 1
    assert (await again.stop()).evidence["step"] == 1


async def test_removed_rules_stop_nothing(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT)
    await run.report(1.0, 2.0, 2.0)
    await judge.run_once()
    await run.change(stopping=None)
    await run.report(2.0, 2.0)
    assert await judge.run_once() == await Judge(world.sessions).run_once()
    assert await run.stop() is None


async def test_a_verdict_on_rules_that_have_changed_meanwhile_is_dropped(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT)
    await run.report(1.0, 2.0)
    await judge.run_once()
    await run.report(2.0, 2.0)
    await run.change(stopping=encode([Declared(StopRules("val/loss", patience=30))]))
    judge.hear(Channel.CONVERGENCE, frozenset({run.id}))  # the hint of the change comes later
    assert (await judge.run_once(everything=False)).stopped == 0
    assert await run.stop() is None


async def test_between_timers_only_hinted_simulations_are_read_and_all_by_one_statement(
    world: World, judge: Judge, engine: AsyncEngine
) -> None:
    runs = [await start(world, PATIENT, cpus=0.1) for _ in range(3)]
    await judge.run_once()
    for run in runs:
        await run.report(1.0)
    judge.hear(Channel.CONVERGENCE, frozenset({runs[0].id, runs[1].id, 10**9}))
    assert (await judge.run_once(everything=False)).points == 2
    assert (await judge.run_once(everything=False)).points == 0
    assert (await judge.run_once()).points == 1, "by timer without hints"

    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for run in runs:
        await run.report(1.0)
    statements.clear()
    judge.hear(Channel.CONVERGENCE, None)
    assert (await judge.run_once(everything=False)).points == 3
    assert statements == [], "through SQLAlchemy; the one that reads goes through the driver"


async def test_a_round_without_anything_to_judge_is_one_statement(world: World, judge: Judge) -> None:
    plain = await start(world)
    async with sent_by(world.sessions) as sent:
        for _ in range(3):
            assert await judge.run_once() == JudgeSummary()
        judge.hear(Channel.CONVERGENCE, frozenset({plain.id}))  # points of a run without rules
        assert await judge.run_once(everything=False) == JudgeSummary()
    assert len(sent) == 3, sent

    for _ in range(5):
        await start(world, PATIENT, cpus=0.1)
    await judge.run_once()
    async with sent_by(world.sessions) as sent:
        assert await judge.run_once() == JudgeSummary()
    assert len(sent) == 2, "what has changed of the runs, and their new points: however many there are"


async def test_a_look_at_all_runs_compares_them_one_by_one_only_if_memory_and_rows_differ(
    world: World, judge: Judge
) -> None:
    runs = [await start(world, PATIENT, cpus=0.1) for _ in range(3)]
    await judge.run_once()

    async def compared() -> int:
        async with sent_by(world.sessions) as sent:
            await judge.run_once()
        return len([each for each in sent if "FULL JOIN" in each])

    assert await compared() == 0
    changed = encode([Declared(StopRules("val/loss", patience=30))])
    await runs[0].change(stopping=changed)
    assert (await compared(), await compared()) == (1, 0), "no hint came"
    await runs[1].change(stopping=changed)
    judge.hear(Channel.SIMULATIONS, frozenset({runs[1].id}))
    async with sent_by(world.sessions) as sent:
        await judge.run_once()
    assert [each for each in sent if "FULL JOIN" in each and "ANY" not in each] == [], "the hint was enough"
    await runs[2].change(stopping=None)
    assert (await compared(), await compared()) == (1, 0)
    judge.forget()
    assert (await compared(), await compared()) == (1, 0)


async def test_a_run_that_ends_while_more_of_it_is_unread_is_left_alone(world: World, judge: Judge) -> None:
    run = await start(world, StopRules("val/loss", patience=1000))
    other = await start(world, PATIENT, cpus=0.1)
    await judge.run_once()
    for _ in range(judged.MOST_ROWS + 5):
        await run.report(1.0)
    assert (await judge.run_once()).unfinished
    await world.execute(
        "UPDATE simulations SET state = 'FINISHED', reason = 'COMPLETED', finished_at = now() WHERE id = :id", id=run.id
    )
    await other.report(1.0)
    judge.hear(Channel.SIMULATIONS, frozenset({run.id}))
    judge.hear(Channel.CONVERGENCE, frozenset({other.id}))
    assert await judge.run_once(everything=False) == JudgeSummary(points=1)


async def test_a_stored_curve_is_read_in_pages_and_no_session_is_open_while_the_rules_compute(
    world: World, judge: Judge, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "FIRST_PAGE_ROWS", 2)
    monkeypatch.setattr(curve, "PAGE_POINTS", 4)
    run = await start(world, PATIENT, StopRules("val/loss", stopping_threshold=0.0), dry_run=True)
    for value in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        await run.report(value, value)
    open_ones: list[int] = []
    pages: list[int] = []
    feed_page = judge_module._feed_page

    def watched(watches: Any, page: Any) -> Any:
        open_ones.append(engine.sync_engine.pool.checkedout())  # type: ignore[attr-defined]  # of a queue
        pages.append(len(page.rows))
        return feed_page(watches, page)

    monkeypatch.setattr(judge_module, "_feed_page", watched)
    summary = await judge.run_once()
    assert summary.points == 2 * 14, "each rule sees each point, and the curve was read once"
    assert pages == [2, 2, 2, 1]
    assert open_ones == [0] * 4


async def test_a_long_page_is_read_to_its_end_in_further_rounds(world: World, judge: Judge) -> None:
    run = await start(world, StopRules("val/loss", patience=1000))
    await judge.run_once()
    for _ in range(judged.MOST_ROWS + 5):
        await run.report(1.0)
    first = await judge.run_once()
    assert (first.points, first.unfinished) == (judged.MOST_ROWS, True)
    second = await judge.run_once(everything=False)
    assert (second.points, second.unfinished) == (5, False)


async def test_a_metric_that_is_none_of_a_rule_moves_the_cursor_and_costs_no_points(world: World, judge: Judge) -> None:
    run = await start(world, PATIENT)
    await judge.run_once()
    await run.report(1.0, 1.0, metric="other")
    assert (await judge.run_once()).points == 0
    await run.report(1.0, since=0)
    assert (await judge.run_once()).points == 1
