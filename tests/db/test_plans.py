"""The plans of the hot statements: by index, however many rows there are.

The statements are taken off the wire while the verbs run, and explained with the very arguments they were sent with.
The tables are filled as a service of some weeks fills them: most of what was run has ended, a thousand wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import xor
from typing import Any

import pytest
from databases import COPIED, administer, url_of
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import (
    alert_deliveries,
    attempts,
    budgets,
    convergence,
    costs,
    curve,
    dependencies,
    events,
    health_queries,
    judged,
    lifecycle,
    listing,
    machines,
    names,
    past_runs,
    projects,
    queue,
    references,
    running,
    silence,
    watch_leases,
    windows,
)
from db.attempts import Claim
from db.connection import Driver, connect_raw, driver_of
from db.convergence import START, Column
from db.due import find_due
from db.embedded.server import EmbeddedServer
from db.events import SUPERVISOR
from db.lifecycle import Closing
from db.listing import Comparison, Condition, Filter, Sort, SortOrder
from db.states import Reason, SimulationState
from transitions.begin import hello

Rows = Any  # the fixture of conftest.py

LEASE = timedelta(seconds=30)
POINT = Column([1], [1.0], [1.0])
FILL = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, priority, attempt, attended)
    SELECT 1, 's' || n, '{true}', 'user',
           CASE WHEN n % 5 = 0 THEN 'QUEUED' WHEN n % 100 = 1 THEN 'RUNNING' ELSE 'FINISHED' END, n % 3, 1, n % 10 < 2
    FROM generate_series(1, 5000) AS n;
    INSERT INTO attempts (simulation_id, number, assigned_at, started_at, ended_at)
    SELECT id, 1, now() - interval '1 h', now() - interval '1 h', CASE WHEN state <> 'RUNNING' THEN now() END
    FROM simulations;
    INSERT INTO members (attempt_id, machine_name, price_per_hour, share, currency, token_digest, nonce, host,
                         cpus, memory_gib, gpus, assigned_at, ended_at, heartbeat_at)
    SELECT id, 'm', 0, 1, 'USD', sha256(id::text::bytea), 'nonce', 'h', 1, 0, 0, assigned_at, ended_at,
           now() - interval '1 h'
    FROM attempts;
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT 1 + s, 1 + b / 40, 1 + b % 40, metric, '{1}', '{1}', '{1}'
    FROM generate_series(0, 99) AS s, generate_series(0, 79) AS b, unnest('{loss,accuracy}'::text[]) AS metric;
    INSERT INTO watchers (simulation_id, watcher, watched_until)
    SELECT id, 'p' || p, now() - interval '1 h' FROM simulations, generate_series(1, 3) AS p
    WHERE attended AND state <> 'FINISHED';
    INSERT INTO coverage (role, covered_since, beat_at)
    SELECT role, now() - interval '1 day', now() + interval '1 h' FROM unnest('{graph,scheduler}'::text[]) AS role;
    ANALYZE
"""
HOT = ("simulations", "attempts", "members", "convergence")
WITH_WATCHERS = (*HOT, "watchers")
STORED = ["convergence", "metrics"]


@dataclass(frozen=True, slots=True)
class Filled:
    """A full database, and what is sent to it."""

    rows: Rows
    engine: AsyncEngine
    running: int  # a running simulation
    attempt: int  # its attempt
    token: bytes

    @property
    def claim(self) -> Claim:
        return Claim(self.attempt, self.token, "nonce")

    async def plans_of(self, verb: Callable[[AsyncSession], Awaitable[object]], *, analyze: bool = False) -> list[Any]:
        """Run a verb, and explain each statement that it sent; analyze: by running it again, with its counts."""
        sent: list[tuple[str, Any]] = []

        def hear(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
            if "set_config(" not in statement:
                sent.append((statement, parameters[0] if many else parameters))

        event.listen(self.engine.sync_engine, "before_cursor_execute", hear)
        try:
            async with self.rows.sessions.begin() as session:
                await verb(session)
        finally:
            event.remove(self.engine.sync_engine, "before_cursor_execute", hear)
        return await self.explained(sent, analyze=analyze)

    async def plans_of_driver(self, verb: Callable[[Driver], Awaitable[object]], words: str) -> list[Any]:
        """The same of a verb that goes to the driver: there it is heard of after it was run."""
        sent: list[tuple[str, Any]] = []
        async with driver_of(self.rows.sessions) as driver:
            with driver.query_logger(lambda record: sent.append((record.query, record.args))):
                await verb(driver)
                await asyncio.sleep(0)  # in the next turn of the loop
        # Before its first statement with arrays a connection asks what they are.
        return await self.explained([each for each in sent if words in each[0]])

    async def explained(self, sent: list[tuple[str, Any]], *, analyze: bool = False) -> list[Any]:
        plans = []
        async with self.engine.connect() as connection:
            for statement, parameters in sent:
                explained = await connection.exec_driver_sql(
                    f"EXPLAIN ({'ANALYZE, ' if analyze else ''}FORMAT JSON) {statement}", parameters
                )
                plan = explained.scalar_one()
                plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        assert plans
        return plans


def copied(server: EmbeddedServer, template: str, name: str) -> None:
    administer(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}" {COPIED}')


@contextmanager
def template(server: EmbeddedServer, original: str, name: str, statements: Iterable[str]) -> Iterator[str]:
    """The name of a copy, changed by these statements, to be copied in turn: to fill it takes longer than a copy."""

    async def fill() -> None:
        connection = await connect_raw(url_of(server, name), application="fixtures")
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    copied(server, original, name)
    asyncio.run(fill())
    yield name
    administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def full_database(postgres_server: EmbeddedServer, template_database: str) -> Iterator[str]:
    """A database with many rows and their statistics."""
    with template(postgres_server, template_database, "template_full", [FILL]) as name:
        yield name


@pytest.fixture(scope="module")
def listed_database(postgres_server: EmbeddedServer, full_database: str) -> Iterator[str]:
    """The same with names, tags, parameters and results, by which lists are sorted and filtered."""
    with template(postgres_server, full_database, "template_listed", LISTED.split(";")) as name:
        yield name


@pytest.fixture
def database_url(postgres_server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """In place of an empty one: a copy of the full one, or of that with lists."""
    original = request.getfixturevalue("listed_database" if "listed" in request.fixturenames else "full_database")
    copied(postgres_server, original, "full")
    yield url_of(postgres_server, "full")
    administer(postgres_server, 'DROP DATABASE "full" WITH (FORCE)')


@pytest.fixture
async def filled(rows: Rows, engine: AsyncEngine) -> Filled:
    [row] = await rows.query(
        "SELECT a.id, a.simulation_id, m.token_digest FROM attempts a JOIN members m ON m.attempt_id = a.id "
        "WHERE a.ended_at IS NULL ORDER BY a.id LIMIT 1"
    )
    return Filled(rows, engine, row["simulation_id"], row["id"], row["token_digest"])


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def assert_by_index(plans: list[Any], *expected: str, hot: tuple[str, ...] = HOT) -> None:
    """No hot table is read from end to end, and these indexes are what is used."""
    found = [node for plan in plans for node in nodes(plan)]
    assert not [node for node in found if node["Node Type"] == "Seq Scan" and node["Relation Name"] in hot], plans
    used = {node["Index Name"] for node in found if "Index Name" in node}
    assert used >= set(expected), (used, plans)


async def test_accepting_a_batch_looks_up_two_rows(filled: Filled) -> None:
    async def accept(session: AsyncSession) -> None:
        assert (await attempts.accept(session, filled.claim, 1)).stored

    plans = await filled.plans_of(accept)
    assert len(plans) == 1  # one statement: fence, order, idempotency and heartbeat
    assert_by_index(plans, "pk_attempts")
    used = {node.get("Index Name") for node in nodes(plans[0])}
    assert used & {"ix_members_current", "uq_members_attempt_id_rank", "uq_members_token_digest"}


async def test_a_heartbeat_looks_up_two_rows(filled: Filled) -> None:
    async def heartbeat(session: AsyncSession) -> None:
        receipt = await attempts.accept(session, filled.claim, None)
        assert receipt.standing is attempts.Standing.CURRENT

    plans = await filled.plans_of(heartbeat)
    assert len(plans) == 1
    assert_by_index(plans, "pk_attempts")


async def test_an_old_attempt_is_turned_away_by_index(filled: Filled) -> None:
    ended = filled.attempt + 1

    async def knock(session: AsyncSession) -> None:
        [row] = await filled.rows.query("SELECT token_digest FROM members WHERE attempt_id = :id", id=ended)
        receipt = await attempts.accept(session, Claim(ended, row["token_digest"], "nonce"), 1)
        assert receipt.standing is attempts.Standing.OVER

    assert_by_index(await filled.plans_of(knock))


async def test_a_hello_looks_up_its_rows(filled: Filled) -> None:
    async def greet(session: AsyncSession) -> None:
        greeting = await hello(session, filled.claim)
        assert greeting.standing is attempts.Standing.CURRENT

    assert_by_index(await filled.plans_of(greet), "pk_simulations")


async def test_an_exit_that_completes_looks_up_its_rows(filled: Filled) -> None:
    async def leave(driver: Driver) -> None:
        closing = Closing(Reason.COMPLETED, exit_code=0)
        assert await lifecycle.finish(driver, filled.claim, 1, closing, SimulationState.FINISHED, SUPERVISOR, {})

    assert_by_index(await filled.plans_of_driver(leave, "exited"), "pk_simulations")


async def test_what_was_deleted_is_looked_up_in_the_audit_by_object(filled: Filled) -> None:
    await filled.rows.query(
        "INSERT INTO events (kind, actor, object_type, object_id) "
        "SELECT kind, 'user', 'Simulation', n FROM generate_series(1, 5000) AS n, "
        "unnest('{CREATED,STARTED,FINISHED}'::text[]) AS kind"
    )
    await filled.rows.query("ANALYZE events")

    async def find(session: AsyncSession) -> None:
        assert await events.find_deleted(session, "Simulation", [1, 2, 3]) == set()

    assert_by_index(await filled.plans_of(find), "ix_events_object_type_object_id_id", hot=("events",))


async def test_storing_a_batch_reads_no_table(filled: Filled) -> None:
    async def put(session: AsyncSession) -> None:
        await convergence.store(session, filled.running, 1, 99, {"loss": POINT, "b": POINT})

    [plan] = await filled.plans_of(put)
    assert not [node for node in nodes(plan) if node["Node Type"].endswith("Scan") and "Relation Name" in node]
    assert [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "ModifyTable"] == STORED


async def test_taking_points_in_is_one_statement_that_looks_up_two_rows(filled: Filled) -> None:
    await filled.rows.query("UPDATE members SET next_batch = 99 WHERE attempt_id = :id", id=filled.attempt)

    async def put(driver: Driver) -> None:
        columns = {"loss": POINT, "b": POINT}
        assert await convergence.take_in(driver, filled.claim, 99, columns) is not None

    [plan] = await filled.plans_of_driver(put, "UPDATE members")
    assert_by_index([plan], "pk_attempts")
    written = [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "ModifyTable"]
    assert written == ["members", *STORED]
    read = [node for node in nodes(plan) if node["Node Type"].endswith("Scan") and "Relation Name" in node]
    assert {node["Relation Name"] for node in read} == {"attempts", "members"}
    # What is stored is what was let in: whatever is written but the member's row is read from it.
    assert {node.get("CTE Name") for node in nodes(plan)} >= {"accepted", "given"}


@pytest.mark.parametrize("after", [START, (1, 20), (2, 39)], ids=["all", "half", "tail"])
async def test_reading_behind_a_cursor_goes_by_the_primary_key_alone(after: tuple[int, int], filled: Filled) -> None:
    async def get(driver: Driver) -> None:
        assert await convergence.read(driver, 50, after, limit=64)

    plans = await filled.plans_of_driver(get, "WITH page")
    assert_by_index(plans, "pk_convergence")
    # The cursor is part of what the index seeks: the past is not walked through.
    assert any("ROW(attempt, batch)" in node.get("Index Cond", "") for plan in plans for node in nodes(plan))


@pytest.mark.parametrize("timed", [True, False])
async def test_the_curves_of_many_simulations_are_read_by_the_primary_key_in_one_statement(
    filled: Filled, timed: bool
) -> None:
    parts = {number: [curve.Part(1, 1, 1, None), curve.Part(2, 1, 1, None)] for number in range(1, 101)}
    sent: list[tuple[str, Any]] = []
    async with filled.rows.sessions() as session:
        raw = (await (await session.connection()).get_raw_connection()).driver_connection
        assert raw is not None
        with raw.query_logger(lambda record: sent.append((record.query, record.args))):
            found = await curve.whole(session, parts, "loss", timed=timed)
            await asyncio.sleep(0)  # in the next turn of the loop
    assert {number: [len(page.rows) for page in pages] for number, pages in found.items()} == {
        number: [40, 40] for number in range(1, 101)
    }
    [plan] = await filled.explained([each for each in sent if "array_send" in each[0]])
    assert_by_index([plan], "pk_convergence")


@pytest.mark.parametrize("metrics", [1, judged.FEW_METRICS + 1])
async def test_the_new_points_of_all_judged_runs_are_read_by_the_primary_key_in_one_statement(
    filled: Filled, metrics: int
) -> None:
    async def get(driver: Driver) -> None:
        news = await judged.read(driver, range(1, 101), [2] * 100, [39] * 100, ["loss", *map(str, range(1, metrics))])
        assert len(news) == 200
        assert news.places == [place for place in range(100) for _ in range(2)]
        assert set(zip(news.attempts, news.batches, news.metrics, news.counts, strict=True)) == {
            (2, 40, None, 0), (2, 40, "loss", 1)
        }  # fmt: skip
        assert news.unpack() == ([1] * 100, [1.0] * 100)

    [plan] = await filled.plans_of_driver(get, "unnest($1::text::bigint[]")
    assert_by_index([plan], "pk_convergence")
    sought = [node.get("Index Cond", "") for node in nodes(plan) if node.get("Index Name") == "pk_convergence"]
    assert len(sought) == 1
    assert all("ROW(" in each and "simulation_id" in each for each in sought), "the past is not walked through"


async def test_the_judge_and_the_planner_find_runs_with_rules_and_limits_among_those_only(filled: Filled) -> None:
    await filled.rows.query(
        'UPDATE simulations SET stopping = \'{"version": 1, "rules": []}\', max_cost = 1 WHERE id % 500 = 1'
    )
    await filled.rows.query("ANALYZE simulations")

    async def find(session: AsyncSession) -> None:
        assert len(await silence.find_with_max_cost(session)) == 10

    known: list[judged.Judged] = []

    async def compare(driver: Driver) -> None:
        every, gone = await judged.changes(driver, [])
        assert gone == []
        known.extend(each for each in every if each.simulation_id % 1000 == 1)
        found, gone = await judged.changes(driver, known)
        assert sorted(each.simulation_id for each in found) == list(range(501, 5000, 1000))
        assert gone == []
        marks = reduce(xor, (each.mark for each in every))
        assert await judged.fingerprint(driver) == (10, marks)

    async def compare_some(driver: Driver) -> None:
        found, gone = await judged.changes(driver, known[:1], [1, 501, 2])
        assert ([each.simulation_id for each in found], gone) == ([501], [])

    plans = await filled.plans_of(find)
    plans += await filled.plans_of_driver(compare, "hashint8extended")
    plans += await filled.plans_of_driver(compare_some, "FULL JOIN")
    assert_by_index(plans, "ix_simulations_judged", "ix_simulations_max_cost", hot=("simulations", "attempts"))


async def test_a_forecast_reads_the_curves_of_a_few_runs_by_their_keys(filled: Filled) -> None:
    await filled.rows.query(
        "UPDATE simulations SET name = 'series', reason = 'COMPLETED' WHERE state = 'FINISHED' AND id <= 100"
    )
    await filled.rows.query(
        "INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value) "
        "SELECT DISTINCT simulation_id, attempt, metric, 40, attempt, attempt, 1 FROM convergence"
    )
    await filled.rows.query("ANALYZE")

    async def get(session: AsyncSession) -> None:
        found = await windows.similar(session, 50, project_id=1, name="series", metric="loss", reasons=["COMPLETED"])
        assert len(found) == windows.MOST_SIMILAR
        assert len(await windows.windows_of(session, "loss", {each.simulation_id: 10 for each in found[:2]})) == 2

    plans = await filled.plans_of(get)
    assert len(plans) == 3
    assert_by_index(plans, "pk_convergence", hot=("simulations", "convergence"))  # and by either index on names


async def test_the_end_of_a_log_is_one_seek_from_behind(filled: Filled) -> None:
    async def find(session: AsyncSession) -> None:
        assert await convergence.find_end(session, 50) == (2, 40)

    [plan] = await filled.plans_of(find)
    assert_by_index([plan], "pk_convergence")
    assert [node["Scan Direction"] for node in nodes(plan) if "Scan Direction" in node] == ["Backward"]


async def test_a_look_at_what_is_due_reads_partial_indexes_only(filled: Filled) -> None:
    async def find(driver: Driver) -> None:
        found = await find_due(driver, "scheduler", LEASE, LEASE)
        assert (found.quiet, found.unwanted, found.overdue) == (True, False, False)
        assert (found.queue, found.budgets) == (True, False)

    plans = await filled.plans_of_driver(find, "INSERT INTO coverage")
    assert_by_index(plans, "ix_members_current", "ix_simulations_queued_at", "ix_simulations_max_cost")


async def test_a_hosts_heartbeat_finds_its_members_among_the_open_ones(filled: Filled) -> None:
    async def beat(driver: Driver) -> None:
        state = await machines.beat_host(driver, "h", name="h", gpus=0)
        assert state.has_members

    assert_by_index(await filled.plans_of_driver(beat, "INSERT INTO hosts"))


async def test_the_silent_are_found_among_the_open_ones_only(filled: Filled) -> None:
    async def find(session: AsyncSession) -> None:
        found = await silence.find_quiet(session, LEASE)
        assert len(found) == 50

    plans = await filled.plans_of(find)
    assert_by_index(plans)
    used = {node["Index Name"] for plan in plans for node in nodes(plan) if "Index Name" in node}
    assert used & {"uq_attempts_current", "ix_members_current"}  # the partial ones


async def test_those_to_notify_of_a_class_are_read_in_its_order_without_a_sort(filled: Filled) -> None:
    [row] = await filled.rows.query("SELECT DISTINCT queue_class FROM simulations")

    async def note(session: AsyncSession) -> None:
        await queue.note_reasons(session, [(row["queue_class"], "MACHINES_BUSY", "All is held.")])

    plans = [each for each in await filled.plans_of(note) if "simulations" in str(each)]
    assert_by_index(plans, "ix_simulations_queue_class")
    assert "Sort" not in {node["Node Type"] for plan in plans for node in nodes(plan)}


async def test_what_runs_and_what_has_ended_is_read_by_what_is_current_and_by_the_ends(filled: Filled) -> None:
    async with filled.rows.sessions() as session:
        now = await attempts.clock(session)

    async def read(session: AsyncSession) -> None:
        await running.every(session)
        await past_runs.ended_since(session, now)

    plans = await filled.plans_of(read)
    assert_by_index(plans)
    used = {node["Index Name"] for plan in plans for node in nodes(plan) if "Index Name" in node}
    assert "ix_members_ended_at" in used
    assert used & {"uq_attempts_current", "ix_members_current"}


async def test_a_look_at_a_queue_in_which_nothing_arrived_reads_two_entries(filled: Filled) -> None:
    async with filled.rows.sessions() as session:
        bookmark = (await queue.look(session, None)).bookmark

    async def look(session: AsyncSession) -> None:
        assert (await queue.look(session, bookmark)).arrived == ()

    [plan] = await filled.plans_of(look)
    assert_by_index([plan], "ix_simulations_queued_xid", "ix_simulations_queued_at")
    kinds = {node["Node Type"] for node in nodes(plan) if node.get("Relation Name") != "plans"}  # which has one row
    assert kinds <= {"Result", "Limit", "Index Only Scan", "Index Scan"}


async def test_costs_of_a_time_and_what_a_budget_spent_since_are_read_by_the_members_ends(filled: Filled) -> None:
    async with filled.rows.sessions.begin() as session:
        budget = await budgets.create(session, budgets.Wanted(None, "MONTH", Decimal(1), "USD"), filled.rows.user)

    async def read(session: AsyncSession) -> None:
        now = await budgets.clock(session)
        soon, later = now + timedelta(hours=1), now + timedelta(days=2)
        keys = (costs.Key.PROJECT, costs.Key.TAG, costs.Key.DAY)
        await costs.read(session, costs.Question(keys, soon, later, "UTC", project_id=1))
        spent = await budgets.spent_of(session, [budgets.Since(budget, now - timedelta(days=1), soon)])
        assert (spent[budget.id].ended, spent[budget.id].per_hour) == (0, 0)

    plans = [plan for plan in await filled.plans_of(read) if uses(plan, "members")]
    assert len(plans) == 3
    assert_by_index(plans, "ix_members_ended_at", hot=("members",))


def uses(plan: Any, table: str) -> bool:
    return any(node.get("Relation Name") == table for node in nodes(plan))


async def test_all_leases_of_a_process_are_renewed_by_index(filled: Filled) -> None:
    rows = await filled.rows.query("SELECT simulation_id AS id FROM watchers WHERE watcher = 'p1' LIMIT 20")

    async def keep(session: AsyncSession) -> None:
        ids = [row["id"] for row in rows]
        assert await watch_leases.keep(session, "p1", ids, LEASE) == set(ids)

    plans = await filled.plans_of(keep)
    assert len(plans) == 1  # one statement for all of them
    assert_by_index(plans)


async def test_leases_end_and_are_looked_up_by_index(filled: Filled) -> None:
    async def look_and_leave(session: AsyncSession) -> None:
        await watch_leases.watched_of(session, [filled.running])
        await watch_leases.leave(session, "p1", [filled.running])

    assert_by_index(await filled.plans_of(look_and_leave), "pk_watchers", hot=WITH_WATCHERS)


async def test_the_unwatched_are_found_among_the_attended_on_machines_only(filled: Filled) -> None:
    async def find(session: AsyncSession) -> None:
        assert len(await watch_leases.find_unwatched(session)) == 50

    plans = await filled.plans_of(find)
    assert_by_index(plans, "ix_simulations_attended", "pk_watchers", hot=WITH_WATCHERS)


async def test_what_is_forgotten_is_found_without_a_walk_through_all_simulations(filled: Filled) -> None:
    async def sweep(session: AsyncSession) -> None:
        await watch_leases.sweep(session, LEASE)

    assert_by_index(await filled.plans_of(sweep))


async def test_how_it_is_doing_is_read_without_what_has_ended(filled: Filled) -> None:
    plans = await filled.plans_of(lambda session: health_queries.read(session, LEASE))
    assert_by_index(plans, "ix_attempts_lost")


async def test_a_round_of_alerts_finds_what_is_pending_and_due_by_index(filled: Filled) -> None:
    await filled.rows.query(
        "INSERT INTO events (kind, actor, object_type, object_id, project_id) "
        "SELECT 'FINISHED', 'scheduler', 'Simulation', n, 1 FROM generate_series(1, 20000) AS n"
    )
    await filled.rows.query(
        "INSERT INTO alert_targets (name, transport, url, kinds, created_by) "
        "SELECT 't' || n, 'WEBHOOK', 'https://hooks.example.org/', '{ENDED}', 'ada' FROM generate_series(1, 5) AS n"
    )
    await filled.rows.query(
        "INSERT INTO alert_deliveries (target_id, event_id, simulation_id, type, payload, title, body, delivered_at) "
        "SELECT 1 + n % 5, n, n, 'simulation.ended', '{}', 't', 'b', CASE WHEN n % 1000 <> 0 THEN now() END "
        "FROM generate_series(1, 20000) AS n"
    )
    await filled.rows.query("ANALYZE")

    async def round_(session: AsyncSession) -> None:
        assert await alert_deliveries.pending_events(session, 500) == []
        assert await alert_deliveries.claim(session, targets[0], LEASE) is not None
        assert len(await alert_deliveries.of_simulation(session, 7)) == 1

    async def look(driver: Driver) -> None:
        work = await alert_deliveries.look(driver)
        assert not work.has_events
        targets.extend(work.due_targets)

    targets: list[int] = []
    plans = await filled.plans_of_driver(look, "alert_deliveries")
    assert len(targets) == 1
    assert_by_index(
        [*plans, *await filled.plans_of(round_)],
        "ix_events_alert_pending", "ix_alert_deliveries_due", "ix_alert_deliveries_simulation_id",
        hot=("events", "alert_deliveries"),
    )  # fmt: skip


async def test_what_quotas_have_used_is_found_by_what_runs(filled: Filled) -> None:
    await filled.rows.query("UPDATE projects SET gpu_quota = 8")
    await filled.rows.query("UPDATE members SET gpus = 1")
    await filled.rows.query("ANALYZE members")
    assert_by_index(await filled.plans_of(projects.uses), "pk_attempts", "pk_simulations")


# --- lists -----------------------------------------------------------------------------------------------------

LISTED = """
    UPDATE simulations SET
        name = CASE WHEN id % 1000 = 7 THEN 'vit-' || id ELSE 'run-' || id END,
        created_by = CASE WHEN id % 1000 = 7 THEN 'ada' ELSE 'user' END,
        tags = CASE WHEN id % 1000 = 7 THEN ARRAY['rare', 'all'] ELSE ARRAY['all'] END,
        parameters = jsonb_build_object(
            'lr', 1.0 / id, 'optimizer', CASE WHEN id % 1000 = 7 THEN 'lion' ELSE 'adam' END
        ),
        created_at = now() - id * interval '1 h', started_at = now() - id * interval '1 h',
        finished_at = CASE WHEN state = 'FINISHED' THEN now() END,
        final_cost = CASE WHEN state = 'FINISHED' THEN id END;
    INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, min_value,
                         max_step, max_value)
    SELECT id, 1, metric, 1, 1, 1, id, 1, id, 1, id FROM simulations, unnest('{loss,accuracy}'::text[]) AS metric;
    INSERT INTO results (simulation_id, metric, last_value, min_value, max_value)
    SELECT m.simulation_id, m.metric, m.last_value, m.min_value, m.max_value
    FROM metrics AS m JOIN simulations AS s ON s.id = m.simulation_id WHERE s.state = 'FINISHED';
    VACUUM ANALYZE
"""
ORDERS = {
    "best": (SortOrder(Sort.BEST, False, "loss"), ["ix_results_min_value", "ix_simulations_begun"]),
    "best of a maximum": (SortOrder(Sort.BEST, True, "loss", is_max=True), ["ix_results_max_value"]),
    "last": (SortOrder(Sort.LAST, True, "accuracy"), ["ix_results_last_value", "ix_simulations_begun"]),
    "parameter": (SortOrder(Sort.PARAMETER, True, "lr"), ["ix_parameter_values_number"]),
    "cost": (SortOrder(Sort.COST, True), ["ix_simulations_final_cost_id", "ix_simulations_begun"]),
    "start": (SortOrder(Sort.STARTED_AT, True), ["ix_simulations_started_at_id"]),
    "end": (SortOrder(Sort.FINISHED_AT, False), ["ix_simulations_finished_at_id"]),
}


@pytest.fixture
def listed(filled: Filled) -> Filled:
    """With the rows of `LISTED` (see `database_url`)."""
    return filled


async def test_each_order_of_a_list_is_read_off_an_index_from_its_beginning_and_from_a_cursor(
    listed: Filled, subtests: pytest.Subtests
) -> None:
    for name, (order, indexes) in ORDERS.items():
        async with listed.rows.sessions() as session:
            page = await listing.page_matching(session, Filter(), order, first=50, after=None)
        for after in (None, page.cursors[-1]):

            async def read(session: AsyncSession, order: SortOrder = order, after: str | None = after) -> None:
                found = await listing.page_matching(session, Filter(), order, first=50, after=after)
                assert len(found.rows) == 50

            with subtests.test(name, after=after):
                plans = await listed.plans_of(read)
                assert len(plans) == 1, "the keys with their rows"
                assert_by_index(plans, *indexes, hot=("simulations", "results", "metrics", "parameter_values"))
                sought = [node for plan in plans for node in nodes(plan) if node.get("Index Name") == indexes[0]]
                assert after is None or any("ROW(" in node.get("Index Cond", "") for node in sought)


async def test_values_of_what_runs_are_computed_for_what_the_filter_leaves_only(
    listed: Filled, subtests: pytest.Subtests
) -> None:
    await listed.rows.query("UPDATE simulations SET tags = '{few}' WHERE id IN (SELECT simulation_id FROM attempts "
                            "WHERE ended_at IS NULL ORDER BY id LIMIT 3)")  # fmt: skip
    await listed.rows.query("ANALYZE simulations")
    for order, table in ((SortOrder(Sort.BEST, False, "loss"), "metrics"), (SortOrder(Sort.COST), "members")):

        async def read(session: AsyncSession, order: SortOrder = order) -> None:
            found = await listing.page_matching(session, Filter(tags=("few",)), order, first=50, after=None)
            assert len(found.rows) == 3

        with subtests.test(table):
            [plan, *_] = await listed.plans_of(read, analyze=True)
            looks = [node["Actual Loops"] for node in nodes(plan) if node.get("Relation Name") == table]
            assert sum(looks) <= 3 + 1


FILTERS = {
    "text": (Filter(text="vit-"), ["ix_simulations_text"]),
    "name": (
        Filter(name_like="vit%"),
        [],
    ),  # by either index on names: one is for databases with another collation than C
    "tags": (Filter(tags=("rare", "all")), ["ix_simulations_tags"]),
    "any tag": (Filter(any_tags=("rare", "none")), ["ix_simulations_tags"]),
    "user": (Filter(created_by="ada"), ["ix_simulations_created_by_id"]),
    "time": (Filter(created_from=datetime.now(UTC) - timedelta(hours=5, minutes=30)), ["ix_simulations_created_at"]),
    "word": (
        Filter(parameters=(Condition("optimizer", Comparison.EQ, "lion"),)),
        ["ix_parameter_values_word"],
    ),
    "number": (
        Filter(parameters=(Condition("lr", Comparison.GT, Decimal("0.2")),)),
        ["ix_parameter_values_number"],
    ),
}


async def test_what_few_simulations_match_is_found_by_index(listed: Filled, subtests: pytest.Subtests) -> None:
    for name, (wanted, index) in FILTERS.items():

        async def read(session: AsyncSession, wanted: Filter = wanted) -> None:
            found = await listing.page_matching(session, wanted, SortOrder(), first=50, after=None)
            assert 4 <= len(found.rows) <= 5
            assert await listing.count_matching(session, wanted) == len(found.rows)

        with subtests.test(name):
            plans = await listed.plans_of(read)
            assert len(plans) == 2
            assert_by_index(plans, *index, hot=("simulations", "parameter_values"))


async def test_the_direction_of_an_objective_is_found_by_index_also_where_none_has_it(filled: Filled) -> None:
    await filled.rows.query("UPDATE simulations SET objective_metric = 'loss', objective_mode = 'MIN'")
    await filled.rows.query("ANALYZE simulations")

    async def read(session: AsyncSession) -> None:
        assert await listing.objective_mode(session, "fitness") is None

    assert_by_index(await filled.plans_of(read), "ix_simulations_objective", hot=("simulations",))


async def test_names_of_metrics_and_parameters_take_a_step_of_an_index_each(listed: Filled) -> None:
    async def read(session: AsyncSession) -> None:
        assert "loss" in await names.metrics(session, "", first=200)
        assert "optimizer" in await names.parameters(session, "", first=200)

    for plan in await listed.plans_of(read, analyze=True):
        read_rows = [
            node["Actual Rows"] * node["Actual Loops"]
            for node in nodes(plan)
            if node.get("Relation Name") in ("results", "parameter_values")
        ]
        assert read_rows
        assert sum(read_rows) < 50  # of thousands


async def test_no_more_names_are_looked_for_than_are_asked_for(listed: Filled) -> None:
    await listed.rows.query(
        "WITH more AS (INSERT INTO results SELECT 1, 'x' || n, 1, 1, 1 FROM generate_series(1, 1000) AS n RETURNING 1) "
        "INSERT INTO parameter_values (simulation_id, name, number) SELECT 1, 'x' || n, 1 "
        "FROM generate_series(1, 1000) AS n RETURNING name"
    )

    async def read(session: AsyncSession) -> None:
        assert await names.metrics(session, "x", first=5) == ["x1", "x10", "x100", "x1000", "x101"]
        assert await names.parameters(session, "x", first=5) == ["x1", "x10", "x100", "x1000", "x101"]

    for plan in await listed.plans_of(read, analyze=True):
        steps = [node["Actual Rows"] for node in nodes(plan) if node["Node Type"] == "Recursive Union"]
        assert steps
        assert max(steps) < 20  # of a thousand


async def test_a_name_and_its_beginning_are_resolved_by_index(listed: Filled) -> None:
    async def resolve(session: AsyncSession) -> None:
        assert await references.resolve(session, "vit-7") == 7
        assert await references.resolve(session, "vit-1") == 1007

    plans = await listed.plans_of(resolve)
    assert_by_index(plans, hot=("simulations",))


# --- dependencies ----------------------------------------------------------------------------------------------

LINKED = """
    INSERT INTO dependencies (simulation_id, after_id, condition)
    SELECT s.id, o.id, 'SUCCESS' FROM simulations AS s JOIN simulations AS o ON o.id < s.id AND o.id > s.id - 6
    WHERE s.state = 'QUEUED' AND s.id > 2000;
    UPDATE simulations SET dependencies_left = 5 WHERE state = 'QUEUED' AND id > 2000;
    ANALYZE
"""


async def test_what_runs_after_a_simulation_is_found_by_index(filled: Filled) -> None:
    for statement in LINKED.split(";"):
        await filled.rows.query(statement)

    async def find(session: AsyncSession) -> None:
        assert await dependencies.followers(session, [2501], deep=False)
        assert await dependencies.followers(session, [2501], deep=True)
        assert await dependencies.of_simulations(session, [2505])
        assert await dependencies.to_simulations(session, [2501], most=3)
        assert await dependencies.newest_repeats(session, [2501]) == {2501: 2501}
        assert await queue.waiting_of(session, [2505])

    hot = (*HOT, "dependencies")
    plans = await filled.plans_of(find)
    assert_by_index(plans, "ix_dependencies_after_id", "pk_dependencies", "ix_simulations_retry_of", hot=hot)


async def test_a_submission_looks_up_its_keys_and_what_it_runs_after_by_index(filled: Filled) -> None:
    """However much is queued: here 1,000 of 5,000."""
    await filled.rows.query("UPDATE simulations SET client_key = 'key ' || id")
    await filled.rows.query("ANALYZE simulations")

    async def look(session: AsyncSession) -> None:
        assert await dependencies.find_keyed(session, 1, ["key 1", "key 2"]) == {"key 1": 1, "key 2": 2}
        assert (await dependencies.hold(session, [3, 4])).keys() == {3, 4}

    assert_by_index(await filled.plans_of(look), "uq_simulations_project_id_client_key", "pk_simulations")
