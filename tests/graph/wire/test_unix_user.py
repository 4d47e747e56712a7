"""The Unix user of a local client, by real sockets of real users."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect

from graph.wire import unix_user
from graph.wire.unix_user import Peer, user_of

Api = Any  # the fixtures of conftest.py
World = Any
Serve = Any

ME = pwd.getpwuid(os.getuid()).pw_name
LOCAL_USER = f"{ME} (unverified)"
CREATE = """
mutation ($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id createdBy events { actor } } }
}
"""
INPUT = {"input": {"entrypoint": ["true"]}}
OTHER = "simulations"  # the user of the tests' PostgreSQL
POST = """
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"content-type": "application/json"})
print(urllib.request.urlopen(request).read().decode())
"""


@contextmanager
def connection(host: str, family: socket.AddressFamily = socket.AF_INET) -> Iterator[tuple[Any, Any, socket.socket]]:
    """The client's address and the server's, and the client's socket."""
    with (
        socket.create_server((host, 0), family=family) as listening,
        socket.create_connection(listening.getsockname()[:2]) as client,
    ):
        accepted, address = listening.accept()
        with accepted:
            yield address[:2], accepted.getsockname()[:2], client


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The clients that were looked up."""
    found: list[Any] = []

    def note(client: Any, server: Any) -> str | None:
        found.append(client)
        return user_of(client, server)

    monkeypatch.setattr(unix_user, "user_of", note)
    return found


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_the_user_of_a_loopback_connection_is_found(host: str, family: socket.AddressFamily) -> None:
    with connection(host, family) as (client, server, _):
        assert user_of(client, server) == ME


def test_a_socket_that_was_closed_has_no_user() -> None:
    """The kernel gives such a socket to root."""
    with connection("127.0.0.1") as (client, server, its_socket):
        its_socket.close()
        assert user_of(client, server) is None


def test_what_the_kernel_does_not_show_has_no_user() -> None:
    assert user_of(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert user_of(("192.0.2.1", 1), ("127.0.0.1", 2)) is None, "not of this host"
    assert user_of(("::ffff:127.0.0.1", 1), ("::ffff:127.0.0.1", 2)) is None
    assert user_of(("testclient", 1), ("127.0.0.1", 2)) is None
    assert user_of(None, None) is None


def test_a_user_without_a_name_stays_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with connection("127.0.0.1") as (client, server, _):
        assert user_of(client, server) is None


async def test_a_connection_is_looked_up_once(lookups: list[Any]) -> None:
    with connection("127.0.0.1") as (client, server, _):
        peer = Peer(client, server)
        assert not lookups
        assert await asyncio.gather(*(peer.user() for _ in range(5))) == [ME] * 5
        assert lookups == [client]


async def test_the_history_names_the_local_user(api: Api, lookups: list[Any]) -> None:
    for _ in range(2):
        made = (await api.data(CREATE, INPUT))["simulation"]
        assert (made["createdBy"], made["events"]) == (LOCAL_USER, [{"actor": LOCAL_USER}])
    assert len(lookups) == 1, "both came over one connection"


async def test_what_changes_nothing_looks_nothing_up(api: Api, world: World, lookups: list[Any]) -> None:
    running = await world.running()
    lookups.clear()
    await running.report()
    assert (await api.data("{ viewer { name } }"))["name"] == "anonymous"
    async with api.subscribe("subscription { simulationChanged { id } }"):
        pass
    assert not lookups


async def test_a_socket_is_looked_up_once_however_much_it_changes(api: Api, lookups: list[Any]) -> None:
    async with connect(api.socket_address, subprotocols=["graphql-transport-ws"], proxy=None) as opened:  # type: ignore[list-item]  # a plain string is one
        await opened.send('{"type": "connection_init"}')
        await opened.recv()
        for number in range(3):
            payload = {"query": CREATE, "variables": INPUT}
            await opened.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
            result = json.loads(await opened.recv())["payload"]["data"]["createSimulation"]
            assert result["simulation"]["createdBy"] == LOCAL_USER
            assert json.loads(await opened.recv())["type"] == "complete"
    assert len(lookups) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_each_user_has_a_name_of_their_own(api: Api) -> None:
    body = json.dumps({"query": CREATE, "variables": INPUT})
    program = await asyncio.create_subprocess_exec(
        "setpriv", f"--reuid={OTHER}", "--clear-groups", "/usr/bin/env", "python3", "-c", POST,
        f"{api.address}/graphql", body, stdout=subprocess.PIPE,
    )  # fmt: skip
    answer = json.loads((await program.communicate())[0])
    assert answer["data"]["createSimulation"]["simulation"]["createdBy"] == f"{OTHER} (unverified)"


async def test_without_a_peer_that_is_known_the_actor_is_anonymous(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_user, "user_of", lambda _client, _server: None)
    assert (await api.data(CREATE, INPUT))["simulation"]["createdBy"] == "anonymous"


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip"])
async def test_nothing_that_a_proxy_forwards_is_named(api: Api, lookups: list[Any], header: str) -> None:
    body = {"query": CREATE, "variables": INPUT}
    answer = await api.client.post("/graphql", json=body, headers={header: "127.0.0.1"})
    assert answer.status_code == 403
    assert not lookups


async def test_where_a_login_is_needed_the_token_is_named(serve: Serve, lookups: list[Any]) -> None:
    api = await serve(trusted_proxies=("127.0.0.1",))
    assert (await api.client.post("/graphql", json={"query": CREATE, "variables": INPUT})).status_code == 401
    assert not lookups
