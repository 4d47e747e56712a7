"""Received points, and their plots."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from cli.answers import ConvergenceEvent
from cli.curve import Curve
from cli.plot import draw

Event = Callable[..., dict[str, Any]]


@pytest.fixture
def add(event: Event) -> Callable[..., None]:
    def add(curve: Curve, *arguments: Any, **named: Any) -> None:
        curve.add(ConvergenceEvent.model_validate(event(*arguments, **named)["convergence"]))

    return add


def drawn(curve: Curve, width: int = 80, height: int = 15, *, log_scale: bool = False) -> str:
    console = Console(width=width, height=height + 5, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(draw(list(curve.metrics.values()), width, height, log_scale=log_scale))
    return capture.get()


def test_points_are_kept_in_order_and_the_last_finite_one_is_the_summary(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"loss": {0: 2.0, 1: 1.5}})
    add(curve, "b", {"loss": {2: 0.5, 3: None}}, state="FINISHED", reason="COMPLETED")
    assert list(curve.metrics["loss"].steps) == [0, 1, 2, 3]
    assert math.isnan(curve.metrics["loss"].values[3])
    assert curve.summary() == "loss 0.5 at step 2"
    assert curve.state == "FINISHED"


def test_a_later_attempt_ends_the_older_one_at_its_first_step(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"loss": {0: 9.0, 10: 8.0, 20: 7.0}})
    add(curve, "b", {"loss": {10: 1.0, 11: 0.9}}, attempt=2, supersedes_from=10)
    assert list(curve.metrics["loss"].steps) == [0, 10, 11]
    assert list(curve.metrics["loss"].values) == [9.0, 1.0, 0.9]


def test_thinning_keeps_peaks_valleys_and_the_order_of_steps(add: Callable[..., None]) -> None:
    curve = Curve()
    points: dict[int, float | None] = dict.fromkeys(range(10_000), 1.0)
    points[4321], points[4322] = 100.0, -100.0
    add(curve, "a", {"loss": points})
    steps, values = curve.metrics["loss"].buckets(100)
    assert len(steps) <= 200
    assert max(values) == 100.0
    assert min(values) == -100.0
    assert steps == sorted(steps)


def test_a_stretch_of_values_that_are_not_finite_stays_a_gap_when_thinned(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"loss": {step: None if 400 <= step < 600 else 1.0 for step in range(1000)}})
    _, values = curve.metrics["loss"].buckets(50)
    assert any(math.isnan(value) for value in values)


def test_a_curve_is_drawn_with_its_name_its_axis_and_its_newest_value(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"loss": {step: 1 / (step + 1) for step in range(100)}})
    picture = drawn(curve)
    assert any("\u2801" <= character <= "\u28ff" for character in picture)
    assert "loss" in picture
    assert "99" in picture
    assert "0.01" in picture


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [3, 6, 24, 60])
def test_any_size_of_terminal_and_any_number_of_metrics_can_be_drawn(
    add: Callable[..., None], width: int, height: int
) -> None:
    curve = Curve()
    for number in range(7):
        add(curve, "a", {f"metric {number}": {0: 1.0, 1: -1.0, 2: None, 3: 5e30}})
    assert drawn(curve, width, height)


def test_a_metric_without_finite_or_positive_values_is_reported_and_not_drawn(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"loss": {0: None, 1: None}})
    assert "no finite value yet" in drawn(curve)
    add(curve, "b", {"loss": {2: -1.0}})
    assert "nothing above zero" in drawn(curve, log_scale=True)


def test_one_single_point_and_a_constant_curve_can_be_drawn(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"loss": {2**52: 1.0}})
    assert drawn(curve)
    add(curve, "b", {"loss": {2**52 + 1: 1.0}})
    assert drawn(curve, log_scale=True)


def test_a_hostile_metric_name_draws_nothing_but_its_letters(add: Callable[..., None]) -> None:
    curve = Curve()
    add(curve, "a", {"[red]lo\x1b[2Jss\u202e[/red]\n": {0: 1.0, 1: 0.5}})
    picture = drawn(curve)
    assert "[red]lo[2Jss[/red]" in picture
    assert "\x1b[2J" not in picture
    assert "\u202e" not in picture
