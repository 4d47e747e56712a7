"""GraphQL over HTTP: parsing of requests, refusals, and limits on bodies."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import CLIENT
from work import counting

from graph.http.protocol import MAX_BODY_BYTES
from runner.supervisor.curve import MAX_METRIC_NAME
from runner.supervisor.lines import MAX_LOGGED_LINE
from runner.supervisor.spool import MAX_BATCH_BYTES

Api = Any  # the fixtures of conftest.py
World = Any
WaitUntil = Any

QUERY = {"query": "{ viewer { name } }"}
NAMED = "query A { viewer { name } } query B { viewer { role } }"
RESULT = "application/graphql-response+json"
JSON = "application/json"
TIMES = 4  # what is read once through costs once or twice; what is searched again from each letter, hundreds of times


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever is sent here, nothing of it is a defect."""
    yield
    assert "Traceback" not in caplog.text
    assert "Exception in ASGI" not in caplog.text


async def post(api: Api, content: bytes | None = None, **headers: str) -> httpx.Response:
    """Post a body as it is, by default a fine one."""
    given = {"content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    content = json.dumps(QUERY).encode() if content is None else content
    response = await api.client.post("/graphql", content=content, headers=given)
    assert isinstance(response, httpx.Response)
    return response


def message_of(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"]
    return str(error["message"])


async def test_all_audits_of_graphql_http_are_passed(api: Api) -> None:
    node = shutil.which("node", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    assert node is not None, "node is missing: make test installs it"
    process = await asyncio.create_subprocess_exec(
        node, CLIENT / "audit.mjs", f"{api.address}/graphql", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    results = [json.loads(line) for line in output.splitlines()]
    assert [each for each in results if each["status"] != "ok"] == []
    assert len(results) == 61


# --- media types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (RESULT, RESULT),
        (f"{RESULT.upper()} ; charset=utf-8", RESULT),
        (f"{JSON}, {RESULT}", RESULT),
        (f"{RESULT};q=0.5, {JSON}", JSON),
        (f"{RESULT};q=0, */*", JSON),
        (f"{JSON};q=0, {RESULT}", RESULT),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (f"{RESULT}, application/graphql+json, {JSON}, text/event-stream, multipart/mixed", RESULT),
        (f"{RESULT};q=nonsense", RESULT),
        ("", JSON),
    ],
)
async def test_a_result_comes_in_the_type_that_is_asked_for(api: Api, accept: str | None, given: str) -> None:
    request = api.client.build_request("POST", "/graphql", json=QUERY)
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    response = await api.client.send(request)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{given}; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["vary"] == "Accept"
    assert response.json()["data"] == {"viewer": {"name": "anonymous"}}


@pytest.mark.parametrize("accept", ["text/plain", "image/*", "*/*;q=0", f"{JSON};q=0.0, text/html"])
async def test_who_takes_nothing_that_there_is_gets_406(api: Api, accept: str) -> None:
    for response in (
        await post(api, accept=accept),
        await api.client.get("/graphql", params=QUERY, headers={"accept": accept}),
    ):
        assert response.status_code == 406
        assert RESULT in message_of(response)


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({"content-type": ""}, "Content-Type: application/json"),
        ({"content-type": "text/plain"}, "Content-Type: application/json"),
        ({"content-type": "application/x-www-form-urlencoded"}, "Content-Type: application/json"),
        ({"content-type": "multipart/form-data; boundary=x"}, "Content-Type: application/json"),
        ({"content-type": "application/graphql"}, "Content-Type: application/json"),
        ({"content-type": "application/jsonp"}, "Content-Type: application/json"),
        ({"content-type": "application/json; charset=utf-16"}, "UTF-8"),
        ({"content-type": JSON, "content-encoding": "gzip"}, "not compressed"),
    ],
)
async def test_a_body_that_is_no_json_in_utf8_gets_415(api: Api, headers: dict[str, str], hint: str) -> None:
    response = await api.client.post("/graphql", content=json.dumps(QUERY), headers=headers)
    assert response.status_code == 415
    assert hint in message_of(response)


async def test_json_in_utf8_may_be_said_in_many_ways(api: Api) -> None:
    for content_type in ('application/json; charset="UTF-8"', "APPLICATION/JSON;charset=utf-8", "application/json;x=y"):
        assert (await post(api, content_type=content_type)).status_code == 200


# What takes the standard library seconds, in some versions at least; 60 KB of it fit into a head.
SLOW_HEADERS = {
    "a quoted parameter": {"content-type": f'{JSON}; a="{";" * 60_000}'},
    "a parameter of many digits": {"content-type": f"{JSON}; charset*{'1' * 5_000}=utf-8"},
    "a quoted cookie": {"cookie": f'a="{chr(92) * 60_000}"'},
    "our cookie": {"cookie": f'simulations="{chr(92) * 60_000}"'},
}


@pytest.mark.parametrize("headers", SLOW_HEADERS.values(), ids=SLOW_HEADERS.keys())
async def test_a_header_made_to_waste_time_is_no_more_work_than_another(api: Api, headers: dict[str, str]) -> None:
    """Compared with as many letters without a meaning, by the calls of functions."""
    harmless = {name: re.sub(r"[^a-z/ =]", "x", value) for name, value in headers.items()}
    calls = []
    for given in ({}, harmless, headers):  # the first fills the caches
        with counting() as work:
            answer = await post(api, **{name.replace("-", "_"): value for name, value in given.items()})
        calls.append(work.calls)
        assert answer.status_code < 500
    _, expected, hostile = calls
    assert hostile < TIMES * expected


# --- methods and parameters --------------------------------------------------------------------------------------


async def test_only_get_and_post_are_answered(api: Api) -> None:
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
        response = await api.client.request(method, "/graphql", json=QUERY)
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, POST"


async def test_a_mutation_by_get_is_refused_and_changes_nothing(world: World) -> None:
    simulation = await world.simulation()
    query = f'mutation {{ cancelSimulation(input: {{id: "{simulation}"}}) {{ simulation {{ id }} }} }}'
    for accept in (JSON, RESULT, "*/*", "text/event-stream"):
        response = await world.api.client.get("/graphql", params={"query": query}, headers={"accept": accept})
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert "POST" in message_of(response)
    assert (await world.show(simulation))["state"] == "QUEUED"


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"query": "\xff"}', "not valid JSON"),
        (b'{"query": "\\ud800"}', "not valid JSON"),
        (b'{"query": "{ viewer { name } }", "variables": {"x": NaN}}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"null", "a JSON object"),
        (b'"{ viewer { name } }"', "a JSON object"),
        (b"1", "a JSON object"),
        (b"[]", "Batches"),
        (b'[{"query": "{ viewer { name } }"}]', "Batches"),
        (b"{}", "`query`"),
        (b'{"query": null}', "`query`"),
        (b'{"query": ""}', "`query`"),
        (b'{"query": ["{ viewer { name } }"]}', "`query`"),
        (b'{"query": "{ viewer { name } }", "operationName": 1}', "`operationName`"),
        (b'{"query": "{ viewer { name } }", "operationName": {}}', "`operationName`"),
        (b'{"query": "{ viewer { name } }", "variables": []}', "`variables`"),
        (b'{"query": "{ viewer { name } }", "variables": "{}"}', "`variables`"),
        (b'{"query": "{ viewer { name } }", "variables": false}', "`variables`"),
        (b'{"query": "{ viewer { name } }", "extensions": 0}', "`extensions`"),
        (b'{"query": "{ viewer { name } }", "extensions": [1]}', "`extensions`"),
        (b'{"query": "{ viewer { name } }", "operationName": "Unknown"}', 'operation named "Unknown"'),
    ],
)
async def test_a_body_that_is_no_request_gets_400_and_a_sentence(api: Api, body: bytes, hint: str) -> None:
    for accept in (JSON, RESULT, "text/event-stream"):
        response = await post(api, body, accept=accept)
        assert response.status_code == 400
        assert response.headers["content-type"].startswith(RESULT if accept == RESULT else JSON)
        assert hint in message_of(response)
        assert len(message_of(response)) < 300
        assert "data" not in response.json()


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("", "`query`"),
        ("query=", "`query`"),
        ("variables={}", "`query`"),
        ("query=%FF", "UTF-8"),
        ("query={viewer{name}}&variables={", "`variables` is not valid JSON"),
        ("query={viewer{name}}&variables=[1]", "`variables` must be"),
        ("query={viewer{name}}&extensions=1", "`extensions` must be"),
        ("query={viewer{name}}&extensions=%FF", "UTF-8"),
        ("query={viewer{name}}&operationName=Unknown", 'operation named "Unknown"'),
    ],
)
async def test_an_address_that_is_no_request_gets_400_and_a_sentence(api: Api, address: str, hint: str) -> None:
    response = await api.client.get(f"/graphql?{address}", headers={"accept": RESULT})
    assert response.status_code == 400
    assert hint in message_of(response)


async def test_an_address_may_carry_all_parameters(api: Api) -> None:
    for params in (
        {"query": NAMED, "operationName": "A"},
        {"query": "query A { viewer { name } }", "operationName": "", "variables": "", "extensions": ""},
        {"query": "query ($no: Boolean!) { viewer { name role @include(if: $no) } }", "variables": '{"no": false}'},
        {**QUERY, "variables": "null", "extensions": '{"x": 1}', "unknown": "ignored"},
    ):
        response = await api.client.get("/graphql", params=params, headers={"accept": RESULT})
        assert response.json()["data"] == {"viewer": {"name": "anonymous"}}


@pytest.mark.parametrize("query", ["{ viewer", "{ nonsense }", "query ($id: ID!) { simulation(id: $id) { id } }"])
async def test_a_request_that_fails_as_a_whole_has_no_data(api: Api, query: str) -> None:
    body = json.dumps({"query": query}).encode()
    for accept, status in ((JSON, 200), (RESULT, 400)):
        response = await post(api, body, accept=accept)
        assert response.status_code == status
        assert response.json()["errors"]
        assert "data" not in response.json()


async def test_a_field_that_fails_leaves_the_status_alone(api: Api) -> None:
    body = json.dumps({"query": '{ simulation(id: "nonsense") { id } viewer { name } }'}).encode()
    for accept in (JSON, RESULT):
        response = await post(api, body, accept=accept)
        assert response.status_code == 200
        assert response.json()["data"] == {"simulation": None, "viewer": {"name": "anonymous"}}
        assert response.json()["errors"][0]["path"] == ["simulation"]


async def test_a_browser_without_a_query_gets_the_explorer(api: Api) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
    response = await api.client.get("/graphql", headers={"accept": browser})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert (await api.client.get("/graphql", params=QUERY, headers={"accept": browser})).json()["data"]


# --- how much, and how long --------------------------------------------------------------------------------------


async def chunks_of(size: int, count: int, sent: list[int]) -> AsyncIterator[bytes]:
    for _ in range(count):
        sent.append(size)
        yield b" " * size


async def test_a_body_up_to_the_limit_is_taken_and_one_byte_more_is_not(api: Api) -> None:
    query = json.dumps(QUERY).encode()
    for size, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
        body = query.ljust(size)

        async def in_chunks(body: bytes = body) -> AsyncIterator[bytes]:
            for begin in range(0, len(body), 100_000):
                yield body[begin : begin + 100_000]

        for content in (body, in_chunks()):  # with a Content-Length, and without
            response = await api.client.post("/graphql", content=content, headers={"content-type": JSON})
            assert response.status_code == status
            if status == 413:
                assert f"{MAX_BODY_BYTES:,} bytes" in message_of(response)
                assert response.headers["connection"] == "close"


def test_the_limit_leaves_room_for_the_largest_report() -> None:
    """What fills a batch up comes on top, and so does the frame of the mutation: together they promise a megabyte."""
    longest_line = MAX_LOGGED_LINE * 6  # each character escaped
    most = MAX_BATCH_BYTES + max(longest_line, 6 * MAX_METRIC_NAME + 1_000)
    assert most < 1_048_576 < MAX_BODY_BYTES / 1.9


@asynccontextmanager
async def connection_to(api: Api) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.address.rpartition(":")[2]))
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()


HEAD = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def status_of(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1])


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(api: Api) -> None:
    for expect in (b"", b"Expect: 100-continue\r\n"):
        async with connection_to(api) as (reader, writer):
            writer.write(HEAD + expect + b"Content-Length: 1000000000000\r\n\r\n")
            assert await status_of(reader) == 413


async def test_an_endless_body_is_neither_kept_nor_listened_to_for_long(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.http.protocol.LINGER_SECONDS", 0.3)
    chunk, most = b"100000\r\n" + b" " * 0x100000 + b"\r\n", 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal most
        while True:
            writer.write(chunk)
            await writer.drain()
            cycles = [connection.cycle for connection in api.server.server_state.connections]
            most = max([most, *(len(cycle.body) for cycle in cycles if cycle is not None)])

    async with connection_to(api) as (_, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await pour(writer)
    assert most < MAX_BODY_BYTES


async def test_the_limit_of_a_body_counts_for_whatever_is_refused_early(api: Api) -> None:
    """Its sender still gets the answer, though it sends everything before it reads."""
    content = b" " * (4 * MAX_BODY_BYTES)
    for headers, status in (({"content-type": JSON}, 413), ({"content-type": "text/plain"}, 415)):
        response = await api.client.post("/graphql", content=content, headers=headers)
        assert response.status_code == status


async def test_a_body_that_never_arrives_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.http.endpoint.REQUEST_SECONDS", 0.2)
    async with connection_to(api) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert await status_of(reader) == 408
        body = await reader.read()  # to the end: the connection is closed
    assert b"did not arrive within 0.2 seconds" in body


async def test_a_body_that_drips_is_given_up_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.http.endpoint.REQUEST_SECONDS", 0.3)
    async with connection_to(api) as (reader, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = asyncio.create_task(status_of(reader))
        while not answer.done():
            writer.write(b"1\r\n \r\n")
            await asyncio.wait({answer}, timeout=0.01)
        assert answer.result() == 408


async def test_bodies_that_are_too_much_together_are_given_up_the_oldest_first(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.http.protocol.MOST_UNFINISHED_BYTES", 250_000)
    content = json.dumps({**QUERY, "variables": {"ballast": "x" * 200_000}}).encode()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content))
        assert await status_of(reader) == 100  # its body is waited for
        writer.write(content[:-1])

    async with connection_to(api) as old, connection_to(api) as young:
        await begin(*old)
        await begin(*young)
        assert await status_of(old[0]) == 503
        young[1].write(content[-1:])
        assert await status_of(young[0]) == 200
    for _ in range(2):  # what was given up, or is finished, counts no more
        assert (await post(api, content)).status_code == 200


async def test_a_client_that_leaves_in_the_midst_of_its_body_is_no_defect(api: Api, wait_until: WaitUntil) -> None:
    async with connection_to(api) as (_, writer):
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        await wait_until(lambda: bool(api.server.server_state.tasks), "it is being read")
    await wait_until(lambda: not api.server.server_state.tasks, "it is given up")


async def test_an_operation_that_takes_too_long_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = []

    async def for_ever(*_: Any, **__: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(True)
            raise

    simulation = await world.simulation()
    monkeypatch.setattr("graph.types.simulation.find", for_ever)
    monkeypatch.setattr("graph.http.endpoint.REQUEST_SECONDS", 1)
    body = json.dumps({"query": "query ($id: ID!) { simulation(id: $id) { id } }", "variables": {"id": simulation}})
    response = await post(world.api, body.encode())
    assert response.status_code == 504
    assert "no result after 1 seconds" in message_of(response)
    assert given_up == [True]


async def test_a_stream_knows_no_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = await world.running()
    monkeypatch.setattr("graph.http.endpoint.REQUEST_SECONDS", 1)
    monkeypatch.setattr("graph.http.sse.KEEP_ALIVE_SECONDS", 0.1)
    query = "subscription ($id: ID!) { convergence(simulationId: $id) { state } }"
    body = {"query": query, "variables": {"id": supervisor.simulation_id}}
    headers = {"accept": "text/event-stream"}
    loop = asyncio.get_running_loop()
    async with world.api.client.stream("POST", "/graphql", json=body, headers=headers) as response:
        lines = response.aiter_lines()
        begun_at = loop.time()
        while loop.time() - begun_at < 1.5:
            assert await anext(lines) != "event: complete"
        monkeypatch.undo()
        await supervisor.exit()
        assert "event: complete" in [line async for line in lines]
