"""What is due in a planner's round: one statement, which is the scheduler's heartbeat as well.

Each flag answers whether a step of the round may have candidates, by the condition of the function that finds them: a
step whose flag is False has none and is skipped. A round in which nothing is due reads the first entry of some partial
indexes, however many rows have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from db.attempts import UNWANTED
from db.outage import Driver
from db.overview import UNFOLDED
from db.silence import BEAT, BEYOND_LIMIT, QUIET
from db.watch_leases import UNWATCHED


@dataclass(frozen=True, slots=True)
class Due:
    """Whether each step may have candidates."""

    clock: bool  # a time in the future: a clock set back (`silence.forgive_clock`), or only a backoff
    leases: bool  # `watch_leases.sweep`
    quiet: bool  # `silence.find_quiet`
    unwanted: bool  # `attempts.find_unwanted`
    overdue: bool  # `silence.find_beyond_limit`
    priced: bool  # `silence.find_with_max_cost`
    unwatched: bool  # `watch_leases.find_unwatched`
    drained: bool  # `machines.find_overstayers`
    budgets: bool  # `budgets.every`
    sweeps: bool  # `sweeps.active`
    counts: bool  # `overview.fold`
    queue: bool  # something is queued, and not held


# The newest entry of the queue is one entry of an index: EXISTS would read the table where statistics promise an early
# find.
_LOOK = f"""
    WITH beat AS ({BEAT})
    SELECT coalesce(queue.newest > now(), false)
               OR EXISTS (SELECT FROM members WHERE ended_at IS NULL AND heartbeat_at > now()),
           EXISTS (SELECT FROM watchers),
           EXISTS ({QUIET.format(lease="$3::interval")}),
           EXISTS ({UNWANTED}),
           EXISTS ({BEYOND_LIMIT}),
           EXISTS (SELECT FROM simulations WHERE max_cost IS NOT NULL AND state IN ('STARTING', 'RUNNING')),
           EXISTS ({UNWATCHED}),
           EXISTS (SELECT FROM machines WHERE draining AND drain_deadline <= now()),
           EXISTS (SELECT FROM budgets),
           EXISTS (SELECT FROM sweeps WHERE ended_at IS NULL),
           EXISTS ({UNFOLDED}),
           queue.newest IS NOT NULL
    FROM (SELECT max(queued_at) AS newest FROM simulations WHERE state = 'QUEUED' AND NOT held) AS queue
"""  # noqa: S608  # constants


async def find_due(driver: Driver, role: str, gap: timedelta, lease: timedelta) -> Due:
    """Beat as `silence.beat` does, and find what is due. lease: after which an attempt is quiet."""
    row = await driver.fetchrow(_LOOK, role, gap, lease)
    assert row is not None
    return Due(*row)
