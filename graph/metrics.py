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
SAMPLE_SECONDS = 0.02  # between two looks of the watchdog: 50 wake-ups a second
RECENT_SECONDS = 60.0  # the longest hold of this time is shown: a scrape in a minute misses none


class Watchdog:
    """Measures how long the event loop was held: by how much a sleep of some milliseconds lasted longer than it should.

    A process that was not scheduled by the system looks the same; so does garbage collection.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: deque[tuple[float, float]] = deque()  # (when, seconds), longer ones before shorter ones

    def note(self, seconds: float) -> None:
        """The loop was held for so long, until now."""
        while self._held and self._held[-1][1] <= seconds:
            self._held.pop()
        self._held.append((self._clock(), seconds))
        self._forget()

    def longest_seconds(self) -> float:
        """The longest hold of the last minute."""
        self._forget()
        return self._held[0][1] if self._held else 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the running loop during the block."""
        task = asyncio.create_task(self._watch(), name="watchdog")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            begun = self._clock()
            await asyncio.sleep(SAMPLE_SECONDS)
            self.note(max(0.0, self._clock() - begun - SAMPLE_SECONDS))

    def _forget(self) -> None:
        while self._held and self._held[0][0] < self._clock() - RECENT_SECONDS:
            self._held.popleft()


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
