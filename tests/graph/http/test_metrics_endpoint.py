"""`/metrics`: the format, who may read it, and that the numbers are right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import projects, tokens
from db.connection import create_engine, session_factory
from db.events import Actor
from db.states import Role

World = Any  # the fixtures of conftest.py
Api = Any
Serve = Callable[..., Awaitable[Api]]
Sessions = async_sessionmaker[AsyncSession]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
CURVE = "subscription ($id: ID!) { convergence(simulationId: $id) { series { metric steps values } } }"


async def scrape(api: Api) -> Samples:
    """Every sample by its name and labels."""
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    found: Samples = {}
    for family in families:
        assert family.name.startswith(("simulations_", "process_")), family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    return found


def point(step: int) -> dict[str, list[float]]:
    return {"steps": [step], "values": [1.0], "elapsed": [0.1]}


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def test_what_the_rows_say_is_told(world: World) -> None:
    await world.simulation()
    await world.running()
    found = await scrape(world.api)
    assert of(found, "simulations_database_up") == 1
    assert of(found, "simulations_queue_length", reason="NOT_PLANNED") == 1
    assert of(found, "simulations_queue_oldest_seconds", reason="NOT_PLANNED") >= 0
    assert of(found, "simulations_active", state="RUNNING") == 1
    assert of(found, "simulations_lost_attempts") == 0
    assert of(found, "simulations_silence_seconds", role="graph") < 60
    assert of(found, "simulations_database_connections") == 5


async def test_what_this_process_does_is_counted(world: World) -> None:
    supervisor = await world.running()
    async with world.api.subscribe(CURVE, {"id": supervisor.simulation_id}) as events:
        await events.next()
        for step in range(3):
            await supervisor.send(points={"loss": point(step), "accuracy": point(step)})
            while not (await events.next())["series"]:
                pass
        found = await scrape(world.api)
        assert of(found, "simulations_reports_total") == 3
        assert of(found, "simulations_points_total") == 6
        assert of(found, "simulations_subscribers", kind="log") == 1
        assert of(found, "simulations_sockets") == 1
    assert of(found, "simulations_http_request_seconds_count", path="/graphql", status="200") >= 4

    async def delivered() -> float:
        return of(await scrape(world.api), "simulations_delivery_seconds_count")

    async with asyncio.timeout(60):
        while await delivered() < 3:  # the last is counted when everybody has it, who may be faster
            await asyncio.sleep(0.01)


async def test_an_unknown_path_is_no_label(api: Api) -> None:
    for number in range(5):
        await api.client.get(f"/nothing-{number}")
    found = await scrape(api)
    paths = {dict(labels)["path"] for name, labels in found if name == "simulations_http_request_seconds_count"}
    assert paths <= {"other", "/metrics"}
    assert of(found, "simulations_http_request_seconds_count", path="other", status="404") == 5


async def test_openmetrics_is_spoken_to_whom_asks_for_it(api: Api) -> None:
    answer = await api.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(answer.text)} >= {"simulations_reports", "simulations_sockets"}


async def test_the_rows_are_read_once_however_many_ask(api: Api, statements: Any) -> None:
    await scrape(api)
    await asyncio.gather(*(scrape(api) for _ in range(20)))
    assert len(statements.matching("WHERE s.state = 'QUEUED' GROUP BY")) <= 2


async def test_without_the_database_the_rest_is_told(serve: Serve) -> None:
    unreachable = create_engine("postgresql://u@127.0.0.1:1/x", pool_size=1)
    api = await serve(sessions=session_factory(unreachable))
    found = await scrape(api)
    assert of(found, "simulations_database_up") == 0
    assert of(found, "simulations_reports_total") == 0
    assert not [name for name, _ in found if name == "simulations_queue_length"]
    await unreachable.dispose()


@pytest.fixture
async def locked(serve: Serve) -> Api:
    return await serve(trusted_proxies=("10.0.0.1",))


async def test_where_a_login_is_needed_any_role_will_do_but_not_for_some_projects_only(
    locked: Api, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        _, viewer = await tokens.create(session, "prometheus", Role.VIEWER, Actor("ada"))
        mine = await projects.named(session, "mine", Actor("ada"))
        _, scoped = await tokens.create(session, "ci", Role.ADMIN, Actor("ada"), scope=frozenset({mine.id}))

    async def status(token: str | None) -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return int((await locked.client.get("/metrics", headers=headers)).status_code)

    assert await status(viewer) == 200
    assert await status(scoped) == 403
    assert await status(None) == 401
    assert await status("sim_" + "x" * 43) == 401
    assert await status("an attempt's") == 401


async def test_it_is_only_read(api: Api) -> None:
    assert (await api.client.post("/metrics")).status_code == 405
