"""The convergence subscription: the past, then live, in order, exactly once, to the end, under failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from functools import partial
from typing import Any

import pytest
from live import eventually
from sqlalchemy.ext.asyncio import AsyncEngine

from db import convergence
from db.connection import session_factory
from db.public_ids import encode

World = Any  # the fixtures of conftest.py
Api = Any
Serve = Any
Statements = Any
WaitUntil = Any

CURVE = """
subscription Curve($id: ID!, $metrics: [String!], $after: String) {
  convergence(simulationId: $id, metrics: $metrics, after: $after) {
    cursor attempt live state reason series { metric steps values elapsed supersedesFrom }
  }
}
"""


def curve(events: list[Any], metric: str = "loss") -> list[int]:
    """The steps of a metric, as a client keeps them."""
    steps: list[int] = []
    for event in events:
        for series in event["series"]:
            if series["metric"] == metric:
                if series["supersedesFrom"] is not None:
                    steps = [step for step in steps if step < series["supersedesFrom"]]
                steps += series["steps"]
    return steps


def points(metric: str, *steps: int) -> dict[str, Any]:
    return {metric: {"steps": list(steps), "values": [1.0] * len(steps), "elapsed": [0.5] * len(steps)}}


async def listen_to(api: Api, simulation_id: str, **given: Any) -> list[Any]:
    """Every event to the end."""
    async with api.subscribe(CURVE, {"id": simulation_id, **given}) as events:
        return list(await events.all())


async def test_the_past_comes_first_then_what_is_live_then_the_final_state(world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(1, 2)
    await supervisor.loss(3)
    async with world.api.subscribe(CURVE, {"id": supervisor.simulation_id}) as events:
        past = [await events.next(), await events.next()]
        await supervisor.loss(4)
        live = await events.next()
        await supervisor.exit()
        rest = await events.all()
    assert [event["cursor"] for event in (*past, live)] == ["1-2", "1-2", "1-3"]
    assert [event["live"] for event in (*past, live)] == [False, True, True]
    assert past[1]["series"] == [], "nothing new: it only says that the past is over"
    assert past[0]["series"] == [
        {
            "metric": "loss",
            "steps": [1, 2, 3],
            "values": [1 / 2, 1 / 3, 1 / 4],
            "elapsed": [0.1, 0.2, 0.3],
            "supersedesFrom": None,
        }
    ]
    assert {(event["state"], event["reason"], event["attempt"]) for event in (*past, live)} == {("RUNNING", None, 1)}
    assert curve([*past, live, *rest]) == [1, 2, 3, 4]
    assert (rest[-1]["state"], rest[-1]["reason"], rest[-1]["series"]) == ("FINISHED", "COMPLETED", [])


async def test_every_change_of_state_is_told(world: World) -> None:
    simulation = await world.simulation()
    async with world.api.subscribe(CURVE, {"id": simulation}) as events:
        assert (await events.next())["state"] == "QUEUED"
        supervisor = await world.attempt(simulation)
        assert (await events.next())["state"] == "STARTING"
        await supervisor.hello()
        assert (await events.next())["state"] == "RUNNING"
        await supervisor.send({"loss": {"steps": [1], "values": [1], "elapsed": [1]}}, exit={"exitCode": 1})
        rest = await events.all()
    assert curve(rest) == [1]
    assert [event["state"] for event in rest] == ["FAILED"] * len(rest)
    assert rest[-1]["reason"] == "EXIT_CODE"


async def test_what_has_ended_is_told_whole_and_completes(world: World) -> None:
    supervisor = await world.running()
    for number in range(70):  # more than are read at once
        await supervisor.loss(number)
    await supervisor.exit()
    events = await listen_to(world.api, supervisor.simulation_id)
    assert curve(events) == list(range(70))
    assert [event["cursor"] for event in events] == ["1-64", "1-70", "1-70"], "small batches of the past come together"
    assert {event["state"] for event in events} == {"FINISHED"}
    cancelled = await listen_to(world.api, await world.in_state("CANCELLED"))
    assert [(event["state"], event["cursor"], event["series"]) for event in cancelled] == [("CANCELLED", "0-0", [])]


async def test_it_is_resumed_behind_every_cursor_without_a_hole_or_a_double(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.types.convergence.MOST_JOINED", 1)
    first = await world.running(limits={"maxRetries": 1})
    for number in range(3):
        await first.loss(number)
    await world.lose(first)
    second = await world.running(first.simulation_id)
    for number in range(2, 5):
        await second.loss(number)
    await second.exit()
    whole = await listen_to(world.api, first.simulation_id)
    batches = [event for event in whole if event["series"]]
    assert [event["cursor"] for event in batches] == ["1-1", "1-2", "1-3", "2-1", "2-2", "2-3"]
    for number, event in enumerate(batches):
        resumed = await listen_to(world.api, first.simulation_id, after=event["cursor"])
        assert [each for each in resumed if each["series"]] == batches[number + 1 :]
        assert (resumed[-1]["state"], resumed[-1]["cursor"]) == ("FINISHED", "2-3")


async def test_only_the_metrics_asked_for_are_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.types.convergence.MOST_JOINED", 1)
    supervisor = await world.running()
    column = {"steps": [1], "values": [1], "elapsed": [1]}
    await supervisor.send({"a": column, "b": column, "c": column})
    await supervisor.send({"b": column})
    await supervisor.send({"a": {**column, "steps": [2]}})
    await supervisor.exit()
    sent = {
        metrics: [
            (event["cursor"], [series["metric"] for series in event["series"]])
            for event in await listen_to(world.api, supervisor.simulation_id, metrics=metrics and list(metrics))
            if event["series"]
        ]
        for metrics in (None, ("a",), ("c", "b"), ("unknown",), ())
    }
    assert sent == {
        None: [("1-1", ["a", "b", "c"]), ("1-2", ["b"]), ("1-3", ["a"])],
        ("a",): [("1-1", ["a"]), ("1-3", ["a"])],
        ("c", "b"): [("1-1", ["b", "c"]), ("1-2", ["b"])],
        ("unknown",): [],
        (): [],
    }


async def test_subscribers_with_other_selections_get_each_their_own(world: World) -> None:
    """At the end of the log they may share an execution, but only with those who asked for the same."""
    supervisor = await world.running()
    queries = {
        "whole": CURVE,
        "aliased": "subscription ($id: ID!) { convergence(simulationId: $id) { now: state series { x: steps } } }",
        "skipped": "subscription ($id: ID!, $no: Boolean! = false) "
        "{ convergence(simulationId: $id) { state series { steps values @include(if: $no) } } }",
        "included": "subscription ($id: ID!, $no: Boolean! = true) "
        "{ convergence(simulationId: $id) { state series { steps values @include(if: $no) } } }",
    }

    async def first_points(query: str) -> Any:
        async with world.api.subscribe(query, {"id": supervisor.simulation_id}) as events:
            await events.next()
            there.release()
            return (await events.next())["series"][0]

    there = asyncio.Semaphore(0)
    waiting = {name: asyncio.create_task(first_points(query)) for name, query in queries.items()}
    async with asyncio.timeout(60):
        for _ in waiting:
            await there.acquire()
    await supervisor.loss(1)
    got = {name: await task for name, task in waiting.items()}
    assert got["whole"]["values"] == [0.5]
    assert (got["aliased"], got["skipped"]) == ({"x": [1]}, {"steps": [1]})
    assert got["included"] == {"steps": [1], "values": [0.5]}


async def test_what_is_not_finite_is_null_in_the_past_and_live(world: World) -> None:
    supervisor = await world.running()
    diverging = {"loss": {"steps": [1, 2, 2**53], "values": ["NaN", 1.5, "-Infinity"], "elapsed": [0, 0, 0]}}
    async with world.api.subscribe(CURVE, {"id": supervisor.simulation_id}) as events:
        await events.next()
        await supervisor.send(diverging)
        live = await events.next()
    await supervisor.exit()
    (past, _) = await listen_to(world.api, supervisor.simulation_id)
    for event in (live, past):
        assert (event["series"][0]["values"], event["series"][0]["steps"]) == ([None, 1.5, None], [1, 2, 2**53])


async def test_a_retry_says_from_which_step_on_it_supersedes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.types.convergence.MOST_JOINED", 1)
    column = {"steps": [1, 2, 3], "values": [3, 2, 1], "elapsed": [1, 2, 3]}
    first = await world.running(limits={"maxRetries": 3})
    await first.send({"loss": column, "accuracy": column})
    async with world.api.subscribe(CURVE, {"id": first.simulation_id}) as events:
        await events.next()
        await world.lose(first)
        second = await world.running(first.simulation_id)
        await second.loss(2)
        await second.send({"accuracy": {**column, "steps": [3, 4, 5]}})
        await second.loss(3, 4)
        await second.exit()
        live = [event for event in await events.all() if event["series"]]
    past = [event for event in await listen_to(world.api, first.simulation_id) if event["series"]]
    said = [(event["cursor"], each["metric"], each["supersedesFrom"]) for event in past for each in event["series"]]
    assert said == [
        ("1-1", "accuracy", None), ("1-1", "loss", None),
        ("2-1", "loss", 2), ("2-2", "accuracy", 3), ("2-3", "loss", None),
    ]  # fmt: skip
    assert [event["series"] for event in live] == [event["series"] for event in past[1:]]
    assert curve(past) == [1, 2, 3, 4]
    assert curve(past, "accuracy") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("directly", [False, True])
async def test_what_can_not_be_watched_is_refused_in_a_sentence(
    world: World, directly: bool, subtests: pytest.Subtests
) -> None:
    simulation = await world.simulation()
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "a simulation that there is not": ({"id": encode("Simulation", 999)}, "NOT_FOUND"),
        "the id of another type": ({"id": encode("Machine", 1)}, "BAD_USER_INPUT"),
        "an id that is none": ({"id": "nonsense"}, "BAD_USER_INPUT"),
        "a cursor of another list": ({"id": simulation, "after": "1-1-1"}, "BAD_USER_INPUT"),
        "an empty cursor": ({"id": simulation, "after": ""}, "BAD_USER_INPUT"),
        "a cursor below zero": ({"id": simulation, "after": "-1-1"}, "BAD_USER_INPUT"),
        "a cursor beyond every number": ({"id": simulation, "after": "1-99999999999"}, "BAD_USER_INPUT"),
        "a cursor beyond an integer": ({"id": simulation, "after": f"{2**31}-1"}, "BAD_USER_INPUT"),
        "a cursor in other digits": ({"id": simulation, "after": "١-١"}, "BAD_USER_INPUT"),
        "too many metrics": ({"id": simulation, "metrics": ["m"] * 1_001}, "BAD_USER_INPUT"),
    }
    for case, (given, code) in cases.items():
        with subtests.test(case):
            async with contextlib.AsyncExitStack() as stack:
                if directly:
                    first = anext(world.api.subscribe_directly(CURVE, given))
                else:
                    first = (await stack.enter_async_context(world.api.subscribe(CURVE, given))).next()
                with pytest.raises(Exception, match=code) as refused:
                    await first
            (error,) = refused.value.errors  # type: ignore[attr-defined]
            assert error["extensions"]["code"] == code


async def test_a_simulation_deleted_while_it_is_watched_is_no_longer_found(world: World) -> None:
    simulation = await world.simulation()
    async with world.api.subscribe(CURVE, {"id": simulation}) as events:
        await events.next()
        await world.select("DELETE FROM simulations")
        await world.select("SELECT pg_notify('simulations', '1')")
        with pytest.raises(Exception, match="NOT_FOUND"):
            await events.next()


async def test_a_database_that_goes_away_between_a_state_and_its_points_takes_neither(
    only_hints: None, world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state was read, and what is before it was not: it is not announced a second time."""
    supervisor = await world.running()
    async with world.api.subscribe(CURVE, {"id": supervisor.simulation_id}) as events:
        await events.next()
        read = convergence.read
        failures = iter([OSError("gone")])

        async def fail_once(*given: Any, **named: Any) -> Any:
            for failure in failures:
                raise failure
            return await read(*given, **named)

        supervisor.api = await serve()
        monkeypatch.setattr(convergence, "read", fail_once)
        await supervisor.exit()
        last = (await events.all())[-1]
    assert next(failures, None) is None
    assert last["state"] == "FINISHED"


# --- falling behind, sharing, leaving --------------------------------------------------------------------------


async def test_a_slow_subscriber_misses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.live.tail.TAIL_BATCHES", 4)
    monkeypatch.setattr("graph.live.tail.PAGE_BATCHES", 3)
    supervisor = await world.running()
    slow = world.api.subscribe_directly(CURVE, {"id": supervisor.simulation_id})
    fast = world.api.subscribe_directly(CURVE, {"id": supervisor.simulation_id})
    got_slowly, got_fast = [await anext(slow)], [await anext(fast)]
    for number in range(30):
        await supervisor.loss(number)
        got_fast.append(await anext(fast))
        if number % 11 == 10:
            got_slowly.append(await anext(slow))
    await supervisor.exit()
    got_slowly += [event async for event in slow]
    got_fast += [event async for event in fast]
    assert curve(got_slowly) == curve(got_fast) == list(range(30))
    assert len(got_slowly) < len(got_fast)
    assert got_slowly[-1]["state"] == got_fast[-1]["state"] == "FINISHED"
    assert all(event["live"] for event in got_fast)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The cursors behind which a log was read."""
    behind: list[tuple[int, int]] = []
    read = convergence.read

    async def note(session: Any, simulation_id: int, after: tuple[int, int], *, limit: int) -> Any:
        behind.append(after)
        return await read(session, simulation_id, after, limit=limit)

    monkeypatch.setattr(convergence, "read", note)
    return behind


@pytest.mark.parametrize("through", ["this process", "another one"])
async def test_twenty_subscribers_cost_one_read_per_batch_at_most(
    only_hints: None,
    world: World,
    serve: Serve,
    engine: AsyncEngine,
    statements: Statements,
    wait_until: WaitUntil,
    reads: list[tuple[int, int]],
    through: str,
) -> None:
    """What this process has committed itself, it does not read again."""
    api = await serve(session_factory(engine))
    supervisor = await world.running()
    supervisor.api = api if through == "this process" else await serve()
    await supervisor.loss(0)
    variables = {"id": supervisor.simulation_id}
    subscribers = [api.subscribe_directly(CURVE, variables) for _ in range(20)]
    for events in subscribers:
        assert not (await anext(events))["live"]
        assert (await anext(events))["live"]
    waiting = [asyncio.create_task(anext(events)) for events in subscribers]
    (tail,) = api.hub._tails.values()
    reads.clear()
    for number in range(1, 4):
        await wait_until(lambda: len(tail.pulse.next._waiters) == 20, "all are at the end of the log")
        with statements.of(engine):
            await supervisor.loss(number)
            got = await asyncio.gather(*waiting)
        assert [curve([event]) for event in got] == [[number]] * 20
        assert len(statements.matching("FROM simulations WHERE id")) <= 1
        statements.clear()
        waiting = [asyncio.create_task(anext(events)) for events in subscribers]
    # One more: the hint of the batch before all of them may still have been on its way.
    assert len(reads) <= (0 if through == "this process" else 3 + 1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_a_process_commits_between_what_others_do_comes_in_its_place(
    only_hints: None, world: World, serve: Serve
) -> None:
    """Through one process and the other, with a log in between, and over a retry that brings a metric later.

    What is the first of its metric in a later attempt must be read, and not taken as it was given: else it would not
    say what it supersedes.
    """
    here, elsewhere = world.api, await serve()
    supervisor = await world.running()
    here_events, there_events = (
        api.subscribe_directly(CURVE, {"id": supervisor.simulation_id}) for api in (here, elsewhere)
    )
    got: list[list[Any]] = [[await anext(here_events)], [await anext(there_events)]]

    async def told(count: int) -> None:
        for events, kept in zip((here_events, there_events), got, strict=True):
            while sum(bool(event["series"]) for event in kept) < count:
                kept.append(await anext(events))

    for number in range(12):
        supervisor.api = here if number % 3 else elsewhere
        if number == 5:
            await supervisor.send(logs=[{"stream": "STDOUT", "text": "in between\n"}])
        await supervisor.loss(number)
        await told(number + 1)
    await world.lose(supervisor)
    second = await world.running(supervisor.simulation_id)
    await second.loss(6)
    await second.send({**points("loss", 7), **points("other", 0)})
    await told(14)
    await second.send({**points("loss", 8), **points("other", 1)})
    await told(15)
    await second.exit()
    for events, kept in zip((here_events, there_events), got, strict=True):
        kept += [event async for event in events]
        assert curve(kept) == [*range(6), 6, 7, 8]
        assert curve(kept, "other") == [0, 1]
        told_of = [
            (s["metric"], s["supersedesFrom"]) for event in kept if event["attempt"] == 2 for s in event["series"]
        ]
        assert told_of == [("loss", 6), ("loss", None), ("other", 0), ("loss", None), ("other", None)]


async def test_a_subscriber_that_leaves_frees_the_tail(world: World, wait_until: WaitUntil) -> None:
    supervisor = await world.running()
    variables = {"id": supervisor.simulation_id}
    tails = world.api.hub._tails
    async with world.api.subscribe(CURVE, variables) as stays:
        await stays.next()
        async with world.api.subscribe(CURVE, variables) as leaves:
            await leaves.next()
            assert [tail.subscribers for tail in tails.values()] == [2]
        await wait_until(lambda: [tail.subscribers for tail in tails.values()] == [1], "one has left")

        async with world.api.subscribe(CURVE, variables) as breaks:
            await breaks.next()
            breaks._socket.transport.abort()
            await wait_until(lambda: [tail.subscribers for tail in tails.values()] == [1], "one broke off")

        async with world.api.subscribe(CURVE, variables) as completes:
            await completes.next()
            await completes._socket.send('{"id": "1", "type": "complete"}')
            await wait_until(lambda: [tail.subscribers for tail in tails.values()] == [1], "one has had enough")

        await supervisor.exit()
        await stays.all()
        await wait_until(lambda: tails == {}, "the end frees it too")
    async with world.api.subscribe(CURVE, {"id": encode("Simulation", 999)}) as refused:
        with pytest.raises(Exception, match="NOT_FOUND"):
            await refused.next()
    await wait_until(lambda: tails == {}, "a refusal frees it too")


async def test_a_subscriber_that_stops_reading_can_be_left_behind(world: World, wait_until: WaitUntil) -> None:
    """Its socket is full: the server waits for it, holds nothing for it but its cursor, and lets go when it breaks."""
    supervisor = await world.running()
    steps = list(range(10_000))
    wide = {"loss": {"steps": steps, "values": [1.23456789] * 10_000, "elapsed": [0.123456789] * 10_000}}
    async with world.api.subscribe(CURVE, {"id": supervisor.simulation_id}) as stuck:
        await stuck.next()
        stuck._socket.transport.pause_reading()
        for number in range(40):  # what fills the buffers on the way
            payload = {"query": CURVE, "variables": {"id": supervisor.simulation_id}}
            await stuck._socket.send(json.dumps({"id": f"more {number}", "type": "subscribe", "payload": payload}))
        await wait_until(lambda: [tail.subscribers for tail in world.api.hub._tails.values()] == [41], "all are there")
        await supervisor.send(wide)
        await supervisor.loss(10**5)
        async with world.api.subscribe(CURVE, {"id": supervisor.simulation_id, "after": "1-1"}) as other:
            got = [await other.next()]
            while not curve(got):  # where it stands may be told before what has just been stored
                got.append(await other.next())
            assert curve(got) == [10**5]
        stuck._socket.transport.abort()
    await wait_until(lambda: world.api.hub._tails == {}, "both have gone")


async def test_the_schema_itself_yields_what_the_socket_carries(world: World) -> None:
    first = await world.running(limits={"maxRetries": 1})
    await first.send({"loss": {"steps": [1, 2], "values": [1, "NaN"], "elapsed": [0, 0]}})
    await world.lose(first)
    second = await world.running(first.simulation_id)
    await second.loss(1, 2)
    await second.exit()
    variables = {"id": first.simulation_id}
    directly = [event async for event in world.api.subscribe_directly(CURVE, variables)]
    assert directly == await listen_to(world.api, first.simulation_id)
    assert curve(directly) == [1, 2]


# --- several processes, and hints that don't come --------------------------------------------------------------


async def test_what_one_process_stores_another_delivers(only_hints: None, world: World, serve: Serve) -> None:
    other = await serve()
    simulation = await world.simulation()
    async with other.subscribe(CURVE, {"id": simulation}) as events:
        assert (await events.next())["state"] == "QUEUED"
        supervisor = await world.running(simulation)
        got = [await events.next()]
        for number in range(5):
            await supervisor.loss(number)
            while curve(got) != list(range(number + 1)):
                got.append(await events.next())
        await supervisor.exit()
        got += await events.all()
    assert curve(got) == list(range(5))
    assert got[-1]["state"] == "FINISHED"


async def test_without_notifications_everything_works_by_timer(world: World, serve: Serve, only_timers: None) -> None:
    here, there = await serve(notifications=False), await serve(notifications=False)
    simulation = await world.simulation()
    async with there.subscribe(CURVE, {"id": simulation}) as events:
        assert (await events.next())["state"] == "QUEUED"
        supervisor = await world.running(simulation)
        supervisor.api = here
        for number in range(3):
            await supervisor.loss(number)
        got = [await events.next()]
        while curve(got) != [0, 1, 2]:
            got.append(await events.next())
        await supervisor.exit()
        assert [event["state"] for event in await events.all()][-1] == "FINISHED"
    assert here.live.notifications._committed == set(), "nothing is kept for announcements that are never made"


LISTENERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE '%LISTEN%'"


async def test_a_listen_connection_that_is_killed_loses_nothing(
    only_hints: None, world: World, serve: Serve, wait_until: WaitUntil
) -> None:
    supervisor = await world.running()
    before = set(await world.select(LISTENERS))
    other = await serve()
    listening: list[Any] = []

    async def listens_again(*, not_by: set[Any] = before) -> bool:
        listening[:] = set(await world.select(LISTENERS)) - not_by
        return bool(listening)

    await eventually(listens_again, "the process listens")
    async with other.subscribe(CURVE, {"id": supervisor.simulation_id}) as events:
        await events.next()
        got: list[Any] = []
        for number in range(2):
            ((pid,),) = listening
            await world.select("SELECT pg_terminate_backend(:pid)", pid=pid)
            await supervisor.loss(number)
            while curve(got) != list(range(number + 1)):
                got.append(await events.next())
            await eventually(partial(listens_again, not_by=before | {(pid,)}), "it listens again")
        await supervisor.exit()
        got += await events.all()
    assert curve(got) == [0, 1]
    assert got[-1]["state"] == "FINISHED"


async def test_readers_that_come_and_go_on_two_processes_each_get_every_point_once(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.live.tail.TAIL_BATCHES", 8)
    monkeypatch.setattr("graph.live.tail.PAGE_BATCHES", 4)
    apis = (world.api, await serve())
    supervisor = await world.running(limits={"maxRetries": 1})
    simulation, chance = supervisor.simulation_id, random.Random(20)

    async def read(patience: list[int]) -> list[int]:
        got: list[Any] = []
        after = None
        for events_to_take in [*patience, 10**6]:
            events = chance.choice(apis).subscribe_directly(CURVE, {"id": simulation, "after": after})
            async for event in events:
                got.append(event)
                after = event["cursor"]
                if len(got) % 7 == 0:
                    await asyncio.sleep(0.001)  # falls behind
                if event["state"] == "FINISHED" and not event["series"]:
                    return curve(got)
                events_to_take -= 1
                if not events_to_take:
                    break
            await events.aclose()
        raise AssertionError("the subscription ended without a final state")

    readers = [asyncio.create_task(read([chance.randint(1, 12) for _ in range(4)])) for _ in range(8)]
    for number in range(60):
        if number == 30:
            await world.lose(supervisor)
            supervisor = await world.running(simulation)
        supervisor.api = apis[number % 2]
        await supervisor.loss(number if number < 30 else number - 5)
    await supervisor.exit()
    for steps in await asyncio.gather(*readers):
        assert steps == list(range(55))
    assert all(api.hub._tails == {} for api in apis)
