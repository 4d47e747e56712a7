"""Watch leases: taken, renewed, ended, expired; and simulations unwatched for their grace."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from db import silence, simulations, watch_leases
from db.states import Reason
from policy.retry import is_unwatched
from transitions.cancel import cancel as cancel_simulation
from transitions.stop import stop
from transitions.submit import repeat

Rows = Any  # the fixture of conftest.py

LEASE = timedelta(seconds=10)
GAP = timedelta(seconds=10)
GRACE = timedelta(minutes=5)
LONG = 10 * GRACE


async def keep(rows: Rows, watcher: str, *ids: int) -> frozenset[int]:
    async with rows.sessions.begin() as session:
        return await watch_leases.keep(session, watcher, ids, LEASE)


async def leave(rows: Rows, watcher: str, *ids: int) -> None:
    async with rows.sessions.begin() as session:
        await watch_leases.leave(session, watcher, ids)


async def watched(rows: Rows, *ids: int) -> frozenset[int]:
    async with rows.sessions() as session:
        return await watch_leases.watched_of(session, ids)


async def unwatched(rows: Rows) -> list[int]:
    async with rows.sessions() as session:
        listening = await silence.listening(session)
        found = [
            each.simulation_id
            for each in await watch_leases.find_unwatched(session)
            if is_unwatched(each.present_since, each.grace, listening, LEASE)
        ]
        for each in found:
            assert await watch_leases.still_unwatched(session, each) is not None
        return found


async def cover(rows: Rows, since: timedelta = LONG, beat: timedelta = timedelta(0)) -> None:
    """Some graph process has beaten since then, and last so long ago."""
    await rows.query(
        "INSERT INTO coverage (role, covered_since, beat_at) "
        "VALUES ('graph', now() - CAST(:since AS interval), now() - CAST(:beat AS interval)) "
        "ON CONFLICT (role) DO UPDATE SET covered_since = excluded.covered_since, beat_at = excluded.beat_at",
        since=since, beat=beat,
    )  # fmt: skip


async def ago(rows: Rows, period: timedelta, simulation_id: int) -> None:
    """Its attempt began so long ago, and its leases ended then."""
    await rows.query(
        "UPDATE attempts SET assigned_at = assigned_at - CAST(:ago AS interval), "
        "started_at = started_at - CAST(:ago AS interval) WHERE simulation_id = :id",
        ago=period, id=simulation_id,
    )  # fmt: skip
    await rows.query(
        "UPDATE watchers SET watched_until = now() - CAST(:ago AS interval) WHERE simulation_id = :id",
        ago=period, id=simulation_id,
    )  # fmt: skip


async def attended(rows: Rows, **given: Any) -> int:
    return int(await rows.simulation(attended=True, attended_grace=GRACE, **given))


@pytest.fixture
async def alone(rows: Rows) -> int:
    """A running attended simulation, unwatched for twice its grace."""
    await cover(rows)
    simulation_id = await attended(rows)
    await rows.start(simulation_id)
    await ago(rows, 2 * GRACE, simulation_id)
    return simulation_id


# --- leases ----------------------------------------------------------------------------------------------------


async def test_a_lease_is_taken_on_what_is_attended_and_has_not_ended(rows: Rows) -> None:
    waits, runs, plain, ended = (
        await attended(rows), await attended(rows), await rows.simulation(), await attended(rows)
    )  # fmt: skip
    await rows.start(runs)
    started = await rows.start(ended)
    await rows.end(ended, started.number)

    assert await keep(rows, "a", waits, runs, plain, ended, 999_999) == {waits, runs}

    assert await watched(rows, waits, runs, plain, ended) == {waits, runs}


async def test_a_lease_is_renewed_in_its_row_and_runs_out_by_itself(rows: Rows) -> None:
    simulation_id = await attended(rows)
    await keep(rows, "a", simulation_id)
    await rows.query("UPDATE watchers SET watched_until = now() - interval '1 s'")
    assert await watched(rows, simulation_id) == frozenset()

    assert await keep(rows, "a", simulation_id) == {simulation_id}

    assert await watched(rows, simulation_id) == {simulation_id}
    [row] = await rows.query("SELECT watcher, watched_until - now() AS left FROM watchers")
    assert (row["watcher"], row["left"] <= LEASE) == ("a", True)


async def test_a_watcher_who_leaves_ends_its_own_lease_only(rows: Rows) -> None:
    first, second = await attended(rows), await attended(rows)
    await keep(rows, "a", first, second)
    await keep(rows, "b", second)

    await leave(rows, "a", first, second)

    assert await watched(rows, first, second) == {second}
    await leave(rows, "b", second)
    assert await watched(rows, first, second) == frozenset()


async def test_no_ids_cost_no_statement(rows: Rows) -> None:
    assert await keep(rows, "a") == frozenset()
    await leave(rows, "a")
    assert await watched(rows) == frozenset()


async def test_a_deleted_simulation_takes_its_leases_with_it(rows: Rows) -> None:
    simulation_id = await attended(rows)
    await keep(rows, "a", simulation_id)
    async with rows.sessions.begin() as session:
        await cancel_simulation(session, simulation_id, rows.user)
        await simulations.delete_ended(session, simulation_id, rows.user)
    assert await rows.query("SELECT * FROM watchers") == []


# --- the grace -------------------------------------------------------------------------------------------------


async def test_a_simulation_unwatched_for_its_grace_is_found(rows: Rows, alone: int) -> None:
    assert await unwatched(rows) == [alone]


async def test_it_is_found_before_its_supervisor_has_said_hello(rows: Rows) -> None:
    await cover(rows)
    simulation_id = await attended(rows)
    await rows.assign(simulation_id)
    assert await unwatched(rows) == []
    await ago(rows, 2 * GRACE, simulation_id)
    assert await unwatched(rows) == [simulation_id]


async def test_it_is_not_found_while_it_is_watched(rows: Rows, alone: int) -> None:
    await keep(rows, "a", alone)
    await ago(rows, 2 * GRACE, alone)  # the lease of "a" ran out: its process has crashed
    await keep(rows, "b", alone)
    assert await unwatched(rows) == []


async def test_the_grace_runs_from_the_newest_lease(rows: Rows, alone: int) -> None:
    await keep(rows, "a", alone)
    await keep(rows, "b", alone)
    await rows.query("UPDATE watchers SET watched_until = now() - interval '1 day' WHERE watcher = 'b'")
    for minutes, expected in ((4, []), (6, [alone])):
        await rows.query(
            "UPDATE watchers SET watched_until = now() - CAST(:ago AS interval) WHERE watcher = 'a'",
            ago=timedelta(minutes=minutes),
        )
        assert await unwatched(rows) == expected


async def test_the_grace_runs_from_the_attempts_begin_if_that_is_later(rows: Rows) -> None:
    await cover(rows)
    simulation_id = await attended(rows)
    await keep(rows, "a", simulation_id)
    await ago(rows, 2 * GRACE, simulation_id)
    await rows.start(simulation_id)
    assert await unwatched(rows) == []


async def test_while_no_graph_process_beats_nothing_is_found(rows: Rows, alone: int) -> None:
    await cover(rows, beat=2 * GAP)
    assert await unwatched(rows) == []


async def test_of_the_time_before_a_graph_process_came_back_nothing_counts(rows: Rows, alone: int) -> None:
    await cover(rows, since=0.9 * GRACE)
    assert await unwatched(rows) == []
    await cover(rows, since=1.1 * GRACE)
    assert await unwatched(rows) == [alone]


async def test_only_attended_ones_on_a_machine_without_a_stop_are_found(rows: Rows, alone: int) -> None:
    plain, waits = (await rows.start()).simulation_id, await attended(rows)
    for each in (plain, waits):
        await ago(rows, 2 * GRACE, each)
    assert await unwatched(rows) == [alone]
    async with rows.sessions.begin() as session:
        assert await stop(session, alone, Reason.UNWATCHED, rows.user)
    assert await unwatched(rows) == []


async def test_a_simulation_stopped_as_unwatched_has_finished(rows: Rows, alone: int) -> None:
    assert await rows.end(alone, 1, Reason.UNWATCHED)
    simulation = await rows.get(alone)
    assert (simulation.state.value, simulation.reason.value) == ("FINISHED", "UNWATCHED")


# --- sweeping --------------------------------------------------------------------------------------------------


async def sweep(session: AsyncSession) -> None:
    await watch_leases.sweep(session, 3 * LEASE)


async def test_leases_are_forgotten_with_the_end_of_their_simulation_or_after_the_longest_grace(rows: Rows) -> None:
    goes_on, ends = await attended(rows), await attended(rows)
    await keep(rows, "a", goes_on, ends)
    await keep(rows, "b", goes_on)
    await keep(rows, "c", goes_on)
    await leave(rows, "b", goes_on)
    await rows.query("UPDATE watchers SET watched_until = now() - interval '25 hours' WHERE watcher = 'c'")
    async with rows.sessions.begin() as session:
        await cancel_simulation(session, ends, rows.user)
        await sweep(session)
    left = await rows.query("SELECT simulation_id, watcher FROM watchers ORDER BY watcher")
    assert [(row["simulation_id"], row["watcher"]) for row in left] == [(goes_on, "a"), (goes_on, "b")]


async def test_a_lease_that_a_clock_set_back_has_made_too_long_ends(rows: Rows) -> None:
    simulation_id = await attended(rows)
    await keep(rows, "live", simulation_id)
    await keep(rows, "crashed", simulation_id)
    await rows.query("UPDATE watchers SET watched_until = now() + interval '1 hour' WHERE watcher = 'crashed'")
    async with rows.sessions.begin() as session:
        await sweep(session)
    left = await rows.query("SELECT watcher FROM watchers WHERE watched_until > now()")
    assert [row["watcher"] for row in left] == ["live"]


async def test_a_lease_being_renewed_is_not_waited_for(rows: Rows) -> None:
    simulation_id = await attended(rows)
    await keep(rows, "a", simulation_id)
    await rows.query("UPDATE watchers SET watched_until = now() - interval '25 hours'")
    async with rows.sessions.begin() as renewing:
        await watch_leases.keep(renewing, "a", [simulation_id], LEASE)
        async with rows.sessions.begin() as session:
            await sweep(session)
    assert await watched(rows, simulation_id) == {simulation_id}


# --- what is asked for -----------------------------------------------------------------------------------------


async def test_a_key_that_was_used_before_there_were_attended_ones_is_still_the_same_content(rows: Rows) -> None:
    plain = await rows.wanted()
    assert plain.digest() == (await rows.wanted(attended_grace=GRACE)).digest()
    assert plain.digest() != (await rows.wanted(attended=True)).digest()
    assert (await rows.wanted(attended=True)).digest() != (
        await rows.wanted(attended=True, attended_grace=GRACE)
    ).digest()


async def test_a_repeated_simulation_is_attended_as_the_old_one_was(rows: Rows) -> None:
    old = await attended(rows)
    async with rows.sessions.begin() as session:
        await cancel_simulation(session, old, rows.user)
        new = await repeat(session, old, rows.user)
    assert (new.attended, new.attended_grace) == (True, GRACE)
