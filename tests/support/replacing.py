"""The rest of the suite goes on when one of its processes dies: of a crash, or of a test that hung.

A test that hangs ends its process, whichever way it hangs. Where all threads and tasks were is in its report, or on the
terminal where pytest runs in one process. (What pytest-timeout itself writes, no process of pytest-xdist shows.)

pytest-xdist 3.8 gives what the dead process had left to do to others, first of all the test that it died in, and
between them files in which everything is done: a process that gets such a file, or a single test, waits for more for
ever (https://github.com/pytest-dev/pytest-xdist/issues/1378; the version to come mends most of that).
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import sys
import threading
from collections.abc import Iterator

import failures
import pytest
from pytest_timeout import Settings
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SAYS = pytest.StashKey[int]()
TIMER = pytest.StashKey[threading.Timer]()
GRACE_SECONDS = 15.0  # for Python itself to say where it hangs; without it, faulthandler says it of the threads


class Files(LoadFileScheduling):
    """`--dist loadfile`, in which the death of a process costs one test."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Return the test that a process died in. Its other tests are done by those that are left."""
        for tests in self.assigned_work[node].values():
            for test, is_done in tests.items():
                if not is_done:
                    tests[test] = True  # it is not tried again
                    self.workqueue.update(self.assigned_work.pop(node))
                    for other in self.assigned_work:
                        self._reschedule(other)
                    return test
        return super().remove_node(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a process files until it has tests to do: it begins one when it has the next one, or is to end."""
        if node in self.registered_collections:  # else it has not found the tests yet
            while not node.shutting_down and self._pending_of(self.assigned_work[node]) <= 2:
                super()._reschedule(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Files | None:
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        failures.FOLDER.mkdir(parents=True, exist_ok=True)
        path = failures.FOLDER / f"hung-{config.workerinput['workerid']}.txt"
        config.stash[SAYS] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    else:
        config.stash[SAYS] = os.dup(sys.stderr.fileno())  # during a test, pytest keeps what is written


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[SAYS])
    if not hasattr(config, "workerinput"):
        for path in failures.FOLDER.glob("hung-*.txt"):
            if not path.stat().st_size:
                path.unlink()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    worker = report.longreprtext.partition("'")[2].partition("'")[0]  # "worker 'gw0' crashed while running ..."
    path = failures.FOLDER / f"hung-{worker}.txt"
    if path.exists() and path.stat().st_size:
        report.longrepr = f"{report.longreprtext}: it hung\n{path.read_text()}"


@pytest.hookimpl
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool:
    says = item.config.stash[SAYS]
    faulthandler.dump_traceback_later(settings.timeout + GRACE_SECONDS, exit=True, file=says)
    timer = item.stash[TIMER] = threading.Timer(settings.timeout, _give_up, (item, settings.timeout, says))
    timer.daemon = True
    timer.start()
    return True


@pytest.hookimpl
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    if TIMER in item.stash:
        item.stash[TIMER].cancel()
    faulthandler.cancel_dump_traceback_later()
    return True


def _give_up(item: pytest.Item, seconds: float, says: int) -> None:
    with os.fdopen(os.dup(says), "w") as file:
        print(f"\n{item.nodeid} has not ended after {seconds:g} s.", file=file, flush=True)
        faulthandler.dump_traceback(file)
        for task in gc.get_objects():
            if issubclass(type(task), asyncio.Task) and not task.done():
                print(f"Task {task.get_name()}", *_stack(task.get_coro()), sep="\n  ", file=file)
    os._exit(1)


def _stack(awaited: object) -> Iterator[str]:
    """Where a coroutine waits, the outermost first."""
    while awaited is not None:
        frame, inner = None, None
        for kind, onward in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = frame or getattr(awaited, f"{kind}_frame", None)
            inner = inner or getattr(awaited, f"{kind}_{onward}", None)
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}" if frame else repr(awaited)
        awaited = inner
