"""The leader among schedulers, and the one that looks after a cluster: sessions that hold advisory locks.

The locks are taken by `scheduler.leader`; here are their numbers and the statement that finds the leader.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

LEADER_LOCK = 0x53_69_6D_50_6C_61_6E  # "SimPlan": advisory locks are numbers, and belong to one database

_LEADER = text(
    "SELECT a.pid, host(a.client_addr), extract(epoch FROM clock_timestamp() - a.backend_start)::float8"
    " FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid = :high AND l.objid = :low"
)


def lock_of_engine(name: str) -> int:
    """Return the number of the lock whose holder looks after an engine that is not bound to one host."""
    return int.from_bytes(sha256(f"engine {name}".encode()).digest()[:8], signed=True)


@dataclass(frozen=True, slots=True)
class Leader:
    """The session that holds the planners' lock."""

    pid: int  # of Postgres' process
    address: str | None  # None: through a unix socket
    seconds: float


async def find_leader(session: AsyncSession) -> Leader | None:
    """Find the session of the scheduler that plans; None: none does."""
    keys = {"high": LEADER_LOCK >> 32, "low": LEADER_LOCK & 0xFFFFFFFF}
    row = (await session.execute(_LEADER, keys)).one_or_none()
    return Leader(*row) if row is not None else None
