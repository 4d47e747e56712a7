"""Defects: masked for the client, logged once with a traceback."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from db.notifications import Channel

Api = Any  # the fixtures of conftest.py
Serve = Any

MASK = "Something went wrong on the server."


class Breakable:
    """A session factory that fails on demand, and whose error holds a secret."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self.broken = False

    def __call__(self) -> AsyncSession:
        return self._whole()()

    @property
    def kw(self) -> dict[str, Any]:
        """What the sessions are made with: the hottest statements go past them, to their engine."""
        return self._whole().kw

    def _whole(self) -> async_sessionmaker[AsyncSession]:
        if self.broken:
            raise RuntimeError("the secret of the house")
        return self._sessions


@pytest.fixture
def breakable(sessions: async_sessionmaker[AsyncSession]) -> Breakable:
    return Breakable(sessions)


@pytest.fixture
async def api(serve: Serve, breakable: Breakable, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr("graph.app.BEAT_SECONDS", 3_600)
    return await serve(breakable)


OPERATIONS = {
    "a query": "{ simulations { nodes { id } } }",
    "a nested loader": '{ node(id: "U2ltdWxhdGlvbjox") { id } }',
    "a mutation": 'mutation { createSimulation(input: {entrypoint: ["x"]}) { simulation { id } } }',
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
async def test_a_defect_is_masked_and_logged_once(api: Api, breakable: Breakable, operation: str) -> None:
    breakable.broken = True
    with capture_logs() as logged:
        body = await api.execute(operation)
    assert [error["message"] for error in body["errors"]] == [MASK]
    assert "secret" not in str(body)
    failures = [entry for entry in logged if entry["event"] == "resolver_failed"]
    assert len(failures) == 1
    assert isinstance(failures[0]["exc_info"], RuntimeError)
    assert failures[0]["path"]
    assert failures[0]["log_level"] == "error"


async def test_a_defect_in_a_subscription_is_masked_before_and_after_its_first_event(
    api: Api, breakable: Breakable
) -> None:
    created = await api.data(
        'mutation { createSimulation(input: {entrypoint: ["x"]}) { simulation { id } } }',
    )
    query = "subscription ($id: ID!) { convergence(simulationId: $id) { state } }"
    simulation = created["simulation"]
    for events_before in (0, 1):
        async with api.subscribe(query, simulation) as events:
            breakable.broken = events_before == 0
            with capture_logs() as logged:
                for _ in range(events_before):
                    await events.next()
                    breakable.broken = True
                    api.hub.heard(Channel.SIMULATIONS, None)
                with pytest.raises(Exception, match=MASK) as refused:
                    await events.next()
            breakable.broken = False
        assert "secret" not in str(refused.value)
        assert [entry["event"] for entry in logged].count("resolver_failed") == 1


async def test_a_subscriber_that_joins_while_others_get_an_error_gets_none(api: Api, breakable: Breakable) -> None:
    await api.data('mutation { createSimulation(input: {entrypoint: ["x"]}) { simulation { id } } }')
    with api.hub.tail(1) as tail:
        await tail.ready()
        breakable.broken, told = True, tail.pulse.next
        tail.stir()
        await told.wait()
        breakable.broken = False
        with pytest.raises(RuntimeError, match="secret"):
            await tail.ready()
        with api.hub.tail(1) as another:
            await another.ready()
            assert another.head is not None
    assert not api.hub._tails


async def test_what_the_client_did_wrong_is_not_logged_as_a_defect(api: Api) -> None:
    with capture_logs() as logged:
        await api.error("{ nonsense }")
        await api.error('{ simulation(id: "x") { id } }')
        await api.error("{ simulations(first: 0) { nodes { id } } }")
        await api.error('{ simulations(after: "x") { nodes { id } } }')
    assert logged == []
