"""The end of an attempt: the verdict of policy, carried out once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import lifecycle
from db.attempts import Receipt, Standing
from db.convergence import Column
from db.events import Actor
from db.states import Reason
from policy.retry import Exit
from transitions import ingest as ingesting
from transitions.ingest import ingest
from transitions.report import Report
from transitions.settle import Ending, settle
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
OTHER = Actor("other")
BACKOFF = timedelta(seconds=5)


async def settled(rows: Rows, simulation_id: int, ending: Ending, number: int = 1) -> bool:
    async with rows.sessions.begin() as session:
        simulation = await lifecycle.lock(session, simulation_id)
        assert simulation is not None
        return await settle(session, simulation.id, number, ending, OTHER, backoff=BACKOFF)


async def waits(rows: Rows) -> timedelta:
    pause: timedelta = await rows.value("SELECT queued_at - (SELECT max(ended_at) FROM attempts) FROM simulations")
    return pause


@pytest.mark.parametrize(
    ("reason", "state"), [(Reason.COMPLETED, "FINISHED"), (Reason.EXIT_CODE, "FAILED"), (Reason.MAX_RUNTIME, "FAILED")]
)
async def test_what_is_not_retried_is_final(reason: Reason, state: str, rows: Rows) -> None:
    started = await rows.start()
    assert await settled(rows, started.simulation_id, Ending(reason, "A sentence.", 3))
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason, simulation.reason_detail) == (state, reason, "A sentence.")


async def test_the_first_retry_after_a_lost_machine_may_begin_at_once_and_the_second_waits(rows: Rows) -> None:
    started = await rows.start()
    assert await settled(rows, started.simulation_id, Ending(Reason.MACHINE_LOST))
    assert await rows.state(started.simulation_id) == "QUEUED"
    assert await waits(rows) == timedelta(0)
    await rows.start(started.simulation_id)
    assert await settled(rows, started.simulation_id, Ending(Reason.MACHINE_LOST), 2)
    assert await waits(rows) == 2 * BACKOFF


async def test_a_failure_that_is_retried_waits_and_the_last_one_is_final(rows: Rows) -> None:
    simulation_id = await rows.simulation(max_retries=1, retry_on=("EXIT_CODE",))
    await rows.start(simulation_id)
    assert await settled(rows, simulation_id, Ending(Reason.EXIT_CODE, exit_code=3))
    assert await waits(rows) == BACKOFF
    await rows.start(simulation_id)
    assert await settled(rows, simulation_id, Ending(Reason.EXIT_CODE, exit_code=3), 2)
    assert await rows.state(simulation_id) == "FAILED"


async def test_what_is_lost_while_a_stop_is_wanted_ends_for_the_reason_of_the_stop(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        assert await stop(session, started.simulation_id, Reason.CANCELLED, OTHER)
    assert await settled(rows, started.simulation_id, Ending(Reason.MACHINE_LOST, "Lost."))
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason, simulation.reason_detail) == ("CANCELLED", "CANCELLED", "Lost.")


async def test_an_attempt_that_is_not_current_is_settled_by_nothing(rows: Rows) -> None:
    started = await rows.start()
    assert await settled(rows, started.simulation_id, Ending(Reason.COMPLETED))
    before = await rows.snapshot(started.simulation_id)
    for number in (0, 1, 2):
        assert not await settled(rows, started.simulation_id, Ending(Reason.EXIT_CODE), number)
    assert await rows.snapshot(started.simulation_id) == before


async def test_of_two_ends_at_once_one_counts(rows: Rows, other_sessions: async_sessionmaker[AsyncSession]) -> None:
    started = await rows.start()

    async def try_to(sessions: async_sessionmaker[AsyncSession], reason: Reason) -> bool:
        async with sessions.begin() as session:
            simulation = await lifecycle.lock(session, started.simulation_id)
            assert simulation is not None
            return await settle(session, simulation.id, 1, Ending(reason), OTHER, backoff=BACKOFF)

    ended = await asyncio.gather(
        try_to(rows.sessions, Reason.COMPLETED), try_to(other_sessions, Reason.EXIT_CODE)
    )  # fmt: skip
    assert sorted(ended) == [False, True]
    assert await rows.state(started.simulation_id) == ("FINISHED" if ended[0] else "FAILED")
    assert await rows.value("SELECT count(*) FROM events WHERE kind IN ('FINISHED', 'FAILED')") == 1


# --- an exit that completes, by one statement --------------------------------------------------------------------


async def completed(rows: Rows, started: Any, batch: int = 1, **claim: Any) -> Receipt:
    report = Report(batch, exit=Exit(exit_code=0))
    return await ingest(rows.sessions, replace(started.claim, **claim), report, backoff=BACKOFF, actor=OTHER)


async def test_one_statement_writes_what_a_transaction_of_several_does(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a stop was wanted: a completed attempt has not been stopped."""
    found = []
    for is_stopped in (False, True):
        for way in ("one statement", "several"):
            started = await rows.start()
            if is_stopped:
                async with rows.sessions.begin() as session:
                    assert await stop(session, started.simulation_id, Reason.CANCELLED, OTHER)
            with monkeypatch.context() as patched:
                if way == "several":
                    patched.setattr(ingesting, "completes", lambda _exit: False)
                receipt = await completed(rows, started)
            written = await rows.query(
                "SELECT s.state, s.reason, s.reason_detail, s.final_cost IS NOT NULL AS costs, a.reason AS why, "
                "s.finished_at = a.ended_at AS at_once, a.reason_detail AS detail, a.exit_code, a.signal, "
                "m.ended_at = a.ended_at AS ended, m.exit_code AS code, m.signal AS by, m.next_batch, "
                "m.heartbeat_at = m.ended_at AS beats "
                "FROM simulations AS s JOIN attempts AS a ON a.simulation_id = s.id "
                "JOIN members AS m ON m.attempt_id = a.id WHERE s.id = :id",
                id=started.simulation_id,
            )
            events = await rows.query(
                "SELECT kind, actor, origin, object_type, project_id, detail, alert_pending FROM events "
                "WHERE object_type = 'Simulation' AND object_id = :id ORDER BY id DESC LIMIT 1",
                id=started.simulation_id,
            )
            assert receipt.simulation_id == started.simulation_id
            assert (written[0]["state"], written[0]["exit_code"], written[0]["code"]) == ("FINISHED", 0, 0)
            found.append((replace(receipt, simulation_id=0), written, events))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[2][0].stop_reason is Reason.CANCELLED


async def test_an_exit_that_does_not_count_writes_nothing(rows: Rows) -> None:
    """Of another batch, nonce or token, and of an attempt that is over."""
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    assert (await completed(rows, started, nonce="another")).standing is Standing.OVER
    assert (await completed(rows, started, token_digest=b"wrong")).standing is Standing.UNKNOWN
    assert await rows.snapshot(started.simulation_id) == before
    assert await completed(rows, started, batch=2) == Receipt(Standing.CURRENT, False, started.simulation_id, 1, 1)
    assert await rows.state(started.simulation_id) == "RUNNING"
    assert (await completed(rows, started)).stored
    after = await rows.snapshot(started.simulation_id)
    assert await completed(rows, started) == Receipt(Standing.OVER, expected_batch=2)
    assert await rows.snapshot(started.simulation_id) == after


async def test_the_results_of_a_completed_simulation_with_metrics_are_kept(rows: Rows) -> None:
    started = await rows.start()
    points = Report(1, {"loss": Column([1, 2], [0.5, 0.25], [0.1, 0.2])})
    assert (await ingest(rows.sessions, started.claim, points, backoff=BACKOFF)).stored
    assert (await completed(rows, started, batch=2)).stored
    assert await rows.state(started.simulation_id) == "FINISHED"
    assert await rows.value("SELECT last_value FROM results") == 0.25


async def test_an_exit_behind_a_transaction_that_holds_the_simulation_ends_it(
    rows: Rows, other_sessions: async_sessionmaker[AsyncSession]
) -> None:
    started = await rows.start()
    async with other_sessions.begin() as session:
        assert await stop(session, started.simulation_id, Reason.CANCELLED, OTHER)
        task = asyncio.create_task(completed(rows, started))
        await rows.until_one_is_blocked()
    assert (await task).stop_reason is Reason.CANCELLED
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason) == ("FINISHED", Reason.COMPLETED)
