"""Health endpoints: alive, ready, or not ready and why."""

from __future__ import annotations

import re
from typing import Any

import pytest

from db.errors import DatabaseUnreachable
from db.schema import SchemaMismatch
from graph.app import check_database

Api = Any  # the fixtures of conftest.py
World = Any
Serve = Any

NOWHERE = "postgresql://ada@/anything?host=/tmp/there-is-no-such-directory"


async def test_a_process_that_can_serve_is_alive_and_ready(api: Api) -> None:
    for path, status in (("/healthz", "alive"), ("/readyz", "ready")):
        response = await api.client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": status})


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM alembic_version", "Run: simulations migrate"),
        ("UPDATE alembic_version SET version_num = '0000'", "migrated by a newer one"),
        ("UPDATE alembic_version SET version_num = '0001'", "older .0001. than this version"),
        ("DROP TABLE alembic_version", "Run: simulations migrate"),
    ],
)
async def test_it_is_not_ready_while_the_schema_is_another(world: World, statement: str, reason: str) -> None:
    await world.select(statement)
    response = await world.api.client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["status"] == "not ready"
    assert re.search(reason, response.json()["reason"])
    assert (await world.api.client.get("/healthz")).status_code == 200
    with pytest.raises(SchemaMismatch, match=reason):
        await check_database(world.api.settings)


async def test_it_starts_without_a_database_and_says_what_is_missing(serve: Serve) -> None:
    api = await serve(database_url=NOWHERE)
    response = await api.client.get("/readyz")
    assert response.status_code == 503
    assert "No PostgreSQL server answers at /tmp/there-is-no-such-directory" in response.json()["reason"]
    assert (await api.client.get("/healthz")).status_code == 200
    with pytest.raises(DatabaseUnreachable):
        await check_database(api.settings)
