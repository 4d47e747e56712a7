"""Sampler of system metrics: a thread that takes a sample at each interval and adds it as points."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence

from runner.supervisor.complaints import complain
from runner.supervisor.curve import SYSTEM
from runner.supervisor.sources.intake import Closed, Intake, Point
from runner.supervisor.system import gpus, host, tree

SOURCE = "the supervisor"
MIB = 1 << 20
GIB = 1 << 30


class Sampler:
    """Samples the processes below this one, from an interval after the child's start until `stop`.

    interval_seconds: 0 for no samples. child: its pid; made at its start.
    """

    def __init__(self, intake: Intake, gpu_indices: Sequence[int], interval_seconds: float, child: int) -> None:
        self._intake = intake
        self._gpu_indices = gpu_indices
        self._interval_seconds = interval_seconds
        self._child = child
        self._stopped = threading.Event()
        self._gpus: gpus.Gpus | None = None
        self._is_started = interval_seconds <= 0
        self._start_at = time.monotonic() + interval_seconds
        self._at = time.time()
        self._step = 0
        self._before = {"cpu": 0.0, "disk_read": 0.0, "disk_write": 0.0}  # counters of the last sample

    def tick(self) -> None:
        """Start the thread when the first sample is due."""
        if not self._is_started and time.monotonic() >= self._start_at:
            self._is_started = True
            try:
                threading.Thread(target=self._run, name="system", daemon=True).start()
            except RuntimeError as error:  # no more threads
                complain(f"system: {error}")

    def _run(self) -> None:
        self._gpus = gpus.find(self._gpu_indices)
        while not self._stopped.is_set():
            try:
                self.run_once(time.time())
            except Closed:
                return
            self._stopped.wait(self._interval_seconds)

    def run_once(self, now: float) -> None:
        """Take a sample, at most one a second. now: seconds since 1970. The network's rate needs two."""
        step = int(now)
        if step <= self._step:  # or the clock was set back
            return
        self._step = step
        values = dict(self._values(now))
        self._intake.add(SOURCE, [Point(f"{SYSTEM}{name}", step, value) for name, value in values.items()])

    def stop(self) -> None:
        """Take no further sample; one that is under way is not waited for, as a driver may hang."""
        self._stopped.set()

    def _values(self, now: float) -> Iterator[tuple[str, float]]:
        used = tree.usage(os.getpid())
        counters = {
            "cpu": used.cpu_seconds,
            "disk_read": used.read_bytes / MIB,
            "disk_write": used.written_bytes / MIB,
        }
        network = host.network_bytes(self._child)
        if network is not None:
            counters["network_receive"], counters["network_transmit"] = (each / MIB for each in network)
        seconds = now - self._at
        for name, total in counters.items():
            before = self._before.get(name)
            if before is not None and seconds > 0:
                yield name, max(total - before, 0.0) / seconds
        self._at, self._before = now, counters
        yield "memory", used.memory_bytes / GIB
        percent = host.memory_percent()
        if percent is not None:
            yield "memory_percent", percent
        yield from self._of_gpus()

    def _of_gpus(self) -> Iterator[tuple[str, float]]:
        if self._gpus is None:
            return
        try:
            found = self._gpus.read()
        except OSError as error:
            complain(f"gpus: no utilization any more: {error}")
            self._gpus = None
            return
        for index, reading in found.items():
            for name, value in reading.items():
                yield f"gpu.{index}.{name}", value
