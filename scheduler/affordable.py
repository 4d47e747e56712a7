"""Which classes of the queue no budget pays for, on any machine that they could use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from policy.matching import Machine, Requirements, least_price
from policy.placement import placeable
from scheduler.queue_memory import QueueMemory, WaitingClass
from transitions.budget import Room


def over_budget(
    memory: QueueMemory, rooms: Mapping[int | None, Room], offered: Sequence[Machine]
) -> Mapping[UUID, Room]:
    """Find the classes that no budget pays for, on any machine that they could use were it idle."""
    if not rooms:
        return {}
    concerned = {
        key: room
        for key in memory.classes
        if key not in memory.over_budget and (room := memory.room_of(key, rooms)) is not None
    }
    idle = [_idle(each) for each in offered]
    able = placeable([memory.classes[each].requirements for each in concerned], idle)
    paid = placeable([_limited(memory.classes[each].requirements, room) for each, room in concerned.items()], idle)
    return {
        key: room
        for (key, room), is_able, is_paid in zip(concerned.items(), able, paid, strict=True)
        if is_able and not (is_paid and _pays_all_members(memory.classes[key], room, idle))
    }


def refused(memory: QueueMemory, classes: Set[UUID], rooms: Mapping[int | None, Room]) -> Mapping[UUID, Room]:
    """Return the room of classes that could not be paid after all: none, until the next look at their budgets.

    So another run may take the machine in the next round, if this one waits for one that is cheaper.
    """
    found = {each: memory.room_of(each, rooms) for each in classes if each in memory.classes}
    return {each: replace(room, per_hour=Decimal(0)) for each, room in found.items() if room is not None}


def _pays_all_members(of: WaitingClass, room: Room, idle: Sequence[Machine]) -> bool:
    """Whether a budget pays for the cheapest machines that a whole gang could use; True if there are too few."""
    price = least_price(of.requirements, of.machines, idle) if of.machines > 1 else None
    return price is None or price <= room.per_hour


def _idle(machine: Machine) -> Machine:
    """Return the machine with nothing on it; one that can be started, as if it ran."""
    return replace(
        machine, free_cpus=machine.cpus, free_memory_gib=machine.memory_gib, free_gpus=machine.gpus,
        host_free_gpus=None, online=machine.online or machine.startable,
    )  # fmt: skip


def _limited(required: Requirements, room: Room) -> Requirements:
    """Limit requirements to machines that a budget pays for, each by itself."""
    own = required.max_price_per_hour
    return replace(required, max_price_per_hour=room.per_hour if own is None else min(own, room.per_hour))
