"""The supervisors' side: hello and report. Authorised by the attempt's own token and nothing else.

Each mutation parses, calls its transition (`transitions.begin`, `transitions.ingest`), notifies the hub and maps the
answer. Acknowledged is committed.
Only an answer that names the attempt may carry OVER; a wrong token gets an error that names nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from hashlib import sha256
from ipaddress import ip_address

import orjson
import strawberry
from strawberry.scalars import JSON

from db import convergence
from db.attempts import Claim, Endpoint, Receipt, Standing, Work
from db.events import SUPERVISOR, Actor
from db.logs import Chunk
from db.notices import Notice
from db.public_ids import encode
from graph.context import Context
from graph.errors import BadInput, Unauthenticated
from graph.types.curve import LONG_POINTS, keep_levels
from graph.types.enums import LogStream, MetricsFrom, Reason, described
from graph.types.ids import number_asked
from graph.types.scalars import PointColumns, Step
from graph.types.user_errors import UserError, UserErrorCode
from graph.types.variables import parameter_variables
from policy.retry import Exit
from settings import Settings
from transitions import begin
from transitions.begin import Gang, TimeLimits
from transitions.ingest import ingest
from transitions.report import HEARTBEAT, BadReport, Report, checked
from transitions.update import Amendment, seconds_of

JUDGED_HEARTBEAT_SECONDS = 0.5  # of a run with stop rules


@described(
    "What the supervisor has to do.",
    CONTINUE="Continue.",
    STOP="End the simulation, then report its exit.",
    OVER="This attempt is over: end the simulation, report nothing.",
    WAIT="Other members of the attempt have not said hello yet: say hello again. Only the answer to a hello.",
)
class Verdict(StrEnum):
    CONTINUE = "CONTINUE"
    STOP = "STOP"
    OVER = "OVER"
    WAIT = "WAIT"


@strawberry.type(
    description="The attempt that the answer concerns. A supervisor stops only on an answer with its attempt's id."
)
class AttemptReference:
    id: strawberry.ID


@strawberry.type(name="WorkOrder", description="The work of an attempt: the command, its environment and its limits.")
class LaunchSpec:
    entrypoint: list[str] = strawberry.field(description="The argument vector, run without a shell.")
    environment: JSON = strawberry.field(description="Variables to add, an object of strings.")
    working_directory: str | None = strawberry.field(description="Null: the attempt's own directory.")
    max_runtime_seconds: float | None = strawberry.field(
        description="The longest run time, from the child's start; null: no limit."
    )
    max_cost_seconds: float | None = strawberry.field(
        description="The run time that the simulation's maxCost pays for, from the child's start; null: no limit."
    )
    stop_grace_seconds: float = strawberry.field(description="The time between SIGTERM and SIGKILL.")
    heartbeat_seconds: float = strawberry.field(description="The longest time between two reports.")
    gpu_indices: list[int] = strawberry.field(description="Of the host's GPUs, those that it may use.")
    metrics_from: MetricsFrom = strawberry.field(description="Which lines of its output are points.")
    metrics_patterns: list[str] = strawberry.field(description="Regular expressions whose named groups are metrics.")
    tensorboard: list[str] = strawberry.field(description="Further directories with TensorBoard's event files.")
    system_metrics_seconds: float = strawberry.field(description="The interval of system metrics; 0: none.")
    rank: int = strawberry.field(description="Of this member, 0 to worldSize - 1.")
    world_size: int = strawberry.field(description="How many members the attempt has.")
    addresses: list[str] = strawberry.field(description="The addresses of the members' hosts, by rank.")
    master_port: int | None = strawberry.field(
        description="A port that was free on the host of rank 0, where the members meet; null for a single member."
    )


@strawberry.type(
    description="What has changed of the order of an attempt since its hello. All fields hold, null for no limit."
)
class OrderChange:
    heartbeat_seconds: float = strawberry.field(description="The longest time between two reports.")
    max_runtime_seconds: float | None = strawberry.field(description="As in the order.")
    max_cost_seconds: float | None = strawberry.field(description="As in the order.")


@strawberry.input(description="The first request of a supervisor.")
class HelloAttemptInput:
    attempt_id: strawberry.ID = strawberry.field(description="The attempt that the token belongs to.")
    nonce: str = strawberry.field(description="Made once by the supervisor: the first one binds its member.")
    address: str | None = strawberry.field(
        default=None, description="With several members: the IP address at which this host is reached by the others."
    )
    port: int | None = strawberry.field(default=None, description="Likewise: a TCP port that is free on this host.")


@strawberry.type(description="The answer to a hello.")
class HelloAttemptPayload:
    attempt: AttemptReference
    verdict: Verdict
    order: LaunchSpec | None = strawberry.field(default=None, description="Null if the verdict is OVER or WAIT.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.input(description="Consecutive lines of one stream.")
class LogInput:
    stream: LogStream
    text: str = strawberry.field(description="Whole lines, joined by \\n: the last one is without its own.")


@strawberry.input(description="How the child ended.")
class ExitInput:
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = strawberry.field(
        default=None,
        description="LAUNCH_ERROR, MAX_RUNTIME, MAX_COST, MACHINE_LOST, or the stopReason that it was stopped for.",
    )
    message: str | None = strawberry.field(default=None, description="A sentence with details, if there are any.")


@strawberry.input(description="Output that was nearly points, or was dropped.")
class NoticeInput:
    kind: str = strawberry.field(description="A code of capital letters, digits and underscores.")
    count: Step = strawberry.field(description="How many times in this attempt so far: a later report replaces it.")
    example: str = strawberry.field(default="", description="The first such line.")
    advice: str = strawberry.field(default="", description="What to change, as a sentence.")


@strawberry.input(description="What a supervisor found out beside points and log.")
class FactsInput:
    notices: list[NoticeInput] | None = strawberry.field(default=None, description="At most 50, each kind once.")
    parameters: JSON | None = strawberry.field(
        default=None, description="Parameters that the program recorded: an object of at most 1,000 scalars."
    )
    tags: list[str] | None = strawberry.field(default=None, description="Tags that the program recorded, at most 50.")
    source: JSON | None = strawberry.field(
        default=None,
        description="What the attempt runs, once: an object with commit, dirty, remote, command, host, python and "
        "packages, of at most 64 KiB.",
    )
    checkpoint_at: datetime | None = strawberry.field(
        default=None, description="When the newest file in its checkpoint directory was written."
    )


@strawberry.input(description="Points, log and exit since the last report; without them, a heartbeat.")
class ReportAttemptInput:
    attempt_id: strawberry.ID = strawberry.field(description="The attempt that the token belongs to.")
    nonce: str = strawberry.field(description="The nonce of the hello.")
    batch: int | None = strawberry.field(default=None, description="The number of a report with a payload: 1, 2, 3...")
    points: PointColumns | None = strawberry.field(default=None, description="At most 10,000 points.")
    logs: list[LogInput] | None = strawberry.field(default=None, description="In the order they were written.")
    exit: ExitInput | None = strawberry.field(
        default=None, description="How the child ended; ends the member, and the attempt with its last member."
    )
    facts: FactsInput | None = strawberry.field(default=None, description="Facts that are new since the last report.")


@strawberry.type(description="The answer to a report.")
class ReportAttemptPayload:
    attempt: AttemptReference
    verdict: Verdict
    stop_reason: Reason | None = strawberry.field(default=None, description="The reason for the verdict STOP.")
    order_change: OrderChange | None = strawberry.field(
        default=None, description="Null while the order of the hello holds."
    )
    expected_batch: int = strawberry.field(description="The number that the next report with a payload must have.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def hello(context: Context, given: HelloAttemptInput) -> HelloAttemptPayload:
    claim = _claim(context, given.attempt_id, given.nonce)
    settings = context.settings
    grace, lease = timedelta(seconds=settings.stop_grace_seconds), timedelta(seconds=settings.lease_seconds)
    endpoint = _endpoint(given)
    begun = await begin.greet(
        context.sessions, claim, _actor(context), stop_grace=grace, lease=lease, endpoint=endpoint
    )
    if begun.standing is Standing.UNKNOWN:
        raise Unauthenticated("This token is not the token of this attempt.")
    reference = AttemptReference(id=given.attempt_id)
    if begun.work is None:
        return HelloAttemptPayload(attempt=reference, verdict=Verdict.WAIT if begun.is_waiting else Verdict.OVER)
    return HelloAttemptPayload(
        attempt=reference,
        verdict=Verdict.STOP if begun.work.stop_reason is not None else Verdict.CONTINUE,
        order=_launch_spec(begun.work, begun.limits, begun.gang, settings),
    )


async def report(context: Context, given: ReportAttemptInput) -> ReportAttemptPayload:
    claim = _claim(context, given.attempt_id, given.nonce)
    refusals: list[UserError] = []
    try:
        brought = _report(given)
    except BadReport as error:  # nothing of it is stored; its number stays free, for a batch that says so
        brought = HEARTBEAT
        refusals = [UserError(code=UserErrorCode.BATCH_REFUSED, message=str(error), field=[error.field])]
    backoff = timedelta(seconds=context.settings.retry_backoff_seconds)
    receipt = await ingest(context.sessions, claim, brought, backoff=backoff, actor=_actor(context))
    if receipt.standing is Standing.UNKNOWN:
        raise Unauthenticated("This token is not the token of this attempt.")
    if receipt.stored and brought.number is not None:
        points = brought.points if receipt.rank == 0 else {}
        batch = convergence.batch_of(receipt.number, brought.number, points)
        context.live.notifications.committed(
            receipt.simulation_id, batch, ended=brought.exit is not None, logged=bool(brought.chunks), rank=receipt.rank
        )
        is_short = brought.number == 1 and all(len(each.steps) < LONG_POINTS for each in points.values())
        if brought.exit is not None and not is_short:
            context.live.background.add(partial(keep_levels, context.sessions, receipt.simulation_id))
    return _answer(given, receipt, refusals, context.settings)


def _claim(context: Context, public_id: str, nonce: str) -> Claim:
    """The attempt, the digest of the token that was sent for it, and the nonce."""
    if not context.bearer:
        raise Unauthenticated("The attempt's token is missing.")
    if not 1 <= len(nonce) <= 100 or "\0" in nonce:
        raise BadInput("nonce: 1 to 100 characters, none of them NUL.")
    return Claim(number_asked(public_id, "Attempt"), sha256(context.bearer.encode()).digest(), nonce)


def _endpoint(given: HelloAttemptInput) -> Endpoint:
    if given.address is not None:
        try:
            ip_address(given.address)
        except ValueError:
            raise BadInput("address: an IP address.") from None
    if given.port is not None and not 1 <= given.port <= 65_535:
        raise BadInput("port: 1 to 65,535.")
    return Endpoint(given.address, given.port)


def _actor(context: Context) -> Actor:
    """A supervisor, and the address from which it reports: its token may have been taken elsewhere."""
    return Actor(SUPERVISOR.name, context.actor.origin)


def _report(given: ReportAttemptInput) -> Report:
    chunks = [Chunk(chunk.stream, chunk.text) for chunk in given.logs or []]
    exit_ = given.exit
    end = Exit(exit_.exit_code, exit_.signal, exit_.reason, exit_.message) if exit_ is not None else None
    told = given.facts.notices if given.facts is not None else None
    notices = [Notice(each.kind, int(each.count), each.example, each.advice) for each in told or []]
    parameters = given.facts.parameters if given.facts is not None else None
    tags = given.facts.tags if given.facts is not None else None
    source = given.facts.source if given.facts is not None else None
    checkpoint_at = given.facts.checkpoint_at if given.facts is not None else None
    return checked(given.batch, given.points, chunks, end, notices, parameters, tags or (), source, checkpoint_at)


def _answer(
    given: ReportAttemptInput, receipt: Receipt, refusals: list[UserError], settings: Settings
) -> ReportAttemptPayload:
    verdict = Verdict.CONTINUE
    if receipt.standing is Standing.OVER:
        verdict = Verdict.OVER
    elif receipt.stop_reason is not None:
        verdict = Verdict.STOP
    return ReportAttemptPayload(
        attempt=AttemptReference(id=given.attempt_id),
        verdict=verdict,
        stop_reason=receipt.stop_reason,
        order_change=_change(receipt, settings),
        expected_batch=receipt.expected_batch,
        user_errors=refusals,
    )


def _change(receipt: Receipt, settings: Settings) -> OrderChange | None:
    if receipt.amended is None:
        return None
    amendment = Amendment(**receipt.amended)
    return OrderChange(
        heartbeat_seconds=_heartbeat(amendment.is_judged, settings),
        max_runtime_seconds=amendment.max_runtime_seconds,
        max_cost_seconds=amendment.max_cost_seconds,
    )


def _heartbeat(is_judged: bool, settings: Settings) -> float:
    """A stop by a rule arrives with a reply, and has to arrive within a second of the point."""
    return min(JUDGED_HEARTBEAT_SECONDS, settings.heartbeat_seconds) if is_judged else settings.heartbeat_seconds


def _launch_spec(work: Work, limits: TimeLimits, gang: Gang, settings: Settings) -> LaunchSpec:
    interval = work.system_metrics_seconds
    environment = {
        **work.environment,
        "SIMULATION_ID": encode("Simulation", work.simulation_id),
        "SIMULATION_NAME": work.name,
        "SIMULATION_PROJECT": work.project,
        "SIMULATION_ATTEMPT": str(work.number),
        "SIMULATION_PARAMETERS": orjson.dumps(work.parameters).decode(),
        **parameter_variables(work.parameters),
    }
    return LaunchSpec(
        entrypoint=list(work.entrypoint),
        environment=JSON(environment),
        working_directory=work.working_directory,
        max_runtime_seconds=seconds_of(limits.max_runtime),
        max_cost_seconds=seconds_of(limits.max_cost),
        stop_grace_seconds=settings.stop_grace_seconds,
        heartbeat_seconds=_heartbeat(work.is_judged, settings),
        gpu_indices=list(work.gpu_indices),
        metrics_from=work.metrics_from,
        metrics_patterns=list(work.metrics_patterns),
        tensorboard=list(work.tensorboard),
        # Measurements are points, and only rank 0's are the curve.
        system_metrics_seconds=0.0 if work.rank else settings.system_metrics_seconds if interval is None else interval,
        rank=work.rank,
        world_size=work.machines,
        addresses=list(gang.addresses),
        master_port=gang.port,
    )
