"""Connections: keyset pages in the shape that the GraphQL Cursor Connections Specification gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import strawberry
from strawberry.relay import PageInfo

from db.pages import MAX_PAGE, Page
from graph.errors import BadInput

Node = TypeVar("Node")
Row = TypeVar("Row")


@strawberry.type(description="A row of a list, with its cursor.")
class Edge(Generic[Node]):
    cursor: str = strawberry.field(description="Pass it as `after` to continue behind this row.")
    node: Node


def size(first: int) -> int:
    """Return the requested number of rows. Raises `BadInput` outside of 1 to 500."""
    if not 1 <= first <= MAX_PAGE:
        raise BadInput(f"first must be from 1 to {MAX_PAGE}, got {first}.")
    return first


def edges(page: Page[Row], node: Callable[[Row], Node]) -> tuple[list[Edge[Any]], list[Node], PageInfo]:
    """Return the parts of every connection: (edges, nodes, pageInfo)."""
    nodes = [node(row) for row in page.rows]
    made = [Edge(cursor=cursor, node=each) for cursor, each in zip(page.cursors, nodes, strict=True)]
    info = PageInfo(
        has_next_page=page.has_next,
        has_previous_page=False,  # pages are read forwards: the specification allows false where it is not known
        start_cursor=page.cursors[0] if page.cursors else None,
        end_cursor=page.cursors[-1] if page.cursors else None,
    )
    return made, nodes, info
