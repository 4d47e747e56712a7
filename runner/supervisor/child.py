"""Child process: start it; find, reap and kill its descendants."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import processes
from runner.supervisor.assignment import Assignment, Order
from runner.supervisor.complaints import complain

KILL_SECONDS = 10.0
PR_SET_NAME = 15  # prctl(2)
PR_SET_CHILD_SUBREAPER = 36
NICENESS = 15  # of simulations, as Ray has it for its workers: 36 parts of a core beside 1,024 of a service (sched(7))
AUTOGROUP = "/proc/self/autogroup"

INHERITED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"})
INHERITED |= {"LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_DEVICE_ORDER"}
INHERITED |= {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
ATTEMPT_VARIABLE = "SIMULATION_ATTEMPT_ID"
MARK_VARIABLE = "SIMULATION_ATTEMPT_DIRECTORY"  # unlike the id, unique among installations on this host
CHECKPOINT_VARIABLE = "SIMULATION_CHECKPOINT_DIR"
OUTPUT_VARIABLE = "SIMULATION_OUTPUT_DIR"
WORKDIR_VARIABLE = "SIMULATION_WORKDIR"

OWN_GROUP: dict[str, Any]
if sys.version_info >= (3, 11):
    OWN_GROUP = {"process_group": 0}
else:
    OWN_GROUP = {"preexec_fn": os.setpgrp}  # one system call, and safe beside the reporter's thread


class Refused(Exception):
    """The child could not be started; the message is a sentence for the user."""


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Filter an environment down to what a simulation may see. Every other variable may be a secret."""
    return {name: value for name, value in environment.items() if name in INHERITED or name.startswith("LC_")}


# Beside the supervisor's heartbeats, stopped and billed like the simulation: a checkpoint may take long to copy. It is
# there as a whole or not at all. Paths and command are arguments, of which the shell reads nothing.
_COPY_AND_RUN = 'rm -rf -- "$2.part" && cp -a -- "$1" "$2.part" && mv -- "$2.part" "$2" && shift 2 && exec "$@"'


def command(assignment: Assignment, order: Order) -> tuple[str, ...]:
    """Return the command to start: behind a copy of another simulation's checkpoint, where that is to be its own.

    Called before `prepare`, for a checkpoint directory that exists is kept. Raises Refused.
    """
    source, own = assignment.checkpoint_source, assignment.checkpoint_directory
    if source is None or own.exists():
        return order.entrypoint
    try:
        is_there = source.is_dir() and not source.is_symlink() and any(source.iterdir())
        own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"The checkpoint to begin from can't be read: {error}.") from None
    if not is_there:
        raise Refused("The simulation that it repeats has left no checkpoint on this machine.")
    return ("/bin/sh", "-c", _COPY_AND_RUN, "sh", str(source), str(own), *order.entrypoint)


def prepare(assignment: Assignment, order: Order) -> tuple[Path, dict[str, str]]:
    """Make the attempt's directories; return the working directory and the environment. Raises Refused."""
    directory = _working_directory(assignment, order)
    devices = assignment.visible_devices
    kept_ones = [(assignment.output_directory, "output")]
    if assignment.checkpoint_source is None:  # else `command` makes it, or has found it
        kept_ones.append((assignment.checkpoint_directory, "checkpoint"))
    for kept, what in kept_ones:
        try:
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"The {what} directory can't be made: {error}.") from None
    return directory, {
        **inherited(os.environ),
        "PYTHONUNBUFFERED": "1",  # else a print into a pipe arrives only when the child ends
        **order.environment,
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, order.gpu_indices)) if devices is None else devices,
        CHECKPOINT_VARIABLE: str(assignment.checkpoint_directory),
        OUTPUT_VARIABLE: str(assignment.output_directory),
        **({WORKDIR_VARIABLE: str(directory)} if assignment.package is not None else {}),
        ATTEMPT_VARIABLE: assignment.attempt_id,
        MARK_VARIABLE: mark(assignment.directory),
        "SIMULATION_RANK": str(order.rank),
        "SIMULATION_WORLD_SIZE": str(order.world_size),
        **(_meeting(order) if order.world_size > 1 else {}),
    }


def _meeting(order: Order) -> dict[str, str]:
    """The variables by which the members of a gang find each other.

    torch.distributed's env:// needs MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE; launchers and frameworks also read
    LOCAL_RANK (each member sees its own GPUs only, so it is 0) and NODE_RANK. A simulation on one machine gets none of
    them: libraries take RANK or LOCAL_RANK for the sign of a distributed run, and would wait for others. Raises
    Refused.
    """
    if len(order.addresses) != order.world_size or order.master_port is None:
        raise Refused("The service named no address or no port at which the members can meet.")
    return {
        "SIMULATION_ADDRESSES": ",".join(order.addresses),
        "MASTER_ADDR": order.addresses[0],
        "MASTER_PORT": str(order.master_port),
        "RANK": str(order.rank),
        "WORLD_SIZE": str(order.world_size),
        "LOCAL_RANK": "0",
        "NODE_RANK": str(order.rank),
    }


def start(entrypoint: Sequence[str], directory: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the child, at low priority, in a process group of its own. Raises Refused."""
    command = entrypoint[0]
    try:
        child = subprocess.Popen(
            entrypoint,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            **OWN_GROUP,
        )
    except OSError as error:
        raise Refused(_why_not(command, directory, error)) from None
    except ValueError as error:  # NUL, or = in the name of a variable
        raise Refused(f"{command!r} can't be started: {error}.") from None
    if os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        with contextlib.suppress(OSError):  # it left its group already
            os.setpriority(os.PRIO_PGRP, child.pid, NICENESS)  # not by preexec_fn, which costs a fork
    return child


def lower_session() -> bool:
    """Give this process's session less of the cores than the service has; False if that has to be tried again.

    Linux shares the cores equally among sessions, not processes, by default (autogroups, sched(7)): beside a hundred
    simulations, each a session of its own, the API would have a hundredth. Any user may lower a session, but all
    together only ten in a second, else it is EAGAIN. Elsewhere (cgroups, other kernels) the niceness of `start` counts.
    """
    if os.getsid(0) != os.getpid():  # the session belongs to another program
        return True
    try:
        group = os.open(AUTOGROUP, os.O_WRONLY)
        try:
            os.write(group, str(NICENESS).encode())
        finally:
            os.close(group)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def mark(directory: Path) -> str:
    """The value of `MARK_VARIABLE` for an attempt's directory."""
    return os.path.realpath(directory)


def _working_directory(assignment: Assignment, order: Order) -> Path:
    if order.working_directory is None:
        try:
            assignment.work_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"The attempt's own directory can't be made: {error}.") from None
        return assignment.work_directory
    asked = order.working_directory
    try:
        directory = (assignment.work_directory / asked).resolve()
        is_directory = directory.is_dir()
        exists = is_directory or directory.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise Refused(f"The working directory {asked} can't be used on this machine: {error}.") from None
    roots = [root.resolve() for root in assignment.allowed_roots]
    if roots and not any(directory.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots))
        raise Refused(f"The working directory {asked} is not inside a directory allowed on this machine ({allowed}).")
    if not exists:
        raise Refused(f"The working directory {asked} does not exist on this machine.")
    if not is_directory:
        raise Refused(f"The working directory {asked} is not a directory.")
    if not os.access(directory, os.X_OK):
        raise Refused(f"The working directory {asked} can't be entered: permission denied.")
    return directory


def _why_not(command: str, directory: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        if "/" not in command:
            return f"The command {command} was not found on this machine's PATH."
        if (directory / command).exists():
            return f"{command} can't be started: the interpreter that its first line names does not exist."
        return f"{command} does not exist on this machine (looked from {directory})."
    if error.errno == errno.EACCES:
        return f"{command} can't be started: permission denied; is it an executable file?"
    return f"{command} can't be started: {error.strerror or error}."


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants, even after setsid or a double fork."""
    if _prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
        complain(f"not a subreaper: {os.strerror(ctypes.get_errno())}")


def name_process(name: str) -> None:
    """Set the name that `ps -o comm` and `top` show: a forked process has the command line of its parent."""
    _prctl(PR_SET_NAME, name.encode())


_LIBC = ctypes.CDLL(None, use_errno=True)  # before a fork: loading it makes a class, which writes to many pages
_LIBC.prctl  # noqa: B018  # looked up likewise


def _prctl(option: int, argument: object) -> int:
    return int(_LIBC.prctl(option, argument, 0, 0, 0))


def reap(spared: int) -> None:
    """Reap ended descendants, except the spared one, whose pid must not be reused."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid == spared:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def kill_descendants(spared: Container[int] = (), seconds: float = KILL_SECONDS) -> bool:
    """Kill every descendant that is not below a spared child, until there is none; False if one does not die."""
    deadline = time.monotonic() + seconds
    while _has_children():
        living = [pid for pid in children() if pid not in spared]
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in living:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not living:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The pids of this process's children, zombies included."""
    # By the parent's pid, not by /proc/self/task/*/children, which may skip some children while others exit.
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                text = Path("/proc", name, "stat").read_bytes()
                if int(text[text.rindex(b")") + 2 :].split()[1]) == me:
                    found.append(int(name))
    return found


def record(path: Path, pid: int) -> None:
    """Write a process's identity to a file, for the engine."""
    try:
        identity = processes.identify(pid)
        if identity is not None:
            processes.write_identity(path, identity)
    except OSError as error:  # a full disk; the mark in the environment is still there
        complain(f"{path.name} can't be written: {error}")
