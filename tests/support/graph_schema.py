"""The schema of the API, built once in a process of the tests: that takes longer than most tests."""

from __future__ import annotations

from graph.schema import build_schema

SCHEMA = build_schema()
