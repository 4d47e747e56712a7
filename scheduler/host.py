"""Host loop: announce the host's machines, launch assigned members, probe running ones, remove those that are over.

`run_once()` is the whole round, by timer; `launch_assigned()` is the part that runs at once after a change. Only this
host's scheduler touches this host's processes. No transaction is open during a call of the engine, and a failed member
does not keep others from their turn. The unit is the member: of an attempt on several hosts, each looks after its own.

A supervisor is not killed while it may end by itself: the replies to its reports carry a stop. The engine kills it
only after enough time for that (time in which it could reach the service), or after a whole lease of silence. A
member on this host is settled as lost only when the engine returns DEAD, so its successor never runs beside it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from time import monotonic
from typing import TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, lifecycle, machines, public_ids, silence
from db.attempts import Hosted
from db.connection import Sessions, driver_of
from db.machines import Described, HostState
from db.silence import Listening
from db.states import Reason
from policy.retry import beat_period, has_outstayed, ignores_stop, is_silent
from runner.base import DiscoveredMachine, Engine, Launch, LaunchError, Liveness, MachineGone
from scheduler import leftovers
from settings import Settings
from transitions.settle import STOPPED_EARLY, Ending, settle

log = structlog.get_logger()

Outcome = TypeVar("Outcome")

AT_ONCE = 8  # probes and ends side by side: more only wait for the same cores
LAUNCHES_AT_ONCE = 32  # claimed in one transaction, handed to the engine together, and noted in another transaction
DISCARD_SECONDS = 60  # between two searches for files of deleted simulations, which are not urgent


@dataclass(frozen=True, slots=True)
class HostSummary:
    """Result of a round."""

    launched: int = 0
    ended: int = 0  # members; then the planner may have work


class HostLoop:
    """The loop of one host id; two loops of one id would launch everything twice."""

    launches_at_once = LAUNCHES_AT_ONCE

    def __init__(self, sessions: Sessions, settings: Settings, engine: Engine, host_id: str) -> None:
        self._sessions = sessions
        self._settings = settings
        self._engine = engine
        self._host_id = host_id
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stop_grace = timedelta(seconds=settings.stop_grace_seconds)
        self._save = timedelta(seconds=settings.save_seconds)
        self._backoff = timedelta(seconds=settings.retry_backoff_seconds)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._strangers: set[int] = set()
        self._stuck: set[str] = set()  # ids whose files could not be removed: not tried in every round
        self._reported: set[str] = set()  # ids whose failure is in the log already
        self._discards_at = monotonic()

    async def run_once(self) -> HostSummary:
        """Do the whole round once. What the heartbeat finds nothing for is skipped."""
        state = await self._announce()
        started = await self.launch_assigned() if state.has_launches else HostSummary()
        ended = await self._look_after() if state.has_members else 0
        await self._clear_away()
        if monotonic() >= self._discards_at:
            self._discards_at = monotonic() + DISCARD_SECONDS
            self._stuck.clear()
            await self.discard_deleted()
        return HostSummary(started.launched, started.ended + ended)

    async def _announce(self) -> HostState:
        """Record this host's heartbeat, and the machines that are new or have changed; return what the rows hold."""
        found = await self._engine.discover()
        offered = found if self._settings.local_machine else ()
        withdrawn = [each.key for each in found if each not in offered]
        name = found[0].name if found else self._host_id
        gpus = sum(each.gpus for each in found)
        async with driver_of(self._sessions) as driver:
            state = await machines.beat_host(driver, self._host_id, name=name, gpus=gpus, withdrawn=withdrawn)
        changed = [each for each in offered if state.machines.get(each.key) != self._described(each)]
        if changed:
            async with self._sessions.begin() as session:
                for each in changed:
                    await self._join(session, each, self._host_id)
        return state

    async def _join(self, session: AsyncSession, found: DiscoveredMachine, host: str | None) -> None:
        described = self._described(found)
        await machines.join(
            session,
            engine=self._engine.name,
            engine_key=found.key,
            name=found.name,
            host=host,
            cpus=described.cpus,
            memory_gib=described.memory_gib,
            gpus=described.gpus,
            gpu_model=described.gpu_model,
            labels=described.labels,
            price_per_hour=described.price_per_hour,
        )

    async def _open(self, session: AsyncSession, *, not_launched: bool = False) -> Sequence[Hosted]:
        """The members that this loop looks after; all, or those still to be launched."""
        return await attempts.open_on_host(session, self._host_id, not_launched=not_launched)

    def _described(self, found: DiscoveredMachine) -> Described:
        price = found.price_per_hour if found.price_per_hour is not None else self._settings.machine_price_per_hour
        return Described(found.cpus, found.memory_gib, found.gpus, found.gpu_model, found.labels, price)

    # --- launching ---------------------------------------------------------------------------------------------

    async def launch_assigned(self) -> HostSummary:
        """Start a supervisor for every member that was assigned to this host. One query if there is none.

        After a heartbeat's period the others wait for the next round: by a slow engine, machines must not seem offline,
        and what waits here, or was launched, not silent.
        """
        until = monotonic() + beat_period(self._lease).total_seconds()
        async with self._sessions() as session:
            assigned = await self._open(session, not_launched=True)
            if not assigned:
                return HostSummary()
            on = {each.member.machine_id for each in assigned if each.member.machine_id is not None}
            keys = {each.id: each.engine_key for each in await machines.by_ids(session, on)}
        is_any_claimed = any(each.is_claimed for each in assigned)
        known = frozenset(await self._engine.members()) if is_any_claimed else frozenset()
        done = HostSummary()
        for first in range(0, len(assigned), self.launches_at_once):
            if first and monotonic() > until:
                async with self._sessions.begin() as session:
                    await attempts.note_starting(session, [each.member.id for each in assigned[first:]])
                break
            some = await self._launch(assigned[first : first + self.launches_at_once], keys, known)
            done = HostSummary(done.launched + some.launched, done.ended + some.ended)
        return done

    async def _launch(self, assigned: Sequence[Hosted], keys: Mapping[int, str], known: frozenset[str]) -> HostSummary:
        """Claim, start and note members as a group: two transactions and one call of the engine for all of them.

        A launch that failed for a reason that no engine foresees is raised after the others were noted.
        """
        running: list[int] = []
        tokens: dict[int, str] = {}
        ended = 0
        for each in assigned:
            member = each.member
            if member.nonce is not None or await self._runs_already(name_of(each), known):
                running.append(member.id)
            elif each.attempt.stop_wanted_at is not None:
                ended += await self._settle(each, STOPPED_EARLY)
            else:
                tokens[member.id] = token_urlsafe(32)
        async with self._sessions.begin() as session:
            claimed = await attempts.claim_launches(
                session, {member_id: sha256(token.encode()).digest() for member_id, token in tokens.items()}
            )
        starting = [each for each in assigned if each.member.id in claimed]
        failures = await self._engine.launch(
            [_launch_of(each, keys.get(each.member.machine_id or 0, ""), tokens[each.member.id]) for each in starting]
        )
        refused: list[tuple[Hosted, LaunchError | OSError]] = []
        unforeseen: list[Exception] = []
        for each, failure in zip(starting, failures, strict=True):
            if failure is None:
                running.append(each.member.id)
                ids = {"simulation_id": each.attempt.simulation_id, "attempt_id": each.attempt.id}
                log.info("attempt_launched", **ids, rank=each.member.rank)
            elif isinstance(failure, (LaunchError, OSError)):
                refused.append((each, failure))
            else:
                unforeseen.append(failure)
        async with self._sessions.begin() as session:
            await attempts.note_launched(session, running)
        await self._each(self._settle(each, _ending_of(failure)) for each, failure in refused)
        if unforeseen:
            raise unforeseen[0]
        return HostSummary(len(running), ended + len(refused))

    async def _runs_already(self, member_id: str, known: frozenset[str]) -> bool:
        """Whether a launch that was not noted has started a supervisor."""
        return member_id in known and await self._engine.probe(member_id) is not Liveness.DEAD

    async def _settle(self, hosted: Hosted, ending: Ending) -> bool:
        """End a member if its attempt is still current and it has not ended; return whether it was."""
        async with self._sessions.begin() as session:
            simulation = await lifecycle.lock(session, hosted.attempt.simulation_id)
            if simulation is None:
                return False
            return await settle(
                session, simulation.id, hosted.attempt.number, ending, events.PLANNER,
                backoff=self._backoff, rank=hosted.member.rank,
            )  # fmt: skip

    # --- what runs ---------------------------------------------------------------------------------------------

    async def _look_after(self) -> int:
        """Settle dead members, and kill those that are silent or ignore a stop. Returns how many were settled."""
        async with self._sessions() as session:
            listening = await silence.listening(session)
            rows = await self._open(session)
        launched = [each for each in rows if each.member.launched_at is not None]
        # One look at all of them: most run, and a probe of each takes a thread.
        alive = await self._engine.running([name_of(each) for each in launched])
        outcomes = await self._each(self._look_at(each, listening, name_of(each) in alive) for each in launched)
        return sum(outcomes)

    async def _look_at(self, hosted: Hosted, listening: Listening, is_alive: bool) -> bool:
        attempt, member, member_id = hosted.attempt, hosted.member, name_of(hosted)
        if not is_alive and await self._engine.probe(member_id) is Liveness.DEAD:
            if await leftovers.deliver(
                self._sessions, self._engine, attempt.id, backoff=self._backoff, rank=member.rank
            ):
                return True
            # If it has reported its exit since its row was read, it is over, and this does nothing.
            ending = Ending(Reason.MACHINE_LOST, f"Its supervisor died, on {member.machine_name}.")
            return await self._settle(hosted, ending)
        if is_silent(member.heartbeat_at, listening, self._lease):
            await self._end(member_id, "it is silent")
        elif ignores_stop(
            _since_saved(attempt.stop_wanted_at, member.saved_at, self._save), listening, self._lease, self._stop_grace
        ):
            await self._end(member_id, "it does not stop")
        return False

    # --- what is over ------------------------------------------------------------------------------------------

    async def _clear_away(self) -> None:
        """Remove the files of members that are over and dead, and kill those that are over and still alive."""
        known = dict(_members(await self._engine.members()))
        if not known:
            return
        async with self._sessions() as session:
            rows = await attempts.known_members(session, {attempt_id for attempt_id, _ in known})
            over = {each for each in known if each not in rows or rows[each].member.ended_at is not None}
            if not over:
                return
            now = await attempts.clock(session)
            minted = await attempts.newest_minted(session)
        await self._each(
            self._clear(known[each], each[0], rows.get(each), now, each[0] <= minted) for each in sorted(over)
        )

    async def _clear(self, member_id: str, attempt_id: int, row: Hosted | None, now: datetime, ours: bool) -> None:
        if not ours:
            # An attempt of another database, which the service used before: it may be valuable, so it is not killed.
            if attempt_id not in self._strangers:
                self._strangers.add(attempt_id)
                log.warning("attempt_of_another_database", attempt_id=attempt_id)
            return
        if member_id in self._stuck:
            return
        try:
            if await self._engine.forget(member_id):
                return
        except OSError as error:
            self._keep(member_id, error, attempt_id=attempt_id)
            return
        ended_at = row.member.ended_at if row is not None else None
        if row is None or ended_at is None or has_outstayed(row.attempt.reason, ended_at, now, self._stop_grace):
            await self._end(member_id, "it is over")

    async def discard_deleted(self) -> None:
        """Remove the files of deleted simulations; ids unknown to this database may be another database's."""
        kept = dict(_numbered("Simulation", await self._engine.simulations()))
        if not kept:
            return
        async with self._sessions() as session:
            deleted = await events.find_deleted(session, "Simulation", kept)
        for each in sorted(deleted):
            try:
                await self._engine.discard(kept[each])
                log.info("files_discarded", simulation_id=each)
            except OSError as error:
                self._keep(kept[each], error, simulation_id=each)

    def _keep(self, public_id: str, error: OSError, **ids: int) -> None:
        """Skip files that can't be removed until the next `discard_deleted`; log the first failure only."""
        self._stuck.add(public_id)
        if public_id not in self._reported:
            self._reported.add(public_id)
            log.warning("files_not_removed", **ids, error=str(error))

    async def _end(self, member_id: str, why: str) -> None:
        attempt_id, rank = public_ids.decode_member(member_id)
        log.warning("supervisor_ended", attempt_id=attempt_id, rank=rank, why=why)
        try:
            await self._engine.end(member_id)
        except TimeoutError as error:  # the kernel holds a process; the next round retries
            log.warning("supervisor_not_ended", error=str(error))

    async def _each(self, calls: Iterable[Coroutine[None, None, Outcome]]) -> list[Outcome]:
        """Await all calls, `AT_ONCE` at a time. The first error is raised after all have finished."""

        async def in_turn(call: Coroutine[None, None, Outcome]) -> Outcome:
            async with self._turns:
                return await call

        outcomes = await asyncio.gather(*(in_turn(call) for call in calls), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def _since_saved(wanted_at: datetime | None, saved_at: datetime | None, limit: timedelta) -> datetime | None:
    """Return since when a stop is ignored: one that stores its files does not ignore it, for a limited time."""
    if wanted_at is None or saved_at is None:
        return wanted_at
    return max(wanted_at, min(saved_at, wanted_at + limit))


def _launch_of(hosted: Hosted, machine_key: str, token: str) -> Launch:
    attempt, member = hosted.attempt, hosted.member
    return Launch(
        member_id=name_of(hosted),
        attempt_id=public_ids.encode("Attempt", attempt.id),
        simulation_id=public_ids.encode("Simulation", attempt.simulation_id),
        token=token,
        machine_key=machine_key,
        rank=member.rank,
        world_size=hosted.size,
        cpus=member.cpus,
        memory_gib=member.memory_gib,
        gpus=member.gpus,
        checkpoint_of=(
            public_ids.encode("Simulation", hosted.checkpoint_of) if hosted.checkpoint_of is not None else None
        ),
        begins_from_store=hosted.begins_from_store,
        package=hosted.package.hex() if hosted.package is not None else None,
        runtime_env=hosted.runtime_env,
        is_repeated=hosted.is_claimed,
    )


def _ending_of(failure: Exception) -> Ending:
    return Ending(Reason.MACHINE_LOST if isinstance(failure, MachineGone) else Reason.LAUNCH_ERROR, str(failure))


def name_of(hosted: Hosted) -> str:
    """The engine's name of a member."""
    return public_ids.encode_member(hosted.attempt.id, hosted.member.rank)


def _members(names: Iterable[str]) -> Iterator[tuple[tuple[int, int], str]]:
    """Decode an engine's names of members into attempt and rank; other names are skipped."""
    for name in names:
        with suppress(ValueError):
            yield public_ids.decode_member(name), name


def _numbered(wanted: str, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Decode the ids of one type among an engine's names; other names are skipped."""
    for name in names:
        with suppress(ValueError):
            type_name, number = public_ids.decode(name)
            if type_name == wanted:
                yield number, name
