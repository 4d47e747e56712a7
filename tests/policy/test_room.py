"""The choice among machines, and their room: plans in which nothing runs yet, in the order of priority and age."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from plans import A100, gpu_machine, machine, places, planned, request

from policy.plan import Member, Placement
from policy.room import Line, Needs, Rank, Room, Shape
from policy.workload import Run

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
    placements = planned([request(cpus=2, gpus=1)], [gpu_machine("m")]).placements
    assert placements == (Placement(1, (Member(1, Decimal("0.5")),)),)


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


# --- a part of the queue ---------------------------------------------------------------------------------------


def test_a_plan_ends_after_the_last_known_request_of_a_class() -> None:
    """2 is the last known request of its class: an unknown one of that class may precede 3 and would get its place."""
    queue = [request(1, cpus=1), replace(request(2, cpus=1), more=True), request(3, cpus=2)]
    assert places(queue, [machine("m", cpus=4)]) == {1: 1, 2: 1}
    assert places(queue, [machine("m", cpus=1)]) == {1: 1, 2: None, 3: None}, (
        "no further request of its class can be placed"
    )


# --- work ------------------------------------------------------------------------------------------------------


def ranked(queue: list[Run], count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Count how often a plan asks how good a shape of machines is, on so many equal machines."""
    asked = 0
    rank = Line.rank

    def counted(line: Line, shape: Shape) -> Rank | None:
        nonlocal asked
        asked += 1
        return rank(line, shape)

    with monkeypatch.context() as patch:
        patch.setattr(Line, "rank", counted)
        planned(queue, [gpu_machine(f"gpu-{n}", n) for n in range(count)])
    return asked


@pytest.mark.parametrize("count", [10, 100])
def test_equal_requests_look_at_a_few_shapes_each(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand requests, two for each machine: a machine is empty, half full or full, however many there are."""
    shapes, for_each_request = 3, 3
    queue = [request(n, gpus=1, cpus=1) for n in range(1000)]
    assert ranked(queue, count, monkeypatch) <= shapes * for_each_request * (2 * count + 1)


def test_each_class_looks_at_full_machines_once_for_any_length_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 classes on a thousand full machines."""
    machines = [gpu_machine(f"gpu-{n}", n, cpus=64, free_gpus=0, free_cpus=0) for n in range(1000)]

    def looks(length: int) -> int:
        count = 0
        could_have = Room.could_have

        def counted(room: Room, needs: Needs) -> bool:
            nonlocal count
            count += 1
            return could_have(room, needs)

        with monkeypatch.context() as patch:
            patch.setattr(Room, "could_have", counted)
            planned([request(n, gpus=1, cpus=1 + n % 50) for n in range(length)], machines)
        return count

    assert looks(10_000) == looks(100) == 50
