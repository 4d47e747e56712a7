"""Public ids: taken apart into what they were made of, and everything else refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.public_ids import decode, encode


def raw(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def test_an_id_is_base64_of_type_and_number() -> None:
    assert encode("Simulation", 12) == raw("Simulation:12") == "U2ltdWxhdGlvbjoxMg=="


@given(st.sampled_from(["Simulation", "Machine", "Project", "Attempt"]), st.integers(0, 10**18 - 1))
def test_an_id_is_taken_apart_into_what_it_was_made_of(type_name: str, number: int) -> None:
    assert decode(encode(type_name, number)) == (type_name, number)


@pytest.mark.parametrize(
    "given",
    [
        "", "12", "Simulation:12", "U2ltdWxhdGlvbjoxMg", "U2ltdWxhdGlvbjoxMg==\n", " U2ltdWxhdGlvbjoxMg==", "é", "\0",
        raw("Simulation"), raw("Simulation:"), raw(":12"), raw("Simulation:-1"), raw("Simulation:+1"),
        raw("Simulation:1.0"), raw("Simulation: 1"), raw("Simulation:1_0"), raw("Simulation:1:2"), raw("Simulation:x"),
        raw("Simulation:٣"), raw("Simulation:²"), raw("Simulation:" + "9" * 19), raw(b"\xff\xfe:1"),
    ],
)  # fmt: skip
def test_what_is_no_public_id_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"public id|ASCII"):
        decode(given)


@given(st.text())
def test_no_text_does_worse_than_being_refused(given: str) -> None:
    try:
        type_name, number = decode(given)
    except ValueError:
        return
    assert type_name
    assert number >= 0
