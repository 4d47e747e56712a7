"""Kinds of events, whom an alert is for, pauses between attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from policy.alerts import (
    FIRST_PAUSE,
    GIVEN_UP_AFTER,
    LONGEST_PAUSE,
    AlertKind,
    kind_for,
    kinds_of,
    retry_after,
)

K = AlertKind


@dataclass(frozen=True)
class Target:
    id: int = 1
    kinds: tuple[str, ...] = tuple(K)
    project_ids: tuple[int, ...] | None = None
    is_default: bool = True


@pytest.mark.parametrize(
    ("event", "reason", "kinds"),
    [
        ("FINISHED", "COMPLETED", [K.ENDED]),
        ("CANCELLED", "CANCELLED", [K.ENDED]),
        ("FAILED", "EXIT_CODE", [K.FAILED, K.ENDED]),
        ("FAILED", "DIVERGENCE_THRESHOLD", [K.DIVERGED, K.FAILED, K.ENDED]),
        ("FAILED", "NON_FINITE_METRIC", [K.DIVERGED, K.FAILED, K.ENDED]),
        ("FINISHED", "STOPPING_THRESHOLD", [K.TARGET_REACHED, K.ENDED]),
        ("FINISHED", "PATIENCE_EXHAUSTED", [K.PLATEAU, K.ENDED]),
        ("FAILED", "MACHINE_LOST", [K.MACHINE_LOST, K.FAILED, K.ENDED]),
        ("QUEUED", "MACHINE_LOST", [K.MACHINE_LOST]),
        ("QUEUED", "PREEMPTED", []),
        ("QUEUED", None, []),
        ("STOP_WANTED", "PATIENCE_EXHAUSTED", []),
        ("WAITS_TOO_LONG", "MACHINES_BUSY", [K.WAITS_TOO_LONG]),
        ("RUNNING", None, []),
    ],
)
def test_an_event_has_its_kinds_the_most_specific_first(event: str, reason: str | None, kinds: list[AlertKind]) -> None:
    assert list(kinds_of(event, reason=reason)) == kinds


@pytest.mark.parametrize(("percent", "alerts"), [(50, False), (79, False), (80, True), (100, True)])
def test_a_budget_alerts_from_eighty_percent_on(percent: int, alerts: bool) -> None:
    assert list(kinds_of("BUDGET_WARNING", percent=percent)) == ([K.BUDGET] if alerts else [])


def test_a_target_gets_one_message_of_the_first_kind_that_it_listens_to() -> None:
    kinds = kinds_of("FAILED", reason="NON_FINITE_METRIC")
    assert kind_for(Target(), kinds, 1, None) is K.DIVERGED
    assert kind_for(Target(kinds=("ENDED", "FAILED")), kinds, 1, None) is K.FAILED
    assert kind_for(Target(kinds=("BUDGET",)), kinds, 1, None) is None


def test_what_a_simulation_names_replaces_the_defaults_of_its_project() -> None:
    kinds = [K.ENDED]
    default, other = Target(id=1), Target(id=2, is_default=False)
    assert [kind_for(each, kinds, 7, None) for each in (default, other)] == [K.ENDED, None]
    assert [kind_for(each, kinds, 7, [2]) for each in (default, other)] == [None, K.ENDED]
    assert [kind_for(each, kinds, 7, []) for each in (default, other)] == [None, None]


def test_a_target_is_for_its_projects_also_where_it_is_named() -> None:
    target = Target(project_ids=(7,))
    assert kind_for(target, [K.ENDED], 7, None) is K.ENDED
    assert kind_for(target, [K.ENDED], 8, None) is None
    assert kind_for(target, [K.ENDED], 8, [1]) is None
    assert kind_for(target, [K.BUDGET], None, None) is None, "the installation is none of its projects"
    assert kind_for(Target(), [K.BUDGET], None, None) is K.BUDGET


def test_pauses_double_up_to_an_hour_and_vary_by_a_fifth() -> None:
    young = timedelta(minutes=1)
    pauses = [retry_after(attempts, young, 0.5) for attempts in range(1, 30)]
    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == LONGEST_PAUSE
    assert retry_after(10_000, young, 0.5) == LONGEST_PAUSE
    assert retry_after(1, young, 0) == FIRST_PAUSE * 0.8
    assert retry_after(1, young, 1) == FIRST_PAUSE * 1.2


def test_after_three_days_a_message_is_given_up() -> None:
    assert retry_after(80, GIVEN_UP_AFTER - timedelta(seconds=1), 0.5) is not None
    assert retry_after(80, GIVEN_UP_AFTER, 0.5) is None
