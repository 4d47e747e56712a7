"""Input validation: limits equal those of the other rooms, and defaults are defined once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from db.simulations import Wanted
from db.states import MetricMode
from graph.http import protocol
from graph.types.inputs import MAX_COMMAND_BYTES, MAX_JSON_BYTES, Invalid, SimulationAsked, check
from graph.types.metric import MetricInput
from graph.types.scalars import _parse_step
from graph.types.simulation_inputs import CreateSimulationInput, LimitsInput, ResourcesInput
from runner.supervisor import curve, lines, spool
from transitions import report

ENTRYPOINT = ["true"]
# Looked up, or a retry's or a trial's own.
BESIDE = {
    "alert_target_ids", "project_id", "retry_of", "machine_id", "machine_name", "sweep_id", "trial",
    "entrypoint_template", "from_checkpoint", "package_id", "package_source",
}  # fmt: skip


def test_the_supervisor_sends_what_a_report_may_hold() -> None:
    """The supervisor travels with the standard library alone, so it has the limits of points a second time."""
    for name in ("MAX_STEP", "MAX_METRICS", "MAX_METRIC_NAME"):
        assert getattr(curve, name) == getattr(report, name), name
    assert spool.MAX_BATCH_POINTS == report.MAX_POINTS
    assert spool.MAX_BATCH_LOGS <= report.MAX_LOG_CHUNKS
    assert spool.MAX_BATCH_BYTES + lines.MAX_LOGGED_LINE <= report.MAX_LOG_CHARACTERS
    assert spool.MAX_BATCH_BYTES + lines.MAX_PARSED_LINE <= protocol.MAX_BODY_BYTES
    assert lines.MAX_LOGGED_LINE <= spool.MAX_LOG_STRETCH


def test_the_largest_step_is_the_same_as_a_scalar_and_in_a_report() -> None:
    assert _parse_step(report.MAX_STEP) == report.MAX_STEP
    with pytest.raises(Exception, match="from 0 to 2"):
        _parse_step(report.MAX_STEP + 1)


def test_a_metric_may_be_named_as_long_as_in_a_report() -> None:
    def named(length: int) -> CreateSimulationInput:
        return CreateSimulationInput(
            entrypoint=ENTRYPOINT, metrics=[MetricInput(name="m" * length, mode=MetricMode.MAX)]
        )

    longest = report.MAX_METRIC_NAME
    assert check(SimulationAsked, named(longest))["metric_modes"] == {"m" * longest: "MAX"}
    with pytest.raises(Invalid) as invalid:
        check(SimulationAsked, named(longest + 1))
    assert [error.field for error in invalid.value.errors] == [["metrics", "0", "name"]]


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("loss=(.+)", "has no named group"),
        ("loss=(?P<loss>", "is no regular expression"),
        ("(?P<a b>x)", "is no regular expression"),
        (f"(?P<{'n' * 300}>x)", "at most 256 characters"),
        ("(?P<a>x)" + "x" * 500, "at most 500 characters"),
        ("(?P<a>\x00)", "control characters"),
        ("", "at least 1 character"),
    ],
)
def test_a_pattern_is_a_short_regular_expression_with_a_named_group(pattern: str, rule: str) -> None:
    good = r"(?P<step>\d+) (?P<loss>\S+)"
    asked = check(SimulationAsked, CreateSimulationInput(entrypoint=ENTRYPOINT, metrics_patterns=[good]))
    assert asked["metrics_patterns"] == (good,)
    with pytest.raises(Invalid) as invalid:
        check(SimulationAsked, CreateSimulationInput(entrypoint=ENTRYPOINT, metrics_patterns=[good, pattern]))
    assert [error.field for error in invalid.value.errors] == [["metricsPatterns", "1"]]
    assert rule in invalid.value.errors[0].message


@pytest.mark.parametrize("character", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
@pytest.mark.parametrize("given", [{"name": "a%sb"}, {"project": "a%sb"}, {"tags": ["a%sb"]}])
def test_no_name_changes_the_direction_of_text(given: dict[str, Any], character: str) -> None:
    [field] = given
    text = given[field] if isinstance(given[field], str) else given[field][0]
    for name, is_fine in ((text % "\u200f\u05d0", True), (text % character, False)):
        value = name if isinstance(given[field], str) else [name]
        asked = CreateSimulationInput(entrypoint=ENTRYPOINT, **{field: value})
        if is_fine:
            check(SimulationAsked, asked)
            continue
        with pytest.raises(Invalid) as invalid:
            check(SimulationAsked, asked)
        assert f"U+{ord(character):04X}" in invalid.value.errors[0].message


def test_the_largest_simulation_fits_into_a_request() -> None:
    assert MAX_COMMAND_BYTES + 2 * MAX_JSON_BYTES < protocol.MAX_BODY_BYTES


def test_an_input_is_judged_by_the_names_of_the_row_and_keeps_nothing_that_was_left_out() -> None:
    names = {each.name for each in fields(Wanted)}
    assert SimulationAsked.__annotations__.keys() == names - BESIDE | {
        "project",
        "machine",
        "alerts",
        "client_key",
        "after",
        "package",
    }
    bare = CreateSimulationInput(entrypoint=ENTRYPOINT, resources=ResourcesInput(), limits=LimitsInput())
    asked: dict[str, Any] = {**check(SimulationAsked, bare)}
    assert not asked.keys() & {"name", "machine", "client_key", "attended_grace"}
    asked.pop("project")
    assert asked.pop("after", ()) == ()  # rows of their own
    assert asked.pop("stopping") == ()  # rules become a document, none null
    assert Wanted(project_id=1, name="n", **asked) == Wanted(1, "n", ("true",)), "the schema's defaults are the row's"
