"""Upgrades with data of the version before: what runs goes on, what is to be stopped stops, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from databases import COPIED, administer, url_of
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db import (
    alert_deliveries,
    alert_targets,
    attempts,
    billing,
    budgets,
    checkpoints,
    costs,
    events,
    files,
    judged,
    logs,
    machines,
    newest_plan,
    overview,
    packages,
    projects,
    queue,
    results,
    sources,
    sweeps,
)
from db.attempts import Claim, Standing
from db.checkpoints import Checkpoint
from db.connection import connect_raw, create_engine, driver_of, parse_url, session_factory
from db.convergence import Column
from db.embedded.server import EmbeddedServer
from db.events import PLANNER
from db.logs import Chunk
from db.models import Simulation
from db.outage import Driver
from db.schema import check_unchanged, downgrade, upgrade
from db.simulations import Wanted, repetition
from db.states import FileKind, LogStream, Reason
from db.sweeps import WantedSweep
from graph.types.curve import of_many
from policy.retry import Exit
from transitions.budget import statements
from transitions.ingest import ingest
from transitions.pause import pause
from transitions.preempt import preempt
from transitions.report import HEARTBEAT, Report

POINT = {"loss": Column([4], [0.5], [0.1])}
BACKOFF = timedelta(seconds=5)

# As version 0007 wrote it: one that runs, one that is to be stopped, one that is not launched, one that has ended, one
# that was cancelled in the queue.
OLD = """
    INSERT INTO machines (name, engine, engine_key, cpus, memory_gib, price_per_hour)
    VALUES ('m', 'local', 'k', 8, 64, 2);
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, attempt, cpus, memory_gib, gpus,
                             stop_wanted_at, stop_wanted_by, stop_reason, reason, finished_at)
    VALUES (1, 'runs', '{x}', 'me', 'RUNNING', 2, 2, 4, 1, NULL, NULL, NULL, NULL, NULL),
           (1, 'stops', '{x}', 'me', 'RUNNING', 1, 1, 0, 0, now() - interval '1 min', 'ada', 'CANCELLED', NULL, NULL),
           (1, 'assigned', '{x}', 'me', 'STARTING', 1, 1, 0, 0, NULL, NULL, NULL, NULL, NULL),
           (1, 'ended', '{x}', 'me', 'FINISHED', 1, 1, 0, 0, NULL, NULL, NULL, 'COMPLETED', now()),
           (1, 'gone', '{x}', 'me', 'CANCELLED', 0, 1, 0, 0, now(), 'ada', 'CANCELLED', 'CANCELLED', now());
    INSERT INTO attempts (simulation_id, number, machine_id, machine_name, host, gpu_indices, price_per_hour, share,
                          currency, token_digest, nonce, next_batch, assigned_at, launched_at, started_at, heartbeat_at,
                          ended_at, reason, exit_code)
    SELECT s.id, n, m.id, 'm', 'h', CASE WHEN s.name = 'runs' THEN '{3}'::bigint[] ELSE '{}' END, 2, 0.25, 'EUR',
           CASE WHEN s.name <> 'assigned' THEN sha256((s.name || n)::bytea) END,
           CASE WHEN s.name <> 'assigned' THEN 'nonce' END,
           CASE WHEN s.name <> 'assigned' THEN 4 ELSE 1 END, now() - interval '1 h', now(), now(), now(),
           CASE WHEN n < s.attempt OR s.name = 'ended' THEN now() END,
           CASE WHEN n < s.attempt THEN 'MACHINE_LOST' WHEN s.name = 'ended' THEN 'COMPLETED' END,
           CASE WHEN s.name = 'ended' THEN 0 END
    FROM simulations AS s, machines AS m, generate_series(1, 2) AS n WHERE n <= s.attempt;
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT a.simulation_id, a.number, b, 'loss', ARRAY[b], '{1}', '{1}'
    FROM attempts AS a, generate_series(1, 3) AS b WHERE a.ended_at IS NULL AND a.nonce IS NOT NULL
"""
OLD_DATABASE = "template_0007"
MIGRATIONS: WeakKeyDictionary[AsyncEngine, str] = WeakKeyDictionary()  # the newest, when `rows` used an engine last
EVERYTHING = {
    "attempts": "SELECT * FROM attempts ORDER BY id",
    "simulations": "SELECT * FROM simulations ORDER BY id",
}


@pytest.fixture
async def engine(empty_database_url: str) -> Any:
    engine = create_engine(empty_database_url, application="test")
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return session_factory(engine)


@pytest.fixture(scope="module", autouse=True)
def old_database(postgres_server: EmbeddedServer) -> Iterator[None]:
    """A database of version 0007, of which `fill` takes a copy: to migrate one takes several times as long."""
    administer(postgres_server, f'CREATE DATABASE "{OLD_DATABASE}" {COPIED}')
    asyncio.run(upgrade(url_of(postgres_server, OLD_DATABASE), "0007"))
    yield
    administer(postgres_server, f'DROP DATABASE "{OLD_DATABASE}" WITH (FORCE)')


async def rows(engine: AsyncEngine, statement: str, **values: Any) -> list[dict[str, Any]]:
    # A migration changes what `SELECT *` returns: a connection that has prepared it would fail.
    async with engine.connect() as connection:
        newest = await connection.scalar(text("SELECT xmin::text FROM alembic_version"))
    if MIGRATIONS.get(engine) != newest:
        await engine.dispose()
        MIGRATIONS[engine] = newest
    async with engine.begin() as connection:
        found = await connection.execute(text(statement), values)
        return [dict(row) for row in found.mappings()] if found.returns_rows else []


async def value(engine: AsyncEngine, statement: str, **values: Any) -> Any:
    [row] = await rows(engine, statement, **values)
    [found] = row.values()
    return found


async def fill(engine: AsyncEngine, url: str) -> None:
    """Make the test's empty database one of version 0007 with its data."""
    name = parse_url(url).database
    async with connected(url.replace(f"@/{name}?", "@/simulations?")) as server:
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{OLD_DATABASE}" {COPIED}')
    async with connected(url) as connection:
        await connection.execute(OLD)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Driver]:
    connection = await connect_raw(url, application="fixtures")
    try:
        yield connection
    finally:
        await connection.close()


async def claim(engine: AsyncEngine, name: str, number: int) -> Claim:
    """What the supervisor that was launched by the version before has in its memory."""
    [row] = await rows(
        engine,
        "SELECT a.id, sha256((s.name || a.number)::bytea) AS token FROM attempts a JOIN simulations s "
        "ON s.id = a.simulation_id WHERE s.name = :name AND a.number = :number",
        name=name, number=number,
    )  # fmt: skip
    return Claim(row["id"], row["token"], "nonce")


async def test_supervisors_of_the_version_before_go_on_and_one_that_is_to_stop_stops(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    running, stopping = await claim(engine, "runs", 2), await claim(engine, "stops", 1)
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)

    # A batch that was acknowledged before is not stored again, the next one is: no point is lost or doubled.
    for number, stored in ((3, False), (4, True)):
        receipt = await ingest(sessions, running, Report(number, POINT), backoff=BACKOFF)
        assert (receipt.standing, receipt.stored, receipt.expected_batch) == (Standing.CURRENT, stored, 4 + stored)
        assert receipt.stop_reason is None
    counted = "SELECT count(*) FROM convergence WHERE simulation_id = (SELECT id FROM simulations WHERE name = :name)"
    assert await value(engine, counted, name="runs") == 4
    assert (
        await ingest(sessions, await claim(engine, "runs", 1), HEARTBEAT, backoff=BACKOFF)
    ).standing is Standing.OVER

    receipt = await ingest(sessions, stopping, HEARTBEAT, backoff=BACKOFF)
    assert receipt.stop_reason is Reason.CANCELLED
    exit_ = Exit(None, 15, "CANCELLED", "It was asked to stop.")
    assert (await ingest(sessions, stopping, Report(4, POINT, exit=exit_), backoff=BACKOFF)).stored
    assert await value(engine, counted, name="stops") == 4
    ended = "SELECT state || ' ' || reason FROM simulations WHERE name = 'stops'"
    assert await value(engine, ended) == "CANCELLED CANCELLED"


async def test_what_was_held_billed_and_wanted_is_read_as_before(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url)
    ids = {row["name"]: row["id"] for row in await rows(engine, "SELECT name, id FROM simulations")}
    machine_id = await value(engine, "SELECT id FROM machines")
    async with sessions() as session:
        held = (await machines.usage(session, [machine_id]))[machine_id]
        assert (held.cpus, held.memory_gib, held.gpus, len(held.simulation_ids)) == (4.0, 4.0, 1, 3)
        bills = await billing.of_simulations(session, ids.values())
        assert {name: len(bills.get(each, ())) for name, each in ids.items()} == {
            "runs": 2, "stops": 1, "assigned": 1, "ended": 1, "gone": 0,
        }  # fmt: skip
        assert {(each.share, each.currency) for bill in bills.values() for each in bill} == {(0.25, "EUR")}
        stops = await attempts.stops_of(session, ids.values())
        assert {simulation_id: (stop.by, stop.reason) for simulation_id, stop in stops.items()} == {
            ids["stops"]: ("ada", Reason.CANCELLED)
        }
        assert [each.attempt.number for each in await attempts.of_simulation(session, ids["runs"])] == [1, 2]
        [new] = await attempts.open_on_host(session, "h", not_launched=True) or [None]
        assert new is None, "it was launched"


async def test_a_process_of_the_version_before_acknowledges_nothing_any_more(
    engine: AsyncEngine, empty_database_url: str
) -> None:
    await fill(engine, empty_database_url)
    running = await claim(engine, "runs", 2)
    await upgrade(empty_database_url)
    old = "UPDATE attempts SET next_batch = next_batch + 1 WHERE id = :id AND token_digest = :token RETURNING id"
    assert await rows(engine, old, id=running.attempt_id, token=running.token_digest) == []


async def test_the_way_back_leaves_what_was_there(engine: AsyncEngine, empty_database_url: str) -> None:
    await fill(engine, empty_database_url)
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    await downgrade(empty_database_url, "0007")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before


async def test_the_way_back_takes_along_what_happened_meanwhile(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    running = await claim(engine, "runs", 2)
    await upgrade(empty_database_url)
    await ingest(sessions, running, Report(4, POINT), backoff=BACKOFF)
    stop = (
        "UPDATE attempts SET stop_wanted_at = now(), stop_wanted_by = 'bob', stop_reason = 'MAX_RUNTIME' WHERE id = :id"
    )
    await rows(engine, stop, id=running.attempt_id)
    async with sessions.begin() as session:
        assert await preempt(
            session, await value(engine, "SELECT id FROM simulations WHERE name = 'assigned'"), PLANNER
        )
    await downgrade(empty_database_url, "0007")
    assert await value(engine, "SELECT next_batch FROM attempts WHERE id = :id", id=running.attempt_id) == 5
    wanted = await rows(
        engine, "SELECT name, stop_wanted_by, stop_reason FROM simulations WHERE attempt > 0 ORDER BY id"
    )
    assert [tuple(row.values()) for row in wanted] == [
        ("runs", "bob", "MAX_RUNTIME"), ("stops", "ada", "CANCELLED"), ("assigned", None, None), ("ended", None, None),
    ]  # fmt: skip


async def test_simulations_of_the_version_before_notices_are_read_automatically_and_the_way_back_leaves_them(
    engine: AsyncEngine, empty_database_url: str
) -> None:
    await upgrade(empty_database_url, "0008")
    await rows(
        engine, "INSERT INTO simulations (project_id, name, entrypoint, created_by) VALUES (1, 'old', '{x}', 'me')"
    )
    before = await rows(engine, EVERYTHING["simulations"])
    await upgrade(empty_database_url)
    assert await rows(engine, "SELECT metrics_from, metrics_patterns FROM simulations") == [
        {"metrics_from": "AUTO", "metrics_patterns": []}
    ]
    await rows(engine, "INSERT INTO notices SELECT id, 1, 'NOT_RISING', 3, 'a line', 'advice' FROM simulations")
    await downgrade(empty_database_url, "0008")
    assert await rows(engine, EVERYTHING["simulations"]) == before


async def test_what_ran_without_objective_and_rules_runs_on_without_them_there_and_back(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    running = await claim(engine, "runs", 2)
    await upgrade(empty_database_url, "0009")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    columns = "objective_metric, objective_mode, stopping, stopping_revision, would_stop, max_cost, max_steps"
    assert {tuple(row.values()) for row in await rows(engine, f"SELECT {columns} FROM simulations")} == {
        (None, None, None, 0, None, None, None)
    }
    await downgrade(empty_database_url, "0009")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before
    await upgrade(empty_database_url)
    receipt = await ingest(sessions, running, Report(4, POINT), backoff=BACKOFF)
    assert (receipt.stored, receipt.amended) == (True, None)
    async with driver_of(sessions) as driver:
        assert await judged.changes(driver, []) == ([], [])


# --- 0011: budgets ---------------------------------------------------------------------------------------------


async def test_what_was_spent_before_there_were_budgets_counts_and_the_way_back_leaves_it(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0010")
    everything = {**EVERYTHING, "members": "SELECT * FROM members ORDER BY id"}
    before = {name: await rows(engine, statement) for name, statement in everything.items()}
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    async with sessions.begin() as session:
        budget = await budgets.create(session, budgets.Wanted(None, "TOTAL", Decimal(100), "EUR"), PLANNER)
        [statement] = await statements(session, [budget], UTC)
    # Five attempts of an hour each, a quarter of two euros; three are open.
    assert Decimal("2.5") <= statement.account.spent < Decimal("2.6")
    assert statement.account.per_hour == Decimal("1.5")
    async with sessions() as session:
        question = costs.Question((costs.Key.NAME,), None, datetime(2100, 1, 1, tzinfo=UTC), "UTC")
        found, [total], _ = await costs.read(session, question)
    assert {each.name for each in found} == {"runs", "stops", "assigned", "ended"}
    assert total.wasted == Decimal("0.5")  # the first attempt of `runs` was lost
    await downgrade(empty_database_url, "0010")
    assert {name: await rows(engine, statement) for name, statement in everything.items()} == before


# --- 0012, 0014, 0015: recorded parameters, sources of attempts, system metrics ----------------------------------


async def test_what_ran_before_there_were_trackers_takes_parameters_now_and_the_way_back_leaves_it(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    running = await claim(engine, "runs", 2)
    await upgrade(empty_database_url, "0011")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    columns = "SELECT DISTINCT recorded_parameters, tensorboard FROM simulations"
    assert await rows(engine, columns) == [{"recorded_parameters": {}, "tensorboard": []}]
    # A supervisor of the version before reports no parameters, one of this version does.
    for number, recorded in ((4, {}), (5, {"lr": 0.1})):
        receipt = await ingest(sessions, running, Report(number, POINT, parameters=recorded), backoff=BACKOFF)
        assert receipt.stored
        kept = "SELECT recorded_parameters FROM simulations WHERE name = 'runs'"
        assert await value(engine, kept) == recorded
    untouched = "SELECT count(*) FROM simulations WHERE recorded_parameters <> '{}'"
    assert await value(engine, untouched) == 1
    await rows(engine, "UPDATE members SET next_batch = 4 WHERE ended_at IS NULL AND nonce IS NOT NULL")
    await downgrade(empty_database_url, "0011")
    after = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    assert after["simulations"] == before["simulations"]
    assert {row["id"] for row in after["attempts"]} == {row["id"] for row in before["attempts"]}


async def test_attempts_of_the_version_before_have_no_source_until_the_next_one_and_the_way_back_leaves_them(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    running = await claim(engine, "runs", 2)
    await upgrade(empty_database_url, "0013")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    ids = {row["name"]: row["id"] for row in await rows(engine, "SELECT name, id FROM simulations")}
    async with sessions() as session:
        assert await sources.of_simulations(session, ids.values()) == {}
    source = sources.Source(commit="0" * 40, dirty=True, command=("python", "train.py"), packages={"torch": "2.9"})
    assert (await ingest(sessions, running, Report(4, source=source), backoff=BACKOFF)).stored
    async with sessions() as session:
        [(simulation_id, found)] = (await sources.of_simulations(session, ids.values())).items()
    assert simulation_id == ids["runs"]
    assert (found.commit, found.dirty, list(found.command)) == ("0" * 40, True, ["python", "train.py"])
    await downgrade(empty_database_url, "0013")
    after = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    assert after["simulations"] == before["simulations"]
    assert await rows(engine, "SELECT count(*) FROM convergence") == [{"count": 6}]
    await upgrade(empty_database_url)  # the way forward again: the source of that attempt is lost, nothing else
    async with sessions() as session:
        assert await sources.of_simulations(session, ids.values()) == {}


async def test_the_interval_of_system_metrics_is_the_installations_for_what_was_submitted_before(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0014")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    interval = "SELECT DISTINCT system_metrics_seconds FROM simulations"
    assert await rows(engine, interval) == [{"system_metrics_seconds": None}]
    await rows(engine, "UPDATE simulations SET system_metrics_seconds = 0 WHERE name = 'assigned'")
    await downgrade(empty_database_url, "0014")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before
    await upgrade(empty_database_url)
    assert await rows(engine, interval) == [{"system_metrics_seconds": None}]


async def test_nothing_is_sent_for_what_happened_before_there_were_alerts_and_the_way_back_leaves_it(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0012")
    await rows(
        engine,
        "INSERT INTO events (kind, actor, object_type, object_id, project_id) "
        "SELECT 'FAILED', 'scheduler', 'Simulation', id, project_id FROM simulations RETURNING id",
    )
    kept = {**EVERYTHING, "events": "SELECT * FROM events ORDER BY id"}
    before = {name: await rows(engine, statement) for name, statement in kept.items()}
    await upgrade(empty_database_url)
    async with sessions.begin() as session:
        assert await alert_deliveries.pending_events(session, 10) == []
        assert await alert_targets.every(session) == []
        await events.record(session, "FAILED", PLANNER, "Simulation", 1, project_id=1)
        assert len(await alert_deliveries.pending_events(session, 10)) == 1
    chosen = await rows(engine, "SELECT DISTINCT alert_target_ids FROM simulations")
    assert chosen == [{"alert_target_ids": None}]
    await rows(engine, "DELETE FROM events WHERE alert_pending RETURNING id")
    await downgrade(empty_database_url, "0012")
    assert {name: await rows(engine, statement) for name, statement in kept.items()} == before


# --- 0016: weights and quotas ------------------------------------------------------------------------------------


async def test_projects_of_the_version_before_have_the_weight_one_and_no_quota_and_the_way_back_leaves_them(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0015")
    before = await rows(engine, "SELECT * FROM projects ORDER BY id")
    await upgrade(empty_database_url)
    assert await rows(engine, "SELECT weight = 1 AS one, gpu_quota FROM projects") == [{"one": True, "gpu_quota": None}]
    async with sessions.begin() as session:
        await projects.change(session, 1, {"weight": Decimal(2), "gpu_quota": 2}, PLANNER)
        assert await projects.uses(session) == {1: projects.Use("default", 2, 1)}, "what runs counts"
    await downgrade(empty_database_url, "0015")
    assert await rows(engine, "SELECT * FROM projects ORDER BY id") == before


# --- 0017: plans -------------------------------------------------------------------------------------------------


async def test_simulations_of_the_version_before_are_not_preemptible_and_those_alike_are_learned_from_together(
    engine: AsyncEngine, empty_database_url: str
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0015")
    await rows(
        engine,
        "INSERT INTO simulations (project_id, name, entrypoint, created_by) "
        "VALUES (1, 'runs', '{x}', 'me'), (1, 'runs', '{x,y}', 'me') RETURNING id",
    )
    before = await rows(engine, EVERYTHING["simulations"])
    await upgrade(empty_database_url)
    [counted] = await rows(
        engine,
        "SELECT bool_or(preemptible) AS any, max(attained) AS attained, count(DISTINCT learning_class) AS classes, "
        "count(*) FILTER (WHERE name = 'runs') AS alike, "
        "count(DISTINCT learning_class) FILTER (WHERE name = 'runs') AS kinds FROM simulations",
    )
    assert counted == {"any": False, "attained": timedelta(0), "classes": len(before) - 1, "alike": 3, "kinds": 2}
    await downgrade(empty_database_url, "0015")
    assert await rows(engine, EVERYTHING["simulations"]) == before


# --- 0018: no stop rules are NULL ------------------------------------------------------------------------------


async def test_what_has_no_rules_is_no_longer_among_what_is_judged(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0015")
    await rows(engine, "UPDATE simulations SET stopping = 'null' WHERE name <> 'stops' RETURNING id")
    await rows(engine, "UPDATE simulations SET stopping = '{\"rules\": []}' WHERE name = 'stops' RETURNING id")
    await upgrade(empty_database_url)
    async with driver_of(sessions) as driver:
        found, gone = await judged.changes(driver, [])
    [stops] = await rows(engine, "SELECT id FROM simulations WHERE name = 'stops'")
    assert ([each.simulation_id for each in found], gone) == ([stops["id"]], [])
    kept = await rows(engine, "SELECT stopping IS NULL AS is_null FROM simulations WHERE name IN ('ended', 'gone')")
    assert kept == [{"is_null": False}] * 2, "nothing looks for rules there, and there may be many"
    await downgrade(empty_database_url, "0015")


# As version 0018 wrote it: one that ended after two attempts, the first of them cut; one that runs; one that waits.
BEFORE_LISTS = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, attempt, parameters, recorded_parameters)
    VALUES (1, 'ended', '{x}', 'me', 'FINISHED', 2, '{"lr": 0.1, "opt": {"name": "adam"}}', '{"lr": 5, "seed": 7}'),
           (1, 'runs', '{x}', 'me', 'RUNNING', 1, '{}', '{}'), (1, 'waits', '{x}', 'me', 'QUEUED', 0, '{}', '{}');
    INSERT INTO attempts (simulation_id, number, assigned_at, ended_at)
    SELECT id, n, now() - interval '1 h', CASE WHEN state = 'FINISHED' THEN now() END
    FROM simulations, generate_series(1, 2) AS n WHERE n <= attempt;
    INSERT INTO members (attempt_id, machine_name, price_per_hour, share, currency, cpus, memory_gib, gpus, assigned_at,
                         ended_at)
    SELECT id, 'm', 2, 0.5, 'EUR', 1, 0, 0, assigned_at, ended_at FROM attempts;
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT s.id, a, 1, m, CASE a WHEN 1 THEN ARRAY[1, 2, 3] ELSE ARRAY[3, 4] END,
           CASE a WHEN 1 THEN ARRAY[5, 4, 0.5]::float8[] ELSE ARRAY[3, 'NaN']::float8[] END,
           CASE a WHEN 1 THEN ARRAY[1, 1, 1] ELSE ARRAY[1, 1] END
    FROM simulations AS s, generate_series(1, 2) AS a, unnest('{loss,b}'::text[]) AS m WHERE a <= s.attempt;
    INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, min_value,
                         max_step, max_value)
    SELECT simulation_id, attempt, metric, cardinality(steps), steps[1], steps[cardinality(steps)],
           "values"[cardinality("values")], 3, CASE attempt WHEN 1 THEN 0.5 ELSE 3 END, 1,
           CASE attempt WHEN 1 THEN 5 ELSE 3 END
    FROM convergence
"""


async def test_lists_sort_and_filter_what_ended_before_they_could_as_what_ends_since(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await upgrade(empty_database_url, "0018")
    for statement in BEFORE_LISTS.split(";"):
        await rows(engine, statement)
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)

    kept = "SELECT simulation_id, metric, last_value, min_value, max_value FROM results ORDER BY metric"
    expected = [
        {"simulation_id": 1, "metric": metric, "last_value": None, "min_value": 3.0, "max_value": 5.0}
        for metric in ("b", "loss")
    ]
    assert await rows(engine, kept) == expected
    async with sessions.begin() as session:
        await results.keep(session, [1])  # what the end of a simulation writes
    assert await rows(engine, kept) == expected
    costs_of = "SELECT final_cost FROM simulations ORDER BY id"
    assert [each["final_cost"] for each in await rows(engine, costs_of)] == [Decimal(2), None, None]
    parameters = "SELECT name, number, word FROM parameter_values ORDER BY name"
    assert [tuple(each.values()) for each in await rows(engine, parameters)] == [
        ("lr", Decimal("0.1"), None), ("opt.name", None, "adam"), ("seed", Decimal(7), None),
    ]  # fmt: skip

    await downgrade(empty_database_url, "0018")
    await rows(engine, "UPDATE simulations SET parameters = '{\"a\": 1}'")  # no trigger is left


# --- 0020: dependencies ------------------------------------------------------------------------------------------


async def test_what_waited_in_the_version_before_is_held_by_nothing_and_the_way_back_plans_what_was_held(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0019")
    insert = "INSERT INTO simulations (project_id, name, entrypoint, created_by) VALUES (1, 'waits', '{x}', 'me')"
    [waiting] = await rows(engine, f"{insert} RETURNING id")
    kept = {**EVERYTHING, "machines": "SELECT * FROM machines ORDER BY id"}
    before = {name: await rows(engine, statement) for name, statement in kept.items()}
    await upgrade(empty_database_url)
    columns = "notes, paused, dependencies_left, held"
    assert {tuple(row.values()) for row in await rows(engine, f"SELECT {columns} FROM simulations")} == {
        (None, False, 0, False)
    }
    async with sessions.begin() as session:
        looked = await queue.look(session, None)
        await pause(session, waiting["id"], PLANNER)
        assert looked.arrived
    async with sessions() as session:
        assert (await queue.look(session, None)).is_empty
    await downgrade(empty_database_url, "0019")
    after = {name: await rows(engine, statement) for name, statement in kept.items()}
    for each in (*before["simulations"], *after["simulations"]):
        del each["queued_xid"]  # the pause wrote it
    assert after == before


# --- 0021: several machines ------------------------------------------------------------------------------------


async def test_what_ran_on_one_machine_goes_on_as_it_was_and_the_way_back_leaves_it(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    running = await claim(engine, "runs", 2)
    await upgrade(empty_database_url, "0020")
    await rows(engine, "INSERT INTO notices SELECT id, 1, 'NOT_RISING', 3, 'a line', 'advice' FROM simulations")
    await rows(engine, "INSERT INTO log_chunks SELECT id, 2, 3, 0, 'STDOUT', 'a line' FROM simulations")
    kept = {
        **EVERYTHING,
        "members": "SELECT * FROM members ORDER BY id",
        "log": "SELECT * FROM log_chunks ORDER BY simulation_id, attempt, batch, position",
        "notices": "SELECT * FROM notices ORDER BY simulation_id",
    }
    before = {name: await rows(engine, statement) for name, statement in kept.items()}
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    now = await rows(engine, EVERYTHING["simulations"])
    assert [each["queue_class"] for each in now] == [each["queue_class"] for each in before["simulations"]]
    simulation_id = next(each["id"] for each in now if each["name"] == "runs")
    for table in ("log_chunks", "notices"):  # what higher ranks have written is lost on the way back
        columns = "simulation_id, attempt, rank, " + (
            "batch, position, stream, text" if "log" in table else "kind, count, example, advice"
        )
        given = "2, 1, 1, 0, 'STDOUT', 'x'" if "log" in table else "2, 1, 'HIGHER_RANK', 1, 'x', 'y'"
        await rows(engine, f"INSERT INTO {table} ({columns}) VALUES ({simulation_id}, {given})")
    await downgrade(empty_database_url, "0020")
    assert {name: await rows(engine, statement) for name, statement in kept.items()} == before

    await upgrade(empty_database_url)
    chunk = Chunk(LogStream.STDOUT, "a line after it")
    receipt = await ingest(sessions, running, Report(4, POINT, [chunk]), backoff=BACKOFF)
    assert (receipt.stored, receipt.rank) == (True, 0)
    async with sessions() as session:
        found = await logs.read(session, simulation_id, logs.START, limit=10)
    assert [each.text for each in found] == ["a line", "a line after it"]


# --- 0023: places, and what left the queue -------------------------------------------------------------------------


async def test_the_plan_of_the_version_before_is_kept_and_what_leaves_the_queue_is_found(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0022")
    insert = "INSERT INTO simulations (project_id, name, entrypoint, created_by) VALUES (1, 'waits', '{x}', 'me')"
    [waiting] = await rows(engine, f"{insert} RETURNING id")
    await rows(engine, f"INSERT INTO plans (id, queue) VALUES (1, ARRAY[{waiting['id']}])")
    kept = {**EVERYTHING, "plans": "SELECT id, queue, reservations FROM plans"}
    before = {name: await rows(engine, statement) for name, statement in kept.items()}
    await upgrade(empty_database_url, "0023")
    assert {name: await rows(engine, statement) for name, statement in kept.items()} == before
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    async with sessions() as session:
        since = (await queue.look(session, None)).bookmark
        assert (await newest_plan.places_of(session, [waiting["id"]]))[waiting["id"]].rule == ""
    async with sessions.begin() as session:
        await pause(session, waiting["id"], PLANNER)
    async with sessions() as session:
        assert (await queue.look(session, since)).left == [waiting["id"]]
    await downgrade(empty_database_url, "0022")
    assert await rows(engine, kept["plans"]) == before["plans"]


# --- 0024: notes are searched --------------------------------------------------------------------------------------


async def test_notes_of_the_version_before_are_found_and_the_way_back_searches_names_and_commands(
    engine: AsyncEngine, empty_database_url: str
) -> None:
    sessions = session_factory(engine)
    await upgrade(empty_database_url, "0023")
    async with sessions.begin() as session:
        await session.execute(
            text("INSERT INTO simulations (project_id, name, entrypoint, created_by, notes) "
                 "VALUES (1, 'vit', '{train}', 'ada', 'Warm start'), (1, 'warm', '{train}', 'ada', NULL)")
        )  # fmt: skip
    await upgrade(empty_database_url)
    newer, older = "simulation_text(name, entrypoint, notes)", "simulation_text(name, entrypoint)"
    found = "SELECT array_agg(name ORDER BY name) FROM simulations WHERE trigrams({}) @> trigrams('warm')"
    async with sessions() as session:
        assert await session.scalar(text(found.format(newer))) == ["vit", "warm"]
        assert await session.scalar(text(found.format(older))) == ["warm"], "what the version before asks"
    await downgrade(empty_database_url, "0023")
    async with sessions() as session:
        assert await session.scalar(text(found.format(older))) == ["warm"]
        assert await session.scalar(text("SELECT notes FROM simulations WHERE name = 'vit'")) == "Warm start"


# --- 0025: checkpoints ---------------------------------------------------------------------------------------------


async def test_an_attempt_of_the_version_before_reports_its_checkpoint_after_the_upgrade(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0024")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url, "0025")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    running = await claim(engine, "runs", 2)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    receipt = await ingest(sessions, running, Report(4, checkpoint_at=at), backoff=BACKOFF)
    assert receipt.stored
    async with sessions() as session:
        found = await checkpoints.of_simulations(session, [receipt.simulation_id, 12345])
    assert found == {receipt.simulation_id: Checkpoint(at, "m")}
    await downgrade(empty_database_url, "0024")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before


# --- 0026: forks ---------------------------------------------------------------------------------------------------


async def test_what_was_submitted_before_there_were_templates_is_repeated_as_it_was(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0025")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    async with sessions.begin() as session:
        [old] = (await session.scalars(select(Simulation).where(Simulation.name == "runs"))).all()
        wanted = repetition(old)
        assert (wanted.entrypoint_template, wanted.from_checkpoint) == (None, False)
        assert wanted.entrypoint == tuple(old.entrypoint)
    await downgrade(empty_database_url, "0025")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before


# --- 0027: stored files --------------------------------------------------------------------------------------------


async def test_what_ran_in_the_version_before_has_stored_nothing_and_the_way_back_leaves_it(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0026")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url, "0027")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    [running] = await rows(
        engine,
        "SELECT s.id, a.id AS attempt, m.token_digest FROM simulations AS s "
        "JOIN attempts AS a ON a.simulation_id = s.id JOIN members AS m ON m.attempt_id = a.id "
        "WHERE s.name = 'runs' AND a.ended_at IS NULL",
    )
    await rows(engine, f"UPDATE members SET nonce = 'n' WHERE attempt_id = {running['attempt']}")
    async with sessions.begin() as session:
        owner = await files.find_owner(session, Claim(running["attempt"], running["token_digest"], "n"))
        assert owner is not None
        assert await files.commit(session, owner, FileKind.OUTPUT, [files.Entry("empty", 0, 0, 0, "0" * 64, "")]) == ()
    async with sessions() as session:
        assert [
            each.path for row in await files.lists_of(session, running["id"]) for each in files.entries_of(row)
        ] == ["empty"]
    await downgrade(empty_database_url, "0026")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before


# --- 0029: packages ------------------------------------------------------------------------------------------------


async def test_files_that_the_version_before_has_stored_stay_and_the_way_back_gives_up_packages(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0028")
    await rows(
        engine,
        "INSERT INTO stored_pieces (project_id, simulation_id, digest, size_bytes, stored_at) "
        "SELECT 1, s.id, CAST('kept' AS bytea), 5, now() FROM simulations AS s WHERE s.name = 'runs' "
        "UNION ALL SELECT 1, NULL, CAST('unowned' AS bytea), 7, now()",
    )
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    async with sessions.begin() as session:
        assert await files.held_bytes(session, 1) == 5
        [unowned] = await files.unowned(session, 10)
        package = await packages.begin(session, 1, "a" * 64, 3, "me", quota_bytes=None)
        piece = await packages.add_piece(session, package, 1, "a" * 64, 3, quota_bytes=None)
        assert piece is not None
        assert await files.note_put(session, piece)
        assert await packages.finish(session, package)
        assert await files.held_bytes(session, 1) == 8
        assert list(await files.unowned(session, 10)) == [unowned]
        [old] = (await session.scalars(select(Simulation).where(Simulation.name == "runs"))).all()
        wanted = repetition(old)
        assert (wanted.package_id, wanted.package_source, wanted.runtime_env) == (None, None, None)
    await rows(engine, f"UPDATE simulations SET package_id = {package} WHERE name = 'runs'")
    await downgrade(empty_database_url, "0028")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before
    left = await rows(engine, "SELECT id FROM stored_pieces WHERE simulation_id IS NULL ORDER BY id")
    assert [each["id"] for each in left] == [unowned, piece], "which its collector removes"


# --- 0030: levels of curves ----------------------------------------------------------------------------------------


async def test_levels_are_made_of_what_the_version_before_stored_and_the_way_back_gives_them_up(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0029")
    await rows(
        engine,
        """
        WITH given AS (SELECT id FROM simulations WHERE name = 'ended'), stored AS (
            INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
            SELECT id, 1, 1, 'loss', array_agg(n), array_agg(n), array_agg(n)
            FROM given, generate_series(0, 9999) AS n GROUP BY id
        )
        INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value)
        SELECT id, 1, 'loss', 10000, 0, 9999, 9999 FROM given
        """,
    )
    tables = {**EVERYTHING, "points": "SELECT * FROM convergence ORDER BY simulation_id, attempt, batch, metric"}
    before = {name: await rows(engine, statement) for name, statement in tables.items()}
    ended = await value(engine, "SELECT id FROM simulations WHERE name = 'ended'")
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    assert {name: await rows(engine, statement) for name, statement in tables.items()} == before
    assert await value(engine, "SELECT count(*) FROM curve_levels") == 0
    for _ in range(2):
        found, cursors = await of_many(sessions, [ended], "loss", 100)
        assert (found[ended].steps[0], found[ended].steps[-1], cursors) == (0, 9999, {ended: (1, 1)})
        assert await value(engine, "SELECT points FROM curve_levels") == 10_000
    # What a process of the version before stores and deletes: it has no word of the table.
    await rows(engine, "DELETE FROM simulations WHERE name = 'ended'")
    assert await value(engine, "SELECT count(*) FROM curve_levels") == 0
    await downgrade(empty_database_url, "0029")
    del before["points"]
    left = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    assert left == {
        name: [row for row in of if row["id"] != ended] for name, of in before.items() if name == "simulations"
    } | {"attempts": [row for row in before["attempts"] if row["simulation_id"] != ended]}


# --- 0031: cancelled trials ----------------------------------------------------------------------------------------


async def test_trials_that_were_cancelled_in_the_version_before_are_told_apart_and_the_way_back_counts_them_as_failed(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0030")
    async with sessions.begin() as session:
        template = Wanted(project_id=1, name="s", entrypoint=("x",))
        wanted = WantedSweep(template, "s", [], "RANDOM", 1, "loss", "MIN", 3)
        made = await sweeps.create(session, wanted, PLANNER, client_key=None, given_seed=True)
    outcomes = "SELECT number, outcome FROM sweep_trials ORDER BY number"
    await rows(
        engine,
        f"""
        INSERT INTO sweep_trials (sweep_id, number, parameters, outcome, ended_at)
        SELECT {made.id}, n, '{{}}', CASE n WHEN 3 THEN 'COMPLETE' WHEN 4 THEN NULL ELSE 'FAIL' END, now()
        FROM generate_series(0, 4) AS n
        """,
    )
    await rows(
        engine,
        f"""
        INSERT INTO simulations (project_id, name, entrypoint, created_by, state, sweep_id, trial)
        SELECT 1, 't', '{{x}}', 'me', state, {made.id}, n
        FROM (VALUES (0, 'CANCELLED'), (0, 'FINISHED'), (1, 'CANCELLED'), (1, 'FAILED'), (2, 'FAILED'),
                     (3, 'CANCELLED'), (4, 'CANCELLED')) AS given (n, state)
        """,
    )
    before = await rows(engine, outcomes)
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    found = [tuple(each.values()) for each in await rows(engine, outcomes)]
    assert found == [(0, "CANCELLED"), (1, "FAIL"), (2, "FAIL"), (3, "COMPLETE"), (4, None)]
    await downgrade(empty_database_url, "0030")
    assert await rows(engine, outcomes) == before


# --- 0022: sweeps ----------------------------------------------------------------------------------------------


async def test_what_is_of_no_sweep_stays_as_it_was_and_the_way_back_leaves_the_simulations_of_trials(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0021")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    found = await rows(engine, "SELECT DISTINCT sweep_id, trial FROM simulations")
    assert [tuple(each.values()) for each in found] == [(None, None)]
    async with sessions.begin() as session:
        template = Wanted(project_id=1, name="s", entrypoint=("x",))
        wanted = WantedSweep(template, "s", [], "RANDOM", 1, "loss", "MIN", 3)
        made = await sweeps.create(session, wanted, PLANNER, client_key=None, given_seed=True)
        assert await sweeps.active(session) == {made.id: True}
        assert sweeps.template_of(made) == template
    await rows(engine, f"UPDATE simulations SET sweep_id = {made.id}, trial = 0 WHERE name = 'runs'")
    await downgrade(empty_database_url, "0021")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before


# --- 0028: numbers of simulations ----------------------------------------------------------------------------------


async def test_what_the_version_before_queued_is_counted_and_it_counts_on_beside_the_newer_tables(
    engine: AsyncEngine, empty_database_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async def counts() -> tuple[int, ...]:
        async with sessions() as session:
            return tuple((await overview.counts(session, None)).values())

    await fill(engine, empty_database_url)
    await upgrade(empty_database_url, "0027")
    before = {name: await rows(engine, statement) for name, statement in EVERYTHING.items()}
    await upgrade(empty_database_url, "0028")
    assert {name: await rows(engine, statement) for name, statement in EVERYTHING.items()} == before
    assert await counts() == (0, 1, 2)
    # What a process of the version before writes: it knows nothing of the table.
    insert = "INSERT INTO simulations (project_id, name, entrypoint, created_by)"
    await rows(engine, f"{insert} VALUES (1, 'w', '{{x}}', 'me')")
    await rows(engine, "UPDATE simulations SET state = 'FINISHED' WHERE name = 'runs'")
    assert await counts() == (1, 1, 1)

    await downgrade(empty_database_url, "0027")
    await rows(engine, "UPDATE simulations SET state = 'CANCELLED' WHERE name = 'w'")  # no trigger is left
    await rows(engine, "DELETE FROM simulations WHERE name = 'w'")
    await upgrade(empty_database_url)
    assert await counts() == (0, 1, 1)
