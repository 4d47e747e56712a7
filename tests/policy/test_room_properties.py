"""Properties of every plan in which nothing runs yet, for generated requests and machines.

The strongest property: the plan equals that of a slow reference planner of a dozen lines.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import plans
import pytest
from effort import POLICY_PLANS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.cost import billed_per_hour
from policy.matching import TOLERANCE, Machine, Requirements, fits_now, sameness, share_of
from policy.placement import left_after, placeable
from policy.plan import Placement, Waiting
from policy.waiting import WaitingReason
from policy.workload import Run

# A busy machine may draw examples slowly, for reasons other than the planner.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
# Few values of each field, so that requests fit, collide and tie.
CPUS = st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.0, 4.0])
MEMORY = st.sampled_from([0.0, 0.1, 1.0, 8.0])
LABELS = st.sampled_from([{}, {"zone": "eu"}, {"zone": "us"}, {"zone": "eu", "disk": "ssd"}])


@st.composite
def some_requirements(draw: st.DrawFn) -> Requirements:
    named = draw(st.sampled_from([(None, None)] * 8 + [(1, "m"), (99, "gone"), (None, "gone")]))
    return Requirements(
        cpus=draw(CPUS),
        memory_gib=draw(MEMORY),
        gpus=draw(st.sampled_from([0, 0, 1, 2])),
        gpu_model=draw(st.sampled_from([None, None, None, "A100", "h100"])),
        labels=draw(LABELS),
        machine_id=named[0],
        machine_name=named[1],
        max_price_per_hour=draw(st.sampled_from([None, None, Decimal("0.5"), Decimal(2)])),
    )


@st.composite
def some_requests(draw: st.DrawFn) -> list[Run]:
    kinds = draw(st.lists(some_requirements(), min_size=1, max_size=5))
    count = draw(st.integers(0, 20))
    return [
        Run(
            id=number,
            project=1,
            priority=draw(st.integers(0, 2)),
            submitted_at=NOON + timedelta(seconds=draw(st.integers(0, 2))),
            requirements=draw(st.sampled_from(kinds)),
        )
        for number in range(count)
    ]


@st.composite
def some_machines(draw: st.DrawFn) -> list[Machine]:
    pools = {host: draw(st.integers(0, 4)) for host in ("h1", "h2")}
    machines = []
    for number in range(draw(st.integers(0, 6))):
        cpus, memory, gpus = draw(CPUS), draw(MEMORY), draw(st.sampled_from([0, 0, 1, 2, 4]))
        host = draw(st.sampled_from([None, "h1", "h2"]))
        machines.append(
            Machine(
                id=number,
                name=draw(st.sampled_from(["a", "b", "c"])),
                cpus=cpus,
                memory_gib=memory,
                gpus=gpus,
                gpu_model=draw(st.sampled_from(["NVIDIA A100-SXM4-80GB", "NVIDIA H100"])) if gpus else None,
                labels=draw(LABELS),
                price_per_hour=draw(st.sampled_from([Decimal(0), Decimal(1), Decimal(3)])),
                free_cpus=cpus * draw(st.sampled_from([0.5, 1.0, 1.0])),
                free_memory_gib=memory * draw(st.sampled_from([0.5, 1.0, 1.0])),
                free_gpus=draw(st.integers(0, gpus)),
                online=draw(st.sampled_from([True, True, True, False])),
                draining=draw(st.sampled_from([False, False, False, True])),
                host=host,
                host_free_gpus=None if host is None else pools[host],
            )
        )
    return machines


def planned(requests: Sequence[Run], machines: Sequence[Machine]) -> dict[int, Placement | Waiting]:
    """Return the answer to each request: those behind the first of their class that waits have its answer."""
    result = plans.planned(requests, machines)
    by_id = {each.id: each for each in requests}
    waiting = {class_of(by_id[each.run_id]): each for each in result.waiting}
    placed = {each.run_id: each for each in result.placements}
    assert len(waiting) == len(result.waiting)
    assert len(placed) == len(result.placements)
    return {each.id: placed[each.id] if each.id in placed else waiting[class_of(each)] for each in requests}


def class_of(request: Run) -> Hashable:
    return request.priority, sameness(request.requirements)


def order(requests: Sequence[Run]) -> list[Run]:
    return sorted(requests, key=lambda request: (-request.priority, request.submitted_at, request.id))


def machine_of(placement: Placement) -> int:
    (member,) = placement.members
    return member.machine_id


def take(machines: list[Machine], machine_id: int, required: Requirements) -> list[Machine]:
    """Return the machines after an assignment to one of them."""
    (chosen,) = (each for each in machines if each.id == machine_id)
    left = []
    for each in machines:
        if each.host is not None and each.host == chosen.host:
            assert each.host_free_gpus is not None
            each = replace(each, host_free_gpus=each.host_free_gpus - required.gpus)
        if each.id == machine_id:
            each = replace(
                each,
                free_cpus=each.free_cpus - required.cpus,
                free_memory_gib=each.free_memory_gib - required.memory_gib,
                free_gpus=each.free_gpus - required.gpus,
            )
        left.append(each)
    return left


def as_left(requests: Sequence[Run], machines: list[Machine], answers: dict[int, Placement | Waiting]) -> list[Machine]:
    for each in order(requests):
        answer = answers[each.id]
        if isinstance(answer, Placement):
            machines = take(machines, machine_of(answer), each.requirements)
    return machines


def slowly(requests: Sequence[Run], machines: list[Machine]) -> dict[int, int | None]:
    """Reference planner: the rules, written directly."""

    def preference(machine: Machine, required: Requirements) -> tuple[object, ...]:
        billed = billed_per_hour(machine.price_per_hour, share_of(required, machine))
        pool = machine.free_gpus if machine.host_free_gpus is None else min(machine.free_gpus, machine.host_free_gpus)
        left = [(machine.free_cpus - required.cpus) / machine.cpus] if machine.cpus else []
        left += [(machine.free_memory_gib - required.memory_gib) / machine.memory_gib] if machine.memory_gib else []
        return (
            billed,
            machine.gpus > 0 and required.gpus == 0,
            pool - required.gpus if required.gpus else 0,
            round(min(left, default=0.0), 9),
            machine.name,
            machine.id,
        )

    answers: dict[int, int | None] = {}
    for each in order(requests):
        fitting = [machine for machine in machines if fits_now(each.requirements, machine)]
        answers[each.id] = None
        if fitting:
            best = min((preference(machine, each.requirements), machine.id) for machine in fitting)[1]
            machines = take(machines, best, each.requirements)
            answers[each.id] = best
    return answers


@settings(patient, max_examples=2 * POLICY_PLANS)
@given(some_requests(), some_machines())
def test_the_plan_equals_that_of_the_reference_planner(requests: list[Run], machines: list[Machine]) -> None:
    answers = planned(requests, machines)
    got = {key: machine_of(answer) if isinstance(answer, Placement) else None for key, answer in answers.items()}
    assert got == slowly(requests, machines)


@patient
@given(some_requests(), some_machines())
def test_no_machine_and_no_host_is_ever_overcommitted(requests: list[Run], machines: list[Machine]) -> None:
    answers = planned(requests, machines)
    placed: dict[int, list[Requirements]] = {}
    for each in requests:
        answer = answers[each.id]
        if isinstance(answer, Placement):
            placed.setdefault(machine_of(answer), []).append(each.requirements)
    for machine in machines:
        here = placed.get(machine.id, [])
        assert sum(each.cpus for each in here) <= machine.free_cpus + TOLERANCE
        assert sum(each.memory_gib for each in here) <= machine.free_memory_gib + TOLERANCE
        assert sum(each.gpus for each in here) <= machine.free_gpus
    for host in ("h1", "h2"):
        members = [machine for machine in machines if machine.host == host]
        taken = sum(each.gpus for machine in members for each in placed.get(machine.id, []))
        assert not members or taken <= (members[0].host_free_gpus or 0)


@patient
@given(some_requests(), some_machines())
def test_a_placement_satisfies_every_requirement(requests: list[Run], machines: list[Machine]) -> None:
    by_id = {machine.id: machine for machine in machines}
    answers = planned(requests, machines)
    for each in requests:
        answer = answers[each.id]
        if isinstance(answer, Placement):
            machine = by_id[machine_of(answer)]
            assert fits_now(each.requirements, machine)  # also fits there without the other requests
            assert answer.members[0].share == share_of(each.requirements, machine)


@patient
@given(some_requests(), some_machines())
def test_a_waiting_request_fits_on_no_machine_after_the_plan_and_has_the_right_reason(
    requests: list[Run], machines: list[Machine]
) -> None:
    answers = planned(requests, machines)
    left = as_left(requests, machines, answers)
    for each in requests:
        answer = answers[each.id]
        if isinstance(answer, Placement):
            continue
        assert not any(fits_now(each.requirements, machine) for machine in left)
        empty = [
            replace(
                machine, free_cpus=machine.cpus, free_memory_gib=machine.memory_gib, free_gpus=machine.gpus,
                host_free_gpus=None,
            )
            for machine in machines
        ]  # fmt: skip
        would_fit = any(fits_now(each.requirements, machine) for machine in empty)
        assert answer.reason is (WaitingReason.MACHINES_BUSY if would_fit else WaitingReason.NO_MACHINE_FITS)
        assert 0 < len(answer.detail) <= 300


@patient
@given(some_requests(), some_machines())
def test_equal_requests_are_served_in_order(requests: list[Run], machines: list[Machine]) -> None:
    answers = planned(requests, machines)
    for required in [each.requirements for each in requests]:
        same = [each for each in order(requests) if each.requirements == required]
        served = [isinstance(answers[each.id], Placement) for each in same]
        assert served == sorted(served, reverse=True)


@patient
@given(some_requests(), some_machines(), st.randoms(use_true_random=False))
def test_no_order_of_the_arguments_changes_an_answer(
    requests: list[Run], machines: list[Machine], random: Random
) -> None:
    expected = plans.planned(requests, machines)
    shuffled_requests, shuffled_machines = requests.copy(), machines.copy()
    random.shuffle(shuffled_requests)
    random.shuffle(shuffled_machines)
    assert plans.planned(shuffled_requests, shuffled_machines) == expected


@patient
@given(some_requests(), some_machines())
def test_placeable_requirements_would_be_placed_if_they_came_first(
    requests: list[Run], machines: list[Machine]
) -> None:
    expected = [any(fits_now(each.requirements, machine) for machine in machines) for each in requests]
    assert placeable([each.requirements for each in requests], machines) == expected


@patient
@given(some_requests(), some_machines())
def test_both_ways_to_compute_the_remaining_room_agree(requests: list[Run], machines: list[Machine]) -> None:
    answers = planned(requests, machines)
    asked = {each.id: each.requirements for each in requests}
    placed = [each for each in answers.values() if isinstance(each, Placement)]
    left = left_after(machines, [(machine_of(each), asked[each.run_id]) for each in placed])
    expected = as_left(requests, machines, answers)
    assert [each.id for each in left] == [each.id for each in expected]
    for got, wanted in zip(left, expected, strict=True):
        assert (got.free_gpus, got.free_cpus, got.free_memory_gib) == pytest.approx(
            (wanted.free_gpus, wanted.free_cpus, wanted.free_memory_gib)
        )


@settings(patient, max_examples=2 * POLICY_PLANS)
@given(some_requests(), some_machines(), st.integers(1, 3))
def test_rounds_over_the_first_of_each_class_equal_one_plan_of_the_whole_queue(
    requests: list[Run], machines: list[Machine], most: int
) -> None:
    """As the planner does: a few requests of each class that fits somewhere, until nothing fits any more."""
    expected = {
        key: machine_of(answer) for key, answer in planned(requests, machines).items() if isinstance(answer, Placement)
    }
    queue, got = list(order(requests)), dict[int, int]()
    for _ in range(len(requests) + 1):
        classes: dict[str, list[Run]] = {}
        for each in queue:
            classes.setdefault(repr(each.requirements), []).append(each)
        fits = placeable([members[0].requirements for members in classes.values()], machines)
        able = [members for members, fitting in zip(classes.values(), fits, strict=True) if fitting]
        if not able:
            break
        known = [
            replace(each, more=number == most - 1 and len(members) > most)
            for members in able
            for number, each in enumerate(members[:most])
        ]
        asked = {each.id: each.requirements for each in known}
        placed = plans.planned(known, machines).placements
        assert placed, "each round makes progress"
        got |= {each.run_id: machine_of(each) for each in placed}
        machines = list(left_after(machines, [(machine_of(each), asked[each.run_id]) for each in placed]))
        queue = [each for each in queue if each.id not in got]
    assert got == expected
