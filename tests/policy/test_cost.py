"""Dominant share and cost."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.cost import billed_per_hour, cost, dominant_share, time_affordable

amounts = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("asked", "machine", "share"),
    [
        ((4, 8, 0), (8, 64, 0), "0.5"),
        ((1, 60, 0), (8, 64, 0), "0.9375"),
        ((1, 1, 2), (8, 64, 2), "1"),
        ((1, 1, 1), (8, 64, 3), "0.33333333"),
        ((0, 0, 2), (8, 64, 3), "0.66666667"),
        ((0, 0, 0), (8, 64, 2), "0"),
        ((1, 0, 0), (8, 0, 0), "0.125"),
    ],
)
def test_the_share_is_the_largest_share_of_any_resource(
    asked: tuple[float, float, int], machine: tuple[float, float, int], share: str
) -> None:
    assert dominant_share(*asked, *machine) == Decimal(share)


def test_a_resource_that_the_machine_lacks_counts_only_if_requested() -> None:
    assert dominant_share(0, 0, 0, 0, 0, 0) == 0
    assert dominant_share(0, 0, 1, 8, 64, 0) == 1


def test_a_tie_in_the_ninth_decimal_is_rounded_up() -> None:
    assert dominant_share(0.000000125, 0, 0, 1, 0, 0) == Decimal("0.00000013")


@settings(deadline=None)
@given(amounts, amounts, st.integers(0, 100), amounts, amounts, st.integers(0, 100))
def test_a_share_is_between_0_and_1_and_has_eight_decimals(
    cpus: float, memory: float, gpus: int, has_cpus: float, has_memory: float, has_gpus: int
) -> None:
    share = dominant_share(cpus, memory, gpus, has_cpus, has_memory, has_gpus)
    assert 0 <= share <= 1
    assert share.as_tuple().exponent == -8


def test_half_a_machine_for_half_an_hour_costs_a_quarter_of_its_price() -> None:
    assert cost(Decimal(40), Decimal("0.5"), timedelta(minutes=30)) == 10
    assert cost(Decimal(40), Decimal("0.5"), Decimal(1800)) == 10


def test_a_cost_is_kept_to_six_decimals() -> None:
    assert cost(Decimal("0.01"), Decimal(1), Decimal(1)) == Decimal("0.000003")
    assert cost(Decimal(1), Decimal(1), timedelta(microseconds=5400)) == Decimal("0.000002")


def test_a_clock_that_was_set_back_costs_nothing() -> None:
    assert cost(Decimal(40), Decimal(1), timedelta(seconds=-5)) == 0


def test_long_times_are_counted_to_the_microsecond() -> None:
    year = timedelta(days=365, microseconds=1)
    assert cost(Decimal(3_600_000_000), Decimal(1), year) == Decimal(31_536_000_000_000 + 1)


def test_three_thirds_of_a_machine_are_billed_like_the_whole() -> None:
    third = dominant_share(0, 0, 1, 0, 0, 3)
    assert billed_per_hour(Decimal(3), third) == 1


@settings(deadline=None)
@given(st.decimals(0, 10_000, places=6), st.integers(0, 10**8), st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_time_never_costs_less(price: Decimal, share: int, first: int, second: int) -> None:
    part = Decimal(share) / 10**8
    short, long = sorted((first, second))
    assert 0 <= cost(price, part, Decimal(short)) <= cost(price, part, Decimal(long))


def test_money_pays_for_time_rounded_down_and_for_ever_where_nothing_is_paid() -> None:
    assert time_affordable(Decimal(2), Decimal(60)) == timedelta(minutes=2)
    assert time_affordable(Decimal("0.000001"), Decimal(3)) == timedelta(microseconds=1200)
    assert time_affordable(Decimal(1), Decimal(7)) == timedelta(microseconds=514_285_714)
    assert time_affordable(Decimal(-1), Decimal(60)) == timedelta(0)
    assert time_affordable(Decimal(5), Decimal(0)) is None
    assert time_affordable(Decimal(10**11), Decimal("0.000001")) is None, "longer than a timedelta could be"
