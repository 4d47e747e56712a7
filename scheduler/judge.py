"""Judge: the leader's loop that stops running simulations by their stop rules, or records what a dry run would stop.

`run_once()` is a round: it finds the running simulations with rules, reads the new points of all of them in one
statement, feeds them to the rules (`policy.stopping`), and passes each verdict on to `transitions`. By timer a round
looks at all of them; in between, at those of which a hint came.

A verdict is a function of the stored curve, so the monitors in memory are a cache, of at most 40 KiB for each rule of a
running simulation: after a restart, a change of leader, of the rules or of the attempt, and after points that an
attempt superseded, they are built again from the curve, and reach the same verdicts. A verdict is carried out under the
simulation's lock, if its attempt and its rules are still those that were judged; otherwise it is dropped and the
simulation is judged anew.

Rules that can't be read (a newer version wrote them) are logged once and left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import curve, events, judged, lifecycle
from db.connection import Sessions, driver_of
from db.convergence import START
from db.judged import Cursor, Judged
from db.notifications import Channel
from db.states import Reason, SimulationState
from policy.rule_documents import Declared, decode
from policy.savings import saved
from policy.stopping import Monitor, Verdict
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
    declared: Declared
    monitor: Monitor
    last: Cursor | None = None  # attempt and step of the newest point
    is_recorded: bool = False  # it is a dry run, and its decision is kept with the simulation
    is_decided: bool = False

    @property
    def metric(self) -> str:
        return self.declared.rules.metric

    def feed(self, attempt: int, steps: Iterable[int], values: Iterable[float]) -> Verdict | None:
        """Add points until one has a verdict. Steps that don't rise are left out."""
        last = self.last[1] if self.last is not None else -1
        add, since = self.monitor.add, self.declared.since_step
        verdict = None
        for step, value in zip(steps, values, strict=True):
            if step <= last:
                continue
            last = step
            verdict = add(step, value)
            if verdict is not None and (since is None or verdict.step > since):
                self.is_decided = True
                break
            verdict = None
        self.last = (attempt, last)
        return verdict


@dataclass(slots=True)
class _Run:
    """A running simulation, as it is judged."""

    found: Judged
    watches: Sequence[_Watch] = ()
    cursor: Cursor = START
    is_built: bool = False  # from what was stored before it was met


@dataclass(slots=True)
class _Decision:
    run: _Run
    watch: _Watch
    verdict: Verdict


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
                stopped=summary.stopped + (done and not each.watch.declared.dry_run),
                recorded=summary.recorded + (done and each.watch.declared.dry_run),
            )
        behind = any(not run.is_built for run in self._runs.values())
        return replace(summary, unfinished=bool(self._unread) or behind)

    # --- which simulations ---------------------------------------------------------------------------------------

    async def _meet(self, changed: set[int] | None) -> None:
        """Find the running simulations with rules: all, or those among the changed ones."""
        if changed is not None and not changed:
            return
        async with self._sessions() as session:
            found = {each.simulation_id: each for each in await judged.running(session, changed)}
            new = [number for number, each in found.items() if self._is_new(each)]
            rules = await judged.rules_of(session, new) if new else {}
            with_points = await judged.with_points(session, new) if new else frozenset()
        for number in list(self._runs) if changed is None else changed:
            if number not in found:
                self._runs.pop(number, None)
        for number in new:
            kept = rules.get(number)
            if kept is not None:
                watches = _watches(number, kept)
                self._runs[number] = _Run(found[number], watches, is_built=number not in with_points)

    def _is_new(self, found: Judged) -> bool:
        known = self._runs.get(found.simulation_id)
        return known is None or known.found != found

    # --- their points --------------------------------------------------------------------------------------------

    async def _rebuild(self) -> tuple[int, list[_Decision]]:
        """Feed the stored curves of simulations that were met, or of which an attempt superseded points."""
        behind = [run for run in self._runs.values() if not run.is_built][:REBUILT_AT_ONCE]
        points, decisions = 0, []
        for run in behind:
            async with self._sessions() as session:
                number = run.found.simulation_id
                ends = await curve.ends(session, number)
                for watch in run.watches:
                    if watch.is_decided:
                        continue
                    fed, verdict = await _feed_stored(session, number, watch, ends)
                    points += fed
                    if verdict is not None:
                        decisions.append(_Decision(run, watch, verdict))
            run.cursor = max(ends.items(), default=START)
            run.is_built = True
            self._unread.add(number)
        return points, decisions

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
        for number, page_attempt, page_batch, page_rows, attempt, metric, steps, values in rows:
            run = self._runs[number]
            run.cursor = (page_attempt, page_batch)
            if page_rows >= judged.MOST_ROWS:
                self._unread.add(number)
            if attempt is None or not run.is_built:
                continue
            for watch in run.watches:
                if watch.is_decided or watch.metric != metric:
                    continue
                if watch.last is not None and watch.last[0] < attempt and steps[0] <= watch.last[1]:
                    run.watches = [
                        _new_watch(each.place, each.declared, is_recorded=each.is_recorded) for each in run.watches
                    ]
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
        found, watch, verdict = decision.run.found, decision.watch, decision.verdict
        async with self._sessions.begin() as session:
            simulation = await lifecycle.lock(session, found.simulation_id)
            if simulation is None or simulation.state is not SimulationState.RUNNING:
                return False
            if (simulation.attempt, simulation.stopping_revision) != (found.attempt, found.revision):
                return False
            pace = await judged.find_pace(session, found.simulation_id, verdict.metric)
            evidence = _evidence(verdict, pace, dry_run=watch.declared.dry_run)
            if watch.declared.dry_run:
                watch.is_recorded = True
                return await would_stop(session, simulation, watch.place, events.JUDGE, evidence)
            return await stop_locked(session, simulation, Reason(verdict.reason), events.JUDGE, evidence=evidence)


def _evidence(verdict: Verdict, pace: judged.Pace | None, *, dry_run: bool) -> dict[str, Any]:
    """Return what the attempt and the event keep, as JSON."""
    sentences = ["Dry run, nothing was stopped:"] if dry_run else []
    sentences.append(verdict.sentence())
    evidence: dict[str, Any] = {"reason": verdict.reason, **verdict.evidence()}
    estimate = None
    if pace is not None and pace.seconds > 0:
        rate = (pace.last_step - pace.first_step) / pace.seconds
        price = pace.per_hour if pace.per_hour > 0 else None
        estimate = saved(pace.last_step, rate, max_steps=pace.max_steps, price_per_hour=price)
    if estimate is not None and pace is not None:
        sentences.append(estimate.sentence(pace.currency))
        evidence["saved"] = {
            "seconds": round(estimate.seconds, 1),
            "amount": f"{estimate.amount:f}" if estimate.amount is not None else None,
            "currency": pace.currency,
            "by": estimate.by.value,
        }
    return {**evidence, "sentence": " ".join(sentences)}


def _watches(number: int, kept: judged.Rules) -> list[_Watch]:
    try:
        rules = decode(kept.document, objective=kept.objective, max_steps=kept.max_steps)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("stop_rules_unreadable", simulation_id=number, error=str(error))
        return []
    return [
        _new_watch(place, each, is_recorded=each.dry_run and str(place) in kept.would_stop)
        for place, each in enumerate(rules)
    ]


def _new_watch(place: int, declared: Declared, *, is_recorded: bool) -> _Watch:
    return _Watch(place, declared, Monitor(declared.rules), is_recorded=is_recorded, is_decided=is_recorded)


async def _feed_stored(
    session: AsyncSession, number: int, watch: _Watch, ends: Mapping[int, int]
) -> tuple[int, Verdict | None]:
    """Feed the standing curve of the rule's metric, as far as the last batch of each attempt in `ends`."""
    points = 0
    for part in await curve.parts(session, number, watch.metric):
        last_batch = ends.get(part.attempt, 0)
        async for page in curve.pages(session, number, watch.metric, part, last_batch=last_batch):
            fed, verdict = await asyncio.to_thread(_feed_page, watch, page)
            points += fed
            if verdict is not None:
                return points, verdict
    return points, None


def _feed_page(watch: _Watch, page: curve.Page) -> tuple[int, Verdict | None]:
    points = page.unpack()
    return len(points), watch.feed(page.attempt, points.steps.tolist(), points.values.tolist())


def _joined(known: set[int] | None, more: Collection[int] | None) -> set[int] | None:
    return None if known is None or more is None else known | set(more)


def _parts(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[begin : begin + MOST_READ] for begin in range(0, len(ids), MOST_READ))
