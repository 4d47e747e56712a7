"""The data of an embedded server on disk: making them, whose version they are, and which processes use them.

Starting and stopping a server is `db.embedded`'s. What is made here appears under its name when it is whole: a run
that was killed in between leaves only an unfinished directory, removed by the next. Fails with `EmbeddedError`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from db.embedded.binaries import MAJOR, Programs
from db.embedded.data_directory import EmbeddedError, unwritable

log = structlog.get_logger()

DATABASE = "simulations"  # and its owner
UNFINISHED = "postgres.unfinished-"
ORPHANS_SECONDS = 5
KILLED_SECONDS = 10  # past this the kernel holds what was killed
ROOM_MIB = 100  # with less than this, a full disk is the likeliest reason for a failure


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a running server says of itself in `postmaster.pid`."""

    process: psutil.Process
    socket_directory: Path
    status: str  # starting, ready, stopping


def create(programs: Programs, cluster: Path, settings: Mapping[str, str]) -> None:
    """Make the data with their one database; UTF-8, sorted by code point, the same on every system."""
    began = time.monotonic()
    for left_behind in cluster.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=cluster.parent))
        try:
            if programs.account:
                os.chown(unfinished, programs.account.uid, programs.account.gid)
            _fill(programs, unfinished, settings)
            unfinished.rename(cluster)
            _sync(cluster.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise unwritable(cluster, error) from error
    log.info("embedded_server_created", directory=str(cluster), seconds=round(time.monotonic() - began, 3))


def check_version(cluster: Path) -> None:
    """Raise `EmbeddedError` unless the data are of the version that the programs can read."""
    try:
        found = (cluster / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise EmbeddedError(
            f"{cluster} holds no data of PostgreSQL ({error.strerror}). Move it out of the way, and Simulations makes "
            "a new, empty database there; or choose another data directory with SIMULATIONS_DATA_DIR."
        ) from error
    if found != str(MAJOR):
        raise EmbeddedError(
            f"{cluster} holds data of PostgreSQL {found}, and this version of Simulations brings PostgreSQL {MAJOR}. "
            f"Serve them with a PostgreSQL {found} of your own and set DATABASE_URL, or move them from there with "
            "pg_dump and pg_restore; to begin anew, choose another data directory with SIMULATIONS_DATA_DIR."
        )


def find_postmaster(cluster: Path) -> Postmaster | None:
    """Read `postmaster.pid` (lines as in PostgreSQL's `utils/pidfile.h`); None unless that very server runs."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    if len(lines) < 8 or not lines[0].isdigit():
        return None  # it is being written
    try:
        process = psutil.Process(int(lines[0]))
        if not _belongs_to(process, cluster):
            return None  # left behind, and the process id has been reused
    except psutil.Error:
        return None
    return Postmaster(process, Path(lines[4]), lines[7].strip())


def runs(process: psutil.Process) -> bool:
    """Whether a process still runs. A zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended; those that have not are returned. One that its parent never reaps has ended, too."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def release(cluster: Path) -> None:
    """See the last processes of a killed server off, and its file with them; no server may be running.

    One that still wrote would spoil the data under the next server. They notice by themselves that their postmaster
    is gone, unless they are busy.
    """
    orphans = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _belongs_to(process, cluster):
                orphans.append(process)
    busy = wait_for_end(orphans, ORPHANS_SECONDS)
    for process in busy:
        log.warning("embedded_server_orphan_killed", pid=process.pid)
        with suppress(psutil.NoSuchProcess):
            process.kill()
    stuck = wait_for_end(busy, KILLED_SECONDS)
    if stuck:
        raise EmbeddedError(
            f"The processes {', '.join(str(process.pid) for process in stuck)} of an earlier server still use "
            f"{cluster} and can't be killed. Is its disk hanging? Restart this machine."
        )
    # After a reboot the process id in there may be another program's, whom PostgreSQL would take for a server.
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def failed(sentence: str, output: str, data_directory: Path) -> EmbeddedError:
    """Say what did not work, PostgreSQL's own last words on it, and what to do."""
    free_mib = shutil.disk_usage(data_directory).free // 2**20
    advice = (
        f"Only {free_mib} MiB are free there: make room and start again."
        if free_mib < ROOM_MIB
        else "Mend what it says and start again, or choose another data directory with SIMULATIONS_DATA_DIR."
    )
    lines = "\n".join(f"  {line}" for line in output.strip().splitlines()[-15:])
    return EmbeddedError(f"{sentence} in {data_directory}. It says:\n{lines}\n{advice}")


def _fill(programs: Programs, directory: Path, settings: Mapping[str, str]) -> None:
    _run(
        programs, directory, "initdb", "-D", directory, "-U", DATABASE, "--auth-local=trust", "--auth-host=reject",
        "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        *(["--no-sync"] if settings.get("fsync") == "off" else []),
    )  # fmt: skip
    with (directory / "pg_hba.conf").open("w") as file:
        file.write("# Every user who can enter the socket's directory may connect; others can't reach the socket.\n")
        file.write("local all all trust\n")
        file.flush()
        os.fsync(file.fileno())
    # Without a server: nothing to wait for, and the data are complete before they get their name.
    _run(
        programs, directory, "postgres", "--single", "-D", directory, "-c", "exit_on_error=on", "postgres",
        given=f"CREATE DATABASE {DATABASE}\n",
    )  # fmt: skip


def _run(programs: Programs, directory: Path, program: str, *arguments: str | Path, given: str = "") -> None:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as stdin:
        stdin.write(given.encode())
        stdin.seek(0)
        process = programs.start(program, *arguments, cwd=directory, stdin=stdin.fileno(), output=output.fileno())
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise failed(f"PostgreSQL's {program} could not make the database", said, directory.parent)


def _belongs_to(process: psutil.Process, cluster: Path) -> bool:
    # Every process of a server works in its data directory.
    return process.name() == "postgres" and Path(process.cwd()) == cluster and runs(process)


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
