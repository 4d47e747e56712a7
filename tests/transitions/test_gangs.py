"""Attempts with several members: assigned together, begun by the last hello, ended as the first that failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import attempts, billing, logs, machines, notices, simulations
from db.attempts import Claim, Endpoint, Standing
from db.convergence import Column
from db.events import PLANNER
from db.logs import Chunk
from db.states import LogStream, Reason
from policy.retry import Exit
from transitions.assign import Assignment, Placed, assign
from transitions.begin import Greeting, hello
from transitions.cancel import cancel
from transitions.ingest import ingest
from transitions.preempt import preempt
from transitions.report import Report
from transitions.settle import Ending, settle

Rows = Any  # the fixture of tests/support/rows.py
POINTS = {"loss": Column([1, 2], [0.5, 0.25], [0.1, 0.2])}
DONE, FAILED, KILLED = (
    Exit(0),
    Exit(3, message="It ended with exit code 3: no data"),
    Exit(signal=15, reason="EXIT_CODE"),
)


@dataclass
class Gang:
    """The newest attempt of a simulation on several machines."""

    rows: Rows
    simulation_id: int
    attempt_id: int
    number: int
    tokens: list[bytes]

    def claim(self, rank: int) -> Claim:
        return Claim(self.attempt_id, self.tokens[rank], f"nonce {rank}")

    async def hello(self, rank: int, endpoint: Endpoint = attempts.NOWHERE) -> Greeting:
        async with self.rows.sessions.begin() as session:
            return await hello(session, self.claim(rank), endpoint=endpoint)

    async def report(self, rank: int, number: int | None = None, **given: Any) -> attempts.Receipt:
        return await ingest(
            self.rows.sessions, self.claim(rank), Report(number, **given), backoff=timedelta(seconds=60)
        )

    async def end(self, rank: int, exit_: Exit, number: int = 1) -> None:
        assert (await self.report(rank, number, exit=exit_)).stored

    async def lose(self, rank: int) -> bool:
        async with self.rows.sessions.begin() as session:
            ending = Ending(Reason.MACHINE_LOST, "Its supervisor died.")
            return await settle(
                session, self.simulation_id, self.number, ending, PLANNER, backoff=timedelta(0), rank=rank
            )

    @property
    async def row(self) -> Any:
        return await self.rows.get(self.simulation_id)

    async def members(self) -> Any:
        found = (await self.rows.snapshot(self.simulation_id))["members"]
        return [each for each in found if each["attempt_id"] == self.attempt_id]


async def assigned(rows: Rows, size: int = 2, *, hosts: tuple[str, ...] = (), **given: Any) -> Gang:
    """Members that were launched, one on each of so many machines."""
    simulation_id = await rows.simulation(machines=size, **given)
    return await again(rows, simulation_id, size, hosts)


async def again(rows: Rows, simulation_id: int, size: int = 2, hosts: tuple[str, ...] = ()) -> Gang:
    chosen = []
    for rank in range(size):
        host = hosts[rank] if hosts else None
        machine_id = await rows.machine(host=host)
        async with rows.sessions() as session:
            name = (await machines.get(session, machine_id)).name
        chosen.append(Assignment(machine_id, name, host, (), Decimal(2), Decimal("0.5"), "USD", 1.0, 0.0, 0))
    fence = (await rows.get(simulation_id)).attempt
    async with rows.sessions.begin() as session:
        made = await assign(session, [Placed(simulation_id, fence, tuple(chosen))], PLANNER)
    attempt_id = made[simulation_id]
    tokens = [await rows.launch(attempt_id, rank) for rank in range(size)]
    return Gang(rows, simulation_id, attempt_id, fence + 1, tokens)


async def running(rows: Rows, size: int = 2, **given: Any) -> Gang:
    gang = await assigned(rows, size, **given)
    for rank in range(size):
        assert (await gang.hello(rank)).standing is Standing.CURRENT
    assert (await gang.row).state == "RUNNING"
    return gang


async def listen(rows: Rows, seconds: float) -> None:
    """Both roles have been listening for so long, by PostgreSQL's clock."""
    await rows.query(
        "INSERT INTO coverage (role, covered_since, beat_at) "
        "SELECT unnest(ARRAY['graph', 'scheduler']), now() - CAST(:ago AS interval), now() "
        "ON CONFLICT (role) DO UPDATE SET covered_since = excluded.covered_since, beat_at = now()",
        ago=timedelta(seconds=seconds),
    )


# --- assignment and hello --------------------------------------------------------------------------------------


async def test_a_member_of_each_rank_is_assigned_and_the_event_names_the_machines(rows: Rows) -> None:
    gang = await assigned(rows, 3)
    members = await gang.members()
    assert [each["rank"] for each in members] == [0, 1, 2]
    assert len({each["token_digest"] for each in members}) == 3
    [*_, event] = (await rows.snapshot(gang.simulation_id))["events"]
    assert event["detail"]["machine"] == ", ".join(each["machine_name"] for each in members)


async def test_members_wait_for_the_last_hello_and_get_addresses_and_port_then(rows: Rows) -> None:
    gang = await assigned(rows, hosts=("h1", "h2"))
    first = await gang.hello(0, Endpoint("10.0.0.1", 4242))
    assert (first.standing, first.is_waiting, first.work) == (Standing.CURRENT, True, None)
    assert (await gang.row).state == "STARTING"

    last = await gang.hello(1, Endpoint("10.0.0.2"))
    assert not last.is_waiting
    assert (await gang.row).state == "RUNNING"
    first = await gang.hello(0, Endpoint("10.0.0.1", 4242))
    for rank, greeting in enumerate((first, last)):
        assert greeting.work is not None
        assert (greeting.work.rank, greeting.work.machines) == (rank, 2)
        assert (list(greeting.gang.addresses), greeting.gang.port) == (["10.0.0.1", "10.0.0.2"], 4242)


async def test_members_on_one_host_meet_on_its_loopback_interface(rows: Rows) -> None:
    gang = await assigned(rows, hosts=("h1", "h1"))
    await gang.hello(0, Endpoint("10.0.0.1", 4242))
    assert list((await gang.hello(1, Endpoint("10.0.0.1"))).gang.addresses) == ["127.0.0.1", "127.0.0.1"]


async def test_a_second_supervisor_of_a_member_is_refused_and_binds_nothing(rows: Rows) -> None:
    gang = await assigned(rows)
    await gang.hello(0)
    async with rows.sessions.begin() as session:
        other = await hello(session, Claim(gang.attempt_id, gang.tokens[0], "another nonce"))
    assert other.standing is Standing.OVER
    assert (await gang.hello(0)).is_waiting


@pytest.mark.parametrize(("greeted", "listening", "is_stopped"), [(61, 300, True), (61, 30, False), (59, 300, False)])
async def test_a_member_that_is_missing_for_a_minute_of_listening_stops_the_others(
    greeted: float, listening: float, is_stopped: bool, rows: Rows
) -> None:
    gang = await assigned(rows)
    assert (await gang.hello(1)).is_waiting
    await rows.query("UPDATE attempts SET greeted_at = now() - CAST(:ago AS interval)", ago=timedelta(seconds=greeted))
    await listen(rows, listening)
    greeting = await gang.hello(1)
    assert greeting.is_waiting != is_stopped
    if not is_stopped:
        return
    assert greeting.work is not None
    assert greeting.work.stop_reason is Reason.MACHINE_LOST
    await gang.end(1, Exit(reason="MACHINE_LOST", message="It was stopped before it began."))
    assert (await gang.row).state == "STARTING", "the missing member may still be there"
    assert await gang.lose(0)
    assert (await gang.row).state == "QUEUED"
    [attempt] = (await rows.snapshot(gang.simulation_id))["attempts"]
    assert attempt["reason"] == "MACHINE_LOST"
    assert "Rank 0 of 2" in attempt["reason_detail"]
    assert "did not say hello within 60 seconds" in attempt["reason_detail"]


# --- reports ---------------------------------------------------------------------------------------------------


async def test_rank_0s_points_are_the_curve_and_those_of_others_a_notice(rows: Rows) -> None:
    gang = await running(rows)
    assert (await gang.report(0, 1, points=POINTS)).stored
    receipt = await gang.report(1, 1, points=POINTS)
    assert (receipt.stored, receipt.rank, receipt.expected_batch) == (True, 1, 2)
    assert await rows.value("SELECT count(*) FROM convergence") == 1
    assert await rows.value("SELECT count FROM metrics") == 2
    async with rows.sessions() as session:
        [found] = (await notices.of_simulations(session, [gang.simulation_id]))[gang.simulation_id]
    assert (found.kind, found.count, found.example) == ("HIGHER_RANK", 2, "loss")


async def test_each_member_has_batches_and_a_log_of_its_own(rows: Rows) -> None:
    gang = await running(rows)
    for rank in (0, 1):
        for number in (1, 2):
            chunk = Chunk(LogStream.STDOUT, f"{number} of rank {rank}")
            assert (await gang.report(rank, number, chunks=[chunk])).stored
    assert not (await gang.report(1, 2, chunks=[Chunk(LogStream.STDOUT, "again")])).stored
    async with rows.sessions() as session:
        for rank in (0, 1):
            found = await logs.read(session, gang.simulation_id, logs.START, limit=10, rank=rank)
            assert [each.text for each in found] == [f"1 of rank {rank}", f"2 of rank {rank}"]
            assert await logs.find_end(session, gang.simulation_id, rank) == (1, 2, 0)


# --- the end ---------------------------------------------------------------------------------------------------


async def test_it_is_finished_when_all_members_have_exited_with_0(rows: Rows) -> None:
    gang = await running(rows)
    await gang.end(1, DONE)
    assert (await gang.row).state == "RUNNING"
    lead, other = await gang.members()
    assert (lead["ended_at"], other["exit_code"]) == (None, 0)
    assert other["ended_at"] is not None
    assert (await gang.report(1)).standing is Standing.OVER
    assert (await gang.report(0)).stop_reason is None, "the others go on"
    async with rows.sessions() as session:
        assert list(await machines.usage(session, [lead["machine_id"], other["machine_id"]])) == [lead["machine_id"]]
    await gang.end(0, DONE)
    row = await gang.row
    assert (row.state, row.reason) == ("FINISHED", "COMPLETED")


async def test_the_first_other_exit_stops_the_rest_and_is_the_reason(rows: Rows) -> None:
    gang = await running(rows, 3)
    await gang.end(2, DONE)
    await gang.end(1, FAILED)
    assert (await gang.row).state == "RUNNING", "rank 0 may hold its machine for a grace"
    assert (await gang.report(0)).stop_reason is Reason.EXIT_CODE
    await gang.end(0, KILLED)
    row = await gang.row
    assert (row.state, row.reason) == ("FAILED", "EXIT_CODE")
    lead, failed, done = await gang.members()
    assert row.reason_detail == f"Rank 1 of 3, on {failed['machine_name']}: It ended with exit code 3: no data"
    exits = [(each["exit_code"], each["signal"]) for each in (lead, failed, done)]
    assert exits == [(None, 15), (3, None), (0, None)]
    [attempt] = (await rows.snapshot(gang.simulation_id))["attempts"]
    assert (attempt["exit_code"], attempt["signal"]) == (3, None)


async def test_a_member_that_then_exits_with_0_does_not_make_it_a_success(rows: Rows) -> None:
    gang = await running(rows)
    await gang.end(1, FAILED)
    await gang.end(0, DONE)
    row = await gang.row
    assert (row.state, row.reason) == ("FAILED", "EXIT_CODE")


async def test_a_retry_begins_with_all_members_anew_when_the_last_has_ended(rows: Rows) -> None:
    gang = await running(rows, retry_on=("EXIT_CODE",))
    await gang.end(0, FAILED)
    await gang.end(1, KILLED)
    assert (await gang.row).state == "QUEUED"
    second = await again(rows, gang.simulation_id)
    assert [each["rank"] for each in await second.members()] == [0, 1]
    assert (await gang.report(1)).standing is Standing.OVER
    assert (await second.hello(0)).is_waiting


async def test_a_lost_member_stops_the_rest_and_the_retry_has_no_backoff(rows: Rows) -> None:
    gang = await running(rows)
    assert await gang.lose(1)
    assert not await gang.lose(1), "it has ended"
    assert (await gang.report(0)).stop_reason is Reason.MACHINE_LOST
    await gang.end(0, KILLED)
    row = await gang.row
    assert row.state == "QUEUED"
    assert row.queued_at <= await rows.value("SELECT now()")
    [attempt] = (await rows.snapshot(gang.simulation_id))["attempts"]
    assert (attempt["reason"], attempt["reason_detail"].startswith("Rank 1 of 2, on ")) == ("MACHINE_LOST", True)


async def test_a_cancellation_replaces_the_stop_after_a_failure_and_there_is_no_retry(rows: Rows) -> None:
    gang = await running(rows, retry_on=("EXIT_CODE",))
    await gang.end(1, FAILED)
    async with rows.sessions.begin() as session:
        await cancel(session, gang.simulation_id, rows.user)
    assert (await gang.report(0)).stop_reason is Reason.CANCELLED
    await gang.end(0, Exit(signal=15, reason="CANCELLED"))
    assert (await gang.row).state == "CANCELLED"


@pytest.mark.parametrize("last", [Exit(signal=15, reason="CANCELLED"), DONE])
async def test_a_cancelled_one_is_cancelled_unless_all_members_completed(last: Exit, rows: Rows) -> None:
    gang = await running(rows)
    await rows.cancel(gang.simulation_id)
    await gang.end(0, Exit(signal=15, reason="CANCELLED"))
    assert (await gang.row).state == "RUNNING"
    await gang.end(1, last)
    assert (await gang.row).state == "CANCELLED"


async def test_a_preempted_one_goes_back_when_all_members_have_ended_and_uses_up_no_retry(rows: Rows) -> None:
    gang = await running(rows, max_retries=0)
    async with rows.sessions.begin() as session:
        assert await preempt(session, gang.simulation_id, PLANNER)
    await gang.end(1, FAILED)
    assert (await gang.report(0)).stop_reason is Reason.PREEMPTED, "the first intent stands"
    await gang.end(0, Exit(signal=15, reason="PREEMPTED"))
    assert (await gang.row).state == "QUEUED"


async def test_the_first_failure_decides_and_a_second_one_changes_nothing(rows: Rows) -> None:
    gang = await running(rows, 3)
    await gang.end(1, FAILED)
    assert await gang.lose(2)
    await gang.end(0, KILLED)
    assert (await gang.row).reason == "EXIT_CODE"
    kinds = [each["kind"] for each in (await rows.snapshot(gang.simulation_id))["events"]]
    assert kinds.count("MEMBER_ENDED") == 1


async def test_the_cost_is_that_of_all_members(rows: Rows) -> None:
    gang = await running(rows)
    async with rows.sessions() as session:
        holdings = (await billing.of_simulations(session, [gang.simulation_id]))[gang.simulation_id]
        simulation = await simulations.get(session, gang.simulation_id)
    assert [(each.price_per_hour, each.share, each.is_open) for each in holdings] == [(2, Decimal("0.5"), True)] * 2
    assert simulation.machines == 2
