"""Rows for the tests of this room, and a second pool of connections."""

from __future__ import annotations

from rows import other_engine, other_sessions, rows

__all__ = ["other_engine", "other_sessions", "rows"]
