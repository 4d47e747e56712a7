"""Expected remaining work."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from policy.expected import Source, expected, size_of
from policy.learning import Learned
from policy.matching import Machine, Requirements
from policy.workload import Run

NOTHING = Requirements(0, 0, 0, None, {}, None, None, None)
RUN = Run(1, 1, 0, datetime(2030, 1, 1, tzinfo=UTC), replace(NOTHING, gpus=2))


def machine(name: str, price: int, cpus: float = 8, **has: object) -> Machine:
    made = Machine(1, name, cpus, 64, 0, None, {}, Decimal(price), cpus, 64, 0, True, False, None, None)
    return replace(made, **has)  # type: ignore[arg-type]  # a test's shorthand


@pytest.mark.parametrize(
    ("known", "work", "source"),
    [
        ({"max_steps": 100, "steps_done": 40, "steps_per_second": 0.5, "attained_seconds": 80}, 240, Source.PROGRESS),
        ({"max_steps": 100, "steps_done": 140, "steps_per_second": 0.5, "attained_seconds": 80}, 0, Source.PROGRESS),
        ({"max_steps": 100, "steps_done": 40, "steps_per_second": 0.5, "attained_seconds": 59}, 1800, Source.LEARNED),
        ({"max_steps": 100, "attained_seconds": 80, "max_runtime_seconds": 1000}, 640, Source.LIMIT),
        ({"attained_seconds": 395, "max_runtime_seconds": 1000}, 80, Source.LIMIT),
        ({"attained_seconds": 2000, "max_runtime_seconds": 1000}, 80, Source.LIMIT),
    ],
)
def test_the_best_source_there_is_gives_the_expectation(known: dict[str, float], work: float, source: Source) -> None:
    found, of = expected(replace(RUN, **known), 2, Learned())  # type: ignore[arg-type]
    assert of is source
    assert found == pytest.approx(Learned().value((), 118) if source is Source.LEARNED else work)


def test_the_size_is_the_number_of_gpus_of_all_members() -> None:
    assert size_of(RUN.requirements, 3, []) == 6


def test_without_gpus_it_is_the_share_of_the_cheapest_machine_that_fits() -> None:
    machines = [machine("dear", 8), machine("large", 2, cpus=64), machine("small", 0, cpus=2)]
    assert size_of(replace(NOTHING, cpus=4), 1, machines) == pytest.approx(4 / 64)  # 0.125 an hour there, 4 on "dear"
    assert size_of(replace(NOTHING, cpus=4), 2, [machines[0]]) == 1.0


def test_a_size_is_never_nothing() -> None:
    assert size_of(NOTHING, 1, [machine("m", 1)]) > 0
    assert size_of(replace(NOTHING, cpus=99), 1, []) == 1
