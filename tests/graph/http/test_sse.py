"""Subscriptions over server-sent events: format, reconnects, and readers that leave, stall or are sent away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from live import CLIENT, PATIENCE_SECONDS, within

Api = Any  # the fixtures of conftest.py
World = Any
Serve = Any
WaitUntil = Any

STREAM = {"accept": "text/event-stream"}
CURVE = """
subscription Curve($id: ID!, $after: String) {
  convergence(simulationId: $id, after: $after) { cursor state series { metric steps } }
}
"""
LOG = "subscription ($id: ID!) { logs(simulationId: $id) { text } }"


def body(query: str, **variables: Any) -> dict[str, Any]:
    return {"query": query, "variables": variables}


def address(query: str, **variables: Any) -> str:
    return "/graphql?" + urlencode({"query": query, "variables": json.dumps(variables)}, quote_via=quote)


class Event(dict[str, str]):
    """The fields of one block; comments are the field with an empty name."""

    @property
    def data(self) -> Any:
        return json.loads(self["data"])["data"]

    @property
    def errors(self) -> list[dict[str, Any]]:
        errors = json.loads(self["data"])["errors"]
        assert isinstance(errors, list)
        return errors


async def events_of(response: httpx.Response) -> AsyncIterator[Event]:
    """The blocks of a stream to its end."""
    event = Event()
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        if line:
            event[name] = value.removeprefix(" ")
        else:
            yield event
            event = Event()
    assert not event, "the end is the end of a block"


@asynccontextmanager
async def streaming(api: Api, method: str = "GET", url: str = "/graphql", **given: Any) -> AsyncIterator[Any]:
    """(the response, its events); the connection is closed with the block."""
    given["headers"] = {**STREAM, **given.get("headers", {})}
    async with (
        within(PATIENCE_SECONDS, "what the test wants of the stream"),
        httpx.AsyncClient(base_url=api.address, timeout=60, verify=False) as client,
        client.stream(method, url, **given) as response,
        aclosing(events_of(response)) as events,
    ):
        yield response, events


async def all_of(api: Api, method: str = "GET", url: str = "/graphql", **given: Any) -> list[Event]:
    """Every event of a stream to its end, without the block with the reconnection time."""
    async with streaming(api, method, url, **given) as (response, events):
        assert response.status_code == 200, await response.aread()
        return [event async for event in events if "event" in event]


def steps_of(events: list[Event]) -> list[int]:
    told = [event.data["convergence"] for event in events if event["event"] == "next"]
    return [step for event in told for series in event["series"] for step in series["steps"]]


async def ended(world: World, batches: int = 3) -> str:
    """A simulation that has run to its end; each batch has one step."""
    supervisor = await world.running()
    for step in range(batches):
        await supervisor.loss(step)
    await supervisor.exit()
    return str(supervisor.simulation_id)


async def test_a_get_and_a_post_stream_every_event_with_its_cursor_and_then_the_end(world: World) -> None:
    simulation = await ended(world)
    for given in (
        {"url": address(CURVE, id=simulation)},
        {"method": "POST", "json": body(CURVE, id=simulation)},
    ):
        async with streaming(world.api, **given) as (response, stream):
            events = [event async for event in stream]
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "no-store" in response.headers["cache-control"]
        assert response.headers["x-accel-buffering"] == "no"
        assert 1_000 <= int(events[0]["retry"]) <= 2_000
        told = events[1:-1]
        assert {event["event"] for event in told} == {"next"}
        assert [event["id"] for event in told] == [event.data["convergence"]["cursor"] for event in told]
        assert steps_of(told) == [0, 1, 2]
        assert told[-1].data["convergence"]["state"] == "FINISHED"
        assert events[-1] == {"event": "complete", "id": "end", "data": ""}


async def test_a_reconnect_resumes_behind_the_last_event_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.types.convergence.MOST_JOINED", 1)
    simulation = await ended(world, batches=4)
    whole = await all_of(world.api, url=address(CURVE, id=simulation))
    for place, event in enumerate(whole[:4]):
        headers = {"last-event-id": event["id"]}
        for after in (None, "1-1"):  # the id wins: the address of an EventSource stays as it was at first
            rest = await all_of(world.api, url=address(CURVE, id=simulation, after=after), headers=headers)
            assert steps_of(whole[: place + 1]) + steps_of(rest) == [0, 1, 2, 3]
    behind = await all_of(world.api, url=address(CURVE, id=simulation, after="1-2"))
    assert steps_of(behind) == [2, 3]


async def test_a_reconnect_after_the_end_gets_204(world: World) -> None:
    simulation = await ended(world)
    headers = {**STREAM, "last-event-id": "end"}
    response = await world.api.client.get(address(CURVE, id=simulation), headers=headers)
    assert (response.status_code, response.content) == (204, b"")


async def test_a_log_is_resumed_in_the_midst_of_a_batch(world: World) -> None:
    supervisor = await world.running()
    lines = [{"stream": "STDOUT", "text": f"line {number}\n"} for number in range(5)]
    await supervisor.send(logs=lines[:3])
    await supervisor.send(logs=lines[3:])
    await supervisor.exit()
    url = address(LOG, id=supervisor.simulation_id)
    whole = await all_of(world.api, url=url)
    texts = [event.data["logs"]["text"] for event in whole[:-1]]
    assert len(texts) > 1
    for place, event in enumerate(whole[:-1]):
        rest = await all_of(world.api, url=url, headers={"last-event-id": event["id"]})
        assert texts[: place + 1] + [each.data["logs"]["text"] for each in rest[:-1]] == texts


async def test_what_is_live_arrives_as_it_happens_and_is_executed_once_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graph.live.shared_execution import Encoded

    encodings = []

    class Counted(Encoded):
        def __init__(self, data: dict[str, Any]) -> None:
            super().__init__(data)
            encodings.append(data)

    monkeypatch.setattr("graph.live.shared_execution.Encoded", Counted)
    monkeypatch.setattr("graph.http.sse.Encoded", Counted)
    supervisor = await world.running()
    url = address(CURVE, id=supervisor.simulation_id)
    async with (
        streaming(world.api, url=url) as (_, first),
        streaming(world.api, url=url) as (_, second),
        streaming(world.api, "POST", json=body(CURVE, id=supervisor.simulation_id)) as (_, third),
    ):
        streams = (first, second, third)
        for stream in streams:
            assert "retry" in await anext(stream)
            assert (await anext(stream)).data["convergence"]["state"] == "RUNNING"
        before = len(encodings)
        for step in range(1, 21):
            await supervisor.loss(step)
            told = [await anext(stream) for stream in streams]
            assert told[0] == told[1] == told[2]
            assert steps_of(told[:1]) == [step]
            assert told[0]["id"] == told[0].data["convergence"]["cursor"]
        assert len(encodings) - before == 20
        await supervisor.exit()
        for stream in streams:
            assert [event["event"] async for event in stream] == ["next", "complete"]


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_a_disconnected_client_frees_its_generator_at_once(
    world: World, wait_until: WaitUntil, state: str
) -> None:
    supervisor = await world.running()
    await supervisor.loss(1)
    simulation = supervisor.simulation_id if state == "running" else await world.simulation()
    subscribers = world.api.hub.subscribers
    for query in (CURVE, LOG):
        async with streaming(world.api, url=address(query, id=simulation)) as (_, events):
            await anext(events)
            await wait_until(lambda: subscribers()["log"] == 1, "subscribed")
        await wait_until(lambda: subscribers()["log"] == 0, "no subscriber is left")


async def test_a_silence_is_broken_by_comments(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.http.sse.KEEP_ALIVE_SECONDS", 0.05)
    supervisor = await world.running()
    async with streaming(world.api, url=address(CURVE, id=supervisor.simulation_id)) as (_, events):
        while "event" not in await anext(events):
            pass
        assert [set(await anext(events)) for _ in range(3)] == [{""}] * 3
        await supervisor.loss(1)
        while "event" not in (event := await anext(events)):
            pass
        assert steps_of([event]) == [1]


async def test_a_subscription_without_events_yet_begins_with_its_headers(world: World) -> None:
    query = "subscription { simulationChanged { id } }"
    async with streaming(world.api, url=address(query)) as (response, events):
        assert response.status_code == 200
        assert "retry" in await anext(events)
        simulation = await world.simulation()
        event = await anext(events)
        assert event.data == {"simulationChanged": {"id": simulation}}
        assert "id" not in event, "it has no cursor"


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("subscription { nonsense }", {}),
        ("subscription {", {}),
        (CURVE, {}),
        (CURVE, {"id": ["x"]}),
        ("subscription { __typename convergence(simulationId: 1) { state } }", {}),
    ],
)
async def test_an_operation_that_is_wrong_gets_a_status_and_json(api: Api, query: str, variables: Any) -> None:
    for given in ({"url": address(query, **variables)}, {"method": "POST", "json": body(query, **variables)}):
        async with streaming(api, **given) as (response, _):
            await response.aread()
        assert response.status_code == 400
        assert response.headers["content-type"].startswith("application/json")
        assert response.json()["errors"][0]["message"]
        assert "data" not in response.json()


async def test_an_error_within_is_told_as_an_event_and_then_it_is_over(world: World) -> None:
    simulation = await ended(world)
    for url, headers, code in (
        (address(CURVE, id=simulation.swapcase()), {}, "BAD_USER_INPUT"),
        (address(CURVE, id=simulation), {"last-event-id": "nonsense"}, "BAD_USER_INPUT"),
        (address(CURVE, id=simulation), {"last-event-id": "1-2-3"}, "BAD_USER_INPUT"),
    ):
        told, end = await all_of(world.api, url=url, headers=headers)
        assert told["event"] == "next"
        assert told.errors[0]["extensions"]["code"] == code
        assert "id" not in told
        assert end == {"event": "complete", "id": "end", "data": ""}


async def test_a_defect_within_is_masked_and_then_it_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    supervisor = await world.running()
    async with streaming(world.api, url=address(CURVE, id=supervisor.simulation_id)) as (_, events):
        assert "retry" in await anext(events)
        assert steps_of([await anext(events)]) == []
        await supervisor.loss(1)
        assert steps_of([await anext(events)]) == [1]

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("secret")

        monkeypatch.setattr("graph.types.convergence._event", broken)
        await supervisor.loss(2)
        told = await anext(events)
        assert told.errors[0]["message"] == "Something went wrong on the server."
        assert "secret" not in str(told)
        assert [event async for event in events] == [{"event": "complete", "id": "end", "data": ""}]
    await wait_until(lambda: not world.api.hub._tails, "no subscriber is left")


async def test_a_subscription_that_would_be_kept_for_long_is_not_too_large(api: Api) -> None:
    response = await api.client.post("/graphql", json=body(LOG, id="x", ballast="x" * 300_000), headers=STREAM)
    assert response.status_code == 413
    assert "A subscription has at most 262,144 bytes." in response.text


async def test_a_plain_post_of_a_subscription_is_told_what_to_do(world: World) -> None:
    simulation = await world.simulation()
    for accept in ("application/json", "*/*", "application/graphql-response+json", "text/event-stream;q=0, */*"):
        response = await world.api.client.post("/graphql", json=body(CURVE, id=simulation), headers={"accept": accept})
        assert response.status_code == 406
        message = response.json()["errors"][0]["message"]
        assert "Accept: text/event-stream" in message
        assert "WebSocket" in message


async def test_a_query_by_this_accept_alone_is_one_event(api: Api) -> None:
    query = "{ viewer { name } }"
    for given in ({"url": address(query)}, {"method": "POST", "json": body(query)}):
        told, end = await all_of(api, **given)
        assert told.data == {"viewer": {"name": "anonymous"}}
        assert end == {"event": "complete", "id": "end", "data": ""}
    both = await api.client.post(
        "/graphql", json=body(query), headers={"accept": "text/event-stream, application/json"}
    )
    assert both.json()["data"] == {"viewer": {"name": "anonymous"}}


# --- readers that stall, a process that ends ---------------------------------------------------------------------


async def stalled(api: Api, simulation: str) -> socket.socket:
    """A reader that asked for a curve and reads nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", int(api.address.rpartition(":")[2])))
    query = "subscription ($id: ID!) { convergence(simulationId: $id) { series { steps values elapsed } } }"
    request = f"GET {address(query, id=simulation)} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    await loop.sock_sendall(connection, request.encode())
    return connection


def wide(batch: int) -> dict[str, Any]:
    steps = list(range(batch * 10_000, (batch + 1) * 10_000))
    return {"loss": {"steps": steps, "values": [0.123456789] * 10_000, "elapsed": [0.5] * 10_000}}


def write_buffers(api: Api) -> list[int]:
    connections = api.server.server_state.connections
    return [connection.transport.get_write_buffer_size() for connection in connections]


async def test_a_stalled_reader_costs_one_event_and_delays_no_other(world: World, wait_until: WaitUntil) -> None:
    supervisor = await world.running()
    sleeper = await stalled(world.api, supervisor.simulation_id)
    async with streaming(world.api, url=address(CURVE, id=supervisor.simulation_id)) as (_, events):
        assert "retry" in await anext(events)
        await anext(events)
        most = 0
        for batch in range(20):  # some 10 MB
            await supervisor.send(wide(batch))
            assert len(steps_of([await anext(events)])) == 10_000
            most = max(most, *write_buffers(world.api))
    assert 0 < most < 1_500_000, "one event, and what uvicorn holds at most"
    sleeper.close()
    await wait_until(lambda: not world.api.hub._tails, "no subscriber is left")


async def test_a_reader_that_stalls_too_long_is_cut_off(world: World, serve: Serve, wait_until: WaitUntil) -> None:
    api = await serve(socket_stall_seconds=0.3)
    supervisor = await world.running()
    for batch in range(20):
        await supervisor.send(wide(batch))
    with await stalled(api, supervisor.simulation_id) as sleeper:
        await wait_until(lambda: bool(api.hub._tails), "subscribed")
        await wait_until(lambda: not api.hub._tails, "the stalled reader is gone")
        await wait_until(lambda: not api.server.server_state.connections, "its connection too")
        received, is_over = bytearray(), False
        async with within(PATIENCE_SECONDS, "the connection's end"):
            while not is_over:  # what had reached the kernel, then a reset
                try:
                    chunk = await asyncio.get_running_loop().sock_recv(sleeper, 65_536)
                except ConnectionResetError:
                    chunk = b""
                is_over = not chunk
                received += chunk
    assert received.startswith(b"HTTP/1.1 200")
    assert b"event: complete" not in received


async def test_a_slow_reader_is_not_cut_off(world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.http.sse.FAREWELL_SECONDS", 0.01)  # for clients that are sent away
    api = await serve(socket_stall_seconds=1)
    supervisor = await world.running()
    for batch in range(12):
        await supervisor.send(wide(batch))
    await supervisor.exit()
    with await stalled(api, supervisor.simulation_id) as slow:
        received, loop = bytearray(), asyncio.get_running_loop()
        started = loop.time()
        async with within(PATIENCE_SECONDS, "the curve completes"):
            while b"event: complete" not in received:
                is_slow = loop.time() - started < 2.5
                received += await loop.sock_recv(slow, 4_096 if is_slow else 65_536)
                if is_slow:
                    await asyncio.sleep(0.01)  # slower than the server, longer than the limit
    assert received.count(b"event: next") == 13


async def test_at_the_end_of_the_process_streams_end_without_complete(world: World, serve: Serve) -> None:
    api = await serve()
    supervisor = await world.running()
    await supervisor.loss(1)
    url = address(CURVE, id=supervisor.simulation_id)
    async with streaming(api, url=url) as (_, events):
        assert "retry" in await anext(events)
        last = await anext(events)
        api.server.lifespan.state["shutdown"].begin()
        assert [event async for event in events if event.get("event") == "complete"] == []
    again = await world.api.client.get("/healthz")
    assert again.status_code == 200
    await supervisor.loss(2)
    await supervisor.exit()
    rest = await all_of(world.api, url=url, headers={"last-event-id": last["id"]})
    assert steps_of(rest) == [2]


# --- the clients that people have --------------------------------------------------------------------------------


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    assert found is not None, f"{name} is missing"
    return found


async def output_of(*command: str | Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_curl_gets_the_stream(world: World) -> None:
    simulation = await ended(world)
    lines = await output_of(program("curl"), "-sN", world.api.address + address(CURVE, id=simulation))
    assert lines.count("event: next") == 2
    assert lines[-4:] == ["event: complete", "id: end", "data:", ""]


async def test_an_event_source_comes_back_where_it_was_and_stays_away_after_the_end(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stream is ended as a process ends its streams; the second one gets all events."""
    monkeypatch.setattr("graph.http.sse.RETRY_MILLISECONDS", (10, 20))
    api = await serve()
    supervisor = await world.running()
    await supervisor.loss(1)
    process = await asyncio.create_subprocess_exec(
        program("node"), CLIENT / "events.mjs", api.address + address(CURVE, id=supervisor.simulation_id),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    got: list[dict[str, Any]] = []
    state = api.server.lifespan.state
    closing = state["shutdown"]
    try:
        async with asyncio.timeout(60):
            while not (got and got[-1].get("lastEventId") == "1-1"):
                got.append(json.loads(await process.stdout.readline()))
            state["shutdown"] = type(closing)()  # what requests from here on find
            closing.begin()
            await supervisor.loss(2)
            await supervisor.exit()
            while not got[-1].get("isClosed"):
                got.append(json.loads(await process.stdout.readline()))
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [each for each in got if "open" in each] == [{"open": True}] * 2
    told = [each["next"]["data"]["convergence"] for each in got if "next" in each]
    assert [step for event in told for series in event["series"] for step in series["steps"]] == [1, 2]
    assert got[-3:] == [
        {"complete": "", "lastEventId": "end"},
        {"error": None, "isClosed": False},  # the response is over: it comes back, with the id of the end
        {"error": 204, "isClosed": True},
    ]


async def test_the_graphql_sse_client_gets_the_stream(world: World) -> None:
    simulation = await ended(world)
    lines = await output_of(program("node"), CLIENT / "distinct.mjs", f"{world.api.address}/graphql", simulation)
    told = [json.loads(line)["data"]["convergence"] for line in lines]
    assert [step for event in told for series in event["series"] for step in series["steps"]] == [0, 1, 2]
    assert told[-1]["state"] == "FINISHED"
