"""Every document that the command line sends is valid in the exported schema."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphql import build_schema, parse, validate

from cli import documents

SCHEMA = build_schema((Path(__file__).parents[2] / "graph" / "schema.graphql").read_text())
DOCUMENTS = {name: each for name, each in vars(documents).items() if name.isupper() and not name.startswith("_")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_valid_in_the_exported_schema(name: str) -> None:
    assert validate(SCHEMA, parse(DOCUMENTS[name])) == []
