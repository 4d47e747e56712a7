"""Records of failed tests, in `.make/failures`, to attach to a report.

failures.txt says what failed, with all that was captured; beside it there is a folder for each service that a failed
test used: what `up`, the database and the supervisors wrote. The folder is emptied when the next run begins.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".make" / "failures"
LOGS = ("up-*.log", "postgres.log", "launchers/launcher.log", "attempts/*/supervisor.log", "attempts/*/gone")


def keep_logs(data_directory: Path) -> None:
    """Copy the logs of a service that a failed test used."""
    for pattern in LOGS:
        for path in data_directory.glob(pattern):
            kept = FOLDER / data_directory.name / "-".join(path.relative_to(data_directory).parts)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(path, kept)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(FOLDER, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for kind in ("failed", "error") for each in terminalreporter.stats.get(kind, ())]
    if reports:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "failures.txt").write_text("\n\n".join(map(_said, reports)))
        terminalreporter.section("to report a failure")
        terminalreporter.line(f"Attach {FOLDER}: what failed, and the logs of the services that were used.")


def _said(report: pytest.TestReport | pytest.CollectReport) -> str:
    sections: Iterable[tuple[str, str]] = report.sections
    captured = "\n".join(f"--- {title} ---\n{text}" for title, text in sections)
    return f"=== {report.nodeid} ===\n{report.longreprtext}\n{captured}"
