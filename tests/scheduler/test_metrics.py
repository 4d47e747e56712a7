"""What a scheduler tells Prometheus of itself."""

from __future__ import annotations

import socket

import httpx
import pytest
from live import free_port
from prometheus_client.parser import text_string_to_metric_families

from scheduler.metrics import Metrics, serve_metrics
from settings import SettingsError


def test_metrics_are_served_while_the_block_runs_and_no_longer() -> None:
    metrics, port = Metrics(), free_port()
    metrics.leads.set(True)
    metrics.planned(0.02, assigned=3, refused=1)
    with serve_metrics(metrics, "127.0.0.1", port):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert found["simulations_plan_seconds_count"] == 1
    assert found["simulations_plan_seconds_sum"] == pytest.approx(0.02)
    assert found["simulations_assignments_total"] == 3
    assert found["simulations_refused_assignments_total"] == 1
    assert found["simulations_leads"] == 1
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60)


def test_without_a_port_there_is_no_listener() -> None:
    with serve_metrics(Metrics(), "127.0.0.1", None):
        pass


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"SIMULATIONS_SCHEDULER_METRICS_PORT: can't listen on 127.0.0.1:{port}"),
            serve_metrics(Metrics(), "127.0.0.1", port),
        ):
            pass
