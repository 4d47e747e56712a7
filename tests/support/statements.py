"""Round trips to the server: every statement of a pool's connections, BEGIN and COMMIT included, while a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.connection import driver_of


@asynccontextmanager
async def sent_by(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[list[str]]:
    """Collect the statements of the block, which uses one connection at a time: the one that was used last."""
    engine: AsyncEngine = sessions.kw["bind"]
    sent: list[str] = []

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(" ".join(statement.split()))

    def logged(record: Any) -> None:  # by the driver: BEGIN and COMMIT, and what passes SQLAlchemy by
        sent.append(" ".join(record.query.split()))

    async with driver_of(sessions) as driver:
        driver.add_query_logger(logged)
    event.listen(engine.sync_engine, "before_cursor_execute", executed)
    try:
        yield sent
        await asyncio.sleep(0)  # the driver notes a statement in the turn of the loop after it
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", executed)
        driver.remove_query_logger(logged)
