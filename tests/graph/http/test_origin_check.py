"""Origin check: requests of foreign hosts and origins are refused before any other layer; sent as raw bytes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import eventually, within

from db import tokens
from db.events import Actor
from db.states import Role
from graph.http.origin_check import Hosts
from settings import Settings, SettingsError, load

Api = Any  # the fixtures of conftest.py
Serve = Any
World = Any
Sessions = Any

PATIENCE_SECONDS = 60
QUERY = b'{"query": "{ __typename }"}'
CREATE = """
mutation Create($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }
"""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> Answer:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return cls(int(first.split()[1]), headers, body)

    @property
    def message(self) -> str:
        return str(orjson.loads(self.body)["errors"][0]["message"])


@asynccontextmanager
async def connection(api: Api) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.address.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(api: Api, *headers: bytes, line: bytes = b"GET /docs HTTP/1.1", body: bytes = b"") -> Answer:
    """Send exactly this, and read to the end."""
    async with connection(api) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        length = (b"Content-Length: %d" % len(body),) if body else ()
        writer.write(b"\r\n".join((line, *headers, *length, b"Connection: close", b"", body)))
        return Answer.of(await reader.read())


async def post(api: Api, *headers: bytes) -> Answer:
    return await ask(api, *headers, b"Content-Type: application/json", line=b"POST /graphql HTTP/1.1", body=QUERY)


async def shake_hands(api: Api, *headers: bytes) -> Answer:
    """Ask for a WebSocket."""
    asked = (
        b"GET /graphql HTTP/1.1", *headers, b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Protocol: graphql-transport-ws", b"", b"",
    )  # fmt: skip
    async with connection(api) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(b"\r\n".join(asked))
        head = await reader.readuntil(b"\r\n\r\n")
        return Answer.of(head if b" 101 " in head[:16] else head + await reader.read())


# --- Host --------------------------------------------------------------------------------------------------------

OURS = [
    "localhost", "localhost:8000", "LocalHost:1", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:9",
    "[0:0:0:0:0:0:0:1]:80",
]  # fmt: skip
THEIRS = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "evil-localhost", "localhost.", "127.0.0.1.",
    "2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001", "127.0.0.2", "0.0.0.0:8000", "[::]:8000",
    "[::ffff:127.0.0.1]", "[::2]", "127.0.0.1.nip.io", "a" * 300,
]  # fmt: skip
MALFORMED_HOSTS = [
    "", " ", "localhost:", "localhost:0", "localhost:65536", "localhost:8000:1", "localhost:-1", "localhost:8x",
    "localhost:１", "me@localhost", "localhost@evil.example", "me:secret@localhost:8000", "evil.example/@localhost",
    "localhost/", "localhost#", "localhost?", "localhost\\evil", "http://localhost", "localhost localhost",
    "localhost,evil.example", "localhost, localhost", "[::1", "::1", "[::1]evil", "[::1%25eth0]", "[localhost]",
    "localhost\x00", "localhost\x0b", "löcalhost", "localhost:8000 evil",
]  # fmt: skip


@pytest.mark.parametrize("host", OURS)
async def test_names_of_this_host_are_answered_at_any_port(api: Api, host: str) -> None:
    assert (await post(api, b"Host: " + host.encode())).status == 200
    assert (await shake_hands(api, b"Host: " + host.encode())).status == 101


@pytest.mark.parametrize("host", THEIRS)
async def test_another_name_that_leads_here_is_not_answered(api: Api, host: str) -> None:
    for answer in (await post(api, b"Host: " + host.encode()), await shake_hands(api, b"Host: " + host.encode())):
        assert answer.status == 421
        assert "SIMULATIONS_ALLOWED_HOSTS" in answer.message
        assert len(answer.body) < 1_000


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
async def test_what_is_no_host_is_not_guessed_at(api: Api, host: str) -> None:
    assert (await post(api, b"Host: " + host.encode())).status == 400
    assert (await shake_hands(api, b"Host: " + host.encode())).status == 400


async def test_a_request_has_one_host_and_its_target_names_none(api: Api) -> None:
    for hosts in ([b"Host: localhost", b"Host: evil.example"], [b"Host: localhost", b"host: localhost"], []):
        assert (await post(api, *hosts)).status == 400
        assert (await shake_hands(api, *hosts)).status == 400
    assert (await ask(api, line=b"GET / HTTP/1.0")).status == 400
    for target in (b"http://evil.example/graphql", b"http://localhost/", b"evil.example:443", b"*"):
        for method in (b"GET", b"OPTIONS", b"CONNECT"):
            assert (await ask(api, b"Host: localhost", line=method + b" " + target + b" HTTP/1.1")).status == 400


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz"])
async def test_probes_are_answered_whatever_the_host_is(api: Api, path: bytes) -> None:
    for host in (b"Host: 10.1.2.3:8000", b"Host: pod-7", b"X: y"):
        answer = await ask(api, host, line=b"GET " + path + b" HTTP/1.1")
        assert answer.status == 200


async def test_why_it_is_not_ready_is_told_on_this_host_only(serve: Serve) -> None:
    nowhere = "postgresql://ada@/anything?host=/tmp/there-is-no-such-directory"
    for settings, host, told in (({}, b"localhost", True), ({}, b"evil.example", False), (PUBLIC, b"localhost", False)):
        api = await serve(database_url=nowhere, **settings)
        answer = await ask(api, b"Host: " + host, line=b"GET /readyz HTTP/1.1")
        assert (answer.status, b"there-is-no-such-directory" in answer.body) == (503, told)


PUBLIC: dict[str, Any] = {
    "host": "0.0.0.0",
    "allowed_hosts": "Sims.example.org, *.lab.example.org,fd00::7",
    "public_url": "https://public.example.org:8443/",
}


async def test_listed_names_are_answered_and_those_beside_them_are_not(serve: Serve) -> None:
    api = await serve(**PUBLIC)
    for host in (
        "sims.example.org", "SIMS.example.org:81", "a.lab.example.org", "b.a.lab.example.org:1", "[fd00:0::7]:8",
        "public.example.org", "public.example.org:8443", "localhost:8000",
    ):  # fmt: skip
        assert (await ask(api, b"Host: " + host.encode())).status == 307, host
    for host in (
        "example.org", "lab.example.org", "evil-sims.example.org", "x.sims.example.org", "evillab.example.org",
        "a.lab.example.org.evil.example", "0.0.0.0", "[fd00::8]", "a.lab.example.org.",
    ):  # fmt: skip
        assert (await ask(api, b"Host: " + host.encode())).status == 421, host


@given(st.text(max_size=30) | st.from_regex(r"(localhost|127\.0\.0\.1|\[::1\])[:@.\[\]a-z0-9 ]*", fullmatch=True))
def test_no_host_is_ours_but_those_that_are(host: str) -> None:
    refusal = HOSTS.refusal([host.encode("utf-8", "surrogatepass")])
    assert refusal is not None or re.fullmatch(r"(?i:localhost|127\.0\.0\.1|\[[0:]*:0*1\])(:\d{1,5})?", host, re.ASCII)


HOSTS = Hosts(Settings())


# --- Origin ------------------------------------------------------------------------------------------------------

HERE = b"Host: localhost:8000"
FOREIGN = [
    "null", "", "http://evil.example", "http://localhost", "http://localhost:3000", "https://localhost:8000",
    "http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000.evil.example", "http://localhost:8000@evil",
    "http://me@localhost:8000", "http://localhost:8000/", "http://localhost.:8000", "//localhost:8000",
    "localhost:8000", "ws://localhost:8000", "file://", "chrome-extension://abc", "http://evil.example, http://localhost:8000",
    "http://localhost:8000 http://evil.example", "http://localhost:08000x", "http://localhost:1008000",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_from_elsewhere_reaches_nothing(api: Api, origin: str) -> None:
    header = b"Origin: " + origin.encode()
    requests = (
        await post(api, HERE, header),
        await ask(api, HERE, header, b"Content-Type: text/plain", line=b"POST /graphql HTTP/1.1", body=QUERY),
        await ask(api, HERE, header, line=b"GET /graphql?query=%7B__typename%7D HTTP/1.1"),
        await ask(
            api, HERE, header, b"Access-Control-Request-Method: POST", line=b"OPTIONS /graphql HTTP/1.1"
        ),
        await shake_hands(api, HERE, header),
    )  # fmt: skip
    for answer in requests:
        assert answer.status == 403
        assert "SIMULATIONS_ALLOWED_ORIGINS" in answer.message
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"), ("LOCALHOST:8000", "http://localhost:8000"),
        ("127.0.0.1", "http://127.0.0.1"), ("127.0.0.1:80", "http://127.0.0.1"), ("[::1]:9", "http://[::1]:9"),
    ],
)  # fmt: skip
async def test_its_own_pages_reach_it_through_any_tunnel(api: Api, host: str, origin: str) -> None:
    given = (b"Host: " + host.encode(), b"Origin: " + origin.encode())
    assert (await post(api, *given)).status == 200
    assert (await shake_hands(api, *given)).status == 101


async def test_two_origins_are_none(api: Api) -> None:
    own = b"Origin: http://localhost:8000"
    assert (await post(api, HERE, own, own)).status == 403
    assert (await shake_hands(api, HERE, own, own)).status == 400


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
async def test_what_another_sites_page_loads_is_refused_and_a_link_is_followed(api: Api, site: bytes) -> None:
    query = b"GET /graphql?query=%7B__typename%7D HTTP/1.1"
    from_site = b"Sec-Fetch-Site: " + site
    for mode, dest in ((b"no-cors", b"image"), (b"no-cors", b"script"), (b"navigate", b"iframe"), (b"", b"")):
        fetched = (b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Dest: " + dest)
        assert (await ask(api, HERE, from_site, *fetched, line=query)).status == 403
        assert (await post(api, HERE, from_site, *fetched)).status == 403
    follows = (from_site, b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document")
    assert (await ask(api, HERE, *follows, b"Accept: text/html", line=b"GET /graphql HTTP/1.1")).status == 200
    assert (await post(api, HERE, *follows)).status == 403
    assert (await shake_hands(api, HERE, *follows)).status == 403


async def test_what_the_user_opens_and_what_programs_ask_is_answered(api: Api) -> None:
    for site in (b"Sec-Fetch-Site: none", b"Sec-Fetch-Site: same-origin", b"Accept: */*"):
        assert (await ask(api, HERE, site, line=b"GET /graphql?query=%7B__typename%7D HTTP/1.1")).status == 200


def opening(query: str) -> bytes:
    return b"GET /graphql?query=" + quote(query, safe="").encode() + b" HTTP/1.1"


BROWSERS = b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FOLLOWS = (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document", b"Sec-Fetch-User: ?1")


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"cross-origin", b"none, cross-site"])
@pytest.mark.parametrize("accept", [BROWSERS, b"Accept: text/event-stream", b"Accept: */*", b"X-None: x"])
async def test_a_link_on_another_page_starts_no_operation(api: Api, world: World, site: bytes, accept: bytes) -> None:
    simulation_id = await world.simulation(attended=True)
    from_site = b"Sec-Fetch-Site: " + site
    watch = f'subscription {{ convergence(simulationId: "{simulation_id}") {{ cursor }} }}'
    for query in (watch, "{ __typename }", "{"):
        for fetched in (FOLLOWS, (), (b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Dest: empty")):
            answer = await ask(api, HERE, from_site, accept, *fetched, line=opening(query))
            assert answer.status == 403, answer
    assert api.hub.subscribers()["log"] == 0
    assert await world.select("SELECT simulation_id FROM watchers") == []
    assert (await ask(api, HERE, from_site, BROWSERS, *FOLLOWS, line=b"GET /graphql HTTP/1.1")).status == 200


async def test_a_link_in_a_mail_starts_no_subscription_and_may_ask(api: Api, world: World) -> None:
    watch = f'subscription {{ convergence(simulationId: "{await world.simulation(attended=True)}") {{ cursor }} }}'
    opened = (b"Sec-Fetch-Site: none", BROWSERS, *FOLLOWS)
    assert (await ask(api, HERE, *opened, line=opening(watch))).status == 403
    assert api.hub.subscribers()["log"] == 0
    assert (await ask(api, HERE, *opened, line=opening("{ __typename }"))).status == 200


@pytest.mark.parametrize(
    "fetched",
    [(b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Dest: empty"), ()],
    ids=["an EventSource", "a program"],
)
async def test_its_own_pages_and_programs_watch_by_get(api: Api, world: World, fetched: tuple[bytes, ...]) -> None:
    supervisor = await world.running(attended=True)
    await supervisor.exit()
    watch = f'subscription {{ convergence(simulationId: "{supervisor.simulation_id}") {{ state }} }}'
    answer = await ask(api, HERE, b"Accept: text/event-stream", *fetched, line=opening(watch))
    assert (answer.status, b"FINISHED" in answer.body) == (200, True)


async def test_a_listed_origin_may_ask_and_read_and_no_other_one(serve: Serve) -> None:
    api = await serve(allowed_origins="https://Pages.example.org:443, http://localhost:3000/")
    preflight = (
        b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: authorization,content-type,last-event-id",
    )
    for origin in ("https://pages.example.org", "http://localhost:3000"):
        header = b"Origin: " + origin.encode()
        answer = await ask(api, HERE, header, *preflight, line=b"OPTIONS /graphql HTTP/1.1")
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert {"authorization", "content-type", "last-event-id"} <= {
            name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
        }
        assert int(answer.headers["access-control-max-age"]) > 0
        assert "Origin" in answer.headers["vary"]
        read = await post(api, HERE, header)
        assert (read.status, read.headers["access-control-allow-origin"]) == (200, origin)
        assert {"Accept", "Origin"} <= {name.strip() for name in read.headers["vary"].split(",")}
        assert (await shake_hands(api, HERE, header)).status == 101
    for origin in ("http://pages.example.org", "https://x.pages.example.org", "https://pages.example.org:8443", "null"):
        header = b"Origin: " + origin.encode()
        answer = await ask(api, HERE, header, *preflight, line=b"OPTIONS /graphql HTTP/1.1")
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
        assert (await shake_hands(api, HERE, header)).status == 403
    refused = await ask(
        api, HERE, b"Origin: http://localhost:3000", b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: x-evil", line=b"OPTIONS /graphql HTTP/1.1",
    )  # fmt: skip
    assert refused.status == 400
    assert "access-control-allow-origin" not in (await post(api, HERE)).headers


# --- proxies -----------------------------------------------------------------------------------------------------

FORWARDED = (b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil.example")


@pytest.fixture
async def admin(sessions: Sessions) -> str:
    """A token that may do everything."""
    async with sessions.begin() as session:
        _, text = await tokens.create(session, "ada", Role.ADMIN, Actor("test"))
    return text


async def origin_of_a_simulation(api: Api, world: World, token: str, *headers: bytes) -> Any:
    """The origin of a request in the history."""
    body = orjson.dumps({"query": CREATE, "variables": {"input": {"entrypoint": ["true"]}}})
    answer = await ask(
        api, HERE, b"Authorization: Bearer " + token.encode(), b"Content-Type: application/json", *headers,
        line=b"POST /graphql HTTP/1.1", body=body,
    )  # fmt: skip
    assert answer.status == 200, answer
    ((origin,),) = await world.select("SELECT origin FROM events WHERE object_type = 'Simulation' ORDER BY id LIMIT 1")
    return origin


@pytest.mark.parametrize("proxy", ["127.0.0.0/8", "localhost"])
async def test_what_a_trusted_proxy_says_counts(serve: Serve, world: World, admin: str, proxy: str) -> None:
    api = await serve(trusted_proxies=proxy)
    assert await origin_of_a_simulation(api, world, admin, *FORWARDED) == "203.0.113.9"
    answer = await ask(api, HERE, *FORWARDED)
    assert "strict-transport-security" in answer.headers
    assert answer.headers["location"] == "/graphql"
    page = b"Origin: https://localhost:8000"
    assert (await ask(api, HERE, *FORWARDED, page)).status == 307
    assert (await ask(api, HERE, *FORWARDED, b"Origin: http://localhost:8000")).status == 403
    assert (await ask(api, HERE, *FORWARDED, b"Origin: https://evil.example")).status == 403
    assert (await ask(api, b"Host: evil.example", *FORWARDED)).status == 421
    assert (await shake_hands(api, HERE, *FORWARDED, page)).status == 101


async def test_what_a_client_says_of_itself_does_not_count(serve: Serve, world: World, admin: str) -> None:
    api = await serve(trusted_proxies="192.0.2.1")
    assert await origin_of_a_simulation(api, world, admin, *FORWARDED) == "127.0.0.1"
    assert "strict-transport-security" not in (await ask(api, HERE, *FORWARDED)).headers
    assert (await ask(api, HERE, *FORWARDED, b"Origin: https://localhost:8000")).status == 403
    assert (await ask(api, HERE, *FORWARDED, b"Origin: https://evil.example")).status == 403
    assert (await shake_hands(api, HERE, *FORWARDED, b"Origin: https://localhost:8000")).status == 403


@pytest.mark.parametrize("header", [*FORWARDED, b"Forwarded: for=203.0.113.9", b"X-Real-IP: 203.0.113.9"])
async def test_a_proxy_that_is_not_configured_does_not_make_strangers_admins(api: Api, header: bytes) -> None:
    for answer in (await post(api, HERE, header), await shake_hands(api, HERE, header)):
        assert answer.status == 403
        assert "SIMULATIONS_TRUSTED_PROXIES" in answer.message


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, None),
        ({"host": "localhost"}, None),
        ({"host": "::1"}, None),
        ({"host": "127.8.9.1"}, None),
        ({"public_url": "http://localhost:9000"}, None),
        ({"allowed_origins": "http://localhost:3000"}, None),
        ({"host": "0.0.0.0"}, "HOST=0.0.0.0"),
        ({"host": "::"}, "HOST=::"),
        ({"host": "192.0.2.7"}, "HOST=192.0.2.7"),
        ({"host": "sims.example.org"}, "HOST=sims"),
        ({"trusted_proxies": "127.0.0.1"}, "SIMULATIONS_TRUSTED_PROXIES"),
        ({"allowed_hosts": "sims.example.org"}, "SIMULATIONS_ALLOWED_HOSTS"),
        ({"public_url": "https://sims.example.org"}, "SIMULATIONS_PUBLIC_URL"),
    ],
)
def test_a_login_is_needed_wherever_others_than_this_hosts_users_come(given: dict[str, str], why: str | None) -> None:
    settings = load(**given)
    assert settings.requires_login is (why is not None)
    assert (settings.why_login or "").startswith(why or "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_hosts", "*"), ("allowed_hosts", "*example.org"), ("allowed_hosts", "http://a.example"),
        ("allowed_hosts", "a.example:8000"), ("allowed_hosts", "a.*.example"), ("allowed_hosts", "a b"),
        ("allowed_origins", "*"), ("allowed_origins", "null"), ("allowed_origins", "a.example"),
        ("allowed_origins", "https://*.a.example"), ("allowed_origins", "https://a.example/x"),
        ("trusted_proxies", "*"), ("trusted_proxies", "*.a.example"), ("trusted_proxies", "10.0.0.1/8"),
        ("trusted_proxies", "10.0.0.256"), ("trusted_proxies", "10.0.0"), ("trusted_proxies", "http://proxy"),
        ("trusted_proxies", "proxy:80"),
    ],
)  # fmt: skip
def test_what_would_open_more_than_it_says_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SIMULATIONS_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"SIMULATIONS_{name.upper()}.*expected"):
        load()


# --- what browsers are told --------------------------------------------------------------------------------------


async def test_every_answer_tells_browsers_what_to_refuse(api: Api) -> None:
    lines = (
        b"GET /docs HTTP/1.1", b"GET /healthz HTTP/1.1", b"GET /nowhere HTTP/1.1", b"POST / HTTP/1.1",
        b"GET /graphql?query=%7B__typename%7D HTTP/1.1", b"GET /graphql HTTP/1.1", b"DELETE /graphql HTTP/1.1",
    )  # fmt: skip
    answers = [await ask(api, HERE, line=line) for line in lines]
    answers += [await ask(api, b"Host: evil.example"), await ask(api, HERE, b"Origin: null")]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "no-store" in answer.headers["cache-control"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "strict-transport-security" not in answer.headers
        assert "server" not in answer.headers


async def test_an_answer_to_a_defect_is_no_exception(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("graph.http.health._reason", breaks)
    answer = await ask(await serve(), HERE, line=b"GET /readyz HTTP/1.1")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "a defect" in caplog.text


async def test_pages_load_what_this_service_serves_and_only_the_explorer_writes_styles(api: Api) -> None:
    for address, styles in ((b"/", None), (b"/nowhere", None), (b"/graphql", ["'self'", "'unsafe-inline'"])):
        answer = await ask(api, HERE, b"Accept: text/html", line=b"GET " + address + b" HTTP/1.1")
        policy = {
            name: values.split()
            for name, _, values in (
                part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")
            )
        }
        assert answer.headers["content-type"].startswith("text/html")
        assert policy.get("style-src") == styles
        assert policy["frame-ancestors"] == ["'none'"]
        assert {source for values in policy.values() for source in values} <= {
            "'self'", "'none'", "'unsafe-inline'", "data:",
        }  # fmt: skip
        assert not {"'unsafe-inline'", "data:"} & {*policy["default-src"], *policy.get("script-src", ())}


@pytest.mark.parametrize(
    "target",
    [
        b"/%0d%0aSet-Cookie:x=1", b"/docs?%0d%0aSet-Cookie:x=1", b"/graphql/?q=%0d%0aSet-Cookie:x=1",
        b"//evil.example/docs", b"/\\evil.example", b"/docs/%2e%2e//evil.example", b"/docs/?next=//evil.example",
    ],
)  # fmt: skip
async def test_no_redirect_leads_away_or_carries_a_header(api: Api, target: bytes) -> None:
    for headers in ((HERE,), (HERE, b"Accept: text/html")):
        answer = await ask(api, *headers, line=b"GET " + target + b" HTTP/1.1")
        assert "set-cookie" not in answer.headers
        location = answer.headers.get("location", "/")
        assert re.match(r"/(?![/\\])|http://localhost:8000/(?![/\\])", location), location


# --- connections that never finish what they begin ---------------------------------------------------------------

Wait = Callable[..., Any]


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, or cuts off."""
    got = bytearray()
    async with within(PATIENCE_SECONDS, "the other side closes"):
        try:
            while piece := await reader.read(65_536):
                got += piece
        except ConnectionError:
            pass
    return bytes(got)


BEGINNINGS = {
    "nothing": [],
    "an empty line": [b"\r\n"],
    "half a head": [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "],
    "half a line": [b"GET /a"],
    "an answer, then an empty line": [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"],
    "an answer, then half a head": [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HT"],
    "a body that is not read": [b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n", b"x"],
}


@pytest.mark.parametrize("pieces", BEGINNINGS.values(), ids=BEGINNINGS.keys())
async def test_a_client_that_does_not_finish_a_request_is_disconnected(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    monkeypatch.setattr("graph.wire.http.HEAD_SECONDS", 0.1)
    api = await serve()
    async with connection(api) as (reader, writer):
        for number, piece in enumerate(pieces):
            writer.write(piece)
            if number + 1 < len(pieces):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: (\d+)", head)
                    assert length is not None
                    await reader.readexactly(int(length[1]))
        assert (await ends(reader))[:12] in (b"HTTP/1.1 408", b"")


async def test_a_drop_now_and_then_does_not_make_a_head_last(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.wire.http.HEAD_SECONDS", 0.3)
    api = await serve()
    async with connection(api) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        end = asyncio.create_task(ends(reader))
        while not end.done():
            writer.write(b"X: y\r\n")
            await asyncio.wait({end}, timeout=0.02)
        assert end.result().startswith(b"HTTP/1.1 408") or end.result() == b""


async def test_idle_clients_and_sockets_have_no_head_timeout(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await serve()
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with (
        connection(api) as (reader, writer),
        api.subscribe("subscription { machineChanged { id } }"),
    ):
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(3):
                writer.write(request)
                await reader.readuntil(b'"alive"}')
                monkeypatch.setattr("graph.wire.http.HEAD_SECONDS", 0.05)  # not before: the first head has it, too
                writer.write(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
                await reader.readuntil(b"Method Not Allowed")
                writer.write(b"body")
                async with connection(api) as (other, _):
                    await ends(other)  # long after: this one was hurried
            assert any(type(each).__name__ == "Wire" for each in api.server.server_state.connections)


async def test_half_open_connections_keep_no_client_out(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.wire.http.MOST_NEWCOMERS", 3)
    api = await serve()
    async with connection(api) as (first, _), connection(api) as (second, _), connection(api) as (third, _):
        for reader in (first, second):
            assert (await ask(api, HERE)).status == 307
            if reader is first:
                assert await ends(first) == b""
                assert not second.at_eof()
        assert not third.at_eof()


async def test_a_process_has_so_many_connections_and_no_more(serve: Serve) -> None:
    api = await serve(connections=10)
    opened = [await asyncio.open_connection("127.0.0.1", int(api.address.rpartition(":")[2])) for _ in range(10)]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for reader, writer in opened:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readuntil(b'"alive"}')
        async with connection(api) as (reader, _):
            assert await ends(reader) == b""
        opened[0][1].transport.abort()
        await eventually(lambda: len(api.server.server_state.connections) < 10, "one connection less")
        assert (await ask(api, HERE)).status == 307
    finally:
        for _, writer in opened:
            writer.transport.abort()


LARGE = b"x" * 70_000
HEADS = {
    "an address": [b"GET /" + LARGE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    "an endless address": [b"GET /" + LARGE * 9],
    "a header": [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + LARGE + b"\r\n\r\n"],
    "an endless header": [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + LARGE * 9],
    "many headers": [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 12_000 + b"\r\n"],
    "many empty lines": [b"\r\n" * 40_000],
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS.keys())
async def test_a_head_has_an_end(api: Api, pieces: list[bytes]) -> None:
    async with connection(api) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
        assert (await ends(reader))[:12] in (b"HTTP/1.1 431", b"")
    assert (await ask(api, HERE, b"X: " + b"x" * 60_000)).status == 307


@pytest.mark.parametrize(
    "rest",
    [b"1\r\nx\r\n" * 150_000, b"1;" + LARGE * 9, b"0\r\nX: " + LARGE * 9],
    ids=["chunks", "extension", "trailer"],
)
async def test_what_stands_round_a_body_has_an_end_too(api: Api, rest: bytes) -> None:
    async with connection(api) as (reader, writer):
        head = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + rest)
        await ends(reader)
    assert (await ask(api, HERE)).status == 307


async def test_a_large_body_in_usual_chunks_is_taken(api: Api) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"query": "{ __typename }", "variables": {"x": "'
        for _ in range(200):
            yield b"x" * 5_000
        yield b'"}}'

    response = await api.client.post("/graphql", content=body(), headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text


async def test_a_client_that_reads_no_answers_is_cut_off(serve: Serve) -> None:
    api = await serve(socket_stall_seconds=0.05)
    state, open_connections = api.server.server_state, api.server.server_state.connections
    for listening in (each for server in api.server.servers for each in server.sockets):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # of what it accepts; else megabytes fit in
    async with connection(api) as (_, writer), within(PATIENCE_SECONDS, "the client is cut off"):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        while not open_connections:
            await asyncio.sleep(0.001)
        asked = 0
        while open_connections:
            if state.total_requests == asked:
                writer.write(b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n" * 50)
                asked += 50
            await asyncio.sleep(0.001)


async def test_requests_whose_answers_are_not_read_do_not_pile_up(api: Api) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with connection(api) as (reader, writer):
        writer.write(request * 60)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(60):
                await reader.readuntil(b'"alive"}')
        writer.write(request * 1_000)
        assert (await ends(reader)).count(b'"alive"}') < 1_000
    assert (await ask(api, HERE)).status == 307


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"nonsense"])
async def test_a_request_for_another_protocol_is_answered_as_any_other_and_its_body_is_no_request(
    api: Api, protocol: bytes
) -> None:
    """Java's and curl's clients ask for HTTP/2 so; a proxy that passes it on must not get two answers to one."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
    asking = head + b"Upgrade: %b\r\nContent-Length: %d\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with connection(api) as (reader, writer):
        writer.write(asking % (protocol, len(QUERY)) + QUERY + asking % (protocol, len(hidden)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            first = await reader.readuntil(b"}")
            writer.write(hidden + last)
            answers = first + await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"400", b"200"]
    assert answers.endswith(b'{"status":"alive"}')


HANDSHAKE = (
    b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize(
    "handshake",
    [
        b"GET /graphql?" + b"x" * 9_000 + HANDSHAKE,
        b"GET /graphql" + HANDSHAKE + b"X: " + b"x" * 9_000 + b"\r\n",
        b"GET /graphql" + HANDSHAKE + b"X: y\r\n" * 200,
    ],
    ids=["address", "header", "headers"],
)
async def test_a_handshake_that_can_not_be_read_is_refused_and_not_kept_waiting(api: Api, handshake: bytes) -> None:
    async with connection(api) as (reader, writer):
        writer.write(handshake + b"\r\n")
        assert (await ends(reader)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
             b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", b"nonsense\r\n\r\n",
             b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
             b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n"],
    ids=["tls", "http2", "version", "bytes", "nonsense", "both lengths", "two lengths", "space", "folded"],
)  # fmt: skip
async def test_what_is_no_http_is_refused_and_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with connection(api) as (reader, writer):
        writer.write(sent)
        assert (await ends(reader)).startswith(b"HTTP/1.1 400")
    assert caplog.text == ""
