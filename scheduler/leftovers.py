"""Delivery of a dead supervisor's spool: its undelivered batches are stored like reports of a living supervisor.

So no output is lost if a supervisor dies during an outage of `graph`. Called after the engine has returned DEAD and
before the member's end is settled; an exit among the batches settles it. Unreadable files are logged and skipped:
they do not keep an attempt open.
"""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import structlog

from db import public_ids
from db.attempts import Claim, Standing
from db.connection import Sessions
from db.logs import Chunk
from db.notices import Notice
from db.states import LogStream
from policy.retry import Exit
from runner.base import Engine, Undelivered
from transitions.ingest import ingest
from transitions.report import Report, checked

log = structlog.get_logger()


async def deliver(sessions: Sessions, engine: Engine, attempt_id: int, *, backoff: timedelta, rank: int = 0) -> bool:
    """Store a dead member's batches in order, once each. Returns whether an exit among them ended the member.

    backoff: time before the first retry, if the exit leads to one.
    """
    member_id = public_ids.encode_member(attempt_id, rank)
    stored, ended, after, shift = 0, False, 0, 0
    while not ended:
        try:
            left = await engine.undelivered(member_id, after)
        except (OSError, ValueError, TypeError) as error:
            log.warning("leftovers_unreadable", attempt_id=attempt_id, rank=rank, error=str(error))
            break
        if left is None:
            break
        after = left.number
        claim = Claim(attempt_id, sha256(left.token.encode()).digest(), left.nonce)
        receipt = await ingest(sessions, claim, _report(left, left.number + shift), backoff=backoff)
        if receipt.standing is Standing.CURRENT and receipt.expected_batch < left.number + shift:
            # Earlier batches are on no disk, because the disk was full: continue after the last stored one.
            shift = receipt.expected_batch - left.number
            receipt = await ingest(sessions, claim, _report(left, left.number + shift), backoff=backoff)
        if receipt.standing is not Standing.CURRENT:
            break
        stored += receipt.stored
        ended = receipt.stored and left.exit is not None
    if stored:
        log.info("leftovers_delivered", attempt_id=attempt_id, rank=rank, batches=stored)
    return ended


def _report(left: Undelivered, number: int) -> Report:
    """Convert a batch to a report; an invalid one is replaced by a log sentence, as by a living supervisor."""
    end = Exit(*astuple(left.exit)) if left.exit is not None else None
    points = {
        metric: {"steps": steps, "values": values, "elapsed": elapsed}
        for metric, (steps, values, elapsed) in left.points.items()
    }
    notices = [Notice(*each) for each in left.notices]
    try:
        chunks = [Chunk(LogStream(stream), text) for stream, text in left.logs]
        checkpoint_at = datetime.fromtimestamp(left.checkpoint_at, UTC) if left.checkpoint_at is not None else None
        recorded = (left.parameters, left.tags, left.source, checkpoint_at)
        return checked(number, points, chunks, end, notices, *recorded)
    except ValueError as error:  # BadReport, or an unknown stream
        sentence = f"Batch {number} on the disk of the machine was refused and its content is lost: {error}"
        return checked(number, None, [Chunk(LogStream.SUPERVISOR, sentence)], end)
