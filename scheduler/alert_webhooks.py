"""Webhooks: one POST, signed by Standard Webhooks, over a connection to an address that was checked.

The check is in the dialer. It resolves the host, judges every address that the name has, and connects to one of those
very addresses: a name whose records change between a check and a connection has no second look-up to change. TLS is
verified by the name. Redirects are not followed, proxies of the environment are not used, and the body of the answer is
not read.

Source: the Standard Webhooks specification, https://github.com/standard-webhooks/standard-webhooks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TypeAlias

import httpcore
from standardwebhooks.webhooks import Webhook

from db.alert_deliveries import Sending
from policy.addresses import Network, refusal

TIMEOUT_SECONDS = 15  # for the whole of an attempt
MOST_TRIED = 3  # addresses of a name
GONE = 410  # the receiver wants no more: Standard Webhooks, "Delivery"

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]


class DeliveryFailed(Exception):
    """An attempt failed; the message is a sentence for the administrator. is_final: another attempt makes no sense."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, in the order of the system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Dialer that connects only to allowed addresses: a host that has any other is refused."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect. Raises `DeliveryFailed`."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise DeliveryFailed("The host's name could not be resolved.") from None
        for address in sorted(addresses, key=lambda each: ":" in each):  # IPv4 first: the same sentence each time
            if (why := refusal(address, self._allowed)) is not None:
                raise DeliveryFailed(f"{why} SIMULATIONS_ALERT_PRIVATE_NETWORKS lists the networks that are allowed.")
        for address in addresses[:MOST_TRIED]:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        raise DeliveryFailed("No connection could be made.")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no URL leads here."""
        raise DeliveryFailed("Unix sockets are not allowed.", is_final=True)


class Webhooks:
    """Sender of webhooks. allowed: networks that are connected to although they are not public."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve = resolve) -> None:
        self._backend = CheckedBackend(allowed, resolve)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made for the first message: the import costs a tenth of a second, and most schedulers send none."""
        import httpx

        return httpx.create_ssl_context()  # by SSL_CERT_FILE, else the authorities that certifi bundles

    async def send(self, sending: Sending, now: datetime) -> None:
        """Post a message; returns when it was accepted. Raises `DeliveryFailed`."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._post(sending, now)
        except TimeoutError:
            raise DeliveryFailed(f"No answer within {TIMEOUT_SECONDS} seconds.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise DeliveryFailed(f"The connection failed: {str(error)[:200] or type(error).__name__}.") from None
        if status == GONE:
            raise DeliveryFailed("The receiver answered 410 Gone: this message is not sent again.", is_final=True)
        if 300 <= status < 400:
            raise DeliveryFailed(f"The receiver answered with HTTP status {status}: redirects are not followed.")
        if not 200 <= status < 300:
            raise DeliveryFailed(f"The receiver answered with HTTP status {status}.")

    async def _post(self, sending: Sending, now: datetime) -> int:
        assert sending.secret is not None, "a webhook has a secret"
        message_id = f"msg_{sending.message_id}"
        headers: dict[bytes | str, bytes | str] = {
            "content-type": "application/json",
            "user-agent": "simulations",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(sending.secret).sign(message_id, now, sending.payload),
        }
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._tls, network_backend=self._backend) as pool,
            pool.stream("POST", sending.url, headers=headers, content=sending.payload.encode()) as response,
        ):
            return response.status
