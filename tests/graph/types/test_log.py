"""The log of a simulation: pages of it, and its live end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import logs
from db.connection import session_factory
from db.public_ids import decode, encode

World = Any  # the fixtures of conftest.py
Serve = Any
Statements = Any
WaitUntil = Any

LOGS = """
subscription Logs($id: ID!, $after: String) {
  logs(simulationId: $id, after: $after) { cursor attempt stream text receivedAt }
}
"""
PAGE = """
query Page($id: ID!, $first: Int! = 100, $after: String) {
  simulation(id: $id) {
    logs(first: $first, after: $after) {
      nodes { cursor attempt stream text } pageInfo { hasNextPage startCursor endCursor }
    }
  }
}
"""


def log(*texts: str, stream: str = "STDOUT") -> list[dict[str, str]]:
    return [{"stream": stream, "text": text} for text in texts]


def texts(chunks: list[Any]) -> list[str]:
    return [chunk["text"] for chunk in chunks]


async def test_the_past_comes_first_then_what_is_live_to_the_end(world: World) -> None:
    supervisor = await world.running()
    await supervisor.send(logs=[*log("a\n", "b\n"), *log("c\n", stream="STDERR")])
    async with world.api.subscribe(LOGS, {"id": supervisor.simulation_id}) as chunks:
        past = [await chunks.next() for _ in range(3)]
        await supervisor.loss(1)
        await supervisor.send(logs=log("d\n", "ünïcode €\n"))
        live = [await chunks.next() for _ in range(2)]
        await supervisor.exit(logs=log("last words", stream="SUPERVISOR"))
        rest = await chunks.all()
    whole = [*past, *live, *rest]
    assert texts(whole) == ["a\n", "b\n", "c\n", "d\n", "ünïcode €\n", "last words"]
    assert [chunk["stream"] for chunk in whole] == ["STDOUT"] * 2 + ["STDERR"] + ["STDOUT"] * 2 + ["SUPERVISOR"]
    assert len({chunk["cursor"] for chunk in whole}) == 6


SEARCH = """
query Search($id: ID!, $contains: String!, $first: Int! = 100, $after: String) {
  simulation(id: $id) {
    logs(first: $first, after: $after, contains: $contains) {
      nodes { cursor attempt stream text ansi: text(ansi: true) } pageInfo { hasNextPage endCursor }
    }
  }
}
"""


async def test_a_log_is_searched_by_the_service(world: World) -> None:
    first = await world.running(limits={"maxRetries": 1})
    await first.send(logs=[*log("epoch 1\nLOSS: 0.5\nepoch 2"), *log("nothing here"), *log("a loss", stream="STDERR")])
    await first.send(logs=log("10% loss=3\n\r20% loss=2", "the l\x1b[31mos\x1b[0ms in red\nplain", "ÄRGER\n100 %_\\d"))
    await world.lose(first)
    second = await world.running(first.simulation_id)
    await second.send(logs=log("Loss again"))

    async def found(sought: str, **more: Any) -> list[tuple[int, str, str]]:
        variables = {"id": first.simulation_id, "contains": sought, **more}
        nodes = (await world.api.data(SEARCH, variables))["logs"]["nodes"]
        return [(node["attempt"], node["stream"], node["text"]) for node in nodes]

    assert await found("loss") == [
        (1, "STDOUT", "LOSS: 0.5"),
        (1, "STDERR", "a loss"),
        (1, "STDOUT", "10% loss=3\n20% loss=2"),
        (1, "STDOUT", "the loss in red"),
        (2, "STDOUT", "Loss again"),
    ]
    assert await found("LOSS: ") == [(1, "STDOUT", "LOSS: 0.5")]
    assert await found("[31m") == [], "colours are no text"
    assert await found("0 %_\\D") == [(1, "STDOUT", "100 %_\\d")], "no character has a meaning of its own"
    assert await found("ÄRGER") == await found("Ärger") == [(1, "STDOUT", "ÄRGER")]
    assert await found("ärger") == [], "of ASCII letters alone"
    assert await found("epoch 1 LOSS") == [], "a line ends it"
    # Behind each cursor, of a match or of any other chunk, comes the rest.
    whole = (await world.api.data(SEARCH, {"id": first.simulation_id, "contains": "loss"}))["logs"]["nodes"]
    for number, node in enumerate(whole):
        assert await found("loss", after=node["cursor"]) == [
            (each["attempt"], each["stream"], each["text"]) for each in whole[number + 1 :]
        ]
    assert whole[3]["ansi"] == "the l\x1b[31mos\x1b[0ms in red"
    page = (await world.api.data(SEARCH, {"id": first.simulation_id, "contains": "loss", "first": 2}))["logs"]
    assert page["pageInfo"] == {"hasNextPage": True, "endCursor": whole[1]["cursor"]}


@pytest.mark.parametrize("sought", ["", "a\nb", "\x1b", "a\0b", "x" * 201])
async def test_what_can_not_stand_in_a_line_is_not_sought(world: World, sought: str) -> None:
    variables = {"id": await world.simulation(), "contains": sought}
    response = await world.api.client.post("/graphql", json={"query": SEARCH, "variables": variables})
    [error] = response.json()["errors"]
    assert "1 to 200 characters" in error["message"]


async def test_a_search_reads_only_the_chunks_that_match(world: World, engine: AsyncEngine) -> None:
    supervisor = await world.running()
    await supervisor.send(logs=log(*("filler" * 1_000 for _ in range(300)), "the needle"))
    async with session_factory(engine)() as session:
        rows = await logs.read(session, decode(supervisor.simulation_id)[1], logs.START, limit=100, contains="NEEDLE")
    assert [row.text for row in rows] == ["the needle"]


async def test_it_is_resumed_behind_every_cursor(world: World) -> None:
    first = await world.running(limits={"maxRetries": 1})
    await first.send(logs=log("a", "b"))
    await first.send(logs=log("c"))
    await world.lose(first)
    second = await world.running(first.simulation_id)
    await second.send(logs=log("d", "e"))
    await second.exit()
    async with world.api.subscribe(LOGS, {"id": first.simulation_id}) as chunks:
        whole = await chunks.all()
    assert [(chunk["attempt"], chunk["text"]) for chunk in whole] == [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (2, "e")]
    for number, chunk in enumerate(whole):
        directly = world.api.subscribe_directly(LOGS, {"id": first.simulation_id, "after": chunk["cursor"]})
        assert [each async for each in directly] == whole[number + 1 :]


async def test_a_long_log_is_read_in_pieces_without_a_hole(world: World) -> None:
    supervisor = await world.running()
    expected = [str(number) for number in range(250)]
    await supervisor.send(logs=log(*expected))
    await supervisor.exit()
    async with world.api.subscribe(LOGS, {"id": supervisor.simulation_id}) as chunks:
        assert texts(await chunks.all()) == expected

    read: list[str] = []
    page: Any = {"pageInfo": {"hasNextPage": True, "endCursor": None}}
    while page["pageInfo"]["hasNextPage"]:
        given = {"id": supervisor.simulation_id, "first": 99, "after": page["pageInfo"]["endCursor"]}
        page = (await world.api.data(PAGE, given))["logs"]
        assert page["pageInfo"]["startCursor"] == page["nodes"][0]["cursor"]
        read += texts(page["nodes"])
    assert read == expected


async def test_text_is_without_escape_sequences_unless_colours_are_asked_for(world: World) -> None:
    written = "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jtext\n\r\x1b[38;2;1;2;3mbar"
    supervisor = await world.running()
    await supervisor.send(logs=log(written, "plain"))
    both = "query Both($id: ID!) { simulation(id: $id) { logs { nodes { text ansi: text(ansi: true) } } } }"
    nodes = (await world.api.data(both, {"id": supervisor.simulation_id}))["logs"]["nodes"]
    assert nodes == [
        {"text": "red text\n\rbar", "ansi": "\x1b[31mred\x1b[0m text\n\r\x1b[38;2;1;2;3mbar"},
        {"text": "plain", "ansi": "plain"},
    ]


async def test_an_empty_log_is_an_empty_page(world: World) -> None:
    page = (await world.api.data(PAGE, {"id": await world.simulation()}))["logs"]
    assert page == {"nodes": [], "pageInfo": {"hasNextPage": False, "startCursor": None, "endCursor": None}}


async def test_a_log_through_another_process_arrives_by_hint(only_hints: None, world: World, serve: Serve) -> None:
    other = await serve()
    supervisor = await world.running()
    async with other.subscribe(LOGS, {"id": supervisor.simulation_id}) as chunks:
        await supervisor.send(logs=log("a"))
        assert (await chunks.next())["text"] == "a"
        await supervisor.send(logs=log("b"))
        assert (await chunks.next())["text"] == "b"


@pytest.mark.parametrize("through", ["this process", "another one"])
async def test_fifty_readers_of_a_log_cost_one_read(
    only_hints: None,
    world: World,
    serve: Serve,
    engine: AsyncEngine,
    statements: Statements,
    wait_until: WaitUntil,
    through: str,
) -> None:
    api = await serve(session_factory(engine))
    supervisor = await world.running()
    supervisor.api = api if through == "this process" else await serve()
    await supervisor.send(logs=log("past"))
    readers = [api.subscribe_directly(LOGS, {"id": supervisor.simulation_id}) for _ in range(50)]
    for reader in readers:
        assert (await anext(reader))["text"] == "past"
    (tail,) = api.hub._log_tails.values()
    for number in range(1, 4):
        waiting = [asyncio.create_task(anext(reader)) for reader in readers]
        await wait_until(lambda: len(tail.pulse.next._waiters) == 50, "all are at the end of the log")
        with statements.of(engine):
            await supervisor.send(logs=log(f"{number}"))
            assert texts(await asyncio.gather(*waiting)) == [f"{number}"] * 50
        # The hint of the chunk before may still have been on its way.
        assert 1 <= len(statements.matching("FROM log_chunks")) <= (1 if through == "this process" else 2)
        statements.clear()
    for reader in readers:
        await reader.aclose()


async def test_points_without_lines_are_no_reason_to_read_the_log(
    only_hints: None, world: World, serve: Serve, engine: AsyncEngine, statements: Statements, wait_until: WaitUntil
) -> None:
    api = await serve(session_factory(engine))
    supervisor = await world.running()
    supervisor.api = api
    reader = api.subscribe_directly(LOGS, {"id": supervisor.simulation_id})
    waiting = asyncio.create_task(anext(reader))
    await wait_until(lambda: bool(api.hub._log_tails), "subscribed")
    (tail,) = api.hub._log_tails.values()
    await wait_until(lambda: len(tail.pulse.next._waiters) == 1, "at the end of the log")
    with statements.of(engine):
        for step in range(5):
            await supervisor.loss(step)
        await supervisor.send(logs=log("a"))
        assert (await waiting)["text"] == "a"
    assert len(statements.matching("FROM log_chunks")) == 1
    await reader.aclose()


async def test_a_reader_that_falls_behind_a_short_tail_misses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.live.tail.TAIL_CHARACTERS", 20)
    monkeypatch.setattr("graph.live.tail.PAGE_CHUNKS", 3)
    supervisor = await world.running()
    slow, fast = (world.api.subscribe_directly(LOGS, {"id": supervisor.simulation_id}) for _ in range(2))
    first = [asyncio.create_task(anext(each)) for each in (slow, fast)]
    expected = [f"line {number}" for number in range(30)]
    got_fast = []
    for number, line in enumerate(expected):
        await supervisor.send(logs=log(line))
        got_fast.append(await (first[1] if not number else anext(fast)))
    got_slowly = [await first[0]]
    await supervisor.exit(logs=log("the last one, longer than the whole tail"))
    got_slowly += [each async for each in slow]
    got_fast += [each async for each in fast]
    assert texts(got_slowly) == texts(got_fast) == [*expected, "the last one, longer than the whole tail"]


async def test_a_subscriber_that_leaves_frees_the_tail(world: World, wait_until: WaitUntil) -> None:
    supervisor = await world.running()
    async with world.api.subscribe(LOGS, {"id": supervisor.simulation_id}) as chunks:
        await supervisor.send(logs=log("a"))
        await chunks.next()
        assert len(world.api.hub._log_tails) == 1
    await wait_until(lambda: world.api.hub._log_tails == {}, "the tail is freed")


async def test_what_can_not_be_read_is_refused_in_a_sentence(world: World, subtests: pytest.Subtests) -> None:
    simulation = await world.simulation()
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "a simulation that there is not": ({"id": encode("Simulation", 999)}, "NOT_FOUND"),
        "the id of another type": ({"id": encode("Attempt", 1)}, "BAD_USER_INPUT"),
        "a cursor of the curve": ({"id": simulation, "after": "1-1"}, "BAD_USER_INPUT"),
        "a cursor that is none": ({"id": simulation, "after": "1-1-x"}, "BAD_USER_INPUT"),
        "a cursor beyond an integer": ({"id": simulation, "after": f"1-1-{2**31}"}, "BAD_USER_INPUT"),
    }
    for case, (given, code) in cases.items():
        with subtests.test(case):
            with pytest.raises(Exception, match=code):
                await anext(world.api.subscribe_directly(LOGS, given))
            if code == "BAD_USER_INPUT":
                error = await world.api.error(PAGE, given)
                assert error["extensions"]["code"] == code


OF_RANK = """
query Page($id: ID!, $after: String, $rank: Int! = 0) {
  simulation(id: $id) { logs(first: 1, after: $after, rank: $rank) { nodes { cursor text } pageInfo { hasNextPage } } }
}
"""
FOLLOW_RANK = "subscription ($id: ID!, $rank: Int!) { logs(simulationId: $id, rank: $rank) { cursor text } }"


async def test_each_rank_has_a_log_and_cursors_of_its_own(world: World) -> None:
    supervisors = await world.gang(2)
    assert [(await each.hello())["verdict"] for each in supervisors] == ["WAIT", "CONTINUE"]
    simulation_id = supervisors[0].simulation_id
    for rank, supervisor in enumerate(supervisors):
        await supervisor.send(logs=log(f"first of {rank}"))
        await supervisor.send(logs=log(f"second of {rank}"))
    for rank in (0, 1):
        given = {"id": simulation_id, "rank": rank}
        page = (await world.api.data(OF_RANK, given))["logs"]
        assert (texts(page["nodes"]), page["pageInfo"]["hasNextPage"]) == ([f"first of {rank}"], True)
        after = page["nodes"][0]["cursor"]
        page = (await world.api.data(OF_RANK, {**given, "after": after}))["logs"]
        assert (texts(page["nodes"]), page["pageInfo"]["hasNextPage"]) == ([f"second of {rank}"], False)
        error = await world.api.error(OF_RANK, {"id": simulation_id, "rank": 1 - rank, "after": after})
        assert "ursor" in error["message"]
    assert "rank" in (await world.api.error(OF_RANK, {"id": simulation_id, "rank": -1}))["message"]


async def test_a_subscriber_follows_one_rank_to_the_end_of_all(world: World, wait_until: WaitUntil) -> None:
    supervisors = await world.gang(2)
    for each in supervisors:
        await each.hello()
    given = {"id": supervisors[0].simulation_id, "rank": 1}
    async with world.api.subscribe(FOLLOW_RANK, given) as chunks:
        await wait_until(lambda: len(world.api.hub._log_tails) == 1, "subscribed")
        await supervisors[0].send(logs=log("of 0"))
        await supervisors[1].send(logs=log("of 1"))
        assert (await chunks.next())["text"] == "of 1"
        await supervisors[1].exit(logs=log("last of 1"))
        assert (await chunks.next())["text"] == "last of 1"
        await supervisors[0].exit()
        assert await chunks.all() == []
