"""The settings of a graph process's interpreter, and what its start loads."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from graph.__main__ import COLLECT_AFTER
from graph.schema import build_schema

gc.enable()  # the first of these imports turns it off

NESTED = '{ simulation(id: "x") {' + ("retryOf { id " * 14 + "}" * 14) * 25 + "} }"
SMALL = "{ viewer { name } }" + " # a comment" * 20
DOCUMENTS = 40
MOST_FREED = 25_000  # of 1 us each; it was 44,000 in the younger generations, and 215,000 in all


@pytest.fixture
def freed() -> Iterator[list[int]]:
    """How many objects each collection frees, by the settings of a graph process."""
    counts: list[int] = []

    def note(phase: str, found: dict[str, Any]) -> None:
        if phase == "stop":
            counts.append(found["collected"])

    before = gc.get_threshold()
    # As at the start of a graph process, whose modules are counted as old before they are frozen: the interpreter
    # collects old objects again when those that have come since are a quarter of them.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.callbacks.append(note)
    yield counts
    gc.callbacks.remove(note)
    gc.set_threshold(*before)  # what was frozen stays so: all tests are, since they were collected (conftest.py)


@pytest.mark.parametrize(("text", "times"), [(NESTED, 1), (SMALL, 20)], ids=["long", "short"])
async def test_no_collection_frees_what_many_documents_left(freed: list[int], text: str, times: int) -> None:
    schema = build_schema()
    for number in range(DOCUMENTS * times):
        await schema.execute(f"{text} # {number}")
    left = gc.collect()
    assert sum(freed) > 10 * left, "they are freed meanwhile"
    assert max(freed) < MOST_FREED


def test_the_start_loads_nothing_that_serving_does_not_need() -> None:
    """Imports are most of the time from kill -9 until it serves again."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import graph.__main__, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert {"graph", "strawberry", "sqlalchemy", "asyncpg"} <= roots
    assert not roots & {"alembic", "mako", "cli", "client", "runner", "scheduler", "httpx", "typer", "psutil", "yaml"}
    assert not roots & {"numpy", "tsdownsample", "apprise"}
