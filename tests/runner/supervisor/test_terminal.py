"""Escapes, carriage returns and backspaces, as a terminal carries them out."""

from __future__ import annotations

import pytest

from runner.supervisor.terminal import drawn, plain


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
    assert drawn(written) == shown


def test_the_marks_of_redrawn_lines_come_off() -> None:
    assert plain(drawn(b"1\r2\nx\n3\r4\n")) == b"2\nx\n4\n"


def test_lines_are_neither_made_nor_lost() -> None:
    block = b"a\rb\n\x1b[1m\n\b\n\r\n1\r\r2\n"
    assert drawn(block).count(b"\n") == block.count(b"\n")
