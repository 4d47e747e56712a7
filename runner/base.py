"""The engine protocol, and the values that cross it.

An engine starts supervisors on its machines and reports whether they are alive. It decides nothing: the scheduler
chooses the machine, whether to retry and when to stop. Ids are opaque text here. The unit is the member, one process on
one machine; an engine does not know which members belong to one attempt. One loop of the scheduler uses an engine:

    discover   the machines that take work now. One that is missing from the next answer is offline
    launch     start members' supervisors on the machines that the scheduler chose; the same member again ends the
               earlier launch first. What comes of one changes nothing for the others. LaunchError: it did not start,
               and will not. MachineGone: nor can it, there
    probe      ALIVE     the supervisor runs, or is about to
               DEAD      no process of the member is left and none can start: proof, on which the scheduler retries at
                         once. A past answer of DEAD holds until the member is launched again
               UNKNOWN   anything else. The supervisor's own reports then decide: silent for a lease, it is lost
    running    those of some members that are ALIVE, by one cheap look; the others are probed
    end        kill what runs of a member
    members    what is left to look after, launches that were never noted among them
    forget     release what is kept of a DEAD member; once `members` does not list it any more, it is forgotten

An engine keeps no state that its machines don't: one in another process, after a crash of this one, answers alike. Any
call may raise EngineUnavailable; it is then unknown whether the call took effect, and the next round asks again. The
same tests hold for every engine: tests/runner/test_conformance.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote

ENGINE_LABEL = "simulations/engine"  # of nodes of a cluster; what has a runtime environment requires it
RAY = "ray"


class Liveness(StrEnum):
    """State of a member's processes on its machine."""

    ALIVE = "ALIVE"  # the supervisor runs
    DEAD = "DEAD"  # no process of the member is left, and none can start
    UNKNOWN = "UNKNOWN"  # not known now; never a reason to start the attempt elsewhere


class LaunchError(Exception):
    """The member could not be started on that machine; the message is a sentence for the user."""


class MachineGone(LaunchError):
    """The member could not be started because the machine has left the engine."""


class EngineUnavailable(Exception):
    """The engine can't be reached now; the message is a sentence for the operator. Local engines never raise it."""


def directory_name(public_id: str) -> str:
    """Escape a public id as the name of a directory; `unquote` reverses it."""
    return quote(public_id, safe="").replace(".", "%2E")


@dataclass(frozen=True, slots=True)
class DiscoveredMachine:
    """A machine that an engine found. `key` is the engine's own name for the machine; all GPUs are of `gpu_model`.

    host: whose GPU indices the scheduler assigns; None: the engine assigns them. price_per_hour: None if the engine
    knows none. With `most`, `key` names a kind of machines that the engine can start (`StartingEngine`).
    """

    key: str
    name: str
    host: str | None
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    price_per_hour: Decimal | None = None
    most: int = 0  # how many machines like this the engine can start; 0: this one is there


@dataclass(frozen=True, slots=True)
class Launch:
    """One member of an attempt to start, and its grant of resources.

    token: for one hello. From then on the member's credential is the token together with the nonce that its supervisor
    made for that hello, so a token that is read later opens nothing.
    """

    member_id: str
    attempt_id: str
    simulation_id: str
    token: str
    machine_key: str
    rank: int = 0
    world_size: int = 1
    cpus: float = 0.0
    memory_gib: float = 0.0
    gpus: int = 0
    checkpoint_of: str | None = None  # the simulation whose checkpoint it begins with a copy of
    begins_from_store: bool = False  # that copy comes from the store, not from this machine
    package: str | None = None  # SHA-256, in hex, of the package of code that it starts in
    runtime_env: Mapping[str, Any] | None = None  # the user's part of Ray's
    is_repeated: bool = True  # an earlier launch of the same member may have started it

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
    checkpoint_at: float | None = None  # of the newest checkpoint, in seconds since 1970

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

    async def launch(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        """Start supervisors of different members, each after killing the processes of its earlier launch.

        Returns for each, in order, None or why it was not started: LaunchError, MachineGone, or an unforeseen error.
        """

    async def probe(self, member_id: str) -> Liveness:
        """Return whether a member is alive; if its supervisor died, kill its other processes first if possible."""

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
        """Read the first batch numbered above `after` that a dead member left; None if there is none in reach.

        Raises OSError if the batch can't be read. The member must be DEAD.
        """

    async def forget(self, member_id: str) -> bool:
        """Remove what is kept of a member that is over; False, and nothing is done, unless it is DEAD.

        An engine may need more than one call: the member is forgotten once `members` does not list it.
        Raises OSError if some files can't be removed.
        """

    async def simulations(self) -> Sequence[str]:
        """List the simulations with kept files: checkpoints, outputs, and working directories of past attempts."""

    async def discard(self, simulation_id: str) -> None:
        """Remove the files of a simulation. Idempotent. Raises OSError if some can't be removed."""


class StartingEngine(Engine, Protocol):
    """An engine that may be able to start machines: its `discover` lists kinds of them, with `most`."""

    async def want(self, counts: Mapping[str, int]) -> None:
        """Make it start machines: so many of each of these kinds, by key. Called again and again while they are wanted.

        Those that run and are idle count: the engine starts what is missing, and ends by itself what stays idle.
        """

    def is_starting(self, member_id: str) -> bool:
        """Whether a launched member still waits for its start, not in vain: for packages, behind others. No request."""

    def never_started(self, member_id: str) -> str | None:
        """Return why a launched member never started and never will: what it requires can't be made."""
