"""Proxies that are trusted by name, and have a new address after each restart."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from live import PATIENCE_SECONDS, within
from starlette.types import Receive, Scope, Send

from graph.wire import proxies
from graph.wire.proxies import Proxies

Ask = Callable[..., Awaitable[tuple[str, str]]]

FORWARDED = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
SEEN = ("203.0.113.9", "https")


class Names:
    """A name server: addresses by name; what it was asked."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def getaddrinfo(self, name: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        self.asked.append(name)
        await self.answers.wait()
        if name not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in self.addresses[name]]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names.getaddrinfo)
    return names


def asking(*trusted: str) -> Ask:
    """Who a client is, and by which scheme it comes, as the application behind the proxies sees it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "seen", "client": scope["client"][0], "scheme": scope["scheme"]})

    behind = Proxies(app, trusted)

    async def ask(peer: str, headers: list[tuple[bytes, bytes]] = FORWARDED) -> tuple[str, str]:
        seen: list[Any] = []

        async def send(message: Any) -> None:
            seen.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing is read")

        scope = {"type": "http", "client": (peer, 1234), "scheme": "http", "headers": headers}
        await behind(scope, receive, send)
        return seen[0]["client"], seen[0]["scheme"]

    return ask


async def test_only_headers_of_the_named_proxy_count(names: Names) -> None:
    names.addresses["proxy"] = ["10.0.0.5", "fd00::5"]
    ask = asking("192.0.2.0/24", "proxy")
    assert await ask("10.0.0.5") == SEEN
    assert await ask("fd00::5") == SEEN
    assert await ask("192.0.2.9") == SEEN
    assert await ask("10.0.0.6") == ("10.0.0.6", "http")


async def test_what_forwards_nothing_has_nothing_looked_up(names: Names) -> None:
    names.addresses["proxy"] = ["10.0.0.5"]
    assert await asking("proxy")("10.0.0.5", []) == ("10.0.0.5", "http")
    assert await asking("10.0.0.5")("10.0.0.5") == SEEN
    assert names.asked == []


async def test_a_proxy_that_comes_back_at_another_address_is_found_and_its_old_one_forgotten(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "AGAIN_SECONDS", 0.0)
    names.addresses["proxy"] = ["10.0.0.5"]
    ask = asking("proxy")
    assert await ask("10.0.0.5") == SEEN
    names.addresses["proxy"] = ["10.0.0.6"]
    assert await ask("10.0.0.6") == SEEN
    assert await ask("10.0.0.5") == ("10.0.0.5", "http")


async def test_a_name_is_looked_up_now_and_then_and_by_one_for_all(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.addresses["proxy"] = ["10.0.0.5"]
    ask = asking("proxy")
    names.answers.clear()
    all_at_once = asyncio.gather(*(ask("10.0.0.5") for _ in range(20)))
    async with within(PATIENCE_SECONDS, "the name is looked up"):
        while not names.asked:
            await asyncio.sleep(0)
    names.answers.set()
    assert await all_at_once == [SEEN] * 20
    assert [await ask("10.0.0.9") for _ in range(5)] == [("10.0.0.9", "http")] * 5
    assert names.asked == ["proxy"]
    monkeypatch.setattr(proxies, "STALE_SECONDS", 0.0)
    assert await ask("10.0.0.5") == SEEN
    assert names.asked == ["proxy"] * 2


async def test_a_name_that_does_not_resolve_or_times_out_trusts_no_address(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await asking("proxy")("10.0.0.5") == ("10.0.0.5", "http")
    names.addresses["proxy"] = ["10.0.0.5"]
    names.answers.clear()
    monkeypatch.setattr(proxies, "PATIENCE_SECONDS", 0.01)
    assert await asking("proxy")("10.0.0.5") == ("10.0.0.5", "http")
