"""Run the benchmarks one after the other and print a table of the goals.

Each runs in its own process, with its own output (`python -m benchmarks.NAME --help`). Exits with 1 if one of them
failed. A missed goal is no error: the machine may be busy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.goals import GOALS, judge, show
from benchmarks.report import forget, published

NAMES = (
    "latency", "dispatch", "fanout", "ingest", "curve", "memory", "judge", "overhead", "lines", "sources", "stall",
    "chart", "queue", "listing",
)  # fmt: skip


def main() -> int:
    """Return 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(NAMES)}", default=[*NAMES])
    names = parser.parse_args().names
    broken = []
    for name in names:
        forget(name)
        begun = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode != 0:
            broken.append(name)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    goals = [goal for goal in GOALS if goal.benchmark in names]
    show(judge(goals, [row for name in names for row in published(name)]))
    for name in broken:
        print(f"{name} failed: see its output above.", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
