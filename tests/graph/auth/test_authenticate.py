"""Authentication over HTTP, streams and sockets: tokens and cookies, against real servers by raw clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import gql
import httpx
import pytest
from gql.transport.exceptions import TransportError
from sqlalchemy import CursorResult, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from cli import requests
from cli import server as client
from cli.errors import ServerRefused
from db import projects, tokens
from db.errors import DatabaseUnreachable
from db.events import Actor
from db.states import Role

Api = Any  # the fixtures of conftest.py
World = Any
Serve = Any
WaitUntil = Any
Sessions = async_sessionmaker[AsyncSession]

PATIENCE_SECONDS = 60
ADA = Actor("ada")
PROTOCOL = [Subprotocol("graphql-transport-ws")]
FOREIGN = "https://evil.example"
LOCKED = {"allowed_hosts": ("simulations.example",)}  # reached by another name: so a login is needed
UNKNOWN = f"{tokens.PREFIX}{'x' * 43}"

ME = "{ viewer { name role projects { name } } }"
CREATE = "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id name } %s } }"
SUBMIT = CREATE % "userErrors { code message field }"
CURVE = "subscription ($id: ID!) { convergence(simulationId: $id) { cursor state series { metric steps } } }"
CHANGES = "subscription { simulationChanged { name } }"
RETRY = "mutation ($id: ID!) { retrySimulation(input: {id: $id}) { simulation { id } userErrors { code } } }"
CANCEL = "mutation ($id: ID!) { cancelSimulation(input: {id: $id}) { simulation { id } userErrors { code } } }"
LOOK_UP = "FROM members WHERE token_digest ="  # of an attempt's token


class Tokens:
    """Who may come in."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def make(
        self, name: str, role: Role = Role.ADMIN, *, project: str | None = None, lifetime: timedelta | None = None
    ) -> str:
        async with self.sessions.begin() as session:
            scope = frozenset({(await projects.named(session, project, ADA)).id}) if project else None
            return (await tokens.create(session, name, role, ADA, scope=scope, lifetime=lifetime))[1]

    async def revoke(self, name: str) -> None:
        async with self.sessions.begin() as session:
            token = await tokens.find_named(session, name)
            assert token is not None
            await tokens.revoke(session, token.id, ADA)

    async def expire(self, name: str) -> None:
        await self.sql("UPDATE tokens SET expires_at = now() WHERE name = :name", name=name)

    async def sql(self, statement: str, **values: Any) -> Any:
        async with self.sessions.begin() as session:
            result = await session.execute(text(statement), values)
            assert isinstance(result, CursorResult)
            return [tuple(row) for row in result] if result.returns_rows else []

    async def dead(self) -> dict[str, str]:
        """One invalid token of each kind."""
        found = {"unknown": UNKNOWN, "malformed": f"{tokens.PREFIX}\u00e9 ' OR 1=1"}
        for kind, end in (("revoked", self.revoke), ("expired", self.expire)):
            found[kind] = await self.make(kind)
            await end(kind)
        return found


@pytest.fixture
def keys(sessions: Sessions) -> Tokens:
    return Tokens(sessions)


@pytest.fixture
async def locked(serve: Serve) -> Api:
    """A graph process that requires a token."""
    api = await serve(**LOCKED)
    assert api.settings.requires_login
    return api


# --- raw clients -------------------------------------------------------------------------------------------------


def bearer(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token is not None else {}


async def post(
    api: Api, query: str, variables: Any = None, *, token: str | None = None, **given: Any
) -> httpx.Response:
    headers = {**bearer(token), **given.pop("headers", {})}
    encoded = {name: value.encode() for name, value in headers.items()}
    response = await api.client.post(
        "/graphql", json={"query": query, "variables": variables}, headers=encoded, **given
    )
    assert isinstance(response, httpx.Response)
    return response


@asynccontextmanager
async def stream(
    api: Api, query: str, variables: Any = None, *, token: str | None = None, **headers: str
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[str]]]:
    """A subscription as server-sent events: the response, and the names of its events."""
    headers = {"accept": "text/event-stream", **bearer(token), **headers}
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        httpx.AsyncClient(base_url=api.address, timeout=PATIENCE_SECONDS, verify=False) as own,
        own.stream("POST", "/graphql", json={"query": query, "variables": variables}, headers=headers) as response,
    ):
        yield response, _names(response)


async def _names(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith("event:"):
            yield line.partition(":")[2].strip()


@asynccontextmanager
async def opened(api: Api, payload: Any = None, **headers: str) -> AsyncIterator[ClientConnection]:
    """A socket with `connection_init` said on it."""
    async with connect(api.socket_address, subprotocols=PROTOCOL, additional_headers=headers, proxy=None) as socket:
        await socket.send(json.dumps({"type": "connection_init", **({"payload": payload} if payload else {})}))
        yield socket


async def say(socket: ClientConnection, query: str, variables: Any = None, *, number: str = "1") -> None:
    payload = {"query": query, "variables": variables}
    await socket.send(json.dumps({"id": number, "type": "subscribe", "payload": payload}))


async def hear(socket: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return json.loads(await socket.recv())


async def closing(socket: ClientConnection) -> tuple[int, str]:
    """The server's close frame, after any messages."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
        await socket.wait_closed()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


async def ask_on_socket(api: Api, query: str, variables: Any = None, *, payload: Any = None, **headers: str) -> Any:
    """The first answer to an operation, or (code, reason) of the close."""
    async with opened(api, payload, **headers) as socket:
        try:
            assert (await hear(socket))["type"] == "connection_ack"
        except ConnectionClosed:
            return await closing(socket)
        await say(socket, query, variables)
        return await hear(socket)


async def who_on_socket(api: Api, payload: Any = None, **headers: str) -> Any:
    answer = await ask_on_socket(api, ME, payload=payload, **headers)
    return answer["payload"]["data"]["viewer"]["name"] if isinstance(answer, dict) else answer


async def sign_in(api: Api, token: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=api.address, verify=False) as own:
        return await own.post("/session", json={"token": token}, headers=headers)


def cookie_of(response: httpx.Response) -> tuple[str, dict[str, str | bool]]:
    """`name=value` and the attributes of the one cookie that is set."""
    (header,) = response.headers.get_list("set-cookie")
    pair, *attributes = header.split("; ")
    named = (each.partition("=") for each in attributes)
    return pair, {name.lower(): value if equals else True for name, equals, value in named}


async def cookie_for(api: Api, token: str) -> dict[str, str]:
    response = await sign_in(api, token)
    assert response.status_code == 200, response.text
    return {"cookie": cookie_of(response)[0]}


# --- no token, and invalid tokens ---------------------------------------------------------------------------------


def is_401(response: httpx.Response) -> bool:
    (error,) = response.json()["errors"]
    assert error["message"].endswith(".")
    assert response.headers["www-authenticate"] == "Bearer"
    return response.status_code == 401 and error["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_a_request_without_a_token_gets_401_where_a_login_is_needed(locked: Api) -> None:
    assert is_401(await post(locked, ME))
    assert is_401(await post(locked, ME, headers={"authorization": "Basic YWRhOnNlY3JldA=="}))
    assert is_401(await post(locked, "{ not even GraphQL"))
    assert is_401(await locked.client.get(f"/graphql?{urlencode({'query': ME})}"))
    assert is_401(await locked.client.get("/session"))
    async with stream(locked, CHANGES) as (response, _):
        await response.aread()
        assert is_401(response)
    code, reason = await ask_on_socket(locked, ME)
    assert code == 4403
    assert reason.startswith("This needs an API token")
    assert reason.endswith("connection_init.")


async def test_an_operation_before_connection_init_is_not_executed(locked: Api) -> None:
    async with connect(locked.socket_address, subprotocols=PROTOCOL, proxy=None) as socket:
        await say(socket, ME)
        assert (await closing(socket))[0] == 4401


async def test_pages_and_probes_are_there_for_everybody(locked: Api) -> None:
    page = await locked.client.get("/graphql", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    for path in ("/healthz", "/readyz"):
        assert (await locked.client.get(path)).status_code == 200


async def test_on_this_host_who_sends_nothing_is_the_admin(api: Api) -> None:
    assert (await post(api, ME)).json()["data"]["viewer"]["name"] == "anonymous"
    assert (await api.client.get("/session")).json() == {"name": "anonymous", "role": "ADMIN", "expiresAt": None}
    assert await who_on_socket(api) == "anonymous"
    assert await who_on_socket(api, {"Authorization": ""}) == "anonymous", "as pages send it that have no token"


@pytest.mark.parametrize("settings", [{}, LOCKED], ids=["on this host", "where a login is needed"])
async def test_an_invalid_token_is_refused_on_every_transport(
    serve: Serve, keys: Tokens, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.auth.authenticate.FAILURES_PER_MINUTE", 1_000)
    api = await serve(**settings)
    for kind, token in (await keys.dead()).items():
        assert is_401(await post(api, ME, token=token)), kind
        assert is_401(await api.client.get("/session", headers={"authorization": f"Bearer {token}".encode()})), kind
        assert is_401(await sign_in(api, token)), kind
        if token.isascii():
            async with stream(api, CHANGES, token=token) as (response, _):
                await response.aread()
                assert is_401(response), kind
        expected = (4403, "This token is unknown, expired or revoked.")
        assert await ask_on_socket(api, ME, payload={"token": token}) == expected, kind


# --- those who are -----------------------------------------------------------------------------------------------


async def test_a_token_comes_in_on_every_transport_and_the_history_names_it(
    locked: Api, world: World, keys: Tokens
) -> None:
    token = await keys.make("grace")
    assert (await post(locked, ME, token=token)).json()["data"]["viewer"] == {
        "name": "grace", "role": "ADMIN", "projects": None,
    }  # fmt: skip
    for payload in ({"Authorization": f"Bearer {token}"}, {"authorization": f"bearer {token}"}, {"token": token}):
        assert await who_on_socket(locked, payload) == "grace"
    assert await who_on_socket(locked, **bearer(token)) == "grace"
    supervisor = await world.running()
    await supervisor.exit()
    async with stream(locked, CURVE, {"id": supervisor.simulation_id}, token=token) as (response, events):
        assert response.status_code == 200
        assert [name async for name in events][-1] == "complete"
    made = await post(locked, SUBMIT, {"input": {"entrypoint": ["true"]}}, token=token)
    assert made.json()["data"]["createSimulation"]["userErrors"] == []
    ((actor, origin),) = await keys.sql("SELECT actor, origin FROM events ORDER BY id DESC LIMIT 1")
    assert (actor, origin) == ("grace", "127.0.0.1")


async def test_what_connection_init_says_wins_over_the_handshake(locked: Api, keys: Tokens) -> None:
    ada, bob = await keys.make("ada"), await keys.make("bob")
    assert await who_on_socket(locked, {"token": ada}, **bearer(bob)) == "ada"
    assert (await who_on_socket(locked, {"token": UNKNOWN}, **bearer(bob)))[0] == 4403


@pytest.mark.parametrize(
    "payload", [{"Authorization": 7}, {"Authorization": "sim_x"}, {"token": ["sim_x"]}, {"authorization": {"a": 1}}]
)
async def test_what_can_not_be_meant_as_a_token_is_refused_in_connection_init(api: Api, payload: Any) -> None:
    code, reason = await ask_on_socket(api, ME, payload=payload)
    assert code == 4403
    assert reason.startswith(f"{next(iter(payload))} in connection_init is a string")


# --- the end of a token ends what it opened ----------------------------------------------------------------------

End = Callable[[Tokens, str], Awaitable[None]]


@pytest.fixture(params=["revoked", "expired", "revoked and not announced"])
async def end(request: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tokens, str], Awaitable[None]]:
    if request.param == "revoked":
        monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 3_600)
        return Tokens.revoke
    monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 0.05)

    async def quietly(keys: Tokens, name: str) -> None:
        await keys.sql("UPDATE tokens SET revoked_at = now() WHERE name = :name", name=name)

    return Tokens.expire if request.param == "expired" else quietly


async def test_a_socket_is_closed_when_its_token_ends_and_the_others_are_not(
    end: End, serve: Serve, world: World, keys: Tokens
) -> None:
    api = await serve(**LOCKED)
    supervisor = await world.running()
    ada, bob = await keys.make("ada"), await keys.make("bob")
    async with opened(api, {"token": ada}) as hers, opened(api, {"token": bob}) as his:
        for socket in (hers, his):
            await hear(socket)
            await say(socket, CURVE, {"id": supervisor.simulation_id})
            await hear(socket)
        await end(keys, "ada")
        assert await closing(hers) == (4403, "The token was revoked or has expired.")
        await supervisor.loss(1)
        told = await hear(his)
        assert told["payload"]["data"]["convergence"]["series"] == [{"metric": "loss", "steps": [1]}]
    assert (await ask_on_socket(api, ME, payload={"token": ada}))[0] == 4403


async def test_a_stream_ends_without_complete_when_its_token_ends_and_coming_back_is_401(
    end: End, serve: Serve, world: World, keys: Tokens
) -> None:
    api = await serve(**LOCKED)
    supervisor = await world.running()
    ada, bob = await keys.make("ada"), await keys.make("bob")
    given = {"id": supervisor.simulation_id}
    async with stream(api, CURVE, given, token=ada) as (_, hers), stream(api, CURVE, given, token=bob) as (_, his):
        assert (await anext(hers), await anext(his)) == ("next", "next")
        await end(keys, "ada")
        assert "complete" not in [name async for name in hers]
        await supervisor.loss(1)
        assert await anext(his) == "next"
    async with stream(api, CURVE, given, token=ada) as (response, _):
        await response.aread()
        assert is_401(response)


async def test_a_socket_that_was_opened_by_a_cookie_ends_with_its_token(locked: Api, keys: Tokens) -> None:
    cookie = await cookie_for(locked, await keys.make("ada"))
    async with opened(locked, **cookie) as socket:
        assert (await hear(socket))["type"] == "connection_ack"
        await keys.revoke("ada")
        assert (await closing(socket))[0] == 4403


@pytest.mark.parametrize("notified", [True, False], ids=["notified", "looked for"])
async def test_signing_out_ends_what_the_cookie_opened_in_every_process_and_nothing_else(
    serve: Serve, world: World, keys: Tokens, monkeypatch: pytest.MonkeyPatch, notified: bool
) -> None:
    monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 3_600 if notified else 0.05)
    here, elsewhere = await serve(**LOCKED, notifications=notified), await serve(**LOCKED, notifications=notified)
    given, token = {"id": (await world.running()).simulation_id}, await keys.make("ada")
    hers, other = await cookie_for(here, token), await cookie_for(here, token)
    async with (
        opened(here, **hers) as socket, opened(elsewhere, **hers) as far_socket, opened(here, **other) as kept,
        stream(elsewhere, CURVE, given, **hers) as (_, events), opened(here, {"token": token}) as by_token,
    ):  # fmt: skip
        for each in (socket, far_socket, kept, by_token):
            assert (await hear(each))["type"] == "connection_ack"
            await say(each, CURVE, given)
            assert (await hear(each))["type"] == "next"
        assert await anext(events) == "next"
        assert (await here.client.delete("/session", headers=hers)).status_code == 204
        for each in (socket, far_socket):
            assert await closing(each) == (4403, "This browser signed out, or its token was revoked or has expired.")
        assert "complete" not in [name async for name in events]
        for each in (kept, by_token):
            await say(each, ME, number="2")
            assert (await hear(each))["payload"]["data"]["viewer"]["name"] == "ada"


# --- another project, and tokens of attempts ---------------------------------------------------------------------


async def test_what_is_of_another_project_is_not_there_on_any_transport(
    locked: Api, world: World, keys: Tokens
) -> None:
    token = await keys.make("ada", Role.OPERATOR, project="hers")
    theirs = {"id": (await world.running()).simulation_id}
    answer = await post(
        locked, "query ($id: ID!) { simulation(id: $id) { id } node(id: $id) { id } }", theirs, token=token
    )
    assert answer.json() == {"data": {"simulation": None, "node": None}, **_extensions(answer)}
    for mutation in (CANCEL, RETRY):
        (payload,) = (await post(locked, mutation, theirs, token=token)).json()["data"].values()
        assert payload == {"simulation": None, "userErrors": [{"code": "NOT_FOUND"}]}
    told = await ask_on_socket(locked, CURVE, theirs, payload={"token": token})
    (error,) = told["payload"] if isinstance(told["payload"], list) else told["payload"]["errors"]
    assert error["extensions"]["code"] == "NOT_FOUND"
    async with stream(locked, CURVE, theirs, token=token) as (response, _):
        await response.aread()
        assert response.status_code == 404


def _extensions(answer: httpx.Response) -> dict[str, Any]:
    return {"extensions": answer.json()["extensions"]} if "extensions" in answer.json() else {}


async def test_viewers_of_different_projects_on_sockets_get_each_their_own(
    locked: Api, world: World, keys: Tokens
) -> None:
    await keys.make("admin")
    hers = await keys.make("ada", Role.VIEWER, project="hers")
    his = await keys.make("bob", Role.OPERATOR, project="his")
    everybodys = await keys.make("eve", Role.VIEWER)
    supervisor = await world.running(project="hers")
    await supervisor.loss(1)
    for token, may in ((hers, True), (his, False), (everybodys, True)):
        told = await ask_on_socket(locked, CURVE, {"id": supervisor.simulation_id}, payload={"token": token})
        assert (told["type"] == "next" and "errors" not in told["payload"]) is may, told

    async with (
        opened(locked, {"token": hers}) as a,
        opened(locked, {"token": his}) as b,
        opened(locked, {"token": everybodys}) as c,
    ):
        for socket in (a, b, c):
            await hear(socket)
            await say(socket, CHANGES)
        names = await _changes_until(world, a, b, c)
    assert names == [{"of hers"}, {"of his"}, {"of hers", "of his"}]


async def _changes_until(world: World, *sockets: ClientConnection) -> list[set[str]]:
    """Change something of each project until all sockets got an event; return the names that each of them got."""
    told: list[set[str]] = [set() for _ in sockets]

    async def listen(socket: ClientConnection, names: set[str]) -> None:
        while True:
            message = json.loads(await socket.recv())
            names.add(message["payload"]["data"]["simulationChanged"]["name"])

    listening = [asyncio.create_task(listen(socket, names)) for socket, names in zip(sockets, told, strict=True)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "of his" not in told[1] or "of hers" not in told[0] or len(told[2]) < 2:
            for project in ("his", "hers"):
                await world.simulation(project=project, name=f"of {project}")
            done, _ = await asyncio.wait(listening, timeout=0.05)
            assert not done, done
    for task in listening:
        task.cancel()
    await asyncio.wait(listening)
    return told


async def test_the_token_of_an_attempt_is_for_its_own_reports_only(locked: Api, world: World, keys: Tokens) -> None:
    simulation = await world.simulation()
    other = await world.attempt(await world.simulation())
    supervisor = await world.attempt(simulation)
    supervisor.api = other.api = locked
    assert (await supervisor.hello())["verdict"] == "CONTINUE", "without any API token"
    (error,) = (await supervisor.hello_body(token=other.token))["errors"]
    assert error["extensions"]["code"] == "UNAUTHENTICATED"
    (error,) = (await supervisor.report_body(token=other.token))["errors"]
    assert error["extensions"]["code"] == "UNAUTHENTICATED"
    for query in (
        ME,
        "{ simulations { nodes { id } } }",
        'mutation { createToken(input: {name: "x", role: ADMIN}) { secret } }',
    ):
        answer = (await post(locked, query, token=supervisor.token)).json()
        assert [each["extensions"]["code"] for each in answer["errors"]] == ["UNAUTHENTICATED"]
    told = await ask_on_socket(locked, CURVE, {"id": simulation}, payload={"token": supervisor.token})
    assert told == (4403, "This is no API token: they begin with sim_.")
    async with stream(locked, CURVE, {"id": simulation}, token=supervisor.token) as (response, _):
        assert response.status_code == 401
    assert is_401(await sign_in(locked, supervisor.token))
    assert is_401(await locked.client.get("/session", headers=bearer(supervisor.token)))
    answer = await supervisor.hello_body(token=await keys.make("admin"))
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


UNKNOWN_BEARERS = {"no token at all": "x", "what could be an attempt's": "y" * 43, "an unknown API token": UNKNOWN}


@pytest.mark.parametrize("settings", [{}, LOCKED], ids=["on this host", "where a login is needed"])
@pytest.mark.parametrize("token", UNKNOWN_BEARERS.values(), ids=UNKNOWN_BEARERS.keys())
async def test_an_unknown_bearer_is_401_before_its_body_is_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, settings: Any, token: str
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the body was read")

    monkeypatch.setattr("graph.http.protocol._body", read)
    monkeypatch.setattr("graph.http.protocol._operation", read)
    api = await serve(**settings)
    for answer in (
        await post(api, ME, token=token),
        await api.client.post("/graphql", content=b"{" * 100_000, headers=bearer(token)),
        await api.client.get("/graphql", params={"query": ME}, headers=bearer(token)),
    ):
        assert is_401(answer)


async def test_an_attempts_token_is_looked_up_once_and_its_reports_are_one_statement(
    serve: Serve, world: World, engine: Any, statements: Any
) -> None:
    api, again = await serve(**LOCKED, sessions=world.sessions), await serve(**LOCKED, sessions=world.sessions)
    supervisor = await world.running()
    for process in (api, again):
        supervisor.api = process
        with statements.of(engine, bare=True):
            await supervisor.report()
        assert len(statements.matching(LOOK_UP)) == 1, "this process finds it"
        statements.clear()
        with statements.of(engine, bare=True):
            await supervisor.report()
        assert statements.matching(LOOK_UP) == [], "and knows it from then on"
        assert statements.matching("UPDATE members") != [], "its report was seen"
        statements.clear()
        with statements.of(engine):
            for _ in range(3):
                await supervisor.loss(supervisor.batch)
        assert statements.matching("attempts") == [], "what stores them goes to the driver directly"


async def test_unknown_attempts_are_limited_per_address_and_lock_out_neither_people_nor_known_supervisors(
    serve: Serve, world: World, keys: Tokens, monkeypatch: pytest.MonkeyPatch, engine: Any, statements: Any
) -> None:
    monkeypatch.setattr("graph.auth.authenticate.ATTEMPT_FAILURES_PER_MINUTE", 5)
    api = await serve(**LOCKED, sessions=world.sessions)
    supervisor, later = await world.running(), await world.attempt(await world.simulation())
    supervisor.api = later.api = api
    await supervisor.loss(1)
    with statements.of(engine, bare=True):
        statuses = [(await post(api, ME, token=letter * 43)).status_code for letter in "abcdefgh"]
    assert statuses == [401] * 5 + [429] * 3
    assert len(statements.matching(LOOK_UP)) == 5
    await supervisor.loss(2)
    assert (await post(api, ME, token=await keys.make("ada"))).status_code == 200
    assert (await post(api, "{", token=later.token)).status_code == 429


# --- browsers ----------------------------------------------------------------------------------------------------


async def test_a_browser_exchanges_a_token_for_a_cookie_and_signs_out(locked: Api, keys: Tokens) -> None:
    token = await keys.make("ada", Role.OPERATOR)
    response = await sign_in(locked, f" {token}\n")
    pair, attributes = cookie_of(response)
    assert response.json()["name"] == "ada"
    assert response.json()["role"] == "OPERATOR"
    assert {"path": "/", "httponly": True, "samesite": "Strict"}.items() <= attributes.items()
    assert "secure" not in attributes
    assert 29 * 86_400 < int(str(attributes["max-age"])) <= 30 * 86_400
    assert token not in f"{response.headers}{response.text}"
    assert await keys.sql("SELECT 1 FROM logins WHERE digest = :value", value=pair.encode()) == []

    cookie = {"cookie": f"other=1; {pair}"}
    assert (await post(locked, ME, headers=cookie)).json()["data"]["viewer"]["name"] == "ada"
    assert (await locked.client.get("/session", headers=cookie)).json()["name"] == "ada"
    assert await who_on_socket(locked, **cookie) == "ada"
    async with stream(locked, CHANGES, **cookie) as (events, _):
        assert events.status_code == 200

    signed_out = await locked.client.delete("/session", headers=cookie)
    assert signed_out.status_code == 204
    assert cookie_of(signed_out)[1]["max-age"] == "0"
    again = await post(locked, ME, headers=cookie)
    assert is_401(again), "wherever the cookie was copied to"
    assert (await post(locked, ME, token=token)).status_code == 200, "the token is still good"
    kinds = await keys.sql("SELECT kind, actor, origin FROM events WHERE object_type = 'Token' ORDER BY id")
    assert kinds[1:] == [("SIGNED_IN", "ada", "127.0.0.1"), ("SIGNED_OUT", "ada", "127.0.0.1")]


async def test_a_cookie_ends_with_its_token_and_the_browser_is_told_to_forget_it(
    api: Api, locked: Api, keys: Tokens
) -> None:
    for name, end in (("ada", Tokens.revoke), ("bob", Tokens.expire)):
        cookie = await cookie_for(locked, await keys.make(name))
        await end(keys, name)
        for each in (locked, api):
            ended = await post(each, ME, headers=cookie)
            assert is_401(ended)
            assert cookie_of(ended)[1]["max-age"] == "0"
    assert (await ask_on_socket(api, ME, **cookie))[0] == 4403


async def test_a_cookie_never_lasts_longer_than_its_token(locked: Api, keys: Tokens) -> None:
    response = await sign_in(locked, await keys.make("ada", lifetime=timedelta(minutes=10)))
    assert 500 < int(str(cookie_of(response)[1]["max-age"])) <= 601
    ((least,),) = await keys.sql("SELECT bool_and(l.expires_at = t.expires_at) FROM logins l JOIN tokens t ON true")
    assert least
    await keys.sql("UPDATE logins SET expires_at = now()")
    assert is_401(await post(locked, ME, headers={"cookie": cookie_of(response)[0]}))


async def test_what_has_ended_is_forgotten_and_one_token_opens_not_too_many(
    locked: Api, keys: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.logins.MOST_PER_TOKEN", 2)
    ada, bob = await keys.make("ada"), await keys.make("bob")
    his = await cookie_for(locked, bob)
    cookies = [await cookie_for(locked, ada) for _ in range(3)]
    answers = [(await post(locked, ME, headers=cookie)).status_code for cookie in (his, *cookies)]
    assert answers == [200, 401, 200, 200]
    await keys.sql("UPDATE logins SET expires_at = now()")
    await cookie_for(locked, bob)
    assert await keys.sql("SELECT count(*) FROM logins") == [(1,)]


async def test_signing_in_again_ends_the_earlier_login(locked: Api, keys: Tokens) -> None:
    token = await keys.make("ada")
    earlier = await cookie_for(locked, token)
    later = cookie_of(await sign_in(locked, token, **earlier))[0]
    assert is_401(await post(locked, ME, headers=earlier))
    assert (await post(locked, ME, headers={"cookie": later})).status_code == 200


async def test_a_bearer_wins_over_a_cookie_even_if_it_is_dead(locked: Api, keys: Tokens) -> None:
    cookie, bob = await cookie_for(locked, await keys.make("ada")), await keys.make("bob")
    assert (await post(locked, ME, token=bob, headers=cookie)).json()["data"]["viewer"]["name"] == "bob"
    assert is_401(await post(locked, ME, token=UNKNOWN, headers=cookie))
    assert is_401(await post(locked, ME, headers={**cookie, "authorization": "Basic YWRhOnNlY3JldA=="}))


async def test_behind_a_proxy_that_speaks_https_the_cookie_is_for_https_only(serve: Serve, keys: Tokens) -> None:
    api = await serve(trusted_proxies=("127.0.0.1",), allowed_hosts=("simulations.example",))
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9", "host": "simulations.example"}
    token = await keys.make("ada")
    pair, attributes = cookie_of(await sign_in(api, token, origin="https://simulations.example", **forwarded))
    assert attributes["secure"] is True
    assert pair.startswith("__Host-")
    cookie = {"cookie": pair}
    assert (await post(api, ME, headers={**cookie, **forwarded})).status_code == 200
    assert is_401(await post(api, ME, headers=cookie)), "not without HTTPS"
    await post(api, SUBMIT, {"input": {"entrypoint": ["true"]}}, headers={**cookie, **forwarded})
    ((actor, origin),) = await keys.sql("SELECT actor, origin FROM events ORDER BY id DESC LIMIT 1")
    assert (actor, origin) == ("ada", "203.0.113.9")


async def test_another_page_can_use_no_cookie(locked: Api, keys: Tokens) -> None:
    token = await keys.make("ada")
    cookie = await cookie_for(locked, token)
    foreign = {**cookie, "origin": FOREIGN}
    assert (await post(locked, ME, headers=foreign)).status_code == 403
    assert (await locked.client.delete("/session", headers=foreign)).status_code == 403
    assert (await sign_in(locked, token, origin=FOREIGN)).status_code == 403
    with pytest.raises(InvalidStatus, match="403"):
        async with opened(locked, **foreign):
            pass
    own = {**cookie, "origin": locked.address}
    assert (await post(locked, ME, headers=own)).status_code == 200
    assert await who_on_socket(locked, **own) == "ada"


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (415, {"data": {"token": UNKNOWN}}),
        (415, {"content": '{"token": "x"}', "headers": {"content-type": "text/plain"}}),
        (400, {"content": "{", "headers": {"content-type": "application/json"}}),
        (400, {"json": {"token": 7}}),
        (400, {"json": {"token": " "}}),
        (400, {"json": [UNKNOWN]}),
        (413, {"json": {"token": "sim_" + "x" * 5_000}}),
        (401, {"json": {"token": "no such thing"}}),
        (401, {"json": {"token": "sim_\0"}}),
    ],
)
async def test_only_json_with_a_token_signs_in(locked: Api, status: int, given: Any) -> None:
    response = await locked.client.post("/session", **given)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert "set-cookie" not in response.headers


async def test_a_session_takes_no_other_method(locked: Api) -> None:
    response = await locked.client.put("/session")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST, DELETE")


@pytest.mark.parametrize("cookie", ["simulations", "simulations=", "simulations=; a", "=", "simulations=%00; ;;"])
async def test_a_malformed_cookie_gets_401(locked: Api, cookie: str) -> None:
    assert is_401(await post(locked, ME, headers={"cookie": cookie}))


# --- how often ---------------------------------------------------------------------------------------------------


async def test_too_many_failures_get_429_and_recently_valid_tokens_are_exempt(locked: Api, keys: Tokens) -> None:
    known, unused = await keys.make("known"), await keys.make("unused")
    assert (await post(locked, ME, token=known)).status_code == 200
    failures = [await post(locked, ME, token=f"{UNKNOWN}{number}") for number in range(10)]
    assert {response.status_code for response in failures} == {401}
    for refused in (
        await post(locked, ME, token=f"{UNKNOWN}10"),
        await post(locked, ME, token=unused),
        await post(locked, ME, headers={"cookie": "simulations=guessed"}),
        await sign_in(locked, unused),
    ):
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 7
        assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    code, reason = await ask_on_socket(locked, ME, payload={"token": unused})
    assert code == 4403
    assert reason.startswith("Too many failed logins from this address: try again in")
    assert (await post(locked, ME, token=known)).status_code == 200
    assert is_401(await post(locked, ME)), "who shows nothing guesses nothing"


async def test_failures_on_sockets_and_sessions_count_too(locked: Api) -> None:
    for number in range(5):
        assert (await ask_on_socket(locked, ME, payload={"token": f"{UNKNOWN}{number}"}))[0] == 4403
        assert (await sign_in(locked, f"{UNKNOWN}{number}")).status_code == 401
    assert (await post(locked, ME, token=UNKNOWN)).status_code == 429


async def test_who_submits_too_fast_is_told_when_to_try_again(serve: Serve, keys: Tokens) -> None:
    api = await serve(submits_per_minute=2, **LOCKED)
    ada, bob = await keys.make("ada"), await keys.make("bob")
    given = {"input": {"entrypoint": ["true"]}}
    bad = (await post(api, SUBMIT, {"input": {"entrypoint": []}}, token=ada)).json()
    assert bad["data"]["createSimulation"]["userErrors"][0]["code"] == "INVALID", "what makes no sense is not counted"
    made = [(await post(api, SUBMIT, given, token=ada)).json()["data"]["createSimulation"] for _ in range(3)]
    assert [payload["userErrors"] for payload in made[:2]] == [[], []]
    (error,) = made[2]["userErrors"]
    assert error["code"] == "RATE_LIMITED"
    assert "At most 2 simulations may be submitted in a minute: try again in " in error["message"]
    again = {"id": made[0]["simulation"]["id"]}
    retried = (await post(api, RETRY, again, token=ada)).json()["data"]["retrySimulation"]
    assert retried["userErrors"] == [{"code": "RATE_LIMITED"}]
    assert (await post(api, CANCEL, again, token=ada)).json()["data"]["cancelSimulation"]["userErrors"] == []
    his = (await post(api, SUBMIT, given, token=bob)).json()["data"]["createSimulation"]
    assert his["userErrors"] == []


async def test_without_the_database_a_valid_token_gets_503_and_not_401(
    serve: Serve, keys: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await serve(**LOCKED)
    token = await keys.make("ada")

    async def away(*_: object) -> None:
        raise DatabaseUnreachable.because("connection refused")

    monkeypatch.setattr("db.tokens.find", away)
    response = await post(api, ME, token=token)
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    code, reason = await ask_on_socket(api, ME, payload={"token": token})
    assert (code, reason) == (1013, "The database does not answer, so tokens can't be checked: try again.")


# --- what is sent back, and what commands say ----------------------------------------------------------------------


async def test_html_in_a_name_comes_back_as_the_text_of_json(locked: Api, keys: Tokens) -> None:
    name = "<script>alert(1)\u2028</script>\"'&"
    token = await keys.make("<img src=x onerror=alert(1)>")
    made = await post(locked, SUBMIT, {"input": {"entrypoint": ["true"], "name": name}}, token=token)
    who = await locked.client.get("/session", headers=bearer(token))
    for response in (made, who):
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert made.json()["data"]["createSimulation"]["simulation"]["name"] == name
    assert who.json()["name"] == "<img src=x onerror=alert(1)>"


async def test_commands_say_what_to_do_about_a_token(locked: Api, world: World, keys: Tokens) -> None:
    reader = await keys.make("reader", Role.VIEWER)
    simulation = (await world.running()).simulation_id

    def told(token: str | None, ask: Callable[[client.Server], object]) -> str:
        with pytest.raises(ServerRefused) as refused:
            ask(client.Server(locked.address, token))
        return str(refused.value)

    async def said(token: str | None, ask: Callable[[client.Server], object]) -> str:
        return await asyncio.to_thread(told, token, ask)

    assert await said(None, requests.newest_first) == (
        f"{locked.address} requires a token: pass one with --token-file or SIMULATIONS_TOKEN_FILE."
    )
    assert await said(UNKNOWN, requests.newest_first) == (
        f"{locked.address} does not accept this token. Check --token-file or SIMULATIONS_TOKEN_FILE, --token or "
        "SIMULATIONS_TOKEN: it may be expired or revoked."
    )
    assert await said(reader, lambda server: requests.cancel(server, simulation)) == (
        "This needs the role OPERATOR; reader is VIEWER. Use another token: --token-file or SIMULATIONS_TOKEN_FILE."
    )


async def test_a_command_that_watches_says_what_to_do_when_its_token_ends(locked: Api, keys: Tokens) -> None:
    where = client.Server(locked.address, await keys.make("ada"))

    async def watch() -> str:
        try:
            async with gql.Client(transport=client.websocket_transport(where)) as session:
                is_open.set()
                async for _ in session.subscribe(gql.gql(CHANGES)):
                    pass
        except TransportError as error:
            return str(client.explain(error, where))
        raise AssertionError("it ended in peace")

    is_open = asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS):
        watching = asyncio.create_task(watch())
        await is_open.wait()
        await keys.revoke("ada")
        in_the_midst, again = await watching, await watch()
    expected = f"{locked.address} does not accept this token. Check --token-file or SIMULATIONS_TOKEN_FILE"
    assert in_the_midst.startswith(expected)
    assert again.startswith(expected)
