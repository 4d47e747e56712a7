"""Weighted fair share: the factor by which a project's use multiplies the keys of its runs.

A project that has used its share of what all have used has the factor 1, one that has used twice as much 2. Use decays
with a half-life, so no project pays for ever. A strict order by share would cost all users dearly, so it is only a
factor: a very short run of a busy project still passes a long one of an idle project.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from policy.workload import Project

LEAST_SHARE = 0.05  # of a project that has used nothing
LEAST_WEIGHT = 1e-9  # a project with weight 0 comes last, and still comes


def used(project: Project, now: datetime, half_life_seconds: float) -> float:
    """Return a project's use at this moment."""
    if project.used_at is None or project.used <= 0:
        return max(project.used, 0.0)
    passed = max((now - project.used_at).total_seconds(), 0.0)
    return project.used * math.pow(2.0, -passed / half_life_seconds)


def charge(project: Project, amount: float, now: datetime, half_life_seconds: float) -> Project:
    """Add the cost of what ran until now: GPU-seconds or money, in one unit for all projects."""
    return replace(project, used=used(project, now, half_life_seconds) + amount, used_at=now)


def shares(projects: Iterable[Project], now: datetime, half_life_seconds: float) -> Mapping[int, float]:
    """Return for each project its part of the use in proportion to its part of the weights; 1 while there is no use."""
    ordered = sorted(projects, key=lambda each: each.id)  # sums of floats depend on their order
    uses = [used(each, now, half_life_seconds) for each in ordered]
    weights = [max(each.weight, LEAST_WEIGHT) for each in ordered]
    all_use, all_weight = sum(uses), sum(weights)
    if all_use <= 0:
        return {each.id: 1.0 for each in ordered}
    return {
        each.id: max((use / all_use) / (weight / all_weight), LEAST_SHARE)
        for each, use, weight in zip(ordered, uses, weights, strict=True)
    }
