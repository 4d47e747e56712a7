"""The Starlette application: the explorer, and outages of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

from db.connection import connect_raw
from db.embedded.server import EmbeddedServer
from graph.app import create_app
from settings import Settings

Api = Any  # the fixtures of conftest.py
World = Any
Serve = Any
WaitUntil = Any


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_ways_to_the_documentation_lead_to_the_explorer(api: Api, path: str) -> None:
    response = await api.client.get(path, headers={"accept": "text/html"}, follow_redirects=True)
    assert response.status_code == 200
    assert response.url.path.startswith("/graphql")
    assert "text/html" in response.headers["content-type"]
    assert "graphi" in response.text.lower()


def test_an_application_needs_the_url_of_a_database() -> None:
    with pytest.raises(ValueError, match="simulations up"):
        create_app(Settings())


def point(step: int) -> Any:
    return {"loss": {"steps": [step], "values": [1], "elapsed": [1]}}


Away = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def database_away(postgres_server: EmbeddedServer, database_url: str) -> Away:
    """Close the test's database for everybody, while the block runs."""
    name = database_url.partition("@/")[2].partition("?")[0]

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        connection = await connect_raw(postgres_server.url, application="fixtures")
        try:
            await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            ended = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = $1"
            await connection.execute(ended, name)
            try:
                yield
            finally:
                await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        finally:
            await connection.close()

    return away


async def test_the_process_survives_an_outage_of_the_database(
    world: World, serve: Serve, database_away: Away, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr("graph.app.BEAT_SECONDS", 0.02)
    api = await serve()
    supervisor = await world.running()
    await supervisor.loss(1)
    async with database_away():
        response = await api.client.get("/readyz")
        assert response.status_code == 503
        assert "refuses the connection" in response.json()["reason"]
        refused = await api.client.post("/graphql", json={"query": "{ simulations { nodes { id } } }"})
        assert refused.status_code == 503
        [error] = refused.json()["errors"]
        assert error["message"] == "The database does not answer: try again in a moment."
        supervisor.api = api
        with pytest.raises(AssertionError, match="UNAVAILABLE") as told:  # any status but 200
            await supervisor.report_body(batch=2, points=point(2))
        assert "OVER" not in str(told.value), "a supervisor goes on spooling"
        supervisor.api = world.api
        assert (await api.client.get("/healthz")).status_code == 200

    ready = await api.client.get("/readyz")
    assert ready.status_code == 200
    await supervisor.exit()
    assert (await world.show(supervisor.simulation_id))["state"] == "FINISHED"
    # Leases run only while reports can be delivered: the process must say again that they can.
    beat_at = "SELECT beat_at FROM coverage WHERE role = 'graph'"
    async with asyncio.timeout(60):
        for _ in range(2):
            since = await world.select(beat_at)
            while await world.select(beat_at) == since:
                pass


async def test_curves_go_on_after_the_database_was_away(world: World, database_away: Away) -> None:
    """Subscribers wait for the database, or are disconnected and resume at their cursor."""
    curve = """
    subscription ($id: ID!, $after: String) {
      convergence(simulationId: $id, after: $after) { cursor state series { steps } }
    }
    """
    supervisor = await world.running()
    await supervisor.loss(1)
    variables = {"id": supervisor.simulation_id}
    async with world.api.subscribe(curve, variables) as events:
        got = [await events.next()]
        async with database_away():
            pass
        async with asyncio.timeout(60):
            for given in ({"batch": 2, "points": point(2)}, {"batch": 3, "exit": {"exitCode": 0}}):
                reported = False
                while not reported:  # a pooled connection may not have noticed yet: a supervisor sends it again
                    with suppress(AssertionError):  # 503
                        reported = "errors" not in await supervisor.report_body(**given)
        with suppress(Exception):  # cut off, or not: both are fine
            while True:
                got.append(await events.next())
    async with world.api.subscribe(curve, {**variables, "after": got[-1]["cursor"]}) as events:
        got += await events.all()
    assert [step for event in got for series in event["series"] for step in series["steps"]] == [1, 2]
    assert got[-1]["state"] == "FINISHED"
