"""Expected remaining work of a run, in GPU-seconds: the key of the order of service.

From the best source there is: measured progress towards `maxSteps`, else the limit `maxRuntime`, else what was learned
from ended runs. The size of a run is the number of its GPUs; a run without GPUs counts by the share that it takes of
the cheapest machine that it could use, so that a cluster without GPUs is ordered as one with single GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

from policy.cost import billed_per_hour
from policy.learning import Learned, bin_of
from policy.matching import Machine, Requirements, conditions, may_use, share_of, within_price
from policy.workload import DEFAULTS, Discipline, Knobs, Run

LEAST_SIZE = 0.001  # of a member that requires nothing
PART_OF_LIMIT = 0.4  # runs use this much of their limit, on average
LEAST_OF_LIMIT = 0.04  # expected at least, however long it has run
TIE = 1e-9  # of two equal keys the run that is further on comes first
LONGEST_TIE = 1e7  # seconds


class Source(StrEnum):
    """Source of the expectation, the best first."""

    PROGRESS = "PROGRESS"
    LIMIT = "LIMIT"
    LEARNED = "LEARNED"


def source_of(run: Run, knobs: Knobs = DEFAULTS) -> Source:
    if run.max_steps is not None and run.steps_per_second and run.attained_seconds >= knobs.progress_after_seconds:
        return Source.PROGRESS
    return Source.LEARNED if run.max_runtime_seconds is None else Source.LIMIT


def expected(run: Run, size: float, learned: Learned, knobs: Knobs = DEFAULTS) -> tuple[float, Source]:
    """Return the expected remaining work in GPU-seconds, and what it was taken from."""
    source = source_of(run, knobs)
    if source is Source.LEARNED:
        return learned.value(run.lineage, run.attained_seconds * size), source
    return size * _seconds(run, source), source


def rank_of(run: Run, source: Source, discipline: Discipline = Discipline.SERVICE) -> float:
    """Return the part of the key that depends on this run alone; `factor_of` gives the part that its class shares."""
    if discipline is Discipline.ARRIVAL:
        return 0.0
    seconds = 1.0 if source is Source.LEARNED else _seconds(run, source)
    return seconds * (1 - TIE * min(run.attained_seconds, LONGEST_TIE))


def factor_of(
    source: Source, size: float, value: float, share: float, discipline: Discipline = Discipline.SERVICE
) -> float:
    """Return the part of the key that is the same in a class. `value`: learned, used where nothing better is known."""
    work = value if source is Source.LEARNED else size
    return (work if discipline is Discipline.SERVICE else work / size) * share


def learned_bin(run: Run, size: float) -> int:
    return bin_of(run.attained_seconds * size)


def seconds_left(run: Run, size: float, learned: Learned, knobs: Knobs = DEFAULTS) -> float:
    """Return the expected remaining time, on a machine of usual speed."""
    return expected(run, size, learned, knobs)[0] / size


def _seconds(run: Run, source: Source) -> float:
    if source is Source.PROGRESS:
        assert run.max_steps is not None
        assert run.steps_per_second
        return max(run.max_steps - run.steps_done, 0.0) / run.steps_per_second
    assert run.max_runtime_seconds is not None
    limit = run.max_runtime_seconds
    return max(PART_OF_LIMIT * limit - run.attained_seconds, LEAST_OF_LIMIT * limit)


def size_of(required: Requirements, count: int, machines: Sequence[Machine]) -> float:
    """Return the size of a run: GPUs of all `count` members, or their shares of the cheapest machine; never 0.

    Depends on the machines' totals and prices alone, not on what is free.
    """
    if required.gpus > 0:
        return float(required.gpus * count)
    wanted = conditions(required)
    able = [
        each
        for each in machines
        if may_use(required, each)
        and all(condition.holds(each) for condition in wanted)
        and within_price(required, each)
    ]
    if not able:
        return float(count)

    def price(machine: Machine) -> tuple[Decimal, str, int]:
        return billed_per_hour(machine.price_per_hour, share_of(required, machine)), machine.name, machine.id

    return max(float(share_of(required, min(able, key=price))), LEAST_SIZE) * count
