"""The Unix user at the other end of a loopback connection, from the kernel's table of sockets.

One request on a netlink socket (sock_diag(7)) finds the peer's socket by its two addresses and ports, whatever else is
open: /proc/net/tcp would be read from its beginning, 11 ms for a thousand sockets. The name is a hint and proves
nothing: a program may act for another user, as ssh and proxies do. None where the kernel shows no such socket (in
another network namespace, or closed meanwhile) and where the user has no name here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import pwd
import socket
import struct
from typing import TypeAlias

SOCK_DIAG = 4  # linux/netlink.h
BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
REQUEST = 1  # NLM_F_REQUEST
ANY = 0xFFFFFFFF
NO_COOKIE = (ANY, ANY)
HEADER = struct.Struct("=IHHII")  # nlmsghdr
QUESTION = struct.Struct("=BBBxI")  # the head of inet_diag_req_v2; ports, addresses, interface and cookie follow
ANSWER = struct.Struct("=BBBB48xIIIII")  # inet_diag_msg, with uid and inode at its end
ADDRESS_BYTES = 16
OVERFLOW = 65_534  # the kernel's stand-in for users of another namespace
ANSWER_SECONDS = 1.0  # the kernel answers before `send` returns

Address: TypeAlias = tuple[str, int | None]  # without a port: the path of a Unix socket


class Peer:
    """The other end of one connection. Its user is looked up when it is first asked for, and once."""

    def __init__(self, client: Address | None, server: Address | None) -> None:
        self._client = client
        self._server = server
        self._found: asyncio.Future[str | None] | None = None

    async def user(self) -> str | None:
        """The name of the user that has opened the connection; None if it is unknown."""
        if self._found is None:
            # In a thread: the names of users may come from a directory server.
            self._found = asyncio.ensure_future(asyncio.to_thread(user_of, self._client, self._server))
        return await asyncio.shield(self._found)


def user_of(client: Address | None, server: Address | None) -> str | None:
    """Return the name of the user whose socket is `client`, connected to `server`, both loopback addresses."""
    if client is None or server is None or not (_is_loopback(client[0]) and _is_loopback(server[0])):
        return None
    try:
        uid = _uid(client, server)
        return pwd.getpwuid(uid).pw_name if uid is not None else None
    except (OSError, KeyError, struct.error):
        return None


def _uid(client: Address, server: Address) -> int | None:
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    question = QUESTION.pack(family, socket.IPPROTO_TCP, 0, ANY) + struct.pack("!HH", client[1], server[1])
    question += b"".join(socket.inet_pton(family, host).ljust(ADDRESS_BYTES, b"\0") for host, _ in (client, server))
    question += struct.pack("=III", 0, *NO_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SOCK_DIAG) as kernel:
        kernel.settimeout(ANSWER_SECONDS)
        kernel.send(HEADER.pack(HEADER.size + len(question), BY_FAMILY, REQUEST, 0, 0) + question)
        answer = kernel.recv(4_096)
    _, kind, *_ = HEADER.unpack_from(answer)
    if kind != BY_FAMILY:
        return None
    *_, uid, inode = ANSWER.unpack_from(answer, HEADER.size)
    # A socket that its process has closed has no inode, and the user 0.
    return int(uid) if inode and uid != OVERFLOW else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
