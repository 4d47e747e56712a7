"""The comparison of pages with real responses detects differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pages import Likeness, Unlike, blocks, output_like, values_in
from session import commands_in

ONE, TWO = "U2ltdWxhdGlvbjox", "U2ltdWxhdGlvbjoy"


@pytest.mark.parametrize(
    ("shown", "answered"),
    [
        ({"state": "RUNNING"}, {"state": "FINISHED"}),
        ({"state": "RUNNING"}, {"state": "RUNNING", "reason": None}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"count": 3}, {"count": 4}),
        ({"count": 1}, {"count": True}),
        ({"cost": "0.1"}, {"cost": 0.1}),
        ({"at": "2026-11-25T18:00:00+00:00"}, {"at": "yesterday"}),
        ({"nodes": [1, 2]}, {"nodes": [1]}),
        ({"nodes": [1]}, {"nodes": [1, 2]}),
        ({"nodes": [1, 2, "…"]}, {"nodes": [1]}),
        ({"nodes": [{"id": ONE}, {"id": ONE}]}, {"nodes": [{"id": ONE}, {"id": TWO}]}),
        ({"steps": [1, 2]}, {"steps": [1]}),
    ],
)
def test_another_answer_is_found(shown: Any, answered: Any) -> None:
    with pytest.raises(Unlike):
        Likeness().compare(shown, answered)


def test_values_that_differ_between_runs_may_differ() -> None:
    likeness = Likeness()
    shown = {"id": ONE, "at": "2026-11-25T18:00:00+00:00", "cost": "0.1", "nodes": ["a", "…"]}
    likeness.compare(shown, {"id": TWO, "at": "2027-01-01T00:00:00+00:00", "cost": "2", "nodes": ["a", "b", "c"]})
    likeness.compare({"steps": [1, 2]}, {"steps": [1]}, is_event=True)

    assert likeness.values({"ids": [ONE]}) == {"ids": [TWO]}
    assert likeness.real(f'simulation(id: "{ONE}")') == f'simulation(id: "{TWO}")'


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("done", "failed"),
        ("one\ntwo", "one"),
        ("one", "one\ntwo"),
        ("one\n...\nthree", "one\ntwo"),
        ("step 3", "step none"),
        (f"{ONE} a", "x a"),
        ('{"state":"RUNNING","step":1}', '{"state":"FAILED","step":1}'),
    ],
)
def test_another_output_is_found(shown: str, printed: str) -> None:
    with pytest.raises(Unlike):
        output_like(shown, printed, Likeness())


def test_numbers_ids_and_widths_may_differ_in_an_output() -> None:
    likeness = Likeness()
    output_like(f"ID   NAME\n{ONE}  a  4 s ago\n...\nend", f"ID NAME\n{TWO} a 12 s ago\nx\ny\nend\n", likeness)

    assert likeness.given_out == {ONE: TWO}


def test_blocks_values_and_commands_are_parsed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n```json events\n{}\n…\n[1]\n```\n```console\n$ a '\n  b'\nc\n$ d \\\n  e  # f\n```\n")
    events, console = blocks(page)

    assert (events.language, events.words, events.line) == ("json", ("events",), 2)
    assert values_in(events.text) == [{}, [1]]
    assert commands_in(console.text) == [("a '\n  b'", "c"), ("d \\\n  e", "")]
