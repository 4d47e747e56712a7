"""The one transaction by which the scheduler ends an attempt: lock, look again, ask `policy.rescue`, end or requeue.

An attempt that ended by itself in the meantime is left as it is. What supervisors report about their own end is
settled in `graph`, by the same policy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import events, lifecycle
from db.lifecycle import Ending
from db.models import Attempt
from db.states import Reason
from policy.retry import Ended, Retry, after_attempt
from settings import Settings

log = structlog.get_logger()

Sessions: TypeAlias = async_sessionmaker[AsyncSession]
StillSo: TypeAlias = Callable[[AsyncSession], Awaitable[bool]]

STOPPED_EARLY = Ending(Reason.CANCELLED, "It was stopped before it began.")
MOST_BACKOFFS = 100  # what `retry_backoff_seconds` promises: doubled, at most to a hundred times it


async def settle(
    sessions: Sessions, settings: Settings, attempt: Attempt, ending: Ending, *, still_so: StillSo | None = None
) -> bool:
    """End an attempt if it is still current; whether it was. `still_so` is asked under the simulation's lock."""
    async with sessions.begin() as session:
        simulation = await lifecycle.lock(session, attempt.simulation_id)
        if simulation is None or (still_so is not None and not await still_so(session)):
            return False
        backoff = timedelta(seconds=settings.retry_backoff_seconds)
        verdict = after_attempt(
            Ended(
                reason=ending.reason.value,
                attempts_made=attempt.number,
                max_retries=simulation.max_retries,
                retry_on=frozenset(simulation.retry_on),
                stop_wanted=simulation.stop_reason.value if simulation.stop_reason else None,
            ),
            backoff=backoff,
            longest=MOST_BACKOFFS * backoff,
        )
        retry_after = verdict.after if isinstance(verdict, Retry) else None
        if not isinstance(verdict, Retry):
            ending = replace(ending, reason=Reason(verdict.reason))
        ended = await lifecycle.end(
            session, attempt.simulation_id, attempt.number, ending, events.PLANNER, retry_after=retry_after
        )
    if ended:
        log.info(
            "attempt_ended",
            simulation_id=attempt.simulation_id,
            attempt_id=attempt.id,
            attempt=attempt.number,
            reason=ending.reason.value,
            detail=ending.detail,
            retry_after_seconds=retry_after.total_seconds() if retry_after is not None else None,
        )
    return ended
