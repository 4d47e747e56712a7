"""Overcommitment notice: machines of one host that together offer more than the host has.

Machines may be declared as parts of a host beside the machine that was detected there. CPUs and memory have no common
pool (GPUs do), so a host whose owner declares a part and keeps the whole offers some resources twice. That is allowed,
and the mutation returns a notice.
"""

from __future__ import annotations

from typing import Protocol

from policy import phrasing
from policy.matching import Resource, covers


class Offer(Protocol):
    """A host's detected resources, and the sums over its machines that accept work."""

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
    def whole(self) -> str | None: ...  # name of the machine that is the whole host, if it accepts work


def notice_of(offer: Offer) -> str | None:
    """Return a notice of the overcommitted resources; None if there are none."""
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
