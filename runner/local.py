"""Engine of the local host: one machine, and supervisors in sessions of their own.

All state of a member lies in `<data directory>/attempts/<member>/`, so an engine in a restarted process has the same
state as the previous one. Killing the process that uses this engine kills no simulation. A member is ALIVE while its
recorded supervisor runs; if the supervisor died, the engine first kills all other processes of the member, and only
then returns DEAD. If the kernel holds a process that can't be killed, the member is UNKNOWN.

    attempts/<member>/      0700: config.json (0600: with the token, and what the supervisor appends), supervisor.json,
                            supervisor.log, gone, batches (NUMBER.jsonl), work/
    checkpoints/<simulation>/    shared by all attempts of a simulation and their members here, kept until the
                                 simulation is discarded
    outputs/<simulation>/        likewise: what a simulation wants to keep, artifacts of MLflow among it
    newest/<simulation>          number of the newest attempt whose files are in these directories
    packages/<digest>            archives of code that simulations start in
    work/<simulation>/<member>/  files left in a member's working directory, once the member is forgotten
    launchers/              0700: the socket of each launcher, launcher.log
    supervisors/<hash>.pyz  the supervisor as one file, for each version ever launched here
    address                 the API's URL; supervisors read the file again before each try
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import psutil
import pynvml

from runner import processes
from runner.base import (
    ENGINE_LABEL,
    RAY,
    DiscoveredMachine,
    Launch,
    LaunchError,
    Liveness,
    Undelivered,
    UndeliveredExit,
    directory_name,
)
from runner.launches import MOST_TOGETHER, LauncherLost, Launches
from runner.removal import remove_tree
from runner.supervisor import assignment
from runner.supervisor.child import ATTEMPT_VARIABLE, MARK_VARIABLE, inherited, mark
from runner.supervisor.spool import first_above

GIB = 2**30
LAUNCHES = 3  # tries with a launcher, before a supervisor is started without one
LONGEST_NAME = 255  # of a file, in bytes (Linux: NAME_MAX)


class LocalEngine:
    """Runs attempts on this host. Raises OSError if the data directory can't be written."""

    name = "local"

    def __init__(
        self,
        data_directory: Path,
        address: str,
        *,
        host: str,
        machine_name: str,
        allowed_roots: Sequence[Path] = (),
        give_up_after: timedelta = timedelta(hours=6),
        save_seconds: float = 0.0,
        python: str = sys.executable,
    ) -> None:
        self._data_directory = data_directory.resolve()
        self._attempts = self._data_directory / "attempts"
        self._checkpoints = self._data_directory / "checkpoints"
        self._outputs = self._data_directory / "outputs"
        self._work = self._data_directory / "work"
        self._newest = self._data_directory / "newest"
        self._packages = self._data_directory / "packages"
        self._save_seconds = save_seconds
        self._launches = Launches(
            self._data_directory / "launchers", self._data_directory / "supervisors", python, inherited(os.environ)
        )
        self._address_file = self._data_directory / "address"
        self._host = host
        self._machine_name = machine_name
        self._allowed_roots = tuple(allowed_roots)
        self._give_up_after = give_up_after
        self._python = python
        self._locks: dict[str, threading.Lock] = {}
        self._attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.publish_address(address)

    def publish_address(self, url: str) -> None:
        """Write the GraphQL API's URL where all supervisors of this host read it, running ones too."""
        temporary = self._address_file.with_name(".address.new")
        temporary.write_text(f"{url}\n")
        temporary.replace(self._address_file)

    def close(self) -> None:
        """Disconnect from the launcher, which goes on while supervisors run."""
        self._launches.close()

    async def discover(self) -> Sequence[DiscoveredMachine]:
        """Describe this host as one machine."""
        return await asyncio.to_thread(self._discover)

    async def launch(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        """Start members' supervisors, after killing the processes of earlier launches; return why some did not."""
        return await asyncio.to_thread(self._launch, launches)

    async def probe(self, member_id: str) -> Liveness:
        """Return whether the member's supervisor runs; if not, kill the member's other processes first."""
        return await asyncio.to_thread(self._probe, member_id)

    async def running(self, member_ids: Collection[str]) -> Set[str]:
        """Return those of these members whose supervisor runs."""
        return await asyncio.to_thread(lambda: {each for each in member_ids if _runs(self._directory(each))})

    async def end(self, member_id: str) -> None:
        """Kill all processes of a member. Raises TimeoutError if the kernel holds one."""
        await asyncio.to_thread(self._end, member_id)

    async def members(self) -> Sequence[str]:
        """List the members that have a directory."""
        return await asyncio.to_thread(lambda: sorted(unquote(path.name) for path in self._attempts.iterdir()))

    async def undelivered(self, member_id: str, after: int) -> Undelivered | None:
        """Read the first batch above `after` in the spool of a DEAD member; None if there is none. Raises OSError."""
        return await asyncio.to_thread(self._undelivered, member_id, after)

    async def forget(self, member_id: str) -> bool:
        """Remove the member's directory, unless a process of it is alive. Its working directory is kept.

        Raises OSError if some files can't be removed.
        """
        return await asyncio.to_thread(self._forget, member_id)

    async def simulations(self) -> Sequence[str]:
        """List the simulations that have checkpoints, outputs or kept working directories."""
        return await asyncio.to_thread(self._simulations)

    async def discard(self, simulation_id: str) -> None:
        """Remove a simulation's checkpoints, outputs and kept working directories."""
        await asyncio.to_thread(self._discard, simulation_id)

    # --- all below runs in threads, one call at a time for a member -------------------------------------------------

    def _discover(self) -> Sequence[DiscoveredMachine]:
        models = _gpu_models()
        return [
            DiscoveredMachine(
                key=self._host,
                name=self._machine_name,
                host=self._host,
                cpus=float(len(os.sched_getaffinity(0))),
                memory_gib=round(psutil.virtual_memory().total / GIB, 3),
                gpus=len(models),
                gpu_model=models[0] if len(set(models)) == 1 else None,
                labels={},
            )
        ]

    def _launch(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        # A message after the other: the first supervisor does not wait for the directories of all.
        parts = (launches[first : first + MOST_TOGETHER] for first in range(0, len(launches), MOST_TOGETHER))
        return [failure for part in parts for failure in self._launch_together(part)]

    def _launch_together(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        failures: dict[str, Exception] = {}
        with ExitStack() as locks:
            for member_id in sorted({each.member_id for each in launches}):  # in one order, so that none waits for ever
                locks.enter_context(self._alone(member_id))
            waiting: Sequence[Launch] = launches
            for way in (*[self._by_launcher] * LAUNCHES, self._without_launcher):
                begun = [each for each in waiting if _succeeds(self._begin, each, failures)]
                lost = []
                for launch, error in zip(begun, way(begun), strict=True):
                    if isinstance(error, LauncherLost):  # before or after it carried out the request
                        lost.append(launch)
                    elif error is not None:
                        self._end_all(self._directory(launch.member_id))  # the supervisor may have started all the same
                        failures[launch.member_id] = LaunchError(
                            f"The supervisor can't be started on {self._machine_name}: {error}."
                        )
                if not (waiting := lost):
                    break
        return [failures.get(each.member_id) for each in launches]

    def _begin(self, launch: Launch) -> None:
        """Make a member's directory, without anything of an earlier launch. Raises LaunchError."""
        directory = self._directory(launch.member_id)
        if max(len(directory.name), len(directory_name(launch.simulation_id))) > LONGEST_NAME:
            raise LaunchError("The member's id is too long to name a directory.")
        if launch.runtime_env:
            raise LaunchError(
                f"It has a runtime environment for Ray, and {self._machine_name} is no node of a Ray cluster: require "
                f"the label {ENGINE_LABEL}={RAY} of its machine."
            )
        if directory.exists() and not self._end_all(directory):
            raise LaunchError("Something of an earlier launch of this member is still alive and can't be killed.")
        try:
            self._prepare(directory, launch)
        except OSError as error:
            raise LaunchError(f"The supervisor can't be started on {self._machine_name}: {error}.") from error

    def _by_launcher(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        return self._launches.launch([(self._directory(each.member_id), self._environment(each)) for each in launches])

    def _without_launcher(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        return [self._start_alone(each) for each in launches]

    def _start_alone(self, launch: Launch) -> OSError | None:
        directory = self._directory(launch.member_id)
        try:
            identity = processes.identify(self._launches.start_alone(directory, self._environment(launch)))
            if identity is not None:  # recorded before the supervisor can record it
                processes.write_identity(directory / "supervisor.json", identity)
        except OSError as error:
            return error
        return None

    def _environment(self, launch: Launch) -> dict[str, str]:
        environment = inherited(os.environ)
        # `python` in a simulation's command is the interpreter that runs the service.
        environment["PATH"] = os.pathsep.join(
            part for part in (str(Path(self._python).parent), environment.get("PATH", os.defpath)) if part
        )
        environment[ATTEMPT_VARIABLE] = launch.attempt_id
        environment[MARK_VARIABLE] = mark(self._directory(launch.member_id))
        return environment

    def _prepare(self, directory: Path, launch: Launch) -> None:
        if directory.exists():
            remove_tree(directory)
        directory.mkdir(mode=0o700)
        (directory / "work").mkdir(mode=0o700)
        config = {
            "attempt_id": launch.attempt_id,
            "token": launch.token,
            "rank": launch.rank,
            "world_size": launch.world_size,
            "simulation_id": launch.simulation_id,
            "address_file": str(self._address_file),
            "checkpoint_directory": str(self._checkpoints / directory_name(launch.simulation_id)),
            "output_directory": str(self._outputs / directory_name(launch.simulation_id)),
            "work_directory": str(directory / "work"),
            "newest_file": str(self._newest / directory_name(launch.simulation_id)),
            "save_seconds": self._save_seconds,
            "checkpoint_source": (
                str(self._checkpoints / directory_name(launch.checkpoint_of))
                if launch.checkpoint_of and not launch.begins_from_store
                else None
            ),
            "begins_from_store": launch.begins_from_store,
            "allowed_roots": [str(root) for root in self._allowed_roots],
            "give_up_seconds": self._give_up_after.total_seconds(),
            "package": launch.package,
            "packages_directory": str(self._packages),
        }
        assignment.write(directory, config)

    def _probe(self, member_id: str) -> Liveness:
        with self._alone(member_id):
            return self._liveness(self._directory(member_id))

    def _liveness(self, directory: Path) -> Liveness:
        if _is_gone(directory):
            return Liveness.DEAD
        recorded = processes.read_identity(directory / "supervisor.json")
        if recorded is not None and processes.is_alive(recorded):
            return Liveness.ALIVE
        if recorded is not None and self._launches.sweep(directory) and _is_gone(directory):
            return Liveness.DEAD
        return Liveness.DEAD if self._end_all(directory) else Liveness.UNKNOWN

    def _end(self, member_id: str) -> None:
        with self._alone(member_id):
            if not self._end_all(self._directory(member_id)):
                raise TimeoutError(f"something of member {member_id} can't be killed")

    def _undelivered(self, member_id: str, after: int) -> Undelivered | None:
        directory = self._directory(member_id)
        credentials = _credentials(directory)
        # Those of an earlier version are in a directory of their own.
        found = first_above(directory, after) or first_above(directory / "spool", after)
        if credentials is None or found is None:
            return None
        (token, nonce), (number, batch) = credentials, found
        logs = [(stream, "\n".join(texts)) for stream, texts in batch.logs]
        end = UndeliveredExit(*astuple(batch.exit)) if batch.exit is not None else None
        notices = tuple((kind, *notice) for kind, notice in batch.notices.items())
        recorded = (batch.parameters, tuple(batch.tags), batch.source, batch.checkpoint_at)
        return Undelivered(token, nonce, number, batch.points, logs, end, notices, *recorded)

    def _forget(self, member_id: str) -> bool:
        directory = self._directory(member_id)
        with self._alone(member_id):
            if self._liveness(directory) is not Liveness.DEAD:
                return False
            if directory.exists():
                self._keep_work(directory)
                remove_tree(directory)
        self._locks.pop(member_id, None)
        return True

    def _keep_work(self, directory: Path) -> None:
        # A simulation's results may be files in its working directory.
        work = directory / "work"
        if work.is_dir() and any(work.iterdir()):
            try:
                simulation = str(assignment.read(directory)["simulation_id"])
            except (OSError, ValueError, KeyError) as error:  # the simulation can write to that file, too
                raise OSError(f"{directory / 'config.json'} can't be read: {error}") from None
            kept = self._work / directory_name(simulation) / directory.name
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            work.rename(kept)

    def _simulations(self) -> Sequence[str]:
        kept = (self._checkpoints, self._outputs, self._work, self._newest)
        return sorted({unquote(path.name) for each in kept if each.is_dir() for path in each.iterdir()})

    def _discard(self, simulation_id: str) -> None:
        (self._newest / directory_name(simulation_id)).unlink(missing_ok=True)
        for kept in (self._checkpoints, self._outputs, self._work):
            directory = kept / directory_name(simulation_id)
            if directory.is_symlink():  # made by a simulation: its target is not ours
                directory.unlink()
            elif directory.exists():
                remove_tree(directory)

    def _end_all(self, directory: Path) -> bool:
        if _is_gone(directory):
            return True
        is_ended = processes.end_all(
            f"{MARK_VARIABLE}={mark(directory)}",
            processes.read_identity(directory / "supervisor.json"),
            _child(directory),
        )
        return self._launches.sweep(directory) and is_ended  # escaped ones are the launcher's children

    def _directory(self, member_id: str) -> Path:
        return self._attempts / directory_name(member_id)

    @contextmanager
    def _alone(self, member_id: str) -> Iterator[None]:
        with self._locks.setdefault(member_id, threading.Lock()):
            yield


def _succeeds(act: Callable[[Launch], None], launch: Launch, failures: dict[str, Exception]) -> bool:
    """Do one launch's part; note any failure, which must keep no other launch from starting."""
    try:
        act(launch)
    except Exception as error:  # noqa: BLE001  # returned to the caller
        failures[launch.member_id] = error
        return False
    return True


def _runs(directory: Path) -> bool:
    """Whether the recorded supervisor runs."""
    recorded = processes.read_identity(directory / "supervisor.json")
    return recorded is not None and not _is_gone(directory) and processes.is_alive(recorded)


def _is_gone(directory: Path) -> bool:
    """Whether the launcher has reaped the supervisor and found no process left: no search is needed."""
    return (directory / "gone").exists()


def _credentials(directory: Path) -> tuple[str, str] | None:
    """Token and nonce of the supervisor; None if it was killed before its hello. Raises OSError."""
    try:
        facts = assignment.read(directory)
        # An attempt of an earlier version has a file for each.
        token, nonce = (facts.get(each) or (directory / each).read_text().strip() for each in ("token", "nonce"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # the simulation can write to that file, too
        raise OSError(f"{directory / assignment.FILE} can't be read: {error}") from None
    return token, nonce


def _child(directory: Path) -> processes.Identity | None:
    """The recorded identity of the child."""
    with suppress(OSError, ValueError):
        if (found := processes.identity_of(assignment.read(directory).get("child"))) is not None:
            return found
    return processes.read_identity(directory / "child.json")  # of an earlier version


def _gpu_models() -> list[str]:
    models: list[str] = []
    with suppress(pynvml.NVMLError):  # no driver, no GPUs
        pynvml.nvmlInit()
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
                models.append(name.decode() if isinstance(name, bytes) else str(name))
        finally:
            pynvml.nvmlShutdown()
    return models
