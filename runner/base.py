"""The engine protocol, and the values that cross it.

An engine starts supervisors on its machines and reports whether they are alive. It decides nothing: the scheduler
chooses the machine, whether to retry and when to stop. Ids are opaque text here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Liveness(StrEnum):
    """State of a member's processes on its machine."""

    ALIVE = "ALIVE"  # the supervisor runs
    DEAD = "DEAD"  # no process of the member is left, and none can start
    UNKNOWN = "UNKNOWN"  # not known now; never a reason to start the attempt elsewhere


class LaunchError(Exception):
    """The member could not be started on that machine; the message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class DiscoveredMachine:
    """A machine that an engine found. `key` is the engine's own name for the machine; all GPUs are of `gpu_model`."""

    key: str
    name: str
    host: str | None
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Launch:
    """One member of an attempt to start. The supervisor authenticates with `token`, which is never shown."""

    member_id: str
    attempt_id: str
    simulation_id: str
    token: str
    machine_key: str
    rank: int = 0
    world_size: int = 1

    def __repr__(self) -> str:
        return f"Launch(member_id={self.member_id!r}, machine_key={self.machine_key!r})"


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A batch that a dead supervisor left on disk, with the token and nonce that authenticate it."""

    token: str
    nonce: str
    number: int
    points: Mapping[str, tuple[Sequence[int], Sequence[float | str], Sequence[float]]]  # steps, values, elapsed seconds
    logs: Sequence[tuple[str, str]]  # stream, text
    exit: UndeliveredExit | None
    notices: Sequence[tuple[str, int, str, str]] = ()  # kind, count, example, advice
    parameters: Mapping[str, object] = field(default_factory=dict)  # recorded by the program
    tags: Sequence[str] = ()  # likewise
    source: Mapping[str, object] | None = None

    def __repr__(self) -> str:
        return f"Undelivered(number={self.number!r})"


@dataclass(frozen=True, slots=True)
class UndeliveredExit:
    """Exit of a simulation. `reason` is None if the simulation ended by itself."""

    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str | None


class Engine(Protocol):
    """Starts, probes and ends members of attempts on its machines, each a unit of its own."""

    name: str

    async def discover(self) -> Sequence[DiscoveredMachine]:
        """List the machines that exist now."""

    async def launch(self, launch: Launch) -> None:
        """Start a member's supervisor, after killing the processes of an earlier launch of the same member.

        Raises LaunchError.
        """

    async def probe(self, member_id: str) -> Liveness:
        """Return whether a member is alive; if its supervisor died, kill its other processes first."""

    async def running(self, member_ids: Collection[str]) -> Set[str]:
        """Return those of these members whose supervisor runs. A cheap look at all of them, which kills nothing.

        One that is not among them is probed.
        """

    async def end(self, member_id: str) -> None:
        """Kill all processes of a member and return when they are gone. Idempotent.

        Raises TimeoutError if a process does not die.
        """

    async def members(self) -> Sequence[str]:
        """List the members of which this engine still holds processes or files."""

    async def undelivered(self, member_id: str, after: int) -> Undelivered | None:
        """Read the first batch numbered above `after` that a dead member left; None if there is none.

        Raises OSError if the batch can't be read. The member must be DEAD.
        """

    async def forget(self, member_id: str) -> bool:
        """Remove the files of a member that is over; False, and nothing is done, unless it is DEAD.

        Raises OSError if some files can't be removed.
        """

    async def simulations(self) -> Sequence[str]:
        """List the simulations with kept files: checkpoints, outputs, and working directories of past attempts."""

    async def discard(self, simulation_id: str) -> None:
        """Remove the files of a simulation. Idempotent. Raises OSError if some can't be removed."""
