"""Reports: what one of them stores, in how many statements, and that no GraphQL is needed for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from db import checkpoints, running, sources
from db.attempts import Receipt, Standing
from db.convergence import Column
from db.logs import Chunk
from db.notices import Notice
from db.sources import Source
from db.states import LogStream, Reason
from policy.retry import Exit
from transitions.ingest import ingest
from transitions.report import HEARTBEAT, BadReport, Report, checked
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
Started = Any  # what it gives for a running simulation
POINTS = {"loss": Column([1, 2], [0.5, 0.25], [0.1, 0.2])}
LINE = [Chunk(LogStream.STDOUT, "line\n")]
BACKOFF = timedelta(seconds=5)


async def bring(rows: Rows, started: Started, report: Report, **claim: Any) -> Receipt:
    return await ingest(rows.sessions, replace(started.claim, **claim), report, backoff=BACKOFF)


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_points_alone_are_stored_by_one_statement_outside_a_transaction(rows: Rows, engine: AsyncEngine) -> None:
    started = await rows.start()
    with statements(engine) as sent:
        receipt = await bring(rows, started, Report(1, POINTS))
    assert sent == [], "it goes to the driver: tests/db/test_batches.py counts there"
    assert receipt == Receipt(Standing.CURRENT, True, started.simulation_id, 1, 2)
    assert await rows.value("SELECT count(*) FROM convergence") == 1


async def test_notices_are_totals_of_an_attempt_and_cost_nothing_where_there_are_none(
    rows: Rows, engine: AsyncEngine
) -> None:
    started = await rows.start()
    first = checked(1, None, (), None, [Notice("NOT_RISING", 3, "a\x1b[1m\nline", "x" * 5_000)])
    assert (await bring(rows, started, first)).stored
    with statements(engine) as sent:
        await bring(rows, started, Report(2, POINTS))
    assert sent == [], "points alone are one statement of the driver"
    second = [Notice("NOT_RISING", 7, "a line", "advice"), Notice("LOG_LIMIT", 9, "", "")]
    await bring(rows, started, Report(3, POINTS, notices=second))
    await bring(rows, started, Report(3, POINTS, notices=[Notice("LOG_LIMIT", 99, "", "")]))  # repeated: not again
    assert await rows.value("SELECT array_agg(kind || count ORDER BY kind) FROM notices") == [
        "LOG_LIMIT9",
        "NOT_RISING7",
    ]
    assert (first.notices[0].example, len(first.notices[0].advice)) == ("a [1m line", 500)


async def test_points_log_and_exit_are_stored_and_the_attempt_ended_together(rows: Rows) -> None:
    started = await rows.start()
    receipt = await bring(rows, started, Report(1, POINTS, LINE, Exit(3)))
    assert (receipt.standing, receipt.stored) == (Standing.CURRENT, True)
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason) == ("FAILED", Reason.EXIT_CODE)
    assert simulation.reason_detail == "It ended with exit code 3."
    assert await rows.value("SELECT count(*) FROM log_chunks") == 1
    again = await bring(rows, started, Report(1, POINTS, LINE, Exit(3)))
    assert again == Receipt(Standing.OVER, expected_batch=2)
    assert await rows.value("SELECT count(*) FROM convergence") == 1


async def test_recorded_parameters_and_tags_are_limited(rows: Rows) -> None:
    started = await rows.start()
    tags = [f"t{number}" for number in range(40)]
    for batch in (1, 2):
        parameters: dict[str, object] = {f"p{batch}-{number}": number for number in range(600)}
        report = Report(batch, parameters=parameters, tags=[f"{batch}{tag}" for tag in tags])
        assert (await bring(rows, started, report)).stored
    simulation = await rows.get(started.simulation_id)
    assert len(simulation.tags) == 50
    recorded = "SELECT count(*) FROM simulations, jsonb_object_keys(recorded_parameters)"
    assert await rows.value(recorded) == 1_000


async def test_the_newest_checkpoint_is_kept_never_in_the_future_and_it_needs_a_time_zone(rows: Rows) -> None:
    started = await rows.start()
    old, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
    for batch, at in ((1, old), (2, None), (3, late)):
        assert (await bring(rows, started, checked(batch, None, (), None, checkpoint_at=at))).stored
        async with rows.sessions() as session:
            kept = (await checkpoints.of_simulations(session, [started.simulation_id]))[started.simulation_id]
            [held] = await running.every(session)
        assert (kept.at == old) is (batch < 3)
        assert kept.at < late
        assert held.checkpoint_at == kept.at
    for number, at in ((None, old), (4, old.replace(tzinfo=None))):
        with pytest.raises(BadReport):
            checked(number, None, (), None, checkpoint_at=at)


async def test_the_source_of_the_newest_attempt_that_has_one_is_read(rows: Rows) -> None:
    started = await rows.start(await rows.simulation(max_retries=1))
    for batch, commit in enumerate("ab", 1):  # a second one replaces it
        assert (await bring(rows, started, Report(batch, source=Source(commit=commit)))).stored
    async with rows.sessions() as session:
        found = await sources.of_simulations(session, [started.simulation_id, 12345])
    assert found == {started.simulation_id: Source(commit="b", command=[])}


async def test_a_report_of_an_attempt_that_is_over_records_nothing(rows: Rows) -> None:
    started = await rows.start()
    await bring(rows, started, Report(1, exit=Exit(0)))
    receipt = await bring(rows, started, Report(2, parameters={"lr": 1}, tags=["late"]))
    assert receipt.standing is Standing.OVER
    assert (await rows.get(started.simulation_id)).tags == []


async def test_an_exit_locks_its_simulation_once(rows: Rows, engine: AsyncEngine) -> None:
    started = await rows.start()
    with statements(engine) as sent:
        await bring(rows, started, Report(1, exit=Exit(3)))
    locks = [each for each in sent if "simulations AS s" in each and "FOR NO KEY UPDATE" in each]
    assert len(locks) == 1
    assert await rows.state(started.simulation_id) == "FAILED"


async def test_an_exit_that_is_retried_goes_back_to_the_queue_after_the_backoff(rows: Rows) -> None:
    started = await rows.start(await rows.simulation(max_retries=1, retry_on=("EXIT_CODE",)))
    await bring(rows, started, Report(1, exit=Exit(1)))
    assert await rows.state(started.simulation_id) == "QUEUED"
    assert await rows.value("SELECT queued_at - ended_at FROM simulations, attempts") == BACKOFF


async def test_an_exit_for_the_reason_of_a_stop_ends_for_it(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        await stop(session, started.simulation_id, Reason.CANCELLED, rows.user)
    assert (await bring(rows, started, HEARTBEAT)).stop_reason is Reason.CANCELLED
    await bring(rows, started, Report(1, exit=Exit(None, 15, "CANCELLED", "It was stopped.")))
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason_detail) == ("CANCELLED", "It was stopped.")


@pytest.mark.parametrize(
    "report", [HEARTBEAT, Report(1, POINTS), Report(1, exit=Exit(0))], ids=["beat", "points", "exit"]
)
@pytest.mark.parametrize("claim", [{"token_digest": b"wrong"}, {"attempt_id": 999}], ids=["token", "attempt"])
async def test_a_claim_that_does_not_hold_is_unknown_and_stores_nothing(
    report: Report, claim: dict[str, Any], rows: Rows
) -> None:
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    assert await bring(rows, started, report, **claim) == Receipt(Standing.UNKNOWN)
    assert await rows.snapshot(started.simulation_id) == before


async def test_a_report_out_of_order_stores_nothing_and_ends_nothing(rows: Rows) -> None:
    started = await rows.start()
    for number in (2, 5):
        receipt = await bring(rows, started, Report(number, POINTS, LINE, Exit(0)))
        assert receipt == Receipt(Standing.CURRENT, False, started.simulation_id, 1, 1)
    assert await rows.state(started.simulation_id) == "RUNNING"
    assert await rows.value("SELECT count(*) FROM convergence") == 0
