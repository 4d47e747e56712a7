"""Results of a benchmark: a printed table, and benchmarks/results/NAME.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number and the floor of the same run; ratio is value / floor."""

    benchmark: str
    case: str
    value: float
    unit: str
    floor: float
    ratio: float


def publish(name: str, rows: Sequence[Row]) -> None:
    """Print the table and write the file."""
    table = Table(title=name)
    for heading in ("case", "value", "floor", "unit", "ratio"):
        table.add_column(heading, justify="left" if heading in ("case", "unit") else "right")
    for row in rows:
        table.add_row(row.case, f"{row.value:.4g}", f"{row.floor:.4g}", row.unit, f"{row.ratio:.3g}")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def published(name: str) -> list[Row]:
    """The rows of the newest run; none if there was none."""
    path = RESULTS / f"{name}.json"
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def forget(name: str) -> None:
    """Remove what an older run wrote."""
    (RESULTS / f"{name}.json").unlink(missing_ok=True)
