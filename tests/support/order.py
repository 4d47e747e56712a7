"""The order of the files under `--long-first`: those that took longest come first, so that no worker ends alone.

But first come those of tests/browser, which hand services on to one another (tests/browser/conftest.py).

durations.json has the seconds of each file that takes more than some, as `--write-durations` wrote them; any other is
taken for a short one. The order within a file is pytest-randomly's, and so is that of the files without the option.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DURATIONS = Path(__file__).with_name("durations.json")
SHORT_SECONDS = 5.0
TOGETHER = "tests/browser/"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulations")
    group.addoption("--long-first", action="store_true", help="files that take long come first")
    group.addoption("--write-durations", action="store_true", help=f"write {DURATIONS.name} anew, from this run")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Stopwatch())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long-first"):
        known = json.loads(DURATIONS.read_text())
        items.sort(key=lambda item: _place(file_of(item.nodeid), known))


def _place(file: str, known: Mapping[str, float]) -> tuple[bool, float]:
    return not file.startswith(TOGETHER), -known.get(file, SHORT_SECONDS)


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Stopwatch:
    """Adds up how long the tests of each file took, what they asked to be made for them included."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[file_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        took = {name: round(each, 1) for name, each in sorted(self._seconds.items()) if each > SHORT_SECONDS}
        DURATIONS.write_text(json.dumps(took, indent=2) + "\n")
