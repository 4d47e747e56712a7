"""What becomes of what the child prints: cut into lines, points told from log, the log within limits."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.supervisor import lines as module
from runner.supervisor.curve import Curve
from runner.supervisor.lines import (
    LOG_BURST_BYTES,
    LOG_RATE_BYTES,
    MAX_LOGGED_LINE,
    MAX_PARSED_LINE,
    Lines,
    Log,
    Output,
)
from runner.supervisor.notices import Notices
from runner.supervisor.readers.patterns import Patterns
from runner.supervisor.readers.stream import AUTO, Stream
from runner.supervisor.spool import Spool, first_above


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_lines_come_out_as_they_went_in_however_they_were_cut(text: bytes, sizes: list[int]) -> None:
    lines, out, position = Lines(), b"", 0
    while position < len(text):
        size = sizes[position % len(sizes)]
        block = lines.feed(text[position : position + size])
        assert not block or block.endswith(b"\n")
        out += block
        position += size
    assert out + lines.rest() == text


def test_a_line_over_the_limit_keeps_its_beginning_and_can_not_be_parsed() -> None:
    lines = Lines()
    line = b'{"loss": 1}' + b" " * (10 << 20)
    out = b"".join(lines.feed(line[at : at + 65_536]) for at in range(0, len(line), 65_536)) + lines.feed(
        b'\n{"a": 1}\n'
    )
    first, second, rest = out.split(b"\n")
    assert len(first) < MAX_LOGGED_LINE + 64
    assert first.decode().endswith(f"[cut: {len(line) - MAX_LOGGED_LINE} bytes more]")
    with pytest.raises(ValueError):
        json.loads(first)
    assert (second, rest) == (b'{"a": 1}', b"")
    assert len(line) > MAX_PARSED_LINE


@pytest.mark.parametrize("is_held_open", [False, True])
def test_what_the_pipe_holds_at_the_end_is_read_however_long_that_takes(
    is_held_open: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, 4 << 20, 4 << 20)
    notices = Notices(spool.add_notice)
    patterns = Patterns((), notices)
    curve = Curve(notices)

    def readers(name: str) -> Stream:
        return Stream(name, AUTO, curve, notices, patterns, spool.add_points, spool.add_log)

    reading, writing = os.pipe()
    output = Output(reading, "STDOUT", readers, Log(spool, notices), spool, notices)
    os.set_blocking(writing, False)
    count = 0
    with contextlib.suppress(BlockingIOError):  # it is full: of 1 MiB, which takes four reads
        for count in itertools.count():
            os.write(writing, b'{"step": %6d, "loss": 1}'.ljust(255) % count + b"\n")
    if not is_held_open:
        os.close(writing)
    hours = itertools.count(0, 3_600)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(hours)))
    output.drain(1.0)
    spool.write_out()
    found = first_above(tmp_path, 0)
    assert found is not None
    assert found[1].points["loss"][0] == list(range(count))
    if is_held_open:
        os.close(writing)


def test_the_log_of_an_attempt_ends_somewhere_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_TOTAL_BYTES", 100_000)
    spool = Spool(tmp_path, 1 << 20, 1 << 20)
    notices = Notices(spool.add_notice)
    log = Log(spool, notices)
    for _ in range(100):
        log.write("STDOUT", b"x" * 1_999 + b"\n")
    log.say_dropped()
    notices.write_out(is_last=True)
    report = json.loads(b"{" + spool.head()[1:] + b"}")
    chunks = report["logs"]
    logged = sum(len(chunk["text"]) + 1 for chunk in chunks if chunk["stream"] == "STDOUT")
    assert 60_000 <= logged <= 100_000
    full, dropped = next(chunk["text"] for chunk in chunks if chunk["stream"] == "SUPERVISOR").split("\n")
    assert full.startswith("the log is full")
    assert dropped.startswith(f"dropped {200_000 - logged} bytes")
    [notice] = report["facts"]["notices"]
    assert (notice["kind"], notice["count"]) == ("LOG_LIMIT", 200_000 - logged)


def test_bad_output_goes_to_the_log_and_never_ends_the_run(service: Any, supervise: Any) -> None:
    started = supervise(
        """
import os, json
def line(text): os.write(1, (text if isinstance(text, bytes) else text.encode()) + b"\\n")
line('not json'); line('[1, 2]'); line('3.5'); line('"text"'); line('null'); line('')
line('{"step": 7, "loss": 1}'); line('{"step": 6, "loss": 0.9}'); line('{"step": 8, "loss": "low", "good": true}')
line('{"step": 9, "loss": [1], "deep": {"est": 1}, "fine": 3}')
line(json.dumps({f"m{i}": i for i in range(100)} | {"step": 3_000_000_000}))
line('{"' + "n" * 1_000_000 + '": 1}'); line('{"long": 1, "pad": "' + "x" * 10_000_000 + '"}')
line(b'bad \\xff\\xfe bytes'); line(b'nul \\0 byte'); line('{"loss": 1e400, "step": 3000000001}')
os.write(1, b'{"step": 4000000000, "last": 1}')
"""
    )
    assert started.wait() == 0
    assert service.points("loss") == [(7, 1.0), (3_000_000_001, "Infinity")]
    assert service.points("fine") == [(9, 3.0)]
    assert service.points("deep/est") == [(9, 1.0)]
    assert service.points("m99") == [(3_000_000_000, 99.0)]
    assert service.points("last") == [(4_000_000_000, 1.0)]
    assert service.points("long") == []
    log = service.log("STDOUT").split("\n")
    assert log[:6] == ["not json", "[1, 2]", "3.5", '"text"', "null", ""]
    assert log[6:8] == ['{"step": 6, "loss": 0.9}', '{"step": 8, "loss": "low", "good": true}']
    assert log[8] == '{"step": 9, "loss": [1], "deep": {"est": 1}, "fine": 3}'
    assert [line[-30:] for line in log[9:11]] == [
        ("n" * 30 + f" … [cut: {1_000_007 - MAX_LOGGED_LINE} bytes more]")[-30:],
        ("x" * 30 + f" … [cut: {10_000_022 - MAX_LOGGED_LINE} bytes more]")[-30:],
    ]
    assert log[11:] == ["bad \ufffd\ufffd bytes", "nul \ufffd byte"]
    assert service.exit["exitCode"] == 0


def test_a_progress_bar_that_never_ends_its_line_is_seen_while_it_moves(service: Any, supervise: Any) -> None:
    supervise("import sys, time\nsys.stderr.write('10%\\r20%\\r'); sys.stderr.flush(); time.sleep(1000)")
    service.wait(lambda: service.log("STDERR") == "20%")


def test_a_line_that_has_not_ended_is_shown_and_then_replaced_by_the_whole(
    service: Any, supervise: Any, tmp_path: Path
) -> None:
    started = supervise(
        f"""
import os, time
os.write(1, b"loading ")
while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.01)
os.write(1, b"done\\nnext\\n")
"""
    )
    service.wait(lambda: service.log("STDOUT") == "loading ")
    (tmp_path / "go").touch()
    assert started.wait() == 0
    assert service.log("STDOUT") == "loading \n\rloading done\nnext"  # \r: in place of the line before


def test_a_bar_is_one_line_of_the_log_and_does_not_fill_its_quota(service: Any, supervise: Any) -> None:
    started = supervise(
        """
import json, sys
for step in range(20_000):
    sys.stderr.write("\\r%3d%% %s" % (step // 200, "#" * 60))
    if step % 1000 == 0: print(json.dumps({"step": step, "loss": 0.5}), file=sys.stderr if step % 2000 else sys.stdout)
sys.stderr.write("\\n")
print("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07text \\x1b(Bplain")
"""
    )
    assert started.wait() == 0
    assert [step for step, _ in service.points("loss")] == list(range(0, 20_000, 2_000))
    # Each unended bar and each JSON line that ends one: not 20,000.
    assert len(service.log("STDERR").split("\n")) < 100
    assert service.log("STDERR").endswith(f" 99% {'#' * 60}")
    assert service.log("STDOUT") == "\x1b[31mred\x1b[0m text plain"


def test_lines_keep_their_colours_and_points_are_read_without(service: Any, supervise: Any) -> None:
    started = supervise(
        """
import sys
for step in range(3):
    print('\x1b[1mnow\x1b[0m %d' % step)
    print('\x1b[32m{"step": %d, "loss": 0.2}\x1b[0m' % step)
    print('\x1b[2mstep %d\x1b[0m \x1b[33macc 0.5\x1b[0m' % step)
sys.stderr.write("\x1b[31mError: out of memory\x1b[0m\\n")
sys.exit(3)
"""
    )
    assert started.wait() == 0
    assert service.points("loss") == [(step, 0.2) for step in range(3)]
    assert service.points("acc") == [(step, 0.5) for step in range(3)]
    assert service.log("STDOUT").split("\n") == [
        line
        for step in range(3)
        for line in (f"\x1b[1mnow\x1b[0m {step}", f"\x1b[2mstep {step}\x1b[0m \x1b[33macc 0.5\x1b[0m")
    ]
    assert service.log("STDERR") == "\x1b[31mError: out of memory\x1b[0m"
    assert service.exit["message"] == "It ended with exit code 3: Error: out of memory"


def test_objects_behind_a_bar_on_the_same_stream_are_points(service: Any, supervise: Any) -> None:
    started = supervise(
        """
import sys
sys.stderr = sys.stdout
for step in range(10):
    sys.stderr.write("\\r %d%%..." % step)
    print('{"step": %d, "loss": 0.2}' % step)
"""
    )
    assert started.wait() == 0
    assert service.points("loss") == [(step, 0.2) for step in range(10)]
    assert service.notices == {}


def test_lines_of_four_processes_in_one_pipe_are_all_points(service: Any, supervise: Any) -> None:
    started = supervise(
        """
import subprocess, sys
code = "import json, sys\\nfor s in range(200): print(json.dumps({'step': s, 'rank%s/loss' % sys.argv[1]: s}))"
children = [subprocess.Popen([sys.executable, "-u", "-c", code, str(rank)]) for rank in range(4)]
for child in children: child.wait()
"""
    )
    assert started.wait() == 0
    for rank in range(4):
        assert service.points(f"rank{rank}/loss") == [(step, float(step)) for step in range(200)]


def test_the_last_line_of_standard_error_is_the_message_of_a_failure(service: Any, supervise: Any) -> None:
    started = supervise("import sys\nsys.stderr.write('12%|##|\\r')\nraise RuntimeError('CUDA out of memory')")
    assert started.wait() == 0
    assert service.exit["message"] == "It ended with exit code 1: RuntimeError: CUDA out of memory"


def test_a_long_last_line_is_cut_in_its_middle(service: Any, supervise: Any) -> None:
    assert supervise("raise ValueError('x' * 900 + ' in layer 7')").wait() == 0
    message = service.exit["message"]
    assert message.startswith("It ended with exit code 1: ValueError: xxx")
    assert message.endswith("xxx in layer 7")
    assert " … " in message
    assert len(message) < 180


def test_with_none_nothing_is_read_and_patterns_come_with_the_order(service: Any, supervise: Any) -> None:
    code = "print('{\"step\": 1, \"loss\": 0.5}'); print('L=3')"
    assert supervise(code, metricsFrom="NONE", metricsPatterns=[r"L=(?P<l>\S+)"]).wait() == 0
    assert service.points("loss") == []
    assert service.points("l") == [(0, 3.0)]
    assert service.log("STDOUT").split("\n") == ['{"step": 1, "loss": 0.5}', "L=3"]


def test_notices_arrive_once_each_with_their_last_count(service: Any, supervise: Any) -> None:
    assert supervise('for _ in range(1000): print(\'{"step": 1, "loss": 1}\')').wait() == 0
    assert service.notices["NOT_RISING"]["count"] == 999
    assert service.notices["NOT_RISING"]["example"] == '{"step": 1, "loss": 1}'


def test_a_flood_drops_and_counts_logs_and_never_points(service: Any, supervise: Any) -> None:
    lines, flood = 300, 1_000_000
    begun = time.monotonic()
    started = supervise(
        f"""
import os
for step in range({lines}):
    os.write(1, b"y\\n" * {flood // 2})
    os.write(1, b'{{"loss": %d}}\\n' % step)
""",
        maxRuntimeSeconds=600,
    )
    assert started.wait() == 0
    seconds = time.monotonic() - begun  # at least what it was allowed to log for
    assert service.exit["exitCode"] == 0
    assert service.points("loss") == [(step, float(step)) for step in range(lines)]
    marks = [line for line in service.log("SUPERVISOR").split("\n") if line.startswith("dropped ")]
    dropped = sum(int(mark.split()[1]) for mark in marks)
    logged = sum(
        len(chunk["text"]) + 1
        for batch in service.stored
        for chunk in batch.get("logs", ())
        if chunk["stream"] == "STDOUT"
    )
    assert dropped + logged == lines * flood
    assert logged <= LOG_BURST_BYTES + LOG_RATE_BYTES * (seconds + 2)
    assert len(marks) <= seconds + 3
