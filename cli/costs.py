"""`simulations costs` and `simulations budget`: what they ask for, and their tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime

from cli.answers import Budget, Costs, CostSum
from cli.errors import UsageError
from cli.money import is_set, money, price
from cli.tables import Column, print_table
from cli.terminal import clean, formula_safe, print_line, say, stdout

GROUPS = ("project", "user", "machine", "name", "tag")
PERIODS = ("day", "week", "month", "total")
NO_PRICES = (
    "No prices are set, so there are no costs. Set them with SIMULATIONS_MACHINE_PRICE_PER_HOUR on each host, or: "
    "simulations machines update NAME --price-per-hour PRICE"
)


# --- what is asked for -----------------------------------------------------------------------------------------


def parse_period(given: str) -> str:
    """Return the API's name of a budget's period. Raises `UsageError`."""
    if given.lower() not in PERIODS:
        raise UsageError(f"--period: expected one of {', '.join(PERIODS)}, got {clean(given)}.")
    return given.upper()


def parse_groups(by: Sequence[str], *, day: bool, week: bool, month: bool) -> list[str]:
    """Return the API's names of groups, in the order of the columns. Raises `UsageError`."""
    words = [word.strip().lower() for each in by for word in each.split(",") if word.strip()]
    for word in words:
        if word not in GROUPS:
            raise UsageError(f"--by: expected one of {', '.join(GROUPS)}, got {clean(word)}.")
    times = [name for name, chosen in (("day", day), ("week", week), ("month", month)) if chosen]
    if len(times) > 1:
        raise UsageError(f"--{times[0]} and --{times[1]} can't be combined.")
    return [word.upper() for word in dict.fromkeys([*times, *words])]


def parse_time(option: str, given: str | None) -> str | None:
    """Return a time for the API: a date is its midnight, UTC. Raises `UsageError`."""
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise UsageError(f"{option}: expected a date like 2026-11-01, got {clean(given)}.") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).isoformat()


# --- costs -----------------------------------------------------------------------------------------------------


def print_costs(costs: Costs, groups: Sequence[str]) -> None:
    """Print a table of the groups, and the totals."""
    if not costs.has_prices:
        say(NO_PRICES)
        return
    saves = any(is_set(each.saved) for each in costs.totals)
    columns = [Column(each, folds=True) for each in groups]
    columns += [Column("COST"), Column("WASTED", from_width=50), *([Column("SAVED", from_width=60)] if saves else [])]
    columns += [Column("ATTEMPTS", from_width=70), Column("SIMULATIONS", from_width=80)]
    rows = [[*_keys(row.keys(groups)), *_cells(row.sum, saves)] for row in costs.rows]
    of_total = ["total", *[""] * (len(groups) - 1)] if groups else []
    rows += [[*of_total, *_cells(total, saves)] for total in costs.totals]
    print_table(stdout(), columns, rows)
    if not costs.totals:
        say("Nothing was spent in this time.")


def print_csv(costs: Costs, groups: Sequence[str]) -> None:
    """Print the groups, or without groups the totals, as comma-separated values with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([
        *(each.lower() for each in groups), "currency", "amount", "wasted", "saved", "attempts", "simulations",
    ])  # fmt: skip
    rows = [(row.keys(groups), row.sum) for row in costs.rows] if groups else [((), each) for each in costs.totals]
    for keys, sums in rows:
        facts = (sums.currency, sums.amount, sums.wasted, sums.saved, sums.attempts, sums.simulations)
        writer.writerow([formula_safe("" if key is None else key) for key in keys] + [str(each) for each in facts])
    print_line(buffer.getvalue().rstrip("\n"))


def _keys(keys: Sequence[str | None]) -> list[str]:
    return ["(none)" if each is None else clean(each) for each in keys]


def _cells(sums: CostSum, saves: bool) -> list[str]:
    saved = [money(sums.saved, sums.currency)] if saves else []
    wasted = money(sums.wasted, sums.currency) if is_set(sums.wasted) else ""
    return [money(sums.amount, sums.currency), wasted, *saved, str(sums.attempts), str(sums.simulations)]


# --- budgets ---------------------------------------------------------------------------------------------------


def print_budgets(budgets: Sequence[Budget]) -> None:
    """Print a table of budgets, oldest first."""
    columns = (
        Column("ID", is_key=True),
        Column("PROJECT", folds=True),
        Column("PERIOD", from_width=50),
        Column("SPENT", from_width=40),
        Column("BUDGET"),
        Column("USED", from_width=60),
        Column("PER HOUR", from_width=80),
        Column("NEXT PERIOD", from_width=100),
    )
    rows = []
    for each in budgets:
        account = each.account
        rows.append([
            clean(each.id),
            clean(each.project.name) if each.project is not None else "(installation)",
            each.period.lower(),
            money(account.spent, each.currency) if account is not None else "",
            price(each.amount, each.currency),
            ("used up" if account.is_used_up else f"{account.percent} %") if account is not None else "",
            money(account.per_hour, each.currency) if account is not None and is_set(account.per_hour) else "",
            f"{account.period_end:%Y-%m-%d}" if account is not None and account.period_end is not None else "",
        ])  # fmt: skip
    print_table(stdout(), columns, rows)


def budget_sentence(budget: Budget) -> str:
    """Return a sentence about a budget: whose, how much and when."""
    owner = clean(budget.project.name) if budget.project is not None else "the installation"
    every = "in total" if budget.period == "TOTAL" else f"each {budget.period.lower()}"
    return f"Budget of {owner}: {price(budget.amount, budget.currency)} {every}."
