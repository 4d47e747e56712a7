"""Sweeps: the leader's loop that begins trials, records how they ended, and ends sweeps.

`run_once()` looks at the sweeps that have not ended, in one statement, and does what is due for each. The parameters of
a trial come from Optuna's samplers (`policy.sampling`), each question in a thread and without a transaction; the trial
begins in a transaction of its own, if it still is the next one. Parameters depend on rows alone: after a kill or a
change of leader the same trial is asked for again, from the same trials before it, and gets the same answer.

A sweep whose sampler raises is logged, once, and tried again with the next round: it holds up no other sweep. With no
open trial the same question gets the same answer: after some rounds the sweep begins no more trials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from db import events, sweeps
from db.connection import Sessions
from db.errors import Refusal
from db.models import Sweep
from db.models import Trial as TrialRow
from policy.sampling import Asked, Outcome, Trial, ask
from policy.search_space import Sampler, decode
from policy.sweep_progress import PRUNED, allotment, slots
from scheduler.rungs import climbed, leave
from settings import Settings
from transitions import sweep as transitions

log = structlog.get_logger()

MOST_FAILURES = 10  # of a sampler, in rounds that follow one another, with no open trial
BEGUN_AT_ONCE = 20  # trials of one sweep in one round: others have their turn in between


@dataclass(frozen=True, slots=True)
class SweepsSummary:
    """Result of a round. active: sweeps that have not ended; unfinished: the next round begins at once."""

    active: int = 0
    begun: int = 0
    ended: int = 0  # trials
    unfinished: bool = False


class Sweeps:
    """Sweeps of the leading scheduler; two at once do no harm."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._currency = settings.currency
        self._stop_grace = timedelta(seconds=settings.stop_grace_seconds)
        self._failing: dict[int, int] = {}  # by sweep: rounds in which its sampler has raised
        self._are_any = False  # as of the newest look
        self.is_due = False  # since a hint

    def note(self, *, found: bool = False) -> bool:
        """Note a hint for the next round; return whether one is due. found: there is a sweep that has not ended.

        Without sweeps a hint that some simulation has changed costs nothing: the planner's look finds new ones.
        """
        self.is_due = self.is_due or found or self._are_any
        return self.is_due

    async def run_once(self) -> SweepsSummary:
        """Do one round."""
        self.is_due = False
        try:
            summary = await self._run_once()
        except BaseException:
            self.is_due = True
            raise
        self._are_any = summary.active > 0
        self.is_due = self.is_due or summary.unfinished
        return summary

    async def _run_once(self) -> SweepsSummary:
        async with self._sessions() as session:
            active = await sweeps.active(session)
        summary = SweepsSummary(len(active))
        self._failing = {each: count for each, count in self._failing.items() if each in active}
        for sweep_id, is_due in active.items():
            if not is_due:
                continue
            begun, ended, is_complete = await self._advance(sweep_id)
            summary = replace(
                summary,
                begun=summary.begun + begun,
                ended=summary.ended + ended,
                unfinished=summary.unfinished or not is_complete,
            )
        return summary

    async def _advance(self, sweep_id: int) -> tuple[int, int, bool]:
        """Do what is due for a sweep: (trials begun, trials ended, whether nothing is left to do at once)."""
        await self._leave_results(sweep_id)
        async with self._sessions.begin() as session:
            sweep = await sweeps.lock(session, sweep_id)
            ended = await transitions.end_trials(session, sweep)
            sweep = await transitions.judge(session, sweep, events.PLANNER, self._currency, stop_grace=self._stop_grace)
            limits = transitions.limits_of(sweep)
            standing = await transitions.standing_of(session, sweep, self._stop_grace)
        free = slots(limits, standing) if sweep.reason is None else 0
        if limits.max_cost is not None and free and allotment(limits, standing) is None:
            free = 0
        if not free:
            return 0, ended, True
        begun = 0
        async with self._sessions() as session:
            trials = [_trial(row) for row in await sweeps.history(session, sweep_id)]
        for _ in range(min(free, BEGUN_AT_ONCE)):
            asked = await self._ask(sweep, trials)
            if isinstance(asked, str):
                if begun or standing.open or self._failing[sweep_id] < MOST_FAILURES:
                    return begun, ended, True
                async with self._sessions.begin() as session:
                    sweep = await sweeps.lock(session, sweep_id)
                    await transitions.give_up(session, sweep, asked, events.PLANNER)
                return begun, ended, False
            try:
                async with self._sessions.begin() as session:
                    sweep = await sweeps.lock(session, sweep_id)
                    if not await transitions.begin(
                        session, sweep, len(trials), asked, events.PLANNER, stop_grace=self._stop_grace
                    ):
                        return begun, ended, True
            except Refusal as refusal:  # as for a machine that was deleted
                async with self._sessions.begin() as session:
                    sweep = await sweeps.lock(session, sweep_id)
                    await transitions.give_up(session, sweep, refusal.message, events.PLANNER)
                return begun, ended, False
            trials.append(Trial(len(trials), asked.parameters, notes=asked.notes))
            begun += 1
        return begun, ended, begun == free

    async def _leave_results(self, sweep_id: int) -> None:
        """Leave the results at rungs of trials that have ended: the judge may not have seen a short one run."""
        async with self._sessions() as session:
            sweep = await sweeps.get(session, sweep_id)
            pruning = transitions.pruning_of(sweep)
            if pruning is None:
                return
            runs = await sweeps.open_runs(session, sweep_id)
            open_trials = {each.trial for each in runs if not each.is_final}
            ended = [each for each in runs if each.trial not in open_trials and each.reason != PRUNED]
            found = [
                (each.simulation_id, await climbed(session, each.simulation_id, sweep.objective_metric, pruning))
                for each in ended
            ]
        async with self._sessions.begin() as session:
            for simulation_id, reached in found:
                if reached is not None:
                    await leave(session, sweep_id, simulation_id, reached)

    async def _ask(self, sweep: Sweep, trials: Sequence[Trial]) -> Asked | str:
        """Ask for the parameters of the next trial; a sentence if its sampler raises."""
        space, sampler = decode(sweep.space), Sampler(sweep.sampler)
        try:
            asked = await asyncio.to_thread(ask, sampler, space, sweep.objective_mode, sweep.seed, trials)
        except Exception as error:  # noqa: BLE001  # whatever a sampler raises: its sweep waits, and no other
            write = log.debug if sweep.id in self._failing else log.error
            write("sampler_failed", sweep_id=sweep.id, trial=len(trials), error=str(error), exc_info=True)
            self._failing[sweep.id] = self._failing.get(sweep.id, 0) + 1
            return f"the sampler {sampler} can't choose its parameters ({str(error)[:500] or type(error).__name__})."
        self._failing.pop(sweep.id, None)
        return asked


def _trial(row: TrialRow) -> Trial:
    outcome = Outcome(row.outcome) if row.outcome is not None else None
    return Trial(row.number, row.parameters, outcome, row.value, row.step, row.notes)
