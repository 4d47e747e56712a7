"""The cookie of a browser that signed in: no script reads it, and no other site's page sends it.

Over HTTPS its name begins with `__Host-`: then a browser takes it only from this very host, by HTTPS, for all paths.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection

NAME = "simulations"
SECURE_NAME = f"__Host-{NAME}"


def value_of(connection: HTTPConnection) -> str | None:
    """Return the login cookie of a request; None without one.

    Ours has nothing in it that needs quotes. The standard library, which takes quotes off, takes seconds for a head
    full of backslashes (CVE-2024-7592), in Pythons that are in use.
    """
    wanted = _name(connection)
    pairs = (pair.partition("=") for header in connection.headers.getlist("cookie") for pair in header.split(";"))
    return next((value.strip() for name, _, value in pairs if name.strip() == wanted), None) or None


def header(connection: HTTPConnection, value: str, *, max_age_seconds: int) -> str:
    """Make a browser keep it; with an age of 0, forget it. value: letters, digits, - and _."""
    attributes = f"Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_seconds}"
    name = _name(connection)
    return f"{name}={value}; {attributes}{'; Secure' if name == SECURE_NAME else ''}"


def end(connection: HTTPConnection) -> str:
    """Make a browser forget it."""
    return header(connection, "", max_age_seconds=0)


def _name(connection: HTTPConnection) -> str:
    return SECURE_NAME if connection.scope["scheme"] in ("https", "wss") else NAME
