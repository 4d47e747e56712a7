"""Delivery of what a dead supervisor left on this host: its undelivered batches, stored as a living one's reports are.

So an outage of `graph` that ends with the supervisor's death loses nothing that was printed. Called when the engine has
said DEAD and before the attempt is settled; an exit among the batches settles it. Files that can't be read are logged
and passed over: they keep no attempt from its end.
"""

from __future__ import annotations

from dataclasses import astuple
from datetime import timedelta
from hashlib import sha256

import structlog

from db import public_ids
from db.attempts import Claim, Standing
from db.connection import Sessions
from db.logs import Chunk
from db.states import LogStream
from policy.retry import Exit
from runner.base import Engine, Undelivered
from transitions.ingest import ingest
from transitions.report import Report, checked

log = structlog.get_logger()


async def deliver(sessions: Sessions, engine: Engine, attempt_id: int, *, backoff: timedelta) -> bool:
    """Store what a dead attempt left, in order, once each. Returns whether an exit among it has ended the attempt.

    backoff: before the first retry, if the exit leads to one.
    """
    public_id = public_ids.encode("Attempt", attempt_id)
    stored, ended, after, shift = 0, False, 0, 0
    while not ended:
        try:
            left = await engine.undelivered(public_id, after)
        except (OSError, ValueError, TypeError) as error:
            log.warning("leftovers_unreadable", attempt_id=attempt_id, error=str(error))
            break
        if left is None:
            break
        after = left.number
        claim = Claim(attempt_id, sha256(left.token.encode()).digest(), left.nonce)
        receipt = await ingest(sessions, claim, _report(left, left.number + shift), backoff=backoff)
        if receipt.standing is Standing.CURRENT and receipt.expected_batch < left.number + shift:
            # Batches before it are on no disk, because that was full: go on behind the last one that is stored.
            shift = receipt.expected_batch - left.number
            receipt = await ingest(sessions, claim, _report(left, left.number + shift), backoff=backoff)
        if receipt.standing is not Standing.CURRENT:
            break
        stored += receipt.stored
        ended = receipt.stored and left.exit is not None
    if stored:
        log.info("leftovers_delivered", attempt_id=attempt_id, batches=stored)
    return ended


def _report(left: Undelivered, number: int) -> Report:
    """The batch as a report; a sentence in its place if it breaks the rules, as a living supervisor sends it."""
    end = Exit(*astuple(left.exit)) if left.exit is not None else None
    points = {
        metric: {"steps": steps, "values": values, "elapsed": elapsed}
        for metric, (steps, values, elapsed) in left.points.items()
    }
    try:
        return checked(number, points, [Chunk(LogStream(stream), text) for stream, text in left.logs], end)
    except ValueError as error:  # BadReport, or a stream that there is not
        sentence = f"Batch {number} on the disk of the machine was refused and its content is lost: {error}"
        return checked(number, None, [Chunk(LogStream.SUPERVISOR, sentence)], end)
