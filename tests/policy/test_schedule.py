"""One plan: preemption, runs of several machines, reservations, quotas, and why others wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import plans
import pytest

from policy.learning import Learned
from policy.matching import Machine, Requirements
from policy.plan import Plan, Waiting
from policy.queue_order import Queue, Rule
from policy.schedule import plan
from policy.waiting import WaitingReason
from policy.workload import Knobs, Project, Run

NOW = datetime(2030, 1, 5, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=2)


def machine(number: int, gpus: int = 8, *, free: int | None = None, **has: object) -> Machine:
    made = Machine(
        number, f"m{number}", 64, 256, gpus, None, {}, Decimal(gpus), 64, 256, gpus if free is None else free,
        True, False, None, None,
    )  # fmt: skip
    return replace(made, **has)  # type: ignore[arg-type]  # a test's shorthand


def queued(number: int, gpus: int = 8, **has: object) -> Run:
    required = Requirements(0, 0, gpus, None, {}, None, None, None)
    return replace(Run(number, 1, 0, NOW - timedelta(seconds=60), required), **has)  # type: ignore[arg-type]


def running(number: int, on: int | Sequence[int], gpus: int = 8, **has: object) -> Run:
    ids = (on,) if isinstance(on, int) else tuple(on)
    given: dict[str, object] = {"started_at": LONG_AGO, "attained_seconds": 7200.0, "machines": len(ids), **has}
    return queued(number, gpus, machine_ids=ids, **given)


def made(queue: Sequence[Run], runs: Sequence[Run], machines: Sequence[Machine], **options: object) -> Plan:
    return plan(queue, runs, machines, now=NOW, currency="EUR", **options)  # type: ignore[arg-type]


def places(result: Plan) -> dict[int, tuple[int, ...]]:
    return {each.run_id: tuple(member.machine_id for member in each.members) for each in result.placements}


def waiting(result: Plan, number: int) -> Waiting:
    (found,) = (each for each in result.waiting if each.run_id == number)
    return found


# --- order -----------------------------------------------------------------------------------------------------------


def test_the_highest_priority_comes_first_then_the_oldest_then_the_lowest_id() -> None:
    later = plans.NOON + timedelta(seconds=1)
    queue = [
        plans.request(4),
        plans.request(3, submitted_at=later),
        plans.request(2),
        plans.request(5, priority=1, submitted_at=later),
    ]
    assert Queue([], plans.IN_TURN, queue).in_order(Learned(), {}) == ([5, 2, 4, 3], " PEE")


def test_the_last_free_room_goes_to_the_highest_priority() -> None:
    queue = [plans.request(1, cpus=8), plans.request(2, cpus=8, priority=5)]
    assert plans.places(queue, [plans.machine("m")]) == {2: 1, 1: None}


def test_a_small_request_passes_a_big_one_that_does_not_fit_now() -> None:
    queue = [plans.request(1, cpus=8, priority=9), plans.request(2, cpus=2)]
    assert plans.places(queue, [plans.machine("m", free_cpus=4)]) == {1: None, 2: 1}


# --- preemption ------------------------------------------------------------------------------------------------------


def test_a_much_shorter_run_preempts_a_preemptible_one_and_starts_when_it_has_left() -> None:
    long = running(1, 1, preemptible=True, max_runtime_seconds=100_000.0)
    result = made([queued(2, max_runtime_seconds=600.0)], [long], [machine(1, free=0)])
    (preemption,) = result.preemptions
    assert (preemption.run_id, preemption.for_id, preemption.rule) == (1, 2, Rule.LESS_WORK)
    expected = "Made room for simulation 2: 0.53 GPU-hours are expected of it, against 72.89 of this one."
    assert preemption.detail == expected
    assert [(each.run_id, each.after) for each in result.placements] == [(2, (1,))]
    assert waiting(result, 2).detail == "Starts on m1 when simulation 1 has stopped."


@pytest.mark.parametrize("kept", [{"preemptible": False}, {"started_at": NOW - timedelta(seconds=299)}])
def test_what_is_not_preemptible_or_has_just_started_is_not_preempted(kept: dict[str, object]) -> None:
    long = replace(running(1, 1, preemptible=True, max_runtime_seconds=100_000.0), **kept)  # type: ignore[arg-type]
    result = made([queued(2, max_runtime_seconds=600.0)], [long], [machine(1, free=0)])
    assert (result.preemptions, result.placements) == ((), ())
    assert waiting(result, 2).reason is WaitingReason.MACHINES_BUSY


def test_a_run_that_is_leaving_is_waited_for_and_nothing_more_is_preempted() -> None:
    runs = [running(1, 1, preemptible=True, leaving=True), running(2, 2, preemptible=True, max_runtime_seconds=1e6)]
    short = [queued(number, 4, max_runtime_seconds=600.0) for number in (3, 4)]
    result = made(short, runs, [machine(1, free=0), machine(2, free=0)])
    assert result.preemptions == ()
    assert [(each.run_id, each.after) for each in result.placements] == [(3, (1,)), (4, (1,))]


def test_the_room_of_what_leaves_is_kept_from_smaller_ones_behind() -> None:
    runs = [running(1, 1, 4, leaving=True)]
    first, small = queued(2, 8, priority=1), queued(3, 1)
    result = made([first, small], runs, [machine(1, free=4)])
    assert [(each.run_id, each.after) for each in result.placements] == [(2, (1,))]
    assert waiting(result, 3).ahead_id == 2


def test_a_higher_priority_preempts_whatever_is_expected() -> None:
    short = running(1, 1, preemptible=True, max_runtime_seconds=60.0)
    result = made([queued(2, priority=1)], [short], [machine(1, free=0)])
    assert [each.rule for each in result.preemptions] == [Rule.PRIORITY]


def test_no_more_is_preempted_than_is_needed() -> None:
    small = running(1, 1, 1, preemptible=True, max_runtime_seconds=1e7)
    large = running(2, 1, 7, preemptible=True, max_runtime_seconds=1e6)
    result = made([queued(3, 7, max_runtime_seconds=60.0)], [small, large], [machine(1, free=0)])
    assert [each.run_id for each in result.preemptions] == [2]


# --- several machines ------------------------------------------------------------------------------------------------


def test_members_get_machines_of_their_own_or_none() -> None:
    gang = queued(1, 4, machines=2)
    assert places(made([gang], [], [machine(1)])) == {}
    assert places(made([gang], [], [machine(1), machine(2, free=3), machine(3)])) == {1: (1, 3)}


def test_a_gang_larger_than_all_machines_waits_and_says_so() -> None:
    wait = waiting(made([queued(1, 4, machines=3)], [], [machine(1), machine(2)]), 1)
    assert wait.reason is WaitingReason.NO_MACHINE_FITS
    assert wait.detail == "It needs 3 machines at once: 2 machines meet its requirements."


def test_a_gang_is_preempted_as_a_whole() -> None:
    gang = running(1, (1, 2), preemptible=True, max_runtime_seconds=1e6)
    result = made(
        [queued(n, max_runtime_seconds=60.0) for n in (2, 3)], [gang], [machine(1, free=0), machine(2, free=0)]
    )
    assert [each.run_id for each in result.preemptions] == [1]
    assert places(result) == {2: (1,), 3: (2,)}


def test_the_oldest_gang_gets_machines_although_singles_without_limits_keep_coming() -> None:
    """No moment is known at which it could start, and still nothing new may start on its machines."""
    gang = queued(1, 8, machines=2, submitted_at=NOW - timedelta(days=2))
    runs = [running(2, 1, 4), running(3, 2, 4)]
    result = made([gang, queued(4, 4)], runs, [machine(1, free=4), machine(2, free=4)])
    assert places(result) == {}
    (reservation,) = result.reservations
    assert (reservation.run_id, reservation.machine_ids, reservation.at) == (1, (1, 2), None)
    wait = waiting(result, 4)
    assert (wait.reason, wait.ahead_id) == (WaitingReason.RESERVED, 1)


# --- reservations ----------------------------------------------------------------------------------------------------


def test_who_would_delay_a_reservation_waits_and_who_ends_before_it_starts() -> None:
    other = running(1, 1, 4, max_runtime_seconds=8200.0)
    large = queued(2, 8, priority=1)
    late, soon = queued(3, 4, max_runtime_seconds=1001.0), queued(4, 4, max_runtime_seconds=1000.0)
    result = made([large, late], [other], [machine(1, free=4)])
    assert places(result) == {}
    assert waiting(result, 2).estimated_start == NOW + timedelta(seconds=1000)
    assert waiting(result, 3).reason is WaitingReason.RESERVED
    assert places(made([large, soon], [other], [machine(1, free=4)])) == {4: (1,)}


def test_what_can_be_preempted_may_use_reserved_room_until_then() -> None:
    other = running(1, 1, 4, max_runtime_seconds=8200.0)
    result = made([queued(2, 8, priority=1), queued(3, 4, preemptible=True)], [other], [machine(1, free=4)])
    assert places(result) == {3: (1,)}


# --- order, quotas, money --------------------------------------------------------------------------------------------


def test_a_run_held_back_by_one_that_cannot_start_yet_names_it_and_the_rule() -> None:
    projects = [Project(1, used=1.0, used_at=NOW), Project(2, used=99.0, used_at=NOW)]
    queue = [queued(1, project=1, max_runtime_seconds=900.0), queued(2, 1, project=2, max_runtime_seconds=600.0)]
    leaving = running(3, 1, 4, leaving=True)
    wait = waiting(made(queue, [leaving], [machine(1, free=4)], projects=projects), 2)
    assert (wait.reason, wait.ahead_id, wait.rule) == (WaitingReason.HELD_BACK, 1, Rule.FAIR_SHARE)
    assert wait.detail == "Simulation 1 takes the room first: its project has used less of its share."


def test_a_project_holds_no_more_gpus_than_its_quota() -> None:
    queue = [queued(1, 4), queued(2, 4), queued(3, 4, project=2)]
    result = made(queue, [], [machine(1), machine(2)], projects=[Project(1, gpu_quota=6), Project(2)])
    assert set(places(result)) == {1, 3}
    wait = waiting(result, 2)
    assert wait.reason is WaitingReason.QUOTA
    assert wait.detail == "Its project may hold 6 GPUs at once, and holds 4: this one needs 4 more."


def test_time_has_a_value_so_a_faster_machine_may_be_cheaper_to_finish_on() -> None:
    slow, fast = machine(1), machine(2, price_per_hour=Decimal(12))
    run = queued(1, lineage=("resnet",))
    speeds = {"resnet": {2: 2.0}}
    assert places(made([run], [], [slow, fast])) == {1: (1,)}
    assert places(made([run], [], [slow, fast], speeds=speeds)) == {1: (2,)}  # 12 an hour for half of the time
    dear = [slow, replace(fast, price_per_hour=Decimal(20))]
    assert places(made([run], [], dear, speeds=speeds)) == {1: (1,)}
    assert places(made([run], [], dear, speeds=speeds, knobs=Knobs(time_value=Decimal(1)))) == {1: (2,)}


def test_a_run_goes_back_to_its_checkpoint_unless_that_costs_more_than_its_work() -> None:
    home, other = machine(1, price_per_hour=Decimal(10)), machine(2)
    run = queued(1, checkpoint_machine=1, max_runtime_seconds=10_000.0, attained_seconds=3000.0)
    assert places(made([run], [], [home, other])) == {1: (1,)}
    assert places(made([replace(run, attained_seconds=10.0)], [], [home, other])) == {1: (2,)}


def test_the_next_plan_is_due_when_a_run_may_be_preempted_or_its_key_changes() -> None:
    young = running(1, 1, preemptible=True, started_at=NOW - timedelta(seconds=100), attained_seconds=100.0)
    result = made([queued(2)], [young], [machine(1, free=0)])
    assert result.next_at == NOW + timedelta(seconds=200), "its key changes before, while nothing may preempt it"
    older = replace(young, started_at=LONG_AGO)
    result = made([queued(2)], [older], [machine(1, free=0)])
    assert result.next_at == NOW + timedelta(seconds=50)  # 8 x 150 GPU-seconds: the end of a bin
    assert made([], [young], [machine(1, free=0)]).next_at is None


def test_the_next_plan_is_due_when_a_run_that_starts_with_this_one_may_be_preempted() -> None:
    first, second = queued(1, preemptible=True, priority=1), queued(2)
    result = made([first, second], [], [machine(1)])
    assert places(result) == {1: (1,)}
    assert result.next_at == NOW + timedelta(seconds=300), "no event may come before: its key has changed by then"
    assert made([replace(first, preemptible=False), second], [], [machine(1)]).next_at == NOW + timedelta(
        seconds=86_340
    ), "when the second has waited a day"


def test_the_next_plan_is_due_when_the_first_of_a_priority_has_waited_long_enough() -> None:
    """Neither one that no machine fits nor the oldest of another priority hides that moment."""
    old, soon = NOW - timedelta(days=2), NOW - timedelta(seconds=86_400 - 50)
    held, wide = running(9, 1, max_runtime_seconds=1e7), queued(1, 64, submitted_at=old)
    for other in (wide, queued(2, 8, priority=1, submitted_at=old)):
        result = made([other, queued(3, 4, submitted_at=soon)], [held], [machine(1, free=0)])
        assert result.next_at == NOW + timedelta(seconds=50)


def test_one_that_runs_and_cannot_be_preempted_keeps_the_first_place_from_others_for_no_longer_than_they_wait() -> None:
    day = timedelta(days=1)
    old = queued(2, 8, submitted_at=NOW - 2 * day, max_runtime_seconds=1e6)
    short = queued(3, 8, max_runtime_seconds=60.0)

    def first(**has: object) -> Plan:
        return made([old, short], [running(1, 2, submitted_at=NOW - 30 * day, **has)], [machine(1), machine(2, free=0)])

    assert places(first(started_at=NOW - 30 * day)) == {2: (1,)}, "it never waited"
    assert places(first(started_at=NOW - 2 * day)) == {2: (1,)}
    assert places(first(started_at=NOW - 29 * day, preemptible=True)) == {3: (1,)}, "it needs its place"
    result = first(started_at=NOW - timedelta(hours=23))
    assert places(result) == {3: (1,)}
    assert result.next_at == NOW + timedelta(hours=1), "then the other is first"


def test_the_oldest_that_makes_room_for_a_higher_priority_is_first_again() -> None:
    pinned = Requirements(0, 0, 8, None, {}, 1, "m1", None)
    urgent = queued(2, priority=1, requirements=pinned)
    short = queued(3, 8, max_runtime_seconds=60.0)
    old = running(1, 1, preemptible=True, max_runtime_seconds=1e6, submitted_at=NOW - timedelta(days=2))
    result = made([urgent, short], [old], [machine(1, free=0), machine(2)])
    assert places(result) == {2: (1,), 1: (2,)}


def test_the_oldest_that_only_its_quota_keeps_waiting_leaves_the_first_place_to_the_next() -> None:
    project = Project(2, gpu_quota=4)
    first = queued(1, 8, project=2, submitted_at=NOW - timedelta(days=3))
    second = queued(2, 8, submitted_at=NOW - timedelta(days=2), max_runtime_seconds=1e6)
    short = queued(3, 8, max_runtime_seconds=60.0)
    result = made([first, second, short], [], [machine(1)], projects=[project])
    assert places(result) == {2: (1,)}
    assert waiting(result, 1).reason is WaitingReason.QUOTA


# --- checkpoints -----------------------------------------------------------------------------------------------------


def requeued(seconds: float, attained: float = 3600.0, **has: object) -> Run:
    """Has waited for so long since it ran on machine 1."""
    since = NOW - timedelta(seconds=seconds)
    return queued(1, checkpoint_machine=1, attained_seconds=attained, waiting_since=since, **has)


def test_a_requeued_run_waits_for_its_host_for_as_long_as_it_has_run_and_then_goes_elsewhere() -> None:
    machines, runs = [machine(1, free=0), machine(2)], [running(9, 1)]
    result = made([requeued(60)], runs, machines)
    assert places(result) == {}
    wait = waiting(result, 1)
    assert (wait.reason, wait.general) == (WaitingReason.MACHINES_BUSY, None)
    assert wait.detail == (
        "Waits for room on the host of m1, where its checkpoint is: elsewhere it would begin from zero, and do 1 h of "
        "work again. It goes elsewhere when it has waited that long."
    )
    assert result.next_at == NOW + timedelta(seconds=3540)
    assert places(made([requeued(3600)], runs, machines)) == {1: (2,)}


def test_all_machines_of_its_host_have_its_checkpoint() -> None:
    machines = [machine(1, free=0, host="h"), machine(2), machine(3, host="h")]
    assert places(made([requeued(60)], [running(9, 1)], machines)) == {1: (3,)}


def test_a_host_that_takes_no_work_is_not_waited_for() -> None:
    for away in ({"online": False}, {"draining": True}):
        machines = [machine(1, **away), machine(2)]
        assert places(made([requeued(60)], [], machines)) == {1: (2,)}
    assert places(made([requeued(60)], [], [machine(2)])) == {1: (2,)}, "and one that was deleted has no checkpoint"


def test_one_that_waits_for_its_host_keeps_none_like_it_from_starting_elsewhere() -> None:
    machines = [machine(1, free=0), machine(2)]
    other = replace(requeued(4000), id=2)
    assert places(made([requeued(60), other], [running(9, 1)], machines)) == {2: (2,)}


def test_room_that_one_leaves_on_its_host_is_waited_for() -> None:
    machines, leaving = [machine(1, free=0), machine(2)], running(9, 1, leaving=True)
    result = made([requeued(60)], [leaving], machines)
    assert [(each.run_id, each.after) for each in result.placements] == [(1, (9,))]


def test_a_preempted_run_waits_at_once_for_the_host_that_it_leaves() -> None:
    long = running(1, 1, preemptible=True, max_runtime_seconds=100_000.0, checkpoint_machine=1)
    short = queued(2, max_runtime_seconds=600.0)
    small = Requirements(0, 0, 4, None, {}, None, None, None)
    machines = [machine(1, free=0), machine(2, 4)]
    result = made([short], [replace(long, requirements=small)], [replace(machines[0], free_gpus=4), machines[1]])
    assert places(result) == {2: (1,)}, "not the four GPUs of the other host, where it would begin from zero"


def test_the_time_value_decides_between_a_cheap_and_a_fast_machine() -> None:
    slow, fast = machine(1, price_per_hour=Decimal(1)), machine(2, price_per_hour=Decimal(4))
    run, speeds = queued(1, lineage=("resnet",)), {"resnet": {2: 2.0}}
    found = [
        places(made([run], [], [slow, fast], speeds=speeds, knobs=Knobs(time_value=Decimal(value))))[1]
        for value in ("0", "0.1", "0.3")
    ]
    assert found == [(1,), (1,), (2,)]  # from 1 + 8 v > (4 + 8 v) / 2, so v > 0.25 per GPU-hour
