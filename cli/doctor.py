"""`simulations doctor`: what is wrong with an installation, and what to do about it. It looks and changes nothing.

In order: settings, the data directory and who holds it, its disk, the port, the database, and by its rows the clock,
the processes of the service and the machines. What can't be looked at because of an earlier finding is left out.
Everything is looked at from this host, with the settings that the service would be started with here.
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
from cli import doctor_database, ports
from cli.errors import ExitCode, PortTaken, StartFailed
from cli.terminal import print_json, stdout
from db.embedded import server as embedded
from db.embedded.cluster import check_version, find_postmaster
from db.embedded.data_directory import Holder, find_holder
from db.errors import DatabaseError
from db.schema import SchemaMismatch

FULL_MIB = 100  # with less, a database is not far from its end
NEARLY_FULL_MIB = 1024
PROBE_SECONDS = 5.0


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, and may not for long, or not for everybody
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it."""

    check: str
    level: Level
    sentence: str
    advice: str = ""


STYLES = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("PROBLEM", "bold red")}


def doctor(*, as_json: bool) -> ExitCode:
    """Look at everything; FAILED if there is a problem."""
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
    """Yield what is found, as it is found."""
    try:
        settings = knobs.load()
        settings.read_admin_token()
    except knobs.SettingsError as error:
        for line in str(error).splitlines():
            yield Finding("settings", Level.PROBLEM, line, "Correct this variable; the others were not looked at.")
        return
    yield Finding("settings", Level.OK, "The settings can be used.")
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


def judge_disk(path: Path, free_mib: int, total_mib: int, free_files: int) -> Finding:
    """Say whether there is room. free_files: how many more files there may be; below zero: no such limit."""
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
            yield Finding("data directory", Level.OK, f"{directory} is not there yet; the first start makes it.")
        else:
            yield Finding(
                "data directory",
                Level.PROBLEM,
                f"{directory} is not there yet, and this user may make nothing in {there}.",
                "Make it for this user, or choose another directory with SIMULATIONS_DATA_DIR.",
            )
        return
    except OSError as error:
        yield Finding(
            "data directory",
            Level.PROBLEM,
            f"{directory} can't be looked into: {error.strerror}.",
            "Mend its permissions, or choose another directory with SIMULATIONS_DATA_DIR.",
        )
        return
    if not directory.is_dir():
        yield Finding(
            "data directory", Level.PROBLEM, f"{directory} is a file.", "Choose another with SIMULATIONS_DATA_DIR."
        )
        return
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        sentence = f"{directory} is read-only"
        if given_database:  # as in the containers of `graph`
            yield Finding("data directory", Level.OK, f"{sentence}: enough for a graph, which keeps nothing there.")
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
            f"Other users may look into {directory} (mode {status.st_mode & 0o777:04o}): tokens of attempts lie there.",
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
    """What a killed `up` has left running; its file may be anything."""
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
    """This directory, or the one that it would be made in."""
    return next((path for path in (directory, *directory.parents) if path.is_dir()), Path("/"))


def _disk(directory: Path) -> Finding:
    there = _nearest(directory)
    try:
        usage, files = shutil.disk_usage(there), os.statvfs(there)
    except OSError as error:
        return Finding("disk", Level.WARNING, f"The disk of {there} can't be looked at: {error.strerror}.")
    free_files = files.f_favail if files.f_files else -1
    return judge_disk(there, usage.free // 2**20, usage.total // 2**20, free_files)


def _port(settings: knobs.Settings, owner: Holder | None) -> Finding:
    if owner is not None and owner.url is not None:  # it may have been started with another HOST or PORT than this
        return _answers(owner.url) or Finding(
            "port",
            Level.PROBLEM,
            f"The service runs, and does not answer at {owner.url}.",
            "If it does not in a minute, look into what `graph` has logged.",
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
        return Finding("port", Level.OK, "PORT=0: any that is free is taken.")
    return Finding("port", Level.OK, f"Port {settings.port} is free.")


def _answers(url: str) -> Finding | None:
    """What a Simulations server answers there; None: there is none."""
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
    reason = told.get("reason") or "it does not say why to strangers"
    return Finding(
        "port", Level.PROBLEM, f"Simulations answers at {url}, and is not ready: {reason}", "See the database below."
    )


def _who_listens(port: int) -> str | None:
    try:
        for each in psutil.net_connections(kind="tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid is not None:
                return f"{psutil.Process(each.pid).name()}, pid {each.pid}"
    except psutil.Error:  # of others' processes the kernel tells root alone
        return None
    return None


def _embedded(directory: Path, owner: Holder | None) -> Iterator[Finding]:
    cluster = directory / "postgres"
    try:
        if not cluster.exists():
            yield Finding("database", Level.OK, "There is no database yet; the first start makes it, with all tables.")
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
            f"PostgreSQL does not run as root but as a user of its own, which may not pass {directory}.",
            f"Run: chmod o+x {directory}",
        )
        return
    if mode & 0o027:
        yield Finding(
            "database",
            Level.PROBLEM,
            f"PostgreSQL does not start on {cluster}: others may write or look into it (mode {mode:04o}).",
            f"Run: chmod 700 {cluster}",
        )
        return
    server = find_postmaster(cluster)
    if server is None and owner is not None:
        yield Finding(
            "database",
            Level.PROBLEM,
            f"The service runs, and its database does not. {directory / 'postgres.log'} says why.",
            "It is started again every few seconds; if that does not help, start the service anew.",
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
        yield Finding("database", Level.PROBLEM, f"The database failed while it was looked at: {reason}")
    else:
        for check, level, sentence, advice in found:
            yield Finding(check, Level(level), sentence, advice)


def _print(finding: Finding) -> None:
    word, style = STYLES[finding.level]
    console = stdout()
    console.print(Text.assemble((f"{word:<8}", style), f" {finding.check}: {finding.sentence}"), soft_wrap=True)
    if finding.advice:
        console.print(Text(f"{'':<8} {finding.advice}", style="bold"), soft_wrap=True)
