"""Cursors over the log of a simulation: opaque to clients, (attempt, batch) or (attempt, batch, position) inside."""

from __future__ import annotations

from graph.errors import BadInput

LIMIT = 2**31  # attempts and positions are integers in Postgres; no attempt comes near as many batches


def decode(cursor: str | None) -> tuple[int, int]:
    """(attempt, batch); None is the beginning. Raises `BadInput` for what was never given out."""
    attempt, batch = _numbers(cursor, 2)
    return attempt, batch


def decode_position(cursor: str | None) -> tuple[int, int, int]:
    """(attempt, batch, position), likewise."""
    attempt, batch, position = _numbers(cursor, 3)
    return attempt, batch, position


def encode(*parts: int) -> str:
    """Make a cursor."""
    return "-".join(map(str, parts))


def _numbers(cursor: str | None, parts: int) -> list[int]:
    if cursor is None:
        return [0] * parts
    words = cursor.split("-")
    if len(words) != parts or not all(word.isascii() and word.isdecimal() and len(word) < 11 for word in words):
        raise BadInput("This cursor does not belong here: pass one that this field gave out.")
    numbers = [int(word) for word in words]
    if max(numbers) >= LIMIT:
        raise BadInput("This cursor does not belong here: pass one that this field gave out.")
    return numbers
