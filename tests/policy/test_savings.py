"""What a stop saved: time and money until the end of the run."""

from __future__ import annotations

from decimal import Decimal

import pytest

from policy.savings import End, ForecastEnd, Saved, forecast_end, saved

PRICE = Decimal("12.30")


def test_the_rest_of_the_plan_at_the_pace_and_price_until_the_stop() -> None:
    found = saved(4_000, 0.5, max_steps=10_000, price_per_hour=PRICE)
    assert found == Saved(6_000, 12_000.0, Decimal("41.000000"), End.MAX_STEPS, 10_000)
    assert found.sentence("USD") == "About 3 h 20 min and 41.00 USD saved, by maxSteps of 10,000."


def test_a_forecast_end_counts_only_without_a_plan_or_past_it() -> None:
    forecast = ForecastEnd(400, 5)
    both = saved(50, 1.0, max_steps=100, forecast=forecast)
    assert both is not None
    assert (both.by, both.steps) == (End.MAX_STEPS, 50)
    for max_steps in (None, 40):
        found = saved(50, 1.0, max_steps=max_steps, forecast=forecast)
        assert found is not None
        assert (found.by, found.similar) == (End.FORECAST, 5)
        assert found.sentence("USD") == "About 6 min saved, by a forecast end of 400, the median of 5 similar runs."


def test_a_forecast_end_is_the_median_of_similar_runs_that_went_further() -> None:
    assert forecast_end(50, [100, 300, 200]) == ForecastEnd(200, 3)
    assert forecast_end(50, [100, 300, 200, 400]) == ForecastEnd(200, 4)
    assert forecast_end(150, [100, 300, 200, 400]) == ForecastEnd(300, 3), "those that ended before say nothing of it"
    assert forecast_end(200, [100, 300, 200, 400]) is None
    assert forecast_end(0, []) is None


def test_without_an_end_or_a_pace_nothing_is_claimed() -> None:
    assert saved(50, 1.0, max_steps=None) is None
    assert saved(50, 1.0, max_steps=50) is None
    assert saved(50, 0.0, max_steps=100) is None
    assert saved(50, float("nan"), max_steps=100) is None


def test_only_the_billed_share_of_a_machine_is_saved() -> None:
    found = saved(0, 1.0, max_steps=3_600, price_per_hour=PRICE, share=Decimal("0.5"))
    assert found is not None
    assert found.amount == Decimal("6.150000")


def test_money_that_is_not_known_or_nothing_is_left_out() -> None:
    for price in (None, Decimal(0)):
        found = saved(0, 1.0, max_steps=60, price_per_hour=price)
        assert found is not None
        assert found.sentence("USD") == "About 1 min saved, by maxSteps of 60."


def test_less_than_a_cent_is_not_shown_as_nothing() -> None:
    found = saved(0, 1.0, max_steps=60, price_per_hour=Decimal("0.123456"))
    assert found is not None
    assert found.sentence("USD") == "About 1 min and 0.0021 USD saved, by maxSteps of 60."


@pytest.mark.parametrize("pace", [1e-300, 5e-324])
def test_a_pace_close_to_nothing_gives_a_finite_amount(pace: float) -> None:
    found = saved(0, pace, max_steps=10**9, price_per_hour=PRICE)
    assert found is not None
    assert found.amount is not None
    assert found.amount.is_finite()
