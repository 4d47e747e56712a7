"""What the machines of one host offer together, and whether it has that much.

Machines may be declared as parts of a host beside the machine that was found there. Cpus and memory are not taken from
a common pool (GPUs are), so an owner who declares a part and keeps the whole offers some of the host twice. That is
allowed, and said when it is done.
"""

from __future__ import annotations

from typing import Protocol

from policy import phrasing
from policy.matching import Resource, covers


class Offer(Protocol):
    """A host as it was found, and the sums of its machines that take work."""

    @property
    def host(self) -> str: ...
    @property
    def cpus(self) -> float: ...
    @property
    def memory_gib(self) -> float: ...
    @property
    def offered_cpus(self) -> float: ...
    @property
    def offered_memory_gib(self) -> float: ...
    @property
    def whole(self) -> str | None: ...  # the machine that is the whole host, if it takes work


def notice_of(offer: Offer) -> str | None:
    """Say what is offered more than once; None if nothing is."""
    sums = (
        (Resource.CPUS, offer.offered_cpus, offer.cpus),
        (Resource.MEMORY, offer.offered_memory_gib, offer.memory_gib),
    )
    over = [(kind.amount(offered), phrasing.number(has)) for kind, offered, has in sums if not covers(has, offered)]
    if not over:
        return None
    told = phrasing.listed([f"{offered} (it has {has})" for offered, has in over])
    advice = f" To divide the host instead, drain the machine {phrasing.name(offer.whole)}." if offer.whole else ""
    return (
        f"The machines of the host {phrasing.name(offer.host)} now offer {told} together: programs that run at the "
        f"same time share what there is.{advice}"
    )
