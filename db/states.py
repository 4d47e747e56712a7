"""Enums stored in rows: states, reasons, roles. Allowed transitions are in `lifecycle`."""

from __future__ import annotations

from enum import StrEnum


class SimulationState(StrEnum):
    """Where a simulation stands."""

    QUEUED = "QUEUED"  # put here by createSimulation or a retry; taken out by the planner, or by cancel
    STARTING = "STARTING"  # the planner assigned a machine; until the supervisor says hello
    RUNNING = "RUNNING"  # the supervisor said hello; until it reports the end, or is lost
    FINISHED = "FINISHED"  # final
    FAILED = "FAILED"  # final
    CANCELLED = "CANCELLED"  # final

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({SimulationState.FINISHED, SimulationState.FAILED, SimulationState.CANCELLED})


class Reason(StrEnum):
    """Why an attempt ended, and with it, unless it is retried, the simulation."""

    COMPLETED = "COMPLETED"  # exit code 0
    CANCELLED = "CANCELLED"  # a user cancelled it
    EXIT_CODE = "EXIT_CODE"  # another exit code, or a signal
    LAUNCH_ERROR = "LAUNCH_ERROR"  # it never began: no such command, no such directory
    MACHINE_LOST = "MACHINE_LOST"  # no report for a lease, or the engine proved it dead
    MAX_RUNTIME = "MAX_RUNTIME"  # it took longer than its limit
    MAX_COST = "MAX_COST"  # it cost as much as its limit
    STOPPING_THRESHOLD = "STOPPING_THRESHOLD"  # a metric reached its target
    PATIENCE_EXHAUSTED = "PATIENCE_EXHAUSTED"  # a metric improves no more
    PRUNED = "PRUNED"  # too many other trials of its sweep were better at the same step
    DIVERGENCE_THRESHOLD = "DIVERGENCE_THRESHOLD"  # a metric became worse than its bound
    NON_FINITE_METRIC = "NON_FINITE_METRIC"  # the objective became NaN or infinite
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"  # a budget of its project, or of the installation, was nearly used up
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"  # what it was to run after has ended otherwise
    UNWATCHED = "UNWATCHED"  # attended, and without a watcher for its grace
    PREEMPTED = "PREEMPTED"  # of attempts only: its machine was wanted for another one, and it goes back to the queue


class MetricMode(StrEnum):
    """Which way a metric is to go."""

    MIN = "MIN"  # a loss: unless createSimulation says otherwise
    MAX = "MAX"  # an accuracy


class MetricsFrom(StrEnum):
    """Which lines of its output a simulation's points are read from, beside those of its patterns."""

    AUTO = "AUTO"  # JSON lines, and known forms of text
    JSON = "JSON"  # JSON lines alone
    NONE = "NONE"  # no line


class MachineState(StrEnum):
    """Whether a machine takes work. Derived from its row, never stored."""

    ONLINE = "ONLINE"  # heard of within a lease
    DRAINING = "DRAINING"  # takes nothing new; what runs goes on
    OFFLINE = "OFFLINE"  # not heard of for a lease


class LogStream(StrEnum):
    """Who wrote a line of the log."""

    STDOUT = "STDOUT"
    STDERR = "STDERR"
    SUPERVISOR = "SUPERVISOR"


class FileKind(StrEnum):
    """Which of a simulation's kept directories a file is in."""

    CHECKPOINT = "CHECKPOINT"  # SIMULATION_CHECKPOINT_DIR
    OUTPUT = "OUTPUT"  # SIMULATION_OUTPUT_DIR


class Role(StrEnum):
    """What a token may do, and each role before it; which operation needs which: graph/operation/permissions.py."""

    VIEWER = "VIEWER"  # reads and watches
    OPERATOR = "OPERATOR"  # submits, cancels, retries, deletes simulations
    ADMIN = "ADMIN"  # also machines and tokens

    @property
    def rank(self) -> int:
        return tuple(Role).index(self)
