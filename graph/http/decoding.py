"""JSON of clients: strict, and refused before it is parsed if parsing could hold the event loop for long.

orjson makes a whole document at once. A number costs 10 ns and a long string no more than its bytes, but an object or
a list costs 100 ns to make and free, and a string that is new 150 to 300 ns: two megabytes of nothing but `[[]]` took
60 to 90 ms. So they are counted first, which takes 2 ms. What is inside of strings counts for nothing: a log may
consist of brackets.

orjson makes a double of a whole number beyond 64 bits. Where a document has so many digits in a row, the standard
library parses it again and keeps them: an input that can't store such a number refuses it (types/inputs.py), as it
does in the operation's text. To look for digits costs 0.7 ns a byte, which reports of points are spared: those are
doubles.

Raises `orjson.JSONDecodeError` for what is no JSON, and `TooDense`, which is another ValueError.
"""

from __future__ import annotations

import json

import orjson

MOST_CONTAINERS = 100_000  # objects and lists: 10 ms; the largest report has 3,000, a command's parameters some 10,000
MOST_STRINGS = 60_000  # names of fields among them: 20 ms; the largest report has 5,000
REPORT = "reportAttempt"
LONG = b"0" * 19  # digits of the shortest whole number beyond 64 bits
AS_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))


class TooDense(ValueError):
    """A document of more objects, lists or strings than are parsed at once."""

    def __init__(self) -> None:
        super().__init__(
            f"At most {MOST_CONTAINERS:,} objects and lists, and {MOST_STRINGS:,} strings, are taken at once"
        )


def loads(text: bytes) -> object:
    """Parse one document."""
    if len(text) > MOST_STRINGS and _is_dense(text):
        raise TooDense
    decoded: object = orjson.loads(text)
    if _is_report(decoded) or LONG not in text.translate(AS_DIGITS):
        return decoded
    try:
        exact: object = json.loads(text.decode())  # of at most 309 digits: orjson refuses what no double holds
    except RecursionError:  # orjson goes deeper than inputs may be
        return decoded
    return exact


def _is_report(decoded: object) -> bool:
    """Whether a supervisor reports: its numbers are doubles, and steps that doubles hold."""
    query = decoded.get("query") if isinstance(decoded, dict) else None
    return isinstance(query, str) and REPORT in query


def _is_dense(text: bytes) -> bool:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # then every quotation mark is the border of a string
    if text.count(b'"') > 2 * MOST_STRINGS:
        return True
    if _containers(text) <= MOST_CONTAINERS:
        return False
    return _containers(b"".join(text.split(b'"')[::2])) > MOST_CONTAINERS


def _containers(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")
