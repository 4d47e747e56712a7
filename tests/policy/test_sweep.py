"""Successive halving as stopping, and the median rule."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.sweep import BelowMedian, Halving, Median, Pruned, at_rung, below_median, crossed, rungs, validate

RULE = Halving(50)
UP = Halving(50, mode="MAX")


def test_rungs_are_a_tenth_of_the_plan_and_its_multiples_by_the_factor() -> None:
    assert rungs(RULE) == (5, 15, 45)
    assert rungs(Halving(50, reduction_factor=2)) == (5, 10, 20, 40)
    assert rungs(Halving(100_000, grace_period=3_000)) == (3_000, 9_000, 27_000, 81_000)
    assert rungs(Halving(7)) == (1, 3)
    assert rungs(Halving(1)) == ()


def test_a_trial_crosses_the_rungs_between_its_points() -> None:
    assert crossed(RULE, None, 4) == ()
    assert crossed(RULE, 4, 5) == (5,)
    assert crossed(RULE, 5, 6) == ()
    assert crossed(RULE, 4, 16) == (5, 15)
    assert crossed(RULE, None, 50) == (5, 15, 45)


def test_the_first_trials_at_a_rung_go_on() -> None:
    assert at_rung(RULE, 5, 9.0, []) is None
    assert at_rung(RULE, 5, 9.0, [1.0]) is None


def test_a_trial_stops_if_a_third_of_those_seen_are_better() -> None:
    assert at_rung(RULE, 5, 3.0, [1.0, 4.0]) == Pruned(5, 3.0, better=1, seen=3, reduction_factor=3)
    assert at_rung(RULE, 5, 3.0, [1.0, 4.0, 5.0]) is None  # one of four is less than a third
    assert at_rung(UP, 5, 3.0, [1.0, 4.0]) == Pruned(5, 3.0, better=1, seen=3, reduction_factor=3)
    assert at_rung(UP, 5, 5.0, [1.0, 4.0]) is None


def test_equal_results_are_not_better() -> None:
    assert at_rung(RULE, 5, 1.0, [1.0] * 20) is None


def test_a_value_that_is_not_finite_is_worse_than_any_other() -> None:
    for value in (math.nan, math.inf, -math.inf):
        found = at_rung(RULE, 5, value, [1.0, 2.0])
        assert found is not None
        assert found.better == 2
        assert json.loads(json.dumps(found.evidence(), allow_nan=False))["value"] is None
        assert at_rung(RULE, 5, 1.0, [value] * 5) is None


@given(st.permutations([0.0, 1.0, 2.0, 3.0, 3.0, 4.0]), st.integers(0, 6), st.floats(0, 5))
def test_the_order_of_the_earlier_results_does_not_matter(results: list[float], count: int, value: float) -> None:
    earlier = results[:count]
    assert at_rung(RULE, 5, value, earlier) == at_rung(RULE, 5, value, sorted(earlier))


def test_the_sentence_names_rung_rank_and_factor() -> None:
    found = at_rung(RULE, 1_500, 0.21434, [0.1, 0.2, 0.3, 0.4])
    assert found is not None
    assert found.sentence() == ("2 of 5 trials at step 1,500 are better than its 0.2143: the best 1/3 go on.")
    assert found.evidence() == {
        "rule": "PRUNED", "step": 1_500, "value": 0.21434, "better": 2, "seen": 5, "reductionFactor": 3,
    }  # fmt: skip


def test_the_median_rule_needs_five_finished_trials() -> None:
    assert not below_median("MIN", 9.0, [1.0] * 4)
    assert below_median("MIN", 9.0, [1.0] * 5)
    assert not below_median("MIN", 1.0, [1.0] * 5)
    assert below_median("MAX", 0.1, [0.2, 0.3, 0.05, 0.4, 0.2])
    assert not below_median("MAX", 0.3, [0.2, 0.3, 0.05, 0.4, 0.2])


def test_the_median_rule_compares_in_equal_steps_and_not_without_end() -> None:
    assert rungs(Median(50)) == (5, 10, 15, 20, 25, 30, 35, 40, 45)
    assert rungs(Median(50, grace_period=20)) == (20, 40)
    assert rungs(Median(1)) == ()
    assert rungs(Median(2**53, grace_period=2))[-1] == 2_000


def test_the_verdict_of_the_median_rule_names_the_median_and_is_json() -> None:
    found = below_median("MAX", 0.1, [0.2, 0.3, 0.05, 0.4, 0.2], step=1_500)
    assert found == BelowMedian(1_500, 0.1, 0.2, 5)
    assert found.evidence() == {"rule": "PRUNED", "step": 1_500, "value": 0.1, "median": 0.2, "seen": 5}
    assert found.sentence() == (
        "Its best, 0.1, is worse than 0.2, the median of the running averages of 5 finished trials at step 1,500."
    )
    nothing = below_median("MIN", math.nan, [1.0] * 5)
    assert nothing is not None
    assert nothing.sentence().startswith("No finite value is worse than 1")
    assert json.loads(json.dumps(nothing.evidence(), allow_nan=False))["value"] is None
    assert below_median("MIN", 1.0, [math.inf] * 5) is None
    assert below_median("MIN", math.inf, [math.inf] * 5) is None


@pytest.mark.parametrize(
    ("halving", "problem"),
    [
        (Halving(50, mode="UP"), "mode must be MIN or MAX."),
        (Halving(0), "maxSteps must be at least 1."),
        (Halving(50, reduction_factor=1), "reductionFactor must be at least 2."),
        (Halving(50, grace_period=0), "gracePeriod must be at least 1."),
        (Halving(50, grace_period=50), "gracePeriod must be below maxSteps."),
        (Median(50, grace_period=50), "gracePeriod must be below maxSteps."),
    ],
)
def test_a_mistake_is_a_sentence(halving: Halving | Median, problem: str) -> None:
    assert validate(halving) == [problem]
    assert validate(RULE) == []
