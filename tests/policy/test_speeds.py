"""How fast machines are for a class, from measured step rates."""

from __future__ import annotations

from decimal import Decimal

import pytest

from policy.matching import Machine
from policy.speeds import Rates, speeds_of


def machine(number: int, model: str) -> Machine:
    return Machine(number, f"m{number}", 8, 64, 8, model, {}, Decimal(1), 8, 64, 8, True, False, None, None)


def rates(*measured: float) -> Rates:
    made = Rates()
    for each in measured:
        made.add(each)
    return made


SLOW, ALIKE, FAST = machine(1, "V100"), machine(2, "V100"), machine(3, "H100")


def test_a_machine_is_as_fast_as_its_runs_were_in_proportion_to_the_usual() -> None:
    found = speeds_of({"resnet": {1: rates(10.0, 10.0), 3: rates(40.0)}}, [SLOW, ALIKE, FAST])
    ratios = found["resnet"]
    assert ratios[3] / ratios[1] == pytest.approx(4.0, rel=0.1)
    assert ratios[2] == ratios[1], "what is known of one holds for those with equal hardware"
    assert ratios[1] == pytest.approx(0.5, rel=0.06), "the usual lies between them"


def test_small_differences_decide_nothing() -> None:
    assert speeds_of({"resnet": {1: rates(10.0), 3: rates(10.5)}}, [SLOW, FAST]) == {}


def test_where_one_kind_of_hardware_was_measured_or_is_there_nothing_is_known() -> None:
    assert speeds_of({"resnet": {1: rates(10.0)}}, [SLOW, FAST]) == {}
    assert speeds_of({"resnet": {1: rates(10.0), 3: rates(90.0)}}, [SLOW, ALIKE]) == {}
    assert speeds_of({"resnet": {1: rates(10.0), 99: rates(90.0)}}, [SLOW, FAST]) == {}, "99 was deleted"
