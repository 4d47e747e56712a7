"""Metrics of a graph process, for `/metrics` (http/metrics_endpoint.py): counters, and a few gauges.

Requests, reports and broadcasts are counted once each, never once for a subscriber: deliveries are a thousand times as
many. A delivery's lag is the time from this process' commit of new points, or from the notification of another process'
commit, until all subscribers at the end of that log had been sent them; one that fell behind reads at its own pace.

`Watchdog` measures how long the event loop was held: no request or subscriber may hold it for more than 50 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DELIVERY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SAMPLE_SECONDS = 0.02  # between two looks of the watchdog at a loop that works: 50 wake-ups a second
IDLE_SECONDS = 0.2  # between two at one that does not: with 50 a second an idle process took 1 % of a core
IDLE_CPU_SECONDS = 0.002  # of the loop's thread between two looks; a look and a heartbeat take less
RECENT_SECONDS = 60.0  # the longest hold of this time is shown: a scrape in a minute misses none


class Longest:
    """The largest of the values that were noted within the last minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._noted: deque[tuple[float, float]] = deque()  # (when, value), larger ones before smaller ones

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, value: float) -> None:
        while self._noted and self._noted[-1][1] <= value:
            self._noted.pop()
        self._noted.append((self._clock(), value))
        self._forget()

    def value(self) -> float:
        self._forget()
        return self._noted[0][1] if self._noted else 0.0

    def _forget(self) -> None:
        while self._noted and self._noted[0][0] < self._clock() - RECENT_SECONDS:
            self._noted.popleft()


class Watchdog:
    """Measures how long the event loop was held: by how much a timer of some milliseconds was late.

    A process that was not scheduled by the system looks the same; so does garbage collection. So the CPU time of the
    loop's thread is measured beside it: a hold of which it used up little is load on the machine, not a defect.

    An idle loop is looked at less often, until a request or a message arrives (`stir`) or the thread has worked.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._period = IDLE_SECONDS
        self._begun = self._cpu_begun = 0.0
        self.held = Longest(clock)
        self.busy = Longest(clock)

    def note(self, seconds: float, cpu_seconds: float = 0.0) -> None:
        """The loop was held for so long, until now, and its thread used so much CPU time since the last look."""
        self.held.note(seconds)
        self.busy.note(min(seconds, cpu_seconds))

    def longest_seconds(self) -> float:
        """The longest hold of the last minute."""
        return self.held.value()

    def longest_cpu_seconds(self) -> float:
        """The largest CPU time of a hold within the last minute."""
        return self.busy.value()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the running loop during the block."""
        self._call_later = asyncio.get_running_loop().call_later
        self._wait(SAMPLE_SECONDS)
        try:
            yield
        finally:
            self._call_later = None
            if self._timer is not None:
                self._timer.cancel()

    def stir(self) -> None:
        """Look closely from now on: something begins that may hold the loop."""
        if self._timer is not None and self._period != SAMPLE_SECONDS:
            self._timer.cancel()
            self._wait(SAMPLE_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._call_later is not None:
            self._period, self._begun, self._cpu_begun = seconds, self._clock(), self._cpu_clock()
            self._timer = self._call_later(seconds, self._look)

    def _look(self) -> None:
        cpu_seconds = self._cpu_clock() - self._cpu_begun
        self.note(max(0.0, self._clock() - self._begun - self._period), cpu_seconds)
        self._wait(SAMPLE_SECONDS if cpu_seconds > IDLE_CPU_SECONDS else IDLE_SECONDS)


class Metrics:
    """The counters of one process. Names as Prometheus wants them: base units, `_total` for what only grows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reports = Counter(
            "simulations_reports", "Reports of supervisors that were stored here.", registry=self.registry
        )
        self._points = Counter("simulations_points", "Points in them, over all metrics.", registry=self.registry)
        self._delivery = Histogram(
            "simulations_delivery_seconds",
            "From knowing of new points until all who wait for them here had been sent them.",
            buckets=DELIVERY_BUCKETS,
            registry=self.registry,
        )
        self._requests = Histogram(
            "simulations_http_request_seconds",
            "HTTP requests, streams left out, to the end of their answers.",
            ("path", "status"),
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.watchdog = Watchdog()
        Gauge(
            "simulations_loop_hold_seconds",
            "The longest time within a minute for which the event loop did nothing else.",
            registry=self.registry,
        ).set_function(self.watchdog.longest_seconds)
        Gauge(
            "simulations_loop_hold_cpu_seconds",
            "The largest CPU time of such a hold within a minute: much less than the hold, if the machine is busy.",
            registry=self.registry,
        ).set_function(self.watchdog.longest_cpu_seconds)
        self.sockets = Gauge("simulations_sockets", "WebSockets that are open here.", registry=self.registry)
        self._of_request: dict[tuple[str, int], Histogram] = {}  # `labels()` looks and locks anew each time

    def stored(self, points: int) -> None:
        """A report was stored."""
        self._reports.inc()
        self._points.inc(points)

    def delivered(self, seconds: float) -> None:
        """New points were sent to all who waited for them."""
        self._delivery.observe(seconds)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered. path: one of few."""
        key = (path, status)
        found = self._of_request.get(key)
        if found is None:
            found = self._of_request[key] = self._requests.labels(path, str(status))
        found.observe(seconds)
