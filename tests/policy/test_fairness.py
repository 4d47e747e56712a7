"""Weighted fair share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from policy.fairness import charge, shares, used
from policy.workload import Project

NOW = datetime(2030, 1, 8, tzinfo=UTC)
WEEK = 7 * 86_400


def test_use_halves_with_each_half_life() -> None:
    project = Project(1, used=8.0, used_at=NOW - timedelta(days=14))
    assert used(project, NOW, WEEK) == pytest.approx(2.0)
    assert used(charge(project, 3.0, NOW, WEEK), NOW, WEEK) == pytest.approx(5.0)


def test_the_share_is_the_part_of_the_use_in_proportion_to_the_part_of_the_weights() -> None:
    found = shares([Project(1, 1.0, 30.0, NOW), Project(2, 3.0, 30.0, NOW)], NOW, WEEK)
    assert found == {1: pytest.approx(2.0), 2: pytest.approx(2 / 3)}


def test_a_project_that_has_used_nothing_keeps_a_small_factor_and_one_without_weight_a_large_one() -> None:
    found = shares([Project(1), Project(2, used=5.0, used_at=NOW), Project(3, 0.0, 5.0, NOW)], NOW, WEEK)
    assert found[1] == 0.05
    assert found[3] > 1e6


def test_without_any_use_all_are_equal() -> None:
    assert shares([Project(1), Project(2, 9.0)], NOW, WEEK) == {1: 1.0, 2: 1.0}
