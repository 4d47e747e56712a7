"""Formatting of values and durations in sentences."""

from __future__ import annotations

import json
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import pytest

from policy.phrasing import measured, money, price, span

# Shared with the command line (tests/cli/test_money.py) and the pages (web/tests/pages.test.ts).
CASES = json.loads((Path(__file__).parents[1] / "support" / "money.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.21434, "0.2143"),
        (1.0, "1"),
        (9.99996, "10"),
        (-0.5, "-0.5"),
        (12.5, "12.5"),
        (999.96, "1000"),
        (12345.6, "12,346"),
        (1.23456e-7, "1.235e-7"),
        (3e12, "3e12"),
        (5e-324, "5e-324"),
    ],
)
def test_values_have_four_significant_digits(value: float, text: str) -> None:
    assert measured(value) == text


@pytest.mark.parametrize(("amount", "currency", "text"), CASES["money"])
def test_an_amount_is_never_shown_as_nothing_if_it_is_not(amount: str, currency: str, text: str) -> None:
    assert money(Decimal(amount), currency) == text


@pytest.mark.parametrize(("amount", "currency", "text"), CASES["price"])
def test_what_a_user_has_set_is_shown_exactly(amount: str, currency: str, text: str) -> None:
    assert price(Decimal(amount), currency) == text


def test_what_is_left_is_rounded_down() -> None:
    assert money(Decimal("1.999"), "USD", ROUND_FLOOR) == "1.99 USD"
    assert money(Decimal("0.00199"), "USD", ROUND_FLOOR) == "0.0019 USD"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min"),
        (720, "12 min"),
        (3_599, "1 h"),
        (12_000, "3 h 20 min"),
        (86_399, "1 d"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert span(seconds) == text
