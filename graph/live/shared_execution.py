"""One execution and one encoding for all subscribers that get the same event with the same selection and rights.

It sits below the resolvers, which stay generators of events. An event that may be shared carries a `Memo` as its
`memo`; the first subscriber to have it executed leaves the result there, encoded, for the others. The key holds
everything that the result depends on: the selection, the variables it uses, and the viewer's rights.

Also here: lists of plain numbers and of plain strings are completed as they are, without a visit to each item, and long
lists of objects and fields that wait let the event loop turn in between (live/turns.py).
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, TypeVar
from weakref import WeakMethod, WeakValueDictionary

import orjson
from graphql import (
    ExecutionResult,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLResolveInfo,
    GraphQLResolveInfoHelpers,
    GraphQLString,
    Visitor,
    is_composite_type,
    print_ast,
    visit,
)
from graphql.language import FieldNode, Node, VariableNode
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from db.errors import DatabaseUnavailable
from graph.live.turns import turns

Event = TypeVar("Event")
Value = TypeVar("Value")

NUMBERS = frozenset({GraphQLFloat.name, GraphQLInt.name, "Step"})
STRINGS = frozenset({GraphQLString.name, GraphQLID.name})
LONG_LIST = 25  # items; a shorter one is completed at a stretch


class Encoded(dict[str, Any]):
    """The data of a result, with their JSON made once."""

    __slots__ = ("text",)

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.text = orjson.dumps(data).decode()  # the bytes are not kept: orjson gives them room for a kilobyte or more


@dataclass(slots=True)
class Memo:
    """The results that the subscribers of one event share."""

    results: dict[Hashable, ExecutionResult] = field(default_factory=dict)


def dumps(value: object) -> str:
    """Encode an answer as text; data that are encoded already are copied."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()


def _plain(value: object) -> object:
    """Of the subclasses that orjson leaves to us: what is encoded already, and words of an enum."""
    if isinstance(value, Encoded):
        return orjson.Fragment(value.text)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def never(_text: bytes) -> bool:
    """Write nothing: it is to be sent the long way."""
    return False


@dataclass(slots=True)
class Feed:
    """The source of a subscription's events, below the layers that execute, extend and wrap each one.

    A transport that sets `wanted_feed` before it opens the stream may, after the first result, pull the events from
    here and ask for their shared text: those layers cost more than a delivery does. And they cost memory, so it may
    take the source from them and close the stream.
    """

    executor: ExecutionContext | None = None
    source: AsyncGenerator[object, None] | None = None
    send: Callable[[bytes], Awaitable[None]] | None = (
        None  # set by a transport that can be sent to without being pulled
    )
    write: Callable[[bytes], bool] = never  # by one that can be written to past its layers: whether it was, at once
    is_taken: bool = False

    def take(self) -> None:
        """Make the source the transport's to close: the stream closes without it."""
        self.is_taken = True

    def join(self, executors: WeakValueDictionary[Hashable, ExecutionContext]) -> None:
        """Use the executor of those who get the same, if there are any: one is enough for all of them."""
        assert self.executor is not None
        self.executor = executors.setdefault(self.executor.sharing_key, self.executor)

    @property
    def key(self) -> Hashable:
        """Equal for those who get the same text of an event."""
        assert self.executor is not None
        return self.executor.sharing_key

    async def text(self, event: object) -> bytes | None:
        """The encoded data of an event; None if it can't be shared."""
        assert self.executor is not None
        text = self.executor.shared_text(event) or await self.executor.text_of(event)
        return text.encode() if text is not None else None

    def observe(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """See each event before it is executed, for a transport that needs more of it than its result shows."""
        return events

    async def send_all(self, texts: Sequence[bytes]) -> None:
        """Send events as `text` made them."""
        assert self.send is not None
        for text in texts:
            await self.send(text)


class _Lent:
    """The source of a feed, as the layers above are given it: they close it, unless it was taken from them."""

    __slots__ = ("_feed", "_source")

    def __init__(self, source: AsyncGenerator[object, None], feed: Feed) -> None:
        self._source = source
        self._feed = feed

    def __aiter__(self) -> _Lent:
        return self

    def __anext__(self) -> Awaitable[object]:
        return self._source.__anext__()

    async def aclose(self) -> None:
        if not self._feed.is_taken:
            await self._source.aclose()


wanted_feed: ContextVar[Feed | None] = ContextVar("wanted_feed", default=None)


def observed(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """Let the transport of this subscription see its events (`Feed.observe`)."""
    feed = wanted_feed.get()
    return events if feed is None else feed.observe(events)


class ExecutionContext(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor, which looks into an event's memo first."""

    sharing_key: Hashable = None
    _is_of_event = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # Its own methods, kept by itself, are a cycle: what each request leaves would wait for the garbage collector,
        # and for that, now and then, every stream.
        self.async_helpers = GraphQLResolveInfoHelpers(
            gather=_weakly(self.gather_async_work), track=_weakly(self.track_async_work)
        )

    def cancellable_iterable(self, iterable: Any) -> Any:
        """Note the source of a subscription's events, for a transport that asked for it."""
        source: Any = super().cancellable_iterable(iterable)
        feed = wanted_feed.get()
        if feed is None:
            return source
        feed.executor, feed.source = self, source
        return _Lent(source, feed)

    def shared_text(self, event: object) -> str | None:
        """The encoded data of an event, if a subscriber with the same selection and rights had it executed."""
        memo: Memo | None = getattr(event, "memo", None)
        result = memo.results.get(self.sharing_key) if memo is not None else None
        return result.data.text if result is not None and isinstance(result.data, Encoded) else None

    async def text_of(self, event: object) -> str | None:
        """The encoded data of an event, executed now; None if it can't be shared."""
        made: Any = self.build_per_event_executor(event).execute_operation(False)
        result = await made if self.is_awaitable(made) else made
        return result.data.text if isinstance(result.data, Encoded) else None

    def build_per_event_executor(self, payload: Any) -> ExecutionContext:
        if self.sharing_key is None:
            self.sharing_key = self._make_sharing_key()
        made: ExecutionContext = super().build_per_event_executor(payload)  # type: ignore[assignment]  # a copy of self
        made._is_of_event = True
        # The copy would share the memo of collected fields, whose keys are objects made anew for each event: what
        # one event leaves there no other finds, and it would be kept for as long as the subscription lasts.
        made._relevant_sub_fields = {}
        return made

    def execute_operation(self, serially: bool | None = None) -> Any:
        memo: Memo | None = getattr(self.root_value, "memo", None)
        if memo is None:
            result: Any = super().execute_operation(serially)
            return self._patiently(result) if self._is_of_event and self.is_awaitable(result) else result
        found = memo.results.get(self.sharing_key)
        if found is not None:
            return found
        made: Any = super().execute_operation(serially)  # awaitable if one of its resolvers is
        if isinstance(made, ExecutionResult) and not made.errors and made.data is not None:
            made = memo.results[self.sharing_key] = ExecutionResult(Encoded(made.data))
        return made

    async def _patiently(self, made: Any) -> Any:
        """Execute an event again when the database was away in the midst of it: it was chosen, and comes only once."""
        result = await made
        while any(isinstance(error.original_error, DatabaseUnavailable) for error in result.errors or ()):
            await self.context_value.live.outage.answer()
            again = self.build_per_event_executor(self.root_value)
            again._is_of_event = False
            result = again.execute_operation(False)
            result = await result if self.is_awaitable(result) else result
        return result

    def execute_fields(
        self, parent_type: Any, source_value: Any, path: Any, grouped_field_set: Any, position_context: Any
    ) -> Any:
        turns.spend(len(grouped_field_set))
        return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)

    async def complete_awaitable_value(
        self,
        return_type: Any,
        field_details_list: Any,
        info: GraphQLResolveInfo[Any],
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        """Complete what a resolver waits for, and leave the rest of the turn to others where it is used up."""
        return await super().complete_awaitable_value(
            return_type, field_details_list, info, path, paced(result), position_context
        )

    def complete_list_value(
        self,
        return_type: GraphQLList[Any],
        field_details_list: Any,
        info: GraphQLResolveInfo[Any],
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        """Complete a list.

        One of plain numbers or strings is taken as it is: their serialisation would only return them, one by one. A
        long one of objects is completed in pieces; not in an event that is shared, which is small and encoded at once.
        """
        item = return_type.of_type
        nullable = not isinstance(item, GraphQLNonNull)
        scalar = item if nullable else item.of_type
        is_shared = getattr(self.root_value, "memo", None) is not None
        if type(result) is list and len(result) > LONG_LIST and is_composite_type(scalar) and not is_shared:
            return self.complete_async_iterator_value(
                item, field_details_list, info, path, _in_pieces(result), position_context
            )
        if type(result) is list and getattr(scalar, "name", None) in STRINGS and set(map(type, result)) <= {str}:
            return result
        if type(result) is list and getattr(scalar, "name", None) in NUMBERS:
            kinds, numbers = set(map(type, result)), result
            if nullable and NoneType in kinds:
                kinds.discard(NoneType)
                numbers = [number for number in result if number is not None]
            if kinds <= ({float} if scalar is GraphQLFloat else {int}) and all(map(math.isfinite, numbers)):
                return result
        return super().complete_list_value(return_type, field_details_list, info, path, result, position_context)

    def _make_sharing_key(self) -> Hashable:
        """The inputs of a result besides the event. The root field's arguments chose the event: they don't count."""
        parts: list[Node] = list(self.fragment_definitions.values())
        for node in self.operation.selection_set.selections:
            if isinstance(node, FieldNode):
                bare: tuple[Node | None, ...] = (node.alias, node.name, node.selection_set)
                parts.extend(part for part in bare if part is not None)
                parts.extend(node.directives or ())
            else:
                parts.append(node)
        names = set[str]()
        for part in parts:
            visit(part, _VariableNames(names))
        coerced = self.variable_values.coerced
        return (
            tuple(print_ast(part) for part in parts),
            tuple((name, repr(coerced.get(name))) for name in sorted(names)),
            getattr(self.context_value, "rights", None),
        )


async def paced(result: Awaitable[Value]) -> Value:
    if turns.is_over:
        await turns.pause()
    turns.spend(1)
    value = await result
    if turns.is_over:
        await turns.pause()
    return value


async def _in_pieces(items: list[Value]) -> AsyncGenerator[Value, None]:
    for each in items:
        if turns.is_over:
            await turns.pause()
        yield each


def _weakly(method: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    """The method of an object that lives for as long as it may be called, without keeping it alive."""
    kept = WeakMethod(method)

    def call(values: Sequence[Any]) -> Any:
        alive = kept()
        assert alive is not None
        return alive(values)

    return call


class _VariableNames(Visitor):
    """Collects the names of the variables that a piece of a document uses."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self._names = names

    def enter_variable(self, node: VariableNode, *_: object) -> None:
        self._names.add(node.name.value)
