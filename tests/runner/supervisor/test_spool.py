"""Where output waits during an outage: in memory, in files, and in the pipe of the simulation."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.supervisor import assignment
from runner.supervisor.spool import Exit, Spool, first_above, read_batch

Text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
Value = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["NaN", "Infinity", "-Infinity"])
Entry = (
    st.tuples(st.just("point"), Text, st.integers(0, 2**53), Value, st.floats(0, 1e9))
    | st.tuples(st.just("log"), st.sampled_from(["STDOUT", "STDERR"]), Text)
)  # fmt: skip

Until = Callable[[Callable[[], object]], None]


def _unreachable(service: Any) -> Callable[[], None]:
    service.misbehave = lambda name, _: (503, b"later") if name == "reportAttempt" else None

    def heal() -> None:
        service.misbehave = lambda *_: None

    return heal


LINES = 100_000  # of 40 bytes: far more than the pipe, of a mebibyte, and the spool's memory hold
PRINT_MUCH = f"""
import os
for first in range(0, {LINES}, 1000):
    os.write(1, b"".join(b'{{"a": %-32d}}\\n' % i for i in range(first, first + 1000)))
open("printed", "w").close()
"""


def _sees_all(service: Any) -> bool:
    return [step for step, _ in service.points("a")] == list(range(LINES))


def test_an_outage_is_spooled_to_files_and_delivered_in_order(service: Any, supervise: Any, until: Until) -> None:
    heal = _unreachable(service)
    started = supervise(PRINT_MUCH, config={"spool_memory_bytes": 300_000})
    until((started.directory / "work" / "printed").exists)
    until(lambda: len(list(started.directory.glob("*.jsonl"))) >= 3)
    heal()
    assert started.wait() == 0
    assert _sees_all(service)
    assert not list(started.directory.glob("*.jsonl"))


@pytest.mark.parametrize("failure", ["no file", "no room"])
def test_with_the_disk_full_the_simulation_waits_and_nothing_is_lost(
    service: Any, supervise: Any, until: Until, tmp_path: Path, failure: str
) -> None:
    heal = _unreachable(service)
    if failure == "no file":
        for number in range(1, 100):  # a directory where each file should be
            (tmp_path / "attempt" / f"{number:09d}.jsonl").mkdir(parents=True)
    started = supervise(PRINT_MUCH, config={"spool_memory_bytes": 100_000, "spool_limit_bytes": 300_000})
    if failure == "no room":
        resource.prlimit(started.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    until(lambda: "the simulation waits" in started.complaints)
    assert not (started.directory / "work" / "printed").exists()
    heal()
    assert started.wait() == 0
    assert _sees_all(service)
    assert service.exit["exitCode"] == 0


# --- the files -----------------------------------------------------------------------------------------------------


@given(st.lists(Entry, min_size=1, max_size=30), st.none() | st.builds(Exit, st.integers(0, 255), message=Text))
def test_a_batch_read_from_its_file_has_the_bytes_that_were_sent(entries: list[Any], end: Exit | None) -> None:
    with TemporaryDirectory() as directory:
        spool = Spool(Path(directory), 1 << 20, 1 << 20)
        for entry in entries:
            if entry[0] == "point":
                spool.add_points(entry[2], entry[4], [(entry[1], entry[3])])
            else:
                spool.add_log(entry[1], entry[2])
            if len(entry[1]) % 2:
                spool.write_out()
        spool.close(end)
        sent = spool.head()
        assert read_batch(Path(directory) / "000000001.jsonl").encode() == sent


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20, 1 << 20)
    for step in range(3):
        spool.add_points(step, 0.0, [("loss", 1.0)])
        spool.write_out()
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        points = read_batch(file).points
        assert len(points["loss"][0] if points else ()) == whole[:length].count(b"\n")


def test_acknowledged_batches_leave_no_file_and_the_rest_keeps_its_numbers(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0, 1 << 20)
    for step in range(3):
        spool.add_points(step, 0.0, [("loss", 1.0)])
        spool._seal()
    spool.add_points(3, 0.0, [("loss", 1.0)])
    spool.write_out()
    spool.acknowledge()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number:09d}.jsonl" for number in (2, 3, 4)]
    assert [steps_of(first_above(tmp_path, number)) for number in range(4)] == [(2, [1]), (2, [1]), (3, [2]), (4, [3])]
    assert first_above(tmp_path, 4) is None


def test_after_a_restored_backup_files_have_the_numbers_that_are_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0, 1 << 20)
    spool.number = 10
    spool._file = type(spool._file)(tmp_path, 10)
    for step in range(2):
        spool.add_points(step, 0.0, [("loss", 1.0)])
        spool._seal()
    spool.add_points(2, 0.0, [("loss", 1.0)])
    spool.renumber(4)
    spool.add_points(3, 0.0, [("loss", 1.0)])
    spool.write_out()
    found = [first_above(tmp_path, number) for number in (0, 4, 5)]
    assert [steps_of(each) for each in found] == [(4, [0]), (5, [1]), (6, [2, 3])]
    assert spool.head() == found[0][1].encode()  # type: ignore[index]


@pytest.fixture
def assigned(tmp_path: Path) -> Path:
    assignment.write(tmp_path, {"token": "t"})
    return tmp_path


def exit_of(found: Any) -> tuple[int, Exit, bytes]:
    number, batch = found
    return number, batch.exit, batch.encode()


def test_an_exit_that_is_a_batch_of_its_own_takes_no_file(assigned: Path) -> None:
    spool, end = Spool(assigned, 1 << 20, 1 << 20), Exit(exit_code=3, message="It ended.")
    spool.add_points(0, 0.0, [("loss", 1.0)])
    spool.head()
    spool.acknowledge()
    spool.close(end)
    assert [path.name for path in assigned.iterdir()] == [assignment.FILE]
    assert exit_of(first_above(assigned, 1)) == (2, end, spool.head())
    assert first_above(assigned, 2) is None
    spool.renumber(1)
    assert exit_of(first_above(assigned, 0)) == (1, end, spool.head())
    spool.replace_head("It was refused.")
    [number, found] = first_above(assigned, 0) or (0, None)
    assert (number, found and found.encode()) == (1, spool.head()), "the file counts, not the exit without the sentence"
    spool.acknowledge()
    assert spool.is_delivered
    assert assignment.read(assigned)["token"] == "t"


def test_an_exit_behind_anything_else_is_in_the_file_of_its_batch(assigned: Path) -> None:
    spool = Spool(assigned, 1 << 20, 1 << 20)
    spool.add_log("STDOUT", "a line")
    spool.close(Exit(exit_code=0))
    assert read_batch(assigned / "000000001.jsonl").encode() == spool.head()
    assert "last" not in assignment.read(assigned)


def test_an_exit_that_the_assignment_does_not_take_is_in_a_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20, 1 << 20)
    spool.close(Exit(exit_code=0))
    assert exit_of(first_above(tmp_path, 0)) == (1, Exit(exit_code=0), spool.head())


@pytest.mark.parametrize(
    "written",
    [1, None, [], [1], [1, 2], [1, []], [1, ["x"]], [1, ["log", "STDOUT", "x"]], ["1", ["exit", 0]], [True, ["exit"]]],
)
def test_what_a_simulation_writes_there_is_no_exit(assigned: Path, written: Any) -> None:
    assignment.append(assigned, {"last": written})
    assert first_above(assigned, 0) is None


def steps_of(found: Any) -> tuple[int, list[int]]:
    number, batch = found
    return number, batch.points["loss"][0]


def sent_first(service: Any) -> list[bytes]:
    return [body for number, body in service.bodies if number == 1]


def test_lines_that_come_while_a_report_is_on_its_way_outlive_the_supervisor(
    service: Any, supervise: Any, until: Until, in_turns: Any
) -> None:
    """Killed between send and acknowledgement: what came after the seal is on disk, too."""
    service.misbehave = lambda name, _: (503, b"later") if name == "reportAttempt" else None
    code, next_line = in_turns(*(json.dumps({"step": step, "loss": 0.5}) for step in range(3)), "a line of its log")
    started = supervise(code)
    spool = started.directory
    service.wait(lambda: sent_first(service))  # sealed and sent
    for _ in range(3):
        next_line()
    until(lambda: "a line of its log" in "".join(path.read_text() for path in spool.glob("*.jsonl")))
    started.kill()
    numbers = [1, 2]
    batches = [first_above(spool, number - 1) for number in numbers]
    assert [found[0] for found in batches if found] == numbers
    steps = [step for found in batches if found for step in found[1].points.get("loss", ([],))[0]]
    assert steps == [0, 1, 2]
    assert batches[0][1].encode() in sent_first(service)[0]  # type: ignore[index]  # the very bytes that were sent
    assert assignment.read(started.directory)["nonce"] in service.nonces
