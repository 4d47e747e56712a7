"""A host's own round: launches, probes, ends and clears away, with an engine that follows a script."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from rows import claim_launch
from structlog.testing import capture_logs

from db import attempts, machines, public_ids, simulations
from db.attempts import Claim
from db.events import Actor
from db.states import Reason
from runner.base import Engine, Launch, LaunchError, Liveness
from scheduler.host import HostLoop
from scheduler.planner import Planner
from transitions.begin import hello
from transitions.settle import Ending, end

World = Any  # the fixtures of conftest.py
ScriptedEngine = Any
USER = Actor("user")


@pytest.fixture
def host(world: World, scripted: ScriptedEngine) -> HostLoop:
    engine: Engine = scripted
    return HostLoop(world.sessions, world.settings, engine, world.host_id)


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def _assigned(world: World, host: HostLoop, planner: Planner, **given: Any) -> int:
    """A simulation that was just assigned to the host's own machine."""
    await host.run_once()
    simulation_id: int = await world.simulation(**given)
    await planner.plan()
    assert await world.state(simulation_id) == "STARTING"
    return simulation_id


async def _running(world: World, host: HostLoop, planner: Planner, **given: Any) -> int:
    simulation_id = await _assigned(world, host, planner, **given)
    await host.launch_assigned()
    await world.hello(simulation_id)
    return simulation_id


async def _public_id(world: World, simulation_id: int) -> str:
    return public_ids.encode("Attempt", (await world.attempt_of(simulation_id)).id)


async def _complete(world: World, simulation_id: int) -> None:
    async with world.sessions.begin() as session:
        assert await end(session, simulation_id, 1, Ending(Reason.COMPLETED), USER)


# --- announcing ------------------------------------------------------------------------------------------------


async def test_a_host_joins_with_what_its_engine_found(world: World, host: HostLoop, scripted: ScriptedEngine) -> None:
    await host.run_once()
    await host.run_once()
    async with world.sessions() as session:
        [machine] = await machines.every(session)
        assert await machines.states_of(session, [machine.id], host._lease) == {machine.id: "ONLINE"}
        assert await machines.live_hosts(session, host._lease) == {world.host_id}
    assert (machine.name, machine.host, machine.cpus) == ("here", world.host_id, 4.0)


async def test_a_host_without_an_entry_of_its_own_serves_declared_machines_only(
    world: World, scripted: ScriptedEngine, planner: Planner
) -> None:
    await HostLoop(world.sessions, world.settings, scripted, world.host_id).run_once()
    only_declared = world.settings.model_copy(update={"local_machine": False})
    host = HostLoop(world.sessions, only_declared, scripted, world.host_id)
    await host.run_once()
    simulation_id = await world.simulation()
    assert (await planner.plan()).assigned == 0

    await world.machine("declared")
    await planner.plan()
    assert (await host.launch_assigned()).launched == 1
    assert (await world.attempt_of(simulation_id)).machine_name == "declared"
    assert scripted.launches[0].machine_key == "key-declared"


async def test_a_machine_that_was_deleted_comes_back_while_its_engine_finds_it(world: World, host: HostLoop) -> None:
    await host.run_once()
    async with world.sessions.begin() as session:
        [machine] = await machines.every(session)
        await machines.delete_idle(session, machine.id, USER)
    await host.run_once()
    async with world.sessions() as session:
        assert [each.name for each in await machines.every(session)] == ["here"]


# --- launching -------------------------------------------------------------------------------------------------


async def test_an_assigned_attempt_is_launched_once_with_a_token_of_its_own(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _assigned(world, host, planner)
    assert (await host.launch_assigned()).launched == 1
    assert (await host.launch_assigned()).launched == 0
    await host.run_once()

    [launch] = scripted.launches
    attempt = await world.attempt_of(simulation_id)
    assert launch.attempt_id == public_ids.encode("Attempt", attempt.id)
    assert launch.simulation_id == public_ids.encode("Simulation", simulation_id)
    assert launch.machine_key == "own"
    assert sha256(launch.token.encode()).digest() == attempt.token_digest
    assert attempt.launched_at is not None
    await world.hello(simulation_id)
    assert await world.state(simulation_id) == "RUNNING"


class CountedSessions:
    """A session factory that counts what is opened."""

    def __init__(self, sessions: Any) -> None:
        self._sessions = sessions
        self.opened = 0

    def __call__(self) -> Any:
        self.opened += 1
        return self._sessions()

    def begin(self) -> Any:
        self.opened += 1
        return self._sessions.begin()


async def test_launches_share_their_transactions(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    await host.run_once()
    for _ in range(16):
        await world.simulation(cpus=0.01)
    await planner.plan()
    counted: Any = CountedSessions(world.sessions)
    assert (await HostLoop(counted, world.settings, scripted, world.host_id).launch_assigned()).launched == 16
    assert counted.opened <= 5, "one to find them, then two for eight at a time"
    assert len({launch.token for launch in scripted.launches}) == 16
    assert (await host.launch_assigned()).launched == 0


async def test_another_hosts_attempts_are_not_touched(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    await world.machine("elsewhere", host="host-2")
    simulation_id = await world.simulation()
    await planner.plan()
    await host.run_once()
    assert scripted.launches == []
    assert await world.state(simulation_id) == "STARTING"


async def test_a_launch_that_was_cut_off_is_made_again_with_a_new_token(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _assigned(world, host, planner)
    async with world.sessions.begin() as session:
        assert await claim_launch(session, (await world.attempt_of(simulation_id)).id, b"of the killed one")

    await host.run_once()

    attempt = await world.attempt_of(simulation_id)
    assert attempt.token_digest == sha256(scripted.launches[0].token.encode()).digest()
    async with world.sessions.begin() as session:
        greeting = await hello(session, Claim(attempt.id, b"of the killed one", "nonce"))
    assert greeting.standing is attempts.Standing.UNKNOWN


async def test_a_launch_that_was_not_noted_is_found_and_not_made_again(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _assigned(world, host, planner)
    await host.launch_assigned()
    await world.execute("UPDATE members SET launched_at = NULL")
    assert (await host.launch_assigned()).launched == 1
    await world.execute("UPDATE members SET launched_at = NULL")
    await world.hello(simulation_id)
    del scripted.liveness[await _public_id(world, simulation_id)]
    assert (await host.launch_assigned()).launched == 1, "it has said hello: there was a launch"
    assert len(scripted.launches) == 1
    assert (await world.attempt_of(simulation_id)).launched_at is not None


async def test_a_launch_that_was_not_noted_and_died_is_made_again(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _assigned(world, host, planner)
    public_id = await _public_id(world, simulation_id)
    scripted.liveness[public_id] = Liveness.DEAD
    await host.launch_assigned()
    assert [each.attempt_id for each in scripted.launches] == [public_id]


@pytest.mark.parametrize("failure", [LaunchError("No directory /nowhere on here."), OSError("disk full")])
async def test_a_launch_error_is_final_and_says_why(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine, failure: Exception
) -> None:
    simulation_id = await _assigned(world, host, planner, max_retries=3)
    scripted.failure = failure
    assert (await host.launch_assigned()).ended == 1
    simulation = await world.get(simulation_id)
    assert (simulation.state.value, simulation.reason) == ("FAILED", "LAUNCH_ERROR")
    assert simulation.reason_detail == str(failure)


async def test_a_launch_error_is_retried_where_that_was_chosen(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _assigned(world, host, planner, max_retries=1, retry_on=("LAUNCH_ERROR",))
    scripted.failure = LaunchError("not today")
    await host.launch_assigned()
    assert await world.state(simulation_id) == "QUEUED"
    await world.execute("UPDATE simulations SET queued_at = now()")
    await planner.plan()
    await host.launch_assigned()
    assert await world.state(simulation_id) == "FAILED"
    assert len(await world.attempts_of(simulation_id)) == 2


async def test_an_unforeseen_error_in_one_launch_keeps_no_other_from_starting(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await _assigned(world, host, planner)
    second = await world.simulation()
    await planner.plan()
    broken = await _public_id(world, first)

    def stumble(asked: Launch) -> Exception | None:
        return RuntimeError("a defect") if asked.attempt_id == broken else None

    monkeypatch.setattr(scripted, "refuses", stumble)
    with pytest.raises(RuntimeError, match="a defect"):
        await host.launch_assigned()
    assert list(scripted.liveness) == [await _public_id(world, second)]
    assert (await world.attempt_of(second)).launched_at is not None
    assert (await world.attempt_of(first)).launched_at is None
    monkeypatch.undo()
    assert (await host.launch_assigned()).launched == 1
    assert (await world.attempt_of(first)).launched_at is not None


async def test_what_is_claimed_together_is_launched_together(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    await world.machine("big", cpus=64.0)
    wants = [await world.simulation() for _ in range(40)]
    await planner.plan()
    assert (await host.launch_assigned()).launched == len(wants)
    assert scripted.groups == [32, 8]


async def test_what_was_cancelled_before_its_launch_is_not_launched(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _assigned(world, host, planner)
    async with world.sessions.begin() as session:
        assert await claim_launch(session, (await world.attempt_of(simulation_id)).id, b"cut off")
    await world.cancel(simulation_id)
    assert (await host.launch_assigned()).ended == 1
    assert scripted.launches == []
    assert await world.state(simulation_id) == "CANCELLED"


# --- what runs -------------------------------------------------------------------------------------------------


async def test_a_dead_supervisor_sends_its_simulation_back_to_the_queue_at_once(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner, max_retries=1)
    public_id = await _public_id(world, simulation_id)
    scripted.liveness[public_id] = Liveness.DEAD

    assert (await host.run_once()).ended == 1

    attempt = await world.attempt_of(simulation_id)
    assert (attempt.reason, attempt.reason_detail) == ("MACHINE_LOST", "Its supervisor died, on here.")
    assert await world.state(simulation_id) == "QUEUED"
    assert scripted.forgotten == [public_id]


async def test_a_dead_supervisor_without_retries_left_fails_its_simulation(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner, max_retries=0)
    scripted.liveness.clear()  # the engine knows nothing of it any more: that is dead too
    await host.run_once()
    simulation = await world.get(simulation_id)
    assert (simulation.state.value, simulation.reason) == ("FAILED", "MACHINE_LOST")


async def test_a_supervisor_that_reported_its_end_before_it_was_found_dead_has_ended_well(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation_id = await _running(world, host, planner, max_retries=3)

    async def report_and_leave(attempt_id: str) -> Liveness:
        if await world.state(simulation_id) == "RUNNING":
            await _complete(world, simulation_id)
        return Liveness.DEAD

    monkeypatch.setattr(scripted, "probe", report_and_leave)
    scripted.liveness.clear()
    await host._look_after()
    assert await world.state(simulation_id) == "FINISHED"
    assert len(await world.attempts_of(simulation_id)) == 1


async def test_what_runs_is_not_probed(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe takes a thread, and most of what is on a host runs: one look finds those that don't."""
    runs, leaves = await _running(world, host, planner), await _running(world, host, planner, max_retries=0)
    left = await _public_id(world, leaves)
    scripted.liveness[left] = Liveness.DEAD
    probed: list[str] = []
    probe = scripted.probe

    async def noted(member_id: str) -> Liveness:
        probed.append(member_id)
        return await probe(member_id)

    monkeypatch.setattr(scripted, "probe", noted)
    assert await host._look_after() == 1
    assert probed == [left]
    assert (await world.state(runs), await world.state(leaves)) == ("RUNNING", "FAILED")


async def test_what_can_not_be_told_is_left_alone(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner)
    scripted.liveness[await _public_id(world, simulation_id)] = Liveness.UNKNOWN
    assert (await host.run_once()).ended == 0
    assert scripted.ended == []
    assert await world.state(simulation_id) == "RUNNING"


async def test_a_supervisor_silent_for_a_lease_is_ended_and_its_attempt_lost_with_proof(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner, max_retries=1)
    await world.silence(simulation_id)
    await world.cover()
    assert (await host.run_once()).ended == 0
    assert scripted.ended == [await _public_id(world, simulation_id)]
    assert (await planner.tick()).ended == 0, "its own host is at it"
    assert (await host.run_once()).ended == 1
    assert await world.state(simulation_id) == "QUEUED"


async def test_a_silent_supervisor_is_left_alone_while_the_service_is_down(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner)
    await world.silence(simulation_id, leases=100)
    await host.run_once()
    assert scripted.ended == []


async def test_a_supervisor_that_does_not_stop_is_ended_after_its_time(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner, max_retries=5)
    await world.cancel(simulation_id)
    await host.run_once()
    assert scripted.ended == [], "it hears of it by itself"
    await world.execute("UPDATE attempts SET stop_wanted_at = now() - interval '5 minutes'")
    await host.run_once()
    assert scripted.ended == [], "it could not hear of it"
    await world.cover()
    await host.run_once()
    assert scripted.ended == [], "it hears of it after an outage, and has its time from then on"
    await world.cover(leases=3)
    await host.run_once()
    assert scripted.ended == [await _public_id(world, simulation_id)]
    await host.run_once()
    assert await world.state(simulation_id) == "CANCELLED"


# --- what is over ----------------------------------------------------------------------------------------------


async def test_what_is_over_has_time_to_leave_and_is_then_forgotten(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner)
    public_id = await _public_id(world, simulation_id)
    await _complete(world, simulation_id)
    await host.run_once()
    assert (scripted.ended, scripted.forgotten) == ([], [])
    scripted.liveness[public_id] = Liveness.DEAD  # it has left
    await host.run_once()
    assert (scripted.ended, scripted.forgotten) == ([], [public_id])


async def test_what_is_over_and_does_not_leave_is_ended(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner)
    public_id = await _public_id(world, simulation_id)
    await _complete(world, simulation_id)
    await world.execute("UPDATE members SET ended_at = now() - interval '1 hour'")
    await host.run_once()
    assert scripted.ended == [public_id]
    await host.run_once()
    assert scripted.forgotten == [public_id]


async def test_the_living_twin_of_a_lost_attempt_gets_no_time(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner, max_retries=1)
    twin = await _public_id(world, simulation_id)
    await world.silence(simulation_id)
    await world.cover()
    await world.host_dies()
    assert (await planner.tick()).ended == 1
    await host.run_once()
    assert scripted.ended == [twin]


async def test_an_attempt_of_a_deleted_simulation_is_ended_and_forgotten(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    simulation_id = await _running(world, host, planner)
    public_id = await _public_id(world, simulation_id)
    await world.execute("DELETE FROM simulations")
    await host.run_once()
    await host.run_once()
    assert (scripted.ended, scripted.forgotten) == ([public_id], [public_id])


async def test_an_attempt_that_this_database_never_had_is_left_alone(
    world: World, host: HostLoop, scripted: ScriptedEngine
) -> None:
    scripted.liveness |= {public_ids.encode("Attempt", 77): Liveness.ALIVE, "lost+found": Liveness.DEAD}
    await host.run_once()
    scripted.liveness[public_ids.encode("Attempt", 78)] = Liveness.DEAD
    await host.run_once()
    assert (scripted.ended, scripted.forgotten) == ([], [])


async def test_a_process_that_the_kernel_holds_does_not_block_the_removal_of_others(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await _running(world, host, planner)
    other = await _running(world, host, planner)
    await _complete(world, other)
    scripted.liveness[await _public_id(world, other)] = Liveness.DEAD
    await world.cancel(held)
    await world.execute("UPDATE attempts SET stop_wanted_at = now() - interval '5 minutes'")

    async def held_by_the_kernel(_attempt_id: str) -> None:
        raise TimeoutError("something of it can't be killed")

    monkeypatch.setattr(scripted, "end", held_by_the_kernel)
    await host.run_once()
    assert await world.state(held) == "RUNNING"
    assert scripted.forgotten == [await _public_id(world, other)]


async def test_files_of_a_simulation_are_kept_until_it_is_deleted(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    ended = await _running(world, host, planner)
    held, deleted = await _running(world, host, planner), await _running(world, host, planner)
    for each in (ended, held, deleted):
        await _complete(world, each)
    unknown = 77
    ids = {each: public_ids.encode("Simulation", each) for each in (ended, held, deleted, unknown)}
    scripted.kept = [*ids.values(), "lost+found"]
    scripted.held = {ids[held]}
    async with world.sessions.begin() as session:
        for each in (held, deleted):
            await simulations.delete_ended(session, each, USER)
    await HostLoop(world.sessions, world.settings, scripted, world.host_id).run_once()
    assert scripted.kept == [ids[ended], ids[held], ids[unknown], "lost+found"]
    scripted.held.clear()
    await host.discard_deleted()
    assert scripted.kept == [ids[ended], ids[unknown], "lost+found"]


async def test_files_that_cannot_be_removed_are_reported_once_and_keep_no_other_attempt_waiting(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    stuck, other = await _running(world, host, planner), await _running(world, host, planner)
    ids = [await _public_id(world, each) for each in (stuck, other)]
    for each in (stuck, other):
        await _complete(world, each)
    scripted.liveness = dict.fromkeys(ids, Liveness.DEAD)
    scripted.held = {ids[0]}
    with capture_logs() as logs:
        for _ in range(3):
            await host.run_once()
            host._stuck.clear()  # as the look at deleted simulations does, a minute later
    assert scripted.forgotten == [ids[1]]
    assert [each["error"] for each in logs if each["event"] == "files_not_removed"] == [f"{ids[0]} can't be removed"]
    scripted.held.clear()
    await host.run_once()
    assert scripted.forgotten == [ids[1], ids[0]]


# --- several members -------------------------------------------------------------------------------------------


async def test_each_member_on_the_host_is_a_unit_of_its_own(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine
) -> None:
    await world.machine("m2")
    simulation_id = await _assigned(world, host, planner, machines=2)
    assert (await host.launch_assigned()).launched == 2
    assert [(each.rank, each.world_size) for each in scripted.launches] == [(0, 2), (1, 2)]
    assert len({each.member_id for each in scripted.launches}) == len({each.token for each in scripted.launches}) == 2
    attempt = await world.attempt_of(simulation_id)
    assert {each.attempt_id for each in scripted.launches} == {public_ids.encode("Attempt", attempt.id)}
    for launch in scripted.launches:
        async with world.sessions.begin() as session:
            claim = Claim(attempt.id, sha256(launch.token.encode()).digest(), "nonce")
            assert (await hello(session, claim)).is_waiting == (launch.rank == 0)
    assert await world.state(simulation_id) == "RUNNING"

    first, second = scripted.launches
    scripted.liveness[second.member_id] = Liveness.DEAD
    assert (await host.run_once()).ended == 1
    assert await world.state(simulation_id) == "RUNNING"
    assert (await world.stop_of(simulation_id)).reason == "MACHINE_LOST"
    await host.run_once()
    assert scripted.forgotten == [second.member_id], "the other one has not ended"

    scripted.liveness[first.member_id] = Liveness.DEAD
    await host.run_once()
    assert (await world.get(simulation_id)).reason == "MACHINE_LOST"
    assert (await world.attempt_of(simulation_id)).reason_detail == "Rank 1 of 2, on m2: Its supervisor died, on m2."
    await host.run_once()
    assert set(scripted.forgotten) == {first.member_id, second.member_id}


async def test_a_member_that_can_not_be_launched_stops_the_others(
    world: World, host: HostLoop, planner: Planner, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.machine("m2")
    simulation_id = await _assigned(world, host, planner, machines=2)
    monkeypatch.setattr(
        scripted, "refuses", lambda asked: LaunchError("There is no room for it.") if asked.rank else None
    )
    summary = await host.launch_assigned()
    assert (summary.launched, summary.ended) == (1, 1)
    assert (await world.stop_of(simulation_id)).reason == "LAUNCH_ERROR"
    attempt = await world.attempt_of(simulation_id)
    async with world.sessions.begin() as session:
        claim = Claim(attempt.id, sha256(scripted.launches[0].token.encode()).digest(), "nonce")
        greeting = await hello(session, claim)
    assert not greeting.is_waiting
    assert greeting.work is not None
    assert greeting.work.stop_reason is not None


async def test_names_of_members_are_their_attempts_for_rank_0(world: World) -> None:
    assert public_ids.decode_member(public_ids.encode_member(7, 0)) == (7, 0)
    assert public_ids.encode_member(7, 0) == public_ids.encode("Attempt", 7), "as versions before named them"
    assert public_ids.decode_member(public_ids.encode_member(7, 12)) == (7, 12)
    for name in (public_ids.encode("Simulation", 7), "x", public_ids.encode_member(7, 1)[:-2]):
        with pytest.raises(ValueError, match="not a member"):
            public_ids.decode_member(name)
