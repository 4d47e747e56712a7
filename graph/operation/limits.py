"""Limits on an operation's text: its length, depth, aliases, directives, numbers.

Everything is counted in one walk that visits each fragment once, before the rules of the specification see the
document: so neither a cycle of fragments nor a fragment that doubles with every spread costs more than its text. The
cost of an operation depends on its variables too (complexity.py). A document that breaks a limit is refused with a
sentence that names the limit and the document's number; nothing of it is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    TokenKind,
)

from graph.errors import TooLarge

MOST_POINTS = 100_000  # of one curve in an answer: the most that `maxPoints` may ask for
CEILING = 10**9  # counts end here: what doubles with every fragment would fill pages with its digits


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one operation. The explorer's introspection has 200 tokens and a depth of 15, and costs 2,000."""

    characters: int = 65_536  # of the document; values travel as variables
    tokens: int = 1_500  # the rules of the specification take 0.2 s of CPU for the worst of them
    depth: int = 16  # fields within fields, leaves included
    aliases: int = 50
    fields: int = 2_000  # with each fragment as often as it is spread
    root_fields: int = 20
    directives: int = 50
    digits: int = 400  # of a number; a double written out has at most 309 before its point, Python reads 4,300
    cost: int = 10_000  # in objects to load, about: see complexity.py

    @property
    def parse_options(self) -> dict[str, int]:
        """The parser's own limit on tokens, which stops it before it has built a large document."""
        return {"max_source_length": self.characters, "max_tokens": self.tokens}


def breaches(document: DocumentNode, limits: Limits) -> Sequence[TooLarge]:
    """Say which limits a document breaks; none of them if it may be validated."""
    try:
        found = _Counts.of(document)
    except RecursionError:
        return [TooLarge("The operation's fragments are nested too deeply.")]
    asked = (
        ("levels of fields", found.depth, limits.depth),
        ("fields", found.fields, limits.fields),
        ("aliases", found.aliases, limits.aliases),
        ("root fields", found.root_fields, limits.root_fields),
        ("directives", found.directives, limits.directives),
        ("digits in a number", found.digits, limits.digits),
    )
    return [TooLarge(_sentence(what, count, limit)) for what, count, limit in asked if count > limit]


def _sentence(what: str, count: int, limit: int) -> str:
    more = "more than " if count >= CEILING else ""
    return f"An operation has at most {limit:,} {what}, and this one has {more}{count:,}."


@dataclass(frozen=True, slots=True)
class _Extent:
    """Of a selection with its fragments: the fields on its first level, its levels, and all of its fields."""

    width: int = 0
    depth: int = 0
    fields: int = 0


@dataclass(slots=True)
class _Counts:
    """Of a whole document. The fields and the depth are those of its biggest operation."""

    fragments: dict[str, FragmentDefinitionNode]
    aliases: int = 0
    directives: int = 0
    root_fields: int = 0
    depth: int = 0
    fields: int = 0
    digits: int = 0
    _extents: dict[str, _Extent] = field(default_factory=dict)

    @classmethod
    def of(cls, document: DocumentNode) -> _Counts:
        fragments = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
        counts = cls({node.name.value: node for node in fragments}, digits=_digits(document))
        for node in document.definitions:
            counts.directives += len(getattr(node, "directives", None) or ())
            if isinstance(node, OperationDefinitionNode):
                extent = counts._selected(node.selection_set)
                counts.root_fields = max(counts.root_fields, extent.width)
                counts.depth = max(counts.depth, extent.depth)
                counts.fields = max(counts.fields, extent.fields)
                counts.directives += sum(len(each.directives or ()) for each in node.variable_definitions or ())
        for name in counts.fragments:
            counts._spread(name)  # also those that no operation uses
        return counts

    def _selected(self, selections: SelectionSetNode | None) -> _Extent:
        width = depth = fields = 0
        for node in self._noted(selections.selections if selections is not None else ()):
            if isinstance(node, FieldNode):
                self.aliases += node.alias is not None
                inside = self._selected(node.selection_set)
                extent = _Extent(1, 1 + inside.depth, 1 + inside.fields)
            elif isinstance(node, FragmentSpreadNode):
                extent = self._spread(node.name.value)
            else:
                assert isinstance(node, InlineFragmentNode)
                extent = self._selected(node.selection_set)
            width = min(CEILING, width + extent.width)
            fields = min(CEILING, fields + extent.fields)
            depth = max(depth, extent.depth)
        return _Extent(width, depth, fields)

    def _noted(self, nodes: Iterable[Node]) -> Iterable[Node]:
        for node in nodes:
            self.directives += len(getattr(node, "directives", None) or ())
            yield node

    def _spread(self, name: str) -> _Extent:
        known = self._extents.get(name)
        if known is None:
            self._extents[name] = _Extent()  # while it is looked at: a cycle ends here, and a rule refuses it later
            fragment = self.fragments.get(name)
            known = self._selected(fragment.selection_set) if fragment is not None else _Extent()
            self._extents[name] = known
        return known


def _digits(document: DocumentNode) -> int:
    """Of its longest number."""
    token, most = document.loc.start_token if document.loc is not None else None, 0
    while token is not None:
        if token.kind in (TokenKind.INT, TokenKind.FLOAT):
            most = max(most, len(token.value or ""))
        token = token.next
    return most
