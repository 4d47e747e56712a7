"""50,000 lines of ordinary logs hold no point, and few of them are looked at.

`ordinary.txt.gz` was recorded from real programs (pip, apt, dpkg, gcc, g++, git, npm, pytest, ruff, Python's
tracebacks, imports and profiles, /proc, ls, find, stat, objdump, top, a web server, keras' summaries) and from a
program that prints what trainers print beside metrics. Addresses and paths were replaced.

`services.txt.gz` was written after the formats of programs that were not recorded (kubectl, docker, cmake, cargo, the
JVM, nginx, systemd, dmesg, ffmpeg, rsync, curl, wget, terraform, ansible, slurm, nvidia-smi, DeepSpeed, downloads of
Hugging Face, pytest, tables, PostgreSQL, and the JSON of structlog, pino and zap), each with rising numbers.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).parents[1] / "transcripts" / "ordinary.txt.gz"


SERVICES = CORPUS.with_name("services.txt.gz")


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


@pytest.mark.parametrize("prefix", ["", "2026-11-29 06:49:59,838 INFO train: ", "[rank0]: "])
@pytest.mark.parametrize("name", ["STDOUT", "STDERR"])
def test_logs_of_services_give_no_points_although_their_numbers_rise(prefix: str, name: str, read: Any) -> None:
    lines = gzip.decompress(SERVICES.read_bytes()).decode().splitlines()
    assert len(lines) > 2_000
    result = read("".join(f"{prefix}{line}\n" for line in lines), name=name)
    assert result.points == {}
    assert result.supervisor == []
    assert set(result.notices) <= {"LOOKS_LIKE_METRICS"}


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        ('{"level": 30, "time": 1795935369001, "pid": 17}', set()),
        ('{"timestamp": 1795935369, "statusCode": 200, "duration_ms": 12}', set()),
        ('{"level": 30, "time": 1795935369001, "queue": 3}', set()),
        ('{"step": 1, "duration": 12.5}', {"duration"}),
        ('{"level": 30, "time": 1795935369001, "loss": 0.5}', {"level", "time", "loss"}),
        ('{"elapsed": 3.5, "reward": 2}', {"elapsed", "reward"}),
        ('{"temperature": 3.5}', {"temperature"}),
    ],
)
def test_json_of_loggers_is_log_unless_it_has_a_step_or_a_metric(line: str, metrics: set[str], read: Any) -> None:
    result = read(f"{line}\n")
    assert set(result.points) == metrics
    assert result.log == ([] if metrics else [line])
    assert result.notices == {}
