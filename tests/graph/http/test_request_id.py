"""Request ids: in the response, and in each log line of the request."""

from __future__ import annotations

import re
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger
from websockets.asyncio.client import connect

Api = Any  # the fixture of conftest.py
MADE = re.compile(r"[0-9a-f]{16}")


@pytest.fixture
def logged() -> list[dict[str, Any]]:
    """What is logged, with what is bound to the request."""
    lines: list[dict[str, Any]] = []

    def keep(_logger: object, _name: str, event: dict[str, Any]) -> str:
        lines.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep],
        logger_factory=lambda *_: CapturingLogger(),
        cache_logger_on_first_use=False,
    )
    return lines


@pytest.mark.parametrize("given", ["abc", "7f3.b-2_x:1", "A" * 128])
async def test_an_id_that_does_no_harm_is_passed_on(api: Api, given: str) -> None:
    for path in ("/healthz", "/readyz", "/nowhere"):
        assert (await api.client.get(path, headers={"x-request-id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "-x", "A" * 129, 'a"b', "a=b", "é"])
async def test_else_one_is_made(api: Api, given: str | None) -> None:
    headers = {"x-request-id": given.encode()} if given is not None else {}
    answers = [await api.client.get("/healthz", headers=headers) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert all(MADE.fullmatch(each) for each in made)
    assert len(set(made)) == 2


async def test_refusals_have_it_too(api: Api) -> None:
    refused = await api.client.get("/", headers={"host": "elsewhere.example", "x-request-id": "r1"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (421, "r1")


async def test_what_is_logged_for_a_request_has_its_id(api: Api, logged: list[dict[str, Any]]) -> None:
    token = {"authorization": "Bearer sim_" + "x" * 43, "x-request-id": "r2"}
    assert (await api.client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=token)).status_code == 401
    [line] = [line for line in logged if line["event"] == "login_failed"]
    assert line["request_id"] == "r2"


async def test_a_socket_has_one_id_for_as_long_as_it_is_open(api: Api, logged: list[dict[str, Any]]) -> None:
    async with connect(
        api.socket_address, subprotocols=["graphql-transport-ws"], additional_headers={"x-request-id": "s1"}, proxy=None
    ) as socket:  # type: ignore[list-item]  # a plain string is a subprotocol
        assert socket.response is not None
        assert socket.response.headers["x-request-id"] == "s1"
        await socket.send('{"type": "connection_init", "payload": {"token": "sim_' + "x" * 43 + '"}}')
        with pytest.raises(Exception, match="4403"):
            await socket.recv()
    [line] = [line for line in logged if line["event"] == "login_failed"]
    assert line["socket_id"] == "s1"
    assert "request_id" not in line
