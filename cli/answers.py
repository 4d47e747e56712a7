"""Models of the API's answers. States and reasons stay text: the command line only prints them, and a newer server
may have new ones.

A missing or malformed field raises pydantic's ValidationError, which `cli.server` turns into a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

FINAL_STATES = frozenset({"FINISHED", "FAILED", "CANCELLED"})


class Answer(BaseModel):
    """Base of GraphQL objects: camelCase aliases, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", defer_build=True
    )

    def as_json(self) -> object:
        """Return it with the API's field names, for `--json`."""
        return self.model_dump(mode="json", by_alias=True)


class Named(Answer):
    id: str
    name: str


class Waiting(Answer):
    reason: str
    detail: str


class StopWanted(Answer):
    reason: str
    by: str
    detail: str | None = None


class Objective(Answer):
    """The metric by which a simulation is judged. Without a mode there is no best value."""

    metric: str
    mode: str | None
    value: float | None
    best_value: float | None
    best_step: int | None


class MetricValues(Answer):
    """A metric that a list is sorted by."""

    name: str
    last_value: float | None
    best_value: float | None  # by the API's direction
    min_value: float | None
    max_value: float | None


class Amount(Answer):
    amount: str
    currency: str


class Words(Answer):
    """What completion needs of a simulation."""

    tags: tuple[str, ...]
    metrics: tuple[dict[str, str], ...]


class Simulation(Answer):
    """A simulation, as listed."""

    id: str
    number: int
    name: str
    state: str
    reason: str | None
    reason_detail: str | None
    attended: bool = False
    waiting: Waiting | None
    stop_wanted: StopWanted | None
    objective: Objective | None = None
    project: Named
    machine: Named | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    # Of a list that is sorted by them.
    metric: MetricValues | None = None
    parameter: JsonValue = None
    cost: Amount | None = None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def changed_at(self) -> datetime:
        """Time of the last state change, as far as the timestamps show."""
        return self.finished_at or self.started_at or self.created_at

    @property
    def why(self) -> str:
        """Explanation of the state: a sentence, a reason, or empty."""
        if self.waiting is not None:
            return self.waiting.detail or self.waiting.reason
        if self.stop_wanted is not None and self.stop_wanted.reason == "PREEMPTED" and not self.is_final:
            return f"is being preempted: {self.stop_wanted.detail or 'its machine is needed for another run.'}"
        if self.stop_wanted is not None and not self.is_final:
            return f"stop wanted by {self.stop_wanted.by} ({self.stop_wanted.reason})"
        return f"{self.reason}: {self.reason_detail}" if self.reason and self.reason_detail else self.reason or ""


class SweepParameter(Answer):
    """What a sweep searches: choices, or a range."""

    name: str
    choices: tuple[JsonValue, ...] | None
    low: float | None
    high: float | None
    step: float | None
    log: bool
    integer: bool


class SweepObjective(Answer):
    metric: str
    mode: str


class SweepCounts(Answer):
    planned: int
    queued: int
    running: int
    complete: int
    pruned: int
    failed: int
    cancelled: int = 0

    @property
    def ended(self) -> int:
        return self.complete + self.pruned + self.failed + self.cancelled


class SweepCost(Answer):
    amount: str
    currency: str
    per_hour: str


class SweepRun(Answer):
    """A simulation of a trial."""

    id: str
    number: int
    name: str
    state: str
    reason: str | None


class SweepTrial(Answer):
    number: int
    state: str
    parameters: dict[str, JsonValue]
    value: float | None
    spread: float | None
    step: int | None
    begun_at: datetime
    ended_at: datetime | None
    final_cost: str | None
    simulations: tuple[SweepRun, ...] = ()


class Importance(Answer):
    name: str
    importance: float


class Sweep(Answer):
    """A sweep, as listed."""

    id: str
    number: int
    name: str
    state: str
    reason: str | None
    reason_detail: str | None
    sampler: str
    seed: int
    parameters: tuple[SweepParameter, ...]
    objective: SweepObjective
    parallel: int
    seeds: int
    max_cost: str | None
    patience: int | None
    project: Named
    counts: SweepCounts
    cost: SweepCost
    best: SweepTrial | None
    estimated_end: datetime | None
    entrypoint: tuple[str, ...]
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    importances: tuple[Importance, ...] = ()  # of one that is shown

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None


class Resources(Answer):
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: dict[str, JsonValue]
    machine: Named | None
    max_price_per_hour: str | None


class Limits(Answer):
    max_runtime_seconds: int | None
    max_cost: str | None = None
    max_steps: int | None = None
    max_retries: int
    retry_on: tuple[str, ...]


class StopRule(Answer):
    metric: str
    mode: str
    min_delta: float
    patience: int | None
    grace_period: int
    stopping_threshold: float | None
    divergence_threshold: float | None
    check_finite: bool
    smoothing: float
    plateau: bool
    rising: bool
    aggressive: bool
    dry_run: bool

    def words(self) -> str:
        """Return the rule in the words of `--stop`."""
        numbers = {
            "patience": self.patience, "min-delta": self.min_delta or None, "grace-period": self.grace_period or None,
            "target": self.stopping_threshold, "divergence-threshold": self.divergence_threshold,
            "smoothing": self.smoothing or None,
        }  # fmt: skip
        words = [f"metric={self.metric}", f"mode={self.mode.lower()}"]
        words += [f"{name}={value:g}" for name, value in numbers.items() if value is not None]
        switches = {"plateau": self.plateau, "rising": self.rising, "check-finite": self.check_finite}
        words += [f"no-{name}" for name, on in switches.items() if not on]
        words += ["aggressive"] if self.aggressive else []
        return ",".join([*words, *(["dry-run"] if self.dry_run else [])])


class StopSaving(Answer):
    """What a stop saved, as estimated when it was decided; the amount stays text as in the API."""

    seconds: float
    amount: str | None
    currency: str
    by: str
    end_step: int | None


class StopEvidence(Answer):
    reason: str
    sentence: str
    saved: StopSaving | None = None


class Stopping(Answer):
    rules: tuple[StopRule, ...] = ()
    evidence: StopEvidence | None = None
    would_have_stopped: tuple[StopEvidence, ...] = ()
    notices: tuple[str, ...] = ()


class Alert(Answer):
    """A message about a simulation to an alert target."""

    type: str
    state: str
    target: Named | None


class Forecast(Answer):
    sentence: str


class Checkpoint(Answer):
    at: datetime
    machine_name: str


class Member(Answer):
    rank: int
    machine_name: str
    exit_code: int | None
    signal: int | None


class Attempt(Answer):
    number: int
    machine_name: str
    assigned_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    reason: str | None
    reason_detail: str | None
    exit_code: int | None
    signal: int | None
    gpu_indices: tuple[int, ...]
    members: tuple[Member, ...] = ()

    @property
    def machines(self) -> str:
        """The names of its machines, each once, by rank."""
        return ", ".join(dict.fromkeys(each.machine_name for each in self.members)) or self.machine_name


class Event(Answer):
    at: datetime
    kind: str
    actor: str


class Notice(Answer):
    """Output that was nearly points, or was dropped."""

    kind: str
    count: int
    example: str
    advice: str


class Source(Answer):
    """What the newest attempt ran."""

    commit: str | None
    dirty: bool | None
    remote: str | None
    host: str | None
    python: str | None
    packages: dict[str, JsonValue]


class Package(Answer):
    """The directory of code that it starts in."""

    digest: str
    size_bytes: int
    name: str | None
    commit: str | None
    dirty: bool | None
    url: str


class Link(Answer):
    """A simulation that another one runs after, or that runs after it."""

    condition: str
    simulation: Simulation | None

    def words(self) -> str:
        """Return who and on which condition; the success of the other is the usual one."""
        if self.simulation is None:
            return "(deleted)"
        on = (
            "" if self.condition == "SUCCESS" else f", on {'its failure' if self.condition == 'FAILURE' else 'any end'}"
        )
        return f"{self.simulation.name} ({self.simulation.id}): {self.simulation.state}{on}"


class Ahead(Answer):
    """What is directly before it in the queue."""

    rule: str
    detail: str


class Forked(Simulation):
    """A simulation that is run again with changes."""

    entrypoint: tuple[str, ...] = Field(default=(), exclude=True)
    parameters: dict[str, JsonValue] = Field(default={}, exclude=True)


class Details(Simulation):
    """Everything about one simulation."""

    entrypoint: tuple[str, ...]
    parameters: dict[str, JsonValue]
    environment: dict[str, JsonValue]
    working_directory: str | None
    tags: tuple[str, ...]
    notes: str | None = None
    after: tuple[Link, ...] = ()
    dependents: tuple[Link, ...] = ()
    resources: Resources
    machines: int = 1
    priority: int
    preemptible: bool = False
    queue_position: int | None = None
    estimated_start: datetime | None = None
    ahead: Ahead | None = None
    limits: Limits
    stopping: Stopping = Field(default_factory=Stopping)
    alerts: tuple[Alert, ...] = ()
    forecast: Forecast | None = None
    attempts: tuple[Attempt, ...]
    events: tuple[Event, ...]
    metrics_from: str = "AUTO"
    metrics_patterns: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    source: Source | None = None
    package: Package | None = None
    runtime_env: dict[str, JsonValue] | None = None
    checkpoint: Checkpoint | None = None
    created_by: str
    retry_of: Named | None


class Project(Named):
    created_at: datetime
    weight: str
    gpu_quota: int | None


class MachineResources(Answer):
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None


class Free(Answer):
    cpus: float
    memory_gib: float
    gpus: int


class Machine(Named):
    """A machine, as listed; prices stay text as in the API."""

    engine: str
    host: str | None
    declared: bool
    labels: dict[str, JsonValue]
    price_per_hour: str
    currency: str
    draining: bool
    drain_deadline: datetime | None = None
    heartbeat_at: datetime | None
    created_at: datetime
    state: str
    resources: MachineResources
    free: Free


class Held(Named):
    """A simulation on a machine, as the plan shows it."""

    number: int


class Hold(Answer):
    """A time in which a machine is held by a simulation, or is reserved for it."""

    kind: str
    share: str | None
    preemptible: bool
    begin: datetime
    expected_end: datetime | None
    latest_end: datetime | None
    simulation: Held | None  # None: of a project that the viewer does not see


class PlannedMachine(Named):
    state: str
    holds: tuple[Hold, ...]


class Plan(Answer):
    """The newest plan, with all machines."""

    now: datetime
    queued: int
    machines: tuple[PlannedMachine, ...]


class MachineMade(Answer):
    """A created or changed machine, with notices for its owner."""

    machine: Machine
    notices: tuple[str, ...] = ()


class MachineDetails(Machine):
    """A machine with its current simulations."""

    simulations: tuple[Named, ...]


class BudgetAccount(Answer):
    """A budget in its current period."""

    spent: str
    remaining: str
    percent: int
    per_hour: str
    is_used_up: bool
    lasts_until: datetime | None
    period_begin: datetime
    period_end: datetime | None


class Budget(Answer):
    id: str
    period: str
    amount: str
    currency: str
    project: Named | None
    account: BudgetAccount | None


class CostSum(Answer):
    """A sum of costs in one currency; amounts stay text as in the API."""

    currency: str
    amount: str
    wasted: str
    saved: str
    attempts: int
    simulations: int


class CostRow(Answer):
    project: str | None
    user: str | None
    machine: str | None
    name: str | None
    tag: str | None
    begin: datetime | None
    sum: CostSum

    def keys(self, groups: Sequence[str]) -> tuple[str | None, ...]:
        """Return the values of these groups; a time as its date."""
        return tuple(
            (f"{self.begin:%Y-%m-%d}" if self.begin is not None else None)
            if group in ("DAY", "WEEK", "MONTH")
            else getattr(self, group.lower())
            for group in groups
        )


class Costs(Answer):
    """Where the money went."""

    rows: tuple[CostRow, ...]
    totals: tuple[CostSum, ...]
    to: datetime
    has_prices: bool


class AlertTarget(Named):
    """An alert target; url and last_error are None for all but administrators."""

    transport: str
    url: str | None
    kinds: tuple[str, ...]
    is_default: bool
    created_by: str
    created_at: datetime
    delivered_at: datetime | None
    failed_at: datetime | None
    last_error: str | None
    pending: int
    projects: tuple[Named, ...] | None


class AlertTargetMade(Answer):
    """A new alert target, with the secret of a webhook."""

    alert_target: AlertTarget
    secret: str | None


class AlertDelivery(Answer):
    id: str
    state: str
    error: str | None


class LogChunk(Answer):
    """Lines of one stream, joined by newlines, without the last newline."""

    cursor: str
    attempt: int
    stream: str
    text: str
    received_at: datetime


class File(Answer):
    """A stored file; url: relative to the server's address."""

    kind: str
    rank: int
    path: str
    size_bytes: int
    modified_at: datetime | None
    digest: str | None
    link: str | None
    url: str


class UserError(Answer):
    message: str
    field: tuple[str, ...] | None

    def sentence(self) -> str:
        """The message, prefixed with its field unless it begins with that field, or is about the object itself."""
        path = ".".join(self.field or ())
        return self.message if path in ("", "id") or self.message.startswith(path) else f"{path}: {self.message}"


class Series(Answer):
    """New points of one metric: columns of equal length."""

    metric: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    elapsed: tuple[float, ...]
    supersedes_from: int | None
    not_finite: tuple[str, ...] = ()  # what the nulls stand for, where that was asked for


class ConvergenceEvent(Answer):
    cursor: str
    attempt: int
    live: bool
    state: str
    reason: str | None
    series: tuple[Series, ...]
