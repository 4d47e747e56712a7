"""Budgets on real rows: who waits, who is stopped, and that nothing is overspent, to the cent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession
from statements import sent_by

from db import budgets, lifecycle, projects
from db.events import Actor
from db.models import Budget, Event
from policy.budget import Period, span_of
from scheduler.planner import Planner
from scheduler.spending import Spending, rules_of
from settings import Settings
from transitions import budget as accounts
from transitions.assign import Assignment, Placed, assign

World = Any  # the fixture of conftest.py
USER = Actor("user")
PRICE = Decimal(3600)  # a machine of it costs a dollar a second
MUCH = Decimal(1_000_000)


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


@pytest.fixture
def spending(world: World) -> Spending:
    return Spending(world.sessions, world.settings)


async def make(world: World, amount: Decimal | str, project: str | None = "default", period: str = "TOTAL") -> int:
    async with world.sessions.begin() as session:
        of = (await projects.named(session, project, USER)).id if project is not None else None
        wanted = budgets.Wanted(of, period, Decimal(amount), "USD")
        return (await budgets.create(session, wanted, USER)).id


async def project(world: World, name: str) -> int:
    async with world.sessions.begin() as session:
        return (await projects.named(session, name, USER)).id


async def statement(world: World, budget_id: int) -> accounts.Statement:
    async with world.sessions() as session:
        [found] = await accounts.statements(session, [await budgets.get(session, budget_id)], UTC)
        return found


async def row(world: World, budget_id: int) -> Budget:
    async with world.sessions() as session:
        return await budgets.get(session, budget_id)


async def warnings(world: World, budget_id: int) -> list[int]:
    async with world.sessions() as session:
        found = await session.scalars(
            select(Event)
            .where(Event.object_type == "Budget", Event.object_id == budget_id, Event.kind == "BUDGET_WARNING")
            .order_by(Event.id)
        )
        return [each.detail["percent"] for each in found]


async def ago(world: World, simulation_id: int, seconds: float) -> None:
    """Move an open attempt's assignment back: it has cost that much more."""
    await world.execute(
        "UPDATE members SET assigned_at = now() - CAST(:ago AS interval) WHERE ended_at IS NULL "
        "AND attempt_id IN (SELECT id FROM attempts WHERE simulation_id = :id)",
        ago=timedelta(seconds=seconds), id=simulation_id,
    )  # fmt: skip


def whole(settings: Settings) -> Decimal:
    return Decimal(str(rules_of(settings).reserve.whole.total_seconds()))


async def test_what_a_budget_does_not_pay_for_waits_with_a_sentence_and_others_go_on(
    world: World, planner: Planner
) -> None:
    await world.machine(cpus=4.0, price_per_hour=PRICE)
    other = await project(world, "other")
    await make(world, "0.50", period="MONTH")
    first = await world.simulation("first", priority=5)
    second = await world.simulation("second", priority=5)
    unlimited = await world.simulation("unlimited", project_id=other)

    summary = await planner.tick()

    assert (summary.assigned, summary.refused) == (1, 0)
    assert await world.state(unlimited) == "STARTING"
    wait = await world.wait_of(first)
    assert wait == await world.wait_of(second)
    assert wait.reason == "BUDGET_EXHAUSTED"
    assert wait.detail.startswith("The budget of project default for ")
    assert " has 0.50 USD of 0.50 USD left, which does not pay for another start" in wait.detail
    assert "The next period begins on 1 " in wait.detail


async def test_a_gang_takes_no_machines_if_a_budget_pays_for_one_of_its_members_only(
    world: World, planner: Planner
) -> None:
    for name in ("m1", "m2"):
        await world.machine(name, cpus=1.0, price_per_hour=PRICE)
    other = await project(world, "other")
    await make(world, whole(world.settings) * Decimal("1.5"))
    gang = await world.simulation("gang", machines=2, priority=5)
    unlimited = await world.simulation("unlimited", project_id=other)
    summary = await planner.tick()
    assert (summary.assigned, summary.refused) == (1, 0)
    assert await world.state(unlimited) == "STARTING"
    assert await world.waiting(gang) == "BUDGET_EXHAUSTED"
    await world.execute("UPDATE budgets SET amount = amount * 10")
    await planner.tick()
    await planner.tick()
    assert await world.waiting(gang) == "MACHINES_BUSY"


async def test_a_budget_pays_for_as_many_starts_as_it_could_stop_in_time(world: World, planner: Planner) -> None:
    await world.machine(cpus=100.0, price_per_hour=PRICE * 100)
    reserve = whole(world.settings)
    await make(world, reserve * 3 + Decimal("2.5"))
    ids = [await world.simulation() for _ in range(10)]

    await planner.tick()
    await planner.tick()

    states = [await world.state(each) for each in ids]
    assert states == ["STARTING"] * 3 + ["QUEUED"] * 7
    assert {await world.waiting(each) for each in ids[3:]} == {"BUDGET_EXHAUSTED"}


async def test_the_sentence_follows_when_the_rest_is_used_up_too(
    world: World, planner: Planner, spending: Spending
) -> None:
    await world.machine(cpus=4.0, price_per_hour=PRICE)
    await make(world, "5.00")
    running, simulation_id = await world.simulation(), await world.simulation()
    await planner.tick()
    await planner.plan()
    assert " left, which does not pay for another start" in (await world.wait_of(simulation_id)).detail
    await ago(world, running, 19.0)
    await spending.watch()
    await planner.plan()
    assert "is used up" in (await world.wait_of(simulation_id)).detail


async def test_what_waited_starts_when_the_budget_is_raised_deleted_or_begins_anew(
    world: World, planner: Planner
) -> None:
    await world.machine(cpus=100.0, price_per_hour=PRICE * 100)
    raised, deleted, anew = [await project(world, name) for name in ("raised", "deleted", "anew")]
    ids = {name: await make(world, 0, name, "DAY") for name in ("raised", "deleted", "anew")}
    wants = [await world.simulation(project_id=each) for each in (raised, deleted, anew)]
    assert (await planner.tick()).assigned == 0
    assert [await world.waiting(each) for each in wants] == ["BUDGET_EXHAUSTED"] * 3

    async with world.sessions.begin() as session:
        await budgets.change(session, ids["raised"], MUCH, "USD", USER)
        await budgets.remove(session, ids["deleted"], USER)
    # Closed since yesterday: that was another period.
    await world.execute(
        "UPDATE budgets SET amount = 1000000, closed_at = now() - interval '1 day', warned_percent = 100, "
        "period_begin = period_begin - interval '1 day' WHERE id = :id", id=ids["anew"],
    )  # fmt: skip
    assert (await planner.plan()).assigned == 3
    assert [await world.waiting(each) for each in wants] == [None] * 3


async def test_the_installations_budget_concerns_every_project_and_shows_no_amounts(
    world: World, planner: Planner
) -> None:
    await world.machine(price_per_hour=PRICE)
    await make(world, MUCH)
    await make(world, "0.01", None, "DAY")
    simulation_id = await world.simulation(project_id=await project(world, "other"))
    also = await world.simulation()
    await planner.tick()
    assert await world.waiting(also) == "BUDGET_EXHAUSTED"
    detail = (await world.wait_of(simulation_id)).detail
    assert detail.startswith("The budget of this installation for ")
    assert "0.01" not in detail


async def test_free_machines_go_on_without_money_and_dear_ones_wait(world: World, planner: Planner) -> None:
    await world.machine("free", cpus=1.0)
    await world.machine("dear", cpus=8.0, price_per_hour=PRICE)
    await make(world, 0)
    first, second = await world.simulation(), await world.simulation()
    big = await world.simulation(cpus=4.0)
    await planner.tick()
    assert (await world.attempt_of(first)).machine_name == "free"
    await planner.tick()
    assert await world.state(second) == "QUEUED"
    assert await world.waiting(big) == "BUDGET_EXHAUSTED"


async def test_a_budget_of_another_currency_lets_nothing_start_and_counts_nothing_of_it(
    world: World, planner: Planner
) -> None:
    await world.machine(price_per_hour=PRICE)
    running = await world.simulation()
    await planner.tick()
    budget_id = await make(world, MUCH)
    await world.execute("UPDATE budgets SET currency = 'EUR'")
    waits = await world.simulation()
    await planner.tick()
    assert "is in EUR, but machines are billed in USD" in (await world.wait_of(waits)).detail
    assert (await statement(world, budget_id)).account.spent == 0
    assert await world.stop_of(running) is None
    async with world.sessions.begin() as session:
        await budgets.change(session, budget_id, MUCH, "USD", USER)
    assert (await planner.tick()).assigned == 1
    assert (await statement(world, budget_id)).account.spent > 0


async def test_fifty_racing_starts_of_two_planners_never_reserve_more_than_there_is(world: World) -> None:
    """Each round is a transaction of its own, two at once: the budget's row puts them one after another."""
    for number in range(10):
        await world.machine(f"m{number}", host=f"host-{number}", cpus=10.0, price_per_hour=PRICE * 10)
    reserve = whole(world.settings)
    budget_id = await make(world, reserve * 7 + 6)
    ids = [await world.simulation() for _ in range(50)]
    rules = rules_of(world.settings)

    async def start(planner: Planner) -> None:
        await planner.plan()

    await asyncio.gather(*[start(Planner(world.sessions, world.settings)) for _ in range(2)])
    await asyncio.gather(*[start(Planner(world.sessions, world.settings)) for _ in range(2)])

    found = await statement(world, budget_id)
    started = [each for each in ids if await world.state(each) == "STARTING"]
    assert 1 <= len(started) <= 7
    assert found.account.per_hour == PRICE * len(started)
    assert found.account.per_hour / 3600 * reserve <= found.account.amount
    async with world.sessions.begin() as session:
        start_ = accounts.Start(found.budget.project_id or 0, PRICE * 8, "USD")
        assert await accounts.unpayable(session, [start_], rules) == {0}


async def test_fifty_transactions_at_once_start_exactly_what_the_budget_pays_for(world: World) -> None:
    """Without planners: each transaction asks when all have begun."""
    machine_id = await world.machine(cpus=100.0, price_per_hour=PRICE * 100)
    # The reserve of an hour and more: what the seven cost while the others ask is far below that of another one.
    patient = Settings(stop_grace_seconds=3600)
    rules = rules_of(patient)
    await make(world, whole(patient) * 7 + 3000)
    project_id = await project(world, "default")
    ids = [await world.simulation() for _ in range(50)]
    ready, go = asyncio.Semaphore(0), asyncio.Event()

    async def start(simulation_id: int) -> bool:
        async with world.sessions.begin() as session:
            ready.release()
            await go.wait()
            if await accounts.unpayable(session, [accounts.Start(project_id, PRICE, "USD")], rules):
                return False
            assignment = Assignment(machine_id, "m1", "host-1", (), PRICE, Decimal(1), "USD", 1.0, 0.0, 0)
            return bool(await assign(session, [Placed(simulation_id, 0, (assignment,))], USER))

    tasks = [asyncio.create_task(start(each)) for each in ids]
    for _ in ids:
        await ready.acquire()
    go.set()
    assert sum(await asyncio.gather(*tasks)) == 7


async def test_of_one_round_what_is_not_paid_drops_out_alone(world: World, planner: Planner) -> None:
    """Each placement could be paid by itself; the budgets are asked once, after the locks of the machines."""
    await world.machine(cpus=4.0, gpus=4, price_per_hour=PRICE * 4)
    await make(world, whole(world.settings) * 2 + 6)
    free = await project(world, "free")
    paid = [await world.simulation(gpus=1, priority=priority) for priority in (9, 8)]
    beyond = await world.simulation(gpus=1, priority=7)
    other = await world.simulation(gpus=1, priority=6, project_id=free)
    locked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if " FOR NO KEY UPDATE" in statement:
            locked.extend(each for each in ("simulations", "machines", "budgets") if f"FROM {each}" in statement)

    engine = world.sessions.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        summary = await planner.plan()
    finally:
        event.remove(engine, "before_cursor_execute", note)

    assert (summary.assigned, summary.refused) == (3, 1)
    assert locked == ["simulations", "machines", "budgets"]
    assert [(await world.attempt_of(each)).gpu_indices for each in (*paid, other)] == [[0], [1], [2]]
    assert await world.state(beyond) == "QUEUED"
    assert (await planner.plan()).assigned == 0
    assert await world.waiting(beyond) == "BUDGET_EXHAUSTED"


async def test_attempts_are_stopped_before_the_money_is_gone_and_keep_their_evidence(
    world: World, planner: Planner, spending: Spending
) -> None:
    await world.machine(cpus=4.0, price_per_hour=PRICE)  # a quarter of a dollar a second for a cpu
    reserve = whole(world.settings)
    budget_id = await make(world, 1000)
    old, young = await world.simulation(), await world.simulation()
    await planner.tick()
    await world.hello(old)
    await world.hello(young)
    await ago(world, old, 1000)
    await ago(world, young, 999)
    assert await spending.watch() == 0

    # What is left pays for a little less than the reserve of both, and for that of one.
    await ago(world, old, 2000)
    await ago(world, young, float(2000 - reserve * 2) + 0.4)
    assert await spending.watch() == 1

    assert await world.stop_of(old) is None
    stop = await world.stop_of(young)
    assert (stop.reason.value, stop.by) == ("BUDGET_EXHAUSTED", "scheduler")
    evidence = (await world.attempt_of(young)).stop_evidence
    assert (evidence["rule"], evidence["currency"], Decimal(evidence["amount"])) == ("budget", "USD", 1000)
    assert "used up" in evidence["sentence"]
    assert (await row(world, budget_id)).closed_at is not None
    waits = await world.simulation()
    await planner.plan()
    assert "is used up" in (await world.wait_of(waits)).detail


async def test_a_silent_machine_costs_nothing_any_more_when_the_money_is_gone(
    world: World, planner: Planner, spending: Spending
) -> None:
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    budget_id = await make(world, 100)
    simulation_id = await world.simulation()
    await planner.tick()
    await world.hello(simulation_id)
    await ago(world, simulation_id, 95)
    assert await spending.watch() == 1
    assert await spending.watch() == 0  # it has its heartbeat and its grace
    # Moved clocks: it has sent nothing since its stop, for as long as a stop takes.
    seconds = float(whole(world.settings))
    await world.execute("UPDATE attempts SET stop_wanted_at = stop_wanted_at - make_interval(secs => :s)", s=seconds)
    await ago(world, simulation_id, 99.2)

    assert await spending.watch() == 1

    ended = await world.get(simulation_id)
    assert (ended.state.value, ended.reason.value) == ("FAILED", "BUDGET_EXHAUSTED")
    assert "used up" in ended.reason_detail
    assert 99 < (await statement(world, budget_id)).account.spent < 100


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_what_a_budget_no_longer_pays_for_goes_on_if_that_was_raised_or_deleted_meanwhile(
    world: World, planner: Planner, spending: Spending, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    budget_id = await make(world, 100)
    simulation_id = await world.simulation()
    await planner.tick()
    await world.hello(simulation_id)

    async def change() -> None:
        async with world.sessions.begin() as session:
            if is_deleted:
                await budgets.remove(session, budget_id, USER)
            else:
                await budgets.change(session, budget_id, MUCH, "USD", USER)

    for act, seconds in (("stop", 95), ("settle", 99.2)):
        await ago(world, simulation_id, seconds)
        lock = lifecycle.lock

        async def changed_before_the_lock(session: AsyncSession, locked: int, lock: Any = lock) -> Any:
            monkeypatch.setattr(lifecycle, "lock", lock)
            await change()
            return await lock(session, locked)

        monkeypatch.setattr(lifecycle, "lock", changed_before_the_lock)
        assert await spending.watch() == 0, act
        assert lifecycle.lock is lock, "it was judged"
        assert (await world.get(simulation_id)).state == "RUNNING"
        if act == "settle":
            break
        assert await world.stop_of(simulation_id) is None
        if is_deleted:
            budget_id = await make(world, 100)
        else:
            async with world.sessions.begin() as session:
                await budgets.change(session, budget_id, Decimal(100), "USD", USER)
        assert await spending.watch() == 1
        wait = float(whole(world.settings))
        await world.execute("UPDATE attempts SET stop_wanted_at = stop_wanted_at - make_interval(secs => :s)", s=wait)


async def test_it_is_not_retried(world: World, planner: Planner, spending: Spending) -> None:
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    await make(world, 100)
    simulation_id = await world.simulation(max_retries=3, retry_on=("MACHINE_LOST", "EXIT_CODE", "LAUNCH_ERROR"))
    await planner.tick()
    await ago(world, simulation_id, 95)
    await spending.watch()
    await planner.tick()  # it was not launched: there is no supervisor that could hear of it
    assert await world.state(simulation_id) == "FAILED"
    assert (await world.get(simulation_id)).reason == "BUDGET_EXHAUSTED"


async def test_after_an_outage_a_budget_is_exceeded_by_at_most_its_length_times_the_rate(
    world: World, planner: Planner, spending: Spending
) -> None:
    """The clock is moved: the scheduler was away for an hour, and the last look had found the reserve in place."""
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    reserve, outage = float(whole(world.settings)), 3600.0
    budget_id = await make(world, 1000)
    simulation_id = await world.simulation()
    await planner.tick()
    await world.hello(simulation_id)
    await ago(world, simulation_id, 1000 - reserve - 1)
    assert await spending.watch() == 0
    await ago(world, simulation_id, 1000 - reserve - 1 + outage)

    assert await spending.watch() == 1
    # It obeys after a heartbeat and its grace, as late as it may.
    to_end = float(rules_of(world.settings).reserve.to_end.total_seconds())
    await ago(world, simulation_id, 1000 - reserve - 1 + outage + to_end)
    await world.execute("UPDATE attempts SET stop_wanted_at = stop_wanted_at - make_interval(secs => :s)", s=to_end)
    assert await spending.watch() == 1

    over = (await statement(world, budget_id)).account.spent - 1000
    assert 0 < over <= Decimal(outage) * PRICE / 3600


async def test_warnings_are_recorded_once_in_each_period(world: World, planner: Planner, spending: Spending) -> None:
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    budget_id = await make(world, 10_000, period="DAY")
    simulation_id = await world.simulation()
    await planner.tick()
    for seconds, expected in ((4_900, []), (5_100, [50]), (5_200, [50]), (9_995, [50, 80, 100])):
        await world.execute("DELETE FROM deleted_members")
        await world.execute(
            "INSERT INTO deleted_members (project_id, simulation_id, simulation_name, created_by, tags, attempt, "
            "machine_name, price_per_hour, share, currency, assigned_at, ended_at, is_wasted, saved) "
            "SELECT id, 1, 'x', 'me', '{}', 1, 'm', 3600 * CAST(:seconds AS int), 1, 'USD', now() - interval '1 s', "
            "now(), false, 0 FROM projects WHERE name = 'default'", seconds=seconds,
        )  # fmt: skip
        await spending.watch()
        assert await warnings(world, budget_id) == expected
    await world.execute("UPDATE budgets SET period_begin = period_begin - interval '1 day'")
    await spending.watch()
    assert await warnings(world, budget_id) == [50, 80, 100, 50, 80]
    assert await world.stop_of(simulation_id) is not None


async def test_what_ended_long_ago_is_counted_once_and_read_no_more(
    world: World, planner: Planner, spending: Spending
) -> None:
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    simulation_id = await world.simulation()
    await planner.tick()
    budget_id = await make(world, MUCH)
    await ago(world, simulation_id, 3 * 3600)
    await world.execute("UPDATE members SET ended_at = assigned_at + interval '100 s'")
    await spending.watch()
    counted = await row(world, budget_id)
    assert counted.counted == 100
    assert counted.counted_to is not None
    await world.execute("DELETE FROM members")
    assert (await statement(world, budget_id)).account.spent == 100
    # Two hours later, what ended since is counted as well.
    await world.execute("UPDATE budgets SET counted_to = counted_to - interval '3 h'")
    await world.execute(
        "INSERT INTO members (attempt_id, machine_name, cpus, memory_gib, gpus, price_per_hour, share, currency, "
        "assigned_at, ended_at) SELECT id, 'm', 1, 0, 0, 3600, 1, 'USD', now() - interval '90 min', "
        "now() - interval '80 min' FROM attempts"
    )
    await spending.watch()
    assert (await row(world, budget_id)).counted == 700
    assert (await statement(world, budget_id)).account.spent == 700


async def test_only_the_part_within_the_period_counts(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0, price_per_hour=PRICE)
    simulation_id = await world.simulation()
    await planner.tick()
    budget_id = await make(world, MUCH, period="DAY")
    now = datetime.now(UTC)
    begin = span_of(Period.DAY, now, UTC).begin
    await ago(world, simulation_id, (now - begin).total_seconds() + 7200)
    spent = (await statement(world, budget_id)).account.spent
    assert abs(spent - Decimal(str((datetime.now(UTC) - begin).total_seconds()))) < 60


async def test_without_budgets_a_look_is_one_statement(world: World, spending: Spending) -> None:
    async with sent_by(world.sessions) as sent:
        assert await spending.watch() == 0
    assert len(sent) == 1, sent
