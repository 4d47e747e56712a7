"""What fits now, what placements leave free, and whether they still fit."""

from __future__ import annotations

from plans import gpu_machine, machine, request

from policy.placement import left_after, placeable, still_fitting


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
