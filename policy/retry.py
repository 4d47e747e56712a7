"""The end of an attempt: what an exit means, when silence is a loss, when it is stopped, and whether it is retried.

SQL finds the candidates, these functions judge them, `transitions` carries the verdict out. Reasons are plain strings
here, for this room imports nothing of ours: they are the values of `db.states.Reason`. Nothing fails: every ending has
an answer.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

COMPLETED = "COMPLETED"
EXIT_CODE = "EXIT_CODE"
LAUNCH_ERROR = "LAUNCH_ERROR"
MACHINE_LOST = "MACHINE_LOST"
MAX_RUNTIME = "MAX_RUNTIME"
PREEMPTED = "PREEMPTED"

# What `limits.retryOn` may name. CLI and page have the same list; a test compares all three.
RETRYABLE = (MACHINE_LOST, EXIT_CODE, LAUNCH_ERROR)
MOST_BACKOFFS = 100  # what `SIMULATIONS_RETRY_BACKOFF_SECONDS` promises: doubled, at most to a hundred times it

OVERTIME = timedelta(seconds=15)  # how much slower than Postgres' clock a supervisor's may run
LEAVING = timedelta(seconds=15)  # beyond the grace of a stop: to report the end, hear that it is over and leave

_MOST_DOUBLINGS = 7  # 2 ** 7 is more than MOST_BACKOFFS


# --- retry or final --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended and what its simulation allows."""

    reason: str
    attempts_made: int  # this one included, preempted ones not
    max_retries: int
    retry_on: frozenset[str]
    stop_wanted: str | None  # the reason of the attempt's stop intent


@dataclass(frozen=True, slots=True)
class Retry:
    """Back to the queue, not to be planned before `after` has passed; the attempt has ended for `reason`."""

    after: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Final:
    """The simulation has ended, for this reason."""

    reason: str


def after_attempt(ended: Ended, *, backoff: timedelta) -> Retry | Final:
    """Decide between another attempt and the end.

    Work that completed is complete, even if a stop was wanted a moment before. Otherwise a stop that is wanted wins:
    whether the attempt died of it, failed by itself or was lost, another one is not wanted. Otherwise it is retried for
    the reasons chosen, up to `max_retries` times.

    What was preempted goes back at once and uses up no retry, however it ended; only what has exceeded its limit by
    then has no time left.
    """
    if ended.reason == COMPLETED:
        return Final(COMPLETED)
    if ended.stop_wanted == PREEMPTED:
        return Final(MAX_RUNTIME) if ended.reason == MAX_RUNTIME else Retry(timedelta(0), PREEMPTED)
    if ended.stop_wanted is not None:
        return Final(ended.stop_wanted)
    chosen = ended.reason in ended.retry_on and ended.reason in RETRYABLE
    if chosen and ended.attempts_made <= ended.max_retries:
        return Retry(_pause(ended, backoff), ended.reason)
    return Final(ended.reason)


def _pause(ended: Ended, backoff: timedelta) -> timedelta:
    """How long it waits: doubled with each retry, at most a hundred times the first; a first loss waits for nothing.

    A lost machine is no reason to expect that the work fails again, so the first retry after it starts at once.
    """
    if ended.reason == MACHINE_LOST and ended.attempts_made <= 1:
        return timedelta(0)
    doublings = min(max(ended.attempts_made - 1, 0), _MOST_DOUBLINGS)
    return backoff * min(1 << doublings, MOST_BACKOFFS)


# --- what an exit means ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exit:
    """How the child process ended, as its supervisor reports it."""

    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None  # why the supervisor ended it, or why there was nothing to end; None: it ended by itself
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an exit is as an ending of the attempt."""

    reason: str
    detail: str | None  # a sentence
    exit_code: int | None
    signal: int | None


def meaning_of(exit_: Exit, stop_wanted: str | None) -> Meaning:
    """Tell a limit or a stop that ended it from an exit code or signal of its own.

    MACHINE_LOST: its machine was shut down under it, and what it made of the SIGTERM, exit code 0 perhaps, is not its
    own end.
    """
    # A preemption may have been replaced by another stop while the supervisor was about it.
    if stop_wanted is not None and exit_.reason in (stop_wanted, PREEMPTED):
        return Meaning(stop_wanted, exit_.message, exit_.exit_code, exit_.signal)
    if exit_.reason == LAUNCH_ERROR:
        return Meaning(LAUNCH_ERROR, exit_.message, None, None)
    if exit_.reason in (MACHINE_LOST, MAX_RUNTIME):
        return Meaning(exit_.reason, exit_.message, exit_.exit_code, exit_.signal)
    if exit_.exit_code == 0:
        return Meaning(COMPLETED, None, 0, None)
    return Meaning(EXIT_CODE, exit_.message or _sentence(exit_), exit_.exit_code, exit_.signal)


def _sentence(exit_: Exit) -> str:
    if exit_.signal is None:
        return f"It ended with exit code {exit_.exit_code}."
    try:
        name = signal.Signals(exit_.signal).name
    except ValueError:
        name = "unknown"
    return f"It was ended by signal {exit_.signal} ({name})."


# --- silence and losses ----------------------------------------------------------------------------------------


class Beats(Protocol):
    """The beats of one role (graph, scheduler): without a gap since `covered_since`, the newest at `beat_at`."""

    @property
    def covered_since(self) -> datetime: ...
    @property
    def beat_at(self) -> datetime: ...


class Listening(Protocol):
    """The beats of each role, None before its first, and the time at which they were read, all by one clock."""

    @property
    def now(self) -> datetime: ...
    @property
    def graph(self) -> Beats | None: ...
    @property
    def scheduler(self) -> Beats | None: ...


def coverage_gap(lease: timedelta) -> timedelta:
    """Return how long a role may be silent and still cover: a third of a lease, so that a slow round breaks nothing."""
    return lease / 3


def beat_period(lease: timedelta) -> timedelta:
    """Return how long a role waits from one beat to the next at most: three of them fit into a gap."""
    return coverage_gap(lease) / 3


def covered_since(beats: Beats | None, now: datetime, lease: timedelta) -> datetime | None:
    """Return since when this role has beaten without a gap; None: it does not now, or the clock has jumped."""
    if beats is None or beats.beat_at < now - coverage_gap(lease):
        return None
    return beats.covered_since


def heard_since(listening: Listening, lease: timedelta) -> datetime | None:
    """Return since when reports could come in, None if they can't now: some graph process beat, the scheduler too."""
    graph = covered_since(listening.graph, listening.now, lease)
    scheduler = covered_since(listening.scheduler, listening.now, lease)
    return max(graph, scheduler) if graph is not None and scheduler is not None else None


def is_silent(heartbeat_at: datetime, listening: Listening, lease: timedelta, leases: int = 1) -> bool:
    """Whether nothing was heard of an attempt for so many whole leases in which it could have been heard.

    A night switched off or a database that was down thus makes no attempt silent that is still alive.
    """
    heard = heard_since(listening, lease)
    begin = listening.now - leases * lease
    return heard is not None and heard <= begin and heartbeat_at < begin


def is_lost(heartbeat_at: datetime, listening: Listening, lease: timedelta, *, host_lives: bool) -> bool:
    """Whether a silent attempt is given up without proof that its supervisor is dead.

    Where the host's own scheduler lives, that one has another lease to prove it, and ends the supervisor first.
    """
    return is_silent(heartbeat_at, listening, lease, 2 if host_lives else 1)


# --- stops -----------------------------------------------------------------------------------------------------


def is_overdue(
    started_at: datetime, limit: timedelta, listening: Listening, lease: timedelta, grace: timedelta
) -> bool:
    """Whether an attempt runs on although its limit, the grace of a stop and OVERTIME have passed.

    Its supervisor stops it by itself, unless its clock is wrong. Counted only while the scheduler missed no tick: an
    hour by which the clock jumped is no runtime, and neither is one by which it has jumped since the last tick.
    """
    since = covered_since(listening.scheduler, listening.now, lease)
    return since is not None and max(started_at, since) + limit + grace + OVERTIME < listening.now


def is_unwatched(present_since: datetime, grace: timedelta, listening: Listening, lease: timedelta) -> bool:
    """Whether an attended attempt had no subscriber for its grace, in which it could have had one.

    present_since: when it was assigned, began or lost its last subscriber, the newest of these. While no graph process
    beats, subscribing is impossible, and so nothing is stopped.
    """
    since = covered_since(listening.graph, listening.now, lease)
    return since is not None and max(present_since, since) + grace < listening.now


def ignores_stop(wanted_at: datetime | None, listening: Listening, lease: timedelta, grace: timedelta) -> bool:
    """Whether a supervisor had time enough to receive a stop and to report what came of it, and did not."""
    heard = heard_since(listening, lease)
    return wanted_at is not None and heard is not None and listening.now - max(wanted_at, heard) > grace + lease


def has_outstayed(reason: str | None, ended_at: datetime, now: datetime, grace: timedelta) -> bool:
    """Whether the supervisor of an attempt that has ended is to be ended too.

    A lost one may have a successor already: it gets no time. Any other is about to receive OVER and to leave.
    """
    return reason == MACHINE_LOST or now - ended_at > grace + LEAVING
