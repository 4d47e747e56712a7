"""What a resolver sees of its operation's selection: by path, through fragments, after @skip and @include."""

from __future__ import annotations

import pytest
import strawberry

from graph.operation.selection import selects


@strawberry.type
class Inner:
    steps: int = 1
    elapsed: int = 2


@strawberry.type
class Outer:
    cursor: str = ""
    curve: Inner = strawberry.field(default_factory=Inner)


found: list[bool] = []


@strawberry.type
class Query:
    @strawberry.field
    def outer(self, info: strawberry.Info) -> Outer:
        found.append(selects(info, "curve", "elapsed"))
        return Outer()


SCHEMA = strawberry.Schema(Query)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("{ cursor curve { steps elapsed } }", True),
        ("{ cursor curve { steps } }", False),
        ("{ cursor }", False),
        ("{ curve { seconds: elapsed } }", True),
        ("{ first: curve { steps } curve { elapsed steps } }", True),
        ("{ curve { elapsed @include(if: $no) } }", False),
        ("{ curve { elapsed @include(if: $yes) } }", True),
        ("{ curve { elapsed @skip(if: true) } }", False),
        ("{ curve @skip(if: $yes) { elapsed } }", False),
        ("{ curve { ...Part } }", True),
        ("{ curve { ... on Inner @include(if: $no) { elapsed } } }", False),
        ("{ ... { curve { ... on Inner { elapsed } } } }", True),
    ],
)
def test_a_field_is_selected(selection: str, expected: bool) -> None:
    document = f"""
    query Asked($yes: Boolean! = true, $no: Boolean! = false) {{
      outer {selection} unused: outer {{ curve {{ steps @skip(if: $no) @include(if: $yes) ...Part @skip(if: true) }} }}
    }}
    fragment Part on Inner {{ elapsed }}
    """
    found.clear()
    result = SCHEMA.execute_sync(document)
    assert result.errors is None
    assert found == [expected, False]
