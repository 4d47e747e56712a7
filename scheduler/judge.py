"""Judge: the leader's loop that stops running simulations by their stop rules, or records what a dry run would stop.

`run_once()` is a round: it finds the running simulations with rules, reads the new points of all of them in one
statement, feeds them to the rules (`policy.stopping`), and passes each verdict on to `transitions`. By timer a round
looks at all of them; in between, at those of which a hint came.

A verdict is a function of the stored curve, so the monitors in memory are a cache, of at most 40 KiB for each rule of a
running simulation: after a restart, a change of leader, of the rules or of the attempt, and after points that an
attempt superseded, they are built again from the curve, and reach the same verdicts. A verdict is carried out under the
simulation's lock, if its attempt and its rules are still those that were judged; otherwise it is dropped and the
simulation is judged anew.

A trial of a sweep also has the rule that prunes it (`scheduler.rungs`).

Rules that can't be read (a newer version wrote them) are logged once and left alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import curve, events, judged, lifecycle, windows
from db.connection import Sessions, driver_of
from db.convergence import START
from db.judged import Cursor, Judged
from db.models import Simulation
from db.notifications import Channel
from db.states import Reason, SimulationState
from policy.rule_documents import Declared, decode, halving_in
from policy.savings import Saved, forecast_end, saved
from policy.stopping import Monitor, Verdict
from policy.sweep import Pruned
from scheduler.rungs import Climb, Reached, evidence_of, prune
from transitions.stop import stop_locked, would_stop

log = structlog.get_logger()

MOST_READ = 2_000  # simulations in one read
REBUILT_AT_ONCE = 50  # from stored curves in one round; the others follow in the next ones


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """Result of a round. `unfinished`: there is more to read, so the next round begins at once."""

    points: int = 0  # fed to rules
    stopped: int = 0
    recorded: int = 0  # by dry runs
    unfinished: bool = False


@dataclass(slots=True)
class _Watch:
    """One rule of a simulation, applied to the points so far."""

    place: int
    metric: str
    declared: Declared
    monitor: Monitor
    attempt: int = 0  # of the newest point
    step: int = -1  # likewise
    is_recorded: bool = False  # it is a dry run, and its decision is kept with the simulation
    is_decided: bool = False

    def renewed(self) -> _Watch:
        """Return the same rule before any point."""
        return _new_watch(self.place, self.declared, is_recorded=self.is_recorded)

    def feed(self, attempt: int, steps: Sequence[int], values: Sequence[float]) -> Verdict | None:
        """Add points until one has a verdict. Steps that don't rise are left out."""
        self.attempt, last, add = attempt, self.step, self.monitor.add
        for step, value in zip(steps, values, strict=True):
            if step <= last:
                continue
            last = step
            verdict = add(step, value)
            if verdict is not None and self._counts(verdict):
                self.step, self.is_decided = last, True
                return verdict
        self.step = last
        return None

    def _counts(self, verdict: Verdict) -> bool:
        """False for a verdict on points from before the rule was given."""
        since, attempt = self.declared.since_step, self.declared.since_attempt
        return since is None or verdict.step > since or (attempt is not None and self.attempt > attempt)


@dataclass(slots=True)
class _Run:
    """A running simulation, as it is judged."""

    found: Judged
    watches: Sequence[_Watch | Climb] = ()
    cursor: Cursor = START
    is_built: bool = False  # from what was stored before it was met


@dataclass(slots=True)
class _Decision:
    run: _Run
    watch: _Watch | Climb
    verdict: Verdict | Reached

    @property
    def is_dry(self) -> bool:
        return isinstance(self.watch, _Watch) and self.watch.declared.dry_run


@dataclass(slots=True)
class _Hints:
    """Ids of which hints came since the last round; None: of all."""

    changed: set[int] | None = field(default_factory=set)
    reported: set[int] | None = field(default_factory=set)


class Judge:
    """Judge of the leading scheduler; two at once do no harm."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._runs: dict[int, _Run] = {}
        self._unread: set[int] = set()  # with more points than the last round read
        self._hints = _Hints(None, None)

    def hear(self, channel: Channel, ids: frozenset[int] | None) -> bool:
        """Note a hint for the next round; True if it is about simulations. ids None: look at all."""
        if channel is Channel.SIMULATIONS:
            self._hints.changed = _joined(self._hints.changed, ids)
        elif channel is Channel.CONVERGENCE:
            self._hints.reported = _joined(self._hints.reported, ids)
        return channel in (Channel.SIMULATIONS, Channel.CONVERGENCE)

    def forget(self) -> None:
        """Drop the memory: another judge may lead until the next round."""
        self._runs.clear()
        self._unread.clear()
        self._hints = _Hints(None, None)

    async def run_once(self, *, everything: bool = True) -> JudgeSummary:
        """Do one round: by all running simulations, or only by those of which hints came."""
        hints, self._hints = self._hints, _Hints()
        if everything:
            hints = _Hints(None, None)
        try:
            return await self._judge(hints)
        except BaseException:
            self.forget()  # points may have been fed whose verdict was not carried out
            raise

    async def _judge(self, hints: _Hints) -> JudgeSummary:
        await self._meet(hints.changed)
        rebuilt, decisions = await self._rebuild()
        ids = self._unread | (set(self._runs) if hints.reported is None else hints.reported & self._runs.keys())
        self._unread = set()
        points = 0
        for part in _parts([each for each in ids if self._runs[each].is_built and self._runs[each].watches]):
            fed, decided = await self._read(part)
            points, decisions = points + fed, [*decisions, *decided]
        summary = JudgeSummary(points + rebuilt)
        for each in decisions:
            done = await self._carry_out(each)
            summary = replace(
                summary,
                stopped=summary.stopped + (done and not each.is_dry),
                recorded=summary.recorded + (done and each.is_dry),
            )
        behind = any(not run.is_built for run in self._runs.values())
        return replace(summary, unfinished=bool(self._unread) or behind)

    # --- which simulations ---------------------------------------------------------------------------------------

    async def _meet(self, changed: set[int] | None) -> None:
        """Find the running simulations with rules: all, or those among the changed ones."""
        if changed is not None and not changed:
            return
        known = [run.found for number, run in self._runs.items() if changed is None or number in changed]
        async with driver_of(self._sessions) as driver:
            found, gone = await judged.changes(driver, known, changed)
        for number in gone:
            self._runs.pop(number, None)
        if not found:
            return
        numbers = [each.simulation_id for each in found]
        async with self._sessions() as session:
            rules = await judged.rules_of(session, numbers)
            with_points = await judged.with_points(session, numbers)
        for each in found:
            number = each.simulation_id
            self._runs.pop(number, None)  # its older rules are not judged by any longer
            if number in rules:
                self._runs[number] = _Run(each, _watches(number, rules[number]), is_built=number not in with_points)

    # --- their points --------------------------------------------------------------------------------------------

    async def _rebuild(self) -> tuple[int, list[_Decision]]:
        """Feed the stored curves of simulations that were met, or of which an attempt superseded points."""
        behind = [run for run in self._runs.values() if not run.is_built][:REBUILT_AT_ONCE]
        points, decisions = 0, []
        for run in behind:
            number = run.found.simulation_id
            waiting: dict[str, list[_Watch | Climb]] = {}
            for watch in run.watches:
                if not watch.is_decided:
                    waiting.setdefault(watch.metric, []).append(watch)
            async with self._sessions() as session:
                ends = await curve.ends(session, number)
                parts = {metric: await curve.parts(session, number, metric) for metric in waiting}
            for metric, watches in waiting.items():
                fed, decided = await self._feed_stored(number, metric, watches, parts[metric], ends)
                points += fed
                decisions += [_Decision(run, watch, verdict) for watch, verdict in decided]
            run.cursor = max(ends.items(), default=START)
            run.is_built = True
            self._unread.add(number)
        return points, decisions

    async def _feed_stored(
        self,
        number: int,
        metric: str,
        watches: Sequence[_Watch | Climb],
        parts: Sequence[curve.Part],
        ends: Mapping[int, int],
    ) -> tuple[int, list[tuple[_Watch | Climb, Verdict | Reached]]]:
        """Feed the standing curve of a metric to its rules, as far as the last batch of each attempt in `ends`.

        Each page is read by a session of its own, which is closed before the rules compute, in a thread.
        """
        points = 0
        decided: list[tuple[_Watch | Climb, Verdict | Reached]] = []
        for part in parts:
            after, rows = 0, curve.FIRST_PAGE_ROWS
            while not all(each.is_decided for each in watches):
                async with self._sessions() as session:
                    page = await curve.find_page(
                        session, number, metric, part, after=after, last_batch=ends.get(part.attempt, 0), rows=rows
                    )
                if page is None:
                    break
                fed, more = await asyncio.to_thread(_feed_page, watches, page)
                points, decided = points + fed, decided + more
                after, rows = page.last_batch, page.next_rows
        return points, decided

    async def _read(self, ids: Sequence[int]) -> tuple[int, list[_Decision]]:
        """Read and feed what follows the cursors of these simulations, all in one statement."""
        cursors = {number: self._runs[number].cursor for number in ids}
        metrics = {watch.metric for number in ids for watch in self._runs[number].watches}
        async with driver_of(self._sessions) as driver:
            rows = await judged.read(driver, cursors, metrics)
        if not rows:
            return 0, []
        # In a thread: a round of many points takes a moment, during which this process has launches to make.
        return await asyncio.to_thread(self._feed, rows)

    def _feed(self, rows: Sequence[Any]) -> tuple[int, list[_Decision]]:
        points = 0
        decisions: list[_Decision] = []
        if len(rows) >= judged.MOST_ROWS:
            counts = Counter(row[0] for row in rows)
            self._unread.update(number for number, count in counts.items() if count >= judged.MOST_ROWS)
        runs = self._runs
        for number, attempt, batch, metric, steps, values in rows:
            run = runs[number]
            run.cursor = (attempt, batch)
            if steps is None or not run.is_built:
                continue
            for watch in run.watches:
                if watch.metric != metric or watch.is_decided:
                    continue
                if watch.attempt < attempt and steps[0] <= watch.step:
                    run.watches = [each.renewed() for each in run.watches]
                    run.is_built = False  # its older points no longer count
                    break
                points += len(steps)
                verdict = watch.feed(attempt, steps, values)
                if verdict is not None:
                    decisions.append(_Decision(run, watch, verdict))
        return points, [each for each in decisions if each.run.is_built]

    # --- verdicts ------------------------------------------------------------------------------------------------

    async def _carry_out(self, decision: _Decision) -> bool:
        """Stop the simulation, or record the dry run; False if it is no longer what was judged."""
        found = decision.run.found
        async with self._sessions.begin() as session:
            simulation = await lifecycle.lock(session, found.simulation_id)
            if simulation is None or simulation.state is not SimulationState.RUNNING:
                return False
            if (simulation.attempt, simulation.stopping_revision) != (found.attempt, found.revision):
                return False
            watch, verdict = decision.watch, decision.verdict
            if isinstance(watch, Climb):
                assert isinstance(verdict, Reached)
                return await _prune(session, simulation, watch, verdict)
            assert isinstance(verdict, Verdict)
            evidence = _evidence(
                verdict,
                {"reason": verdict.reason, **verdict.evidence()},
                *await _what_is_saved(session, simulation, verdict.metric),
                dry_run=watch.declared.dry_run,
            )
            if watch.declared.dry_run:
                watch.is_recorded = True
                return await would_stop(session, simulation, watch.place, events.JUDGE, evidence)
            return await stop_locked(session, simulation, Reason(verdict.reason), events.JUDGE, evidence=evidence)


async def _prune(session: AsyncSession, simulation: Simulation, climb: Climb, reached: Reached) -> bool:
    pruned = await prune(session, simulation, climb.halving, reached)
    if pruned is None:
        return False
    evidence = _evidence(
        pruned, evidence_of(pruned, climb.metric), *await _what_is_saved(session, simulation, climb.metric)
    )
    return await stop_locked(session, simulation, Reason.PRUNED, events.JUDGE, evidence=evidence)


async def _what_is_saved(session: AsyncSession, simulation: Simulation, metric: str) -> tuple[Saved | None, str]:
    """Estimate what a stop saves, and its currency; None: nothing is known of the end, or of the pace."""
    pace = await judged.find_pace(session, simulation.id, metric)
    if pace is None or pace.seconds <= 0:
        return None, ""
    forecast = None
    if pace.max_steps is None or pace.max_steps <= pace.last_step:
        similar = await windows.similar(
            session, simulation.id, project_id=simulation.project_id, name=simulation.name, metric=metric,
            reasons=[Reason.COMPLETED],
        )  # fmt: skip
        forecast = forecast_end(pace.last_step, [each.last_step for each in similar])
    rate = (pace.last_step - pace.first_step) / pace.seconds
    price = pace.per_hour if pace.per_hour > 0 else None
    return saved(
        pace.last_step, rate, max_steps=pace.max_steps, forecast=forecast, price_per_hour=price
    ), pace.currency  # fmt: skip


def _evidence(
    verdict: Verdict | Pruned,
    facts: Mapping[str, Any],
    estimate: Saved | None,
    currency: str,
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Return what the attempt and the event keep, as JSON."""
    sentences = ["Dry run, nothing was stopped:"] if dry_run else []
    sentences.append(verdict.sentence())
    evidence: dict[str, Any] = dict(facts)
    if estimate is not None:
        sentences.append(estimate.sentence(currency))
        evidence["saved"] = {
            "seconds": round(estimate.seconds, 1),
            "amount": f"{estimate.amount:f}" if estimate.amount is not None else None,
            "currency": currency,
            "by": estimate.by.value,
            "endStep": estimate.end,
            "similar": estimate.similar,
        }
    return {**evidence, "sentence": " ".join(sentences)}


def _watches(number: int, kept: judged.Rules) -> list[_Watch | Climb]:
    try:
        rules = decode(kept.document, objective=kept.objective, max_steps=kept.max_steps)
        halving = halving_in(kept.document)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("stop_rules_unreadable", simulation_id=number, error=str(error))
        return []
    return [
        *(
            _new_watch(place, each, is_recorded=each.dry_run and str(place) in kept.would_stop)
            for place, each in enumerate(rules)
        ),
        *([Climb(*halving)] if halving is not None else []),
    ]


def _new_watch(place: int, declared: Declared, *, is_recorded: bool) -> _Watch:
    return _Watch(
        place, declared.rules.metric, declared, Monitor(declared.rules), is_recorded=is_recorded, is_decided=is_recorded
    )


def _feed_page(
    watches: Sequence[_Watch | Climb], page: curve.Page
) -> tuple[int, list[tuple[_Watch | Climb, Verdict | Reached]]]:
    """Feed a page to the rules that have not decided; return the points that were fed, and new verdicts."""
    points = page.unpack()
    steps, values = points.steps.tolist(), points.values.tolist()
    waiting = [watch for watch in watches if not watch.is_decided]
    verdicts = [(watch, watch.feed(page.attempt, steps, values)) for watch in waiting]
    return len(points) * len(waiting), [(watch, verdict) for watch, verdict in verdicts if verdict is not None]


def _joined(known: set[int] | None, more: Collection[int] | None) -> set[int] | None:
    return None if known is None or more is None else known | set(more)


def _parts(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[begin : begin + MOST_READ] for begin in range(0, len(ids), MOST_READ))
