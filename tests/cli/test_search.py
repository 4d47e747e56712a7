"""`-p NAME=RANGE` and names of samplers."""

from __future__ import annotations

import pytest

from cli.errors import UsageError
from cli.search import parse_parameter, parse_sampler, parse_space

WORDS = ["a..b", "low..high", "v1 .. v2", "uniform:0..1", "Log:1e-4..1e-1", "$LOW..$HIGH", "0..1,0.1", "1,2..8"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log:1e-4..1e-1", {"low": 1e-4, "high": 0.1, "log": True}),
        ("0.5..0.99", {"low": 0.5, "high": 0.99}),
        ("-1..1.5", {"low": -1, "high": 1.5}),
        ("2..8", {"low": 2, "high": 8, "integer": True}),
        ("log:16..1024", {"low": 16, "high": 1024, "log": True, "integer": True}),
        ("float:1..8", {"low": 1, "high": 8}),
        ("int:1..9:2", {"low": 1, "high": 9, "step": 2, "integer": True}),
        ("0..0.5:0.1", {"low": 0, "high": 0.5, "step": 0.1}),
        ("64,128", {"choices": [64, 128]}),
        ("adam, sgd,1e-3,true", {"choices": ["adam", "sgd", 1e-3, True]}),
        ('["a,b", "c"]', {"choices": ["a,b", "c"]}),
        ("9007199254740993,9007199254740995", {"choices": [9007199254740993, 9007199254740995]}),
        ("20", {"value": 20}),
        ("../data", {"value": "../data"}),
        ("runs/a..b", {"value": "runs/a..b"}),
        ('"a..b"', {"value": "a..b"}),
        ('"a..b",c', {"choices": ["a..b", "c"]}),
        ("Wait...", {"value": "Wait..."}),
        ("NaN", {"value": "NaN"}),
        ('{"a": 1}', {"value": {"a": 1}}),
    ],
)
def test_ranges_choices_and_single_values(text: str, expected: dict[str, object]) -> None:
    assert parse_parameter("x", text) == expected


@pytest.mark.parametrize("text", ["0..9007199254740993", "-9007199254740993..0", "int:1..18014398509481985"])
def test_whole_numbers_that_a_double_does_not_hold_are_no_limits_of_a_range(text: str) -> None:
    with pytest.raises(UsageError, match=r"--parameter x: .* end at 2\^53"):
        parse_space([f"x={text}"])
    assert parse_space(["x=0..9007199254740992"])[0] == [{"name": "x", "low": 0, "high": 2**53, "integer": True}]
    assert parse_space(["x=1,9007199254740993"])[0] == [{"name": "x", "choices": [1, 9007199254740993]}]


@pytest.mark.parametrize("text", ["log:1e-4", "1..", "log:..", "1..x", "nan..1", "log:a..b", "1,,2", "1,", *WORDS])
def test_what_is_none_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="--parameter x: "):
        parse_parameter("x", text)


def test_single_values_are_the_same_for_all_trials() -> None:
    assert parse_space(["lr=0.1..1", "epochs=5", "name=a b"]) == (
        [{"name": "lr", "low": 0.1, "high": 1}], {"epochs": 5, "name": "a b"},
    )  # fmt: skip
    with pytest.raises(UsageError, match="lr is given twice"):
        parse_space(["lr=1..2", "lr=1,2"])


def test_samplers_have_the_names_of_several_tools() -> None:
    assert [parse_sampler(each) for each in ("tpe", "bayes", "CMA_ES", "cmaes", "sobol", "quasi-random", "Grid")] == [
        "TPE", "TPE", "CMA_ES", "CMA_ES", "QUASI_RANDOM", "QUASI_RANDOM", "GRID",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="expected one of tpe"):
        parse_sampler("simulated annealing")
