"""Every document that the command line sends is valid in the exported schema."""

from __future__ import annotations

from pathlib import Path

import pytest
from gql import GraphQLRequest
from graphql import build_schema, validate

from cli import documents

SCHEMA = Path(__file__).parents[2] / "graph" / "schema.graphql"
DOCUMENTS = {name: each for name, each in vars(documents).items() if isinstance(each, GraphQLRequest)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_valid_in_the_exported_schema(name: str) -> None:
    assert validate(build_schema(SCHEMA.read_text()), DOCUMENTS[name].document) == []
