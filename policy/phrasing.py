"""Formatting of amounts, prices and names in the sentences of this package.

Names, labels and models are other users' input: they are shortened and stripped of unprintable characters, so that no
name can break a terminal or crowd out the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

LONGEST_SENTENCE = 300
_LONGEST_NAME = 40
_CENT = Decimal("0.01")
_LEAST_MONEY = Decimal("0.000001")  # in which costs are counted


def name(text: str) -> str:
    """Format a name that another user chose."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in cut(text, _LONGEST_NAME))


def cut(text: str, longest: int) -> str:
    """Shorten to at most `longest` characters; the ellipsis counts."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def number(value: float) -> str:
    """Format a number with at most three decimals, without trailing zeros."""
    if value != 0 and not 0.001 <= abs(value) < 1e9:
        return _power(value, 3)
    return f"{value:.3f}".rstrip("0").rstrip(".")


def measured(value: float) -> str:
    """Format a value of a metric with four significant digits, thousands separated: 0.2143, 12,345, 1.2e-7."""
    if value != 0 and not 0.0001 <= abs(value) < 1e9:
        return _power(value, 4)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _power(value: float, digits: int) -> str:
    """Format with a power of ten as the pages do (`valueOf` of web/src/ui/format.ts): 1e-5, 5e-324."""
    factor, _, power = min(f"{value:.{digits}g}", repr(value), key=len).partition("e")
    return f"{factor}e{int(power)}" if power else factor


def money(amount: Decimal, currency: str, rounding: str = ROUND_HALF_UP) -> str:
    """Format an amount to the cent, less than a cent to two significant digits: never as zero if it is not.

    rounding: of `decimal`. The command line (`cli/money.py`) and the pages (`web/src/ui/format.ts`) format in the same
    way: tests/support/money.json has the cases of all three.
    """
    if 0 < abs(amount) < _LEAST_MONEY:
        return f"< {_LEAST_MONEY} {currency}"
    step = _CENT if abs(amount) >= _CENT or not amount else max(Decimal(1).scaleb(amount.adjusted() - 1), _LEAST_MONEY)
    return price(amount.quantize(step, rounding), currency)


def price(amount: Decimal, currency: str) -> str:
    """Format an amount that a user has set, exactly, with two decimals or more: 2.50 USD, 0.0625 USD."""
    whole, _, decimals = f"{amount:,f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')} {currency}"


def span(seconds: float) -> str:
    """Format a duration with its two largest units: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        large, small, units = *divmod(minutes, 60), ("h", "min")
    else:
        large, small, units = *divmod(round(minutes / 60), 24), ("d", "h")
    return f"{large:,} {units[0]} {small} {units[1]}" if small else f"{large:,} {units[0]}"


def count(number: int, one: str) -> str:
    """Format how many there are: 1 trial, 1,200 trials."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str], last: str = "and") -> str:
    """Join with commas and a last word: a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"
