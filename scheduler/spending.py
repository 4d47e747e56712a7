"""Budgets' watch: record warnings, stop attempts before a budget is used up, and end those that do not obey.

`watch()` is one look over all budgets, made once in a tick by the leader. `policy.budget` judges each budget by its
account and the attempts that spend it. First the budget is closed in its row, so that nothing else starts; then each
attempt is stopped, or ended, in a transaction of its own. A look that is cut off between the two is completed by the
next one, because the verdict depends on the rows alone. Without budgets a look is one statement.

An attempt whose machine is silent gets its stop like any other. When the rest pays for no further look, the attempt is
ended in its rows: its members cost nothing from then on, and its host kills what still runs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, budgets, events, lifecycle, public_ids
from db.connection import Sessions, driver_of
from db.models import Attempt, Budget
from db.states import Reason
from policy.budget import Reserve, Running, Verdict, needed, verdict_of, warnings_due
from policy.retry import beat_period
from settings import Settings
from transitions.budget import Rules, Statement, sentence, statements
from transitions.settle import Ending, settle
from transitions.stop import stop

log = structlog.get_logger()

WARNING = "BUDGET_WARNING"  # the kind of the event


def rules_of(settings: Settings) -> Rules:
    """Return the rules of budgets by these settings; the planner looks at them once in a tick."""
    look = min(timedelta(seconds=settings.tick_seconds), beat_period(timedelta(seconds=settings.lease_seconds)))
    return Rules(
        reserve=Reserve(
            look=look,
            heartbeat=timedelta(seconds=settings.heartbeat_seconds),
            grace=timedelta(seconds=settings.stop_grace_seconds),
        ),
        zone=ZoneInfo(settings.time_zone),
        currency=settings.currency,
    )


class Spending:
    """Watch of all budgets; two at once do no harm."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._rules = rules_of(settings)
        self._backoff = timedelta(seconds=settings.retry_backoff_seconds)

    async def watch(self) -> int:
        """Look at every budget once; return how many attempts were stopped or ended."""
        async with driver_of(self._sessions) as driver:
            found = await budgets.ids(driver)
        done = 0
        for budget_id in found:
            async with self._sessions.begin() as session:
                budget = await budgets.lock(session, budget_id)
                if budget is None:
                    continue
                statement, verdict = await self._judge(session, budget)
                evidence = await self._evidence(session, statement) if verdict != Verdict() else {}
            for each in verdict.end:
                done += await self._end(budget_id, each, str(evidence["sentence"]))
            for each in verdict.stop:
                done += await self._stop(budget_id, each, evidence)
        return done

    async def _judge(self, session: AsyncSession, budget: Budget) -> tuple[Statement, Verdict]:
        """Judge a budget that is locked, and write down the state of its period."""
        now = await budgets.clock(session)
        [statement] = await statements(session, [budget], self._rules.zone, now)
        since, is_new = statement.since, budget.period_begin != statement.span.begin
        if is_new or now - since.counted_to > 2 * budgets.COUNTED_AFTER:
            await budgets.count(session, since, now)
        if is_new:
            await budgets.note(session, budget.id, warned_percent=0, closed_at=None)
        verdict = Verdict()
        if statement.account.left < needed(statement.account.per_hour, self._rules.reserve.whole):
            running = [
                Running(
                    row.attempt_id, row.simulation_id, row.priority, row.assigned_at, row.per_hour, row.stop_wanted_at
                )
                for row in await budgets.running_of(session, budget)
            ]
            verdict = verdict_of(statement.account, running, now, self._rules.reserve)
        account = statement.account
        if (verdict != Verdict() or account.left <= 0) and not account.is_closed:
            account = replace(account, is_closed=True)
            await budgets.note(session, budget.id, closed_at=now)
        due = warnings_due(account, 0 if is_new else budget.warned_percent)
        for percent in due:
            await self._warn(session, statement, percent)
        if due:
            await budgets.note(session, budget.id, warned_percent=due[-1])
        return replace(statement, account=account), verdict

    async def _warn(self, session: AsyncSession, statement: Statement, percent: int) -> None:
        budget = statement.budget
        facts = {
            "percent": percent, "spent": str(statement.account.spent), "amount": str(budget.amount),
            "currency": budget.currency, "period": budget.period, "periodBegin": statement.span.begin.isoformat(),
        }  # fmt: skip
        await events.record(
            session, WARNING, events.PLANNER, "Budget", budget.id, project_id=budget.project_id, detail=facts
        )
        log.warning("budget_warning", budget_id=budget.id, project_id=budget.project_id, percent=percent)

    async def _evidence(self, session: AsyncSession, statement: Statement) -> dict[str, Any]:
        """Facts behind a stop: the budget, what it had left, and the sentence that also waiting simulations get."""
        account = statement.account
        return {
            "reason": Reason.BUDGET_EXHAUSTED.value,
            "rule": "budget",
            "budget": public_ids.encode("Budget", statement.budget.id),
            "period": statement.budget.period,
            "periodBegin": statement.span.begin.isoformat(),
            "amount": str(account.amount),
            "spent": str(account.spent),
            "perHour": str(account.per_hour),
            "currency": account.currency,
            "sentence": await sentence(session, statement, self._rules),
        }

    async def _stop(self, budget_id: int, running: Running, evidence: dict[str, Any]) -> bool:
        """Stop an attempt, if the verdict on it still holds."""
        async with self._sessions.begin() as session:
            current = await self._judged(session, budget_id, running)
            if current is None:
                return False
            return await stop(
                session, running.simulation_id, Reason.BUDGET_EXHAUSTED, events.PLANNER,
                evidence=evidence, number=current.number,
            )  # fmt: skip

    async def _end(self, budget_id: int, running: Running, detail: str) -> bool:
        """End an attempt that was stopped and goes on, if the verdict on it still holds; its billing ends with it."""
        async with self._sessions.begin() as session:
            current = await self._judged(session, budget_id, running)
            if current is None or current.stop_wanted_at is None:
                return False
            ending = Ending(Reason.BUDGET_EXHAUSTED, detail)
            return await settle(
                session, running.simulation_id, current.number, ending, events.PLANNER, backoff=self._backoff
            )

    async def _judged(self, session: AsyncSession, budget_id: int, running: Running) -> Attempt | None:
        """Lock the simulation; return the judged attempt, or None if it is over or the budget was changed or deleted.

        The verdict has closed the budget, and a change opens it again.
        """
        simulation = await lifecycle.lock(session, running.simulation_id)
        current = await attempts.find_current(session, running.simulation_id)
        if simulation is None or current is None or current.id != running.attempt_id:
            return None
        budget = await budgets.find(session, budget_id)
        return current if budget is not None and budget.closed_at is not None else None
