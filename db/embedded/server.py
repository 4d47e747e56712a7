"""Embedded PostgreSQL server, for installations without a server: create, start, watch, stop.

One server for one data directory, whose `postgres/` holds the data. It listens on a unix socket only, in a directory
closed to other users, which is its only access control. It runs in its own session, so a Ctrl-C or a
kill -9 of the process that started it leaves it alone; the next run finds it in `postmaster.pid` and adopts it.
A caller of `serve` holds `lock` on the directory: two callers with one directory would stop each other's server.
Fails with `EmbeddedError`: a sentence, the end of the server's log where it says more, and what to do.

Not here: the programs and their user (`db.binaries`), the data on disk (`db.cluster`), the lock
(`db.data_directory`), tables (`db.schema`).
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import psutil
import structlog

from db.embedded.binaries import Account, Programs, prepare
from db.embedded.cluster import DATABASE, check_version, create, failed, find_postmaster, release, runs, wait_for_end
from db.embedded.data_directory import (
    AlreadyRunning,
    EmbeddedError,
    EmbeddedUnavailable,
    create_data_directory,
    default_data_directory,
    lock,
    unwritable,
)

__all__ = [
    "AlreadyRunning",
    "EmbeddedError",
    "EmbeddedServer",
    "EmbeddedUnavailable",
    "default_data_directory",
    "find_url",
    "lock",
    "serve",
]

log = structlog.get_logger()

PORT = 5432  # a part of the socket's name, nothing more
SOCKET = f".s.PGSQL.{PORT}"
LOG_ROTATION_BYTES = 10 * 2**20
STOP_SECONDS = 60  # a fast stop writes everything to disk first; past this, the next start recovers
PROGRESS_SECONDS = 5
TMP = Path("/tmp")  # noqa: S108  # short, for a socket's path ends at 107 bytes (unix(7)); nothing in it is trusted

SETTINGS = {
    "cluster_name": "simulations",
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "log_min_error_statement": "panic",  # a failed statement may carry secrets
}
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@contextmanager
def serve(data_directory: Path, *, settings: Mapping[str, str] = NO_SETTINGS) -> Iterator[EmbeddedServer]:
    """Serve a data directory while the block runs, from its first start on; stop the server however the block ends.

    Waits through crash recovery, as long as it takes. `settings` are PostgreSQL's own and win over ours.
    The caller holds `lock`. Raises `EmbeddedError`.
    """
    create_data_directory(data_directory)
    data_directory = data_directory.resolve()
    cluster = data_directory / "postgres"
    programs = prepare(data_directory, cluster)
    if not cluster.exists():
        create(programs, cluster, settings)
    check_version(cluster)
    server = EmbeddedServer(programs, cluster, settings)
    try:
        server.restart()
        yield server
    finally:
        server.stop()


def find_url(data_directory: Path) -> str | None:
    """Find the URL of the server that some other process runs on this data directory, if it is ready."""
    found = find_postmaster(data_directory.resolve() / "postgres")
    return _url(found.socket_directory) if found and found.status == "ready" else None


class EmbeddedServer:
    """The server of one data directory; `serve` makes it. Watch it: `if not server.alive(): server.restart()`."""

    def __init__(self, programs: Programs, cluster: Path, settings: Mapping[str, str]) -> None:
        self._programs = programs
        self._cluster = cluster
        self._settings = settings
        self._process: psutil.Process | None = None
        self.socket_directory = _make_socket_directory(cluster, programs.account)

    @property
    def url(self) -> str:
        """Where the database is; a restart does not change it."""
        return _url(self.socket_directory)

    @property
    def pid(self) -> int:
        """The postmaster's process id; a restart changes it."""
        assert self._process is not None, "serve() starts it before it returns it"
        return self._process.pid

    def alive(self) -> bool:
        """Whether the server runs and can be reached; a few looks into the file system, no connection."""
        return self._process is not None and runs(self._process) and (self.socket_directory / SOCKET).exists()

    def restart(self) -> None:
        """Bring the server up if it is down: adopt the one that runs, or start it, and wait until it takes connections.

        Raises `EmbeddedError` when it ends instead.
        """
        began = time.monotonic()
        if self._adopt():
            log.info("embedded_server_adopted", pid=self.pid)
            return
        self._start()
        log.info("embedded_server_started", pid=self.pid, seconds=round(time.monotonic() - began, 3))

    def stop(self) -> None:
        """Stop the server, if it runs: end its connections, write everything to disk."""
        self._end_process()
        self._clear_sockets()
        with suppress(OSError):
            self.socket_directory.rmdir()

    def _adopt(self) -> bool:
        found = find_postmaster(self._cluster)
        if found is None:
            return False
        if self._process != found.process:
            self._end_process()
            self._process = found.process
        reachable = found.status == "starting" or (found.socket_directory / SOCKET).exists()
        if found.status != "stopping" and reachable and self._wait_until_ready():
            if self.socket_directory != found.socket_directory:
                with suppress(OSError):
                    self.socket_directory.rmdir()
                self.socket_directory = found.socket_directory
            return True
        return False  # it is stopping, or can't be reached any more

    def _start(self) -> None:
        self._end_process()
        release(self._cluster)
        self._programs.remove_other_copies(self._cluster.parent)
        _make_socket_directory(self._cluster, self._programs.account, self.socket_directory)
        self._clear_sockets()
        server_log = self._cluster.parent / "postgres.log"
        options = {"unix_socket_directories": f'"{self.socket_directory}"', **SETTINGS, **self._settings}
        try:
            output, offset = _open_log(server_log)
        except OSError as error:
            raise unwritable(server_log, error) from error
        try:
            self._process = self._programs.start(
                "postgres", "-D", self._cluster, *_as_arguments(options), cwd=self._cluster, output=output
            )
        finally:
            os.close(output)
        if not self._wait_until_ready():
            self._end_process()
            raise failed(
                "The embedded PostgreSQL server did not start", _tail(server_log, offset), self._cluster.parent
            )

    def _wait_until_ready(self) -> bool:
        """Wait for the postmaster's own word in its file; False when it ends first."""
        assert self._process is not None
        began = told = time.monotonic()
        while runs(self._process):
            found = find_postmaster(self._cluster)
            if found is not None and found.process == self._process and found.status == "ready":
                return True
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                log.info("embedded_server_recovering", seconds=round(told - began))
            time.sleep(0.01)
        return False

    def _end_process(self) -> None:
        """End the postmaster, politely, then for good (the data survive either way), and reap it if it is ours."""
        process, self._process = self._process, None
        if process is None:
            return
        for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            if not wait_for_end([process], seconds):
                break
            log.warning("embedded_server_slow_to_stop", pid=process.pid, signal=number.name)
        if isinstance(process, psutil.Popen):
            process.wait()  # ours: take it off the kernel's list

    def _clear_sockets(self) -> None:
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.socket_directory / name).unlink(missing_ok=True)


def _make_socket_directory(cluster: Path, account: Account | None, wanted: Path | None = None) -> Path:
    """Create the directory of the socket: short, the same at every start, closed to other users.

    Other people write to /tmp too, so what is found there is believed only if it is a directory of ours that is closed
    to others; else another user took the name, and a fresh one is used. (Not XDG_RUNTIME_DIR: it goes at logout, and a
    server under nohup stays.)
    """
    uid = account.uid if account else os.geteuid()
    name = f"simulations-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]}"
    candidates = [wanted] if wanted else [TMP / name] if account is None else [Path("/run") / name, TMP / name]
    for path in candidates:
        if _is_private(path, uid, account):
            return path
    if wanted:
        raise EmbeddedError(f"The directory of the server's socket, {wanted}, was taken by another user. Start again.")
    try:
        fresh = Path(tempfile.mkdtemp(prefix="simulations-", dir=TMP))
        if account:
            os.chown(fresh, account.uid, account.gid)
    except OSError as error:
        raise unwritable(TMP, error) from error
    return fresh


def _is_private(path: Path, uid: int, account: Account | None) -> bool:
    try:
        with suppress(FileExistsError):
            path.mkdir(0o700)
        status = path.lstat()
        if account and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
            status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o077


def _open_log(path: Path) -> tuple[int, int]:
    """Open the server's log to append to, after putting a big one aside; the second value is where new lines begin."""
    if path.exists() and path.stat().st_size > LOG_ROTATION_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return file, os.fstat(file).st_size


def _tail(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def _as_arguments(options: Mapping[str, str]) -> list[str]:
    return [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]


def _url(socket_directory: Path) -> str:
    # Everything is said, so that no PGPORT or PGSSLMODE of the user's changes it.
    return f"postgresql://{DATABASE}@/{DATABASE}?host={quote(str(socket_directory))}&port={PORT}&sslmode=disable"
