"""Formatting of money: the cases that it shares with the service's sentences and the pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.money import is_set, money, price

CASES = json.loads((Path(__file__).parents[1] / "support" / "money.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("amount", "currency", "text"), CASES["money"])
def test_an_amount_is_never_shown_as_nothing_if_it_is_not(amount: str, currency: str, text: str) -> None:
    assert money(amount, currency) == text


@pytest.mark.parametrize(("amount", "currency", "text"), CASES["price"])
def test_what_a_user_has_set_is_shown_exactly(amount: str, currency: str, text: str) -> None:
    assert price(amount, currency) == text


def test_a_currency_of_the_server_reaches_no_terminal_raw() -> None:
    assert "\x1b" not in money("1", "\x1b[31m")


@pytest.mark.parametrize(("amount", "expected"), [("0", False), ("0.000000", False), ("0.000001", True), ("-1", True)])
def test_a_price_of_nothing_was_never_set(amount: str, expected: bool) -> None:
    assert is_set(amount) is expected
