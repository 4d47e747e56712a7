"""The enums of db and policy as GraphQL enums, with descriptions, and definitions that several types share.

Import them from here, not from where they are defined: so they are described before a type uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

from db.alert_targets import Transport as AlertTransport
from db.costs import Key as CostGroup
from db.listing import Comparison, Sort
from db.states import FileKind, LogStream, MachineState, MetricMode, MetricsFrom, Reason, Role, SimulationState
from policy.alerts import AlertKind
from policy.budget import Period as BudgetPeriod
from policy.dependencies import DependencyCondition
from policy.queue_order import Rule as QueueRule
from policy.savings import End as SavedBy
from policy.search_space import Sampler as SweepSampler
from policy.sweep_progress import SweepReason
from policy.waiting import WaitingReason

__all__ = [
    "AlertKind", "AlertTransport", "BudgetPeriod", "Comparison", "CostGroup", "DependencyCondition",
    "FileKind", "LogStream", "MachineState", "MetricMode", "MetricsFrom", "QueueRule", "Reason", "Role", "SavedBy",
    "SimulationState", "Sort", "SweepReason", "SweepSampler", "WaitingReason", "described",
]  # fmt: skip

Kind = TypeVar("Kind", bound=StrEnum)


def described(description: str, *, name: str | None = None, **meanings: str) -> Callable[[type[Kind]], type[Kind]]:
    """Make an enum one of the schema's. meanings: of each of its members, by name; none may be left out."""

    def describe(kind: type[Kind]) -> type[Kind]:
        strawberry.enum(kind, name=name, description=description)
        definition: StrawberryEnumDefinition = getattr(kind, "__strawberry_definition__")  # noqa: B009  # set just now
        for value in definition.values:
            value.description = meanings[value.name]
        return kind

    return describe


described(
    "The state of a simulation. The last three are final.",
    QUEUED="It waits for a machine, for its first attempt or a retry.",
    STARTING="A machine is assigned; its supervisor's hello has not arrived yet.",
    RUNNING="It is running: its supervisor's hello has arrived.",
    FINISHED="It finished successfully, or was stopped as intended.",
    FAILED="It failed, and is not retried.",
    CANCELLED="A user cancelled it.",
)(SimulationState)
described(
    "What the end of a run that was stopped is taken from.",
    name="SavedBy",
    MAX_STEPS="Its `maxSteps`.",
    FORECAST="Where completed runs of the same name ended: their median.",
)(SavedBy)
described(
    "Which lines of its output a simulation's points are read from, beside those that its patterns match.",
    AUTO="JSON lines, and the known forms of text of training programs and solvers.",
    JSON="JSON lines alone.",
    NONE="No lines.",
)(MetricsFrom)
described(
    "Why an attempt ended; the reason of the last attempt is its simulation's.",
    COMPLETED="Its exit code was 0.",
    CANCELLED="A user cancelled it.",
    EXIT_CODE="Its exit code was not 0, or a signal ended it.",
    LAUNCH_ERROR="It could not be started, for example without such a command or directory.",
    MACHINE_LOST="No heartbeat arrived for a whole lease, or its engine found its process dead.",
    MAX_RUNTIME="It exceeded its maximum run time.",
    MAX_COST="It reached its maximum cost.",
    STOPPING_THRESHOLD="A stop rule: its metric reached the target.",
    PATIENCE_EXHAUSTED="A stop rule: its metric stopped improving.",
    PRUNED="Its sweep: too many other trials were better at the same step.",
    DIVERGENCE_THRESHOLD="A stop rule: its metric became worse than the bound.",
    NON_FINITE_METRIC="A stop rule: the objective became NaN or infinite.",
    BUDGET_EXHAUSTED="It was stopped before a budget was used up.",
    DEPENDENCY_FAILED="A simulation that it was to run after has ended otherwise: it can never run.",
    UNWATCHED="It is attended, and had no subscriber for longer than its grace.",
    PREEMPTED="Of attempts only: another simulation took its place, and its own was queued again.",
)(Reason)
described(
    "Whether a machine accepts new attempts.",
    ONLINE="It accepts new attempts.",
    DRAINING="It accepts no new attempts; running ones continue.",
    OFFLINE="No heartbeat arrived for a whole lease.",
)(MachineState)
described(
    "Whether lower or higher values of a metric are better.",
    MIN="Lower is better, as for a loss.",
    MAX="Higher is better, as for an accuracy.",
)(MetricMode)
described(
    "The source of a line of the log.",
    STDOUT="Standard output of the simulation, without points.",
    STDERR="Standard error of the simulation.",
    SUPERVISOR="Messages of the supervisor about the simulation.",
)(LogStream)
described(
    "The directory of a simulation that a stored file is in.",
    CHECKPOINT="SIMULATION_CHECKPOINT_DIR.",
    OUTPUT="SIMULATION_OUTPUT_DIR.",
)(FileKind)
described(
    "Permissions of a token. Each role includes those before it.",
    VIEWER="Read, and subscribe.",
    OPERATOR="Submit, cancel, retry and delete simulations; with all projects, also drain and resume machines.",
    ADMIN="With all projects, also create, change and delete machines, tokens and alert targets.",
)(Role)
described(
    "Why a queued simulation has no machine yet.",
    NO_MACHINE_FITS="No machine meets its requirements, even when empty.",
    MACHINE_STARTING="Only a machine that its cluster can start meets its requirements, and the cluster starts one.",
    MACHINES_BUSY="The machines that meet its requirements are in use.",
    HELD_BACK="Others that are before it in the order take the room first.",
    RESERVED="There is room, but it is kept for one that is before it in the order.",
    QUOTA="Its project holds as many GPUs as it may at once.",
    BUDGET_EXHAUSTED="A budget of its project, or of the installation, does not pay for it.",
    DEPENDENCY="It runs after other simulations, which have not ended yet.",
    PAUSED="It was paused, and waits to be resumed.",
    UNATTENDED="It is attended, and has no subscriber.",
    BACKOFF="Its last attempt ended, and the pause before the next one has not passed.",
)(WaitingReason)
described(
    "Why one simulation is before another in the queue.",
    name="QueueRule",
    PRIORITY="Its priority is higher.",
    OLDEST_FIRST="It has waited longest, and longer than the installation's maximum.",
    FAIR_SHARE="Its project has used less of its share.",
    LESS_WORK="Less work is expected of it.",
    EARLIER="Equally much work is expected of both, and it was submitted earlier.",
)(QueueRule)
described(
    "The end of another simulation that a simulation waits for.",
    name="DependencyCondition",
    SUCCESS="It has finished.",
    FAILURE="It has failed or was cancelled.",
    ANY="It has ended.",
)(DependencyCondition)
described(
    "How often a budget begins anew, by the calendar of the installation's time zone.",
    name="BudgetPeriod",
    DAY="Each day.",
    WEEK="Each Monday.",
    MONTH="On the first of each month.",
    TOTAL="Never.",
)(BudgetPeriod)
described(
    "What costs are grouped by; one of the last three at most.",
    name="CostGroup",
    PROJECT="By project.",
    USER="By creator of the simulation.",
    MACHINE="By machine.",
    NAME="By name of the simulation.",
    TAG="By tag: a simulation counts under each of its tags.",
    DAY="By day, in the installation's time zone.",
    WEEK="By week, from Monday.",
    MONTH="By month.",
)(CostGroup)
described(
    "The sort key of a list of simulations.",
    name="SimulationOrderField",
    CREATED_AT="When it was created.",
    NAME="Its name.",
    PRIORITY="Its priority, then when it was created.",
    STARTED_AT="When its first attempt began.",
    FINISHED_AT="When it reached its final state.",
    COST="Its cost so far.",
    BEST="The best value of the metric `name`.",
    LAST="The newest value of the metric `name`.",
    PARAMETER="The parameter `name`: numbers, then words.",
)(Sort)
described(
    "How a parameter is compared with a value.",
    name="Comparison",
    EQ="Equal.",
    NE="Not equal; a parameter that is missing does not match.",
    LT="Less than.",
    LE="Less than or equal.",
    GT="Greater than.",
    GE="Greater than or equal.",
)(Comparison)


described(
    "What an alert target listens to. An event is one message, of the most specific kind that the target listens to.",
    ENDED="A simulation has finished, failed, or was cancelled.",
    FAILED="A simulation has failed.",
    DIVERGED="A stop rule ended it: DIVERGENCE_THRESHOLD or NON_FINITE_METRIC.",
    TARGET_REACHED="A stop rule ended it: STOPPING_THRESHOLD.",
    PLATEAU="A stop rule ended it: PATIENCE_EXHAUSTED.",
    MACHINE_LOST="The machine of a simulation was lost, whether the simulation is retried or not.",
    WAITS_TOO_LONG="A simulation has been in the queue for longer than a setting. Equal ones are one alert.",
    BUDGET="80 percent of a budget, or all of it, is spent.",
)(AlertKind)
described(
    "How the messages of an alert target are sent.",
    name="AlertTransport",
    WEBHOOK="JSON by HTTP POST, signed by Standard Webhooks.",
    APPRISE="As text, by a service that Apprise supports: e-mail, Slack, Teams, Discord, ntfy and others.",
)(AlertTransport)


@described(
    "The state of a message to an alert target.",
    PENDING="It is being sent, or waits for its next attempt.",
    DELIVERED="The receiver has accepted it.",
    GIVEN_UP="It was not accepted for three days, or the receiver is gone.",
)
class AlertDeliveryState(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    GIVEN_UP = "GIVEN_UP"


described(
    "What chooses the parameters of the next trial of a sweep: samplers of Optuna.",
    name="SweepSampler",
    TPE="Tree-structured Parzen estimator: learns from ended trials, and takes account of those that run.",
    RANDOM="Each value by itself, uniformly.",
    GRID="All combinations of choices and steps, in random order.",
    QUASI_RANDOM="Scrambled Sobol points, which cover the space more evenly than random ones.",
    CMA_ES="CMA-ES: learns from ended trials; for ranges of numbers only.",
)(SweepSampler)
described(
    "Why no more trials of a sweep begin.",
    name="SweepReason",
    COMPLETED="All of its trials have begun.",
    CANCELLED="A user cancelled it.",
    MAX_COST="Its budget does not pay for another trial.",
    STOPPING_THRESHOLD="A trial has reached the target.",
    PATIENCE_EXHAUSTED="The last trials were not better than the best one.",
    TRIALS_FAILED="No trial has a result: the first five, and all others, have failed, or all trials have ended; or "
    "the next one can't be submitted.",
)(SweepReason)


@described(
    "The state of a sweep. The last three are final; FINISHED and FAILED sweeps go on if they are extended.",
    RUNNING="Trials begin or run.",
    FINISHED="All of its trials have ended.",
    FAILED="No trial has a result, or the next one can't be submitted.",
    CANCELLED="A user cancelled it; its trials are being stopped, or have ended.",
)
class SweepState(StrEnum):
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@described(
    "The state of a trial.",
    OPEN="It has begun and not ended: see the states of its simulations.",
    COMPLETE="It has ended with a result.",
    PRUNED="It was stopped, because others were better at the same step.",
    FAILED="It has ended without a result.",
    CANCELLED="It has ended without a result, because it was cancelled; none of its simulations failed.",
)
class SweepTrialState(StrEnum):
    OPEN = "OPEN"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@described(
    "How trials of a sweep are compared while they run.",
    HALVING="Asynchronous successive halving: at steps g, g * r, g * r * r, ... only the best 1 / r of the trials that "
    "have come there go on.",
    MEDIAN="The median rule: at steps g, 2 g, 3 g, ... a trial is stopped whose best value is worse than the median of "
    "the running averages of at least five finished trials.",
    NONE="Not at all: each trial runs to its end.",
)
class SweepPruning(StrEnum):
    HALVING = "HALVING"
    MEDIAN = "MEDIAN"
    NONE = "NONE"


@described(
    "The direction in which a list is sorted.",
    ASC="Ascending: smallest, oldest or alphabetically first at the top.",
    DESC="Descending.",
)
class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"
