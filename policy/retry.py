"""Rules for the end of an attempt: the meaning of an exit, silence and loss, stops, and retries.

SQL finds the candidates, these functions judge them, `transitions` carries the verdict out. Reasons are plain strings,
the values of `db.states.Reason`, because this package imports no other one. No function fails: every ending has a
verdict.
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
MAX_COST = "MAX_COST"
PREEMPTED = "PREEMPTED"

# Reasons allowed in `limits.retryOn`. The schema is made from this list; CLI and page, which import nothing of the
# service, have one copy each, and a test compares them.
# Limits and stop rules are not among them: the next attempt would end in the same way.
RETRYABLE = (MACHINE_LOST, EXIT_CODE, LAUNCH_ERROR)
MOST_BACKOFFS = 100  # what `SIMULATIONS_RETRY_BACKOFF_SECONDS` promises: doubled, at most to a hundred times it

LIMITS = frozenset({MAX_RUNTIME, MAX_COST})  # which the supervisor enforces by itself

OVERTIME = timedelta(seconds=15)  # how much slower than Postgres' clock a supervisor's may run
MEETING = timedelta(seconds=60)  # from the first hello of an attempt's members to the last
LEAVING = timedelta(seconds=15)  # beyond the grace of a stop: to report the exit, receive OVER and end

_MOST_DOUBLINGS = 7  # 2 ** 7 is more than MOST_BACKOFFS


# --- retry or final --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt's end, and the retries that its simulation allows."""

    reason: str
    attempts_made: int  # this one included, preempted ones not
    max_retries: int
    retry_on: frozenset[str]
    stop_wanted: str | None  # the reason of the attempt's stop intent
    is_spent: bool = False  # its cost has reached `limits.maxCost`


@dataclass(frozen=True, slots=True)
class Retry:
    """Verdict: back to the queue, and not planned before `after` has passed; `reason` is the attempt's."""

    after: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Final:
    """Verdict: the simulation has ended, for this reason."""

    reason: str


def after_attempt(ended: Ended, *, backoff: timedelta) -> Retry | Final:
    """Decide between another attempt and the end.

    A completed attempt is final, even if a stop was wanted a moment before. Otherwise a wanted stop is final: whether
    the attempt died of the stop, failed by itself or was lost, there is no further attempt. Otherwise the simulation is
    retried for the chosen reasons, up to `max_retries` times.

    A preempted simulation goes back at once and uses up no retry, however its attempt ended; it ends only if its limit
    is exceeded by then. There is no further attempt without money for it.
    """
    if ended.reason == COMPLETED:
        return Final(COMPLETED)
    verdict = _if_paid(ended, backoff)
    return Final(MAX_COST) if ended.is_spent and isinstance(verdict, Retry) else verdict


def _if_paid(ended: Ended, backoff: timedelta) -> Retry | Final:
    if ended.stop_wanted == PREEMPTED:
        return Final(ended.reason) if ended.reason in LIMITS else Retry(timedelta(0), PREEMPTED)
    if ended.stop_wanted is not None:
        return Final(ended.stop_wanted)
    chosen = ended.reason in ended.retry_on and ended.reason in RETRYABLE
    if chosen and ended.attempts_made <= ended.max_retries:
        return Retry(_pause(ended, backoff), ended.reason)
    return Final(ended.reason)


def _pause(ended: Ended, backoff: timedelta) -> timedelta:
    """Backoff: doubled with each retry, at most a hundred times the first; none after a first loss.

    A lost machine is no reason to expect that the work fails again, so the first retry after it starts at once.
    """
    if ended.reason == MACHINE_LOST and ended.attempts_made <= 1:
        return timedelta(0)
    doublings = min(max(ended.attempts_made - 1, 0), _MOST_DOUBLINGS)
    return backoff * min(1 << doublings, MOST_BACKOFFS)


# --- what an exit means ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exit:
    """Exit of the child process, as reported by its supervisor."""

    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None  # why the supervisor ended or did not start it; None: it ended by itself
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """Reason and detail of the attempt's end that follow from an exit."""

    reason: str
    detail: str | None  # a sentence
    exit_code: int | None
    signal: int | None


def meaning_of(exit_: Exit, stop_wanted: str | None) -> Meaning:
    """Distinguish an end by a limit or a stop from an exit code or signal of the simulation's own.

    MACHINE_LOST: the machine was shut down, and the exit after its SIGTERM, perhaps with code 0, is not that of the
    simulation.
    """
    # Another stop may have replaced a preemption while the supervisor carried it out.
    if stop_wanted is not None and exit_.reason in (stop_wanted, PREEMPTED):
        return Meaning(stop_wanted, exit_.message, exit_.exit_code, exit_.signal)
    if exit_.reason == LAUNCH_ERROR:
        return Meaning(LAUNCH_ERROR, exit_.message, None, None)
    if exit_.reason == MACHINE_LOST or exit_.reason in LIMITS:
        return Meaning(exit_.reason, exit_.message, exit_.exit_code, exit_.signal)
    if exit_.exit_code == 0:
        return Meaning(COMPLETED, None, 0, None)
    return Meaning(EXIT_CODE, exit_.message or _sentence(exit_), exit_.exit_code, exit_.signal)


def completes(exit_: Exit) -> bool:
    """Whether an exit is that of a completed attempt, whatever stop is wanted: nothing else is left to judge."""
    return exit_.reason is None and exit_.exit_code == 0


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
    """Return the time since which this role beats without a gap; None if it does not, or the clock has jumped."""
    if beats is None or beats.beat_at < now - coverage_gap(lease):
        return None
    return beats.covered_since


def heard_since(listening: Listening, lease: timedelta) -> datetime | None:
    """Return the time since which reports could arrive: a graph process and the scheduler beat; None if not now."""
    graph = covered_since(listening.graph, listening.now, lease)
    scheduler = covered_since(listening.scheduler, listening.now, lease)
    return max(graph, scheduler) if graph is not None and scheduler is not None else None


def is_silent(heartbeat_at: datetime, listening: Listening, lease: timedelta, leases: int = 1) -> bool:
    """Whether an attempt sent no report for `leases` whole leases during which reports could have arrived.

    So a machine switched off at night, or a database that was down, makes no living attempt silent.
    """
    heard = heard_since(listening, lease)
    begin = listening.now - leases * lease
    return heard is not None and heard <= begin and heartbeat_at < begin


def is_lost(heartbeat_at: datetime, listening: Listening, lease: timedelta, *, host_lives: bool) -> bool:
    """Whether a silent attempt is given up without proof that its supervisor is dead.

    If the host's scheduler lives, it has another lease to kill the supervisor and prove it dead.
    """
    return is_silent(heartbeat_at, listening, lease, 2 if host_lives else 1)


# --- stops -----------------------------------------------------------------------------------------------------


def is_overdue(
    started_at: datetime, limit: timedelta, listening: Listening, lease: timedelta, grace: timedelta
) -> bool:
    """Whether an attempt runs on although its limit, the grace of a stop and OVERTIME have passed.

    The supervisor enforces the limit itself, unless its clock is wrong. Time counts only while the scheduler missed no
    tick: an hour by which the clock jumped is no runtime, not even if it jumped since the last tick.
    """
    since = covered_since(listening.scheduler, listening.now, lease)
    return since is not None and max(started_at, since) + limit + grace + OVERTIME < listening.now


def is_unwatched(present_since: datetime, grace: timedelta, listening: Listening, lease: timedelta) -> bool:
    """Whether an attended attempt had no subscriber for its grace, while subscribing was possible.

    present_since: the newest of its assignment, its begin and the loss of its last subscriber. While no graph process
    beats, subscribing is impossible, and so nothing is stopped.
    """
    since = covered_since(listening.graph, listening.now, lease)
    return since is not None and max(present_since, since) + grace < listening.now


def is_incomplete(greeted_at: datetime, listening: Listening, lease: timedelta) -> bool:
    """Whether the other members of an attempt had MEETING to say hello after the first, and did not.

    Time counts only while hellos could arrive.
    """
    heard = heard_since(listening, lease)
    return heard is not None and max(greeted_at, heard) + MEETING < listening.now


def ignores_stop(wanted_at: datetime | None, listening: Listening, lease: timedelta, grace: timedelta) -> bool:
    """Whether a supervisor had enough time to receive a stop and report the exit, and did not."""
    heard = heard_since(listening, lease)
    return wanted_at is not None and heard is not None and listening.now - max(wanted_at, heard) > grace + lease


def has_outstayed(reason: str | None, ended_at: datetime, now: datetime, grace: timedelta) -> bool:
    """Whether the supervisor of an ended attempt has to be killed.

    A lost attempt may have a successor already, so it gets no time. Others are about to receive OVER and exit.
    """
    return reason == MACHINE_LOST or now - ended_at > grace + LEAVING
