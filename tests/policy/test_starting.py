"""Machines to start for what waits for them: how many of each kind."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from policy.matching import Machine, Requirements
from policy.starting import Awaiting, Startable, wanted


def needs(machines: int = 1, **given: Any) -> Awaiting:
    values = {
        "cpus": 1.0, "memory_gib": 0.0, "gpus": 0, "gpu_model": None, "labels": {}, "machine_id": None,
        "machine_name": None, "max_price_per_hour": None, **given,
    }  # fmt: skip
    return Awaiting(Requirements(**values), machines)


def kind(key: str, *, most: int = 4, **given: Any) -> Startable:
    values = {
        "cpus": 8.0, "memory_gib": 32.0, "gpus": 2, "gpu_model": "A100", "labels": {}, "price_per_hour": Decimal(8),
        **given,
    }  # fmt: skip
    free = {"free_cpus": values["cpus"], "free_memory_gib": values["memory_gib"], "free_gpus": values["gpus"]}
    machine = Machine(id=0, name=key, online=True, draining=False, host=None, host_free_gpus=None, **values, **free)
    return Startable(key, machine, most)


def test_nothing_waits_and_nothing_is_started() -> None:
    assert wanted([], [kind("a")]) == {}
    assert wanted([needs()], []) == {}


@pytest.mark.parametrize(("count", "machines"), [(1, 1), (2, 1), (3, 2), (8, 4), (100, 4)])
def test_those_that_fit_on_one_machine_share_it_and_no_more_than_the_most_are_started(
    count: int, machines: int
) -> None:
    assert wanted([needs(gpus=1)] * count, [kind("a")]) == {"a": machines}


def test_a_machine_is_full_by_any_resource() -> None:
    assert wanted([needs(cpus=1.0, memory_gib=20.0)] * 2, [kind("a")]) == {"a": 2}
    assert wanted([needs(cpus=5.0), needs(cpus=5.0), needs(cpus=3.0)], [kind("a")]) == {"a": 2}


def test_each_takes_the_kind_that_costs_least_for_it() -> None:
    cheap, dear = kind("cheap", price_per_hour=Decimal(2), gpus=0), kind("dear")
    assert wanted([needs(), needs(gpus=1)], [dear, cheap]) == {"cheap": 1, "dear": 1}
    assert wanted([needs(labels={"zone": "b"})], [cheap, kind("b", labels={"zone": "b"})]) == {"b": 1}


def test_the_next_kind_is_started_when_the_cheapest_is_exhausted() -> None:
    cheap, dear = kind("cheap", price_per_hour=Decimal(2), most=1), kind("dear")
    assert wanted([needs(gpus=2)] * 3, [dear, cheap]) == {"cheap": 1, "dear": 2}


def test_what_no_kind_meets_starts_nothing() -> None:
    assert wanted([needs(gpus=3), needs(labels={"zone": "b"}), needs(gpu_model="H100", gpus=1)], [kind("a")]) == {}
    assert wanted([needs(gpus=1, max_price_per_hour=Decimal(3))], [kind("a")]) == {}
    assert wanted([needs(gpus=1, max_price_per_hour=Decimal(4))], [kind("a")]) == {"a": 1}


def test_members_of_one_simulation_are_on_machines_of_their_own_or_nowhere() -> None:
    assert wanted([needs(3)], [kind("a")]) == {"a": 3}
    assert wanted([needs(3), needs(2)], [kind("a")]) == {"a": 3}
    assert wanted([needs(5), needs()], [kind("a")]) == {"a": 1}
