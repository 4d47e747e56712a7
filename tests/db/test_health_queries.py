"""What the rows say of the whole installation."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

from db import health_queries, leader, queue
from policy.waiting import why

Rows = Any  # the fixture of conftest.py
LEASE = timedelta(seconds=30)
FILL = (
    """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, cpus, queued_at, attended)
    VALUES (1, 'a', '{x}', 'me', 'QUEUED', 2, now() - interval '1 h', false),
           (1, 'b', '{x}', 'me', 'QUEUED', 2, now(), false),
           (1, 'c', '{x}', 'me', 'QUEUED', 2, now() + interval '1 h', false),
           (1, 'd', '{x}', 'me', 'RUNNING', 2, now(), false),
           (1, 'e', '{x}', 'me', 'FAILED', 2, now(), false),
           (1, 'f', '{x}', 'me', 'QUEUED', 3, now(), false),
           (1, 'g', '{x}', 'me', 'QUEUED', 2, now(), true),
           (1, 'h', '{x}', 'me', 'QUEUED', 2, now(), true)
    """,
    "INSERT INTO watchers SELECT id, 'graph', now() + interval '1 h' FROM simulations WHERE name = 'h'",
    """
    INSERT INTO queue_classes
    SELECT queue_class, 'MACHINES_BUSY', 'All busy.' FROM simulations WHERE name = 'a'
    """,
    """
    INSERT INTO attempts (simulation_id, number, reason, ended_at)
    SELECT id, 1, CASE WHEN name = 'e' THEN 'MACHINE_LOST' END,
           CASE WHEN name = 'e' THEN now() END FROM simulations WHERE name IN ('d', 'e')
    """,
    """
    INSERT INTO members (attempt_id, machine_name, price_per_hour, share, currency, cpus, memory_gib, gpus, ended_at)
    SELECT id, 'm', 3, 0.5, 'EUR', 1, 0, 0, ended_at FROM attempts
    """,
    """
    INSERT INTO machines (name, engine, engine_key, cpus, memory_gib, draining, heartbeat_at)
    VALUES ('m1', 'local', '1', 1, 1, false, now()), ('m2', 'local', '2', 1, 1, true, now()),
           ('m3', 'local', '3', 1, 1, false, now() - interval '1 h'), ('m4', 'local', '4', 1, 1, false, NULL)
    """,
    "INSERT INTO coverage VALUES ('graph', now(), now() - interval '7 s')",
)


async def test_the_rows_are_counted_by_what_they_say(rows: Rows) -> None:
    for statement in FILL:
        await rows.query(statement)
    async with rows.sessions() as session:
        found = await health_queries.read(session, LEASE)
        offline = await health_queries.offline(session, LEASE)
    assert {reason: waiting.count for reason, waiting in found.queue.items()} == {
        "MACHINES_BUSY": 3, "BACKOFF": 1, "UNATTENDED": 1, health_queries.NOT_PLANNED: 1,
    }  # fmt: skip
    async with rows.sessions() as session:
        queued = await queue.waiting_of(session, range(1, 9))
    told = Counter(wait.reason if (wait := why(each)) else health_queries.NOT_PLANNED for each in queued.values())
    assert told == {reason: waiting.count for reason, waiting in found.queue.items()}, "each is told the same"
    assert 3600 <= found.queue["MACHINES_BUSY"].oldest_seconds < 3700
    assert found.queue["BACKOFF"].oldest_seconds == 0, "a retry waits until then: its wait has not begun"
    assert found.active == {"RUNNING": 1}
    assert found.price_per_hour == {"EUR": Decimal("1.5")}
    assert found.lost_attempts == 1
    assert found.machines == {"ONLINE": 1, "DRAINING": 1, "OFFLINE": 2}
    assert 7 <= found.silences["graph"] < 60
    assert [name for name, _ in offline] == ["m3", "m4"]
    assert offline[1][1] is None


async def test_an_empty_installation_says_nothing(rows: Rows) -> None:
    async with rows.sessions() as session:
        found = await health_queries.read(session, LEASE)
        assert await leader.find_leader(session) is None
        assert await health_queries.from_the_future(session) == 0
    assert not any((found.queue, found.active, found.machines, found.price_per_hour, found.lost_attempts))
