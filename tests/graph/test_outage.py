"""Outages of a real database server: the responses in each protocol, and recovery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from live import within
from outages import GONE, WAYS, hanging, killed, own_server
from structlog.testing import capture_logs

from db import simulations
from db.connection import create_engine, driver_of, session_factory
from db.embedded.server import EmbeddedServer
from db.errors import DatabaseUnreachable
from graph.context import Loaders
from graph.errors import RETRY_AFTER_SECONDS

Api = Any  # the fixtures of conftest.py
Serve = Any
World = Any
WaitUntil = Any

LIST = "{ simulations { nodes { id } } }"
CREATE = 'mutation { createSimulation(input: {entrypoint: ["true"]}) { simulation { id } } }'
RECOVERY_SECONDS = 60  # a bound for what takes less than one; the machine may be busy
LOG = "subscription ($id: ID!) { logs(simulationId: $id) { text } }"
CURVE = "subscription ($id: ID!) { convergence(simulationId: $id) { state series { steps } } }"
SIMULATIONS = (
    "subscription ($id: ID) { simulationChanged(id: $id) { id state stopWanted { reason } project { name } } }"
)
MACHINES = "subscription { machineChanged { name } }"


@pytest.fixture(scope="module")
def server(scratch: Path, fill: Callable[[Path], None]) -> Iterator[EmbeddedServer]:
    """For all tests of this file: each gives it back as it was."""
    with own_server(scratch / "graph-outage", fill) as server:
        yield server


@pytest.fixture
async def home(server: EmbeddedServer, serve: Serve, world: World) -> AsyncIterator[World]:
    """A graph process on the server that is taken away, and its rows."""
    api = await serve(database_url=server.url, database_pool_size=2)
    engine = create_engine(server.url, pool_size=1, application="test")
    yield type(world)(api, session_factory(engine))
    await engine.dispose()


def body(query: str, variables: Any = None) -> dict[str, Any]:
    return {"query": query, "variables": variables}


async def until_away(api: Api, query: str) -> httpx.Response:
    """Send requests until a connection of the pool has noticed; return that response."""
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            response: httpx.Response = await api.client.post("/graphql", json=body(query))
            if "errors" in response.json():
                return response


async def until_back(api: Api) -> None:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while (await api.client.post("/graphql", json=body(CREATE))).status_code != 200:
            await asyncio.sleep(0.02)


def is_unavailable(response: httpx.Response) -> bool:
    """503 with a sentence, a code and the time to wait, and nothing else."""
    assert response.status_code == 503, response.text
    assert response.headers["retry-after"] == str(RETRY_AFTER_SECONDS)
    content = response.json()
    [error] = content["errors"]
    assert content.keys() == {"errors"}
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert error["message"].startswith("The database ")
    assert error["message"].endswith(": try again in a moment.")
    return True


@pytest.mark.parametrize("way", WAYS)
async def test_requests_are_told_so_and_the_log_has_two_lines(
    home: World, server: EmbeddedServer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.outage.REFUSAL_QUIET_SECONDS", 2.0)
    reads_work = way == "read-only"
    supervisor = await home.running()
    await supervisor.loss(1)
    client = home.api.client
    report = {"attemptId": supervisor.attempt_id, "nonce": supervisor.nonce, "batch": 2}
    report["points"] = {"loss": {"steps": [2], "values": [1.0], "elapsed": [1.0]}}

    def send_report() -> Any:
        query = "mutation R($i: ReportAttemptInput!) { reportAttempt(input: $i) { verdict expectedBatch } }"
        headers = {"authorization": f"Bearer {supervisor.token}"}
        return client.post("/graphql", json=body(query, {"i": report}), headers=headers)

    with capture_logs() as logged:
        async with WAYS[way](server):
            assert is_unavailable(await until_away(home.api, CREATE))
            answers = await asyncio.gather(*(client.post("/graphql", json=body(CREATE)) for _ in range(20)))
            assert all(is_unavailable(each) for each in answers)
            assert is_unavailable(await send_report()), "a supervisor keeps it, and sends it again"
            listed = await client.post("/graphql", json=body(LIST))
            assert listed.status_code == 200 if reads_work else is_unavailable(listed)
            ready = await client.get("/readyz")
            assert ready.status_code == (200 if reads_work else 503)
            assert (await client.get("/healthz")).status_code == 200
            metrics = (await client.get("/metrics")).text
            assert f"simulations_database_up {1.0 if reads_work else 0.0}" in metrics
        await until_back(home.api)
        assert (await client.get("/readyz")).status_code == 200
        stored = (await send_report()).json()["data"]["reportAttempt"]
        assert stored == {"verdict": "CONTINUE", "expectedBatch": 3}
        async with asyncio.timeout(RECOVERY_SECONDS):
            while home.api.live.outage.is_on:
                await asyncio.sleep(0.02)
    told = [entry for entry in logged if entry["log_level"] not in ("debug", "info")]
    assert [entry["event"] for entry in told] == ["database_away", "database_back"]
    assert [entry["log_level"] for entry in told] == ["warning", "warning"]
    assert not any(entry.get("exc_info") for entry in logged)


async def test_a_part_that_needs_no_database_comes_with_a_code_for_the_other(
    home: World, server: EmbeddedServer
) -> None:
    simulation = await home.simulation()
    async with killed(server):
        await until_away(home.api, LIST)
        query = "query ($id: ID!) { viewer { name } simulation(id: $id) { id } }"
        response = await home.api.client.post("/graphql", json=body(query, {"id": simulation}))
    assert response.status_code == 200
    content = response.json()
    assert content["data"] == {"viewer": {"name": "anonymous"}, "simulation": None}
    assert [error["extensions"]["code"] for error in content["errors"]] == ["UNAVAILABLE"]
    await until_back(home.api)


@pytest.mark.parametrize("before", [0, 1])
async def test_a_mutation_that_may_have_done_something_is_not_to_be_sent_again_unseen(
    api: Api, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = 'createSimulation(input: {entrypoint: ["true"]}) { simulation { id } }'
    calls = iter(range(10))
    create_really = simulations.create_all

    async def away_after_some(*given: Any, **named: Any) -> Any:
        if next(calls) >= before:
            raise DatabaseUnreachable.because("gone")
        return await create_really(*given, **named)

    monkeypatch.setattr(simulations, "create_all", away_after_some)
    response = await api.client.post("/graphql", json=body(f"mutation {{ a: {create} b: {create} }}"))
    assert response.status_code == 200
    [error] = response.json()["errors"]
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert error["message"].endswith("may have been stored: look before you try again.")


async def test_over_a_websocket_it_is_the_operations_error_and_the_socket_stays(
    home: World, server: EmbeddedServer
) -> None:
    async with killed(server):
        await until_away(home.api, LIST)
        async with home.api.subscribe(LIST) as results:
            with pytest.raises(Exception, match="UNAVAILABLE") as refused:
                await results.next()
            await results._socket.send('{"type": "ping"}')
            assert json.loads(await results._socket.recv())["type"] == "pong"
    [error] = refused.value.errors  # type: ignore[attr-defined]
    assert error["message"] == "The database does not answer: try again in a moment."
    await until_back(home.api)


async def test_a_query_by_server_sent_events_is_told_so_by_the_status_and_an_event_source_comes_back(
    home: World, server: EmbeddedServer
) -> None:
    stream = {"accept": "text/event-stream"}
    async with killed(server):
        await until_away(home.api, LIST)
        posted = await home.api.client.post("/graphql", json=body(LIST), headers=stream)
        got = await home.api.client.get(f"/graphql?{urlencode({'query': LIST})}", headers=stream)
    assert is_unavailable(posted)
    assert got.status_code == 200
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.text.startswith("retry: ")
    assert "event:" not in got.text, "neither a result nor an end: 204 would be for good"
    await until_back(home.api)


async def test_during_an_outage_tokens_get_503_and_streams_stay_open(
    server: EmbeddedServer, serve: Serve, home: World
) -> None:
    api = await serve(database_url=server.url, database_pool_size=2, allowed_hosts=("127.0.0.1",))
    token = {"authorization": "Bearer sim_" + "x" * 43}
    assert (await api.client.post("/graphql", json=body(LIST), headers=token)).status_code == 401
    async with killed(server):
        async with asyncio.timeout(RECOVERY_SECONDS):
            while (await api.client.post("/graphql", json=body(LIST), headers=token)).status_code == 401:
                pass
        refused = await api.client.post("/graphql", json=body(LIST), headers=token)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, str(RETRY_AFTER_SECONDS))
        assert refused.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        session = await api.client.post("/session", json={"token": token["authorization"].split()[1]})
        assert (session.status_code, session.headers["retry-after"]) == (503, str(RETRY_AFTER_SECONDS))
        watching = {**token, "accept": "text/event-stream"}
        stream = await api.client.get(f"/graphql?{urlencode({'query': MACHINES})}", headers=watching)
        assert (stream.status_code, "event:" in stream.text) == (200, False)
    await until_back(home.api)


# --- subscriptions -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def over_sse(api: Api, query: str, variables: Any = None) -> AsyncIterator[Any]:
    """Its events' data, one by one, as `Subscription.next` gives them over a WebSocket."""
    headers = {"accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(base_url=api.address, timeout=RECOVERY_SECONDS, verify=False) as client,
        client.stream("POST", "/graphql", json=body(query, variables), headers=headers) as response,
        aclosing(response.aiter_lines()) as lines,
    ):
        assert response.status_code == 200

        class Events:
            async def next(self) -> Any:
                async for line in lines:
                    assert line != "event: complete", "it goes on"
                    if line.startswith("data: {"):
                        content = json.loads(line.removeprefix("data: "))
                        assert "errors" not in content, content
                        return next(iter(content["data"].values()))
                raise AssertionError("the stream has ended")

        yield Events()


PROTOCOLS = {"WebSocket": lambda api, *given: api.subscribe(*given), "SSE": over_sse}


LAST: dict[str, Callable[[Any], bool]] = {  # what comes after the outage
    "log": lambda chunk: chunk["text"] == "after\n",
    "curve": lambda event: bool(steps(event)),
    "one": lambda simulation: simulation["stopWanted"] is not None,
    "machines": lambda machine: machine["name"] == "new",
}


def steps(event: Any) -> list[int]:
    return [step for series in event["series"] for step in series["steps"]]


def halves(results: list[Any]) -> tuple[list[Any], list[Any]]:
    return results[: len(results) // 2], results[len(results) // 2 :]


async def until(events: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """What comes, up to what is wanted."""
    async with within(RECOVERY_SECONDS, "the event that is waited for"):
        got = [await events.next()]
        while not wanted(got[-1]):
            got.append(await events.next())
    return got


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", GONE)
async def test_what_is_watched_waits_and_so_does_what_is_opened_meanwhile(
    home: World, server: EmbeddedServer, way: str, protocol: str, wait_until: WaitUntil
) -> None:
    supervisor = await home.running()
    await supervisor.send(logs=[{"stream": "STDOUT", "text": "before\n"}])
    given = {"id": supervisor.simulation_id}
    asked = {"log": (LOG, given), "curve": (CURVE, given), "one": (SIMULATIONS, given), "machines": (MACHINES,)}
    open_, api = PROTOCOLS[protocol], home.api
    async with AsyncExitStack() as stack:
        early = {name: await stack.enter_async_context(open_(api, *each)) for name, each in asked.items()}
        assert (await early["log"].next())["text"] == "before\n"
        assert (await early["curve"].next())["state"] == "RUNNING"
        await wait_until(lambda: len(api.hub._watchers["simulations"]) == 1, "watched")  # type: ignore[index]
        async with GONE[way](server):
            await until_away(api, LIST)
            late = {name: await stack.enter_async_context(open_(api, *each)) for name, each in asked.items()}
            api.hub.look_again()
            waiting = [
                asyncio.create_task(until(events[name], wanted))
                for events in (early, late)
                for name, wanted in LAST.items()
            ]
            await until_away(api, LIST)
            assert not any(each.done() for each in waiting), "nothing has ended, and nothing of it came"
        await until_back(api)
        await supervisor.send(points={"loss": {"steps": [1], "values": [1.0], "elapsed": [1.0]}})
        await supervisor.send(logs=[{"stream": "STDOUT", "text": "after\n"}])
        await home.machine("new")
        await home.cancel(supervisor.simulation_id)
        async with asyncio.timeout(RECOVERY_SECONDS):
            logs, curves, ones, all_machines = zip(*halves(await asyncio.gather(*waiting)), strict=True)
    assert [[each["text"] for each in log] for log in logs] == [["after\n"], ["before\n", "after\n"]]
    assert [[steps(event) for event in curve if steps(event)] for curve in curves] == [[[1]], [[1]]]
    assert {each["id"] for changes in ones for each in changes} == {supervisor.simulation_id}
    assert all(each[-1] == {"name": "new"} for each in all_machines)


async def test_an_event_that_was_chosen_before_the_outage_is_executed_after_it(
    home: World, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it selects is read by loaders of its own."""
    simulation = await home.simulation()
    failures = iter([DatabaseUnreachable.because("gone")] * 2)
    load = Loaders._load_projects

    async def load_badly(self: Loaders, ids: list[int]) -> Any:
        for failure in failures:
            raise failure
        return await load(self, ids)

    monkeypatch.setattr(Loaders, "_load_projects", load_badly)
    async with home.api.subscribe(SIMULATIONS, {"id": simulation}) as changes:
        first = asyncio.create_task(changes.next())
        async with asyncio.timeout(RECOVERY_SECONDS):
            while not first.done():
                home.api.hub.look_again()
                await asyncio.sleep(0.02)
        assert (await first)["project"] == {"name": "default"}
    assert next(failures, None) is None


async def test_a_log_or_a_curve_that_is_read_from_its_beginning_meanwhile_is_read_after_it(
    home: World, server: EmbeddedServer
) -> None:
    supervisor = await home.running()
    for step in range(3):
        await supervisor.send(
            points={"loss": {"steps": [step], "values": [1.0], "elapsed": [1.0]}},
            logs=[{"stream": "STDOUT", "text": f"{step}\n"}],
        )
    await supervisor.exit()
    given = {"id": supervisor.simulation_id}
    thinned = "subscription ($id: ID!) { convergence(simulationId: $id, maxPoints: 2) { state } }"
    async with AsyncExitStack() as stack:
        async with hanging(server):
            await until_away(home.api, LIST)
            streams = [
                await stack.enter_async_context(home.api.subscribe(each, given)) for each in (LOG, CURVE, thinned)
            ]
        async with asyncio.timeout(RECOVERY_SECONDS):
            log, curve, thin = await asyncio.gather(*(each.all() for each in streams))
    assert [each["text"] for each in log] == ["0\n", "1\n", "2\n"]
    assert [step for each in curve for series in each["series"] for step in series["steps"]] == [0, 1, 2]
    assert thin[-1]["state"] == "FINISHED"


async def test_bare_connections_are_given_back_after_an_outage(home: World, server: EmbeddedServer) -> None:
    """Reports use them: a pool of two would be empty after two that were lost."""
    supervisor = await home.running()
    for _ in range(3):
        async with killed(server):
            await until_away(home.api, LIST)
            for _ in range(3):
                body_ = await home.api.client.post("/graphql", json=body(LIST))
                assert body_.status_code == 503
        await until_back(home.api)
        await supervisor.loss(supervisor.batch)
    async with driver_of(home.api.server.lifespan.state["sessions"]) as driver:
        assert await driver.fetchval("SELECT 1") == 1
