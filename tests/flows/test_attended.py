"""Attended simulations in real processes: start for a subscriber, stop without one, with any process killed."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from live import BRISK, Service, eventually, kill, number_of, part_on, service_on
from observers import Watch

WALK = ("python", "-m", "runner.demo", "--steps", "100000", "--interval", "0.02")
ENOUGH = 5  # points, to see that it goes on
LIVE = "SELECT count(*) FROM watchers WHERE simulation_id = $1 AND watched_until > now()"
# As if all that has happened so far had happened an hour ago; of the leases, those that have ended.
LONG_AGO = """
    UPDATE attempts SET assigned_at = assigned_at - interval '1 hour', started_at = started_at - interval '1 hour';
    UPDATE coverage SET covered_since = covered_since - interval '1 hour' WHERE role = 'graph';
    UPDATE watchers SET watched_until = watched_until - interval '1 hour' WHERE watched_until < now();
"""
# As if all leases had run out: a living process renews its own. (Short leases would run out on a busy machine.)
RUN_OUT = "UPDATE watchers SET watched_until = least(watched_until, now())"


@pytest.fixture
def other(brisk: Service) -> Iterator[Service]:
    """Another graph process on the same database, which nothing starts again."""
    with part_on(brisk.database_url, ("-m", "graph"), BRISK) as part:
        yield part


async def waits(service: Service, simulation_id: str) -> None:
    async def is_told() -> bool:
        shown = await service.show(simulation_id)
        return shown["state"] == "QUEUED" and (shown["waiting"] or {}).get("reason") == "UNATTENDED"

    await eventually(is_told, "it waits for a subscriber")


async def watched_by(service: Service, simulation_id: str, count: int) -> None:
    """Wait until the database has leases of so many processes."""
    await service.in_time_says(f"{count} leases are live", f"SELECT ({LIVE}) = $2", number_of(simulation_id), count)


async def is_left_alone(service: Service, simulation_id: str) -> None:
    """Wait until the planner has looked at it three times; it has found nothing to stop."""
    await service.rounds(3)
    shown = await service.show(simulation_id)
    assert (shown["state"], len(shown["attempts"])) == ("RUNNING", 1)
    assert "STOP_WANTED" not in [event["kind"] for event in shown["events"]]


async def has_finished_unwatched(service: Service, simulation_id: str) -> None:
    async def is_over() -> bool:
        return bool((await service.show(simulation_id))["state"] == "FINISHED")

    await eventually(is_over, "it is stopped")
    shown = await service.show(simulation_id)
    assert (shown["reason"], len(shown["attempts"])) == ("UNWATCHED", 1)
    attempt = shown["attempts"][0]["id"]
    await eventually(lambda: not service.processes_of(attempt), "all of it is gone")


async def test_it_waits_for_a_subscriber_runs_while_there_is_one_and_is_stopped_after_the_grace(brisk: Service) -> None:
    simulation = await brisk.submit(*WALK, attended=True, attendedGraceSeconds=1)
    await waits(brisk, simulation)

    watch = Watch.of(brisk, simulation)
    await watch.has_received(ENOUGH)
    await is_left_alone(brisk, simulation)
    await watch.leave()

    await has_finished_unwatched(brisk, simulation)
    late = await brisk.events(simulation)
    assert (late[-1]["state"], late[-1]["reason"]) == ("FINISHED", "UNWATCHED")


async def test_it_starts_at_once_not_when_a_timer_says_so(database_url: str) -> None:
    slow = {"SIMULATIONS_TICK_SECONDS": "60", "SIMULATIONS_LEASE_SECONDS": "3600"}  # more than any wait here
    with service_on(database_url, **{**BRISK, **slow}) as service:
        await service.up()
        await service.whole()
        simulation = await service.submit(*WALK, attended=True)
        await waits(service, simulation)
        watch = Watch.of(service, simulation)
        await eventually(lambda: len(watch.received("loss")) > 0, "it runs", seconds=50)
        await watch.leave()


async def test_it_goes_on_when_one_of_two_watching_processes_is_killed(brisk: Service, other: Service) -> None:
    await other.up()
    simulation = await brisk.submit(*WALK, attended=True)
    stays, goes = Watch.of(brisk, simulation), Watch.of(other, simulation)
    await stays.has_received(ENOUGH)
    await goes.has_received(ENOUGH)
    await watched_by(brisk, simulation, 2)

    assert other.process is not None
    kill(psutil.Process(other.process.pid))
    await goes.leave()

    await brisk.alter(RUN_OUT)
    await watched_by(brisk, simulation, 1)
    await brisk.alter(LONG_AGO)
    await is_left_alone(brisk, simulation)
    await stays.has_received(len(stays.received("loss")) + ENOUGH)

    await stays.leave()
    await watched_by(brisk, simulation, 0)
    await is_left_alone(brisk, simulation)  # for a grace
    await brisk.alter(LONG_AGO)
    await has_finished_unwatched(brisk, simulation)


async def test_it_goes_on_when_the_only_watching_process_is_killed_and_the_client_comes_back(brisk: Service) -> None:
    simulation = await brisk.submit(*WALK, attended=True)
    watch = Watch.of(brisk, simulation)
    await watch.has_received(ENOUGH)

    kill(brisk.child("graph"))
    await brisk.whole()

    await watch.has_received(len(watch.received("loss")) + ENOUGH)
    two = "SELECT count(*) = 2 FROM watchers WHERE simulation_id = $1"
    await brisk.in_time_says("the new process has a lease of its own", two, number_of(simulation))
    await brisk.alter(RUN_OUT)
    await watched_by(brisk, simulation, 1)
    await brisk.alter(LONG_AGO)
    await is_left_alone(brisk, simulation)
    assert [step for _, step, _ in watch.received("loss")] == list(range(len(watch.received("loss"))))
    await watch.leave()
