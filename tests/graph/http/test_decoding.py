"""What is not parsed since it would hold the event loop, and what is parsed however long it is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from graph.http import decoding
from graph.http.decoding import MOST_CONTAINERS, MOST_STRINGS, TooDense, loads
from graph.http.protocol import MAX_BODY_BYTES
from transitions.report import MAX_LOG_CHARACTERS, MAX_LOG_CHUNKS

DENSE: dict[str, bytes] = {
    "objects": b"{}",
    "lists in lists": b"[[]]",
    "objects in objects": b'{"":{}}',
    "strings": b'"a"',
    "escaped strings": rb'"\\"',
    "escaped quotation marks": rb'"\""',
    "fields": b'{"a":1}',
}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what is parsed."""
    lengths: list[int] = []

    def note(text: bytes) -> Any:
        lengths.append(len(text))
        return orjson.loads(text)

    monkeypatch.setattr(decoding, "orjson", type("Noted", (), {"loads": staticmethod(note)}))
    return lengths


@pytest.mark.parametrize("unit", DENSE.values(), ids=DENSE.keys())
def test_what_is_dense_is_not_parsed(unit: bytes, parsed: list[int]) -> None:
    many = MAX_BODY_BYTES // (len(unit) + 1)
    with pytest.raises(TooDense, match="100,000 objects and lists, and 60,000 strings"):
        loads(b"[" + b",".join([unit] * many) + b"]")
    assert not parsed


@pytest.mark.parametrize(
    ("unit", "most"), [(b"{}", MOST_CONTAINERS - 1), (b"[]", MOST_CONTAINERS - 1), (b'"a"', MOST_STRINGS)]
)
def test_the_limits_are_exact(unit: bytes, most: int) -> None:
    def list_of(count: int) -> bytes:
        return b"[" + b",".join([unit] * count) + b"]"

    assert loads(list_of(most)) == [orjson.loads(unit)] * most
    with pytest.raises(TooDense):
        loads(list_of(most + 1))


@pytest.mark.parametrize("text", ["[{" * 400_000, '"' * 400_000, "\\" * 400_000, '\\"[' * 200_000])
def test_what_a_log_says_counts_for_nothing(text: str) -> None:
    assert loads(orjson.dumps({"logs": [text]})) == {"logs": [text]}


def test_numbers_are_taken_as_many_as_a_body_holds() -> None:
    values = [1.5] * (MAX_BODY_BYTES // 4)
    assert loads(orjson.dumps(values)) == values


def test_the_largest_log_of_a_report_is_taken() -> None:
    logs = [{"stream": "STDOUT", "text": "x" * (MAX_LOG_CHARACTERS // MAX_LOG_CHUNKS)}] * MAX_LOG_CHUNKS
    assert loads(orjson.dumps({"logs": logs})) == {"logs": logs}


def test_what_is_not_json_is_refused_as_before() -> None:
    for text in (b"{", b"[NaN]", b"[" * 2_000, b'"' * (MOST_STRINGS + 1)):
        with pytest.raises(orjson.JSONDecodeError):
            loads(text)


@pytest.mark.parametrize("number", [2**64 + 1, -(2**63) - 1, 10**308])
def test_whole_numbers_beyond_64_bits_keep_their_digits(number: int) -> None:
    given = {"text": f'"{number}', "values": [0.1, 1e22, 2**64 - 1, -(2**63), 5e-324, True, None]}
    text = orjson.dumps({"n": 0, **given}).replace(b'"n":0', b'"n":%d' % number)
    assert loads(text) == {"n": number, **given}


def test_numbers_of_reports_are_doubles() -> None:
    query = {"query": "mutation ($input: ReportAttemptInput!) { reportAttempt(input: $input) { verdict } }"}
    text = orjson.dumps({**query, "variables": {"n": 0}}).replace(b'"n":0', b'"n":18446744073709551617')
    decoded: Any = loads(text)
    assert type(decoded["variables"]["n"]) is float
