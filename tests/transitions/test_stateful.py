"""Attempts and batches under anything, from several connections at once, compared with a model of a few lines.

Two or three operations are sent at the same moment, each in a transaction of its own. Whatever the database makes of
them must be what the model makes of the same operations one after the other, in some order: the answers, and every
row afterwards. So nothing is stored twice or lost, no two attempts are current, and no old one is heard.

What is drawn never depends on who won a race ("the newest attempt", "the batch after the next"), so that the same
choices are the same test however the race went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import count, permutations
from typing import Any, Protocol

import pytest
from effort import STATEFUL_RUNS
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from rows import assign_one, claim_launch
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import attempts, convergence, lifecycle, simulations
from db.attempts import Claim, Receipt, Standing
from db.connection import create_engine, driver_of, session_factory
from db.convergence import Column
from db.errors import WrongState
from db.events import Actor
from db.simulations import Wanted
from db.states import Reason
from transitions.assign import Assignment
from transitions.begin import hello
from transitions.cancel import cancel as cancel_simulation
from transitions.preempt import preempt
from transitions.settle import Ending, end

ACTOR = Actor("model")
REFUSED = "refused"  # OVER or UNKNOWN: which of both may depend on what another transaction is about to do
FINAL = ("FINISHED", "FAILED", "CANCELLED")
WANTED = Wanted(
    project_id=1, name="s", entrypoint=("true",), parameters={}, environment={}, working_directory=None, tags=(),
    cpus=1.0, memory_gib=0.0, gpus=0, gpu_model=None, labels={}, machine_id=None, machine_name=None,
    max_price_per_hour=None, priority=0, max_runtime=None, max_retries=0, retry_on=(),
)  # fmt: skip


# --- the model -------------------------------------------------------------------------------------------------


@dataclass
class AttemptModel:
    token: bytes | None = None
    nonce: str | None = None
    batches: int = 0  # stored: 1, 2, 3... up to this one
    current: bool = True
    stop: str | None = None  # the reason for which it is to be stopped


@dataclass
class Model:
    """One simulation; `attempts[0]` has the number 1."""

    state: str = "QUEUED"
    attempts: list[AttemptModel] = field(default_factory=list)

    def assign(self, fence: int) -> bool:
        if self.state != "QUEUED" or fence != len(self.attempts):
            return False
        self.attempts.append(AttemptModel())
        self.state = "STARTING"
        return True

    def claim(self, number: int, token: bytes) -> bool:
        attempt = self.attempts[number - 1]
        if not attempt.current or attempt.nonce is not None:
            return False
        attempt.token = token
        return True

    def hello(self, number: int, token: bytes, nonce: str) -> str:
        attempt = self.attempts[number - 1]
        if not attempt.current or token != attempt.token or attempt.nonce not in (None, nonce):
            return REFUSED
        attempt.nonce = nonce
        if self.state == "STARTING" and attempt.stop is None:
            self.state = "RUNNING"
        return "CURRENT"

    def report(self, number: int, token: bytes, nonce: str, batch: int | None) -> tuple[str, bool]:
        attempt = self.attempts[number - 1]
        if not attempt.current or token != attempt.token or nonce != attempt.nonce:
            return REFUSED, False
        stored = batch == attempt.batches + 1
        attempt.batches += stored
        return "CURRENT", stored

    def end(self, number: int, state: str) -> bool:
        attempt = self.attempts[number - 1]
        if not attempt.current:
            return False
        attempt.current = False
        self.state = state
        return True

    def cancel(self) -> str:
        if self.state == "QUEUED":
            self.state = "CANCELLED"
        elif self.state not in FINAL and self.attempts[-1].stop in (None, "PREEMPTED"):
            self.attempts[-1].stop = "CANCELLED"
        return self.state if self.state not in ("FINISHED", "FAILED") else "too late"

    def preempt(self) -> bool:
        if self.state not in ("STARTING", "RUNNING") or self.attempts[-1].stop is not None:
            return False
        self.attempts[-1].stop = "PREEMPTED"
        return True


# --- the same operations on rows -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """An attempt as its supervisor knows it."""

    simulation_id: int
    number: int
    attempt_id: int
    token: bytes
    nonce: str

    @property
    def claim(self) -> Claim:
        return Claim(self.attempt_id, self.token, self.nonce)


class Operation(Protocol):
    async def on_rows(self, session: AsyncSession) -> object: ...

    def on_model(self, model: Model) -> object: ...


@dataclass(frozen=True)
class Assign:
    simulation_id: int
    fence: int

    async def on_rows(self, session: AsyncSession) -> object:
        assignment = Assignment(None, "m", None, (), Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)  # type: ignore[arg-type]
        return await assign_one(session, self.simulation_id, self.fence, assignment, ACTOR) is not None

    def on_model(self, model: Model) -> object:
        return model.assign(self.fence)


@dataclass(frozen=True)
class ClaimLaunch:
    target: Target
    token: bytes

    async def on_rows(self, session: AsyncSession) -> object:
        return await claim_launch(session, self.target.attempt_id, self.token)

    def on_model(self, model: Model) -> object:
        return model.claim(self.target.number, self.token)


@dataclass(frozen=True)
class Hello:
    target: Target

    async def on_rows(self, session: AsyncSession) -> object:
        greeting = await hello(session, self.target.claim)
        return "CURRENT" if greeting.standing is Standing.CURRENT else REFUSED

    def on_model(self, model: Model) -> object:
        return model.hello(self.target.number, self.target.token, self.target.nonce)


@dataclass(frozen=True)
class Report:
    target: Target
    batch: int | None
    exits: bool = False

    async def on_rows(self, session: AsyncSession) -> object:
        target = self.target
        points = {"loss": Column([self.batch or 0], [0.5], [0.1]), "accuracy": Column([self.batch or 0], [0.5], [0.1])}
        if self.exits:
            await lifecycle.lock(session, target.simulation_id)
        elif self.batch is not None:
            async with driver_of(async_sessionmaker(session.bind)) as alone:
                taken = await convergence.take_in(alone, target.claim, self.batch, points)
            if taken is not None:
                assert taken == Receipt(
                    Standing.CURRENT, True, target.simulation_id, target.number, self.batch + 1, taken.stop_reason
                )
                return "CURRENT", True
        receipt = await attempts.accept(session, target.claim, self.batch)
        if receipt.stored:
            assert self.batch is not None
            assert (receipt.simulation_id, receipt.number) == (target.simulation_id, target.number)
            assert receipt.expected_batch == self.batch + 1
            await convergence.store(session, receipt.simulation_id, receipt.number, self.batch, points)
            if self.exits:
                ending = Ending(Reason.COMPLETED, exit_code=0)
                assert await end(session, target.simulation_id, target.number, ending, ACTOR)
        return ("CURRENT" if receipt.standing is Standing.CURRENT else REFUSED), receipt.stored

    def on_model(self, model: Model) -> object:
        answer, stored = model.report(self.target.number, self.target.token, self.target.nonce, self.batch)
        if stored and self.exits:
            model.end(self.target.number, "FINISHED")
        return answer, stored


@dataclass(frozen=True)
class Lose:
    target: Target
    requeued: bool

    async def on_rows(self, session: AsyncSession) -> object:
        retry_after = timedelta(0) if self.requeued else None
        ending = Ending(Reason.MACHINE_LOST)
        await lifecycle.lock(session, self.target.simulation_id)
        return await end(session, self.target.simulation_id, self.target.number, ending, ACTOR, retry_after=retry_after)

    def on_model(self, model: Model) -> object:
        return model.end(self.target.number, "QUEUED" if self.requeued else "FAILED")


@dataclass(frozen=True)
class Cancel:
    simulation_id: int

    async def on_rows(self, session: AsyncSession) -> object:
        try:
            return (await cancel_simulation(session, self.simulation_id, ACTOR)).state.value
        except WrongState:
            return "too late"

    def on_model(self, model: Model) -> object:
        return model.cancel()


@dataclass(frozen=True)
class Preempt:
    simulation_id: int

    async def on_rows(self, session: AsyncSession) -> object:
        return await preempt(session, self.simulation_id, ACTOR)

    def on_model(self, model: Model) -> object:
        return model.preempt()


# --- what is drawn ---------------------------------------------------------------------------------------------

# (kind, how many attempts back, which nonce, how far from the next batch; None: an empty report)
Drawn = tuple[str, int, str, int | None]
BACK = st.sampled_from([0, 0, 0, 1, 2])
NONCES = st.sampled_from(["a", "a", "a", "b"])
BATCHES = st.sampled_from([0, 0, 0, 1, -1, -2, None])
REPORTS = st.tuples(st.just("report"), BACK, NONCES, BATCHES)
STEPS = st.tuples(st.sampled_from(["assign", "claim", "hello"]), BACK, NONCES, BATCHES)
ENDS = st.tuples(st.sampled_from(["exit", "requeue", "fail", "cancel", "preempt"]), BACK, NONCES, BATCHES)


class Attempts(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = create_engine(url, pool_size=4, application="model")
        self.sessions = session_factory(self.engine)
        self.tokens = count(1)
        self.ended: list[tuple[int, Model]] = []

    def teardown(self) -> None:
        try:
            for simulation_id, model in self.ended:  # what is final has stayed as it was
                assert self.runner.run(self.rows(simulation_id)) == expected_rows(model)
        finally:
            self.runner.run(self.engine.dispose())
            self.runner.close()

    @initialize()
    def submit(self) -> None:
        async def create() -> int:
            async with self.sessions.begin() as session:
                return (await simulations.create(session, WANTED, ACTOR)).id

        self.simulation_id = self.runner.run(create())
        self.model = Model()
        self.ids: list[int] = []

    # --- rules -------------------------------------------------------------------------------------------------

    @rule(nonce=NONCES)
    def go_on(self, nonce: str) -> None:
        """The next step of a quiet life, so that there is something to disturb."""
        if self.model.state in FINAL:
            self.ended.append((self.simulation_id, self.model))
            self.submit()
        elif self.model.state == "QUEUED":
            self.at_once([("assign", 0, nonce, 0)])
        elif self.model.attempts[-1].token is None:
            self.at_once([("claim", 0, nonce, 0)])
        elif self.model.attempts[-1].nonce is None:
            self.at_once([("hello", 0, nonce, 0)])
        else:
            self.at_once([("report", 0, self.model.attempts[-1].nonce, 0)])

    @rule(drawn=st.lists(REPORTS, min_size=2, max_size=3))
    def report(self, drawn: list[Drawn]) -> None:
        self.at_once(drawn)

    @rule(drawn=st.lists(st.one_of(STEPS, REPORTS), min_size=2, max_size=3))
    def begin(self, drawn: list[Drawn]) -> None:
        self.at_once(drawn)

    @rule(end=ENDS, drawn=st.lists(st.one_of(REPORTS, STEPS, ENDS), min_size=1, max_size=2))
    def end(self, end: Drawn, drawn: list[Drawn]) -> None:
        self.at_once([end, *drawn])

    # --- how ---------------------------------------------------------------------------------------------------

    def at_once(self, drawn: Sequence[Drawn]) -> None:
        """Send all at the same moment, and find the order in which the model does the same."""
        operations = [made for each in drawn if (made := self.operation(*each)) is not None]
        answers, rows = self.runner.run(self.run(operations))
        for order in permutations(range(len(operations))):
            model = deepcopy(self.model)
            told = {index: operations[index].on_model(model) for index in order}
            if [told[index] for index in range(len(operations))] == answers and expected_rows(model) == rows:
                self.model = model
                return
        raise AssertionError(f"no order of these explains it:\n{operations}\n{answers}\n{self.model}\n{rows}")

    def operation(self, kind: str, back: int, nonce: str, ahead: int | None) -> Operation | None:
        if kind == "cancel":
            return Cancel(self.simulation_id)
        if kind == "preempt":
            return Preempt(self.simulation_id)
        if kind == "assign":
            return Assign(self.simulation_id, max(len(self.ids) - back, 0))
        if not self.ids:
            return None
        number = max(len(self.ids) - back, 1)
        known = self.model.attempts[number - 1]
        target = Target(self.simulation_id, number, self.ids[number - 1], known.token or b"never minted", nonce)
        batch = max(known.batches + 1 + ahead, 1) if ahead is not None else None
        match kind:
            case "claim":
                return ClaimLaunch(target, b"%d %d" % (self.simulation_id, next(self.tokens)))
            case "hello":
                return Hello(target)
            case "report":
                return Report(target, batch)
            case "exit":
                return Report(target, batch, exits=batch is not None)
            case _:
                return Lose(target, requeued=kind == "requeue")

    async def run(self, operations: Sequence[Operation]) -> tuple[list[object], Any]:
        async def alone(operation: Operation) -> object:
            async with self.sessions.begin() as session:
                return await operation.on_rows(session)

        async with asyncio.timeout(60):
            answers = await asyncio.gather(*map(alone, operations))
        rows = await self.rows(self.simulation_id)
        async with self.sessions() as session:
            self.ids = [each.id for each in await attempts.of_simulation(session, self.simulation_id)]
        return list(answers), rows

    async def rows(self, simulation_id: int) -> Any:
        """All that the model knows, as it stands in the tables."""
        async with self.sessions() as session:
            simulation = await simulations.get(session, simulation_id)
            found = await attempts.of_simulation(session, simulation_id)
            stored = await session.execute(
                text("SELECT attempt, batch, metric FROM convergence WHERE simulation_id = :id ORDER BY 1, 2, 3"),
                {"id": simulation_id},
            )
            return (
                (simulation.state.value, simulation.attempt),
                [
                    (
                        each.attempt.number,
                        each.lead.token_digest,
                        each.lead.nonce,
                        each.lead.next_batch,
                        each.attempt.ended_at is None,
                        each.lead.ended_at is None,
                        each.attempt.stop_reason,
                    )
                    for each in found
                ],
                [tuple(row) for row in stored],
            )

    # --- what holds whatever happens ---------------------------------------------------------------------------

    @invariant()
    def what_is_promised(self) -> None:
        current = [attempt for attempt in self.model.attempts if attempt.current]
        assert len(current) <= 1
        assert current == self.model.attempts[-1:] or not current
        assert bool(current) == (self.model.state in ("STARTING", "RUNNING"))
        assert self.ids == sorted(set(self.ids))


def expected_rows(model: Model) -> Any:
    """The tables as the model has them: numbers rise by one, and each acknowledged batch is there once."""
    numbered = list(enumerate(model.attempts, 1))
    return (
        (model.state, len(model.attempts)),
        [
            (number, each.token, each.nonce, each.batches + 1, each.current, each.current, each.stop)
            for number, each in numbered
        ],
        [
            (number, batch, metric)
            for number, each in numbered
            for batch in range(1, each.batches + 1)
            for metric in ("accuracy", "loss")
        ],
    )


@pytest.mark.timeout(60 * STATEFUL_RUNS)  # a failure is shrunk, which takes longer than any other test may
def test_whatever_is_sent_at_once_is_what_the_model_does_in_some_order(database_url: str) -> None:
    run_state_machine_as_test(
        lambda: Attempts(database_url),
        settings=settings(
            deadline=None,
            max_examples=STATEFUL_RUNS,
            stateful_step_count=30,
            suppress_health_check=[HealthCheck.too_slow],  # it is real, and the machine may be busy
            report_multiple_bugs=False,
            print_blob=True,
        ),
    )
