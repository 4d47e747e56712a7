"""Search spaces: what is refused and where, values of steps, documents, parameters in commands."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.search_space import (
    MOST_TRIALS,
    Parameter,
    Sampler,
    as_text,
    decode,
    encode,
    fill,
    grid_size,
    longest,
    marks,
    mistakes,
    size_of_filled,
)

LR = Parameter("lr", low=1e-4, high=1e-1, log=True)
BATCH = Parameter("batch", choices=(64, 128))
LAYERS = Parameter("layers", low=1, high=8, integer=True)


def found(*space: Parameter, sampler: Sampler = Sampler.TPE) -> list[tuple[Any, ...]]:
    return [path for path, _ in mistakes(space, sampler)]


def test_ranges_and_choices_of_every_kind_are_sound() -> None:
    assert found(LR, BATCH, LAYERS, Parameter("wd", low=-0.5, high=0.5, step=0.25)) == []
    assert found(Parameter("x", low=1, high=2, step=0.5, log=True)) == []
    assert found(LR, LAYERS, sampler=Sampler.CMA_ES) == []
    assert found(BATCH, LAYERS, sampler=Sampler.GRID) == []


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        (Parameter("x"), ()),
        (Parameter("x", low=1), ()),
        (Parameter("x", low=2, high=1), ("low",)),
        (Parameter("x", low=1, high=1), ("low",)),
        (Parameter("x", low=0, high=1, log=True), ("low",)),
        (Parameter("x", low=-1, high=1, log=True), ("low",)),
        (Parameter("x", low=math.nan, high=1), ()),
        (Parameter("x", low=0, high=math.inf), ()),
        (Parameter("x", low=-1e308, high=1e308), ("high",)),
        (Parameter("x", low=0, high=1, step=0), ("step",)),
        (Parameter("x", low=0, high=1, step=2), ("step",)),
        (Parameter("x", low=0, high=1, step=1e-300), ("step",)),
        (Parameter("x", low=0.5, high=2, integer=True), ("low",)),
        (Parameter("x", low=0, high=2.0**53 + 2, integer=True), ("high",)),
        (Parameter("x", choices=()), ("choices",)),
        (Parameter("x", choices=(1, 2, 1)), ("choices",)),
        (Parameter("x", choices=(math.nan,)), ("choices",)),
        (Parameter("x", choices=(2**63,)), ("choices",)),
        (Parameter("x", choices=(1,), low=0, high=1), ()),
        (Parameter("x", choices=(1,), log=True), ()),
        (Parameter("x", choices=tuple(range(1_001))), ("choices",)),
    ],
)
def test_a_mistake_names_its_field(parameter: Parameter, field: tuple[str, ...]) -> None:
    assert found(parameter) == [(0, *field)]


def test_what_a_sampler_can_not_search_is_refused() -> None:
    assert found(LR, BATCH, sampler=Sampler.CMA_ES) == [(1, "choices")]
    assert found(Parameter("x", low=0, high=1), sampler=Sampler.GRID) == [(0, "step")]
    assert found(LR, sampler=Sampler.GRID) == [(0, "log")]
    wide = Parameter("x", low=0, high=999, integer=True)
    assert found(wide, Parameter("y", low=1, high=11, integer=True), sampler=Sampler.GRID) == [()]
    assert MOST_TRIALS < 1_000 * 11
    assert found() == [()]
    assert found(LR, LR) == [(1, "name")]
    assert found(*(Parameter(f"x{number}", choices=(1,)) for number in range(101))) == [()]


def test_1_and_true_and_their_texts_are_different_choices() -> None:
    assert found(Parameter("x", choices=(1, 1.0, True, "1", "true"))) == []


def test_values_of_a_step_are_the_decimals_that_were_meant() -> None:
    assert list(Parameter("x", low=0.1, high=0.7, step=0.1).values or ()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert list(Parameter("x", low=1, high=9, step=3, integer=True).values or ()) == [1, 4, 7]
    assert len(Parameter("x", low=0, high=2.0**53, integer=True).values or ()) == 2**53 + 1
    assert Parameter("x", low=0, high=1).values is None
    assert grid_size([BATCH, Parameter("x", low=0, high=1, step=0.5), LAYERS]) == 2 * 3 * 8


def test_a_document_keeps_a_space() -> None:
    space = (LR, BATCH, LAYERS, Parameter("x", low=0, high=1, step=0.1), Parameter("o", choices=("a", True, 2**60)))
    assert decode(encode(space)) == space
    assert encode([BATCH]) == [{"name": "batch", "choices": [64, 128]}]


def test_parameters_fill_a_command_word_by_word_and_other_braces_stay() -> None:
    command = ("train", "--lr={lr}", "{name} x", "{{lr}}", '{"a": {}}', "{}", "${x y}", "f'{0}'")
    parameters = {"lr": 1e-05, "name": "a b; rm -rf $HOME {lr}"}
    assert fill(command, parameters) == (
        "train", "--lr=1e-05", "a b; rm -rf $HOME {lr} x", "{lr}", '{"a": {}}', "{}", "${x y}", "f'{0}'",
    )  # fmt: skip
    assert list(marks(command)) == [(1, "lr"), (2, "name")]
    assert fill(("{a}", "{b}"), {"a": True, "b": 2**60}) == ("true", "1152921504606846976")
    with pytest.raises(KeyError):
        fill(("{other}",), parameters)


def test_variables_of_a_shell_stay_and_names_may_have_any_letters() -> None:
    assert fill(("echo ${lr} ${{lr}} $ {lr}", "{λ}-{ß_1}"), {"lr": 1, "λ": 2, "ß_1": 3}) == (
        "echo ${lr} ${{lr}} $ 1", "2-3",
    )  # fmt: skip
    assert [name for _, name in marks(("${lr}", "{1a}", "{λ}"))] == ["λ"]


@given(st.lists(st.text("{}ab$λ ", max_size=12), max_size=4), st.text(max_size=20))
def test_the_size_of_a_filled_command_is_known_before_it_is_filled(words: list[str], value: str) -> None:
    known = {name: value for _, name in marks(words)}
    bound = size_of_filled(words, {name: len(value.encode("utf-8", "surrogatepass")) for name in known})
    assert sum(len(word.encode("utf-8", "surrogatepass")) for word in fill(words, known)) <= bound


def test_no_value_is_longer_than_the_longest() -> None:
    assert longest(Parameter("x", choices=("a", "äöü", True, 2**62))) == len(str(2**62))
    for value in (-2.2250738585072014e-308, -1.7976931348623157e308, 2**53, -(2**53)):
        assert len(as_text(value)) <= longest(Parameter("x", low=0, high=1))


@given(st.lists(st.text(max_size=20), max_size=5), st.floats(allow_nan=False, allow_infinity=False))
def test_a_filled_command_has_as_many_words(words: list[str], value: float) -> None:
    known = {name: value for _, name in marks(words)}
    filled = fill(words, known)
    assert len(filled) == len(words)
    assert [word for word in words if "{" not in word] == [
        new for old, new in zip(words, filled, strict=True) if "{" not in old
    ]
