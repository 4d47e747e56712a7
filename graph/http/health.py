"""Health endpoints: `/healthz` (the process is alive) and `/readyz` (it can serve)."""

from __future__ import annotations

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from db.connection import check_server
from db.errors import DatabaseError, DatabaseUnavailable
from db.schema import SchemaMismatch, require_current
from graph.http.origin_check import Hosts
from graph.http.shutdown import Shutdown

log = structlog.get_logger()

ENDING: str | None = "It is about to end."


async def healthz(_request: Request) -> Response:
    """The process is alive."""
    return JSONResponse({"status": "alive"})


class Readiness:
    """`/readyz`: the database answers, its schema is this version's, and the process does not end; 503 otherwise."""

    def __init__(self, explains_to: Hosts | None) -> None:
        """explains_to: the Hosts for which the response has the reason, too. It may name the database's address."""
        self._explains_to = explains_to
        self._logged: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        shutdown: Shutdown = request.state.shutdown
        reason, is_outage = ENDING, False
        if not shutdown.announced:
            reason, is_outage = await _reason(request.state.engine)
        content = {"status": "ready" if reason is None else "not ready"}
        if reason != self._logged and not is_outage:  # an outage has its own warning (db/outage.py)
            log.warning("not_ready" if reason is not None else "ready_again", reason=reason)
            self._logged = reason
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if reason is not None and self._explains_to is not None and self._explains_to.refusal(hosts) is None:
            content["reason"] = reason
        await JSONResponse(content, status_code=200 if reason is None else 503)(scope, receive, send)


async def _reason(engine: AsyncEngine) -> tuple[str | None, bool]:
    """Why it is not ready, if it is not; and whether that is an outage of the database."""
    try:
        await check_server(engine)
        await require_current(engine)
    except (DatabaseError, SchemaMismatch) as error:
        return str(error), isinstance(error, DatabaseUnavailable)
    return None, False
