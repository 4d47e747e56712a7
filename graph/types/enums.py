"""The enums of the house as GraphQL shows them, and what several types share.

Import them from here, not from where they are defined: so they are described before a type uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

from db.simulations import Sort
from db.states import LogStream, MachineState, MetricMode, Reason, Role, SimulationState
from policy.placement import WaitingReason

__all__ = [
    "LogStream", "MachineState", "MetricMode", "Reason", "Role", "SimulationState", "Sort", "WaitingReason",
    "described",
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
    "Where a simulation stands. The last three are final.",
    QUEUED="It waits for a machine, or after a lost attempt for another one.",
    STARTING="A machine is assigned; its supervisor has not said hello yet.",
    RUNNING="Its supervisor said hello.",
    FINISHED="It ended as it was meant to.",
    FAILED="It ended in another way, and is not tried again.",
    CANCELLED="A user cancelled it.",
)(SimulationState)
described(
    "Why an attempt, or with its last one a simulation, ended.",
    COMPLETED="Its exit code was 0.",
    CANCELLED="A user cancelled it.",
    EXIT_CODE="Its exit code was another one, or a signal ended it.",
    LAUNCH_ERROR="It never began: no such command, no such directory.",
    MACHINE_LOST="Nothing was heard of it for a whole lease, or its engine found it dead.",
    MAX_RUNTIME="It took longer than its limit.",
    UNWATCHED="It is attended, and had no subscriber for longer than its grace.",
    PREEMPTED="Of attempts only: it made room for another simulation, and its own went back to the queue.",
)(Reason)
described(
    "Whether a machine takes work.",
    ONLINE="It does.",
    DRAINING="It takes nothing new; what runs on it goes on.",
    OFFLINE="Nothing was heard of it for a whole lease.",
)(MachineState)
described(
    "Which way a metric is to go.",
    MIN="Down: a loss.",
    MAX="Up: an accuracy.",
)(MetricMode)
described(
    "Who wrote a line of the log.",
    STDOUT="The simulation, where it was no point.",
    STDERR="The simulation, as an error.",
    SUPERVISOR="The supervisor, about the simulation.",
)(LogStream)
described(
    "Permissions of a token. Each role includes those before it.",
    VIEWER="Read and watch.",
    OPERATOR="Submit, cancel, retry and delete simulations; with all projects, also drain and resume machines.",
    ADMIN="With all projects, also make, change and delete machines and tokens.",
)(Role)
described(
    "Why a queued simulation has no machine yet.",
    NO_MACHINE_FITS="No machine meets its requirements, even if nothing were on it.",
    MACHINES_BUSY="The machines that meet its requirements are held by others.",
    UNATTENDED="It is attended, and has no subscriber.",
    BACKOFF="Its last attempt ended, and the pause before the next one has not passed.",
)(WaitingReason)
described(
    "What a list of simulations is sorted by.",
    name="SimulationOrderField",
    CREATED_AT="When it was created.",
    NAME="Its name.",
    PRIORITY="Its priority, then when it was created.",
)(Sort)


@described("Which way a list is sorted.", ASC="Smallest, oldest or first first.", DESC="The other way round.")
class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


@strawberry.input(description="How a list of simulations is sorted.")
class SimulationOrder:
    field: Sort = strawberry.field(default=Sort.CREATED_AT, description="By what.")
    direction: OrderDirection = OrderDirection.DESC
