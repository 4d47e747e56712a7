"""HTTP client of the supervisor: the GraphQL mutations `helloAttempt` and `reportAttempt`, over one connection.

Only a reply with this attempt's id counts. Anything else (no reply, an error page, another installation's reply) raises
Unreachable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from runner.supervisor.assignment import Assignment
from runner.supervisor.complaints import complain
from runner.supervisor.meeting import own_address
from runner.supervisor.spool import encode
from runner.supervisor.wire import Connection

FIRST_RETRY_SECONDS = 0.05

HELLO = (
    "mutation Hello($input: HelloAttemptInput!) { helloAttempt(input: $input) { attempt { id } verdict order { "
    "entrypoint environment workingDirectory maxRuntimeSeconds maxCostSeconds stopGraceSeconds heartbeatSeconds "
    "gpuIndices metricsFrom metricsPatterns tensorboard systemMetricsSeconds } userErrors { code message field } } }"
)
# Fields that only members of a gang ask for: an older service answers the others as before.
GANG_HELLO = HELLO.replace("systemMetricsSeconds }", "systemMetricsSeconds rank worldSize addresses masterPort }")
REPORT = (
    "mutation Report($input: ReportAttemptInput!) { reportAttempt(input: $input) { attempt { id } verdict stopReason "
    "orderChange { heartbeatSeconds maxRuntimeSeconds maxCostSeconds } expectedBatch "
    "userErrors { code message field } } }"
)


class Unreachable(Exception):
    """No valid reply came. The message describes the failure or the reply."""


class Service:
    """Client of the GraphQL API; keeps its connection while the address stays the same. One thread at a time."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.nonce = os.urandom(16).hex()
        self._connection: Connection | None = None
        self._address = ""

    def hello(self, port: int | None = None) -> Mapping[str, object]:
        """Ask for the order. port: free on this host, for a member of a gang. Raises Unreachable."""
        if self._assignment.world_size == 1:
            return self._ask("helloAttempt", self._body(HELLO, b""))
        try:
            address = own_address(self._address_of_service())
        except (OSError, ValueError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from None
        endpoint = b',"address":%s' % encode(address) + (b',"port":%d' % port if port is not None else b"")
        return self._ask("helloAttempt", self._body(GANG_HELLO, endpoint))

    def report(self, number: int | None, payload: bytes) -> Mapping[str, object]:
        """Send a batch, or without a number a heartbeat. Equal arguments give equal bytes. Raises Unreachable."""
        batch = b"" if number is None else b',"batch":%d' % number
        return self._ask("reportAttempt", self._body(REPORT, batch + payload))

    def _body(self, query: str, fields: bytes) -> bytes:
        identity = encode({"attemptId": self._assignment.attempt_id, "nonce": self.nonce})
        return b'{"query":%s,"variables":{"input":%s%s}}}' % (encode(query), identity[:-1], fields)

    def _ask(self, name: str, body: bytes) -> Mapping[str, object]:
        reply = self._post(body)
        try:
            document = json.loads(reply)
            if document.get("errors"):
                raise Unreachable(f"errors: {str(document['errors'])[:300]}")
            answer = document["data"][name]
            named, verdict = answer["attempt"]["id"], answer["verdict"]
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise Unreachable(f"no answer to {name}: {reply[:100]!r}") from None
        if named != self._assignment.attempt_id or verdict not in ("CONTINUE", "STOP", "OVER", "WAIT"):
            raise Unreachable(f"an answer to another attempt: {str(named)[:100]}, {str(verdict)[:100]}")
        return dict(answer)

    def _post(self, body: bytes) -> bytes:
        try:
            address = self._address_of_service()
            if address != self._address or self._connection is None:
                self.close()
                self._connection = Connection(address, self._assignment.token)
                self._address = address
            was_open = self._connection.is_open
            try:
                return self._connection.post(body)
            except (BrokenPipeError, ConnectionResetError):
                # The service closes idle connections; batches are numbered, so sending again at once does no harm.
                if not was_open:
                    raise
                return self._connection.post(body)
        except (OSError, ValueError) as error:
            self.close()
            raise Unreachable(f"{type(error).__name__}: {error}") from None

    def _address_of_service(self) -> str:
        with open(self._assignment.address_file, "rb") as file:
            return file.read().decode().strip()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Backoff:
    """Exponential backoff with jitter, up to `longest_seconds`."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._failures = 0

    def failed(self, why: str) -> float:
        """Note a failure, return the seconds to wait."""
        if not self._failures:
            complain(f"the service can't be reached, trying on: {why}")
        self._failures += 1
        longest: float = min(FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 20), self._longest_seconds)
        import random  # not in the launcher: it would make new random numbers in each fork

        return longest * random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        if self._failures:
            complain(f"the service answers again after {self._failures} tries")
        self._failures = 0
