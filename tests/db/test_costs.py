"""Costs: groups, periods, waste, savings, currencies, and what was deleted; to the sixth decimal as `policy.cost`."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from db import costs, projects, simulations
from db.billing import AMOUNT
from db.costs import Key, Question, Sums
from policy.cost import cost

Rows = Any  # the fixture of conftest.py
EVER = datetime(2100, 1, 1, tzinfo=UTC)
D = Decimal


async def project(rows: Rows, name: str) -> int:
    async with rows.sessions.begin() as session:
        return (await projects.named(session, name, rows.user)).id


async def spent(
    rows: Rows, begin: str, hours: float, *, rate: str = "10", currency: str = "USD", reason: str | None = "COMPLETED",
    number: int = 1, simulation_id: int | None = None, first_step: int | None = None, evidence: Any = None,
    machine: str = "m1", **given: Any,
) -> int:  # fmt: skip
    """An attempt that began at a time and cost `rate` an hour; the simulation's id. reason: None while it runs."""
    simulation_id = simulation_id or await rows.simulation(**given)
    at = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    end = at + timedelta(hours=hours) if reason is not None else None
    attempt_id = await rows.value(
        "INSERT INTO attempts (simulation_id, number, assigned_at, ended_at, reason, stop_evidence) "
        "VALUES (:id, :number, :at, :end, :reason, CAST(:evidence AS jsonb)) RETURNING id",
        id=simulation_id, number=number, at=at, end=end, reason=reason,
        evidence=json.dumps(evidence) if evidence is not None else None,
    )  # fmt: skip
    await rows.query(
        "INSERT INTO members (attempt_id, machine_name, cpus, memory_gib, gpus, price_per_hour, share, currency, "
        "assigned_at, ended_at) VALUES (:id, :machine, 1, 0, 0, :rate, 1, :currency, :at, :end)",
        id=attempt_id, machine=machine, rate=Decimal(rate), currency=currency, at=at, end=end,
    )  # fmt: skip
    if first_step is not None:
        await rows.query(
            "INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value) "
            "VALUES (:id, :number, 'loss', 10, :first, :last, 1)",
            id=simulation_id, number=number, first=first_step, last=first_step + 9,
        )  # fmt: skip
    return simulation_id


async def read(rows: Rows, *keys: Key, since: str | None = None, to: str | None = None, **given: Any) -> Any:
    """The rows and the totals."""
    question = Question(
        keys, datetime.fromisoformat(since).replace(tzinfo=UTC) if since else None,
        datetime.fromisoformat(to).replace(tzinfo=UTC) if to else EVER, given.pop("zone", "UTC"), **given,
    )  # fmt: skip
    async with rows.sessions() as session:
        found, totals, _ = await costs.read(session, question)
    return found, totals


def amounts(found: list[Sums], key: str) -> dict[Any, Decimal]:
    return {getattr(each, key): each.amount for each in found}


async def test_costs_are_grouped_and_added_up(rows: Rows) -> None:
    other = await project(rows, "other")
    await spent(rows, "2026-03-02T10:00", 2, name="a", tags=("x", "y"))
    await spent(rows, "2026-03-03T10:00", 1, name="b", tags=("x",), machine="m2")
    await spent(rows, "2026-03-04T10:00", 0.5, name="a", project_id=other)
    assert amounts((await read(rows, Key.PROJECT))[0], "project") == {"default": 30, "other": 5}
    assert amounts((await read(rows, Key.NAME))[0], "name") == {"a": 25, "b": 10}
    assert amounts((await read(rows, Key.MACHINE))[0], "machine") == {"m1": 25, "m2": 10}
    assert amounts((await read(rows, Key.USER))[0], "user") == {"user": 35}
    by_both, [total] = await read(rows, Key.PROJECT, Key.NAME)
    assert [(each.project, each.name, each.amount) for each in by_both] == [
        ("default", "a", 20), ("default", "b", 10), ("other", "a", 5),
    ]  # fmt: skip
    assert (total.amount, total.attempts, total.simulations) == (35, 3, 3)


async def test_a_simulation_counts_under_each_of_its_tags_and_once_in_the_total(rows: Rows) -> None:
    await spent(rows, "2026-03-02T10:00", 2, tags=("x", "y"))
    await spent(rows, "2026-03-02T10:00", 1, tags=("x",))
    await spent(rows, "2026-03-02T10:00", 3)
    found, [total] = await read(rows, Key.TAG)
    assert amounts(found, "tag") == {"x": 30, "y": 20, None: 30}
    assert total.amount == 60


async def test_time_is_divided_among_days_weeks_and_months(rows: Rows) -> None:
    await spent(rows, "2026-02-28T12:00", 48)  # Saturday to Monday
    day = datetime(2026, 2, 28, tzinfo=UTC)
    assert amounts((await read(rows, Key.DAY))[0], "begin") == {
        day: 120, day + timedelta(days=1): 240, day + timedelta(days=2): 120,
    }  # fmt: skip
    assert amounts((await read(rows, Key.WEEK))[0], "begin") == {
        datetime(2026, 2, 23, tzinfo=UTC): 360, datetime(2026, 3, 2, tzinfo=UTC): 120,
    }  # fmt: skip
    assert amounts((await read(rows, Key.MONTH))[0], "begin") == {
        datetime(2026, 2, 1, tzinfo=UTC): 120, datetime(2026, 3, 1, tzinfo=UTC): 360,
    }  # fmt: skip
    [berlin, _] = (await read(rows, Key.MONTH, zone="Europe/Berlin"))[0]
    assert (berlin.begin, berlin.amount) == (datetime(2026, 1, 31, 23, tzinfo=UTC), 110)


async def test_a_day_on_which_clocks_change_has_its_hours(rows: Rows) -> None:
    await spent(rows, "2026-10-24T00:00", 72)
    found, [total] = await read(rows, Key.DAY, zone="Europe/Berlin")
    assert [each.amount for each in found] == [220, 250, 240, 10]
    assert total.amount == 720


async def test_only_what_lies_within_the_time_counts(rows: Rows) -> None:
    await spent(rows, "2026-03-01T00:00", 24)
    await spent(rows, "2026-03-05T00:00", 24)
    _, [total] = await read(rows, since="2026-03-01T12:00", to="2026-03-05T06:00")
    assert (total.amount, total.attempts) == (180, 2)
    assert (await read(rows, Key.DAY, since="2026-03-02T00:00", to="2026-03-05T00:00")) == ([], [])


async def test_what_runs_counts_up_to_now(rows: Rows) -> None:
    at = datetime.now(UTC) - timedelta(hours=3)
    await spent(rows, at.replace(tzinfo=None).isoformat(), 0, reason=None)
    _, [total] = await read(rows)
    assert 30 <= total.amount < 31
    assert total.wasted == 0


async def test_wasted_is_what_no_attempt_continued(rows: Rows) -> None:
    at = "2026-03-01T00:00"
    await spent(rows, at, 1, reason="EXIT_CODE")
    await spent(rows, at, 2, reason="CANCELLED")
    again = await spent(rows, at, 4, reason="MACHINE_LOST", first_step=1)
    await spent(rows, at, 1, simulation_id=again, number=2, first_step=1)
    resumed = await spent(rows, at, 8, reason="PREEMPTED", first_step=1)
    await spent(rows, at, 1, simulation_id=resumed, number=2, first_step=7)
    await spent(rows, at, 16, reason="BUDGET_EXHAUSTED")
    _, [total] = await read(rows)
    assert (total.amount, total.wasted) == (330, 10 * (1 + 4 + 16))


async def test_saved_is_what_the_evidence_of_stops_estimates(rows: Rows) -> None:
    await spent(
        rows, "2026-03-01T00:00", 30, evidence={"rule": "plateau", "saved": {"amount": "41.5", "currency": "USD"}}
    )
    await spent(rows, "2026-03-01T00:00", 1, evidence={"rule": "plateau", "saved": {"amount": "soon"}})
    await spent(rows, "2026-03-01T00:00", 1, evidence={"rule": "plateau", "saved": {"seconds": 3}})
    found, [total] = await read(rows, Key.DAY)
    assert total.saved == D("41.5")
    assert [each.saved for each in found] == [0, D("41.5")]  # on the day on which it was stopped


async def test_currencies_are_never_added(rows: Rows) -> None:
    await spent(rows, "2026-03-01T00:00", 1, name="a")
    await spent(rows, "2026-03-01T00:00", 1, name="a", currency="EUR", rate="7")
    found, totals = await read(rows, Key.NAME)
    assert [(each.currency, each.amount) for each in found] == [("USD", 10), ("EUR", 7)]
    assert [(each.currency, each.amount) for each in totals] == [("USD", 10), ("EUR", 7)]


async def test_what_was_deleted_still_counts(rows: Rows) -> None:
    simulation_id = await spent(rows, "2026-03-01T00:00", 3, reason="EXIT_CODE", name="a", tags=("x",))
    free = await spent(rows, "2026-03-01T00:00", 3, rate="0")
    await rows.query("UPDATE simulations SET state = 'FAILED'")
    before = await read(rows, Key.PROJECT, Key.NAME, Key.TAG, Key.DAY)
    async with rows.sessions.begin() as session:
        await simulations.delete_ended(session, simulation_id, rows.user)
        await simulations.delete_ended(session, free, rows.user)
    found, totals = await read(rows, Key.PROJECT, Key.NAME, Key.TAG, Key.DAY)
    assert [each for each in before[0] if each.amount] == found
    assert [(each.amount, each.wasted) for each in totals] == [(30, 30)]


async def test_a_viewer_of_some_projects_sees_only_their_costs(rows: Rows) -> None:
    other = await project(rows, "other")
    await spent(rows, "2026-03-01T00:00", 1)
    gone = await spent(rows, "2026-03-01T00:00", 2, project_id=other)
    await spent(rows, "2026-03-01T00:00", 4, project_id=other)
    await rows.query("UPDATE simulations SET state = 'FINISHED' WHERE id = :id", id=gone)
    async with rows.sessions.begin() as session:
        await simulations.delete_ended(session, gone, rows.user)
    assert amounts((await read(rows, Key.PROJECT, scope=frozenset({other})))[0], "project") == {"other": 60}
    assert (await read(rows, scope=frozenset({other})))[1][0].amount == 60
    assert (await read(rows, scope=frozenset({other}), project_id=1)) == ([], [])
    assert (await read(rows, project_id=other))[1][0].amount == 60


async def test_more_groups_than_an_answer_holds_are_refused(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MOST_ROWS", 2)
    await spent(rows, "2026-03-01T00:00", 72)
    with pytest.raises(costs.TooMany):
        await read(rows, Key.DAY)


async def test_the_database_rounds_a_cost_as_policy_does(rows: Rows) -> None:
    """A thousand random holdings, ties among them: 0.0000005 is rounded up in both."""
    random_ = random.Random(17)
    cases = [(D("0.0018"), D(1), timedelta(seconds=1)), (D(0), D("0.5"), timedelta(hours=1))]
    cases += [(D(3600), D("0.00000001"), timedelta(microseconds=number)) for number in range(1, 200)]
    for _ in range(1000):
        price = D(random_.randrange(10 ** random_.randrange(1, 11))).scaleb(-6)
        share = D(random_.randrange(10**8 + 1)).scaleb(-8)
        cases.append((price, share, timedelta(microseconds=random_.randrange(10 ** random_.randrange(1, 14)))))
    amount = AMOUNT.format(rate="price * share", since="now()", to="now() + held")
    statement = text(
        f"SELECT {amount} FROM unnest(CAST(:prices AS numeric[]), CAST(:shares AS numeric[]), "
        "CAST(:times AS interval[])) WITH ORDINALITY AS c (price, share, held, place) ORDER BY place"
    )
    prices, shares, times = (list(each) for each in zip(*cases, strict=True))
    async with rows.sessions() as session:
        found = (await session.scalars(statement, {"prices": prices, "shares": shares, "times": times})).all()
    assert list(found) == [cost(*each) for each in cases]
