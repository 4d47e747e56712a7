"""Introspection, limited to viewers with a role. Others get neither introspection nor "Did you mean ...?" hints, which
would reveal the schema's names one by one."""

from __future__ import annotations

import re

from graphql import BREAK, DocumentNode, FieldNode, GraphQLError, Visitor, VisitorAction, visit

_SUGGESTION = re.compile(r" Did you mean .*", re.DOTALL)  # graphql-core appends it as the last sentence


def may_introspect(context: object) -> bool:
    """True if the viewer has a role, or for the service itself, which executes without a context."""
    viewer = getattr(context, "viewer", None)
    return viewer is None or viewer.role is not None


def introspects(document: DocumentNode) -> bool:
    """True if an operation or a fragment of a document selects `__schema` or `__type`; `__typename` is allowed."""
    search = _Search()
    visit(document, search)
    return search.found


def hide_suggestion(error: GraphQLError) -> None:
    """Take the suggestion out of an error, wherever it comes from: the values of variables get theirs at execution."""
    error.message = _SUGGESTION.sub("", error.message)


class _Search(Visitor):
    found = False

    def enter_field(self, node: FieldNode, *_: object) -> VisitorAction:
        if node.name.value in ("__schema", "__type"):
            self.found = True
            return BREAK
        return None
