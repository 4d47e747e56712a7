"""`make flakes`: the whole suite again and again, and a table of what failed how often.

    python tests/support/flakes.py [--runs 10] [--table FILE] [PYTEST ARGUMENTS]

Each run is in a random order of its own, of files and within them. Every second run is made to wait: it is `nice`, and
a process beside it takes a whole core. The runs are added to the table in FILE (.flakes/table.json), so that several
goes make one table; `--runs 0` only shows it. The log of a run in which something failed is kept beside it. No test is
run again because it failed. Exit status 1 if the table has a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
NICENESS = 10
BUSY = "while True: pass"
COULD_NOT_RUN = "(the run itself)"  # it was interrupted, say, or a worker died


@dataclass
class Table:
    """What became of all runs so far."""

    quiet: int = 0  # runs beside nothing
    busy: int = 0  # runs beside a process that takes a core
    seconds: list[float] = field(default_factory=list)
    tests: list[int] = field(default_factory=list)  # in each run
    failures: dict[str, list[str]] = field(default_factory=dict)  # by test: in which runs, "busy, seed 7, 12 s"

    @classmethod
    def read(cls, path: Path) -> Table:
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def add(self, run: Run) -> None:
        self.busy += run.is_busy
        self.quiet += not run.is_busy
        self.seconds.append(round(run.seconds, 1))
        self.tests.append(run.tests)
        how = "busy" if run.is_busy else "quiet"
        for name, seconds in run.failures.items():
            self.failures.setdefault(name, []).append(f"{how}, seed {run.seed}, {seconds:.0f} s")

    def lines(self) -> Iterator[str]:
        runs = self.quiet + self.busy
        yield f"{runs} runs ({self.quiet} alone, {self.busy} nice and beside a process that takes a core)"
        if not runs:
            return
        yield f"{min(self.tests)} to {max(self.tests)} tests in {min(self.seconds):.0f} to {max(self.seconds):.0f} s"
        for name, times in sorted(self.failures.items(), key=lambda each: -len(each[1])):
            yield f"{len(times):3} of {runs}  {name}  ({'; '.join(times)})"
        if not self.failures:
            yield "nothing failed"


@dataclass(frozen=True)
class Run:
    """One run of the suite."""

    seed: int
    is_busy: bool
    seconds: float
    tests: int
    failures: dict[str, float]  # seconds by test


@contextmanager
def a_core_taken() -> Iterator[subprocess.Popen[bytes]]:
    """Have another process compute for as long as the block runs."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_once(seed: int, is_busy: bool, arguments: Sequence[str], log: Path) -> Run:
    """Run the suite; its output goes to `log`, which is removed if nothing failed."""
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    command = [
        *(("nice", "-n", str(NICENESS)) if is_busy else ()),
        *(sys.executable, "-m", "pytest", *("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")),
        *(f"--randomly-seed={seed}", f"--junitxml={report}", *arguments),
    ]
    began = time.monotonic()
    with log.open("w") as output:
        if is_busy:
            with a_core_taken():
                status = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
        else:
            status = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
    seconds = time.monotonic() - began
    tests, failures = read_report(report)
    if status and not failures:
        failures = {COULD_NOT_RUN: seconds}
    if not failures:
        log.unlink()
    report.unlink(missing_ok=True)
    return Run(seed, is_busy, seconds, tests, failures)


def read_report(path: Path) -> tuple[int, dict[str, float]]:
    """How many tests there were, and how long each took that failed or whose fixtures did."""
    if not path.exists():
        return 0, {}
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return len(cases), {f"{case.get('classname')}::{case.get('name')}": float(case.get("time") or 0) for case in failed}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the suite again and again, and count what fails.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--table", type=Path, default=ROOT / ".flakes" / "table.json")
    options, rest = parser.parse_known_args(arguments)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    table = Table.read(options.table)
    seeds = Random(os.urandom(8))
    for _ in range(options.runs):
        number, seed = len(table.seconds) + 1, seeds.getrandbits(32)
        log = options.table.with_name(f"run-{number}.log")
        run = run_once(seed, table.busy < table.quiet, rest, log)
        table.add(run)
        table.write(options.table)
        how = "busy" if run.is_busy else "alone"
        said = f"{len(run.failures)} failed, see {log}" if run.failures else "nothing failed"
        sys.stdout.write(f"run {number} ({how}, seed {seed}): {run.tests} tests in {run.seconds:.0f} s, {said}\n")
        sys.stdout.flush()
    sys.stdout.write("\n".join(table.lines()) + "\n")
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
