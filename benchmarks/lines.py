"""CPU time of the supervisor for a line of output, with the readers and with `--metrics none`.

Three measurements: lines that hold no metric (at most 3 us each over `none` are promised) and lines that do (20 us), of
which the readers' own CPU time counts; and the wall time of a program that computes and prints 17,000 lines per second
of its own, with its supervisor's reader on the same core, against the same with `none` (1.05). Beside it the CPU time
of both processes, which other work on the machine does not change. Both alternate, medians count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row, publish
from runner.supervisor.curve import Curve
from runner.supervisor.lines import Log, Output
from runner.supervisor.notices import Notices
from runner.supervisor.readers.patterns import Patterns
from runner.supervisor.readers.stream import AUTO, NONE, Stream
from runner.supervisor.spool import Spool

BLOCK_BYTES = 64 << 10
RATE = 17_000  # lines for each second of the program's own work
PLAIN = {
    "plain text": "the quick brown fox jumps over the lazy dog and goes on for a while",
    "a log line with numbers": "2026-11-29 06:49:{n:02d},838 INFO server: handled request {n} of worker 3 in 0.25 s",
    "key=value without a metric": "level=info worker={n} request=15 took=3ms status=200 size=12",
}
CANDIDATES = {
    "step and loss": "step {n} loss 0.3{n} lr 1e-4",
    "epoch=, loss=, acc=": "epoch={n} loss=0.5 lr=0.1 acc=0.5",
    "XGBoost": "[{n}]\ttrain-rmse:0.3{n}\tvalid-rmse:0.35",
    "loss without a step": "loss: 0.4{n}",
}


class Pipe:
    """An output of a child, read as the supervisor reads it, into a spool of its own."""

    def __init__(self, mode: str, directory: Path) -> None:
        reader, self.writer = os.pipe()
        spool = Spool(directory, 64 << 20, 1 << 30)
        notices = Notices(spool.add_notice)

        def readers(stream: str) -> Stream:
            return Stream(stream, mode, Curve(notices), notices, Patterns((), notices), spool.add_points, spool.add_log)

        self.output = Output(reader, "STDOUT", readers, Log(spool, notices), spool, notices)

    def close(self) -> None:
        self.output.close(0.0)


def cpu_of(line: str, count: int, mode: str) -> float:
    """CPU seconds of reading so many lines."""
    lines = [f"{line.format(n=number)}\n".encode() for number in range(1, count + 1)]
    text = b"".join(lines)
    with tempfile.TemporaryDirectory() as directory:
        pipe = Pipe(mode, Path(directory))
        begun = time.process_time()
        for at in range(0, len(text), BLOCK_BYTES):
            os.write(pipe.writer, text[at : at + BLOCK_BYTES])
            pipe.output.read(1.0)
        spent = time.process_time() - begun
        os.close(pipe.writer)
        pipe.close()
    return spent


def spent_of(line: str, seconds: float, mode: str) -> tuple[float, float]:
    """Wall and CPU seconds of a program of so many CPU seconds and its reader, both on one core."""
    with tempfile.TemporaryDirectory() as directory:
        pipe = Pipe(mode, Path(directory))
        begun, cpu = time.monotonic(), time.process_time()
        child = os.fork()
        if child == 0:
            written = 0
            while (spent := time.process_time()) < seconds:
                lines = int(spent * RATE) - written
                if lines >= 170:
                    os.write(pipe.writer, f"{line.format(n=written)}\n".encode() * lines)
                    written += lines
            os._exit(0)
        os.close(pipe.writer)
        os.set_blocking(pipe.output.descriptor, True)
        while pipe.output.read(1.0):
            pass
        _, _, usage = os.wait4(child, 0)
        pipe.close()
        cpu = time.process_time() - cpu + usage.ru_utime + usage.ru_stime
        return time.monotonic() - begun, cpu


def measure(turns: int, count: int, seconds: float) -> list[Row]:
    rows = []
    for about, cases, bound in (("no metric", PLAIN, 3e-6), ("candidate", CANDIDATES, 20e-6)):
        for case, line in cases.items():
            more = (
                statistics.median(cpu_of(line, count, AUTO) - cpu_of(line, count, NONE) for _ in range(turns)) / count
            )
            rows.append(Row("lines", f"{about}: {case}", more * 1e6, "µs CPU more", bound * 1e6, more / bound))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for case, line in PLAIN.items():
            both = [(spent_of(line, seconds, AUTO), spent_of(line, seconds, NONE)) for _ in range(turns)]
            for at, kind in enumerate(("one core", "one core, CPU time")):
                value, floor = (statistics.median(each[at] for each in mode) for mode in zip(*both, strict=True))
                rows.append(Row("lines", f"{kind}: {case}", value, "s", floor, value / floor))
    finally:
        os.sched_setaffinity(0, allowed)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="of each, the median counts (default 5)")
    parser.add_argument("--lines", type=int, default=17_000, help="lines a turn (default 17,000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of the program's own work (default 1)")
    arguments = parser.parse_args()
    publish("lines", measure(arguments.turns, arguments.lines, arguments.seconds))


if __name__ == "__main__":
    main()
