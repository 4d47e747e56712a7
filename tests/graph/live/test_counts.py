"""Large counts are kept for a moment, small ones never."""

from __future__ import annotations

from db.states import SimulationState
from graph.live import counts as module
from graph.live.counts import KEPT_SECONDS, MANY, Counts

QUEUED = SimulationState.QUEUED


class Table:
    """What is counted, and how many times it was."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0

    async def count(self) -> dict[SimulationState, int]:
        self.asked += 1
        return {QUEUED: self.number}


async def test_a_large_count_is_kept_for_a_moment_for_those_who_ask_for_the_same() -> None:
    now = [0.0]
    counts, table = Counts(lambda: now[0]), Table(MANY)
    assert (await counts.of(None, table.count))[QUEUED] == MANY
    table.number = MANY + 7
    assert (await counts.of(None, table.count))[QUEUED] == MANY
    assert (await counts.of(frozenset({1}), table.count))[QUEUED] == MANY + 7, "of other projects"
    now[0] += KEPT_SECONDS
    assert (await counts.of(None, table.count))[QUEUED] == MANY + 7
    assert table.asked == 3


async def test_a_small_count_is_exact() -> None:
    counts, table = Counts(), Table(MANY - 1)
    for number in (MANY - 1, 5, 6):
        table.number = number
        assert (await counts.of(None, table.count))[QUEUED] == number


async def test_what_is_kept_is_bounded() -> None:
    counts, table = Counts(lambda: 0.0), Table(MANY)
    for number in range(module.MOST_KEPT + 1):
        await counts.of(number, table.count)
    await counts.of(1, table.count)
    assert table.asked == module.MOST_KEPT + 1
    await counts.of(0, table.count)
    assert table.asked == module.MOST_KEPT + 2
