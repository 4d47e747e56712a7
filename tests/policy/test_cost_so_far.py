"""Cost so far: the sum over ended and open holdings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.cost import cost, cost_per_hour, cost_so_far


@dataclass(frozen=True, slots=True)
class Holding:
    price_per_hour: Decimal
    share: Decimal
    time: timedelta
    is_open: bool = False


holdings = st.builds(
    Holding,
    st.decimals(0, 10_000, places=6),
    st.integers(0, 10**8).map(lambda part: Decimal(part) / 10**8),
    st.timedeltas(timedelta(seconds=-10), timedelta(days=400)),
    st.booleans(),
)


def test_no_holdings_cost_nothing() -> None:
    assert (cost_so_far([]), cost_per_hour([])) == (0, 0)


def test_attempts_add_up_and_only_the_open_one_goes_on_costing() -> None:
    ended = Holding(Decimal(40), Decimal("0.5"), timedelta(minutes=30))
    running = Holding(Decimal(8), Decimal("0.25"), timedelta(hours=3), is_open=True)
    assert cost_so_far([ended, running]) == 16
    assert cost_per_hour([ended, running]) == 2
    assert cost_per_hour([ended]) == 0


@settings(deadline=None)
@given(st.lists(holdings, max_size=10))
def test_the_whole_is_the_sum_of_its_parts_to_the_last_decimal(held: list[Holding]) -> None:
    whole = cost_so_far(held)
    assert whole == sum(cost(each.price_per_hour, each.share, each.time) for each in held)
    assert whole >= 0
    assert whole == whole.quantize(Decimal("0.000001"))
