"""The leader's round, on real rows: who gets a machine, who waits and why, what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rows import claim_launch
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, lifecycle, machines, silence
from db.attempts import Claim
from db.events import Actor
from db.models import Attempt
from db.states import Reason
from scheduler import planner as planner_module
from scheduler.enforcement import Enforcement
from scheduler.planner import Planner
from settings import Settings
from transitions.begin import hello
from transitions.settle import Ending, end, settle
from transitions.update import update

World = Any  # the fixture of conftest.py
USER = Actor("user")


@pytest.fixture
def woken() -> list[Set[str]]:
    """The hosts that the planner has assigned something to, by round."""
    return []


@pytest.fixture
def planner(world: World, woken: list[Set[str]]) -> Planner:
    return Planner(world.sessions, world.settings, woken.append)


async def test_an_empty_queue_needs_nothing(planner: Planner) -> None:
    summary = await planner.tick()
    assert (summary.assigned, summary.waiting, summary.ended) == (0, 0, 0)


async def test_the_highest_priority_is_served_first_then_the_oldest(world: World, planner: Planner) -> None:
    await world.machine(cpus=2.0)
    low = await world.simulation("low", priority=-1)
    old, young = await world.simulation("old"), await world.simulation("young")
    urgent = await world.simulation("urgent", priority=10)

    summary = await planner.tick()

    assert summary.assigned == 2
    assert summary.waiting == 1  # class of equal requirements
    states = [await world.state(each) for each in (urgent, old, young, low)]
    assert states == ["STARTING", "STARTING", "QUEUED", "QUEUED"]


async def test_an_assignment_is_billed_by_the_machine_as_it_was_then(
    world: World, planner: Planner, woken: list[Set[str]]
) -> None:
    machine_id = await world.machine(cpus=4.0, price_per_hour=Decimal("2.5"))
    simulation_id = await world.simulation(cpus=1.0)

    await planner.tick()
    assert woken == [{world.host_id}]

    await world.execute("UPDATE machines SET price_per_hour = 100")
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.number, attempt.machine_id, attempt.machine_name) == (1, machine_id, "m1")
    assert (attempt.price_per_hour, attempt.share, attempt.currency) == (Decimal("2.5"), Decimal("0.25"), "USD")
    assert attempt.host == world.host_id
    assert [event.kind for event in await world.events_of(simulation_id)] == ["QUEUED", "STARTING"]


async def test_each_that_waits_is_told_why_and_no_longer_when_it_is_placed(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    first, second = await world.simulation(), await world.simulation()
    impossible = await world.simulation(gpus=8)

    await planner.tick()

    waits, lacks = await world.wait_of(second), await world.wait_of(impossible)
    assert (waits.reason, lacks.reason) == ("MACHINES_BUSY", "NO_MACHINE_FITS")
    assert waits.detail.startswith("Fits on m1")
    assert "GPUs" in lacks.detail
    assert await world.waiting(first) is None
    await world.execute("UPDATE machines SET cpus = 2")
    await planner.plan()
    assert await world.waiting(second) is None


async def test_without_a_machine_everything_waits(world: World, planner: Planner) -> None:
    simulation_id = await world.simulation()
    await planner.tick()
    assert await world.waiting(simulation_id) == "NO_MACHINE_FITS"


async def test_a_machine_that_is_drained_offline_or_gone_gets_nothing(world: World, planner: Planner) -> None:
    drained, offline, gone = await world.machine("m1"), await world.machine("m2"), await world.machine("m3")
    async with world.sessions.begin() as session:
        await machines.drain(session, drained, USER)
    await world.execute("UPDATE machines SET heartbeat_at = now() - interval '1 hour' WHERE id = :id", id=offline)
    async with world.sessions.begin() as session:
        await machines.delete_idle(session, gone, USER)
    simulation_id = await world.simulation()
    named = await world.simulation(machine_id=drained, machine_name="m1")
    deleted = await world.simulation(machine_name="m3")

    assert (await planner.tick()).assigned == 0

    assert await world.waiting(simulation_id) == "NO_MACHINE_FITS"
    assert "draining" in (await world.wait_of(named)).detail
    assert "deleted" in (await world.wait_of(deleted)).detail
    async with world.sessions.begin() as session:
        await machines.resume(session, drained, USER)
    assert (await planner.tick()).assigned == 2


async def test_a_plan_that_the_world_has_overtaken_is_not_carried_out(
    world: World, planner: Planner, woken: list[Set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the judgement and the transaction: cancelled, drained, deleted, filled up; the fifth is carried out."""
    names = ("m1", "m2", "m3", "m4", "m5")
    ids = {name: await world.machine(name, host=f"host-{name}", cpus=1.0) for name in names}
    wants = {
        name: await world.simulation(name, machine_id=machine_id, machine_name=name) for name, machine_id in ids.items()
    }
    judged = planner_module.plan
    loop = asyncio.get_running_loop()

    async def overtake() -> None:
        await world.cancel(wants["m1"])
        async with world.sessions.begin() as session:
            await machines.drain(session, ids["m2"], USER)
            await machines.delete_idle(session, ids["m3"], USER)
        rival = await world.simulation("rival", machine_id=ids["m4"], machine_name="m4", priority=5)
        monkeypatch.setattr(planner_module, "plan", judged)
        with monkeypatch.context() as patch:  # the rival alone, which is first by priority
            patch.setattr(planner_module, "PLACEMENTS_AT_ONCE", 1)
            assert (await Planner(world.sessions, world.settings).plan()).assigned == 1
        assert await world.state(rival) == "STARTING"

    def plan(*arguments: Any, **named: Any) -> Any:
        answers = judged(*arguments, **named)
        asyncio.run_coroutine_threadsafe(overtake(), loop).result()
        return answers

    monkeypatch.setattr(planner_module, "plan", plan)
    summary = await planner.plan()

    assert (summary.assigned, summary.refused, woken) == (1, 4, [{"host-m5"}])
    states = [await world.state(each) for each in wants.values()]
    assert states == ["CANCELLED", "QUEUED", "QUEUED", "QUEUED", "STARTING"]


async def test_a_round_takes_as_many_statements_for_thirty_placements_as_for_three(
    world: World, planner: Planner
) -> None:
    await world.machine(cpus=64.0)

    async def statements(count: int) -> list[str]:
        sent: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            sent.append(statement)

        for _ in range(count):
            await world.simulation()
        engine = world.sessions.kw["bind"].sync_engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            assert (await planner.plan()).assigned == count
        finally:
            event.remove(engine, "before_cursor_execute", note)
        return sent

    _, few, many = await statements(1), await statements(3), await statements(30)  # the first reads what ended, too
    assert len(many) == len(few)
    assert sum("INSERT INTO attempts" in each for each in many) == 1


async def test_gpus_are_given_out_once_per_host_whatever_machines_share_it(world: World, planner: Planner) -> None:
    await world.machine("big", gpus=4, gpu_model="H100", cpus=8.0)
    for name in ("half-1", "half-2"):
        async with world.sessions.begin() as session:
            await machines.declare(
                session,
                machines.Declared(name, world.host_id, 4.0, 16.0, 2, "H100", {}, Decimal(0)),
                USER,
            )
    wants = [await world.simulation(gpus=1) for _ in range(6)]

    assert (await planner.tick()).assigned == 4

    placed = [each for want in wants for each in await world.attempts_of(want)]
    assert sorted(index for each in placed for index in each.gpu_indices) == [0, 1, 2, 3]
    await _end(world, placed[1])
    await planner.tick()
    newest = [each for want in wants for each in await world.attempts_of(want) if each.id > placed[-1].id]
    assert [each.gpu_indices for each in newest] == [placed[1].gpu_indices]


async def test_two_leaders_at_once_never_give_more_than_there_is(world: World) -> None:
    """Every simulation at most once, every cpu and GPU at most once, over several rounds of both."""
    await world.machine("m1", cpus=3.0, gpus=3)
    await world.machine("m2", cpus=2.0, host="host-2")
    wants = [await world.simulation(gpus=number % 2) for number in range(20)]
    leaders = [Planner(world.sessions, world.settings) for _ in range(2)]

    for _ in range(10):
        await asyncio.gather(*(leader.tick() for leader in leaders))
        placed = [each for want in wants for each in await world.attempts_of(want) if each.ended_at is None]
        assert len({each.simulation_id for each in placed}) == len(placed)
        indices = [index for each in placed if each.host == world.host_id for index in each.gpu_indices]
        assert len(indices) == len(set(indices))
        assert sum(1 for each in placed if each.machine_name == "m1") <= 3
        assert sum(1 for each in placed if each.machine_name == "m2") <= 2
        for each in placed:
            await _end(world, each)

    assert [await world.state(want) for want in wants] == ["FINISHED"] * 20
    assert [len(await world.attempts_of(want)) for want in wants] == [1] * 20


async def test_more_than_one_round_places_is_said_to_be_unfinished(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_module, "PLACEMENTS_AT_ONCE", 2)
    await world.machine(cpus=4.0)
    for _ in range(3):
        await world.simulation()
    first, second = await planner.plan(), await planner.plan()
    assert (first.assigned, first.unfinished) == (2, True)
    assert (second.assigned, second.unfinished) == (1, False)


# --- losses ----------------------------------------------------------------------------------------------------


async def _running(world: World, planner: Planner, **given: Any) -> int:
    await world.machine(cpus=64.0)
    simulation_id: int = await world.simulation(**given)
    assert (await planner.tick()).assigned == 1
    await world.hello(simulation_id)
    return simulation_id


async def _change(world: World, simulation_id: int, **asked: Any) -> None:
    async with world.sessions.begin() as session:
        simulation = await lifecycle.lock(session, simulation_id)
        await update(session, simulation, asked, USER, stop_grace=timedelta(0))


async def _end(world: World, attempt: Attempt) -> None:
    async with world.sessions.begin() as session:
        assert await end(session, attempt.simulation_id, attempt.number, Ending(Reason.COMPLETED), USER)


async def test_a_silent_attempt_is_lost_and_its_simulation_goes_back_to_the_queue(
    world: World, planner: Planner
) -> None:
    simulation_id = await _running(world, planner, max_retries=1)
    await world.silence(simulation_id)
    await world.cover()
    await world.host_dies()

    assert (await planner.tick()).ended == 1

    simulation = await world.get(simulation_id)
    lost, successor = await world.attempts_of(simulation_id)
    assert (simulation.state.value, simulation.reason) == ("STARTING", None)
    assert lost.reason == "MACHINE_LOST"
    assert "m1" in lost.reason_detail
    assert simulation.queued_at == lost.ended_at, "the first retry after a lost machine waits for nothing"
    assert (successor.number, successor.ended_at) == (2, None)


async def test_the_second_loss_waits_out_its_backoff(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_retries=2)
    for _ in range(2):
        await world.silence(simulation_id)
        await world.cover()
        await world.host_dies()
        assert (await planner.tick()).ended == 1

    simulation = await world.get(simulation_id)
    attempt = await world.attempt_of(simulation_id)
    assert (simulation.state.value, attempt.number) == ("QUEUED", 2)
    backoff = timedelta(seconds=world.settings.retry_backoff_seconds)
    assert simulation.queued_at - attempt.ended_at == 2 * backoff
    assert len(await world.attempts_of(simulation_id)) == 2, "it waits out its backoff"

    await world.execute("UPDATE simulations SET queued_at = now()")
    await planner.tick()
    assert [each.number for each in await world.attempts_of(simulation_id)] == [1, 2, 3]


async def test_a_loss_without_retries_left_is_final(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_retries=0)
    await world.silence(simulation_id)
    await world.cover()
    await world.host_dies()
    await planner.tick()
    simulation = await world.get(simulation_id)
    assert (simulation.state.value, simulation.reason) == ("FAILED", "MACHINE_LOST")


async def test_a_loss_while_a_stop_was_wanted_is_a_cancellation(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_retries=5)
    await world.cancel(simulation_id)
    await world.silence(simulation_id)
    await world.cover()
    await world.host_dies()
    await planner.tick()
    assert await world.state(simulation_id) == "CANCELLED"


@pytest.mark.parametrize("roles", [("graph",), ("scheduler",), ()])
async def test_no_attempt_is_lost_while_reports_could_not_arrive(world: World, planner: Planner, roles: Any) -> None:
    simulation_id = await _running(world, planner)
    await world.silence(simulation_id, leases=100)
    await world.execute("DELETE FROM coverage")
    await world.cover(leases=100, roles=roles)
    await world.host_dies()
    assert (await planner.tick()).ended == 0
    assert await world.state(simulation_id) == "RUNNING"


async def test_a_scheduler_that_missed_a_lease_listens_for_a_lease_first(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner)
    await world.silence(simulation_id)
    await world.cover(leases=100)
    await world.host_dies()
    await world.execute("UPDATE coverage SET beat_at = now() - interval '1 hour' WHERE role = 'scheduler'")
    assert (await planner.tick()).ended == 0


async def test_a_heartbeat_from_the_future_counts_from_now(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner)
    await world.execute("UPDATE members SET heartbeat_at = now() + interval '1 day'")
    await planner.tick()
    attempt = await world.attempt_of(simulation_id)
    assert attempt.heartbeat_at - attempt.started_at < timedelta(hours=1)


async def test_where_the_hosts_own_scheduler_lives_it_has_a_second_lease_to_prove_the_loss(
    world: World, planner: Planner
) -> None:
    simulation_id = await _running(world, planner)
    await world.cover(leases=10)
    await world.silence(simulation_id, leases=1.5)
    assert (await planner.tick()).ended == 0
    await world.silence(simulation_id, leases=2.5)
    assert (await planner.tick()).ended == 1


async def test_two_leaders_lose_an_attempt_once(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_retries=3)
    await world.silence(simulation_id)
    await world.cover()
    await world.host_dies()
    other = Planner(world.sessions, world.settings)
    summaries = await asyncio.gather(planner.tick(), other.tick())
    assert sum(each.ended for each in summaries) == 1
    assert [each.reason for each in await world.attempts_of(simulation_id)] == ["MACHINE_LOST", None]


# --- stops -----------------------------------------------------------------------------------------------------


async def test_what_is_cancelled_before_its_launch_is_over_at_once(world: World, planner: Planner) -> None:
    await world.machine()
    simulation_id = await world.simulation(max_retries=5)
    await planner.tick()
    await world.cancel(simulation_id)
    assert await world.state(simulation_id) == "STARTING"
    assert (await planner.tick()).ended == 1
    simulation = await world.get(simulation_id)
    assert (simulation.state.value, simulation.reason) == ("CANCELLED", "CANCELLED")


async def test_what_is_cancelled_during_its_launch_is_left_to_its_supervisor(world: World, planner: Planner) -> None:
    await world.machine()
    simulation_id = await world.simulation()
    await planner.tick()
    async with world.sessions.begin() as session:
        assert await claim_launch(session, (await world.attempt_of(simulation_id)).id, b"digest")
    await world.cancel(simulation_id)
    assert (await planner.tick()).ended == 0
    assert await world.state(simulation_id) == "STARTING"


async def test_what_has_not_begun_has_not_passed_its_limit_however_long_the_scheduler_runs(
    world: World, planner: Planner
) -> None:
    await world.machine()
    simulation_id = await world.simulation(max_runtime=timedelta(seconds=1))
    await planner.tick()
    assert await world.state(simulation_id) == "STARTING"
    await world.cover(leases=1000)
    await planner.tick()
    assert await world.stop_of(simulation_id) is None


async def test_a_supervisor_that_lets_its_limit_pass_is_told_to_stop(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_runtime=timedelta(hours=1))
    await world.execute("UPDATE attempts SET started_at = now() - interval '1 hour 1 minute'")
    await planner.tick()
    assert await world.stop_of(simulation_id) is None, "the clock has jumped: there was no tick for so long"
    await world.execute("UPDATE coverage SET covered_since = now() - interval '1 day'")
    await world.execute("UPDATE attempts SET started_at = now() - interval '1 hour 1 second'")
    await planner.tick()
    assert await world.stop_of(simulation_id) is None, "its supervisor is just about to do it"
    await world.execute("UPDATE attempts SET started_at = now() - interval '1 hour 1 minute'")
    await planner.tick()
    assert (await world.stop_of(simulation_id)).reason == "MAX_RUNTIME"


async def test_the_attempt_after_one_over_its_limit_is_not_told_to_stop(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation_id = await _running(world, planner, max_runtime=timedelta(hours=1), max_retries=1)
    await world.execute("UPDATE coverage SET covered_since = now() - interval '1 day'")
    await world.execute("UPDATE attempts SET started_at = now() - interval '1 hour 1 minute'")
    find = silence.find_beyond_limit

    async def found_before_its_end(session: AsyncSession) -> Sequence[tuple[Attempt, timedelta]]:
        found = await find(session)
        monkeypatch.setattr(silence, "find_beyond_limit", find)
        async with world.sessions.begin() as other:
            assert await end(other, simulation_id, 1, Ending(Reason.MACHINE_LOST), USER, retry_after=timedelta())
        await planner.tick()
        return found

    monkeypatch.setattr(silence, "find_beyond_limit", found_before_its_end)
    await Enforcement(world.sessions, Settings()).stop_overdue()
    assert [each.number for each in await world.attempts_of(simulation_id)] == [1, 2]
    assert await world.stop_of(simulation_id) is None


@pytest.mark.parametrize("raised", [timedelta(hours=2), None])
async def test_what_is_over_its_limit_goes_on_if_that_was_raised_meanwhile(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch, raised: timedelta | None
) -> None:
    simulation_id = await _running(world, planner, max_runtime=timedelta(hours=1))
    await world.execute("UPDATE coverage SET covered_since = now() - interval '1 day'")
    await world.execute("UPDATE attempts SET started_at = now() - interval '1 hour 1 minute'")
    find = silence.find_beyond_limit

    async def found_before_the_change(session: AsyncSession) -> Sequence[tuple[Attempt, timedelta]]:
        found = await find(session)
        assert len(found) == 1
        await _change(world, simulation_id, max_runtime=raised)
        return found

    monkeypatch.setattr(silence, "find_beyond_limit", found_before_the_change)
    await Enforcement(world.sessions, Settings()).stop_overdue()
    assert await world.stop_of(simulation_id) is None


@pytest.mark.parametrize("raised", [Decimal(6), None])
async def test_what_costs_its_limit_goes_on_if_that_was_raised_meanwhile(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch, raised: Decimal | None
) -> None:
    simulation_id = await _running(world, planner, max_cost=Decimal(5))
    await world.execute("UPDATE members SET price_per_hour = 60, share = 0.5")
    await world.execute("UPDATE members SET assigned_at = now() - interval '10 min'")
    find = silence.find_with_max_cost

    async def found_before_the_change(session: AsyncSession) -> Sequence[tuple[Attempt, Decimal]]:
        found = await find(session)
        assert len(found) == 1
        await _change(world, simulation_id, max_cost=raised)
        return found

    monkeypatch.setattr(silence, "find_with_max_cost", found_before_the_change)
    await Enforcement(world.sessions, Settings()).stop_spent()
    assert await world.stop_of(simulation_id) is None


async def test_what_costs_its_limit_is_told_to_stop_even_if_it_is_silent(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_cost=Decimal(5))
    await world.execute("UPDATE members SET price_per_hour = 60, share = 0.5")
    await world.execute("UPDATE members SET assigned_at = now() - interval '9 min'")
    await world.silence(simulation_id, leases=0.9)
    await planner.tick()
    assert await world.stop_of(simulation_id) is None
    await world.execute("UPDATE members SET assigned_at = now() - interval '10 min'")
    await planner.tick()
    assert (await world.stop_of(simulation_id)).reason == "MAX_COST"


async def test_what_has_cost_its_limit_is_not_retried(world: World, planner: Planner) -> None:
    simulation_id = await _running(world, planner, max_cost=Decimal(5), max_retries=3)
    await world.execute("UPDATE members SET price_per_hour = 60, share = 0.5")
    for minutes, state, reason in ((4, "QUEUED", None), (6, "FAILED", "MAX_COST")):  # of ten that are paid
        await world.execute(f"UPDATE members SET assigned_at = now() - interval '{minutes} min' WHERE ended_at IS NULL")
        async with world.sessions.begin() as session:
            simulation = await lifecycle.lock(session, simulation_id)
            number, lost = simulation.attempt, Ending(Reason.MACHINE_LOST)
            assert await settle(session, simulation_id, number, lost, events.PLANNER, backoff=timedelta(0))
        ended = await world.get(simulation_id)
        assert (ended.state, ended.reason) == (state, reason)
        if state == "QUEUED":
            await planner.tick()
            await world.hello(simulation_id)
            await world.execute("UPDATE members SET price_per_hour = 60, share = 0.5")


# --- several machines ------------------------------------------------------------------------------------------


async def test_all_members_are_assigned_together_each_with_its_grant(
    world: World, planner: Planner, woken: list[Set[str]]
) -> None:
    for name, gpus in (("m1", 2), ("m2", 2)):
        await world.machine(name, host=name, gpus=gpus, price_per_hour=Decimal(3))
    simulation_id = await world.simulation(machines=2, gpus=2, cpus=2.0)
    summary = await planner.plan()
    assert (summary.assigned, woken) == (1, [{"m1", "m2"}])
    async with world.sessions() as session:
        members = await attempts.members_of(session, [(await world.attempt_of(simulation_id)).id])
    assert [(each.rank, each.machine_name, each.gpu_indices, each.share) for each in members] == [
        (0, "m1", [0, 1], 1), (1, "m2", [0, 1], 1),
    ]  # fmt: skip


async def test_members_on_one_host_get_different_gpus(world: World, planner: Planner) -> None:
    for name in ("m1", "m2"):
        await world.machine(name, gpus=2)
    simulation_id = await world.simulation(machines=2, gpus=1)
    await planner.plan()
    async with world.sessions() as session:
        members = await attempts.members_of(session, [(await world.attempt_of(simulation_id)).id])
    assert [each.gpu_indices for each in members] == [[0], [1]]


async def test_one_that_needs_more_than_all_machines_waits_and_is_placed_when_another_joins(
    world: World, planner: Planner
) -> None:
    await world.machine("m1")
    simulation_id = await world.simulation(machines=2, cpus=4.0)
    single_id = await world.simulation(cpus=4.0)
    assert (await planner.plan()).assigned == 1
    assert await world.state(single_id) == "STARTING", "it is in a class of its own"
    wait = await world.wait_of(simulation_id)
    assert wait is not None
    assert (wait.reason, wait.detail.startswith("It needs 2 machines at once")) == ("NO_MACHINE_FITS", True)
    for name in ("m2", "m3"):
        await world.machine(name)
    assert (await planner.plan()).assigned == 1
    assert await world.state(simulation_id) == "STARTING"


async def test_a_member_of_which_nothing_is_heard_is_lost_and_the_others_are_stopped(
    world: World, planner: Planner
) -> None:
    for name in ("m1", "m2"):
        await world.machine(name, host=name)
    simulation_id = await world.simulation(machines=2)
    await planner.plan()
    attempt = await world.attempt_of(simulation_id)
    for rank in (0, 1):
        async with world.sessions.begin() as session:
            assert await claim_launch(session, attempt.id, b"token %d" % rank, rank)
            await hello(session, Claim(attempt.id, b"token %d" % rank, "nonce"))
    assert await world.state(simulation_id) == "RUNNING"
    await world.cover(3)
    await world.execute(
        "UPDATE members SET heartbeat_at = now() - CAST(:ago AS interval) WHERE rank = 1",
        ago=timedelta(seconds=2.5 * world.settings.lease_seconds),
    )
    assert (await planner.tick()).ended == 1
    assert await world.state(simulation_id) == "RUNNING"
    stop = await world.stop_of(simulation_id)
    assert stop is not None
    assert stop.reason == "MACHINE_LOST"
    await world.cover(3)
    await world.silence(simulation_id, 2.5)
    assert (await planner.tick()).ended == 1
    [ended] = await world.attempts_of(simulation_id)
    assert "Rank 1 of 2, on m2: Nothing was heard of it" in ended.reason_detail
