"""Time and money until a step, and the sentences of forecasts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from policy.forecast import Forecast, Reach
from policy.outlook import Pace, ahead, sentence

PACE = Pace(100, 0.5, Decimal(2))
END = Forecast(1_000, 0.21432, 0.2, 0.22, rough=True, history=0)


def test_time_is_the_pace_carried_on_and_money_that_time_at_the_rate() -> None:
    left = ahead(1_000, PACE)
    assert (left.step, left.seconds, left.amount) == (1_000, 1_800, Decimal(1))
    assert ahead(1_000, Pace(100, 0.5, None)).amount is None


@pytest.mark.parametrize("pace", [None, Pace(100, 0.0, None), Pace(2_000, 1.0, None)])
def test_without_a_pace_or_behind_the_step_only_the_step_is_named(pace: Pace | None) -> None:
    left = ahead(1_000, pace)
    assert (left.step, left.seconds, left.amount) == (1_000, None, None)


def test_the_sentence_about_the_end_names_the_interval_and_what_it_rests_on() -> None:
    assert sentence("loss", END, None, None, PACE, "USD", ended=False) == (
        "By step 1,000 the best loss will be about 0.2143 (80 %: 0.2 to 0.22; rough), in 30 min and for 1.00 USD more."
    )
    own = Forecast(1_000, 0.21432, 0.2, 0.22, rough=False, history=9)
    assert sentence("loss", own, None, None, None, "USD", ended=True) == (
        "By step 1,000 the best loss would have been about 0.2143 (80 %: 0.2 to 0.22; from 9 runs of the same name)."
    )


def test_sentences_about_a_target_give_bounds_only() -> None:
    before = Reach(None, 400, 700, 9, likely_not=False, rough=True)
    assert sentence("loss", None, 0.1, before, PACE, "USD", ended=False) == (
        "The target loss 0.1 is not reached before step 400 (90 %; 10 min and for 0.33 USD more). "
        "Half of 9 similar runs needed until step 700 for loss 0.1."
    )
    never = Reach(None, 1_000, None, 0, likely_not=True, rough=True)
    assert sentence("loss", None, 0.1, never, PACE, "USD", ended=False) == (
        "The target loss 0.1 is likely not reached within maxSteps (90 %)."
    )
    done = Reach(40, None, None, 0, likely_not=False, rough=False)
    assert sentence("loss", None, 0.1, done, PACE, "USD", ended=False) == "The target loss 0.1 was reached at step 40."
