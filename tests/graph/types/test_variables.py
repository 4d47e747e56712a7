"""Names of environment variables, and the variables of parameters."""

from __future__ import annotations

import re
from typing import Any

import pytest

from graph.types.variables import check_name, check_parameters, parameter_variables


@pytest.mark.parametrize("name", ["HTTP_PROXY", "lr", "a.b", "größe", "CUDA_DEVICE_ORDER", "SIMULATIONS_URL"])
def test_ordinary_names_are_taken_as_they_are(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "character", ["\0", "\t", "\r", "\x7f", "\x85", " ", "\u00a0", "\u2003", "\u2028", "\u200d", "\u2066", "\ufeff"]
)
@pytest.mark.parametrize("where", ["{}A", "A{}", "A{}B"])
def test_invisible_characters_are_refused_and_shown_escaped(character: str, where: str) -> None:
    with pytest.raises(ValueError, match="blank, control or invisible") as error:
        check_name(where.format(character))
    assert character == " " or character not in str(error.value)


def test_the_gpus_are_asked_for_by_their_own_field() -> None:
    with pytest.raises(ValueError, match=re.escape("ask for them by resources.gpus")):
        check_name("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("parameters", [{"lr": 1, "LR": 2}, {"a_b": 1, "A_b": "x"}, {"z": 1, "Lr": 1.5, "lR": True}])
def test_two_parameters_for_one_variable_are_both_named(parameters: dict[str, Any]) -> None:
    *_, first, second = parameters
    with pytest.raises(ValueError, match=f"'{first}' and '{second}' would both be SIMULATION_PARAMETER_"):
        check_parameters(parameters)


@pytest.mark.parametrize("parameters", [{"lr": 1, "LR": [2]}, {"lr": None, "LR": 1}, {"a-b": 1, "A-B": 2}, {"lr": 1}])
def test_parameters_without_a_variable_of_their_own_are_in_no_ones_way(parameters: dict[str, Any]) -> None:
    assert check_parameters(parameters) == parameters
    assert len(parameter_variables(parameters)) <= 1
