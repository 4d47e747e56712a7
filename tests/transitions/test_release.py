"""Dependencies on real rows: what waits is released or cancelled with the end of the others, whichever comes first."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from db import dependencies, lifecycle, simulations
from db.errors import WrongState
from db.events import Actor
from db.states import Reason
from policy.dependencies import DependencyCondition
from policy.retry import Exit
from transitions.cancel import cancel
from transitions.ingest import ingest
from transitions.report import Report
from transitions.settle import Ending, end
from transitions.submit import After, Submission, repeat, submit

Rows = Any  # the fixture of conftest.py
USER = Actor("user", "192.0.2.1")
SUCCESS, FAILURE, ANY = DependencyCondition.SUCCESS, DependencyCondition.FAILURE, DependencyCondition.ANY


async def after(rows: Rows, *others: int | tuple[int, DependencyCondition], **given: Any) -> int:
    """A simulation that runs after these, on their success if nothing else is given."""
    links = [After(each[1], each[0]) if isinstance(each, tuple) else After(simulation_id=each) for each in others]
    async with rows.sessions.begin() as session:
        [row] = await submit(session, [Submission(await rows.wanted(**given), after=links)], USER)
        return row.id


async def finish(rows: Rows, simulation_id: int, reason: Reason = Reason.COMPLETED) -> None:
    started = await rows.start(simulation_id)
    assert await rows.end(simulation_id, started.number, reason)


async def left(rows: Rows, *ids: int) -> list[tuple[str, int]]:
    found = [await rows.get(each) for each in ids]
    return [(each.state.value, each.dependencies_left) for each in found]


async def test_it_waits_for_success_and_arrives_in_the_queue_with_it(rows: Rows) -> None:
    first = await rows.simulation(name="prep")
    second = await after(rows, first)
    before = await rows.get(second)
    assert (before.held, before.dependencies_left) == (True, 1)
    started = await rows.start(first)
    assert (await rows.get(second)).held
    await rows.end(first, started.number)
    now = await rows.get(second)
    assert (now.held, now.state.value) == (False, "QUEUED")
    assert now.queued_xid > before.queued_xid
    assert now.queued_at > before.queued_at


async def test_a_retry_of_an_attempt_releases_nothing(rows: Rows) -> None:
    first = await rows.simulation(retry_on=("EXIT_CODE",))
    second = await after(rows, (first, ANY))
    started = await rows.start(first)
    assert await rows.end(first, started.number, Reason.EXIT_CODE, retry_after=timedelta(0))
    assert (await rows.get(second)).held


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.STOPPING_THRESHOLD, Reason.EXIT_CODE, Reason.CANCELLED])
async def test_each_condition_is_met_or_can_never_be(rows: Rows, reason: Reason) -> None:
    first = await rows.simulation(name="prep")
    on = {each: await after(rows, (first, each)) for each in (SUCCESS, FAILURE, ANY)}
    await finish(rows, first, reason)
    ended = (await rows.get(first)).state.value
    succeeded = ended == "FINISHED"
    gone = on[FAILURE] if succeeded else on[SUCCESS]
    met = on[SUCCESS] if succeeded else on[FAILURE]
    assert await left(rows, met, on[ANY]) == [("QUEUED", 0), ("QUEUED", 0)]
    row = await rows.get(gone)
    assert (row.state.value, row.reason) == ("CANCELLED", Reason.DEPENDENCY_FAILED)
    noun = "failure" if succeeded else "success"
    assert row.reason_detail == f"It was to run after the {noun} of prep, which ended {ended} ({reason})."
    assert row.finished_at is not None
    last = (await rows.snapshot(gone))["events"][-1]
    assert (last["kind"], last["detail"]["reason"]) == ("CANCELLED", "DEPENDENCY_FAILED")


async def test_what_can_never_run_ends_what_waits_for_it_and_so_on(rows: Rows) -> None:
    first = await rows.simulation(name="a")
    second = await after(rows, first, name="b")
    third = await after(rows, second, first, name="c")
    cleanup = await after(rows, (third, FAILURE), (first, ANY), name="cleanup")
    other = await rows.simulation(name="other")
    both = await after(rows, second, other, name="both")
    async with rows.sessions.begin() as session:
        await cancel(session, first, USER)
    states = await left(rows, second, third, cleanup, both, other)
    assert [state for state, _ in states] == ["CANCELLED", "CANCELLED", "QUEUED", "CANCELLED", "QUEUED"]
    assert states[2] == ("QUEUED", 0)
    assert (await rows.get(third)).reason_detail == (
        "It was to run after the success of a, which ended CANCELLED (CANCELLED)."
    )
    assert (await rows.get(both)).reason_detail == (
        "It was to run after the success of b, which ended CANCELLED (DEPENDENCY_FAILED)."
    )


async def statements_of(rows: Rows, act: Callable[[], Awaitable[object]]) -> list[str]:
    """The statements that are executed meanwhile."""
    sent: list[str] = []
    engine = rows.sessions.kw["bind"].sync_engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        await act()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return sent


async def test_a_thousand_are_released_or_cancelled_in_as_many_statements_as_ten(rows: Rows) -> None:
    async def statements(count: int, reason: Reason) -> list[str]:
        first = await rows.simulation()
        async with rows.sessions.begin() as session:
            wanted = await rows.wanted()
            link = [After(simulation_id=first)]
            submissions = [Submission(wanted, f"{first} {number}", link) for number in range(count)]
            ids = [each.id for each in await submit(session, submissions, USER)]
        started = await rows.start(first)
        sent = await statements_of(rows, lambda: rows.end(first, started.number, reason))
        state, own = ("QUEUED", 0) if reason is Reason.COMPLETED else ("CANCELLED", 1)
        counted = await rows.query(
            "SELECT state, dependencies_left, count(*) FROM simulations WHERE id = ANY(:ids) GROUP BY 1, 2", ids=ids
        )
        assert counted == [{"state": state, "dependencies_left": own, "count": count}]
        return [re.sub(r"\(\$\d+.*?\)", "(...)", each) for each in sent]

    for reason in (Reason.COMPLETED, Reason.EXIT_CODE):
        few, many = await statements(10, reason), await statements(1000, reason)
        assert len(many) == len(few)


async def test_a_chain_of_a_thousand_is_cancelled_in_as_many_statements_as_one_of_ten(rows: Rows) -> None:
    async def statements(count: int) -> int:
        async with rows.sessions.begin() as session:
            wanted = [await rows.wanted(name=f"link {number}") for number in range(count)]
            submissions = [
                Submission(each, f"{number} of {count}", [After(index=number - 1)] if number else [])
                for number, each in enumerate(wanted)
            ]
            ids = [each.id for each in await submit(session, submissions, USER)]

        async def cancel_head() -> None:
            async with rows.sessions.begin() as session:
                await cancel(session, ids[0], USER)

        sent = await statements_of(rows, cancel_head)
        counted = await rows.query(
            "SELECT state, reason, count(*), count(DISTINCT reason_detail) AS sentences FROM simulations"
            " WHERE id = ANY(:ids) GROUP BY 1, 2 ORDER BY 2",
            ids=ids,
        )
        assert counted == [
            {"state": "CANCELLED", "reason": "CANCELLED", "count": 1, "sentences": 0},
            {"state": "CANCELLED", "reason": "DEPENDENCY_FAILED", "count": count - 1, "sentences": count - 1},
        ]
        last = await rows.get(ids[-1])
        assert last.reason_detail == (
            f"It was to run after the success of link {count - 2}, which ended CANCELLED (DEPENDENCY_FAILED)."
        )
        [event_of_last] = await rows.query(
            "SELECT detail ->> 'detail' AS detail FROM events WHERE object_id = :id AND kind = 'CANCELLED'", id=ids[-1]
        )
        assert event_of_last["detail"] == last.reason_detail
        return len(sent)

    assert await statements(1000) == await statements(10)


async def test_an_end_without_dependents_takes_no_further_statement(rows: Rows) -> None:
    started = await rows.start()
    sent = await statements_of(rows, lambda: rows.end(started.simulation_id, started.number))
    assert not [each for each in sent if "RECURSIVE" in each]


# --- two at once -----------------------------------------------------------------------------------------------


async def test_two_ends_at_once_release_exactly_once(rows: Rows) -> None:
    for _ in range(5):
        starts = [await rows.start() for _ in range(4)]
        waiting = await after(rows, *(each.simulation_id for each in starts))
        await asyncio.gather(*(rows.end(each.simulation_id, each.number) for each in starts))
        assert await left(rows, waiting) == [("QUEUED", 0)]


async def test_a_success_and_a_failure_at_once_end_what_waited_for_both(rows: Rows) -> None:
    for _ in range(5):
        one, other = await rows.start(), await rows.start()
        waiting = await after(rows, one.simulation_id, other.simulation_id)
        behind = await after(rows, waiting)
        await asyncio.gather(
            rows.end(one.simulation_id, one.number), rows.end(other.simulation_id, other.number, Reason.EXIT_CODE)
        )
        assert [state for state, _ in await left(rows, waiting, behind)] == ["CANCELLED", "CANCELLED"]


async def test_an_end_that_comes_first_is_seen_by_the_submission(rows: Rows) -> None:
    """The submission waits for the lock of the one that is ending; then it is released from the start."""
    started = await rows.start()
    async with rows.sessions() as ending:
        await lifecycle.lock(ending, started.simulation_id)
        await end(ending, started.simulation_id, started.number, Ending(Reason.COMPLETED), USER)
        task = asyncio.create_task(after(rows, started.simulation_id))
        await rows.until_one_is_blocked()
        await ending.commit()
    waiting = await task
    assert await left(rows, waiting) == [("QUEUED", 0)]


async def test_an_end_that_comes_later_sees_what_was_submitted(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions() as session:
        wanted = await rows.wanted()
        link = [After(simulation_id=started.simulation_id)]
        [row] = await submit(session, [Submission(wanted, after=link)], USER)
        waiting = row.id
        task = asyncio.create_task(rows.end(started.simulation_id, started.number))
        await rows.until_one_is_blocked()
        await session.commit()
    assert await task
    assert await left(rows, waiting) == [("QUEUED", 0)]


async def test_an_exit_that_waits_for_a_submission_releases_what_was_submitted(rows: Rows) -> None:
    """The exit is one statement, with a snapshot from before the submission's end: there are no edges in it."""
    started = await rows.start()
    async with rows.sessions() as session:
        link = [After(simulation_id=started.simulation_id)]
        [row] = await submit(session, [Submission(await rows.wanted(), after=link)], USER)
        waiting = row.id
        report = Report(1, exit=Exit(exit_code=0))
        task = asyncio.create_task(ingest(rows.sessions, started.claim, report, backoff=timedelta(0)))
        await rows.until_one_is_blocked()
        await session.commit()
    assert (await task).stored
    assert await rows.state(started.simulation_id) == "FINISHED"
    assert await left(rows, waiting) == [("QUEUED", 0)]


async def test_cancelling_what_waits_while_it_is_released_ends_it_once(rows: Rows) -> None:
    for _ in range(5):
        started = await rows.start()
        waiting = await after(rows, started.simulation_id)
        behind = await after(rows, (waiting, ANY))

        async def cancelled(simulation_id: int = waiting) -> None:
            async with rows.sessions.begin() as session:
                await cancel(session, simulation_id, USER)

        await asyncio.gather(rows.end(started.simulation_id, started.number), cancelled())
        assert [state for state, _ in await left(rows, waiting, behind)] == ["CANCELLED", "QUEUED"]
        assert not (await rows.get(behind)).held


# --- submitting, deleting, repeating -----------------------------------------------------------------------------


async def test_what_has_ended_as_wanted_is_no_wait_and_otherwise_refuses(rows: Rows) -> None:
    good, bad = await rows.simulation(name="good"), await rows.simulation(name="bad")
    await finish(rows, good)
    await finish(rows, bad, Reason.EXIT_CODE)
    assert await left(rows, await after(rows, good, (bad, FAILURE))) == [("QUEUED", 0)]
    before = await rows.value("SELECT count(*) FROM simulations")
    with pytest.raises(
        WrongState, match=r"could never run\. It was to run after the success of bad, which ended FAILED"
    ):
        await after(rows, good, bad)
    assert await rows.value("SELECT count(*) FROM simulations") == before


async def test_deleting_what_others_ran_after_removes_the_edge_and_nothing_else(rows: Rows) -> None:
    first = await rows.simulation()
    second = await after(rows, first)
    await finish(rows, first)
    async with rows.sessions.begin() as session:
        await simulations.delete_ended(session, first, USER)
    assert await left(rows, second) == [("QUEUED", 0)]
    async with rows.sessions() as session:
        assert await dependencies.of_simulations(session, [second]) == {}


async def test_what_others_wait_for_can_not_be_deleted_before_its_end(rows: Rows) -> None:
    first = await rows.simulation()
    await after(rows, first)
    with pytest.raises(WrongState):
        async with rows.sessions.begin() as session:
            await simulations.delete_ended(session, first, USER)


async def test_a_repetition_runs_after_the_repetition_of_what_failed(rows: Rows) -> None:
    first = await rows.simulation(name="prep")
    good = await rows.simulation(name="good")
    await finish(rows, good)
    second = await after(rows, first, good)
    await finish(rows, first, Reason.EXIT_CODE)

    async def again(simulation_id: int) -> int:
        async with rows.sessions.begin() as session:
            return (await repeat(session, simulation_id, USER)).id

    with pytest.raises(WrongState, match=r"which ended FAILED .*Retry that one first"):
        await again(second)
    repeated = await again(await again_and_fail(rows, first, again))
    waiting = await again(second)
    assert await left(rows, waiting) == [("QUEUED", 1)]
    async with rows.sessions() as session:
        edges = (await dependencies.of_simulations(session, [waiting]))[waiting]
    assert [each.after_id for each in edges] == [good, repeated]
    await finish(rows, repeated)
    assert await left(rows, waiting) == [("QUEUED", 0)]


async def again_and_fail(rows: Rows, simulation_id: int, again: Any) -> int:
    """Repeat a simulation, which fails once more; the repetition's id."""
    repeated: int = await again(simulation_id)
    await finish(rows, repeated, Reason.EXIT_CODE)
    return repeated
