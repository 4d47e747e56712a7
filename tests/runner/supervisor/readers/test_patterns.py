"""The user's patterns: named groups are metrics; a pattern that backtracks without end is switched off."""

from __future__ import annotations

from typing import Any


def test_named_groups_are_metrics_and_step_is_the_step(read: Any) -> None:
    result = read("[7] L=0.5 A=0.25%\n[8] L=nan A=x\n", patterns=[r"\[(?P<step>\d+)\] L=(?P<loss>\S+) A=(?P<acc>\S+)"])
    assert result.points == {"loss": [(7, 0.5), (8, "NaN")], "acc": [(7, 0.25)]}
    assert result.log == ["[7] L=0.5 A=0.25%", "[8] L=nan A=x"]


def test_without_a_step_lines_are_counted(read: Any) -> None:
    assert read("loss=3\nother\nloss=2\n", patterns=[r"loss=(?P<loss>\S+)"]).points == {"loss": [(0, 3.0), (1, 2.0)]}


def test_a_pattern_of_a_step_alone_gives_it_to_the_lines_that_follow(read: Any) -> None:
    result = read("== round 5\nL 0.5\nA 1\n== round 6\nL 0.25\n",
                  patterns=[r"== round (?P<step>\d+)", r"^L (?P<loss>\S+)", r"^A (?P<acc>\S+)"])  # fmt: skip
    assert result.points == {"loss": [(5, 0.5), (6, 0.25)], "acc": [(5, 1.0)]}


def test_patterns_come_before_the_other_readers_and_beside_them(read: Any) -> None:
    text = '{"step": 1, "loss": 0.5}\nL=3\n'
    assert set(read(text, patterns=[r"L=(?P<l>\S+)"]).points) == {"loss", "l"}
    assert set(read(text, patterns=[r"L=(?P<l>\S+)"], mode="JSON").points) == {"loss", "l"}
    assert set(read(text, patterns=[r"L=(?P<l>\S+)"], mode="NONE").points) == {"l"}


def test_a_pattern_that_backtracks_without_end_is_switched_off(read: Any) -> None:
    text = "a" * 60 + "!\n" + "loss=1\n"
    result = read(text * 3, patterns=[r"(?P<bad>(a+)+)$", r"loss=(?P<loss>\S+)"])
    assert [value for _, value in result.points["loss"]] == [1.0, 1.0, 1.0]
    assert result.notices["PATTERN_SLOW"][0] == 1
    assert "(?P<bad>(a+)+)$" in result.notices["PATTERN_SLOW"][2]


def test_patterns_that_matched_nothing_or_do_not_compile_are_told(read: Any) -> None:
    result = read("x\n", patterns=["loss=(?P<loss>.+)", "(?P<a>"])
    assert result.notices["PATTERN_UNMATCHED"][0] == 1
    assert result.notices["PATTERN_UNUSABLE"][0] == 1
