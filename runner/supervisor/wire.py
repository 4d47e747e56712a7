"""HTTP/1.1 connection to the service: POST requests, one at a time.

`http.client` would do, but it parses the headers of each reply as a mail: in a forked process 1 ms of CPU, most of it
for copies of the pages that it touches, and a short simulation has two requests.
"""

from __future__ import annotations

import contextlib
import re
import socket
from urllib.parse import urlsplit

HTTP_SECONDS = 10.0
MAX_HEAD_BYTES = 64 << 10
MAX_REPLY_BYTES = 4 << 20
READ_BYTES = 64 << 10
_VISIBLE = re.compile("[!-~]*")


class Connection:
    """A connection to one address, opened with the first request. Raises ValueError for what is no address."""

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{address[:100]!r} is no address")
        self._is_secure = parts.scheme == "https"
        self._name = parts.hostname
        self._port = parts.port or (443 if self._is_secure else 80)
        host = self._name if self._name.isascii() else self._name.encode("idna").decode()
        if ":" in host:
            host = f"[{host}]"
        if parts.port is not None:
            host += f":{parts.port}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _VISIBLE.fullmatch(target + token):
            raise ValueError(f"{address[:100]!r} is no address, or the token none")
        self._head = (
            f"POST {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: "
        ).encode()
        self._socket: socket.socket | None = None
        self._buffer = b""

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def post(self, body: bytes) -> bytes:
        """Send a request and return the reply's body.

        Raises OSError, among them ConnectionResetError and BrokenPipeError for a connection that the service had
        closed; ValueError for a reply that is not one, or has another status than 200. Then it is closed.
        """
        try:
            if self._socket is None:
                self._socket = self._opened()
            self._socket.sendall(self._head + b"%d\r\n\r\n" % len(body) + body)
            status, headers = self._read_head()
            reply = self._read_body(headers)
            if headers.get(b"connection", b"").lower() == b"close":
                self.close()
        except BaseException:
            self.close()
            raise
        if status != 200:
            self.close()
            raise ValueError(f"status {status}: {reply[:100]!r}")
        return reply

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket, self._buffer = None, b""

    def _opened(self) -> socket.socket:
        opened = _connected(self._name, self._port)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._is_secure:
                import ssl

                return ssl.create_default_context().wrap_socket(opened, server_hostname=self._name)
        except BaseException:
            opened.close()
            raise
        return opened

    def _read_head(self) -> tuple[int, dict[bytes, bytes]]:
        """Read status and headers, by their names in lower case; interim replies (1xx) are skipped."""
        while True:
            if not self._buffer and not self._receive():
                raise ConnectionResetError("the service closed the connection")
            while b"\r\n\r\n" not in self._buffer:
                if len(self._buffer) > MAX_HEAD_BYTES or not self._receive():
                    raise ValueError(f"no reply: {self._buffer[:100]!r}")
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            words = first.split(None, 2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
                raise ValueError(f"no reply: {first[:100]!r}")
            if not words[1].startswith(b"1"):
                named = (line.partition(b":") for line in lines)
                return int(words[1]), {name.lower(): value.strip() for name, _, value in named}

    def _read_body(self, headers: dict[bytes, bytes]) -> bytes:
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return self._read_chunks()
        length = headers.get(b"content-length")
        if length is not None:
            return self._take(int(length))
        while self._receive():  # to the end of the connection
            if len(self._buffer) > MAX_REPLY_BYTES:
                raise ValueError("the reply is too long")
        reply = self._buffer
        self.close()
        return reply

    def _read_chunks(self) -> bytes:
        reply = b""
        while True:
            size = int(self._line().partition(b";")[0], 16)
            if not size:
                break
            reply += self._take(size)
            if len(reply) > MAX_REPLY_BYTES or self._line():
                raise ValueError("a chunk that is none, or too many")
        while self._line():  # trailers
            pass
        return reply

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD_BYTES or not self._receive():
                raise ValueError("the reply was cut off")
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= MAX_REPLY_BYTES:
            raise ValueError("the reply is too long")
        while len(self._buffer) < count:
            if not self._receive():
                raise ValueError("the reply was cut off")
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _receive(self) -> bool:
        """Receive what is there; False at the end of the connection."""
        assert self._socket is not None
        chunk = self._socket.recv(READ_BYTES)
        self._buffer += chunk
        return bool(chunk)


def _connected(name: str, port: int) -> socket.socket:
    """Connect to a host. Raises OSError.

    An IPv4 address is not looked up: that would ask the kernel for all interfaces (getaddrinfo(3), AI_ADDRCONFIG).
    """
    try:
        socket.inet_pton(socket.AF_INET, name)
    except (OSError, ValueError):
        return socket.create_connection((name, port), HTTP_SECONDS)
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.settimeout(HTTP_SECONDS)
        opened.connect((name, port))
    except BaseException:
        opened.close()
        raise
    return opened
