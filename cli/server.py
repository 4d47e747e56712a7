"""Client connection to a Simulations server: its address, transports, and errors as sentences.

Requests (`cli.requests`) use HTTP, a connection each; streams (`cli.resuming`) a WebSocket to the same address.
Raises `ServerUnreachable`, `ServerRefused`, or `UsageError` for an invalid address or unsendable values.
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
BIGGEST_FRAME_BYTES = 64 * 2**20  # a batch of 10,000 points is about 1 MB of JSON; the default of websockets is 1 MiB
ANOTHER_TOKEN = "Use another token: --token-file or SIMULATIONS_TOKEN_FILE."

# Errors reach the user as sentences; gql's log would repeat them.
logging.getLogger("gql").addHandler(logging.NullHandler())
logging.getLogger("gql").propagate = False

Asked = TypeVar("Asked", bound=Answer)


@dataclass(frozen=True, slots=True)
class Server:
    """Address of a server, and the token. The token is excluded from repr()."""

    url: str
    token: str | None = field(default=None, repr=False)
    patience_seconds: float = REQUEST_SECONDS  # timeout of an answer

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
    def is_encrypted(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def is_near(self) -> bool:
        """Whether the server is on this host: the environment's proxies are then ignored."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_server(url: str | None, token: str | None, token_file: Path | None = None) -> Server:
    """Parse an address, with or without `/graphql`. A token file overrides a token. Raises `UsageError`.

    Without an address: the service that runs on this user's data directory, on any port; else the default address.
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
        raise UsageError("--token: expected a token of `simulations token create`: ASCII without line breaks")
    return Server(address, token or None)


def _own_service() -> str | None:
    import settings
    from db.embedded.data_directory import default_data_directory, find_holder

    try:
        directory = settings.load().data_dir
    except settings.SettingsError:  # a client needs no settings of the service
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
    """Make an unopened WebSocket transport for streams."""
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


def prepare(document: str, variables: Mapping[str, object]) -> GraphQLRequest:
    """Combine a document with its variables. Raises `UsageError` for a variable that JSON can't represent."""
    try:
        json.dumps(variables, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise UsageError("An argument has letters that are no UTF-8, and can't be sent.") from None
    except ValueError:
        raise UsageError("An argument has a number that is not finite, and can't be sent.") from None
    return GraphQLRequest(document, variable_values=dict(variables))


def ask(server: Server, document: str, variables: Mapping[str, object]) -> dict[str, object]:
    """Send a query or mutation and return its data. Raises `CommandError`."""
    request = prepare(document, variables)
    transport = HTTPXTransport(
        server.graphql_url,
        headers=server.headers,
        timeout=server.patience_seconds,
        trust_env=not server.is_near,
        verify=server.is_encrypted or not server.is_near,  # reading all certificates takes longer than a request
    )
    try:
        with Client(transport=transport) as session:
            answer: dict[str, object] = session.execute(request)
            return answer
    except (TransportError, TimeoutError) as error:
        raise explain(error, server) from error


# --- what failures mean ----------------------------------------------------------------------------------------


def explain(error: BaseException, server: Server) -> CommandError:
    """Translate a transport's error into a sentence for the user."""
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
        "Start one with `make run` (or `simulations up`), or set its address with --url or SIMULATIONS_URL."
    )


def unknown_simulation(simulation_id: str) -> ServerRefused:
    """Make the error for an unknown simulation id."""
    return ServerRefused(
        f"There is no simulation with the number, name or id {clean(simulation_id)}. `simulations list --all` shows "
        "the numbers."
    )


def read_answer(model: type[Asked], value: object) -> Asked:
    """Parse a GraphQL object. Raises `ServerUnreachable` if the server has another version."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()})[:3])
        raise ServerUnreachable(
            f"The server's answer is that of another version ({where}). Install that version."
        ) from None


def as_object(value: object) -> dict[str, object]:
    """Return a JSON object; an empty one for any other value."""
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
    return f"{server.url} requires a token: pass one with --token-file or SIMULATIONS_TOKEN_FILE."
