"""Database checks of `simulations doctor`: version, schema, clock, and from the rows the live processes and machines.

All checks run in read-only transactions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from cli.terminal import clean, say_count, say_duration
from db import connection, health_queries, schema, tokens
from db.leader import Leader, find_leader
from settings import Settings

CLOCK_SECONDS = 2.0  # tolerated difference between this host's clock and the database's
FORGOTTEN_SECONDS = 60.0
STATEMENT_SECONDS = 10.0
CROWDED = 0.9  # of max_connections

Found = tuple[str, str, str, str]  # check, level, sentence, advice
NO_GRAPH = "Start one: simulations up, or `python -m graph` with the same DATABASE_URL."
NO_SCHEDULER = "Start one: simulations up, or `python -m scheduler` with the same DATABASE_URL."


async def examine(settings: Settings, url: str) -> list[Found]:
    """Check a database. Raises `DatabaseError`, `SchemaMismatch`, and what SQLAlchemy raises."""
    lease = timedelta(seconds=settings.lease_seconds)
    engine = connection.create_engine(
        url, pool_size=1, application="doctor", statement_timeout=timedelta(seconds=STATEMENT_SECONDS)
    )
    try:
        await connection.check_server(engine)
        async with connection.session_factory(engine)() as session, session.begin():
            await session.execute(text("SET TRANSACTION READ ONLY"))
            found: list[Found] = [("database", "ok", await _version(session), "")]
            found += await _clock(session)
            found += judge_connections(*await health_queries.connections(session))
        await schema.require_current(engine)
        found.append(("schema", "ok", "The tables are those of this version.", ""))
        async with connection.session_factory(engine)() as session, session.begin():
            await session.execute(text("SET TRANSACTION READ ONLY"))
            found += judge_future(await health_queries.from_the_future(session))
            leader = await find_leader(session)
            found += judge_beats(await health_queries.silences(session), leader, lease)
            forgotten = await health_queries.forgotten(session, timedelta(seconds=FORGOTTEN_SECONDS))
            found += [
                (
                    "locks",
                    "warning",
                    f"{clean(application) or 'A program'} has kept an idle transaction open for {_say(seconds)} "
                    f"(PostgreSQL's pid {pid}); other transactions may wait for its locks.",
                    f"If it is not needed, end it: SELECT pg_terminate_backend({pid})",
                )
                for pid, application, seconds in forgotten
            ]
            found += _machines(
                await health_queries.offline(session, lease), await health_queries.machine_states(session, lease)
            )
            found += _queue((await health_queries.read(session, lease)).queue)
            if settings.why_login is not None and not await tokens.any_exists(session):
                found.append(
                    (
                        "login", "problem", f"{settings.why_login}, so every request needs a token, and there is none.",
                        "Create one: simulations token create NAME --role admin",
                    )
                )  # fmt: skip
        return found
    finally:
        await engine.dispose()


def judge_clock(offset_seconds: float) -> Found:
    """offset_seconds: by how much this host's clock is ahead of the database's."""
    if abs(offset_seconds) <= CLOCK_SECONDS:
        return "clock", "ok", "This host's clock and the database's agree.", ""
    which = "ahead of" if offset_seconds > 0 else "behind"
    return (
        "clock",
        "warning",
        f"This host's clock is {_say(abs(offset_seconds))} {which} the database's.",
        "Synchronise both by NTP. Decisions use the database's clock; this host's log uses its own.",
    )


def judge_future(seconds: float) -> list[Found]:
    """seconds: by how much the newest heartbeat lies ahead of the database's clock."""
    if seconds <= CLOCK_SECONDS:
        return []
    return [
        (
            "clock",
            "problem",
            f"The database's clock was set back: a heartbeat lies {_say(seconds)} in the future.",
            "Synchronise it by NTP. Until then silent machines and attempts are not detected.",
        )
    ]


def judge_beats(silences: Mapping[str, float], leader: Leader | None, lease: timedelta) -> list[Found]:
    """Check the heartbeats: a role without one for a third of a lease counts as down."""
    bound = (lease / 3).total_seconds()
    found: list[Found] = []
    for role, what, advice in (
        ("graph", "No graph process is alive, so no report can be delivered", NO_GRAPH),
        ("scheduler", "No scheduler plans", NO_SCHEDULER),
    ):
        silence = silences.get(role)
        if silence is not None and silence <= bound:
            found.append((role, "ok", f"A {role} process is alive.", ""))
        elif role == "scheduler" and leader is not None:
            where = f" from {leader.address}" if leader.address else ""
            found.append(
                (
                    role,
                    "problem",
                    f"The scheduler that leads hangs: it holds the lock{where} (PostgreSQL's pid {leader.pid}), "
                    f"and has not planned {f'for {_say(silence)}' if silence is not None else 'yet'}.",
                    "Restart it; this frees the lock, and another scheduler takes over.",
                )
            )
        else:
            since = f" for {_say(silence)}" if silence is not None else ""
            found.append((role, "problem", f"{what}{since}.", advice))
    if leader is None and silences.get("scheduler", bound + 1) <= bound:
        found.append(("scheduler", "warning", "No scheduler holds the lock now.", "Check again in a moment."))
    return found


def judge_connections(used: int, most: int) -> list[Found]:
    """Warn if the server's connections are nearly used up."""
    if used < CROWDED * most:
        return []
    return [
        (
            "database",
            "warning",
            f"{used} of PostgreSQL's {most} connections are in use.",
            "Raise max_connections, or lower SIMULATIONS_DATABASE_POOL_SIZE.",
        )
    ]


async def _version(session: AsyncSession) -> str:
    version = str(await session.scalar(text("SHOW server_version"))).partition(" ")[0]
    size = await session.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
    return f"PostgreSQL {version} answers; the database takes {size}."


async def _clock(session: AsyncSession) -> list[Found]:
    best: tuple[float, float] | None = None  # the fastest answer is the most precise
    for _ in range(3):
        sent = time.time()
        theirs = await session.scalar(text("SELECT clock_timestamp()"))
        took = time.time() - sent
        assert isinstance(theirs, datetime)
        offset = sent + took / 2 - theirs.timestamp()
        best = min(best, (took, offset)) if best is not None else (took, offset)
    assert best is not None
    return [judge_clock(best[1])]


def _machines(offline: Sequence[tuple[str, float | None]], states: Mapping[str, int]) -> Iterator[Found]:
    for name, seconds in offline:
        since = f"for {_say(seconds)}" if seconds is not None else "yet"
        yield (
            "machines",
            "warning",
            f"The machine {clean(name)} has sent no heartbeat {since}.",
            "Start the scheduler of its host; or, if it is gone permanently: simulations machines delete NAME",
        )
    online = sum(count for state, count in states.items() if state != "OFFLINE")
    if not states:
        yield "machines", "warning", "There is no machine.", "The scheduler of a host creates one when it starts."
    elif online:
        yield "machines", "ok", f"{online} of {say_count(sum(states.values()), 'machine')} online.", ""


def _queue(queue: Mapping[str, health_queries.Queue]) -> Iterator[Found]:
    stuck = queue.get("NO_MACHINE_FITS")
    if stuck is not None:
        need = say_count(stuck.count, "simulation needs", "simulations need")
        yield (
            "queue",
            "warning",
            f"{need} a machine that does not exist; the first has waited for {_say(stuck.oldest_seconds)}.",
            "`simulations list --state queued` shows which requirement fails.",
        )


def _say(seconds: float) -> str:
    return say_duration(timedelta(seconds=seconds))
