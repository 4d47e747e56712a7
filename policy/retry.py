"""What happens after an attempt has ended, and when silence means that it has.

Reasons are plain strings here, for this room imports nothing of ours: they are the values of `db.states.Reason`.
Nothing fails: every ending has an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

COMPLETED = "COMPLETED"
CANCELLED = "CANCELLED"

# More doublings than this reach any `longest` from any `backoff`, and the power stays a small number.
_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended and what its simulation allows."""

    reason: str
    attempts_made: int  # this one included
    max_retries: int
    retry_on: frozenset[str]
    stop_wanted: str | None  # the reason of the stop that somebody asked for


@dataclass(frozen=True, slots=True)
class Retry:
    """Back to the queue, not to be planned before `after` has passed."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class Final:
    """The simulation has ended, for this reason."""

    reason: str


def after_attempt(ended: Ended, *, backoff: timedelta, longest: timedelta) -> Retry | Final:
    """Decide between another attempt and the end.

    Work that completed is complete, even if somebody wanted it stopped a moment before. Otherwise a stop that is
    wanted wins: whether the attempt died of it, failed by itself or was lost, nobody wants another one. Otherwise it
    is retried for the reasons chosen, up to `max_retries` times, after a pause that doubles from `backoff` up to
    `longest`.
    """
    if ended.reason == COMPLETED:
        return Final(COMPLETED)
    if ended.stop_wanted is not None:
        return Final(ended.stop_wanted)
    chosen = ended.reason in ended.retry_on and ended.reason != CANCELLED
    if chosen and ended.attempts_made <= ended.max_retries:
        return Retry(_pause(ended.attempts_made, backoff, longest))
    return Final(ended.reason)


def lost(
    silent_for: timedelta, lease: timedelta, graph_covered: timedelta | None, scheduler_covered: timedelta | None
) -> bool:
    """Judge whether an attempt that has been silent for so long is lost.

    Only if it could have been heard all the while: for one whole lease some graph process beat and the scheduler
    missed no tick. `*_covered`: for how long without a gap, None if there is a gap right now. A night switched off
    or a database that was down thus loses no attempt that is still alive.
    """
    if graph_covered is None or scheduler_covered is None:
        return False
    return silent_for > lease and graph_covered >= lease and scheduler_covered >= lease


def _pause(attempts_made: int, backoff: timedelta, longest: timedelta) -> timedelta:
    factor = 2 ** min(max(attempts_made - 1, 0), _MOST_DOUBLINGS)
    # Compared by division, because the product may be more than a timedelta can hold.
    return longest if backoff > longest / factor else min(backoff * factor, longest)
