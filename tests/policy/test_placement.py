"""Placement, and the sentences for requests that wait."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from policy import placement
from policy.placement import (
    Machine,
    Placement,
    Request,
    Requirements,
    Waiting,
    WaitingReason,
    fits_now,
    left_after,
    order,
    placeable,
    plan,
    still_fitting,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
A100 = "NVIDIA A100-SXM4-80GB"
NOTHING = Requirements(
    cpus=0, memory_gib=0, gpus=0, gpu_model=None, labels={}, machine_id=None, machine_name=None, max_price_per_hour=None
)


def request(number: int = 1, *, priority: int = 0, created_at: datetime = NOON, **asked: object) -> Request:
    return Request(number, priority, created_at, replace(NOTHING, **asked))  # type: ignore[arg-type]  # a test's shorthand


def machine(name: str, number: int = 1, **has: object) -> Machine:
    """Make a machine: 8 CPUs, 64 GiB, 1 per hour, all free by default."""
    empty = Machine(
        id=number, name=name, cpus=8, memory_gib=64, gpus=0, gpu_model=None, labels={}, price_per_hour=Decimal(1),
        free_cpus=0, free_memory_gib=0, free_gpus=0, online=True, draining=False, host=None, host_free_gpus=None,
    )  # fmt: skip
    made = replace(empty, **has)  # type: ignore[arg-type]  # a test's shorthand
    free = {"free_cpus": made.cpus, "free_memory_gib": made.memory_gib, "free_gpus": made.gpus}
    return replace(made, **{name: value for name, value in free.items() if name not in has})  # type: ignore[arg-type]


def gpu_machine(name: str, number: int = 1, **has: object) -> Machine:
    return machine(name, number, **{"gpus": 2, "gpu_model": A100, **has})


def places(requests: list[Request], machines: list[Machine]) -> dict[int, int | None]:
    answers = plan(requests, machines, currency="USD")
    return {each.request_id: each.machine_id if isinstance(each, Placement) else None for each in answers}


def told(asking: Request, *machines: Machine) -> tuple[WaitingReason, str]:
    """Return reason and detail of a request that is alone in the queue and has to wait."""
    (answer,) = plan([asking], machines, currency="USD")
    assert isinstance(answer, Waiting), answer
    assert not any(fits_now(asking.requirements, each) for each in machines)
    return answer.reason, answer.detail


# --- order -----------------------------------------------------------------------------------------------------


def test_the_highest_priority_comes_first_then_the_oldest_then_the_lowest_id() -> None:
    later = NOON + timedelta(seconds=1)
    queue = [request(4), request(3, created_at=later), request(2), request(5, priority=1, created_at=later)]
    assert [each.id for each in order(queue)] == [5, 2, 4, 3]


def test_the_last_free_room_goes_to_the_highest_priority() -> None:
    queue = [request(1, cpus=8), request(2, cpus=8, priority=5)]
    assert places(queue, [machine("m")]) == {2: 1, 1: None}


def test_a_small_request_passes_a_big_one_that_does_not_fit_now() -> None:
    queue = [request(1, cpus=8, priority=9), request(2, cpus=2)]
    assert places(queue, [machine("m", free_cpus=4)]) == {1: None, 2: 1}


# --- room ------------------------------------------------------------------------------------------------------


def test_several_share_a_machine_until_it_is_full() -> None:
    queue = [request(n, cpus=3) for n in range(1, 4)]
    assert places(queue, [machine("m")]) == {1: 1, 2: 1, 3: None}


def test_three_times_a_tenth_of_a_cpu_fits_into_three_tenths() -> None:
    queue = [request(n, cpus=0.1) for n in range(1, 5)]
    assert places(queue, [machine("m", cpus=0.3)]) == {1: 1, 2: 1, 3: 1, 4: None}


def test_machines_of_one_host_share_its_gpus() -> None:
    parts = [gpu_machine(f"part-{n}", n, host="h", host_free_gpus=2) for n in (1, 2)]
    queue = [request(n, gpus=1) for n in range(1, 4)]
    assert [*places(queue, parts).values()].count(None) == 1


def test_machines_of_different_hosts_do_not_share_gpus() -> None:
    parts = [gpu_machine(f"part-{n}", n, host=f"h{n}", host_free_gpus=2) for n in (1, 2)]
    queue = [request(n, gpus=1) for n in range(1, 5)]
    assert None not in places(queue, parts).values()


def test_an_overdrawn_resource_blocks_only_requests_for_it() -> None:
    assert places([request(cpus=1)], [machine("m", free_memory_gib=-4.0)]) == {1: 1}


@pytest.mark.parametrize("away", [{"online": False}, {"draining": True}])
def test_a_machine_that_is_offline_or_draining_takes_nothing(away: dict[str, bool]) -> None:
    assert places([request()], [machine("m", **away)]) == {1: None}


# --- requirements ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [A100, A100.lower(), "a100", "A100 80GB", "nvidia-a100", "SXM4"])
def test_a_gpu_model_is_met_by_its_words(asked: str) -> None:
    assert places([request(gpus=1, gpu_model=asked)], [gpu_machine("m")]) == {1: 1}


@pytest.mark.parametrize("asked", ["A10", "A1000", "H100", "A100 40GB", "-", ""])
def test_a_gpu_model_is_not_met_by_parts_of_words(asked: str) -> None:
    assert places([request(gpus=1, gpu_model=asked)], [gpu_machine("m")]) == {1: None}


def test_a_request_without_gpus_may_use_a_machine_with_gpus() -> None:
    assert places([request(cpus=1)], [gpu_machine("m")]) == {1: 1}


def test_a_machine_needs_every_label_with_its_value() -> None:
    found = machine("m", labels={"zone": "eu", "disk": "ssd", "rack": "4"})
    assert places([request(labels={"zone": "eu", "disk": "ssd"})], [found]) == {1: 1}
    assert places([request(labels={"zone": "eu", "disk": "hdd"})], [found]) == {1: None}
    assert places([request(labels={"zone": "eu", "row": "1"})], [found]) == {1: None}


def test_a_request_that_names_a_machine_gets_it_or_waits() -> None:
    machines = [machine("cheap", 1, price_per_hour=Decimal(0)), machine("named", 2)]
    queue = [request(n, cpus=8, machine_id=2, machine_name="named") for n in (1, 2)]
    assert places(queue, machines) == {1: 2, 2: None}


def test_the_maximum_price_is_compared_with_the_billed_share() -> None:
    half = request(cpus=4, max_price_per_hour=Decimal("5.00"))
    assert places([half], [machine("m", price_per_hour=Decimal(10))]) == {1: 1}
    assert places([half], [machine("m", price_per_hour=Decimal("10.01"))]) == {1: None}


# --- choice ----------------------------------------------------------------------------------------------------


def test_the_machine_with_the_cheapest_share_is_chosen() -> None:
    big = machine("big", 1, cpus=64, memory_gib=512, price_per_hour=Decimal(6))
    small = machine("small", 2, price_per_hour=Decimal(1))
    assert places([request(cpus=4)], [big, small]) == {1: 1}  # a sixteenth of 6 is less than half of 1


def test_a_placement_holds_the_billed_share() -> None:
    assert plan([request(cpus=2, gpus=1)], [gpu_machine("m")], currency="USD") == [Placement(1, 1, Decimal("0.5"))]


def test_at_the_same_price_a_machine_with_gpus_is_kept_for_requests_with_gpus() -> None:
    machines = [gpu_machine("a", 1, price_per_hour=Decimal(0)), machine("b", 2, price_per_hour=Decimal(0))]
    assert places([request(cpus=1)], machines) == {1: 2}


def test_at_the_same_price_the_tightest_fit_is_chosen() -> None:
    free = Decimal(0)
    machines = [machine("a", 1, price_per_hour=free), machine("b", 2, price_per_hour=free, free_cpus=2)]
    assert places([request(cpus=2)], machines) == {1: 2}


def test_large_groups_of_gpus_are_kept_for_large_requests() -> None:
    free = Decimal(0)
    eight = gpu_machine("a", 1, gpus=16, free_gpus=8, price_per_hour=free)
    two = gpu_machine("b", 2, gpus=4, free_gpus=2, price_per_hour=free)
    assert places([request(1, gpus=1), request(2, gpus=8)], [eight, two]) == {1: 2, 2: 1}


def test_one_machine_is_filled_before_the_next_one_is_used() -> None:
    machines = [machine(f"m{n}", n, cpus=4) for n in (3, 1, 2)]
    queue = [request(n, cpus=2) for n in range(1, 6)]
    assert places(queue, machines) == {1: 1, 2: 1, 3: 2, 4: 2, 5: 3}


def test_a_choice_is_reconsidered_when_others_have_made_another_machine_the_tighter_fit() -> None:
    machines = [machine("a", 1, free_cpus=6), machine("b", 2, free_cpus=8)]
    queue = [request(1, cpus=1), request(2, cpus=6, labels={}), request(3, cpus=1), request(4, cpus=1)]
    # 1 goes to a (6 -> 5); 2 fits only on b (8 -> 2); from then on b is the tighter one.
    assert places(queue, machines) == {1: 1, 2: 2, 3: 2, 4: 2}


def test_gpus_taken_on_one_machine_make_its_hosts_other_machines_the_tighter_fit() -> None:
    free, pool = Decimal(0), {"host": "h", "host_free_gpus": 4}
    machines = [
        gpu_machine("a", 1, gpus=4, labels={"zone": "eu"}, price_per_hour=free, **pool),
        gpu_machine("b", 2, gpus=4, price_per_hour=free, **pool),
        gpu_machine("c", 3, gpus=3, price_per_hour=free),
    ]
    queue = [request(1, gpus=1, cpus=1), request(2, gpus=3, cpus=8, labels={"zone": "eu"}), request(3, gpus=1, cpus=1)]
    # 1 leaves the fewest on c (3 -> 2); 2 takes three of the host's four on a; of the host's last one, b can be given.
    assert places(queue, machines) == {1: 3, 2: 1, 3: 2}


def test_a_request_that_names_a_machine_stays_there_when_another_machine_is_the_tighter_fit() -> None:
    machines = [machine("a", 1, free_cpus=7), machine("b", 2)]
    queue = [request(n, cpus=1, machine_id=2, machine_name="b") for n in (1, 3)]
    assert places([*queue, request(2, cpus=6)], machines) == {1: 2, 2: 1, 3: 2}


# --- sentences for requests that wait ----------------------------------------------------------------------------

NO_FIT = WaitingReason.NO_MACHINE_FITS
BUSY = WaitingReason.MACHINES_BUSY


def test_the_detail_if_no_machine_has_joined_yet() -> None:
    assert told(request(cpus=1)) == (NO_FIT, "No machine has joined yet.")


def test_the_detail_names_the_most_there_is_of_a_resource() -> None:
    machines = [machine("cpu-1", 1), gpu_machine("gpu-1", 2)]
    assert told(request(gpus=8), *machines) == (NO_FIT, "No machine has 8 GPUs: the most is 2 (on gpu-1).")
    assert told(request(cpus=9.5), *machines) == (NO_FIT, "No machine has 9.5 cpus: the most is 8 (on cpu-1).")
    expected = "No machine has 512 GiB of memory: the most is 64 (on cpu-1)."
    assert told(request(memory_gib=512), *machines) == (NO_FIT, expected)


def test_the_detail_if_there_is_none_of_a_resource() -> None:
    assert told(request(gpus=1), machine("cpu-1")) == (NO_FIT, "No machine has GPUs: 1 asked for.")


def test_the_detail_names_which_label_is_missing() -> None:
    assert told(request(labels={"zone": "eu"}), machine("m")) == (NO_FIT, "No machine has the label zone=eu.")


def test_the_detail_names_which_models_there_are() -> None:
    machines = [gpu_machine("a", 1), gpu_machine("b", 2, gpu_model="Tesla V100"), machine("c", 3)]
    expected = f"No machine has a GPU of the model H100: there are {A100} and Tesla V100."
    assert told(request(gpus=1, gpu_model="H100"), *machines) == (NO_FIT, expected)


def test_the_detail_names_every_requirement_that_no_machine_meets() -> None:
    expected = "No machine has 8 GPUs: the most is 2 (on m). No machine has the label zone=eu."
    assert told(request(gpus=8, cpus=1, labels={"zone": "eu"}), gpu_machine("m")) == (NO_FIT, expected)


def test_the_detail_names_what_each_machine_lacks_when_each_lacks_something_else() -> None:
    machines = [
        machine("cpu-1", 1, labels={"zone": "eu"}),
        gpu_machine("gpu-1", 2, gpus=8),
        gpu_machine("gpu-2", 3, gpus=8),
    ]
    expected = (
        "No machine meets all requirements: cpu-1 has no GPUs; gpu-1 lacks the label zone=eu; 1 more falls short too."
    )
    assert told(request(gpus=8, labels={"zone": "eu"}), *machines) == (NO_FIT, expected)


def test_the_detail_names_what_the_cheapest_would_cost() -> None:
    machines = [machine("dear", 1, price_per_hour=Decimal(8)), machine("cheap", 2, price_per_hour=Decimal("6.12"))]
    expected = "The cheapest machine that fits, cheap, costs 3.06 USD an hour: the limit is 2.50 USD."
    assert told(request(cpus=4, max_price_per_hour=Decimal("2.500000")), *machines) == (NO_FIT, expected)


@pytest.mark.parametrize(
    ("away", "why"), [({"online": False}, "offline"), ({"draining": True}, "draining")], ids=["offline", "draining"]
)
def test_the_detail_if_the_one_that_fits_takes_no_work(away: dict[str, bool], why: str) -> None:
    expected = f"gpu-1 would fit, but it is {why}."
    assert told(request(gpus=2), gpu_machine("gpu-1", 1, **away), machine("cpu-1", 2)) == (NO_FIT, expected)


def test_the_detail_if_several_that_fit_take_no_work() -> None:
    machines = [machine("a", 1, online=False), machine("b", 2, draining=True)]
    assert told(request(), *machines) == (NO_FIT, "a and 1 more would fit, but they are offline or draining.")


def test_the_detail_if_the_named_machine_was_deleted() -> None:
    expected = "It may run only on gpu-1, which has been deleted."
    assert told(request(machine_name="gpu-1"), machine("gpu-1", 7)) == (NO_FIT, expected)
    assert told(request(machine_name="gpu-1", machine_id=3), machine("gpu-1", 7)) == (NO_FIT, expected)


def test_the_detail_names_what_the_named_machine_lacks() -> None:
    machines = [gpu_machine("small", 1), gpu_machine("large", 2, gpus=8)]
    asking = request(gpus=8, labels={"zone": "eu"}, machine_id=1, machine_name="small")
    expected = "It may run only on small, which has 2 GPUs, not 8 and lacks the label zone=eu."
    assert told(asking, *machines) == (NO_FIT, expected)


def test_the_detail_if_the_named_machine_is_busy() -> None:
    machines = [gpu_machine("gpu-1", 1), gpu_machine("gpu-2", 2, free_gpus=0)]
    asking = request(gpus=1, machine_id=2, machine_name="gpu-2")
    assert plan([asking], machines, currency="USD") == [
        Waiting(1, BUSY, "Fits on gpu-2, where 0 of 2 GPUs are free now.")
    ]


def test_the_detail_names_what_is_taken_where_it_fits() -> None:
    assert told(request(gpus=1), gpu_machine("gpu-1", free_gpus=0)) == (
        BUSY,
        "Fits on gpu-1, where 0 of 2 GPUs are free now.",
    )
    busy = gpu_machine("gpu-1", free_gpus=1, free_cpus=1.5)
    expected = "Fits on gpu-1, where 1 of 2 GPUs and 1.5 of 8 cpus are free now."
    assert told(request(gpus=2, cpus=4, memory_gib=1), busy) == (BUSY, expected)


def test_the_detail_is_in_the_singular_for_a_single_gpu() -> None:
    expected = "Fits on gpu-1, where 0 of 1 GPU is free now."
    assert told(request(gpus=1), gpu_machine("gpu-1", gpus=1, free_gpus=0)) == (BUSY, expected)


def test_the_detail_if_others_hold_the_gpus_of_its_host() -> None:
    busy = gpu_machine("part-1", host="h", host_free_gpus=0)
    expected = "Fits on part-1, where 0 of 2 GPUs (shared with its host's other machines) are free now."
    assert told(request(gpus=1), busy) == (BUSY, expected)


def test_the_detail_names_how_many_other_machines_fit() -> None:
    machines = [gpu_machine(f"gpu-{n}", n, free_gpus=0) for n in range(1, 4)]
    expected = "Fits on gpu-1, where 0 of 2 GPUs are free now, and on 2 others that are busy too."
    assert told(request(gpus=1), *machines) == (BUSY, expected)


def test_the_detail_names_what_is_free_after_the_others_were_placed() -> None:
    answers = plan([request(n, gpus=2) for n in (1, 2)], [gpu_machine("gpu-1")], currency="USD")
    assert answers[1] == Waiting(2, BUSY, "Fits on gpu-1, where 0 of 2 GPUs are free now.")


def test_no_sentence_grows_with_strange_names_or_many_machines() -> None:
    long = "x" * 10_000
    labels = {f"{long}{n}": long for n in range(50)}
    machines = [gpu_machine(f"{n}{long}", n, gpu_model=f"{n}{long}", cpus=n, memory_gib=500 - n) for n in range(1, 400)]
    impossible: list[dict[str, object]] = [
        {"labels": labels},
        {"labels": labels, "machine_id": 1, "machine_name": long},
        {"gpus": 64, "gpu_model": long, "cpus": 1e300, "memory_gib": 1e300},
        {"gpu_model": long},
        {"machine_name": long},
        {"cpus": 300, "memory_gib": 300},
        {"max_price_per_hour": Decimal("-0.000001")},
    ]
    for asked in impossible:
        reason, detail = told(request(**asked), *machines)  # type: ignore[arg-type]  # a test's shorthand
        assert reason is NO_FIT
        assert 0 < len(detail) <= 300
        assert detail.endswith(".")


def test_no_name_can_break_the_line() -> None:
    _, detail = told(request(gpus=8), gpu_machine("a\n\x1b[31m"))
    assert detail.isprintable()


# --- a part of the queue ---------------------------------------------------------------------------------------


def test_a_plan_ends_after_the_last_known_request_of_a_class() -> None:
    """2 is the last known request of its class: an unknown one of that class may precede 3 and would get its place."""
    queue = [request(1, cpus=1), replace(request(2, cpus=1), more=True), request(3, cpus=2)]
    assert places(queue, [machine("m", cpus=4)]) == {1: 1, 2: 1}
    assert places(queue, [machine("m", cpus=1)]) == {1: 1, 2: None, 3: None}, (
        "no further request of its class can be placed"
    )


def test_placeable_requirements_fit_on_a_machine_that_accepts_work() -> None:
    machines = [machine("busy", 1, free_cpus=1), gpu_machine("off", 2, online=False), machine("eu", 3, cpus=2)]
    asked = [{"cpus": 2}, {"cpus": 3}, {"gpus": 1}, {"cpus": 1, "labels": {"zone": "eu"}}, {"memory_gib": 65}]
    wanted = [request(**each).requirements for each in asked]  # type: ignore[arg-type]  # a test's shorthand
    assert placeable(wanted, machines) == [True, False, False, False, False]
    assert placeable(wanted, []) == [False] * 5


def test_what_is_left_is_what_a_plan_did_not_assign() -> None:
    pool = {"host": "h", "host_free_gpus": 3}
    machines = [gpu_machine("b", 2, **pool), gpu_machine("a", 1, **pool)]
    left = left_after(machines, [(2, request(gpus=2, cpus=1.5).requirements)])
    assert [(each.id, each.free_cpus, each.free_gpus, each.host_free_gpus) for each in left] == [
        (2, 6.5, 0, 1),
        (1, 8, 2, 1),
    ]


def test_placements_are_checked_again_in_their_order_and_one_that_fits_no_more_takes_no_room() -> None:
    machines = [machine("a", 1, free_cpus=4), machine("b", 2, draining=True), gpu_machine("c", 3, host_free_gpus=1)]
    wanted = [
        (1, request(cpus=3)), (2, request(cpus=1)), (1, request(cpus=2)), (9, request()), (1, request(cpus=1)),
        (3, request(gpus=1)), (3, request(gpus=1)),
    ]  # fmt: skip
    found = still_fitting(machines, [(machine_id, each.requirements) for machine_id, each in wanted])
    assert [(each.id, each.free_cpus) if each else None for each in found] == [
        (1, 4), None, None, None, (1, 1), (3, 8), None,
    ]  # fmt: skip


# --- work ------------------------------------------------------------------------------------------------------


def _visits(queue: list[Request], machines: list[Machine], monkeypatch: pytest.MonkeyPatch) -> int:
    """Count the machines that a plan visits, over all requests."""
    visits = 0
    fitting = placement._Line._fitting

    def counted(line: placement._Line, numbers: Collection[int]) -> Sequence[int]:
        nonlocal visits
        visits += len(numbers)
        return fitting(line, numbers)

    with monkeypatch.context() as patch:
        patch.setattr(placement._Line, "_fitting", counted)
        plan(queue, machines, currency="USD")
    return visits


@pytest.mark.parametrize("count", [10, 100])
def test_equal_requests_visit_each_machine_a_few_times(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand requests, two for each machine. Those that are left are visited only when a machine is full."""
    queue = [request(n, gpus=1, cpus=1) for n in range(1000)]
    machines = [gpu_machine(f"gpu-{n}", n) for n in range(count)]
    when_full, for_each_request = count * (count + 1) // 2, 3
    assert _visits(queue, machines, monkeypatch) <= when_full + for_each_request * 2 * count


def test_each_class_visits_full_machines_once_for_any_length_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 classes on a thousand full machines."""
    machines = [gpu_machine(f"gpu-{n}", n, free_gpus=0, free_cpus=0) for n in range(1000)]

    def visits(length: int) -> int:
        return _visits([request(n, gpus=1, cpus=1 + n % 50) for n in range(length)], machines, monkeypatch)

    assert visits(10_000) == visits(100) == 50 * 1000
