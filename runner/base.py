"""The protocol of an engine, and the values that cross it.

An engine starts supervisors on machines it knows and can say what became of them. It decides nothing: which machine,
whether to retry and when to stop are the scheduler's. Ids are opaque text here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Liveness(StrEnum):
    """What an engine can tell of an attempt."""

    ALIVE = "ALIVE"  # its supervisor runs
    DEAD = "DEAD"  # nothing of it is alive, and nothing of it will be
    UNKNOWN = "UNKNOWN"  # can't be told now; never a reason to start it elsewhere


class LaunchError(Exception):
    """The attempt could not be started on that machine; the message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class DiscoveredMachine:
    """A machine as its engine sees it. `key` is how the engine calls it; all of its gpus are of `gpu_model`."""

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
    """One attempt to be started. The token is what its supervisor proves itself with; it is never shown."""

    attempt_id: str
    simulation_id: str
    token: str
    machine_key: str

    def __repr__(self) -> str:
        return f"Launch(attempt_id={self.attempt_id!r}, machine_key={self.machine_key!r})"


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A batch that a dead supervisor left on disk, with what proves that it comes from this attempt."""

    token: str
    nonce: str
    number: int
    points: Mapping[str, tuple[Sequence[int], Sequence[float | str], Sequence[float]]]  # steps, values, elapsed seconds
    logs: Sequence[tuple[str, str]]  # stream, text
    exit: UndeliveredExit | None

    def __repr__(self) -> str:
        return f"Undelivered(number={self.number!r})"


@dataclass(frozen=True, slots=True)
class UndeliveredExit:
    """How the simulation ended. `reason` is None where it ended by itself."""

    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str | None


class Engine(Protocol):
    """Where work can run."""

    name: str

    async def discover(self) -> Sequence[DiscoveredMachine]:
        """The machines there are now."""

    async def launch(self, launch: Launch) -> None:
        """Start an attempt's supervisor; whatever is left of an earlier launch of the same attempt is ended first.

        Raises LaunchError.
        """

    async def probe(self, attempt_id: str) -> Liveness:
        """Say whether an attempt is alive; of one whose supervisor died, the leftovers are ended first."""

    async def end(self, attempt_id: str) -> None:
        """Kill whatever is left of an attempt and return when it is gone. Idempotent.

        Raises TimeoutError if something of it would not die.
        """

    async def attempts(self) -> Sequence[str]:
        """The attempts this engine still holds something of, running or not."""

    async def undelivered(self, attempt_id: str, after: int) -> Undelivered | None:
        """The first batch with a number above `after` that a dead attempt left; None: there is none.

        Raises OSError if it can't be read. The attempt must be DEAD.
        """

    async def forget(self, attempt_id: str) -> None:
        """Clear away what is kept of an attempt that is over; does nothing while any of it is alive.

        Raises OSError if some of it can't be removed.
        """

    async def simulations(self) -> Sequence[str]:
        """The simulations of which files are kept: checkpoints, and what their attempts left."""

    async def discard(self, simulation_id: str) -> None:
        """Remove the files of a simulation. Idempotent. Raises OSError if some can't be removed."""
