"""`--cpu`: what the tests of each file took in seconds of CPU, their own process's and those of all that they started.

CPU and not time on the clock: two cores are kept busy by three processes of tests, so that what takes less of it makes
the whole run shorter, and a busy machine changes it little. A process is counted when it lives, as a zombie, or by the
one that waited for it. What outlives its parent falls to the process of the tests (as a child subreaper), is counted
there, and is reaped at the end of the file: each test that looks at processes would look at hundreds of zombies, too.
"""

from __future__ import annotations

import ctypes
import os
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import psutil
import pytest
from order import file_of

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
COLLECTION = "(imports, collection)"
KINDS = ("tests", "commands", "postgres", "chromium", "service", "launcher", "other")
FEWEST_SECONDS = 1.0  # of a file that is shown

Taken: TypeAlias = defaultdict[str, float]  # seconds by kind


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("simulations").addoption("--cpu", action="store_true", help="seconds of CPU by file and program")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cpu"):
        config.pluginmanager.register(Meter(config))


class Meter:
    """Adds up what this process and all below it take, file by file; the controller of xdist adds up the workers'."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._taken: dict[str, Taken] = {}  # by file
        self._last = nothing()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def _note(self, name: str) -> None:
        now = taken_so_far()
        self._add(name, {kind: now[kind] - self._last[kind] for kind in KINDS})
        self._last = now
        for kind, seconds in reap():  # from now on the kernel counts it among what was waited for
            self._last[kind] -= seconds
            self._last["commands"] += seconds

    def _add(self, name: str, spent: Mapping[str, float]) -> None:
        taken = self._taken.setdefault(name, nothing())
        for kind, seconds in spent.items():
            taken[kind] += seconds

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._note(COLLECTION)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        result = yield
        if nextitem is None or file_of(nextitem.nodeid) != file_of(item.nodeid):
            self._note(file_of(item.nodeid))
        return result

    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["cpu"] = {name: dict(spent) for name, spent in self._taken.items()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for name, spent in getattr(node, "workeroutput", {}).get("cpu", {}).items():
            self._add(name, spent)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds of CPU")
        total = nothing()
        for spent in self._taken.values():
            for kind, seconds in spent.items():
                total[kind] += seconds
        terminalreporter.line("".join(f"{each:>9}" for each in ("sum", *KINDS)))
        rows = [("all", total), *sorted(self._taken.items(), key=lambda each: -sum(each[1].values()))]
        for name, spent in rows:
            if sum(spent.values()) >= FEWEST_SECONDS:
                columns = (sum(spent.values()), *(spent[kind] for kind in KINDS))
                terminalreporter.line("".join(f"{each:9.1f}" for each in columns) + f"  {name}")


def nothing() -> Taken:
    return defaultdict(float)


def taken_so_far() -> Taken:
    """Seconds of CPU that this process and all below it have taken so far, by the kind of program."""
    taken = nothing()
    times = os.times()
    taken["tests"] = times.user + times.system
    taken["commands"] = times.children_user + times.children_system
    kinds = {os.getpid(): "commands"}
    for process in psutil.Process().children(recursive=True):
        try:
            parent = kinds.get(process.ppid(), "other")
            kind = kinds[process.pid] = kind_of(process, parent)
            taken[kind] += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:  # it ended just now, and its parent has its times
            continue
    return taken


def reap() -> list[tuple[str, float]]:
    """Wait for what has ended below this process; the kind of each, and its seconds."""
    reaped = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                taken = (kind_of(process, "commands"), sum(process.cpu_times()[:4]))
                os.waitpid(process.pid, os.WNOHANG)
                reaped.append(taken)
    return reaped


def kind_of(process: psutil.Process, parent: str) -> str:
    """Which of KINDS a process is. Where its command does not show it, what its parent is."""
    name = process.name()
    if name.startswith(("postgres", "initdb", "pg_")):
        return "postgres"
    if name.startswith(("chrom", "node", "MainThread")) or parent == "chromium":
        return "chromium"
    try:
        command = " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return "launcher" if parent == "commands" else parent
    if "warm.py" in command or "-m graph" in command or "-m scheduler" in command or "-m cli" in command:
        return "service"
    if "launch" in command or "supervis" in command or parent == "launcher":
        return "launcher"
    return parent if parent != "service" else "other"
