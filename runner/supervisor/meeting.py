"""Meeting of a gang's members: the address of this host as others reach it, and a free port for rank 0's program.

The port is held until the program starts, so that no other one on this host gets it while the members wait. Between
its release and the program's own bind another process could take it: the program then fails, and may be retried.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


class HeldPort:
    """A TCP port of all interfaces that nothing listens on; held until it is released."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.bind(("", 0))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def own_address(url: str) -> str:
    """Return this host's address on the way to the service; if that runs here, the one on the way to other hosts.

    url: of the service. No packet is sent: the kernel only looks up the route.
    """
    parts = urlsplit(url)
    towards = ((parts.hostname or LOOPBACK, parts.port or 80), ("192.0.2.1", 9))  # RFC 5737: no host has it
    found = LOOPBACK
    for target in towards:
        with contextlib.suppress(OSError):
            family, kind, *_, address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                found = str(probe.getsockname()[0])
            if not ipaddress.ip_address(found.partition("%")[0]).is_loopback:
                return found
    return found
