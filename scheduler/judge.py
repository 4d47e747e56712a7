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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import curve, events, judged, lifecycle, windows
from db.connection import Sessions, driver_of
from db.convergence import START
from db.models import Simulation
from db.notifications import Channel
from db.states import Reason, SimulationState
from policy.rule_documents import decode, pruning_in
from policy.savings import Saved, forecast_end, saved
from policy.stopping import Verdict
from policy.sweep import BelowMedian, Pruned
from scheduler.front import Front, Run, Watch
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
class _Decision:
    run: Run
    watch: Watch | Climb
    verdict: Verdict | Reached

    @property
    def is_dry(self) -> bool:
        return isinstance(self.watch, Watch) and self.watch.declared.dry_run


@dataclass(slots=True)
class _Hints:
    """Ids of which hints came since the last round; None: of all."""

    changed: set[int] | None = field(default_factory=set)
    reported: set[int] | None = field(default_factory=set)


class Judge:
    """Judge of the leading scheduler; two at once do no harm."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._runs: dict[int, Run] = {}
        self._marks = 0  # of all of them, combined by XOR
        self._behind: dict[int, Run] = {}  # those that are to be built from what is stored
        self._front = Front()  # the others
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
        self._marks = 0
        self._behind.clear()
        self._front = Front()
        self._unread.clear()
        self._hints = _Hints(None, None)

    async def run_once(self, *, everything: bool = True) -> JudgeSummary:
        """Do one round: by all running simulations, or only by those of which hints came."""
        hints, self._hints = self._hints, _Hints()
        try:
            return await self._judge(hints, everything=everything)
        except BaseException:
            self.forget()  # points may have been fed whose verdict was not carried out
            raise

    async def _judge(self, hints: _Hints, *, everything: bool) -> JudgeSummary:
        await self._meet(hints.changed, everything=everything)
        rebuilt, decisions = await self._rebuild()
        places: Sequence[int] = range(len(self._front.runs))
        if not everything and hints.reported is not None:
            asked = (self._unread | hints.reported) & self._runs.keys()
            places = [place for number in asked if (place := self._runs[number].place) >= 0]
        self._unread = set()
        points = 0
        for part in _parts(places):
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
        return replace(summary, unfinished=bool(self._unread or self._behind))

    # --- which simulations ---------------------------------------------------------------------------------------

    async def _meet(self, changed: set[int] | None, *, everything: bool) -> None:
        """Find the running simulations with rules: those among the changed ones, and all if these are not all."""
        if changed is not None:
            if changed:
                await self._compare(changed)
            if not everything:
                return
            async with driver_of(self._sessions) as driver:
                if await judged.fingerprint(driver) == self._fingerprint:
                    return
        await self._compare(None)

    async def _compare(self, among: set[int] | None) -> None:
        """Compare the runs in memory with the rows: all, or those of these simulations."""
        known = [run.found for number, run in self._runs.items() if among is None or number in among]
        async with driver_of(self._sessions) as driver:
            found, gone = await judged.changes(driver, known, among)
        for number in gone:
            self._drop(number)
        if not found:
            return
        numbers = [each.simulation_id for each in found]
        async with self._sessions() as session:
            rules = await judged.rules_of(session, numbers)
            with_points = await judged.with_points(session, numbers)
        for each in found:
            number = each.simulation_id
            self._drop(number)  # its older rules are not judged by any longer
            if number in rules:
                run = Run(each, _watches(number, rules[number]))
                self._runs[number] = run
                self._marks ^= each.mark
                if number in with_points:
                    self._behind[number] = run
                else:
                    self._front.add(run, START)

    def _drop(self, number: int) -> None:
        run = self._runs.pop(number, None)
        if run is not None:
            self._marks ^= run.found.mark
            self._behind.pop(number, None)
            self._front.remove(run)

    @property
    def _fingerprint(self) -> judged.Fingerprint:
        """What `judged.fingerprint` reads, if memory and rows agree."""
        return len(self._runs), self._marks

    # --- their points --------------------------------------------------------------------------------------------

    async def _rebuild(self) -> tuple[int, list[_Decision]]:
        """Feed the stored curves of simulations that were met, or of which an attempt superseded points."""
        points, decisions = 0, []
        for number, run in list(islice(self._behind.items(), REBUILT_AT_ONCE)):
            waiting: dict[str, list[Watch | Climb]] = {}
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
            del self._behind[number]
            self._front.add(run, max(ends.items(), default=START))
            self._unread.add(number)
        return points, decisions

    async def _feed_stored(
        self,
        number: int,
        metric: str,
        watches: Sequence[Watch | Climb],
        parts: Sequence[curve.Part],
        ends: Mapping[int, int],
    ) -> tuple[int, list[tuple[Watch | Climb, Verdict | Reached]]]:
        """Feed the standing curve of a metric to its rules, as far as the last batch of each attempt in `ends`.

        Each page is read by a session of its own, which is closed before the rules compute, in a thread.
        """
        points = 0
        decided: list[tuple[Watch | Climb, Verdict | Reached]] = []
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

    async def _read(self, places: Sequence[int]) -> tuple[int, list[_Decision]]:
        """Read and feed what follows the cursors of the runs at these places, all in one statement."""
        async with driver_of(self._sessions) as driver:
            news = await judged.read(driver, *self._front.cursors(places), list(self._front.metrics))
        if not news:
            return 0, []
        # In a thread: a round of many points takes a moment, during which this process has launches to make.
        return await asyncio.to_thread(self._feed, places, news)

    def _feed(self, places: Sequence[int], news: judged.News) -> tuple[int, list[_Decision]]:
        """Feed what was read of the runs at these places."""
        steps, values = news.unpack()
        self._front.move([places[place] for place in news.places], news.attempts, news.batches)
        runs = [self._front.runs[place] for place in places]
        points = end = 0
        decisions: list[_Decision] = []
        cut: set[int] = set()  # of which an attempt superseded points: the older ones no longer count
        for place, attempt, metric, count in zip(news.places, news.attempts, news.metrics, news.counts, strict=True):
            begin, end = end, end + count
            if not count or place in cut:
                continue
            run = runs[place]
            for watch in run.watches:
                if watch.metric != metric or watch.is_decided:
                    continue
                if watch.attempt < attempt and steps[begin] <= watch.step:
                    cut.add(place)
                    break
                points += count
                verdict = watch.feed(attempt, steps[begin:end], values[begin:end])
                if verdict is not None:
                    decisions.append(_Decision(run, watch, verdict))
        behind = news.places[judged.MOST_ROWS - 1 :]  # rows of one run are together
        more = {one for one, other in zip(news.places, behind, strict=False) if one == other}
        self._unread.update(runs[place].found.simulation_id for place in more)
        for place in cut:
            self._build_anew(runs[place])
        return points, [each for each in decisions if each.run.place >= 0]

    def _build_anew(self, run: Run) -> None:
        run.watches = tuple(each.renewed() for each in run.watches)
        self._front.remove(run)
        self._behind[run.found.simulation_id] = run

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
    pruned = await prune(session, simulation, climb.pruning, reached)
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
    verdict: Verdict | Pruned | BelowMedian,
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
        sentences.append(estimate.sentence(currency, dry_run=dry_run))
        evidence["saved"] = {
            "seconds": round(estimate.seconds, 1),
            "amount": f"{estimate.amount:f}" if estimate.amount is not None else None,
            "currency": currency,
            "by": estimate.by.value,
            "endStep": estimate.end,
            "similar": estimate.similar,
        }
    return {**evidence, "sentence": " ".join(sentences)}


def _watches(number: int, kept: judged.Rules) -> tuple[Watch | Climb, ...]:
    try:
        rules = decode(kept.document, objective=kept.objective, max_steps=kept.max_steps)
        pruning = pruning_in(kept.document)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("stop_rules_unreadable", simulation_id=number, error=str(error))
        return ()
    return (
        *(
            Watch.of(place, each, is_recorded=each.dry_run and str(place) in kept.would_stop)
            for place, each in enumerate(rules)
        ),
        *([Climb(*pruning)] if pruning is not None else ()),
    )


def _feed_page(
    watches: Sequence[Watch | Climb], page: curve.Page
) -> tuple[int, list[tuple[Watch | Climb, Verdict | Reached]]]:
    """Feed a page to the rules that have not decided; return the points that were fed, and new verdicts."""
    points = page.unpack()
    steps, values = points.steps.tolist(), points.values.tolist()
    waiting = [watch for watch in watches if not watch.is_decided]
    verdicts = [(watch, watch.feed(page.attempt, steps, values)) for watch in waiting]
    return len(points) * len(waiting), [(watch, verdict) for watch, verdict in verdicts if verdict is not None]


def _joined(known: set[int] | None, more: Collection[int] | None) -> set[int] | None:
    """Add to the known ones, in place: there may be 10,000 hints a second."""
    if known is None or more is None:
        return None
    known.update(more)
    return known


def _parts(places: Sequence[int]) -> Iterable[Sequence[int]]:
    return (places[begin : begin + MOST_READ] for begin in range(0, len(places), MOST_READ))
