"""The /graphql endpoint over HTTP and WebSocket, with valid and invalid requests."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Api = Any  # the fixtures of conftest.py
World = Any

VIEWER = {"query": "{ viewer { name } }"}


async def test_a_query_may_come_by_get(api: Api) -> None:
    response = await api.client.get("/graphql", params=VIEWER, headers={"accept": "application/json"})
    assert response.json()["data"] == {"viewer": {"name": "anonymous"}}


async def test_no_part_of_an_answer_waits_until_the_client_acknowledges_another(api: Api) -> None:
    await api.client.post("/graphql", json=VIEWER)
    (connection,) = api.server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_mutation_may_not_come_by_get(world: World) -> None:
    simulation = await world.simulation()
    query = f'mutation {{ cancelSimulation(input: {{id: "{simulation}"}}) {{ simulation {{ id }} }} }}'
    response = await world.api.client.get("/graphql", params={"query": query}, headers={"accept": "application/json"})
    assert response.status_code >= 400
    assert (await world.show(simulation))["state"] == "QUEUED"


async def test_bodies_that_are_no_request_are_refused(api: Api, subtests: pytest.Subtests) -> None:
    query = b'"query": "{ viewer { name } }"'
    for body in (
        *(b"", b"{", b"\xff", b"null", b"1", b'"x"', b"[]", b"[1]", b"{}", b'{"query": NaN}', b'{"query": 1}'),
        *(b"{%b" % query, b'{%b, "variables": [1]}' % query, b'{%b, "operationName": 1}' % query, b"[{%b}]" % query),
    ):
        with subtests.test(repr(body)):
            response = await api.client.post(
                "/graphql", content=body, headers={"content-type": "application/json", "accept": "application/json"}
            )
            assert 400 <= response.status_code < 500
            assert "Traceback" not in response.text
    assert (await api.client.post("/graphql", json=VIEWER)).status_code == 200


async def test_what_the_schema_does_not_know_is_told(api: Api) -> None:
    error = await api.error("{ nonsense }")
    assert "nonsense" in error["message"]
    error = await api.error("{ viewer")
    assert "Syntax Error" in error["message"]


@asynccontextmanager
async def plain_socket(api: Api, *protocols: str) -> AsyncIterator[ClientConnection]:
    async with connect(
        api.socket_address, subprotocols=list(protocols) or None, proxy=None, open_timeout=60
    ) as connection:  # type: ignore[arg-type]  # plain strings are subprotocols
        yield connection


@pytest.mark.parametrize("protocols", [("graphql-ws",), ()])
async def test_only_the_current_websocket_protocol_is_spoken(api: Api, protocols: tuple[str, ...]) -> None:
    async with plain_socket(api, *protocols) as connection:
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4406
    async with plain_socket(api, "graphql-ws", "graphql-transport-ws") as connection:
        assert connection.subprotocol == "graphql-transport-ws"


async def test_frames_are_text_and_queries_are_answered_too(api: Api) -> None:
    async with plain_socket(api, "graphql-transport-ws") as connection:
        await connection.send('{"type": "connection_init", "payload": {}}')
        assert json.loads(await connection.recv()) == {"type": "connection_ack"}
        await connection.send('{"type": "ping"}')
        assert json.loads(await connection.recv()) == {"type": "pong"}
        await connection.send(json.dumps({"type": "subscribe", "id": "1", "payload": VIEWER}))
        answer = await connection.recv()
        assert isinstance(answer, str)
        assert json.loads(answer)["payload"]["data"] == {"viewer": {"name": "anonymous"}}
        assert json.loads(await connection.recv()) == {"type": "complete", "id": "1"}


FRAMES: dict[str, tuple[str | bytes, int]] = {
    "no JSON": ("{", 4400),
    "binary": (b"{}", 4400),
    "no type": ("{}", 4400),
    "an unknown type": ('{"type": "nonsense"}', 4400),
    "a subscription without an id": ('{"type": "subscribe", "payload": {"query": "{ viewer { name } }"}}', 4400),
    "a subscription without a query": ('{"type": "subscribe", "id": "1", "payload": {}}', 4400),
    "a list": ("[1]", 4400),
    "a number": ("1", 4400),
    "null": ("null", 4400),
    "a payload that is null": ('{"type": "subscribe", "id": "1", "payload": null}', 4400),
    "an id that is a list": ('{"type": "subscribe", "id": [1], "payload": {"query": "{ viewer { name } }"}}', 4400),
    "a query that is a number": ('{"type": "subscribe", "id": "1", "payload": {"query": 1}}', 4400),
    "a completion of a list": ('{"type": "complete", "id": []}', 4400),
}


async def test_a_malformed_frame_closes_its_own_socket_and_no_other(
    api: Api, subtests: pytest.Subtests, caplog: pytest.LogCaptureFixture
) -> None:
    async with plain_socket(api, "graphql-transport-ws") as other:
        await other.send('{"type": "connection_init"}')
        await other.recv()
        for case, (frame, code) in FRAMES.items():
            with subtests.test(case):
                async with plain_socket(api, "graphql-transport-ws") as connection:
                    await connection.send('{"type": "connection_init"}')
                    await connection.recv()
                    await connection.send(frame)
                    with pytest.raises(ConnectionClosed) as closed:
                        await connection.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == code
        await other.send('{"type": "ping"}')
        assert json.loads(await other.recv()) == {"type": "pong"}
    assert "Traceback" not in caplog.text
