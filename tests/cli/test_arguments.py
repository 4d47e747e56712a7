"""Parsing of command-line values."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.arguments import (
    absolute_directory,
    is_node_id,
    parse_duration,
    parse_pairs,
    parse_parameters,
    parse_states,
    relative_files,
)
from cli.errors import UsageError
from cli.listing import parse_where
from cli.search import parse_parameter


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("15m", 900), ("15 min", 900), ("2h", 7200), ("1.5h", 5400), ("1h30m", 5400),
        ("1d", 86_400), ("1w", 604_800), (" 2H ", 7200), ("0.5", 0.5), ("1d 2h", 93_600),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_the_units_people_use(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", " ", "0", "0s", "-5", "-5m", "five", "5x", "1h30", "1..5h", "h", "9e9", "1" * 30])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="expected a duration like 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2 hours", "; hours is written h"), ("5 mins", "; mins is written m"), ("3 hrs", "; hrs is written h"),
        ("5 hors", "; hors is written h"), ("1 wek", "; wek is written w"), ("2 sceonds", "; sceonds is written s"),
        ("500ms", ""), ("2 parsecs", ""),
    ],
)  # fmt: skip
def test_a_misspelt_unit_is_corrected_where_possible(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_duration(text)
    assert str(refused.value) == f"expected a duration like 90s, 15m, 1h30m or 2d, got {text!r}{said}"


@given(st.text(max_size=20))
def test_any_text_is_a_positive_duration_or_is_refused(text: str) -> None:
    with suppress(UsageError):
        assert parse_duration(text) > timedelta(0)


def test_a_parameter_is_json_where_it_parses_and_else_text() -> None:
    given_pairs = ["rate=0.1", "layers=[1, 2]", "name=adam", 'quoted="7"', "empty=", "flag=true", "sum=a=b", "odd=NaN"]
    assert parse_parameters(given_pairs) == {
        "rate": 0.1, "layers": [1, 2], "name": "adam", "quoted": "7", "empty": "", "flag": True, "sum": "a=b",
        "odd": "NaN",
    }  # fmt: skip


@pytest.mark.parametrize(
    "number", ["18446744073709551616", "-9223372036854775809", "9" * 5_000], ids=["large", "negative", "long"]
)
def test_whole_numbers_that_would_be_rounded_on_their_way_are_refused(number: str) -> None:
    assert parse_parameters(["a=18446744073709551615", "b=-9223372036854775808", f'c="{number}"']) == {
        "a": 2**64 - 1, "b": -(2**63), "c": number,
    }  # fmt: skip
    for text in (number, f"[1, {number}]"):
        with pytest.raises(UsageError, match=r"^--parameter n: .* is a whole number beyond 64 bits: quote it"):
            parse_parameters([f"n={text}"])
        with pytest.raises(UsageError, match=r"^--parameter n: .* is a whole number beyond 64 bits: quote it"):
            parse_parameter("n", text)
    with pytest.raises(UsageError, match=r"^--where n: .* is a whole number beyond 64 bits: quote it"):
        parse_where(f"n<{number}")


def test_a_pair_without_a_key_or_with_one_key_twice_is_refused() -> None:
    for pairs, found in (
        (["novalue"], "expected KEY=VALUE"),
        (["=1"], "expected KEY=VALUE"),
        (["a=1", "a=2"], "twice"),
    ):
        with pytest.raises(UsageError, match=found):
            parse_pairs(pairs, "--env")


def test_states_are_read_in_any_case_and_with_commas() -> None:
    assert parse_states(["queued,Running", "FAILED"]) == ["QUEUED", "RUNNING", "FAILED"]
    with pytest.raises(UsageError, match="'done'"):
        parse_states(["done"])


def test_an_id_is_distinguished_from_a_name() -> None:
    assert is_node_id(base64.b64encode(b"Machine:3").decode(), "Machine")
    assert not is_node_id(base64.b64encode(b"Project:3").decode(), "Machine")
    assert not is_node_id("big", "Machine")
    assert not is_node_id("größe", "Machine")


def test_only_relative_paths_of_files_that_exist_here_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    words = ["python", "train.py", "other.py", str(tmp_path / "train.py"), "--x", "nul\0", "a" * 5000]
    assert relative_files(words) == ["train.py"]


def test_a_working_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_directory(".") == str(tmp_path.resolve())
    assert absolute_directory("/srv/data") == "/srv/data"
    assert absolute_directory(None) is None
