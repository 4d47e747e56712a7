"""`simulations doctor`: diagnosis of an installation, with advice for each problem.

Order of the checks: settings, the data directory and its lock, its disk, the port, the database, and from its rows the
clock, the processes of the service and the machines; last, the Ray clusters and the bucket of files, where a small
object is written and removed. A check that depends on a failed one is skipped. All checks run on this host, with the
settings that the service would use here.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import httpx
import psutil
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

import settings as knobs
from cli import doctor_clusters, doctor_database, doctor_files, ports
from cli.errors import ExitCode, PortTaken, StartFailed
from cli.terminal import print_json, stdout
from db.embedded import server as embedded
from db.embedded.cluster import check_version, find_postmaster
from db.embedded.data_directory import Holder, find_holder
from db.errors import DatabaseError
from db.schema import SchemaMismatch

FULL_MIB = 100  # below this a database will soon stop
NEARLY_FULL_MIB = 1024
PROBE_SECONDS = 5.0


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # works, but perhaps not for long or not for all users
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check, with advice."""

    check: str
    level: Level
    sentence: str
    advice: str = ""


STYLES = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("PROBLEM", "bold red")}


def doctor(*, as_json: bool) -> ExitCode:
    """Run all checks; FAILED if there is a problem."""
    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            _print(finding)
    well = all(finding.level is not Level.PROBLEM for finding in findings)
    if as_json:
        print_json({"ok": well, "findings": [asdict(finding) for finding in findings]})
    return ExitCode.OK if well else ExitCode.FAILED


def examine() -> Iterator[Finding]:
    """Yield findings as the checks run."""
    try:
        settings = knobs.load()
        settings.read_admin_token()
    except knobs.SettingsError as error:
        for line in str(error).splitlines():
            yield Finding("settings", Level.PROBLEM, line, "Correct this variable; the other checks were skipped.")
        return
    yield Finding("settings", Level.OK, "The settings are valid.")
    directory = (settings.data_dir or embedded.default_data_directory()).absolute()
    owner = find_holder(directory)
    yield from _directory(directory, owner, given_database=settings.database_url is not None)
    yield _disk(directory)
    yield _port(settings, owner)
    url = settings.database_url
    if url is None:
        yield from _embedded(directory, owner)
        url = embedded.find_url(directory)
    if url is not None:
        yield from _database(settings, url)
    for check, level, sentence, advice in (*doctor_clusters.examine(settings), *doctor_files.examine(settings)):
        yield Finding(check, Level(level), sentence, advice)


def judge_disk(path: Path, free_mib: int, total_mib: int, free_files: int) -> Finding:
    """Check the free space. free_files: free inodes; negative: no limit."""
    where = f"{free_mib:,} of {total_mib:,} MiB are free in {path}"
    if free_files == 0:
        return Finding("disk", Level.PROBLEM, f"No file can be added to {path}: it has no inodes left.", "Delete some.")
    if free_mib < FULL_MIB:
        return Finding(
            "disk", Level.PROBLEM, f"Only {where}.", "Make room, or set SIMULATIONS_DATA_DIR to a directory with some."
        )
    if free_mib < NEARLY_FULL_MIB:
        return Finding("disk", Level.WARNING, f"Only {where}.", "Make room before it is full.")
    return Finding("disk", Level.OK, f"{where}.")


# --- this host -------------------------------------------------------------------------------------------------


def _directory(directory: Path, owner: Holder | None, *, given_database: bool) -> Iterator[Finding]:
    try:
        status = directory.stat()
    except FileNotFoundError:
        there = _nearest(directory)
        if os.access(there, os.W_OK | os.X_OK):
            yield Finding("data directory", Level.OK, f"{directory} does not exist yet; the first start creates it.")
        else:
            yield Finding(
                "data directory",
                Level.PROBLEM,
                f"{directory} does not exist yet, and this user may create nothing in {there}.",
                "Create it for this user, or choose another directory with SIMULATIONS_DATA_DIR.",
            )
        return
    except OSError as error:
        yield Finding(
            "data directory",
            Level.PROBLEM,
            f"{directory} can't be read: {error.strerror}.",
            "Correct its permissions, or choose another directory with SIMULATIONS_DATA_DIR.",
        )
        return
    if not directory.is_dir():
        yield Finding(
            "data directory", Level.PROBLEM, f"{directory} is a file.", "Choose another with SIMULATIONS_DATA_DIR."
        )
        return
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        sentence = f"{directory} is read-only"
        if given_database:  # as in containers of `graph`
            yield Finding(
                "data directory", Level.OK, f"{sentence}: enough for a graph process, which writes nothing there."
            )
        else:
            yield Finding(
                "data directory", Level.PROBLEM, f"{sentence}.", "Choose another directory with SIMULATIONS_DATA_DIR."
            )
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            "data directory",
            Level.PROBLEM,
            f"{directory} belongs to another user: this one may not write there.",
            "Run the service as its owner, or choose another directory with SIMULATIONS_DATA_DIR.",
        )
        return
    if status.st_mode & 0o066:
        yield Finding(
            "data directory",
            Level.WARNING,
            f"Other users may read {directory} (mode {status.st_mode & 0o777:04o}), which holds tokens of attempts.",
            f"Run: chmod go-rw {directory}",
        )
    elif owner is not None:
        yield Finding("data directory", Level.OK, f"{directory} is in use by pid {owner.pid}, which runs the service.")
    else:
        yield Finding("data directory", Level.OK, f"{directory} can be used; no service runs on it.")
    if owner is None:
        for pid, name in _leftovers(directory):
            yield Finding(
                "processes",
                Level.WARNING,
                f"A process of a service that was killed still runs: {name}, pid {pid}.",
                "The next `simulations up` ends it.",
            )


def _leftovers(directory: Path) -> Iterator[tuple[int, str]]:
    """Yield processes that a killed `up` left running; the roster may be malformed."""
    try:
        entries = json.loads((directory / "children.json").read_text())
        told = [(int(each["pid"]), float(each["started_at"])) for each in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for pid, started_at in told:
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - started_at) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
                yield pid, process.name()
        except psutil.Error:
            continue


def _nearest(directory: Path) -> Path:
    """Return the directory, or its nearest existing parent."""
    return next((path for path in (directory, *directory.parents) if path.is_dir()), Path("/"))


def _disk(directory: Path) -> Finding:
    there = _nearest(directory)
    try:
        usage, files = shutil.disk_usage(there), os.statvfs(there)
    except OSError as error:
        return Finding("disk", Level.WARNING, f"The disk of {there} can't be checked: {error.strerror}.")
    free_files = files.f_favail if files.f_files else -1
    return judge_disk(there, usage.free // 2**20, usage.total // 2**20, free_files)


def _port(settings: knobs.Settings, owner: Holder | None) -> Finding:
    if owner is not None and owner.url is not None:  # its HOST and PORT may differ from the settings here
        return _answers(owner.url) or Finding(
            "port",
            Level.PROBLEM,
            f"The service runs, but does not answer at {owner.url}.",
            "If this persists for a minute, check the log of `graph`.",
        )
    try:
        ports.require_free(settings.host, settings.port)
    except PortTaken as taken:
        who = _who_listens(settings.port)
        sentence, _, advice = str(taken).partition(". ")
        return _answers(ports.probe_url(settings.host, settings.port)) or Finding(
            "port", Level.PROBLEM, f"{sentence}{f': {who}' if who else ''}.", advice
        )
    except StartFailed as error:
        return Finding("port", Level.PROBLEM, str(error), "Correct HOST and PORT.")
    if settings.port == 0:
        return Finding("port", Level.OK, "PORT=0: the service takes any free port.")
    return Finding("port", Level.OK, f"Port {settings.port} is free.")


def _answers(url: str) -> Finding | None:
    """Return the state of the Simulations server at `url`; None if there is none."""
    try:
        with httpx.Client(trust_env=False, timeout=PROBE_SECONDS) as client:
            answer = client.get(f"{url}/readyz")
        told = answer.json()
        status = told.get("status") if isinstance(told, dict) else None
    except (httpx.HTTPError, ValueError):
        return None
    if status == "ready":
        return Finding("port", Level.OK, f"Simulations answers at {url}.")
    if status != "not ready":
        return None
    reason = told.get("reason") or "the reason is not public"
    return Finding(
        "port", Level.PROBLEM, f"Simulations answers at {url}, but is not ready: {reason}", "See the database below."
    )


def _who_listens(port: int) -> str | None:
    try:
        for each in psutil.net_connections(kind="tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid is not None:
                return f"{psutil.Process(each.pid).name()}, pid {each.pid}"
    except psutil.Error:  # other users' processes are visible to root only
        return None
    return None


def _embedded(directory: Path, owner: Holder | None) -> Iterator[Finding]:
    cluster = directory / "postgres"
    try:
        if not cluster.exists():
            yield Finding(
                "database", Level.OK, "There is no database yet; the first start creates it, with all tables."
            )
            return
        check_version(cluster)
        mode = cluster.stat().st_mode & 0o777
    except (embedded.EmbeddedError, OSError) as error:
        yield Finding("database", Level.PROBLEM, str(error))
        return
    if os.geteuid() == 0 and not directory.stat().st_mode & 0o001:
        yield Finding(
            "database",
            Level.PROBLEM,
            f"PostgreSQL runs as a user of its own, not as root, and this user can't traverse {directory}.",
            f"Run: chmod o+x {directory}",
        )
        return
    if mode & 0o027:
        yield Finding(
            "database",
            Level.PROBLEM,
            f"PostgreSQL does not start on {cluster}: other users may access it (mode {mode:04o}).",
            f"Run: chmod 700 {cluster}",
        )
        return
    server = find_postmaster(cluster)
    if server is None and owner is not None:
        yield Finding(
            "database",
            Level.PROBLEM,
            f"The service runs, but its database does not. See {directory / 'postgres.log'}.",
            "It is restarted every few seconds; if that fails, restart the service.",
        )
    elif server is None:
        yield Finding("database", Level.WARNING, "The service is not running.", "Start it: simulations up")
    elif owner is None:
        yield Finding(
            "database",
            Level.WARNING,
            f"The database still runs (pid {server.process.pid}), left by a service that was killed.",
            "The next `simulations up` takes it over.",
        )
    elif server.status != "ready":
        yield Finding("database", Level.WARNING, f"The database is {server.status}.", "Ask again in a moment.")


def _database(settings: knobs.Settings, url: str) -> Iterator[Finding]:
    try:
        found = asyncio.run(doctor_database.examine(settings, url))
    except DatabaseError as error:
        sentence, _, advice = str(error).partition(". ")
        yield Finding("database", Level.PROBLEM, f"{sentence.rstrip('.')}.", advice)
    except SchemaMismatch as error:
        sentence, _, advice = str(error).rpartition(". ")
        yield Finding("schema", Level.PROBLEM, f"{sentence.rstrip('.')}.", advice)
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        yield Finding("database", Level.PROBLEM, f"The database failed during the check: {reason}")
    else:
        for check, level, sentence, advice in found:
            yield Finding(check, Level(level), sentence, advice)


def _print(finding: Finding) -> None:
    word, style = STYLES[finding.level]
    console = stdout()
    console.print(Text.assemble((f"{word:<8}", style), f" {finding.check}: {finding.sentence}"), soft_wrap=True)
    if finding.advice:
        console.print(Text(f"{'':<8} {finding.advice}", style="bold"), soft_wrap=True)
