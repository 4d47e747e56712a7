"""Starts that budgets do not pay for. Races and stops are in `tests/scheduler/test_spending.py`."""

from __future__ import annotations

from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

from db import budgets, projects
from db.events import Actor
from policy.budget import Reserve
from transitions.budget import Rules, Start, unpayable

Rows = Any  # the fixture of conftest.py
USER = Actor("user")
PRICE = Decimal(3600)  # a machine of it costs a dollar a second
SECOND = timedelta(seconds=1)
RULES = Rules(Reserve(look=SECOND, heartbeat=SECOND, grace=8 * SECOND), UTC, "USD")  # ten dollars for such a machine


async def test_starts_of_one_transaction_are_judged_together(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        ids = [(await projects.named(session, name, USER)).id for name in ("default", "other", "free")]
        for project_id, amount in zip(ids, (20, 30), strict=False):
            await budgets.create(session, budgets.Wanted(project_id, "TOTAL", Decimal(amount), "USD"), USER)
    starts = [Start(ids[number], PRICE, "USD") for number in (0, 0, 0, 1, 2, 1, 1, 1)]
    async with rows.sessions.begin() as session:
        assert await unpayable(session, starts, RULES) == {2, 7}
