"""The supervisors' side: hello and report. Authorised by the attempt's own token and nothing else.

A report with a payload is stored in one transaction: the guarded update of the attempt's row (fence, order,
idempotency, heartbeat), the columns, the log, and with an exit the end of the attempt. Points alone, as most reports
bring, are one statement. Acknowledged is committed.
Only an answer that names the attempt may say OVER; a wrong token is answered with an error that names nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson
import strawberry
import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.scalars import JSON

from db import attempts, convergence, lifecycle, logs, models, projects
from db.attempts import Receipt, Standing
from db.connection import driver_of
from db.convergence import Column
from db.events import SUPERVISOR, Actor
from db.lifecycle import Ending
from db.logs import Chunk
from db.public_ids import encode
from graph.context import Info
from graph.errors import BadInput, Unauthenticated
from graph.types.enums import LogStream, Reason, described
from graph.types.ids import number_asked
from graph.types.scalars import BadColumns, PointColumns, columns
from graph.types.user_errors import UserError, UserErrorCode
from policy.retry import Ended, Retry, after_attempt
from settings import Settings

log = structlog.get_logger()

MAX_LOG_CHARACTERS = 2_000_000
MAX_LOG_CHUNKS = 10_000
LONGEST_BACKOFF = 100  # times the first one


class BadReport(ValueError):
    """A report that breaks the rules; the message says which one."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@described(
    "What the supervisor is to do.",
    CONTINUE="Go on.",
    STOP="End the simulation, then report its exit.",
    OVER="This attempt doesn't count any more: end the simulation, report nothing.",
)
class Verdict(StrEnum):
    CONTINUE = "CONTINUE"
    STOP = "STOP"
    OVER = "OVER"


@strawberry.type(description="The attempt that the answer is about: no other answer may end it.")
class AttemptReference:
    id: strawberry.ID


@strawberry.type(description="What is to be run, and how.")
class WorkOrder:
    entrypoint: list[str] = strawberry.field(description="argv, never a shell.")
    environment: JSON = strawberry.field(description="Variables to add, an object of strings.")
    working_directory: str | None = strawberry.field(description="Null: the attempt's own.")
    max_runtime_seconds: float | None = strawberry.field(description="From the child's start; null: no limit.")
    stop_grace_seconds: float = strawberry.field(description="Between SIGTERM and SIGKILL.")
    heartbeat_seconds: float = strawberry.field(description="How long to be silent at most.")
    gpu_indices: list[int] = strawberry.field(description="Of the host's GPUs, those that it may use.")


@strawberry.input(description="The first word of a supervisor.")
class HelloAttemptInput:
    attempt_id: strawberry.ID = strawberry.field(description="Whose the token is.")
    nonce: str = strawberry.field(description="Made once by the supervisor: the first one binds the attempt.")


@strawberry.type(description="The answer to a hello.")
class HelloAttemptPayload:
    attempt: AttemptReference
    verdict: Verdict
    order: WorkOrder | None = strawberry.field(default=None, description="Null if it is over.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.input(description="A stretch of the log.")
class LogInput:
    stream: LogStream
    text: str = strawberry.field(description="Whole lines, as far as there were whole lines.")


@strawberry.input(description="How the child ended.")
class ExitInput:
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = strawberry.field(
        default=None,
        description="LAUNCH_ERROR, MAX_RUNTIME, MACHINE_LOST, or the stopReason because of which it was ended.",
    )
    message: str | None = strawberry.field(default=None, description="A sentence, where there is more to say.")


@strawberry.input(description="Points, log and exit since the last report; with none of them it is a heartbeat.")
class ReportAttemptInput:
    attempt_id: strawberry.ID = strawberry.field(description="Whose the token is.")
    nonce: str = strawberry.field(description="The one of the hello.")
    batch: int | None = strawberry.field(default=None, description="1, 2, 3...: of reports with a payload.")
    points: PointColumns | None = strawberry.field(default=None, description="At most 10,000 of them.")
    logs: list[LogInput] | None = strawberry.field(default=None, description="In the order they were written.")
    exit: ExitInput | None = strawberry.field(default=None, description="With the last report: it ends the attempt.")


@strawberry.type(description="The answer to a report.")
class ReportAttemptPayload:
    attempt: AttemptReference
    verdict: Verdict
    stop_reason: Reason | None = strawberry.field(default=None, description="With STOP: why.")
    expected_batch: int = strawberry.field(description="The number that the next report with a payload must have.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def hello(info: Info, given: HelloAttemptInput) -> HelloAttemptPayload:
    attempt_id, digest = _credentials(info, given.attempt_id, given.nonce)
    async with info.context.sessions() as session, session.begin():
        greeting = await attempts.hello(session, attempt_id, digest, given.nonce, _actor(info))
        if greeting.standing is Standing.UNKNOWN:
            raise Unauthenticated("This token is not the token of this attempt.")
        attempt, simulation = greeting.attempt, greeting.simulation
        reference = AttemptReference(id=given.attempt_id)
        if attempt is None or simulation is None:
            return HelloAttemptPayload(attempt=reference, verdict=Verdict.OVER)
        project = await projects.get(session, simulation.project_id)
        return HelloAttemptPayload(
            attempt=reference,
            verdict=Verdict.STOP if simulation.stop_wanted_at is not None else Verdict.CONTINUE,
            order=_order(attempt, simulation, project, info.context.settings),
        )


async def report(info: Info, given: ReportAttemptInput) -> ReportAttemptPayload:
    attempt_id, digest = _credentials(info, given.attempt_id, given.nonce)
    try:
        points, chunks = _payload(given)
    except BadReport as error:
        return await _refused(info, given, attempt_id, digest, error)
    receipt = None
    if given.batch is not None and given.exit is None and not chunks:
        async with driver_of(info.context.sessions) as driver:
            receipt = await convergence.take_in(driver, attempt_id, digest, given.nonce, given.batch, points)
    if receipt is None:  # there is more to it than points, or they are not what is expected next
        receipt = await _take_in(info, given, attempt_id, digest, points, chunks)
    if receipt.standing is Standing.UNKNOWN:
        raise Unauthenticated("This token is not the token of this attempt.")
    if receipt.stored and given.batch is not None:
        batch = convergence.batch_of(receipt.number, given.batch, points)
        info.context.hub.committed(receipt.simulation_id, batch, ended=given.exit is not None)
    return _answer(given, receipt)


async def _take_in(
    info: Info,
    given: ReportAttemptInput,
    attempt_id: int,
    digest: bytes,
    points: Mapping[str, Column],
    chunks: Sequence[Chunk],
) -> Receipt:
    """Any report, statement by statement, in one transaction."""
    ended: tuple[Ending, timedelta | None] | None = None
    async with info.context.sessions() as session, session.begin():
        if given.exit is not None:
            # The simulation's lock comes before the attempt's: an exit ends both.
            simulation_id = await attempts.simulation_of(session, attempt_id)
            if simulation_id is not None:
                await lifecycle.lock(session, simulation_id)
        receipt = await attempts.accept(session, attempt_id, digest, given.nonce, given.batch)
        if receipt.stored and given.batch is not None:
            await convergence.store(session, receipt.simulation_id, receipt.number, given.batch, points)
            await logs.store(session, receipt.simulation_id, receipt.number, given.batch, chunks)
            if given.exit is not None:
                ended = await _end(session, receipt, given.exit, info.context.settings, _actor(info))
    if ended is not None:  # and committed
        ending, retry_after = ended
        log.info(
            "attempt_ended",
            simulation_id=receipt.simulation_id,
            attempt_id=attempt_id,
            attempt=receipt.number,
            reason=ending.reason.value,
            exit_code=ending.exit_code,
            retry_after_seconds=retry_after.total_seconds() if retry_after is not None else None,
        )
    return receipt


def _credentials(info: Info, public_id: str, nonce: str) -> tuple[int, bytes]:
    """The attempt's number and the digest of the token that was sent for it."""
    if not info.context.bearer:
        raise Unauthenticated("The attempt's token is missing.")
    if not 1 <= len(nonce) <= 100 or "\0" in nonce:
        raise BadInput("nonce: 1 to 100 characters, none of them NUL.")
    return number_asked(public_id, "Attempt"), sha256(info.context.bearer.encode()).digest()


def _actor(info: Info) -> Actor:
    """A supervisor, and from where it reports: whoever has its token may be somewhere else."""
    return Actor(SUPERVISOR.name, info.context.actor.origin)


def _payload(given: ReportAttemptInput) -> tuple[Mapping[str, Column], list[Chunk]]:
    if given.batch is None and (given.points or given.logs or given.exit):
        raise BadReport("a report with a payload needs a batch number", "batch")
    if given.batch is not None and given.batch < 1:
        raise BadReport("batches are numbered from 1", "batch")
    chunks = given.logs or []
    if len(chunks) > MAX_LOG_CHUNKS or sum(len(chunk.text) for chunk in chunks) > MAX_LOG_CHARACTERS:
        raise BadReport(f"too much log: at most {MAX_LOG_CHARACTERS} characters in {MAX_LOG_CHUNKS} chunks", "logs")
    made = [Chunk(chunk.stream, chunk.text.replace("\0", "�").encode(errors="replace").decode()) for chunk in chunks]
    try:
        return columns(given.points) if given.points is not None else {}, made
    except BadColumns as error:
        raise BadReport(str(error), "points") from None


async def _refused(
    info: Info, given: ReportAttemptInput, attempt_id: int, digest: bytes, error: BadReport
) -> ReportAttemptPayload:
    """Nothing of the batch is stored; its number stays free, for a batch that says so."""
    async with info.context.sessions() as session, session.begin():
        receipt = await attempts.accept(session, attempt_id, digest, given.nonce, None)
    if receipt.standing is Standing.UNKNOWN:
        raise Unauthenticated("This token is not the token of this attempt.")
    answer = _answer(given, receipt)
    answer.user_errors = [UserError(code=UserErrorCode.BATCH_REFUSED, message=str(error), field=[error.field])]
    return answer


def _answer(given: ReportAttemptInput, receipt: Receipt) -> ReportAttemptPayload:
    verdict = Verdict.CONTINUE
    if receipt.standing is Standing.OVER:
        verdict = Verdict.OVER
    elif receipt.stop_reason is not None:
        verdict = Verdict.STOP
    return ReportAttemptPayload(
        attempt=AttemptReference(id=given.attempt_id),
        verdict=verdict,
        stop_reason=receipt.stop_reason,
        expected_batch=receipt.expected_batch,
    )


async def _end(
    session: AsyncSession, receipt: Receipt, given: ExitInput, settings: Settings, actor: Actor
) -> tuple[Ending, timedelta | None]:
    """End the attempt as its exit says; with what, and after which time it is retried."""
    simulation = await lifecycle.lock(session, receipt.simulation_id)
    assert simulation is not None
    ending = _ending(given, simulation)
    decision = after_attempt(
        Ended(
            reason=ending.reason.value,
            attempts_made=receipt.number,
            max_retries=simulation.max_retries,
            retry_on=frozenset(simulation.retry_on),
            stop_wanted=simulation.stop_reason.value if simulation.stop_reason is not None else None,
        ),
        backoff=timedelta(seconds=settings.retry_backoff_seconds),
        longest=timedelta(seconds=settings.retry_backoff_seconds * LONGEST_BACKOFF),
    )
    retry_after = decision.after if isinstance(decision, Retry) else None
    if not isinstance(decision, Retry):
        ending = replace(ending, reason=Reason(decision.reason))
    await lifecycle.end(session, simulation.id, receipt.number, ending, actor, retry_after=retry_after)
    return ending, retry_after


def _ending(given: ExitInput, simulation: models.Simulation) -> Ending:
    """What the exit means: a limit or a wish that ended it, or its own exit code or signal."""
    message = given.message.replace("\0", "�")[:2_000] if given.message else None
    if given.reason is not None and simulation.stop_reason is not None and given.reason == simulation.stop_reason:
        return Ending(simulation.stop_reason, message, given.exit_code, given.signal)
    if given.reason == Reason.LAUNCH_ERROR:
        return Ending(Reason.LAUNCH_ERROR, message)
    if given.reason == Reason.MACHINE_LOST:
        # Its machine was shut down under it: what it made of the SIGTERM, exit code 0 perhaps, is not its own end.
        return Ending(Reason.MACHINE_LOST, message, given.exit_code, given.signal)
    if given.reason == Reason.MAX_RUNTIME:
        return Ending(Reason.MAX_RUNTIME, message, given.exit_code, given.signal)
    if given.exit_code == 0:
        return Ending(Reason.COMPLETED, None, 0)
    return Ending(Reason.EXIT_CODE, message or _how(given), given.exit_code, given.signal)


def _how(given: ExitInput) -> str:
    if given.signal is not None:
        try:
            name = signal.Signals(given.signal).name
        except ValueError:
            name = "unknown"
        return f"It was ended by signal {given.signal} ({name})."
    return f"It ended with exit code {given.exit_code}."


def _order(
    attempt: models.Attempt, simulation: models.Simulation, project: models.Project, settings: Settings
) -> WorkOrder:
    environment = {
        **simulation.environment,
        "SIMULATION_ID": encode("Simulation", simulation.id),
        "SIMULATION_NAME": simulation.name,
        "SIMULATION_PROJECT": project.name,
        "SIMULATION_ATTEMPT": str(attempt.number),
        "SIMULATION_PARAMETERS": orjson.dumps(simulation.parameters).decode(),
        **_parameter_variables(simulation.parameters),
    }
    return WorkOrder(
        entrypoint=simulation.entrypoint,
        environment=JSON(environment),
        working_directory=simulation.working_directory,
        max_runtime_seconds=simulation.max_runtime.total_seconds() if simulation.max_runtime is not None else None,
        stop_grace_seconds=settings.stop_grace_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
        gpu_indices=attempt.gpu_indices,
    )


def _parameter_variables(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Each plain parameter as a variable of its own: learningRate 0.1 is SIMULATION_PARAMETER_LEARNINGRATE=0.1."""
    variables = {}
    for name, value in parameters.items():
        if isinstance(value, str | int | float) and name.replace("_", "a").isalnum() and name.isascii():
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            variables[f"SIMULATION_PARAMETER_{name.upper()}"] = text
    return variables
