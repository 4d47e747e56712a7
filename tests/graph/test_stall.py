"""No request, flood of frames or subscriber holds the event loop for long, measured by the work in one turn.

Calls of functions are counted from one turn of the loop to the next, in the one thread that the server, its victims and
its attackers share here: the same number on any machine. How long they take is measured by benchmarks/stall.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol
from work import counting

from graph.schema import build_schema

Api = Any  # the fixtures of conftest.py
World = Any

MOST_CALLS_IN_A_TURN = 400_000  # some 50 ms
MANY = 300_000
FEWER = 50_000  # are parsed, and then refused or taken
JSON = {"content-type": "application/json"}
VICTIM = "{ viewer { name } }"
NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
CREATE = "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }"
REPORT = "mutation ($input: ReportAttemptInput!) { reportAttempt(input: $input) { expectedBatch } }"
COLUMN = {name: [1] * (MANY // 2) for name in ("steps", "values", "elapsed")}
NESTED = '{ simulation(id: "x") {' + ("retryOf { id " * 14 + "}" * 14) * 25 + "} }"
WIDE = "{ simulations(first: 500) { nodes { " + " ".join(f"f{n}: name" for n in range(50)) + " id state tags } } }"
BODIES: dict[str, tuple[str, Any]] = {
    "ids": (NODES, {"ids": ["a"] * MANY}),
    "objects as ids": (NODES, {"ids": [{}] * MANY}),
    "unknown fields": (CREATE, {"input": {str(number): 1 for number in range(MANY // 2)}}),
    "parameters": (CREATE, {"input": {"entrypoint": ["x"], "parameters": {"a": [[]] * MANY}}}),
    "fewer ids": (NODES, {"ids": ["a"] * FEWER}),
    "fewer objects as ids": (NODES, {"ids": [{}] * FEWER}),
    "fewer unknown fields": (CREATE, {"input": {str(number): 1 for number in range(FEWER)}}),
    "fewer parameters": (CREATE, {"input": {"entrypoint": ["x"], "parameters": {"a": [[]] * FEWER}}}),
    "points": (REPORT, {"input": {"attemptId": "x", "nonce": "n", "batch": 1, "points": {"loss": COLUMN}}}),
    "nested fields": (NESTED, None),
    "the same field": ("{ viewer {" + " name" * 1_400 + "} }", None),
    "many rows": (WIDE, None),
}
TOO_DENSE = {"ids", "objects as ids", "unknown fields", "parameters"}  # are not even parsed
AT_ONCE = 12
FLOODS = {
    "pongs": b"\x8a\x80\0\0\0\0" * 100_000,
    "pings": b"\x89\x80\0\0\0\0" * 100_000,
    "fragments": b"\x01\x80\0\0\0\0" + b"\0\x81\0\0\0\0x" * 100_000,
    "messages": (b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}') * 100_000,
}


@asynccontextmanager
async def turns_counted() -> AsyncIterator[list[int]]:
    """The calls of each turn of the loop."""
    turns: list[int] = []
    with counting() as work:
        seen = 0

        def tick() -> None:
            nonlocal seen, handle
            turns.append(work.calls - seen)
            seen = work.calls
            handle = asyncio.get_running_loop().call_soon(tick)

        handle = asyncio.get_running_loop().call_soon(tick)
        try:
            yield turns
        finally:
            handle.cancel()


async def beside(api: Api, attack: Callable[[], Awaitable[Any]]) -> int:
    """Ask the small query for as long as the attack lasts, and once more; how often it was answered."""
    asked = 0
    task = asyncio.ensure_future(attack())
    while True:
        is_over = task.done()
        assert (await api.data(VICTIM))["name"] == "anonymous"
        asked += 1
        if is_over:
            await task
            return asked


@pytest.mark.parametrize("bearer", [None, "x"], ids=["let in", "an unknown bearer"])
@pytest.mark.parametrize("name", BODIES)
async def test_no_body_holds_the_loop(api: Api, world: World, name: str, bearer: str | None) -> None:
    query, variables = BODIES[name]
    if query == WIDE:
        await world.fill(500)
    body = json.dumps({"query": query, "variables": variables}).encode()
    headers = {**JSON, **({"authorization": f"Bearer {bearer}"} if bearer else {})}

    async def attack() -> None:
        answer = await api.client.post("/graphql", content=body, headers=headers)
        assert answer.status_code == (401 if bearer else 413 if name in TOO_DENSE else 200)

    await api.data(VICTIM)
    async with turns_counted() as turns:
        asked = await beside(api, attack)
    assert asked >= 2, "the victim is answered meanwhile"
    assert max(turns) < MOST_CALLS_IN_A_TURN


@pytest.mark.parametrize("query", [NESTED, "{ viewer {" + " name" * 1_400 + "} }"], ids=["nested", "flat"])
async def test_documents_that_come_together_do_not_hold_the_loop(query: str) -> None:
    """Each is small enough; parsed and validated in one turn, a dozen of them took a third of a second."""
    schema = build_schema()
    async with turns_counted() as turns:
        await asyncio.gather(*(schema.execute(query + " " * number) for number in range(AT_ONCE)))
    assert max(turns) < MOST_CALLS_IN_A_TURN


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_no_flood_holds_the_loop(api: Api, flood: bytes) -> None:
    async def attack() -> None:
        async with connect(
            api.socket_address, subprotocols=[Subprotocol("graphql-transport-ws")], compression=None, proxy=None
        ) as socket:
            socket.transport.write(flood)
            with suppress(ConnectionClosed):
                await socket.recv()
            await socket.wait_closed()

    await api.data(VICTIM)
    async with turns_counted() as turns:
        asked = await beside(api, attack)
    assert asked >= 2, "the victim is answered meanwhile"
    assert max(turns) < MOST_CALLS_IN_A_TURN
