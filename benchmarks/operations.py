"""The service's schema on one connection: operations executed in this process, and their CPU time with PostgreSQL's."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psutil
from sqlalchemy import text

from benchmarks.processes import cpu_seconds
from db.connection import Sessions
from db.events import Actor
from graph.context import Context
from graph.live.process import Live
from graph.schema import Schema
from settings import Settings


class Operations:
    """Operations of one client. sessions: of an engine with one connection."""

    def __init__(self, sessions: Sessions, schema: Schema) -> None:
        self._sessions = sessions
        self._schema = schema
        self._settings = Settings(database_url="postgresql://")
        self._live = Live.on(sessions, timedelta(seconds=self._settings.lease_seconds))

    async def ask(self, document: str, variables: Mapping[str, object]) -> dict[str, Any]:
        context = Context(self._sessions, self._settings, self._live, Actor("benchmark"))
        result = await self._schema.execute(document, dict(variables), context_value=context)
        if result.errors or result.data is None:
            raise RuntimeError(str(result.errors))
        return result.data

    async def seconds(self, document: str, variables: Mapping[str, object], times: int) -> float:
        """Mean CPU seconds of this process and the server's."""
        async with self._sessions() as session:
            backend = psutil.Process(await session.scalar(text("SELECT pg_backend_pid()")))
        gc.collect()
        begun = time.process_time() + cpu_seconds(backend)
        for _ in range(times):
            await self.ask(document, variables)
        return (time.process_time() + cpu_seconds(backend) - begun) / times
