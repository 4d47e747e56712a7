"""The enums of the house as GraphQL shows them, and what several types share.

Import them from here, not from where they are defined: so they are described before a type uses them.
"""

from __future__ import annotations

from enum import StrEnum

import strawberry

from db.simulations import Sort
from db.states import LogStream, MachineState, Reason, SimulationState
from policy.placement import WaitingReason

strawberry.enum(SimulationState, description="Where a simulation stands. The last three are final.")
strawberry.enum(Reason, description="Why an attempt, or with its last one a simulation, ended.")
strawberry.enum(MachineState, description="Whether a machine takes work.")
strawberry.enum(LogStream, description="Who wrote a line of the log.")
strawberry.enum(WaitingReason, description="Why a queued simulation has no machine yet.")
strawberry.enum(Sort, name="SimulationOrderField", description="What a list of simulations is sorted by.")


__all__ = ["LogStream", "MachineState", "Reason", "SimulationState", "Sort", "WaitingReason"]


@strawberry.enum(description="Which way a list is sorted.")
class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


@strawberry.input(description="How a list of simulations is sorted.")
class SimulationOrder:
    field: Sort = Sort.CREATED_AT
    direction: OrderDirection = OrderDirection.DESC
