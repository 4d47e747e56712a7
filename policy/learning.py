"""Expected remaining work of a run that declares nothing, learned from runs that have ended.

The service of a run (useful seconds x size) lies in one of 25 bins, each as wide as all before it. The value of a bin
is the inverse Gittins index of a run that has reached it: over all moments at which to give up, the least expected work
per expected end. Source: Gittins, "Bandit processes and dynamic allocation indices", 1979; Gu et al., "Tiresias",
NSDI 2019, for its use on GPU clusters.

A class with few ended runs borrows from the more general one before it in the lineage, and that one from all runs. Of
the runs of a class without any data half are expected to end before they double, so the order starts as least
attained service.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

BINS = 25
FIRST_BIN = 600.0  # GPU-seconds: below, all runs count as equally far
HAZARD = 0.5  # share of the runs that end in a bin they have reached, as long as nothing is known
WEIGHT_OF_PRIOR = 10.0  # ended runs that the above counts as
WEIGHT_OF_PARENT = 5.0  # ended runs that the more general class counts as

WIDTHS = (FIRST_BIN, *(FIRST_BIN * 2 ** (each - 1) for each in range(1, BINS)))
NONE = (0,) * BINS


@dataclass(frozen=True, slots=True)
class Counts:
    """Runs of a class by the bin of their service: those that have ended, and those that have begun and have not."""

    ended: Sequence[int] = NONE
    unfinished: Sequence[int] = NONE


class Learned:
    """Values by class and bin, computed when first asked for; a new one is made when a run has ended.

    `history` holds the counts of each class that is part of a lineage, and of all runs under ().
    """

    def __init__(self, history: Mapping[Hashable, Counts] | None = None) -> None:
        self._history = history or {}
        self._hazards: dict[tuple[Hashable, ...], Sequence[float]] = {}
        self._values: dict[tuple[Hashable, ...], tuple[float, ...]] = {}

    def value(self, lineage: tuple[Hashable, ...], service: float) -> float:
        """Return the expected remaining work, in GPU-seconds, of a run with this service."""
        return self.values(lineage)[bin_of(service)]

    def values(self, lineage: tuple[Hashable, ...]) -> tuple[float, ...]:
        found = self._values.get(lineage)
        if found is None:
            found = self._values[lineage] = values_of(self._hazards_of(lineage))
        return found

    def _hazards_of(self, lineage: tuple[Hashable, ...]) -> Sequence[float]:
        found = self._hazards.get(lineage)
        if found is None:
            if lineage:
                counts, parent = self._history.get(lineage[-1], Counts()), self._hazards_of(lineage[:-1])
                found = hazards_of(counts, parent, WEIGHT_OF_PARENT)
            else:
                found = hazards_of(self._history.get((), Counts()), (HAZARD,) * BINS, WEIGHT_OF_PRIOR)
            self._hazards[lineage] = found
        return found


def bin_of(service: float) -> int:
    """Return the bin of this much service: 0 below 600 GPU-seconds, then one for each doubling."""
    return min(int(service / FIRST_BIN).bit_length(), BINS - 1) if service > 0 else 0


def end_of_bin(number: int) -> float:
    """Return the service at which the next bin begins."""
    return FIRST_BIN * 2.0**number


def hazards_of(counts: Counts, prior: Sequence[float], weight: float) -> tuple[float, ...]:
    """Return for each bin the share of the runs that end in it, of those that reach it."""
    found = [0.0] * BINS
    beyond = 0.0  # ended or unfinished in later bins
    for each in reversed(range(BINS)):
        ended, unfinished = counts.ended[each], counts.unfinished[each]
        reached = beyond + ended + unfinished / 2  # unfinished ones are half a bin far, on average
        found[each] = (ended + weight * prior[each]) / (reached + weight)
        beyond += ended + unfinished
    return tuple(found)


def values_of(hazards: Sequence[float]) -> tuple[float, ...]:
    """Return for each bin the least expected work per expected end, over the bins after which to give up."""
    found = []
    for first in range(BINS):
        alive, cost, ends, best = 1.0, 0.0, 0.0, float("inf")
        for each in range(first, BINS):
            ending = alive * hazards[each]
            cost += WIDTHS[each] * (alive - ending / 2)
            ends += ending
            alive -= ending
            if ends > 0:
                best = min(best, cost / ends)
        found.append(best)
    return tuple(found)
