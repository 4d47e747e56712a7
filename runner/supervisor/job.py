"""Supervisor as the job of a cluster: `python -I -S ARCHIVE --job` makes the member's directory, forks, and guards.

The engine can't write files on the machine, so the launch comes in one variable of the environment, `LAUNCH_VARIABLE`,
as JSON. All users of the cluster may read it there: its token is good for one hello.

    ROOT/<installation>/attempts/<member>/        as the local engine makes it; removed once all was reported
                        checkpoints/<simulation>/, outputs/<simulation>/, work/<simulation>/<member>/  kept
                        packages/<digest>  archives of code that simulations start in
                        newest/<simulation>  number of the newest attempt whose files are in these directories
    ROOT: simulations-<uid>, 0700 and this user's own, in the cluster's `directory` or that for temporary files

Two processes. The supervisor has a session of its own, so that a cluster's daemon that dies, and with it the job's
process group, doesn't end the simulation: it goes on, and reports. The first process is the guard, a subreaper: when
the supervisor has ended, however it did, the guard kills what it left and exits with a status that proves it:
`REPORTED` or `NOT_REPORTED`, no process is left; `LEFTOVERS` or a signal proves nothing. SIGTERM is for the supervisor,
which gets it as well; SIGKILL is sent by Ray to all processes below the guard at once.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.removal import remove_tree
from runner.supervisor import assignment
from runner.supervisor.child import become_subreaper, kill_descendants, record
from runner.supervisor.complaints import complain
from runner.supervisor.run import LEFTOVERS, NOT_REPORTED, REPORTED, supervise

LAUNCH_VARIABLE = "SIMULATIONS_LAUNCH"


def main() -> int:
    """Run a member to its end; return the exit status of the job."""
    import tempfile  # has `random`, see `runner.supervisor.service`

    launch = json.loads(os.environ.pop(LAUNCH_VARIABLE))
    # `python` in a simulation's command is the interpreter that runs the job.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    place = _own(Path(launch["directory"] or tempfile.gettempdir()) / f"simulations-{os.getuid()}")
    directory = _prepare(place / launch["installation"], launch, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    sys.stdout.flush()
    sys.stderr.flush()
    become_subreaper()
    supervisor = os.fork()
    if supervisor == 0:
        os._exit(_supervise(directory))
    status = _guard(supervisor)
    if status == REPORTED:
        _clear(place / launch["installation"], launch, directory)
    return status


def _own(root: Path) -> Path:
    """Make a directory that only this user can enter. Raises PermissionError for one that another user made."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{root} is not this user's own directory")
    return root


def _prepare(place: Path, launch: Mapping[str, Any], devices: str) -> Path:
    directory: Path = place / "attempts" / launch["member"]
    if directory.exists():  # of an earlier launch of the same member
        remove_tree(directory)
    directory.mkdir(mode=0o700, parents=True)
    (directory / "work").mkdir(mode=0o700)
    (directory / "address").write_text(launch["address"])
    source = launch.get("checkpoint_of")  # the simulation whose checkpoint it begins with a copy of
    config = {
        "attempt_id": launch["attempt_id"],
        "token": launch["token"],
        "rank": launch["rank"],
        "world_size": launch["world_size"],
        "simulation_id": launch["simulation_id"],
        "address_file": "address",
        "checkpoint_directory": str(place / "checkpoints" / launch["simulation"]),
        "checkpoint_source": str(place / "checkpoints" / source) if source else None,
        "output_directory": str(place / "outputs" / launch["simulation"]),
        "newest_file": str(place / "newest" / launch["simulation"]),
        "save_seconds": launch.get("save_seconds", 0.0),
        "begins_from_store": launch.get("begins_from_store", False),
        "work_directory": str(directory / "work"),
        "allowed_roots": launch["allowed_roots"],
        "give_up_seconds": launch["give_up_seconds"],
        "package": launch.get("package"),
        "packages_directory": str(place / "packages"),
        "visible_devices": devices if launch["gpus"] else "",
    }
    assignment.write(directory, config)
    return directory


def _supervise(directory: Path) -> int:
    os.setsid()
    record(directory / "supervisor.json", os.getpid())
    try:
        return supervise(directory)
    except BaseException:  # noqa: BLE001  # logged; a fork must not return into its parent's code
        import traceback

        traceback.print_exc()
        return NOT_REPORTED
    finally:
        sys.stderr.flush()


def _guard(supervisor: int) -> int:
    """Wait for the supervisor, then kill all that it left; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    while True:
        pid, status = os.waitpid(-1, 0)  # orphans too: they become children of this process
        if pid == supervisor:
            break
    if not kill_descendants():
        complain("some process of this member can't be killed: the kernel holds it")
        return LEFTOVERS
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else NOT_REPORTED


def _clear(place: Path, launch: Mapping[str, Any], directory: Path) -> None:
    """Remove the member's directory; what its working directory holds is kept, for it may be results."""
    try:
        work = directory / "work"
        if any(work.iterdir()):
            kept = place / "work" / launch["simulation"] / launch["member"]
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            work.rename(kept)
        remove_tree(directory)
    except OSError as error:
        complain(f"{directory} can't be removed: {error}")
