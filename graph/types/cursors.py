"""Cursors over the curve and the log of a simulation: opaque to clients.

Inside, of a curve (attempt, batch); of a log (attempt, batch, position), and the rank behind it for ranks above 0.
"""

from __future__ import annotations

from graph.errors import BadInput

LIMIT = 2**31  # attempts and positions are integers in Postgres; no attempt comes near as many batches


def decode(cursor: str | None) -> tuple[int, int]:
    """(attempt, batch); None is the beginning. Raises `BadInput` for what was never given out."""
    attempt, batch = _numbers(cursor, 2)
    return attempt, batch


def decode_position(cursor: str | None, rank: int = 0) -> tuple[int, int, int]:
    """(attempt, batch, position) in the log of a rank, likewise. Raises `BadInput` for a cursor of another rank."""
    attempt, batch, position, *of_rank = _numbers(cursor, 4 if rank else 3)
    if of_rank and cursor is not None and of_rank != [rank]:
        raise BadInput(f"This cursor belongs to the log of rank {of_rank[0]}, not of rank {rank}.")
    return attempt, batch, position


def encode_position(attempt: int, batch: int, position: int, rank: int = 0) -> str:
    """Make a cursor of the log of a rank."""
    return encode(attempt, batch, position, *([rank] if rank else []))


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
