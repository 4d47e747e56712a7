"""Port selection, and the URLs of the service."""

from __future__ import annotations

import errno
import socket

from cli.errors import PortTaken, StartFailed


def choose_port(host: str, port: int) -> int:
    """Return the port; for 0, a port that is free now."""
    return port or _bind(host, 0)


def require_free(host: str, port: int) -> None:
    """Raise `PortTaken` if another program listens there, `StartFailed` if listening is impossible."""
    _bind(host, port)


def local_url(host: str, port: int) -> str:
    """Return the URL for a browser on this host."""
    if host in ("127.0.0.1", "0.0.0.0", "localhost"):  # compared, not bound
        return f"http://localhost:{port}"
    return f"http://{_in_url(host)}:{port}"


def probe_url(host: str, port: int) -> str:
    """Return the URL for a process on this host, without name resolution."""
    reachable = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{_in_url(reachable)}:{port}"


def _bind(host: str, port: int) -> int:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            # Like the server: a port whose last connections are still closing counts as free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise StartFailed(f"HOST={host} is no address of this machine: {error.strerror}.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"Port {port} is taken: another program listens on {host}:{port}. "
                f"Stop it, or choose another port: PORT={port + 1 if port < 65_535 else 8000}"
            ) from error
        if error.errno == errno.EACCES:
            raise StartFailed(f"PORT={port} may not be used by this user: choose one from 1024 on.") from error
        raise StartFailed(f"Can't listen on {host}:{port}: {error.strerror}.") from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
