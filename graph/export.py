"""`python -m graph.export`: print the schema, for graph/schema.graphql."""

from __future__ import annotations

import sys

from graph.schema import build_schema

if __name__ == "__main__":
    sys.stdout.write(build_schema().as_str() + "\n")
