"""A Simulations server, seen from a client: where it is, what is asked of it, and what its failures mean in sentences.

Requests (`cli.requests`) go over HTTP, a connection each; streams (`cli.resuming`) over a WebSocket to that address.
Fails with `ServerUnreachable`, `ServerRefused`, or `UsageError` where the address itself makes no sense, or what is to
be sent.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from gql import Client, GraphQLRequest
from gql.transport.exceptions import (
    TransportConnectionFailed,
    TransportError,
    TransportProtocolError,
    TransportQueryError,
    TransportServerError,
)
from gql.transport.httpx import HTTPXTransport
from gql.transport.websockets import WebsocketsTransport
from pydantic import ValidationError
from websockets.exceptions import InvalidHandshake

from cli.answers import Answer
from cli.errors import CommandError, ServerRefused, ServerUnreachable, UsageError
from cli.terminal import clean

DEFAULT_URL = "http://localhost:8000"
REQUEST_SECONDS = 30.0
BIGGEST_FRAME_BYTES = 64 * 2**20  # a batch of 10,000 points is about 1 MB of JSON; websockets stops at 1 MiB by itself
ANOTHER_TOKEN = "Use another token: --token-file or SIMULATIONS_TOKEN_FILE."

# Errors reach the user as sentences; gql's own log would tell them a second time.
logging.getLogger("gql").addHandler(logging.NullHandler())
logging.getLogger("gql").propagate = False

Asked = TypeVar("Asked", bound=Answer)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and who is asking. Prints without the token."""

    url: str
    token: str | None = field(default=None, repr=False)
    patience_seconds: float = REQUEST_SECONDS  # for an answer

    @property
    def graphql_url(self) -> str:
        return f"{self.url}/graphql"

    @property
    def websocket_url(self) -> str:
        return f"ws{self.graphql_url.removeprefix('http')}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def is_near(self) -> bool:
        """Whether it is on this host: then no proxy of the environment is asked."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_server(url: str | None, token: str | None, token_file: Path | None = None) -> Server:
    """Read an address as people give it: with or without `/graphql`. A file wins over a token. Raises `UsageError`.

    Without one it is the service that runs on this user's data directory, whatever its port; or else the usual one.
    """
    url = url or _own_service() or DEFAULT_URL
    address = url.strip().rstrip("/").removesuffix("/graphql")
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"--url: expected an address like {DEFAULT_URL}, got {url!r}")
    if token_file is not None:
        token = _read_token(token_file)
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UsageError("--token: expected a token as `simulations` gave it out: plain letters, no line breaks")
    return Server(address, token or None)


def _own_service() -> str | None:
    import settings
    from db.embedded.data_directory import default_data_directory, find_holder

    try:
        directory = settings.load().data_dir
    except settings.SettingsError:  # they are the service's; a client needs none of them
        directory = None
    holder = find_holder(directory or default_data_directory())
    return holder.url if holder is not None else None


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--token-file: {path} can't be read: {getattr(error, 'strerror', 'it is no text')}") from None
    if not token:
        raise UsageError(f"--token-file: {path} is empty")
    return token


def websocket_transport(server: Server) -> WebsocketsTransport:
    """Make a connection for streams; it is opened by whoever uses it."""
    arguments: dict[str, object] = {"max_size": BIGGEST_FRAME_BYTES, "compression": None}
    if server.is_near:
        arguments["proxy"] = None
    return WebsocketsTransport(
        server.websocket_url,
        headers=server.headers,
        init_payload=dict(server.headers),
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        close_timeout=2,
        connect_args=arguments,
    )


def prepare(document: GraphQLRequest, variables: Mapping[str, object]) -> GraphQLRequest:
    """Put a document and its variables together. Raises `UsageError` where one of them is nothing that JSON can say."""
    try:
        json.dumps(variables, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise UsageError("What was given has letters that are no UTF-8, and can't be sent.") from None
    except ValueError:
        raise UsageError("What was given has a number that is not finite, and can't be sent.") from None
    return GraphQLRequest(document, variable_values=dict(variables))


def ask(server: Server, document: GraphQLRequest, variables: Mapping[str, object]) -> dict[str, object]:
    """Send one query or mutation, and return its data. Raises `CommandError`."""
    request = prepare(document, variables)
    transport = HTTPXTransport(
        server.graphql_url, headers=server.headers, timeout=server.patience_seconds, trust_env=not server.is_near
    )
    try:
        with Client(transport=transport) as session:
            answer: dict[str, object] = session.execute(request)
            return answer
    except (TransportError, TimeoutError) as error:
        raise explain(error, server) from error


# --- what failures mean ----------------------------------------------------------------------------------------


def explain(error: BaseException, server: Server) -> CommandError:
    """Say in a sentence what a transport's error means for the person who asked."""
    match error:
        case TransportQueryError():
            codes = _codes(error.errors)
            if "UNAUTHENTICATED" in codes:
                return ServerRefused(_login_sentence(server))
            sentences = _sentences(error.errors) or clean(str(error))
            return ServerRefused(f"{sentences} {ANOTHER_TOKEN}" if "FORBIDDEN" in codes else sentences)
        case TransportServerError() if error.code in (401, 403):
            return ServerRefused(_login_sentence(server))
        case TransportServerError() if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            return ServerUnreachable(
                f"The server at {server.url} can't answer now (HTTP 503): its database is away, or it is being "
                "restarted. Try again in a moment."
            )
        case TransportServerError() | TransportProtocolError():
            told = f" (HTTP {error.code})" if isinstance(error, TransportServerError) and error.code else ""
            return ServerUnreachable(
                f"What answers at {server.url} is no Simulations server{told}. Check --url or SIMULATIONS_URL."
            )
    cause = error.__cause__ if isinstance(error, TransportConnectionFailed) else None
    status = getattr(getattr(cause, "response", None), "status_code", None)  # a WebSocket handshake that was refused
    closed = getattr(getattr(cause, "rcvd", None), "code", None)  # a WebSocket that was closed with a code
    if status in (401, 403) or closed in (4401, 4403):
        return ServerRefused(_login_sentence(server))
    if isinstance(cause, InvalidHandshake):
        told = f" (HTTP {status} for a WebSocket)" if status is not None else ""
        return ServerUnreachable(
            f"What answers at {server.url} is no Simulations server, or a proxy in between lets no WebSocket "
            f"through{told}. Check --url or SIMULATIONS_URL."
        )
    slow = isinstance(error, TimeoutError) or "timed out" in str(error).lower()
    return ServerUnreachable(
        f"No Simulations server answers at {server.url}{' in time' if slow else ''}. "
        "Start one with `make run` (or `simulations up`), or say where it is with --url or SIMULATIONS_URL."
    )


def unknown_simulation(simulation_id: str) -> ServerRefused:
    """Say that an id is nobody's."""
    return ServerRefused(
        f"There is no simulation with the id {clean(simulation_id)}. `simulations list --all` shows the ids."
    )


def read_answer(model: type[Asked], value: object) -> Asked:
    """Read a GraphQL object. Raises `ServerUnreachable`: the server speaks another version."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()})[:3])
        raise ServerUnreachable(
            f"The server's answer is that of another version ({where}). Install that version."
        ) from None


def as_object(value: object) -> dict[str, object]:
    """Take what should be a JSON object; anything else is an empty one."""
    return value if isinstance(value, dict) else {}


def _sentences(errors: Sequence[object] | None) -> str:
    messages = [error.get("message") for error in errors or () if isinstance(error, dict)]
    return "\n".join(clean(message) for message in messages if isinstance(message, str))


def _codes(errors: Sequence[object] | None) -> set[object]:
    return {as_object(error.get("extensions")).get("code") for error in errors or () if isinstance(error, dict)}


def _login_sentence(server: Server) -> str:
    if server.token:
        return (
            f"{server.url} does not accept this token. Check --token-file or SIMULATIONS_TOKEN_FILE, --token or "
            "SIMULATIONS_TOKEN: it may be expired or revoked."
        )
    return f"{server.url} wants a token: give one with --token-file or SIMULATIONS_TOKEN_FILE."
