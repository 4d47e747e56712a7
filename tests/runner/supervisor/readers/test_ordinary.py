"""50,000 lines of ordinary logs hold no point, and few of them are looked at.

`ordinary.txt.gz` was recorded from real programs (pip, apt, dpkg, gcc, g++, git, npm, pytest, ruff, Python's
tracebacks, imports and profiles, /proc, ls, find, stat, objdump, top, a web server, keras' summaries) and from a
program that prints what trainers print beside metrics. Addresses and paths were replaced.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).parents[1] / "transcripts" / "ordinary.txt.gz"


@pytest.fixture(scope="module")
def ordinary() -> bytes:
    return gzip.decompress(CORPUS.read_bytes())


def test_ordinary_logs_give_no_points(ordinary: bytes, read: Any) -> None:
    lines = ordinary.count(b"\n")
    assert lines >= 50_000
    result = read(ordinary)
    assert result.points == {}
    assert result.supervisor == []
    assert set(result.notices) <= {"LOOKS_LIKE_METRICS"}
    assert result.looked_at < 0.4 * lines  # the others cost no more than a search


@pytest.mark.parametrize("prefix", ["[rank0]: ", "0: ", "2026-11-29 06:49:59,838 INFO train: ", "INFO:root:"])
def test_nor_behind_a_label(prefix: str, ordinary: bytes, read: Any) -> None:
    text = "".join(f"{prefix}{line}\n" for line in ordinary.decode().split("\n")[::4])
    assert read(text).points == {}


def test_nor_as_standard_error(ordinary: bytes, read: Any) -> None:
    assert read(ordinary, name="STDERR").points == {}
