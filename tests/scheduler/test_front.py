"""The judge's columns of cursors: the last run takes the place of one that leaves, with its cursor."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from db.judged import Judged
from policy.rule_documents import Declared
from policy.stopping import StopRules
from scheduler.front import Front, Run, Watch


def run(number: int, *metrics: str) -> Run:
    rules = [Declared(StopRules(metric)) for metric in metrics]
    return Run(
        Judged(number, 1, 0, 0), tuple(Watch.of(place, each, is_recorded=False) for place, each in enumerate(rules))
    )


def content(front: Front) -> dict[int, tuple[int, int]]:
    ids, attempts, batches = front.cursors(range(len(front.runs)))
    assert ids == [each.found.simulation_id for each in front.runs]
    assert [each.place for each in front.runs] == list(range(len(ids)))
    return dict(zip(ids, zip(attempts, batches, strict=True), strict=True))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2**31 - 1), st.integers(0, 2**62))))
def test_each_run_keeps_its_cursor_whichever_leave(moves: Sequence[tuple[int, int, int]]) -> None:
    front, runs = Front(), [run(number, "loss") for number in range(10)]
    expected: dict[int, tuple[int, int]] = {}
    for number, attempt, batch in moves:
        if number not in expected:
            front.add(runs[number], (attempt, batch))
            expected[number] = attempt, batch
        elif batch % 2:
            front.move([runs[number].place], [attempt], [batch])
            expected[number] = attempt, batch
        else:
            front.remove(runs[number])
            del expected[number]
        assert content(front) == expected
        assert front.metrics == ({"loss": len(expected)} if expected else {})


def test_only_metrics_of_runs_that_are_there_are_asked_for() -> None:
    front, first, second = Front(), run(1, "loss", "acc"), run(2, "loss")
    front.add(first, (0, 0))
    front.add(second, (0, 0))
    assert front.metrics == {"loss": 2, "acc": 1}
    front.remove(first)
    front.remove(first)
    assert list(front.metrics) == ["loss"]
