"""Waiting reason of one simulation, and the sentences about machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from plans import A100, gpu_machine, machine, planned, request

from policy.matching import Machine, fits_now
from policy.plan import Waiting
from policy.waiting import PAUSED_DETAIL, UNATTENDED_DETAIL, Wait, WaitingReason, why
from policy.workload import Run

LATER = datetime(2030, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class InQueue:
    """A queued simulation that the planner has not seen yet."""

    until: datetime | None = None
    seconds_left: float = 0.0
    attempts_made: int = 0
    max_retries: int = 0
    ended: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    paused: bool = False
    awaits: str | None = None
    awaits_state: str = ""
    awaits_condition: str = ""
    awaits_others: int = 0
    unattended: bool = False
    class_reason: str | None = None
    class_detail: str | None = None


RETRY = InQueue(LATER, 13.2, attempts_made=1, max_retries=5, ended="EXIT_CODE", exit_code=3)


def test_no_reason_before_the_first_plan() -> None:
    assert why(InQueue()) is None


def test_the_reason_of_the_class_is_the_reason_of_its_simulations() -> None:
    busy = InQueue(class_reason="MACHINES_BUSY", class_detail="All busy.")
    assert why(busy) == Wait(WaitingReason.MACHINES_BUSY, "All busy.")


def test_a_pause_takes_precedence_over_others_and_others_over_the_rest() -> None:
    held = replace(RETRY, awaits="prep", awaits_state="RUNNING", awaits_condition="ANY", unattended=True)
    assert why(replace(held, paused=True)) == Wait(WaitingReason.PAUSED, PAUSED_DETAIL)
    sentence = "It waits for the end of prep, which is RUNNING."
    assert why(held) == Wait(WaitingReason.DEPENDENCY, sentence)


def test_unattended_takes_precedence_over_a_missing_machine() -> None:
    alone = InQueue(unattended=True, class_reason="MACHINES_BUSY", class_detail="All busy.")
    assert why(alone) == Wait(WaitingReason.UNATTENDED, UNATTENDED_DETAIL)
    assert "starts when a client subscribes" in UNATTENDED_DETAIL


def test_the_backoff_of_a_retry_takes_precedence() -> None:
    sentence = "It ended with exit code 3; attempt 2 of 6 begins in 14 s."
    assert why(replace(RETRY, unattended=True, class_reason="MACHINES_BUSY")) == Wait(
        WaitingReason.BACKOFF, sentence, LATER
    )


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"exit_code": None, "signal": 9}, "It was ended by signal 9"),
        ({"ended": "MACHINE_LOST"}, "Its machine was lost"),
        ({"ended": "LAUNCH_ERROR"}, "It could not be launched"),
        ({"ended": "MAX_RUNTIME"}, "It took longer than its limit"),
        ({"ended": None}, "Its last attempt ended"),
    ],
)
def test_the_detail_names_the_end_of_the_last_attempt(ending: dict[str, object], words: str) -> None:
    wait = why(replace(RETRY, **ending))  # type: ignore[arg-type]  # a test's shorthand
    assert wait is not None
    assert wait.detail == f"{words}; attempt 2 of 6 begins in 14 s."


@pytest.mark.parametrize(
    ("seconds", "span"), [(0.0, "1 s"), (119.0, "119 s"), (119.5, "2 min"), (600.0, "10 min"), (-3.0, "1 s")]
)
def test_the_detail_names_the_remaining_time(seconds: float, span: str) -> None:
    wait = why(replace(RETRY, seconds_left=seconds))
    assert wait is not None
    assert wait.detail.endswith(f"begins in {span}.")


# --- sentences for requests that wait ----------------------------------------------------------------------------

NO_FIT = WaitingReason.NO_MACHINE_FITS
BUSY = WaitingReason.MACHINES_BUSY


def told(asking: Run, *machines: Machine) -> tuple[WaitingReason, str]:
    """Return reason and detail of a request that is alone in the queue and has to wait."""
    (answer,) = planned([asking], machines).waiting
    assert not any(fits_now(asking.requirements, each) for each in machines)
    return answer.reason, answer.detail


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


def test_a_machine_that_can_be_started_is_started_only_if_none_that_runs_would_do() -> None:
    big = gpu_machine("a", 1, online=False, startable=True, price_per_hour=Decimal(8))
    starts = "No machine that runs meets its requirements: the cluster starts one like a, for 8.00 USD an hour."
    assert told(request(gpus=1), big) == (WaitingReason.MACHINE_STARTING, starts)
    busy = gpu_machine("b", 2, free_gpus=0)
    assert told(request(gpus=1), big, busy)[0] is WaitingReason.MACHINES_BUSY
    drained = replace(big, draining=True)
    assert told(request(gpus=1), drained) == (NO_FIT, "a would fit, but it is offline.")
    dear = request(gpus=1, max_price_per_hour=Decimal(1))
    assert told(dear, big)[0] is NO_FIT


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
    detail = "Fits on gpu-2, where 0 of 2 GPUs are free now."
    assert planned([asking], machines).waiting == (Waiting(1, BUSY, detail, detail),)


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
    waiting = planned([request(n, gpus=2) for n in (1, 2)], [gpu_machine("gpu-1")]).waiting
    detail = "Fits on gpu-1, where 0 of 2 GPUs are free now."
    assert waiting == (Waiting(2, BUSY, detail, detail),)


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
