"""Money in tables and sentences: the same text as in the service's sentences and on the pages.

`policy/phrasing.py` and `web/src/ui/format.ts` format in the same way; tests/support/money.json has the cases of all
three. Amounts are the API's texts.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from cli.terminal import clean

_CENT = Decimal("0.01")
_LEAST = Decimal("0.000001")  # in which costs are counted


def money(amount: str, currency: str) -> str:
    """Format an amount to the cent, less than a cent to two significant digits: never as zero if it is not."""
    value = Decimal(amount)
    if 0 < abs(value) < _LEAST:
        return f"< {_LEAST} {clean(currency)}"
    step = _CENT if abs(value) >= _CENT or not value else max(Decimal(1).scaleb(value.adjusted() - 1), _LEAST)
    return price(str(value.quantize(step, ROUND_HALF_UP)), currency)


def price(amount: str, currency: str) -> str:
    """Format an amount that a user has set, exactly, with two decimals or more: 2.50 USD, 0.0625 USD."""
    whole, _, decimals = f"{Decimal(amount):,f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')} {clean(currency)}"


def is_set(amount: str) -> bool:
    """Return whether there is anything to show: a price of 0 is one that was never set."""
    return Decimal(amount) != 0
