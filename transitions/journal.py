"""Log of transitions: a line is written after the commit of its transaction, and none after a rollback.

So a state change is logged in one place, whichever caller owns the transaction. No transition runs inside a savepoint.
"""

from __future__ import annotations

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

log = structlog.get_logger("transitions")

_PENDING = "transitions.journal"


def write(session: AsyncSession | None, name: str, **facts: object) -> None:
    """Log the event `name` with these facts once the session's transaction has committed.

    session: None after a statement that was a transaction of its own, and has committed.
    """
    if session is None:
        log.info(name, **facts)
        return
    sync = session.sync_session
    sync.info.setdefault(_PENDING, []).append((sync.get_transaction(), name, facts))


@event.listens_for(Session, "after_commit")  # of every session: to listen to one costs as much as a statement
def _committed(session: Session) -> None:
    if _PENDING not in session.info or session.in_nested_transaction():
        return  # a savepoint of the caller: its transaction is still open
    committed = session.get_transaction()
    pending = session.info.pop(_PENDING)
    for transaction, name, facts in pending:
        if transaction is committed:  # what an earlier transaction of this session noted was rolled back
            log.info(name, **facts)
