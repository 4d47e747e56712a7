"""Loop of an engine that is on no host of ours: a Ray cluster, looked after by any one scheduler.

As the loop of a host, with two differences. The machines are those that the engine discovers, without a host: one that
is no longer discovered is offline at once, and its silent members are lost after one lease. And the engine may be
unreachable for a while: rounds then end early, with one warning, its machines go offline after a lease, and what runs
there goes on, for it reports to the service.

What only fits a machine that the cluster could start makes the cluster start it: kinds of such machines are rows, whose
key begins with `machines.STARTABLE`; the planner notes for which simulations they are wanted, with prices and budgets
held, and each round asks the engine for as many as these need.

Which scheduler runs the loop is decided by the lock of the engine (`scheduler.leader`); two at once do no harm, because
a launch is claimed in its row first, and the same member launched twice is one job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, machines, queue
from db.attempts import Hosted
from db.connection import Sessions, driver_of
from db.machines import HostState
from db.models import Machine as MachineRow
from db.silence import Listening
from db.states import Reason
from policy.matching import Machine, Requirements
from policy.starting import Awaiting, Startable, wanted
from policy.waiting import WaitingReason
from runner.base import EngineUnavailable, StartingEngine
from scheduler.host import HostLoop, HostSummary, name_of
from settings import Settings
from transitions.settle import Ending

log = structlog.get_logger()

JOBS_AT_ONCE = 8  # submitted side by side: a busy head needs a second for each
MOST_AWAITING = 1_000  # simulations that machines are started for at a time
END_AGAIN_SECONDS = 10.0  # a job that is PENDING can't be ended, for a quarter of an hour
# A restarted node waits so long for its predecessor to be found dead: 15 s if connections are refused, else 65 s.
SUCCESSION_SECONDS = 90.0
STARTING = timedelta(seconds=60)  # from a launch to the hello: until then a job that waits is not silent


class ClusterLoop(HostLoop):
    """The loop of one engine."""

    launches_at_once = JOBS_AT_ONCE

    def __init__(self, sessions: Sessions, settings: Settings, engine: StartingEngine) -> None:
        super().__init__(sessions, settings, engine, engine.name)
        self._starts = engine
        self._most: Mapping[str, int] = {}  # machines that may be started, by the engine's key of their kind
        self._counts: Mapping[str, int] = {}  # wanted in the round before
        self._is_away = False
        self._ended_at: dict[str, float] = {}
        self._met_at: Mapping[str, float] = {}  # machines without a row, by the engine's key

    async def run_once(self) -> HostSummary:
        """Do the whole round once, or as much as is possible while the engine is away."""
        try:
            done = await super().run_once()
            await self._want()
        except EngineUnavailable as error:
            return self._note_outage(error)
        if self._is_away:
            self._is_away = False
            log.info("engine_answers_again", engine=self._engine.name)
        return done

    async def launch_assigned(self) -> HostSummary:
        """Start what was assigned to machines of the engine; what could not be started is tried in the next round."""
        try:
            return await super().launch_assigned()
        except EngineUnavailable as error:
            return self._note_outage(error)

    def _note_outage(self, error: EngineUnavailable) -> HostSummary:
        if not self._is_away:
            self._is_away = True
            log.warning("engine_away", engine=self._engine.name, error=str(error))
        return HostSummary()

    async def _announce(self) -> HostState:
        """Record a heartbeat of the machines that exist, and those that are new or have changed."""
        discovered = await self._engine.discover()
        self._most = {each.key: each.most for each in discovered if each.most}
        found = [replace(each, key=machines.STARTABLE + each.key) if each.most else each for each in discovered]
        async with driver_of(self._sessions) as driver:
            there = [each.key for each in found if not each.most]
            state = await machines.beat_engine(driver, self._engine.name, there)
        known = {each.key for each in found}
        for key in state.machines:
            if machines.is_startable(key) and key not in known:
                async with self._sessions.begin() as session:
                    await machines.withdraw(session, self._engine.name, key)
        changed = [each for each in found if state.machines.get(each.key) != self._described(each)]
        now = monotonic()
        self._met_at = {each.key: self._met_at.get(each.key, now) for each in changed if each.key not in state.machines}
        if changed:
            async with self._sessions.begin() as session:
                for each in changed:
                    if each.key in state.machines or await machines.succeed(
                        session, self._engine.name, each.key, each.name,
                        beside=now - self._met_at[each.key] >= SUCCESSION_SECONDS,
                    ):  # fmt: skip
                        await self._join(session, each, None)
        return state

    async def _want(self) -> None:
        """Make the engine start the machines that queued simulations wait for."""
        if not self._most:
            return
        async with self._sessions() as session:
            rows = await machines.startable(session, self._engine.name)
            waiting = await queue.awaiting(session, WaitingReason.MACHINE_STARTING, MOST_AWAITING)
        offered = [_startable(row, self._most) for row in rows]
        counts = wanted([_awaiting(each) for each in waiting], [each for each in offered if each.most])
        if counts != self._counts and counts:
            log.info("machines_wanted", engine=self._engine.name, counts=dict(counts))
        self._counts = counts
        await self._starts.want(counts)

    async def _open(self, session: AsyncSession, *, not_launched: bool = False) -> Sequence[Hosted]:
        return await attempts.open_on_engine(session, self._engine.name, not_launched=not_launched)

    async def _end(self, member_id: str, why: str) -> None:
        """End a member, but try the same one only once in a while."""
        since = monotonic() - END_AGAIN_SECONDS
        self._ended_at = {each: at for each, at in self._ended_at.items() if at > since}
        if member_id not in self._ended_at:
            self._ended_at[member_id] = monotonic()
            await super()._end(member_id, why)

    async def _look_at(self, hosted: Hosted, listening: Listening, is_alive: bool) -> bool:
        member, launched_at, member_id = hosted.member, hosted.member.launched_at, name_of(hosted)
        if member.nonce is not None or launched_at is None:
            return await super()._look_at(hosted, listening, is_alive)
        if is_alive and (listening.now - launched_at < STARTING or self._starts.is_starting(member_id)):
            async with self._sessions.begin() as session:
                await attempts.note_starting(session, [member.id])
            return False
        if (why := self._starts.never_started(member_id)) is not None:
            return await self._settle(hosted, Ending(Reason.LAUNCH_ERROR, why))
        return await super()._look_at(hosted, listening, is_alive)


def _awaiting(row: queue.Awaiting) -> Awaiting:
    return Awaiting(Requirements(**{each.name: getattr(row, each.name) for each in fields(Requirements)}), row.machines)


def _startable(row: MachineRow, most: Mapping[str, int]) -> Startable:
    key = row.engine_key.removeprefix(machines.STARTABLE)
    machine = Machine(
        id=row.id, name=row.name, cpus=row.cpus, memory_gib=row.memory_gib, gpus=row.gpus, gpu_model=row.gpu_model,
        labels=row.labels, price_per_hour=row.price_per_hour, free_cpus=row.cpus, free_memory_gib=row.memory_gib,
        free_gpus=row.gpus, online=True, draining=False, host=None, host_free_gpus=None,
    )  # fmt: skip
    return Startable(key, machine, most.get(key, 0))
