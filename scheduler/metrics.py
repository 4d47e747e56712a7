"""Prometheus metrics of a scheduler, served on a port of its own, `SIMULATIONS_SCHEDULER_METRICS_PORT`.

Durations of planning exist in this process only and need no detour through the database: each scheduler is a target of
its own, and `simulations_leads` is 0 where it does not lead. Metrics of the rows are in graph's `/metrics`. There is no
login: the server listens on the loopback address unless a setting changes that, and serves numbers without names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from settings import SettingsError

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one scheduler."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._plan = Histogram(
            "simulations_plan_seconds", "Rounds of the planner that leads.", buckets=BUCKETS, registry=self.registry
        )
        self._assigned = Counter(
            "simulations_assignments", "Simulations that were given a machine.", registry=self.registry
        )
        self._refused = Counter(
            "simulations_refused_assignments", "Placements that no longer fitted.", registry=self.registry
        )
        self.leads = Gauge("simulations_leads", "Whether this scheduler is the one that plans.", registry=self.registry)

    def planned(self, seconds: float, assigned: int, refused: int) -> None:
        """Count a finished round."""
        self._plan.observe(seconds)
        self._assigned.inc(assigned)
        self._refused.inc(refused)


@contextmanager
def serve_metrics(metrics: Metrics, host: str, port: int | None) -> Iterator[None]:
    """Serve the metrics over HTTP while the block runs, if there is a port. Raises `SettingsError`."""
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise SettingsError(
            f"SIMULATIONS_SCHEDULER_METRICS_PORT: can't listen on {host}:{port}: {error.strerror}. Choose another one."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
