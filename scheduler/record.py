"""The planner's record of what ended: how much each project used, and how long and how fast runs of each class were.

Read as a whole when this process begins to lead, then brought up to date by what has ended since. Both are estimates
that decay or are outvoted: what is missed, as a transaction that took longer to commit than `OVERLAP`, is no error.
Use counts what ended and, at each plan, what runs. The rates are those of bills: price times share.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from db import past_runs
from db.past_runs import EndedMember, Timed
from db.running import Running
from policy.fairness import charge
from policy.learning import BINS, Counts, Learned, bin_of
from policy.matching import Machine
from policy.room import Speeds
from policy.speeds import LEAST_SECONDS, Rates, speeds_of
from policy.workload import Project, Run
from scheduler.queue_memory import lineage_of

OVERLAP = timedelta(seconds=30)  # looked at again, for what was committed late
LEARNED_WITHIN = timedelta(days=90)
HALF_LIVES = 10  # use that is older has decayed to a thousandth

ALL: tuple[Hashable, ...] = ()  # the node of all runs


@dataclass(slots=True)
class Record:
    """What ended up to `read_at`."""

    half_life: timedelta
    read_at: datetime | None = None
    _used: dict[int, Project] = field(default_factory=dict)
    _ended: dict[Hashable, list[int]] = field(default_factory=dict)  # ended runs by bin, of each class
    _counts: dict[Hashable, Counts] = field(default_factory=dict)  # the same lists, as policy wants them
    _rates: dict[Hashable, dict[int, Rates]] = field(default_factory=dict)  # by class and machine
    _speeds: tuple[Sequence[Machine], Speeds] | None = None  # of these rates, for these machines
    _seen: dict[int, datetime] = field(default_factory=dict)  # members that ended within the overlap

    async def bring_up_to_date(self, session: AsyncSession, now: datetime) -> bool:
        """Read what ended since the last time; return whether anything did. One entry of an index if nothing did."""
        if self.read_at is None or now < self.read_at:
            await self._read_all(session, now)
            return True
        news = [
            each for each in await past_runs.ended_since(session, self.read_at - OVERLAP) if each.id not in self._seen
        ]
        self.read_at = now
        for each in news:
            self._add(each, now)
        self._seen = {key: at for key, at in self._seen.items() if at > now - OVERLAP}
        return bool(news)

    def projects(
        self, known: Iterable[Project], running: Sequence[Running], now: datetime, weights: Mapping[int, float]
    ) -> Sequence[Project]:
        """Return the projects with their use until now. known: of all that is queued. weights: of those without 1."""
        found = {each.id: each for each in known}
        for key, used in self._used.items():
            project = found.get(key, Project(key, weights.get(key, 1.0)))
            found[key] = replace(project, used=used.used, used_at=used.used_at)
        for each in running:
            project = found.get(each.project_id, Project(each.project_id, weights.get(each.project_id, 1.0)))
            found[each.project_id] = charge(
                project, self._integral(each.rate, each.assigned_at, now, now), now, self._h
            )
        return list(found.values())

    def learned(self, begun: Iterable[tuple[Run, float]]) -> Learned:
        """Return what ended and unfinished runs teach. begun: runs that have begun and not ended, with their sizes."""
        unfinished: dict[Hashable, list[int]] = {}
        for run, size in begun:
            at = bin_of(run.attained_seconds * size)
            for node in (ALL, *run.lineage):
                unfinished.setdefault(node, [0] * BINS)[at] += 1
        nothing = [0] * BINS
        fresh = {node: Counts(self._ended.get(node, nothing), counts) for node, counts in unfinished.items()}
        return Learned(ChainMap(fresh, self._counts))

    def speeds(self, machines: Sequence[Machine]) -> Speeds:
        """Return how fast these machines are for each class. machines: without what is free on them."""
        if self._speeds is None or self._speeds[0] != machines:
            self._speeds = machines, speeds_of(self._rates, machines)
        return self._speeds[1]

    def knows(self, node: Hashable) -> bool:
        """Whether a run of this class has ended."""
        return node in self._ended

    @property
    def _h(self) -> float:
        return self.half_life.total_seconds()

    async def _read_all(self, session: AsyncSession, now: datetime) -> None:
        past = await past_runs.read(
            session, now, half_life=self.half_life, window=self.half_life * HALF_LIVES, learned=LEARNED_WITHIN
        )
        self._used = {key: Project(key, used=used, used_at=now) for key, used in past.used.items()}
        self._ended.clear()
        self._counts.clear()
        self._rates.clear()
        self._speeds = None
        for each in past.runs:
            self._learn(lineage_of(each.project_id, each.name, each.learning_class), each.service)
        for one in past.timed:
            self._time(lineage_of(one.project_id, one.name, one.learning_class), one.machine_id, one)
        self._seen = {each.id: each.ended_at for each in await past_runs.ended_since(session, now - OVERLAP)}
        self.read_at = now

    def _add(self, member: EndedMember, now: datetime) -> None:
        self._seen[member.id] = member.ended_at
        used = self._used.get(member.project_id, Project(member.project_id))
        amount = self._integral(member.rate, member.assigned_at, member.ended_at, now)
        self._used[member.project_id] = charge(used, amount, now, self._h)
        lineage = lineage_of(member.project_id, member.name, member.learning_class)
        if member.service is not None:
            self._learn(lineage, member.service)
        self._time(lineage, member.machine_id, member)

    def _learn(self, lineage: Iterable[Hashable], service: float) -> None:
        at = bin_of(service)
        for node in (ALL, *lineage):
            ended = self._ended.get(node)
            if ended is None:
                ended = self._ended[node] = [0] * BINS
                self._counts[node] = Counts(ended)
            ended[at] += 1

    def _time(self, lineage: tuple[Hashable, ...], machine_id: int | None, attempt: Timed | EndedMember) -> None:
        rate = attempt.step_rate
        if machine_id is None or not rate or rate <= 0 or (attempt.seconds or 0.0) < LEAST_SECONDS:
            return
        self._rates.setdefault(lineage[-1], {}).setdefault(machine_id, Rates()).add(rate)
        self._speeds = None

    def _integral(self, rate: float, begin: datetime, end: datetime, now: datetime) -> float:
        """Return what a rate came to from one time to another, decayed until now."""
        h = self._h
        since, until = (now - begin).total_seconds(), (now - end).total_seconds()
        return rate * h / math.log(2) * (2 ** (-max(until, 0.0) / h) - 2 ** (-max(since, 0.0) / h))
