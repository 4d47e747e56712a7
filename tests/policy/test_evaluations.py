"""Thinning to evaluations, the best so far, and the trend since."""

from __future__ import annotations

import math
import statistics
from array import array
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.evaluations import MOST_WINDOWS, WINDOWS_OF_PLAN, Evaluations, Trend

patient = settings(deadline=None)


def filled(values: list[float], **options: float) -> Evaluations:
    curve = Evaluations(**options)  # type: ignore[arg-type]
    for step, value in enumerate(values):
        feed(curve, step, value)
    return curve


def feed(curve: Evaluations, step: int, value: float) -> int:
    """Return how many evaluations the point completed."""
    before = curve.outgrown(step)
    if before:
        curve.close()
    return before + curve.add(step, value)


def test_each_point_of_a_sparse_curve_is_an_evaluation_at_once() -> None:
    for max_steps in (None, 10_000):
        curve = Evaluations(max_steps=max_steps)
        assert [feed(curve, step, float(step)) for step in range(0, 10_001, 50)] == [1] * 201
        assert list(curve.steps) == [*range(0, 10_001, 50)]
        assert list(curve.values) == [float(step) for step in range(0, 10_001, 50)]


def test_a_known_plan_has_at_most_one_evaluation_per_half_percent() -> None:
    curve = Evaluations(max_steps=10_000)
    completed = sum(feed(curve, step, float(step)) for step in range(10_001))
    assert completed == len(curve.values) <= WINDOWS_OF_PLAN + 1
    assert curve.values[0] == 0.0
    assert curve.steps[1] == 99  # the rest of the first window joins the second
    assert curve.values[1] == statistics.mean(range(1, 100))
    assert curve.values[2] == statistics.mean(range(100, 150))


def test_a_window_closes_when_the_next_point_is_far() -> None:
    curve = Evaluations(max_steps=10_000)
    feed(curve, 0, 8.0)
    assert [feed(curve, step, 1.0) for step in (1, 2, 3)] == [0, 0, 0]
    assert feed(curve, 5_000, 3.0) == 2  # the three before, and this one, for whose successor there is no room
    assert list(zip(curve.steps, curve.values, strict=True)) == [(0, 8.0), (3, 1.0), (5_000, 3.0)]


@patient
@given(st.lists(st.integers(0, 300), min_size=1, max_size=300), st.integers(200, 20_000))
def test_no_distance_of_points_makes_more_evaluations_than_half_percents(gaps: list[int], max_steps: int) -> None:
    curve = Evaluations(max_steps=max_steps)
    step = 0
    for gap in gaps:
        step += gap
        feed(curve, step, 1.0)
    width = max_steps / WINDOWS_OF_PLAN
    assert len(curve.values) <= step / width + 2


def test_an_unknown_plan_merges_neighbours_at_a_thousand_windows() -> None:
    curve = filled([float(n) for n in range(MOST_WINDOWS - 1)])
    assert len(curve.values) == MOST_WINDOWS - 1
    feed(curve, MOST_WINDOWS - 1, float(MOST_WINDOWS - 1))
    assert len(curve.values) == MOST_WINDOWS / 2
    assert list(curve.values[:2]) == [0.5, 2.5]
    assert list(curve.steps[:2]) == [1, 3]
    assert feed(curve, 1_000, 1.0) == 0
    assert feed(curve, 1_001, 2.0) == 1
    assert curve.values[-1] == 1.5


def test_a_curve_of_any_length_has_fewer_than_a_thousand_evaluations() -> None:
    curve = filled([1.0] * 40_000)
    assert MOST_WINDOWS / 2 <= len(curve.values) < MOST_WINDOWS
    assert set(curve.values) == {1.0}
    past = Evaluations(max_steps=100)  # eight times its plan
    for step in range(800):
        feed(past, step, 1.0)
    assert len(past.values) < MOST_WINDOWS


def test_best_gap_and_last_are_those_of_the_first_best_evaluation() -> None:
    curve = filled([3.0, 1.0, 2.0, 1.0])
    assert (curve.best, curve.last, curve.gap, curve.n) == (1.0, 1, 2, 3)


def test_an_improvement_below_min_delta_is_none() -> None:
    curve = filled([3.0, 2.95, 2.85], min_delta=0.1)
    assert (curve.best, curve.last) == (2.85, 2)
    assert filled([3.0, 2.95, 2.91], min_delta=0.1).last == 0


def test_a_metric_to_maximise_is_turned_over() -> None:
    assert filled([1.0, 3.0, 2.0], sign=-1).best == -3.0


def test_smoothing_is_an_exponential_moving_average() -> None:
    assert list(filled([4.0, 0.0, 0.0], smoothing=0.5).values) == [4.0, 2.0, 1.0]


def test_huge_values_do_not_overflow() -> None:
    curve = filled([1e308] * (2 * MOST_WINDOWS))
    assert all(map(math.isfinite, curve.values))


def test_the_plan_is_counted_in_evaluations_at_the_rate_so_far() -> None:
    curve = Evaluations(max_steps=1_000)
    for step in range(0, 501, 10):
        feed(curve, step, 1.0)
    assert curve.planned() == 100
    for step in range(510, 1_001, 10):
        feed(curve, step, 1.0)
    assert curve.planned() == 100
    feed(curve, 1_010, 1.0)
    assert curve.planned() is None  # past its plan
    assert filled([1.0, 2.0]).planned() is None


@patient
@given(st.lists(st.floats(-100, 100), min_size=8, max_size=80))
def test_sorted_halves_equal_those_computed_anew(values: list[float]) -> None:
    series = array("d", values)
    trend = Trend(series[:5])
    trend.noise(series, 0)
    for length in range(5, len(series) + 1):
        if length > 5:
            trend.grow(series, 0)
        half = length // 2
        seen = values[:length]
        assert trend.half == half
        assert trend.first == statistics.median(seen[:half])
        assert trend.last == statistics.median(seen[-half:])
        assert trend.lowest == min(seen[-half:])
        assert trend.noise(series, 0) == (statistics.median(abs(b - a) for a, b in pairwise(seen)) / 0.954)


def test_a_long_trend_is_not_computed_again_at_each_evaluation() -> None:
    chance = Random(1)
    curve = filled([1.0, 0.0])
    built = []
    for step in range(2, 900):
        feed(curve, step, 1 + chance.random())
        if curve.gap > 8:
            trend = curve.trend()
            built.append(id(trend))
            curve.noise(trend)
    assert len(set(built)) == 1
