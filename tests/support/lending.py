"""Services that are lent to one test after another: started once, emptied in between, replaced when in doubt.

A start takes five seconds of CPU (three Python processes, each with its imports), emptying takes tenths of one. A test
may do anything to a lent service that emptying undoes (`EMPTY`, and every file but those of the start), and may end it
or kill parts of it: a service that does not run, has another address or settings, or whose parts died so often that
`up` pauses for long is ended and not lent once more. Neither is one whose test failed, or that says `spent`. The
scheduler of one that waits is stopped (SIGSTOP) while others are lent: its rounds would take 0.03 of a core.

Every service that runs when it is ended must end with 0 and leave no process behind, or the fixture fails.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
import psutil
from failures import keep_logs
from live import Service, eventually, kill, resume, service_on

from db.outage import Driver

MOST = 4  # that wait for their next test: each is three processes of some 100 MiB
TICK = {"SIMULATIONS_TICK_SECONDS": "0.3"}  # so soon an emptied service has a machine again
STARTED_AGAIN = re.compile(r"; starting it again in ([\d.]+) s")  # what `up` logs when a part has died
LONGEST_PAUSE_SECONDS = 1.0  # the next one is twice as long; a new service takes longer than this, and all of a core

# Identities go on counting, so that no row is taken for one of the test before. Emptying gives way to the service: it
# waits for locks for less than `deadlock_timeout`, and tries again. (TRUNCATE would wait for readers, too.)
EMPTY = """
SET LOCAL lock_timeout = '300ms';
DELETE FROM alert_targets;
DELETE FROM budgets;
DELETE FROM simulations;
DELETE FROM sweeps;
DELETE FROM packages;
DELETE FROM deleted_members;
DELETE FROM events;
DELETE FROM logins;
DELETE FROM tokens WHERE created_at > '{since}';
DELETE FROM machines;
DELETE FROM hosts WHERE id <> '{host}';
DELETE FROM projects WHERE name <> 'default';
"""
KNOWN = "SELECT count(*) = 1 FROM hosts"
JOINED = "SELECT count(*) = 1 FROM machines"
BEAT = "SELECT heartbeat_at FROM hosts"
BEATEN = "SELECT heartbeat_at > $1 FROM hosts WHERE id = $2"


@dataclass
class Lent:
    """A service, and what it was like when it had just been started."""

    service: Service
    stack: ExitStack
    address: str
    environment: dict[str, str]
    files: set[str] = field(default_factory=set)
    host: str = ""
    since: str = ""
    stopped: psutil.Process | None = None  # its scheduler, while it rests

    @classmethod
    async def start(
        cls, database: AbstractContextManager[str] | None, settings: Mapping[str, str], fill: Callable[[Path], None]
    ) -> Lent:
        """Start one; on an embedded database of its own, which `fill` puts there, if none is given."""
        with ExitStack() as stack:
            url = await asyncio.to_thread(stack.enter_context, database) if database is not None else None
            service = stack.enter_context(service_on(url, **{**TICK, **settings}))
            if url is None:
                await asyncio.to_thread(fill, service.data_directory)
            lent = cls(service, stack.pop_all(), service.address, dict(service.environment))
        try:
            await service.up()
            async with service.connected() as database:
                await lent._is_joined(database)
                [[lent.host, lent.since]] = await database.fetch("SELECT id, now()::text FROM hosts")
            lent.files = {path.name for path in service.data_directory.iterdir()}
        except BaseException:
            await lent.drop()
            raise
        return lent

    async def _is_joined(self, database: Driver) -> None:
        """Wait until its host, and its machine if it has one, are known."""
        await eventually(partial(database.fetchval, KNOWN), "its host is known")
        if self.environment.get("SIMULATIONS_LOCAL_MACHINE", "true") not in ("0", "false"):
            await eventually(partial(database.fetchval, JOINED), "its machine has joined")

    async def _beats(self, database: Driver) -> None:
        """Wait for the next heartbeat of its host."""
        beat = await database.fetchval(BEAT)
        await eventually(partial(database.fetchval, BEATEN, beat, self.host), "its host beats")

    @property
    def runs(self) -> bool:
        return self.service.process is not None and self.service.process.poll() is None

    @property
    def can_be_lent(self) -> bool:
        service = self.service
        return (
            self.runs
            and not service.spent
            and (service.address, service.environment) == (self.address, self.environment)
            and all(float(each) <= LONGEST_PAUSE_SECONDS for each in STARTED_AGAIN.findall(service.log_of_start))
        )

    async def empty(self) -> None:
        """Make it as it was when it had just been started."""
        service = self.service
        await service.whole()
        async with service.connected() as database:
            await eventually(partial(self._is_emptied, database), "its tables are empty")
            # The host's loop clears away late launches in the round that begins with its next heartbeat.
            for _ in range(2):
                await self._beats(database)
            await self._is_joined(database)
        await eventually(self._has_cleared_away, "no attempt is left")
        for path in service.data_directory.iterdir():
            if path.name not in self.files and not path.name.startswith("up-"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    async def _is_emptied(self, database: Driver) -> bool:
        kill(*self.service.processes_of())
        with suppress(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await database.execute(EMPTY.format(since=self.since, host=self.host))
            return True
        return False

    async def _has_cleared_away(self) -> bool:
        kill(*self.service.processes_of())
        return not any((self.service.data_directory / "attempts").iterdir())

    async def rest(self) -> None:
        """Stop its scheduler; `up` and `graph` take next to nothing while nothing is asked."""
        if self.stopped is None:
            self.stopped = await self.service.pause("scheduler")

    async def wake(self) -> None:
        """Have it go on, and wait until its host has beaten again."""
        if not self._resume():
            return
        try:
            await self.service.whole()
            async with self.service.connected() as database:
                await self._beats(database)
        except BaseException:
            await self.drop()
            raise

    def _resume(self) -> bool:
        """Whether its scheduler rested."""
        if self.stopped is None:
            return False
        resume(self.stopped)
        self.stopped = None
        return True

    async def end(self) -> None:
        """End it; if it runs it has to end as it should."""
        self._resume()
        try:
            if self.runs:
                kill(*self.service.processes_of())
                assert await self.service.end() == 0, self.service.log[-4000:]
                await eventually(lambda: not self.service.everything(), "no process of the service")
        finally:
            await self.drop()

    async def drop(self) -> None:
        """Do away with it and its database, in whatever state it is."""
        self._resume()  # one that is stopped does not end when it is asked to
        await asyncio.to_thread(self.stack.close)


class Lender:
    """The services of the tests of one file, or of those of a folder."""

    def __init__(self, database: Callable[[], AbstractContextManager[str]], fill: Callable[[Path], None]) -> None:
        """database: makes a migrated one, and drops it. fill: puts an embedded, migrated one into a data directory."""
        self._database = database
        self._fill = fill
        self._waiting: dict[tuple[object, ...], Lent] = {}

    @asynccontextmanager
    async def lend(
        self, *, own_database: bool = False, failed: Callable[[], bool] = lambda: False, **settings: str
    ) -> AsyncIterator[Service]:
        """Lend a service that is up, with nothing in it. failed: whether the test that has it did."""
        key = (own_database, *sorted(settings.items()))
        for other in [each for each in self._waiting if each != key]:
            await self._rest(other)
        lent = self._waiting.pop(key, None)
        if lent is not None:
            await lent.wake()
        else:
            while len(self._waiting) >= MOST:
                await self._waiting.pop(next(iter(self._waiting))).end()
            lent = await Lent.start(None if own_database else self._database(), settings, self._fill)
        try:
            yield lent.service
        except BaseException:
            await lent.drop()
            raise
        if failed():
            keep_logs(lent.service.data_directory)
            await lent.drop()
        elif not lent.can_be_lent or key in self._waiting:  # or another one with these settings was lent meanwhile
            await lent.end()
        else:
            try:
                await lent.empty()
            except BaseException:
                await lent.drop()
                raise
            self._waiting[key] = lent

    async def _rest(self, key: tuple[object, ...]) -> None:
        try:
            await self._waiting[key].rest()
        except BaseException:
            await self._waiting.pop(key).drop()
            raise

    async def wake(self) -> None:
        """Have those that wait go on with what their schedulers still have to clear away."""
        for each in self._waiting.values():
            await each.wake()

    def close(self) -> None:
        """End all of them."""

        async def end() -> None:
            async with asyncio.TaskGroup() as tasks:
                while self._waiting:
                    tasks.create_task(self._waiting.popitem()[1].end())

        asyncio.run(end())
