"""Hello: the first nonce binds the attempt and begins it, the same one again changes nothing, any other is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from statements import sent_by

from db import attempts, lifecycle
from db.attempts import Claim, Receipt, Standing, Work
from db.events import PLANNER, Actor
from db.states import MetricsFrom, Reason
from policy.retry import Exit
from transitions.begin import Greeting, TimeLimits, greet, hello
from transitions.ingest import ingest
from transitions.report import Report
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]


async def test_the_first_nonce_binds_the_attempt_and_starts_the_simulation(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    token = await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        greeting = await hello(session, Claim(attempt_id, token, "mine"))
    assert greeting.standing is Standing.CURRENT
    assert greeting.work is not None
    assert (greeting.work.attempt_id, greeting.work.simulation_id) == (attempt_id, simulation_id)
    assert await rows.value("SELECT nonce FROM members WHERE attempt_id = :id", id=attempt_id) == "mine"
    assert await rows.state(simulation_id) == "RUNNING"


async def test_the_same_nonce_gets_the_same_answer_and_starts_nothing_twice(rows: Rows) -> None:
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    async with rows.sessions.begin() as session:
        greeting = await hello(session, started.claim)
    assert greeting.standing is Standing.CURRENT
    assert greeting.work is not None
    after = await rows.snapshot(started.simulation_id)
    assert (after["simulation"], after["events"]) == (before["simulation"], before["events"])
    assert after["attempts"][0]["started_at"] == before["attempts"][0]["started_at"]


async def test_another_nonce_is_told_that_it_is_over_and_takes_nothing_from_the_first(rows: Rows) -> None:
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    async with rows.sessions.begin() as session:
        greeting = await hello(session, Claim(started.attempt_id, started.token, "another"))
        assert greeting == Greeting(Standing.OVER)
        receipt = await attempts.accept(session, Claim(started.attempt_id, started.token, "another"), 1)
        assert (receipt.standing, receipt.stored) == (Standing.OVER, False)
    assert await rows.snapshot(started.simulation_id) == before
    assert (await rows.report(started, 1)).stored


async def test_of_two_first_nonces_at_once_one_binds(rows: Rows, other_sessions: Sessions) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    token = await rows.launch(attempt_id)

    async def greet(sessions: Sessions, nonce: str) -> Standing:
        async with sessions.begin() as session:
            return (await hello(session, Claim(attempt_id, token, nonce))).standing

    answers = dict(
        zip(("a", "b"), await asyncio.gather(greet(rows.sessions, "a"), greet(other_sessions, "b")), strict=True)
    )
    assert sorted(answers.values()) == [Standing.CURRENT, Standing.OVER]
    bound = await rows.value("SELECT nonce FROM members WHERE attempt_id = :id", id=attempt_id)
    assert answers[bound] is Standing.CURRENT
    assert await rows.value("SELECT count(*) FROM events WHERE kind = 'RUNNING'") == 1


async def test_a_wrong_token_is_unknown_whatever_it_says(rows: Rows) -> None:
    started, other = await rows.start(), await rows.start()
    before = await rows.snapshot(started.simulation_id)
    for token in (b"wrong", b"", other.token):
        async with rows.sessions.begin() as session:
            greeting = await hello(session, Claim(started.attempt_id, token, started.nonce))
            assert greeting == Greeting(Standing.UNKNOWN)
            for batch in (None, 1, 2):
                receipt = await attempts.accept(session, Claim(started.attempt_id, token, started.nonce), batch)
                assert receipt == Receipt(Standing.UNKNOWN)
    assert await rows.snapshot(started.simulation_id) == before


async def test_an_attempt_that_is_not_there_is_unknown(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        assert (await hello(session, Claim(999, b"token", "nonce"))).standing is Standing.UNKNOWN
        assert (await attempts.accept(session, Claim(999, b"token", "nonce"), 1)).standing is Standing.UNKNOWN
        assert await lifecycle.lock_of(session, 999, b"token") is None


async def test_hello_after_the_end_is_over(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    token = await rows.launch(attempt_id)
    await rows.end(simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    before = await rows.snapshot(simulation_id)
    async with rows.sessions.begin() as session:
        assert await hello(session, Claim(attempt_id, token, "n")) == Greeting(Standing.OVER)
    assert await rows.snapshot(simulation_id) == before


async def test_what_is_unwanted_is_greeted_and_does_not_begin(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    token = await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        await stop(session, simulation_id, Reason.CANCELLED, PLANNER)
    async with rows.sessions.begin() as session:
        greeting = await hello(session, Claim(attempt_id, token, "n"))
        assert greeting.standing is Standing.CURRENT
        assert greeting.work is not None
        assert greeting.work.stop_reason is Reason.CANCELLED
    assert await rows.state(simulation_id) == "STARTING"
    async with rows.sessions.begin() as session:  # its report of the end is taken all the same
        assert (await attempts.accept(session, Claim(attempt_id, token, "n"), 1)).stored


async def test_the_work_holds_what_was_asked_for(rows: Rows) -> None:
    asked = {
        "name": "a run", "environment": {"A": "b"}, "parameters": {"lr": 0.1, "model": {"depth": 3}},
        "working_directory": "/tmp", "max_runtime": timedelta(minutes=5), "metrics_patterns": ["loss (?P<loss>.*)"],
        "tensorboard": ["runs"], "system_metrics_seconds": 2.5, "entrypoint": ["python", "-c", "1"],
    }  # fmt: skip
    simulation_id = await rows.simulation(**asked)
    attempt_id = await rows.assign(simulation_id, gpus=(1, 3))
    token = await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        work = (await hello(session, Claim(attempt_id, token, "n"))).work
    assert work == Work(
        attempt_id=attempt_id, number=1, stop_reason=None, rank=0, gpu_indices=[1, 3], simulation_id=simulation_id,
        project="default", machines=1, attained=timedelta(0), max_cost=None,
        metrics_from=MetricsFrom.AUTO, is_judged=False, **asked,
    )  # fmt: skip
    assert await rows.state(simulation_id) == "RUNNING"
    assert await rows.value("SELECT started_at IS NOT NULL FROM attempts WHERE id = :id", id=attempt_id)


async def test_a_hello_and_an_end_are_one_statement_each_and_a_failure_two(rows: Rows) -> None:
    """Each statement costs the API server and PostgreSQL as much as a report of points; BEGIN and COMMIT no less."""
    attempt_id = await rows.assign(await rows.simulation())
    claim = Claim(attempt_id, await rows.launch(attempt_id), "n")
    async with sent_by(rows.sessions) as sent:
        assert (await greeted(rows.sessions, claim)).standing is Standing.CURRENT
        report = Report(1, exit=Exit(exit_code=0))
        assert (await ingest(rows.sessions, claim, report, backoff=timedelta(0))).stored
    assert Counter(each.split()[0] for each in sent) == {"WITH": 2}, sent
    failed = await rows.start()
    async with sent_by(rows.sessions) as sent:
        report = Report(1, exit=Exit(exit_code=1))
        assert (await ingest(rows.sessions, failed.claim, report, backoff=timedelta(0))).stored
    assert Counter(each.split()[0] for each in sent) == {"WITH": 2, "BEGIN;": 1, "COMMIT;": 1}, sent


async def greeted(sessions: Sessions, claim: Claim, **given: Any) -> Greeting:
    return await greet(sessions, claim, stop_grace=timedelta(0), lease=timedelta(seconds=30), **given)


async def test_one_statement_writes_and_answers_what_a_transaction_of_several_does(rows: Rows) -> None:
    """The event, its actor and the limits included."""
    asked = {"max_runtime": timedelta(minutes=5), "parameters": {"lr": 0.1}, "environment": {"A": "b"}}
    answers, events = [], []
    for way in ("one statement", "several"):
        simulation_id = await rows.simulation(**asked, name="a run")
        attempt_id = await rows.assign(simulation_id, gpus=(2,))
        claim = Claim(attempt_id, await rows.launch(attempt_id), "n")
        if way == "one statement":
            greeting = await greeted(rows.sessions, claim, actor=Actor("supervisor", "10.0.0.1"))
        else:
            async with rows.sessions.begin() as session:
                greeting = await hello(session, claim, Actor("supervisor", "10.0.0.1"))
        assert greeting.work is not None
        assert (greeting.work.simulation_id, greeting.work.attempt_id) == (simulation_id, attempt_id)
        answers.append(replace(greeting, work=replace(greeting.work, simulation_id=0, attempt_id=0)))
        events.append(
            await rows.query(
                "SELECT kind, actor, origin, object_type, project_id, detail, alert_pending FROM events "
                "WHERE object_type = 'Simulation' AND object_id = :id AND kind = 'RUNNING'",
                id=simulation_id,
            )
        )
        state = await rows.query(
            "SELECT s.state, s.started_at = a.started_at AS at_once, m.nonce, m.heartbeat_at IS NOT NULL AS beats "
            "FROM simulations AS s JOIN attempts AS a ON a.simulation_id = s.id "
            "JOIN members AS m ON m.attempt_id = a.id WHERE s.id = :id",
            id=simulation_id,
        )
        assert [[*row.values()] for row in state] == [["RUNNING", True, "n", True]], way
    assert answers[0] == answers[1]
    assert answers[0].limits == TimeLimits(timedelta(minutes=5))
    assert events[0] == events[1]
    assert len(events[0]) == 1


async def test_a_greeting_that_begins_nothing_is_answered_as_by_a_transaction(rows: Rows) -> None:
    """A repeated hello, another nonce, a wrong token, a stop before the hello, and a limit of cost."""
    started = await rows.start()
    again = await greeted(rows.sessions, started.claim)
    assert again.work is not None
    assert again.work.attempt_id == started.attempt_id
    before = await rows.snapshot(started.simulation_id)
    other = Claim(started.attempt_id, started.token, "another")
    assert await greeted(rows.sessions, other) == Greeting(Standing.OVER)
    assert await greeted(rows.sessions, replace(started.claim, token_digest=b"wrong")) == Greeting(Standing.UNKNOWN)
    assert await rows.snapshot(started.simulation_id) == before

    stopped = await rows.simulation()
    claim = Claim(attempt_id := await rows.assign(stopped), await rows.launch(attempt_id), "n")
    async with rows.sessions.begin() as session:
        await stop(session, stopped, Reason.CANCELLED, PLANNER)
    greeting = await greeted(rows.sessions, claim)
    assert greeting.work is not None
    assert greeting.work.stop_reason is Reason.CANCELLED
    assert await rows.state(stopped) == "STARTING"

    limited = await rows.simulation(max_cost=Decimal(3))
    claim = Claim(attempt_id := await rows.assign(limited), await rows.launch(attempt_id), "n")
    limits = (await greeted(rows.sessions, claim)).limits
    assert limits.max_cost is not None
    assert await rows.state(limited) == "RUNNING"


async def test_a_greeting_waits_for_a_stop_that_holds_the_lock_and_begins_nothing_behind_it(
    rows: Rows, other_sessions: Sessions
) -> None:
    simulation_id = await rows.simulation()
    claim = Claim(attempt_id := await rows.assign(simulation_id), await rows.launch(attempt_id), "n")
    async with other_sessions.begin() as session:
        await stop(session, simulation_id, Reason.CANCELLED, PLANNER)
        greeting = asyncio.create_task(greeted(rows.sessions, claim))
        await rows.until_one_is_blocked()
    assert (found := (await greeting).work) is not None
    assert found.stop_reason is Reason.CANCELLED
    assert await rows.state(simulation_id) == "STARTING"


async def test_of_two_first_greetings_at_once_one_begins(rows: Rows, other_sessions: Sessions) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    token = await rows.launch(attempt_id)
    answers = await asyncio.gather(
        greeted(rows.sessions, Claim(attempt_id, token, "a")), greeted(other_sessions, Claim(attempt_id, token, "b"))
    )
    assert sorted(each.standing for each in answers) == [Standing.CURRENT, Standing.OVER]
    assert await rows.value("SELECT count(*) FROM events WHERE kind = 'RUNNING'") == 1


async def test_the_time_of_preempted_attempts_counts_against_the_limit_and_that_of_lost_ones_does_not(
    rows: Rows,
) -> None:
    simulation_id = await rows.simulation(max_runtime=timedelta(minutes=10), max_retries=5)
    left = []
    for reason in (Reason.PREEMPTED, Reason.PREEMPTED, Reason.MACHINE_LOST, Reason.PREEMPTED, Reason.PREEMPTED):
        started = await rows.start(simulation_id)
        async with rows.sessions.begin() as session:
            left.append((await hello(session, started.claim)).limits.max_runtime)
        await rows.query(
            "UPDATE attempts SET started_at = now() - interval '4 min' WHERE id = :id", id=started.attempt_id
        )
        await rows.end(simulation_id, started.number, reason, retry_after=timedelta(0))
    last = await rows.start(simulation_id)
    await rows.query("UPDATE simulations SET attained = interval '18 min'")
    async with rows.sessions.begin() as session:
        left.append((await hello(session, last.claim)).limits.max_runtime)
    minutes = [round(each / timedelta(minutes=1), 1) for each in left if each]
    assert minutes == [10, 6, 2, 10, 6, 0.0], "and at least a second"
    assert left[-1] == timedelta(seconds=1)


async def test_what_has_no_limit_has_no_time_left(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        assert (await hello(session, started.claim)).limits.max_runtime is None
