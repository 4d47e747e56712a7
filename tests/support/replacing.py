"""The rest of the suite goes on when one of its processes dies: of a crash, or of a test that hung.

A test that hangs ends its process, whichever way it hangs; all threads say on the terminal where they are.
(pytest-timeout itself writes that to where no process of pytest-xdist shows it.)

pytest-xdist 3.8 gives what the dead process had left to do to others, first of all the test that it died in, and
between them files in which everything is done: a process that gets such a file, or a single test, waits for more for
ever (https://github.com/pytest-dev/pytest-xdist/issues/1378; the version to come mends most of that).
"""

from __future__ import annotations

import faulthandler
import os
import sys

import pytest
from pytest_timeout import Settings
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

TERMINAL = pytest.StashKey[int]()


class Files(LoadFileScheduling):
    """`--dist loadfile`, in which the death of a process costs one test."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Return the test that a process died in. Its other tests are done by those that are left."""
        for tests in self.assigned_work[node].values():
            for test, is_done in tests.items():
                if not is_done:
                    tests[test] = True
                    self.workqueue.update(self.assigned_work.pop(node))
                    for other in self.assigned_work:
                        self._reschedule(other)
                    return test
        return super().remove_node(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a process files until it has tests to do: it begins one when it has the next one, or is to end."""
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) <= 2:
            super()._reschedule(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Files | None:
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TERMINAL] = os.dup(sys.stderr.fileno())  # from its tests on, pytest keeps what is written


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[TERMINAL])


@pytest.hookimpl
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool:
    faulthandler.dump_traceback_later(settings.timeout, exit=True, file=item.config.stash[TERMINAL])
    return True


@pytest.hookimpl
def pytest_timeout_cancel_timer() -> bool:
    faulthandler.cancel_dump_traceback_later()
    return True
