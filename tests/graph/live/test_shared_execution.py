"""Shared execution and encoding: only among subscribers with equal selection, variables and rights."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import AsyncGeneratorType
from typing import Any

import pytest
from graph_schema import SCHEMA
from graphql import ExecutionResult
from graphql.execution.collect_fields import FieldDetails
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.execution import PreExecutionError

from db.events import Actor
from db.states import Role
from graph.auth.viewer import Viewer
from graph.context import Context
from graph.live.shared_execution import Encoded, ExecutionContext

World = Any  # the fixture of conftest.py

CURVE = "subscription ($id: ID!) { convergence(simulationId: $id) { cursor series { metric steps values } } }"
ADMIN = Viewer("ada", Role.ADMIN)
READER = Viewer("ben", Role.VIEWER)


class Executions(list[str]):
    """The names of those for whom an event was executed, and not found in its memo."""


@pytest.fixture
def executions(monkeypatch: pytest.MonkeyPatch) -> Executions:
    made = Executions()
    execute = StrawberryGraphQLCoreExecutionContext.execute_operation

    def note(self: Any, serially: bool | None = None) -> Any:
        if getattr(self.root_value, "memo", None) is not None:
            made.append(self.context_value.viewer.name)
        return execute(self, serially)

    monkeypatch.setattr(StrawberryGraphQLCoreExecutionContext, "execute_operation", note)
    return made


class Watcher:
    """A subscriber by the schema, which gets each event as it was executed for it."""

    def __init__(self, world: World, viewer: Viewer, query: str, variables: dict[str, Any]) -> None:
        state = world.api.server.lifespan.state
        context = Context(state["sessions"], world.api.settings, state["live"], Actor(viewer.name))
        context.admit(viewer)
        self._query, self._variables, self._context = query, variables, context
        self._events: Any = None

    async def next(self) -> ExecutionResult:
        if self._events is None:
            self._events = await SCHEMA.subscribe(
                self._query, variable_values=self._variables, context_value=self._context
            )
            assert not isinstance(self._events, ExecutionResult | PreExecutionError), self._events.errors
        async with asyncio.timeout(60):
            result = await anext(self._events)
        assert result.errors is None, result.errors
        return result  # type: ignore[no-any-return]

    async def leave(self) -> None:
        if self._events is not None:
            await self._events.aclose()


Asks = Sequence[tuple[Viewer, str, dict[str, Any]]]


async def told(world: World, executions: Executions, asks: Asks) -> list[Any]:
    """What each of them is given of one live batch; how often that was executed is noted from there on."""
    supervisor = await world.running()
    watchers = [
        Watcher(world, viewer, query, {"id": supervisor.simulation_id, **given}) for viewer, query, given in asks
    ]
    try:
        for watcher in watchers:
            await watcher.next()
        executions.clear()
        await supervisor.send({"loss": {"steps": [7], "values": ["NaN"], "elapsed": [0]}})
        return [(await watcher.next()).data for watcher in watchers]
    finally:
        for watcher in watchers:
            await watcher.leave()


async def test_the_same_selection_with_the_same_rights_is_executed_and_encoded_once(
    world: World, executions: Executions
) -> None:
    twin = Viewer("carl", Role.ADMIN)  # another person, who may see the same
    first, *others = await told(world, executions, [(viewer, CURVE, {}) for viewer in (ADMIN, ADMIN, twin)])
    assert len(executions) == 1
    assert isinstance(first, Encoded)
    assert all(other is first for other in others), "the very same object, with its text"
    assert json.loads(first.text)["convergence"]["series"] == [{"metric": "loss", "steps": [7], "values": [None]}]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(READER, id="another role"),
        pytest.param(Viewer("ada", Role.ADMIN, frozenset({1})), id="one project"),
        pytest.param(Viewer("ada", Role.ADMIN, frozenset({1, 2})), id="two projects"),
    ],
)
async def test_viewers_with_different_rights_never_share(world: World, executions: Executions, other: Viewer) -> None:
    asks = [(viewer, CURVE, {}) for viewer in (ADMIN, other, ADMIN, other)]
    mine, theirs, mine_again, theirs_again = await told(world, executions, asks)
    assert len(executions) == 2, "once for each kind of rights"
    assert mine is mine_again
    assert theirs is theirs_again
    assert mine is not theirs
    assert mine.text is not theirs.text, "nor what is encoded"
    assert mine == theirs


OTHERS: dict[str, tuple[str, Any]] = {
    "another selection": (
        "subscription ($id: ID!) { convergence(simulationId: $id) { cursor series { steps } } }",
        {"convergence": {"cursor": "1-1", "series": [{"steps": [7]}]}},
    ),
    "another order of fields": (
        "subscription ($id: ID!) { convergence(simulationId: $id) { series { steps } cursor } }",
        {"convergence": {"series": [{"steps": [7]}], "cursor": "1-1"}},
    ),
    "an alias within": (
        "subscription ($id: ID!) { convergence(simulationId: $id) { at: cursor series { metric steps values } } }",
        {"convergence": {"at": "1-1", "series": [{"metric": "loss", "steps": [7], "values": [None]}]}},
    ),
    "an alias of the field itself": (
        "subscription ($id: ID!) { it: convergence(simulationId: $id) { cursor series { metric steps values } } }",
        {"it": {"cursor": "1-1", "series": [{"metric": "loss", "steps": [7], "values": [None]}]}},
    ),
    "the same name for another fragment": (
        "subscription ($id: ID!) { convergence(simulationId: $id) { ...F } } "
        "fragment F on ConvergenceEvent { cursor attempt }",
        {"convergence": {"cursor": "1-1", "attempt": 1}},
    ),
}  # fmt: skip


async def test_another_selection_gets_its_own_execution(
    world: World, executions: Executions, subtests: pytest.Subtests
) -> None:
    """Each beside a subscriber with the plain selection."""
    plain = {"convergence": {"cursor": "1-1", "series": [{"metric": "loss", "steps": [7], "values": [None]}]}}
    for case, (query, expected) in OTHERS.items():
        with subtests.test(case):
            usual, other = await told(world, executions, [(ADMIN, CURVE, {}), (ADMIN, query, {})])
            assert len(executions) == 2
            assert json.loads(usual.text) == plain
            assert other.text == json.dumps(expected, separators=(",", ":")), "in the order asked for, too"


INCLUDED = (
    "subscription ($id: ID!, $with: Boolean!, $after: String) { convergence(simulationId: $id, after: $after) "
    "{ cursor series { steps values @include(if: $with) } } }"
)


async def test_the_variables_that_a_selection_uses_count_and_no_others(world: World, executions: Executions) -> None:
    asks = [
        (ADMIN, INCLUDED, {"with": True}), (ADMIN, INCLUDED, {"with": False}),
        (ADMIN, INCLUDED, {"with": True, "after": "0-0"}), (ADMIN, INCLUDED, {"with": False, "after": "0-0"}),
    ]  # fmt: skip
    whole, less, whole_again, less_again = await told(world, executions, asks)
    assert len(executions) == 2
    assert whole == {"convergence": {"cursor": "1-1", "series": [{"steps": [7], "values": [None]}]}}
    assert less == {"convergence": {"cursor": "1-1", "series": [{"steps": [7]}]}}
    assert whole_again is whole, "the start of a subscription does not matter at the end of the log"
    assert less_again is less


async def test_an_argument_that_chooses_the_events_is_not_shared_over(world: World, executions: Executions) -> None:
    """Those who asked for other metrics get other events, whatever their selections have in common."""
    filtered = (
        "subscription ($id: ID!, $metrics: [String!]) "
        "{ convergence(simulationId: $id, metrics: $metrics) { cursor series { metric steps values } } }"
    )
    asks = [(ADMIN, filtered, {"metrics": metrics}) for metrics in (["loss"], ["loss", "x"], None)]
    answers = await told(world, executions, asks)
    assert [len(answer["convergence"]["series"]) for answer in answers] == [1, 1, 1]
    assert len(executions) == 3


# --- memory ----------------------------------------------------------------------------------------------------------


def alive(kind: type, name: str = "") -> int:
    """How many objects of a type there are; of generators, of those with this name."""
    gc.collect()
    return sum(type(each) is kind and getattr(each, "__name__", "") == name for each in gc.get_objects())


async def test_subscribers_that_wait_have_one_executor_among_them_and_no_stream(world: World) -> None:
    supervisor = await world.running()
    executors, streams = alive(ExecutionContext), alive(AsyncGeneratorType, "_stream")
    async with AsyncExitStack() as of_others, AsyncExitStack() as of_first:
        people = []
        for stack in (of_first, of_others, of_others):
            subscription = world.api.subscribe(CURVE, {"id": supervisor.simulation_id})
            people.append(await stack.enter_async_context(subscription))
            await people[-1].next()
        await supervisor.loss(1)
        for person in people:
            assert (await person.next())["series"][0]["steps"] == [1]
        async with asyncio.timeout(60):
            while alive(ExecutionContext) > executors + 1:  # until the last of them waits
                await asyncio.sleep(0.005)
        assert alive(ExecutionContext) == executors + 1
        assert alive(AsyncGeneratorType, "_stream") == streams
        await of_first.aclose()  # whose executor it may be
        await supervisor.loss(2)
        for person in people[1:]:
            assert (await person.next())["series"][0]["steps"] == [2]


async def test_an_event_leaves_nothing_behind_in_its_subscription(world: World) -> None:
    supervisor = await world.running()
    watcher = Watcher(world, ADMIN, CURVE, {"id": supervisor.simulation_id})
    await watcher.next()
    kept = []
    for step in range(1, 5):
        await supervisor.loss(step)
        await watcher.next()
        kept.append(alive(FieldDetails))
    await watcher.leave()
    assert kept == [kept[0]] * 4


async def test_an_operation_leaves_nothing_to_the_garbage_collector(world: World) -> None:
    """Its pauses would hold up every stream."""
    state = world.api.server.lifespan.state
    query = "{ simulations { nodes { id name machine { name } } } }"

    def executors() -> int:
        return sum(type(each) is ExecutionContext for each in gc.get_objects())

    before = executors()
    gc.disable()
    try:
        for _ in range(3):
            context = Context(state["sessions"], world.api.settings, state["live"], Actor("ada"))
            context.admit(ADMIN)
            result = await SCHEMA.execute(query, context_value=context)
            assert result.errors is None
        del context, result
        await asyncio.sleep(0)
        assert executors() == before
    finally:
        gc.enable()
