"""Forecasts: known curves, calibration, and what is said about a target."""

from __future__ import annotations

import math
import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.forecast import band, calibrated, first_reached, forecast, reach, rough_factors, score

patient = settings(deadline=None)


def power(n: int, *, floor: float = 0.2, exponent: float = 0.5) -> list[float]:
    return [floor + (step + 1) ** -exponent for step in range(n)]


def noisy(seed: int, n: int = 100) -> list[float]:
    chance = Random(seed)
    floor, exponent = chance.uniform(0.1, 0.5), chance.uniform(0.3, 1.2)
    return [floor + (step + 1) ** -exponent + chance.gauss(0, 0.005) for step in range(n)]


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0])
def test_a_power_law_is_continued(exponent: float) -> None:
    whole = power(1_001, exponent=exponent)
    found = forecast(range(500), whole[:500], "MIN", 1_000)
    assert found is not None
    assert found.value == pytest.approx(whole[-1], rel=0.01)
    assert found.low < whole[-1] <= found.high <= min(whole[:500])
    assert (found.step, found.rough, found.history) == (1_000, True, 0)


def test_a_metric_to_maximise_is_the_same_upside_down() -> None:
    values = noisy(3)[:50]
    down = forecast(range(50), values, "MIN", 99)
    up = forecast(range(50), [-each for each in values], "MAX", 99)
    assert down is not None
    assert up is not None
    assert (up.value, up.low, up.high) == (-down.value, -down.high, -down.low)


def test_units_of_step_and_value_do_not_matter() -> None:
    values = noisy(4)[:50]
    one = forecast(range(50), values, "MIN", 99)
    other = forecast(range(0, 5_000, 100), [1_000 * each for each in values], "MIN", 9_900)
    assert one is not None
    assert other is not None
    assert other.value == pytest.approx(1_000 * one.value)
    assert other.low == pytest.approx(1_000 * one.low)


@pytest.mark.parametrize(
    ("metric", "mode", "most", "fall"),
    [("val/loss", "MIN", 0, 0.018), ("accuracy", "MAX", 1, -0.018), ("top1", "MAX", 100, -1.8)],
)
def test_neither_forecast_nor_interval_passes_what_the_metric_can_reach(
    metric: str, mode: str, most: int, fall: float
) -> None:
    """The straight line leads past the bound after a quarter of the plan."""
    values = [most + fall * (55 - step) for step in range(50)]
    found = forecast(range(50), values, mode, 200, metric=metric)
    drawn = band(range(50), values, mode, 200, metric=metric)
    assert found is not None
    assert drawn is not None
    assert most in (found.low, found.high)
    assert found.low <= found.value <= found.high
    assert max(drawn.highs) == max(found.high, values[-1])
    assert min(drawn.lows) == min(found.low, values[-1])


def test_a_metric_that_is_negative_may_become_more_so() -> None:
    values = [-0.01 * step for step in range(50)]
    found = forecast(range(50), values, "MIN", 100, metric="loss")
    assert found is not None
    assert found.value < values[-1]


@pytest.mark.parametrize(("sign", "mode"), [(1, "MIN"), (-1, "MAX")])
def test_a_band_begins_at_the_best_so_far_and_ends_as_the_forecast(sign: int, mode: str) -> None:
    values = [sign * each for each in noisy(6)[:50]]
    found, end = band(range(50), values, mode, 99), forecast(range(50), values, mode, 99)
    assert found is not None
    assert end is not None
    best = sign * min(sign * each for each in values)
    assert (found.steps[0], found.values[0], found.lows[0], found.highs[0]) == (49, best, best, best)
    assert (found.steps[-1], found.values[-1], found.lows[-1], found.highs[-1]) == (99, end.value, end.low, end.high)
    assert list(found.steps) == sorted(set(found.steps))
    assert all(low <= high for low, high in zip(found.lows, found.highs, strict=True))
    assert len(found.steps) <= 33
    assert band(range(4), values[:4], mode, 10) is None


def test_too_little_is_no_forecast() -> None:
    values = noisy(5)
    assert forecast(range(4), values[:4], "MIN", 10) is None
    assert forecast(range(5), values[:5], "MIN", 10) is not None
    assert forecast(range(9), values[:9], "MIN", 99) is None  # less than a tenth
    assert forecast(range(50), values[:50], "MIN", 49) is None  # has ended
    assert forecast([7] * 20, values[:20], "MIN", 99) is None
    assert forecast(range(20), [math.nan] * 20, "MIN", 50) is None
    assert forecast([], [], "MIN", 50) is None


@patient
@given(
    st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e-300])),
        min_size=5,
        max_size=200,
    ),
    st.integers(1, 400),
)
def test_any_curve_has_a_finite_forecast_or_none(values: list[float], ahead: int) -> None:
    found = forecast(range(len(values)), values, "MIN", len(values) + ahead)
    if found is not None:
        assert all(map(math.isfinite, (found.low, found.value, found.high)))
        assert found.low <= found.high <= min(each for each in values if math.isfinite(each))
        assert found.value <= found.high + 1e-9 * abs(found.high) or found.low <= found.value


def test_a_spike_does_not_move_the_forecast_far() -> None:
    values = noisy(6)[:60]
    spiked = [*values]
    spiked[30] = 1e6
    plain, with_spike = (forecast(range(60), each, "MIN", 99) for each in (values, spiked))
    assert plain is not None
    assert with_spike is not None
    assert abs(plain.value - with_spike.value) < 0.05


def test_rough_factors_are_interpolated_and_widen_before_a_quarter() -> None:
    assert (rough_factors(0.25).low, rough_factors(0.25).high) == (-3.0, 0.98)
    assert rough_factors(0.375).low == pytest.approx(-1.99)
    assert rough_factors(0.9) == rough_factors(0.75)
    assert rough_factors(0.1).low < -3.0 < rough_factors(0.3).low
    assert rough_factors(0.1).high > 0.98


def test_eight_ended_runs_replace_the_rough_factors() -> None:
    assert calibrated([0.0] * 7) is None
    eight = calibrated([float(n) for n in range(8)])
    assert eight is not None
    assert (eight.low, eight.high, eight.history) == (0.0, 7.0, 8)
    nineteen = calibrated([float(n) for n in reversed(range(19))])
    assert nineteen is not None
    assert (nineteen.low, nineteen.high) == (1.0, 17.0)  # ranks 2 and 18
    values = noisy(7)[:50]
    own = forecast(range(50), values, "MIN", 99, scores=[-0.1, 0.1] * 5)
    assert own is not None
    assert (own.rough, own.history) == (False, 10)
    few = forecast(range(50), values, "MIN", 99, scores=[-0.1] * 7)
    assert few is not None
    assert few.rough


def test_the_interval_of_a_project_s_own_runs_holds_what_it_promises() -> None:
    runs = [noisy(seed) for seed in range(240)]
    scores = [score(range(100), run, "MIN", 0.5) for run in runs]
    kept = [each for each in scores if each is not None]
    assert len(kept) == len(runs)
    held = 0
    for index in range(120):
        found = forecast(range(50), runs[index][:50], "MIN", 99, scores=kept[120:])
        assert found is not None
        held += found.low <= min(runs[index]) <= found.high
    assert 0.68 <= held / 120 <= 0.92  # 80 %, three standard deviations of 120 draws


def test_the_score_is_the_error_in_units_of_the_interval() -> None:
    run = noisy(8)
    scored = score(range(100), run, "MIN", 0.5)
    found = forecast(range(50), run[:50], "MIN", 99, scores=[0.0, 1.0] * 20)
    assert scored is not None
    assert found is not None
    unit = found.high - found.low  # factors 0 and 1, unless the best so far is below
    if found.high < min(run[:50]):
        assert scored == pytest.approx((min(run) - found.value) / unit)
    assert score(range(3), run[:3], "MIN", 0.5) is None
    assert score(range(100), run, "MIN", 1.0) is None


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_of_means_the_best_of_what_they_are_means_of_is_forecast(share: float) -> None:
    random = Random(1)
    held = 0
    for _ in range(40):
        raw = [0.05 + (step + 50) ** -0.5 + random.gauss(0, 0.01) for step in range(2_000)]
        windows = [raw[at : at + 10] for at in range(0, round(share * 2_000), 10)]
        steps, means, bests = (
            [10 * at + 9 for at in range(len(windows))],
            [*map(statistics.mean, windows)],
            [*map(min, windows)],
        )
        found = forecast(steps, means, "MIN", 1_999, bests=bests)
        drawn = band(steps, means, "MIN", 1_999, bests=bests)
        assert found is not None
        assert drawn is not None
        assert found.low <= found.value <= found.high <= min(bests), "the best does not become worse"
        assert (drawn.values[0], drawn.values[-1]) == pytest.approx((min(bests), found.value))
        held += found.low <= min(raw) <= found.high
    assert held >= 28, "of 40: an interval for 80 of 100 cases"


def test_the_score_of_means_is_the_error_of_their_bests() -> None:
    means, bests = noisy(8), [each - 0.25 for each in noisy(8)]
    scored, of_means = score(range(100), means, "MIN", 0.5, bests), score(range(100), means, "MIN", 0.5)
    assert scored is not None
    assert of_means is not None
    assert scored == pytest.approx(of_means, rel=0.05), "both are off by as much"


# --- targets ---------------------------------------------------------------------------------------------------


def test_a_reached_target_has_its_step() -> None:
    found = reach(range(50), power(50), "MIN", 0.6, max_steps=100)
    assert found is not None
    assert found.reached_at == first_reached(range(50), power(50), "MIN", 0.6) == 6
    assert (found.not_before, found.half_until, found.likely_not) == (None, None, False)
    assert first_reached([0, 1], [0.1, math.nan], "MAX", 0.5) is None


def test_a_target_out_of_reach_is_likely_not_reached_within_the_plan() -> None:
    found = reach(range(500), power(500), "MIN", 0.01, max_steps=1_000)
    assert found is not None
    assert (found.not_before, found.likely_not, found.rough) == (1_000, True, True)


def test_a_target_ahead_is_not_reached_before_a_step() -> None:
    whole = power(2_001, floor=0.0, exponent=0.3)
    target = whole[1_800]
    found = reach(range(500), whole[:500], "MIN", target, max_steps=2_000)
    assert found is not None
    assert found.not_before is not None
    assert 500 < found.not_before <= 1_800
    assert not found.likely_not


def test_half_of_the_similar_runs_that_had_not_reached_it_by_now() -> None:
    values = power(50)
    similar = [10, 20, 60, 70, 80, 90, 100, 110, 120, None]
    found = reach(range(50), values, "MIN", 0.3, max_steps=None, similar=similar)
    assert found is not None
    assert (found.half_until, found.similar, found.not_before) == (100, 8, None)
    never = reach(range(50), values, "MIN", 0.3, max_steps=None, similar=[60, *[None] * 9])
    assert never is None  # most never reached it: no step to name
    assert reach(range(50), values, "MIN", 0.3, max_steps=None, similar=[60] * 7) is None


def test_too_little_says_nothing_about_a_target() -> None:
    assert reach(range(3), [1.0, 0.9, 0.8], "MIN", 0.1, max_steps=100) is None
    assert reach(range(50), power(50), "MIN", 0.1, max_steps=None) is None
    assert reach(range(50), power(50), "MIN", 0.1, max_steps=10_000) is None
