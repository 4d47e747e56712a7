"""Ingest of a supervisor's report: fence, order, idempotency, heartbeat, points, log, and with an exit the end.

A report is stored in one transaction and acknowledged after its commit; a report repeated because its answer was lost
changes nothing. A report of points alone, as most are, is one statement and one round trip (`convergence.take_in`),
and so is one of the exit alone with which most programs without metrics end (`settle.complete`).

Any caller with a claim may store reports. The mutation parses, calls `ingest`, notifies its hub and maps the receipt;
the host's loop stores the batches that a dead supervisor left on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, checkpoints, convergence, events, lifecycle, logs, notices, simulations, sources
from db.attempts import Claim, Receipt, Settling
from db.connection import Sessions, driver_of
from db.convergence import Column
from db.events import Actor
from db.notices import Notice
from policy.retry import completes
from transitions.report import MAX_NOTICE_TEXT, Report
from transitions.settle import complete, ending_by, settle

HIGHER_RANK = "HIGHER_RANK"  # as in runner/supervisor/notices.py


async def ingest(
    sessions: Sessions,
    claim: Claim,
    report: Report,
    *,
    backoff: timedelta,
    actor: Actor = events.SUPERVISOR,
) -> Receipt:
    """Store a report if it is the next of a current attempt; committed on return.

    backoff: time before the first retry, if the report's exit leads to one.
    """
    receipt = None
    if report.number is not None and not _has_more(report):
        if report.exit is None:
            async with driver_of(sessions) as driver:
                receipt = await convergence.take_in(driver, claim, report.number, report.points)
        elif not report.points and completes(report.exit):
            receipt = await complete(sessions, claim, report.number, report.exit, actor)
    if receipt is not None:
        return receipt
    async with sessions.begin() as session:  # more than points, or not the expected batch
        receipt, current = await _accept(session, claim, report)
        if not receipt.stored or report.number is None:
            return receipt
        rank = receipt.rank
        found = report.notices
        if rank == 0:
            await convergence.store(session, receipt.simulation_id, receipt.number, report.number, report.points)
        elif report.points:
            found = [*(each for each in found if each.kind != HIGHER_RANK), _refused(report.points)]
        await logs.store(session, receipt.simulation_id, receipt.number, report.number, report.chunks, rank=rank)
        await notices.store(session, receipt.simulation_id, receipt.number, found, rank=rank)
        if report.source is not None and rank == 0:
            await sources.store(session, receipt.simulation_id, receipt.number, report.source)
        if report.checkpoint_at is not None:
            await checkpoints.note(session, claim.attempt_id, rank, report.checkpoint_at)
        if report.parameters or report.tags:
            simulation = await simulations.get(session, receipt.simulation_id)
            await simulations.record(session, simulation, report.parameters, report.tags)
        if report.exit is not None:
            ending = ending_by(report.exit, receipt.stop_reason)
            await settle(
                session, receipt.simulation_id, receipt.number, ending, actor,
                backoff=backoff, rank=rank, current=current,
            )  # fmt: skip
        return receipt


async def _accept(session: AsyncSession, claim: Claim, report: Report) -> tuple[Receipt, Settling | None]:
    """Record a report, with the locks for what follows; return what its end is judged by, too.

    An exit may end the attempt, and parameters and tags are written to the simulation, whose lock comes before the
    attempt's and the member's.
    """
    if report.exit is not None and report.number is not None:
        accepted = await attempts.accept_end(session, claim, report.number)
        if accepted is not None:
            return accepted
    if report.exit is not None or report.parameters or report.tags:
        await lifecycle.lock_of(session, claim.attempt_id, claim.token_digest)
    return await attempts.accept(session, claim, report.number), None


def _has_more(report: Report) -> bool:
    recorded = report.notices or report.parameters or report.tags or report.source or report.checkpoint_at
    return bool(report.chunks or recorded)


def _refused(points: Mapping[str, Column]) -> Notice:
    """The notice about points of a rank above 0, which are not stored: supervisors send none."""
    count = sum(len(column.steps) for column in points.values())
    example = ", ".join(points)[:MAX_NOTICE_TEXT]
    return Notice(HIGHER_RANK, count, example, "Only rank 0's points are the curve: report them there.")
