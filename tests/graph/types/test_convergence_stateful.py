"""Stateful test of reporters, subscribers and hubs: any order of operations and failures, compared with a small model.

Two graph processes that live by hints, and one that neither hears nor gives any, on one database. Through any of them
a supervisor reports, and subscribers read by the very resolvers that clients reach. Whatever happens, each of them gets
every acknowledged batch behind its cursor once and in order, alone or with its neighbours; and what it keeps by the
rule of `supersedesFrom` is what stands.

What is drawn never depends on who was faster, so that the same choices are the same test.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from effort import STATEFUL_RUNS
from graph_schema import SCHEMA
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from rows import assign_one, claim_launch
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import simulations
from db.attempts import Claim
from db.connection import Sessions, create_engine, session_factory
from db.events import PLANNER, Actor
from db.public_ids import encode
from db.simulations import Wanted
from db.states import Reason
from graph.app import create_app
from graph.context import Context
from settings import Settings
from transitions.assign import Assignment
from transitions.begin import hello
from transitions.settle import Ending, end

PATIENCE_SECONDS = 60  # a bound for what takes milliseconds: the machine may be busy
CURVE = """
subscription ($id: ID!, $metrics: [String!], $after: String, $maxPoints: Int) {
  convergence(simulationId: $id, metrics: $metrics, after: $after, maxPoints: $maxPoints) {
    cursor attempt live state reason series { metric steps values elapsed supersedesFrom }
  }
}
"""
REPORT = """
mutation ($input: ReportAttemptInput!) {
  reportAttempt(input: $input) { verdict expectedBatch userErrors { message } }
}
"""
WANTED = Wanted(
    project_id=1, name="s", entrypoint=("true",), parameters={}, environment={}, working_directory=None, tags=(),
    cpus=1.0, memory_gib=0.0, gpus=0, gpu_model=None, labels={}, machine_id=None, machine_name=None,
    max_price_per_hour=None, priority=0, max_runtime=None, max_retries=1_000, retry_on=("MACHINE_LOST",),
)  # fmt: skip

Cursor = tuple[int, int]  # (attempt, batch)
Point = tuple[int, int, float | None, float]  # (attempt, step, value, elapsed)
Metrics = frozenset[str] | None
START: Cursor = (0, 0)


# --- the model -------------------------------------------------------------------------------------------------


class Model:
    """Every acknowledged batch that has points, in order: its cursor, and its points by metric."""

    def __init__(self) -> None:
        self.log: list[tuple[Cursor, dict[str, list[Point]]]] = []

    def told(self, after: Cursor, metrics: Metrics) -> list[tuple[Cursor, list[Any]]]:
        """What a subscriber must get behind a cursor, as the events have it."""
        found, known = [], set[tuple[int, str]]()
        for cursor, columns in self.log:
            series = []
            for metric, points in sorted(columns.items()):
                is_first = cursor[0] > 1 and (cursor[0], metric) not in known
                known.add((cursor[0], metric))
                if metrics is None or metric in metrics:
                    series.append(series_of(metric, points, is_first))
            if series and cursor > after:
                found.append((cursor, series))
        return found

    def standing(self, metric: str) -> list[tuple[Cursor, Point]]:
        """The points that no later attempt has superseded, with the cursors of their batches."""
        points = [(cursor, point) for cursor, columns in self.log for point in columns.get(metric, ())]
        first: dict[int, int] = {}
        for _, (attempt, step, *_) in points:
            first.setdefault(attempt, step)
        return [each for each in points if all(each[1][1] < first[later] for later in first if later > each[1][0])]


def series_of(metric: str, points: list[Point], is_first: bool) -> dict[str, Any]:
    _, steps, values, elapsed = (list(column) for column in zip(*points, strict=True))
    first = steps[0] if is_first else None
    return {"metric": metric, "steps": steps, "values": values, "elapsed": elapsed, "supersedesFrom": first}


def together(told: Sequence[tuple[Cursor, list[Any]]]) -> list[Any]:
    """The series of batches of an attempt that follow one another, as those of one."""
    found: dict[str, Any] = {}
    for _, parts in told:
        for series in parts:
            begun = found.setdefault(series["metric"], series | {"steps": [], "values": [], "elapsed": []})
            for column in ("steps", "values", "elapsed"):
                begun[column] += series[column]
    return [found[metric] for metric in sorted(found)]


def curves(events: Sequence[Any]) -> dict[str, list[Point]]:
    """What a client keeps of these events."""
    kept: dict[str, list[Point]] = {}
    for event in events:
        for series in event["series"]:
            points = kept.setdefault(series["metric"], [])
            if series["supersedesFrom"] is not None:
                points[:] = [point for point in points if point[1] < series["supersedesFrom"]]
            columns = zip(series["steps"], series["values"], series["elapsed"], strict=True)
            points += [(event["attempt"], *point) for point in columns]
    return kept


# --- a process, and who subscribes at it -----------------------------------------------------------------------


class Process:
    """A graph process below its sockets: what the lifespan of its application makes, and the schema."""

    def __init__(self, url: str, *, hinted: bool) -> None:
        self.settings = Settings(database_url=url, notifications=hinted)  # type: ignore[call-arg]  # by its own name
        self.live: Any = None
        self._ended = asyncio.Event()

    async def start(self, sessions: Sessions) -> None:
        self.sessions = sessions
        started = asyncio.Event()
        self._running = asyncio.create_task(self._run(started))
        await started.wait()

    async def stop(self) -> None:
        self._ended.set()
        await self._running

    async def _run(self, started: asyncio.Event) -> None:
        app = create_app(self.settings, sessions=self.sessions)
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            self.live = state["live"]
            started.set()
            await self._ended.wait()

    def context(self, bearer: str | None = None) -> Context:
        return Context(self.sessions, self.settings, self.live, Actor("ada"), bearer)

    async def report(self, token: str, **given: Any) -> Any:
        result = await SCHEMA.execute(REPORT, {"input": given}, context_value=self.context(token))
        assert result.errors is None, result.errors
        assert result.data is not None
        return result.data["reportAttempt"]

    async def subscribe(self, variables: dict[str, Any]) -> AsyncIterator[Any]:
        results = await SCHEMA.subscribe(CURVE, variable_values=variables, context_value=self.context())
        async with aclosing(results):  # type: ignore[type-var]  # a generator
            async for result in results:
                assert result.errors is None, result.errors
                yield result.data["convergence"]


class Reader:
    """A client that keeps what it gets, over all its subscriptions.

    An eager one always waits for the next event; any other takes one when it is told to, and falls behind meanwhile.
    """

    def __init__(self, simulation_id: str, metrics: Metrics, after: Cursor, most: int | None, eager: bool) -> None:
        self.simulation_id, self.metrics, self.after, self.most, self.eager = simulation_id, metrics, after, most, eager
        self.events: list[Any] = []
        self.process: Process | None = None  # None: it is not connected
        self.complete = False
        self.begin = after  # behind this, it gets everything in full
        self.thinned = 0  # how many events come before that, with what was thinned
        self._stream: Any = None
        self._reads = False  # by itself
        self._task: asyncio.Task[Any] | None = None
        self._stirred = asyncio.Event()

    @property
    def got(self) -> list[Any]:
        """The events with points."""
        return [event for event in self.events if event["series"]]

    @property
    def place(self) -> Cursor:
        """Up to where it has everything that it asked for."""
        return max(self.begin, cursor_of(self.got[-1])) if self.got else self.begin

    async def connect(self, process: Process, model: Model) -> None:
        last = cursor_of(self.events[-1]) if self.events else self.after
        after = "{}-{}".format(*last) if last != START else None
        metrics = sorted(self.metrics) if self.metrics is not None else None
        self.process, self.complete = process, False
        self._stream = process.subscribe(
            {"id": self.simulation_id, "metrics": metrics, "after": after, "maxPoints": self.most}
        )
        if self.most is not None and after is None:
            self.events.clear()  # what it got so far had no points
            while not (self.events and self.events[-1]["live"]):
                await self.advance()
            self.begin = model.log[-1][0] if model.log else START
            self.thinned = len(self.got)
            self._check_thinned(model)
        self._reads = self.eager and not self.complete
        if self._reads:
            self._task = asyncio.create_task(self._read())

    async def disconnect(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stream.aclose()
        self.process = self._task = self._stream = None
        self._reads = False

    def go_back(self, kept: int) -> None:
        """Forget all but the first events: it resumes behind the last of these."""
        del self.events[kept:]
        if len(self.got) < self.thinned or not self.events:
            self.thinned = len(self.got)
            self.begin = cursor_of(self.events[-1]) if self.events else self.after

    async def wait(self) -> None:
        """Stand in line for the next event, without taking it yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._next())

    async def advance(self) -> None:
        """Wait for one more event, or the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            if self._reads and self._task is not None:
                stirred = asyncio.create_task(self._stirred.wait())
                await asyncio.wait({stirred, self._task}, return_when=asyncio.FIRST_COMPLETED)
                stirred.cancel()
                self._stirred.clear()
                if self._task.done():
                    self._task.result()
            else:
                await self.wait()
                assert self._task is not None
                task, self._task = self._task, None
                self._keep(await task)

    async def until(self, cursor: Cursor) -> None:
        """Go on until it has what is up to there."""
        while self.place < cursor:
            assert not self.complete, "it was told that there is no more"
            await self.advance()

    async def to_the_end(self) -> None:
        while not self.complete:
            await self.advance()

    async def _read(self) -> None:
        while not self.complete:
            self._keep(await self._next())
            self._stirred.set()

    async def _next(self) -> Any:
        return await anext(self._stream, None)

    def _keep(self, event: Any) -> None:
        if event is None:
            self.complete = True
        else:
            self.events.append(event)

    # --- what it must have got ---------------------------------------------------------------------------------

    def check(self, model: Model) -> None:
        """What it got so far is what it was to get, in order."""
        sizes = {cursor: sum(map(len, columns.values())) for cursor, columns in model.log}
        place = self.begin
        for event in self.got[self.thinned :]:
            before, place = place, cursor_of(event)
            told = [each for each in model.told(before, self.metrics) if each[0] <= place]
            assert {cursor[0] for cursor, _ in told} == {event["attempt"]} == {place[0]}
            assert event["series"] == together(told)
            of_event = [size for cursor, size in sizes.items() if told[0][0] <= cursor <= place]
            assert len(of_event) == 1 or sum(of_event) <= MOST_JOINED

    def check_whole(self, model: Model) -> None:
        """It got everything, and keeps what stands."""
        self.check(model)
        assert model.told(self.place, self.metrics) == []
        kept, shown = curves(self.got), curves(self.got[: self.thinned])
        for metric in METRICS:
            asked_for = self.metrics is None or metric in self.metrics
            standing = model.standing(metric) if asked_for else []
            there = set(shown.get(metric, ()))
            expected = [point for cursor, point in standing if cursor > self.begin or point in there]
            assert kept.get(metric, []) == expected

    def _check_thinned(self, model: Model) -> None:
        """The past is what stands, or so much of it as was asked for, with its end."""
        assert self.most is not None
        shown = curves(self.got)
        for metric in METRICS if self.metrics is None else self.metrics:
            standing, points = [point for _, point in model.standing(metric)], shown.get(metric, [])
            assert points == [point for point in standing if point in set(points)]
            assert points == standing if len(standing) <= self.most else len(points) <= self.most
            assert points[-1:] == standing[-1:]


def cursor_of(event: Any) -> Cursor:
    attempt, batch = event["cursor"].split("-")
    return int(attempt), int(batch)


# --- what is drawn ---------------------------------------------------------------------------------------------

METRICS = ("accuracy", "late", "loss", "ünïcode")
HINTED, ALSO_HINTED, TIMED = range(3)  # processes; the last neither hears hints nor gives any
PROCESSES = st.sampled_from((HINTED, ALSO_HINTED, TIMED))
VALUES = st.one_of(st.floats(), st.sampled_from((math.nan, math.inf, -math.inf, 0.5)))
COLUMNS = st.dictionaries(
    st.sampled_from(METRICS), st.lists(st.tuples(st.integers(1, 4), VALUES), min_size=1, max_size=6), max_size=3
)
ANY = st.integers(0, 10_000)  # which of those that there are
MOST_READERS = 8
MOST_JOINED = 12


class Log(RuleBasedStateMachine):
    """One simulation from its first attempt to its end, with all that report and watch."""

    def __init__(self, runner: asyncio.Runner, engine: AsyncEngine, url: str) -> None:
        super().__init__()
        self.runner, self.sessions, self.url = runner, session_factory(engine), url

    @initialize()
    def begin(self) -> None:
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        self.processes = [
            Process(f"{self.url}&application_name=hub-{number}", hinted=number != TIMED) for number in range(3)
        ]
        for process in self.processes:
            await process.start(self.sessions)
        self.model, self.readers, self.ended = Model(), list[Reader](), False
        self.sent: dict[int, dict[str, Any]] = {}  # by number: the batches of the current attempt
        self.steps = dict.fromkeys(METRICS, 0)  # the next one of each metric
        self.number = 0
        self.mute = {TIMED}  # processes whose hints may not arrive
        self.hints: list[tuple[int, set[int]]] = []  # (length of the log, its senders; none: Postgres itself)
        async with self.sessions.begin() as session:
            self.simulation_id = (await simulations.create(session, WANTED, PLANNER)).id
        await self._assign()
        for through in (HINTED, ALSO_HINTED):  # subscribers from the beginning
            self.readers.append(Reader(encode("Simulation", self.simulation_id), None, START, None, through == HINTED))
            await self.readers[-1].connect(self.processes[through], self.model)

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            self.runner.run(self._finish())

    async def _finish(self) -> None:
        try:
            if not self.ended:
                await self._end(completed=True)
            for reader in self.readers:
                if reader.process is None:
                    await reader.connect(self.processes[HINTED], self.model)
                await reader.to_the_end()
                reader.check_whole(self.model)
                assert reader.events[-1]["live"]
                assert {event["state"] for event in reader.events[-1:]} <= {"FINISHED", "FAILED"}
                await reader.disconnect()
            assert [process.live.hub._tails for process in self.processes] == [{}] * 3, "the tail is freed"
        finally:
            for process in self.processes:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await process.stop()

    # --- the simulation ----------------------------------------------------------------------------------------

    @rule(through=PROCESSES, columns=COLUMNS)
    def report(self, through: int, columns: Any) -> None:
        self.runner.run(self._report((through,), columns))

    @rule(columns=COLUMNS, through=st.lists(PROCESSES, min_size=2, max_size=3))
    def report_at_once(self, columns: Any, through: list[int]) -> None:
        """The same batch, through several processes at the same moment."""
        self.runner.run(self._report(through, columns))

    @rule(through=PROCESSES, which=ANY, ahead=st.booleans())
    def report_out_of_order(self, through: int, which: int, ahead: bool) -> None:
        """An old batch again, a heartbeat, or one whose turn it is not yet."""
        if not self.ended:
            expected = len(self.sent) + 1
            again = self.sent.get(which % expected, {"batch": expected + 1 if ahead else None})
            answer = self.runner.run(self._send(through, again))
            assert (answer["verdict"], answer["expectedBatch"]) == ("CONTINUE", expected)

    @rule(back=st.integers(0, 8), through=PROCESSES)
    def lose(self, back: int, through: int) -> None:
        """The attempt is lost; its successor repeats some points, and later reports of the old one are void."""
        if self.ended:
            return

        async def lose() -> None:
            async with self.sessions.begin() as session:
                ending, at_once = Ending(Reason.MACHINE_LOST), timedelta(0)
                assert await end(session, self.simulation_id, self.number, ending, PLANNER, retry_after=at_once)
            late = {"batch": len(self.sent) + 1, "points": {"loss": {"steps": [10**6], "values": [0], "elapsed": [0]}}}
            assert (await self._send(through, late))["verdict"] == "OVER"
            old = {"attemptId": self.attempt_id, "token": self.token, "nonce": self.nonce}
            await self._assign()
            answer = await self.processes[through].report(**old, **late)
            assert answer["verdict"] == "OVER"
            self.steps = {metric: max(0, step - back) for metric, step in self.steps.items()}

        self.runner.run(lose())

    @rule(completed=st.booleans(), through=PROCESSES, burst=st.integers(0, 4), chance=st.integers(0, 3))
    def end(self, completed: bool, through: int, burst: int, chance: int) -> None:
        """With a burst of points right before it."""
        if not self.ended and not chance:
            self.runner.run(self._end(completed, through, burst))

    # --- who watches -------------------------------------------------------------------------------------------

    @rule(
        through=PROCESSES,
        metrics=st.one_of(st.none(), st.frozensets(st.sampled_from((*METRICS, "unknown")), max_size=3)),
        after=st.one_of(st.none(), ANY),
        most=st.one_of(st.none(), st.sampled_from((1, 3, 1_000))),
        eager=st.booleans(),
    )
    def join(self, through: int, metrics: Metrics, after: int | None, most: int | None, eager: bool) -> None:
        if len(self.readers) < MOST_READERS:
            known = [START, *(cursor for cursor, _ in self.model.log)]
            cursor = known[after % len(known)] if after is not None else START
            reader = Reader(encode("Simulation", self.simulation_id), metrics, cursor, most, eager)
            self.readers.append(reader)
            self._connect(reader, through)

    @rule(which=ANY)
    def wait(self, which: int) -> None:
        reader = self._reader(which)
        if reader is not None and reader.process is not None and not reader.complete:
            self.runner.run(reader.wait())

    @rule(which=ANY, batches=st.sampled_from((1, 1, 2, 100)))
    def read(self, which: int, batches: int) -> None:
        """Some of what it must get by now, if there is any."""
        reader = self._reader(which)
        if reader is not None and reader.process is not None:
            ahead = [cursor for cursor in self._due(reader) if cursor > reader.place][:batches]
            self.runner.run(reader.until(max(ahead, default=START)))

    @rule(which=ANY)
    def disconnect(self, which: int) -> None:
        reader = self._reader(which)
        if reader is not None and reader.process is not None:
            self.runner.run(reader.disconnect())

    @rule(which=ANY, through=PROCESSES, kept=st.one_of(st.none(), ANY))
    def resume(self, which: int, through: int, kept: int | None) -> None:
        """Behind its last event, or any earlier one; here or there."""
        reader = self._reader(which)
        if reader is not None:
            if reader.process is not None:
                self.runner.run(reader.disconnect())
            if kept is not None:
                reader.go_back(kept % (len(reader.events) + 1))
            self._connect(reader, through)

    @rule(which=st.sampled_from((HINTED, ALSO_HINTED)), columns=COLUMNS.filter(bool))
    def cut(self, which: int, columns: Any) -> None:
        """The LISTEN connection of a process breaks: its pending hints are lost.

        What another one tells before it listens again it can't have heard: it has to look.
        """

        async def cut() -> None:
            async with self.sessions.begin() as session:
                await session.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"),
                    {"name": f"hub-{which}"},
                )
            self.mute.add(which)
            await self._report((HINTED if which == ALSO_HINTED else ALSO_HINTED,), columns)
            for reader in self.readers:
                if reader.process is self.processes[which]:
                    await reader.until(max(self._due(reader), default=START))

        self.runner.run(cut())

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self) -> None:
        for reader in self.readers:
            reader.check(self.model)

    # --- how ---------------------------------------------------------------------------------------------------

    async def _assign(self) -> None:
        self.token, self.nonce = secrets.token_urlsafe(), "nonce"
        async with self.sessions.begin() as session:
            assignment = Assignment(None, "m", None, (), Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)  # type: ignore[arg-type]
            made = await assign_one(session, self.simulation_id, self.number, assignment, PLANNER)
            assert made is not None
            digest = sha256(self.token.encode()).digest()
            assert await claim_launch(session, made, digest)
            await hello(session, Claim(made, digest, self.nonce))
        self.attempt_id, self.number = encode("Attempt", made), self.number + 1
        self.sent.clear()
        self.hints.append((len(self.model.log), set()))

    async def _send(self, through: int, given: dict[str, Any]) -> Any:
        return await self.processes[through].report(self.token, attemptId=self.attempt_id, nonce=self.nonce, **given)

    async def _report(self, through: Sequence[int], columns: Any, **given: Any) -> None:
        if self.ended:
            return
        points: dict[str, list[Point]] = {}
        for metric, drawn in columns.items():
            points[metric] = []
            for gap, value in drawn:
                self.steps[metric] += gap
                point = (self.number, self.steps[metric], value, self.steps[metric] / 8)
                points[metric].append(point)
        number = len(self.sent) + 1
        batch = {"batch": number, "points": {metric: as_sent(column) for metric, column in points.items()}, **given}
        answers = await asyncio.gather(*(self._send(each, batch) for each in through))
        assert {answer["expectedBatch"] for answer in answers} == {number + 1}
        self.sent[number] = batch
        if points:
            as_read = {metric: [finite(point) for point in column] for metric, column in points.items()}
            self.model.log.append(((self.number, number), as_read))
        self.hints.append((len(self.model.log), set(through)))

    async def _end(self, completed: bool, through: int = HINTED, burst: int = 0) -> None:
        for _ in range(burst):
            await self._report((through,), {"loss": [(1, 0.5)]})
        if completed:
            await self._report((through,), {"loss": [(1, math.nan)]}, exit={"exitCode": 0})
        else:
            async with self.sessions.begin() as session:
                ending = Ending(Reason.MACHINE_LOST)
                assert await end(session, self.simulation_id, self.number, ending, PLANNER)
        self.ended = True
        self.hints.append((len(self.model.log), set()))

    def _reader(self, which: int) -> Reader | None:
        return self.readers[which % len(self.readers)] if self.readers else None

    def _connect(self, reader: Reader, through: int) -> None:
        self.runner.run(reader.connect(self.processes[through], self.model))

    def _due(self, reader: Reader) -> list[Cursor]:
        """The cursors of what it must get in full without anything else happening."""
        assert reader.process is not None
        own = self.processes.index(reader.process)
        told = max(
            length
            for length, by in self.hints
            if own == TIMED or all(each == own or each not in self.mute for each in by)
        )
        known = {cursor for cursor, _ in self.model.log[:told]}
        return [cursor for cursor, _ in self.model.told(reader.begin, reader.metrics) if cursor in known]


def as_sent(column: list[Point]) -> dict[str, Any]:
    words = {math.inf: "Infinity", -math.inf: "-Infinity"}
    values = [words.get(value, value) if value == value else "NaN" for _, _, value, _ in column]
    return {"steps": [point[1] for point in column], "values": values, "elapsed": [point[3] for point in column]}


def finite(point: Point) -> Point:
    attempt, step, value, elapsed = point
    return (attempt, step, value if value is not None and math.isfinite(value) else None, elapsed)


@pytest.mark.timeout(60 * STATEFUL_RUNS)  # a failure is shrunk, which takes longer than any other test may
def test_every_subscriber_gets_every_acknowledged_point_once_and_in_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "graph.live.tail.TAIL_BATCHES": 3,  # so that one falls behind soon
        "graph.live.tail.PAGE_BATCHES": 4,
        "graph.types.convergence.MOST_JOINED": MOST_JOINED,
        "graph.live.tail.MOST_SHARED": 4,
        "graph.live.hub.LOOK_AGAIN_SECONDS": 3_600,  # who is told by hints lives by them
        "graph.live.hub.POLL_SECONDS": 0.02,  # and who looks by timer needs none
    }.items():
        monkeypatch.setattr(name, value)
    monkeypatch.setattr("db.outage.AWAY_PERIOD_SECONDS", 0.05)
    with asyncio.Runner() as runner:
        engine = create_engine(database_url, pool_size=8, application="model")
        try:
            run_state_machine_as_test(
                lambda: Log(runner, engine, database_url),
                settings=hypothesis_settings(
                    deadline=None,
                    max_examples=STATEFUL_RUNS,
                    stateful_step_count=40,
                    suppress_health_check=[HealthCheck.too_slow],  # it is real, and the machine may be busy
                    report_multiple_bugs=False,
                    print_blob=True,
                ),
            )
        finally:
            runner.run(engine.dispose())
