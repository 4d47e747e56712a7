"""A supervisor's report: fence, order, idempotency and heartbeat, the points, the log, and with an exit the end.

Stored in one transaction, acknowledged when it has committed; a report that is repeated because its answer was lost
changes nothing. Points alone, as most reports bring, are one statement and one round trip (`convergence.take_in`).

Any caller that has a claim may bring reports. The mutation parses, calls this, notifies its hub and maps the receipt; a
host's loop brings what a dead supervisor left on disk.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, convergence, events, lifecycle, logs
from db.attempts import Claim, Receipt
from db.connection import Sessions, driver_of
from db.events import Actor
from db.models import Simulation
from db.states import Reason
from policy.retry import Exit, meaning_of
from transitions.report import Report
from transitions.settle import Ending, settle


async def ingest(
    sessions: Sessions,
    claim: Claim,
    report: Report,
    *,
    backoff: timedelta,
    actor: Actor = events.SUPERVISOR,
) -> Receipt:
    """Store a report, if it is the next one of a current attempt; committed when this returns.

    backoff: before the first retry, if the report's exit leads to one.
    """
    if report.number is not None and report.exit is None and not report.chunks:
        async with driver_of(sessions) as driver:
            receipt = await convergence.take_in(driver, claim, report.number, report.points)
        if receipt is not None:
            return receipt
    async with sessions.begin() as session:  # there is more to it than points, or they are not what is expected next
        # An exit ends all of them, and the simulation's lock comes before the attempt's and the member's.
        simulation = await _lock(session, claim) if report.exit is not None else None
        receipt = await attempts.accept(session, claim, report.number)
        if not receipt.stored or report.number is None:
            return receipt
        await convergence.store(session, receipt.simulation_id, receipt.number, report.number, report.points)
        await logs.store(session, receipt.simulation_id, receipt.number, report.number, report.chunks)
        if report.exit is not None and simulation is not None:
            ending = _ending(report.exit, receipt.stop_reason)
            await settle(session, simulation, receipt.number, ending, actor, backoff=backoff)
        return receipt


async def _lock(session: AsyncSession, claim: Claim) -> Simulation | None:
    simulation_id = await attempts.simulation_of(session, claim.attempt_id, claim.token_digest)
    return await lifecycle.lock(session, simulation_id) if simulation_id is not None else None


def _ending(exit_: Exit, stop_reason: Reason | None) -> Ending:
    meaning = meaning_of(exit_, stop_reason.value if stop_reason is not None else None)
    return Ending(Reason(meaning.reason), meaning.detail, meaning.exit_code, meaning.signal)
