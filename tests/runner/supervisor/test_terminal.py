"""Escapes, carriage returns and backspaces, as a terminal carries them out."""

from __future__ import annotations

import pytest

from runner.supervisor.terminal import clean, cut, drawn, plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[31mRED\x1b[0m and \x1b[1;4mbold\x1b[m\n", b"RED and bold\n"),
        (b"\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", b"textlink\n"),
        (b"\x1b[?25l\x1b[2K\x1b[1Gline\x1b[?25h\x1b7\x1b8\x1b(B\x1b=\n", b"line\n"),
        (b"\x1bPq#0;2;0;0;0\x1b\\sixel\x1b", b"sixel"),
        (b"10%\r20%\r30%\nnext\r\n", b"\r30%\nnext\n"),
        (b"50%\r   \r\nnext\n", b"50%\nnext\n"),
        (b"\r\n\r\r\n", b"\n\n"),
        (b"abc\b\bX\n", b"aXc\n"),
        (b"12/20\b\b\b\b\b\r13/20\n", b"\r13/20\n"),
        (b"plain\n", b"plain\n"),
        (b"unended\x1b[3", b"unended"),
    ],
)
def test_a_block_is_shown_as_it_stands_in_the_end(written: bytes, shown: bytes) -> None:
    assert clean(drawn(written)) == shown


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"\x1b[31mRED\x1b[0m and \x1b[1;4mbold\x1b[m\n", b"\x1b[31mRED\x1b[0m and \x1b[1;4mbold\x1b[m\n"),
        (b"\x1b[38;2;1;2;3ma\x1b[38:2::1:2:3mb\n", b"\x1b[38;2;1;2;3ma\x1b[38:2::1:2:3mb\n"),
        (b"\x1b[" + b"1;" * 40 + b"mlong \x1b[>4;1mprivate \x1b[1 mspaced\x1b[3", b"long private spaced"),
        (b"\x1b[2K\x1b[31m\x1b]0;title\x07x\x1b[H\n", b"\x1b[31mx\n"),
        (b"\x1b[1m1/7\x1b[0m\b\b\b\b\r\x1b[32m7/7\x1b[0m\n", b"\r\x1b[32m7/7\x1b[0m\n"),
        (b"\x1b[31m50%\r \x1b[0m \n", b"\x1b[31m50%\x1b[0m\n"),
        (b"\x1b[31mab\b\bX\x1b[0m\n", b"Xb\n"),  # colours have no width: what is overwritten in part loses them
    ],
)
def test_of_escape_sequences_only_colours_stay(written: bytes, kept: bytes) -> None:
    assert drawn(written) == kept


def test_a_line_is_cut_before_a_colour_rather_than_within() -> None:
    line = b"ab\x1b[31mcd"
    assert [cut(line, length) for length in (2, 3, 4, 5, 6, 7, 8)] == [b"ab"] * 5 + [b"ab\x1b[31m", b"ab\x1b[31mc"]


def test_the_marks_of_redrawn_lines_come_off() -> None:
    assert plain(drawn(b"1\r2\nx\n3\r4\n")) == b"2\nx\n4\n"


def test_lines_are_neither_made_nor_lost() -> None:
    block = b"a\rb\n\x1b[1m\n\b\n\r\n1\r\r2\n"
    assert drawn(block).count(b"\n") == block.count(b"\n")
