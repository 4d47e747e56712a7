"""Input validation before anything is stored: lengths, ranges, characters. Pydantic checks, and each error becomes a
user error that names the field. The database decides whether names and ids exist."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Required,  # Pydantic takes those of `typing` from Python 3.12 on
    Self,
    TypeVar,
)

import orjson
import strawberry
from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core.core_schema import no_info_after_validator_function
from strawberry.types.base import has_object_definition
from typing_extensions import TypedDict

from db.alert_targets import Transport
from db.listing import Comparison
from db.states import MetricMode, MetricsFrom, Reason, Role
from db.watch_leases import LONGEST_GRACE
from graph.types.runtime_env import check_runtime_env
from graph.types.user_errors import UserError, UserErrorCode
from graph.types.variables import check_name, check_parameters
from policy.alerts import AlertKind
from policy.budget import Period
from policy.dependencies import DependencyCondition
from policy.metric_mode import is_system
from policy.retry import RETRYABLE
from policy.rule_documents import MOST_RULES
from policy.search_space import MOST_CHOICES, MOST_PARAMETERS, MOST_TRIALS, Sampler
from transitions.report import MAX_METRIC_NAME, MAX_STEP

MAX_COMMAND_BYTES = 65_536  # of all words; Linux takes 131,072 in one
MAX_JSON_BYTES = 65_536
MAX_PATTERN = 500
MAX_NOTES = 10_000
MOST_TAGS = 50  # of one simulation
MOST_AT_ONCE = 1_000  # simulations of one createSimulations
MOST_DEPENDENCIES = 1_000  # of one simulation
MOST_MACHINES = 1_000  # of one simulation
MAX_JSON_DEPTH = 100  # an answer can hold some 250 levels, and has a few of its own
# Bidirectional embeddings, overrides and isolates (UAX #9, 2): a name with one reads as another one. Marks do not.
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
MOST_CONDITIONS = 20  # of one kind, in a filter
LONGEST_SHOWN = 60  # characters of a number in a message
MOST_FINDINGS = 50  # in one answer, as GraphQL has them of variables: a body has room for half a million mistakes
# Null means none, or of an alert target: all.
CLEARABLE = frozenset(
    {
        "gpu_model", "gpu_quota", "notes", "deadline", "max_runtime_seconds", "max_cost", "max_steps", "kinds",
        "patience", "projects",
    }
)  # fmt: skip

Checked = TypeVar("Checked")


class Invalid(Exception):
    """The input breaks rules; one user error for each."""

    def __init__(self, errors: list[UserError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


def _of_the_program(metric: str) -> str:
    if not metric.strip() or not metric.isprintable():  # as `policy.stopping` asks of rules
        raise ValueError("must have printable characters only, and not be blank")
    if is_system(metric):
        raise ValueError("must be a metric of the program: system/... measures its machine")
    return metric


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


def _one_line(text: str) -> str:
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text):
        raise ValueError("must not contain control characters")
    if found := TURNING.search(text):
        raise ValueError(f"must not contain U+{ord(found[0]):04X}, which changes the direction of the text around it")
    return _no_nul(text)


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """JSON as Postgres can keep it and an answer can hold it: of bounded size and depth, without NUL."""
    if _has_more(value, MAX_JSON_BYTES // 2):  # each takes two bytes and more
        raise ValueError(f"has more values than fit into {MAX_JSON_BYTES} bytes as JSON")
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise ValueError(f"has more than {MAX_JSON_DEPTH} levels")
    try:
        json.dumps(value, allow_nan=False)  # orjson would write null for what a number like 1e999 is read as
    except ValueError:
        raise ValueError("has a number that is too large for JSON, or is none") from None
    try:
        encoded = orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError) as error:
        number = _beyond_64_bits(value)
        if number is None:
            raise ValueError(f"can't be stored as JSON: {error}") from None
        raise ValueError(f'has {number}, a whole number beyond 64 bits: send it as text, "{number}"') from None
    if len(encoded) > MAX_JSON_BYTES:
        raise ValueError(f"has {len(encoded)} bytes as JSON: at most {MAX_JSON_BYTES}")
    if b"\\u0000" in encoded:
        raise ValueError("must not contain NUL characters")
    return value


def _beyond_64_bits(value: object) -> str | None:
    """The first whole number that orjson can't write, shortened; None if there is none."""
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, dict | list | tuple):
            waiting.extend(reversed(list(inside.values() if isinstance(inside, dict) else inside)))
        elif isinstance(inside, int) and not -(2**63) <= inside < 2**64:
            digits = str(inside)
            return digits if len(digits) <= LONGEST_SHOWN else f"{digits[:20]}…"
    return None


def _has_more(value: object, most: int) -> bool:
    """True if objects and lists hold more than so many values in total; stops counting there."""
    found, waiting = 0, [value]
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, dict | list):
            found += len(inside)
            if found > most:
                return True
            waiting.extend(inside.values() if isinstance(inside, dict) else inside)
    return False


def _is_deeper(value: object, levels: int) -> bool:
    """True if objects and lists are nested deeper than that."""
    below = [value]
    for _ in range(levels):
        nested = (each for each in below if isinstance(each, dict | list))
        below = [inner for each in nested for inner in (each.values() if isinstance(each, dict) else each)]
        if not below:
            return False
    return any(isinstance(each, dict | list) for each in below)


def _at_most(items: int) -> BeforeValidator:
    """Count first: Pydantic judges all items of a list, and counts only those that are good."""

    def counted(given: object) -> object:
        if isinstance(given, list | tuple | dict) and len(given) > items:
            raise ValueError(f"has at most {items:,} items, and this has {len(given):,}")
        return given

    return BeforeValidator(counted)


def _command(entrypoint: tuple[str, ...]) -> tuple[str, ...]:
    if not entrypoint[0].strip():
        raise ValueError("the first word is the program to run, and is empty")
    size = sum(len(word.encode()) for word in entrypoint)
    if size > MAX_COMMAND_BYTES:
        raise ValueError(f"has {size:,} bytes: at most {MAX_COMMAND_BYTES:,}; put a long program into a file")
    return entrypoint


def _in_a_year(at: datetime) -> datetime:
    """A time without an offset is UTC."""
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC) + timedelta(days=366):
        raise ValueError("is more than a year ahead")
    return at


def _retryable(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    for reason in reasons:
        if reason not in RETRYABLE:
            raise ValueError(f"{reason} can't be retried: only {', '.join(RETRYABLE)}")
    return reasons


def _named_once(metrics: tuple[MetricAsked, ...]) -> tuple[MetricAsked, ...]:
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is named more than once")
    return metrics


def _pattern(written: str) -> str:
    """A regular expression with a named group. How long it may take for a line is the supervisor's matter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            groups = re.compile(written).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{written[:60]!r} is no regular expression: {error}") from None
    if not groups:
        raise ValueError(f"{written[:60]!r} has no named group, as loss=(?P<loss>\\S+) has")
    for name in groups:
        if len(name) > MAX_METRIC_NAME:
            raise ValueError(f"the name of a group is a metric's, with at most {MAX_METRIC_NAME} characters")
    return written


def _of_attended(grace: timedelta, checked: ValidationInfo) -> timedelta:
    if not checked.data.get("attended"):
        raise ValueError("means something only with attended: true")
    return grace


def _in(*path: str) -> Any:
    """The path of a value in the input, by its GraphQL names."""
    first, *rest = path
    return Field(validation_alias=AliasPath(first, *rest))


def _read_as(kind: Any, convert: Callable[[Any], object]) -> GetPydanticSchema:
    """Judge a value as `kind` and keep what it is converted to."""
    return GetPydanticSchema(
        lambda _kept, handler: no_info_after_validator_function(convert, handler.generate_schema(kind))
    )


def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


def _seconds_if_any(number: int | None) -> timedelta | None:
    return _seconds(number) if number is not None else None


def _values(reasons: tuple[Reason, ...]) -> tuple[str, ...]:
    return tuple(reason.value for reason in reasons)


def _modes(metrics: tuple[MetricAsked, ...]) -> dict[str, str]:
    return {metric.name: metric.mode.value for metric in metrics}


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_one_line)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
Argument = Annotated[str, StringConstraints(max_length=MAX_COMMAND_BYTES), AfterValidator(_no_nul)]
Command = Annotated[tuple[Argument, ...], _at_most(1_000), Field(min_length=1), AfterValidator(_command)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_no_nul)]
Pattern = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_PATTERN), AfterValidator(_one_line), AfterValidator(_pattern)
]
Json = Annotated[dict[str, Any], AfterValidator(_storable)]
Parameters = Annotated[Json, AfterValidator(check_parameters)]
Labels = Annotated[dict[Word, Word], _at_most(100)]
Variables = Annotated[  # more of them have no room in MAX_JSON_BYTES
    dict[Annotated[str, AfterValidator(check_name)], Argument], _at_most(10_000), AfterValidator(_storable)
]
Price = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=6, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MetricName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_METRIC_NAME), AfterValidator(_no_nul)]
JudgedMetric = Annotated[MetricName, AfterValidator(_of_the_program)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MAX_STEP)]
Tags = Annotated[tuple[Word, ...], _at_most(MOST_TAGS)]
Runtime = Annotated[  # a year
    timedelta | None, _read_as(Annotated[int, Field(ge=1, le=31_622_400)] | None, _seconds_if_any)
]
Retries = Annotated[int, Field(ge=0, le=1_000)]
RetryOn = Annotated[
    tuple[str, ...],
    _read_as(Annotated[tuple[Reason, ...], _at_most(10), AfterValidator(_retryable)], _values),
]
Cost = Annotated[Decimal, Field(gt=0, max_digits=18, decimal_places=6, allow_inf_nan=False)] | None
Steps = Annotated[int, Field(ge=1, le=MAX_STEP)] | None
Mode = Annotated[str, _read_as(MetricMode, str)]
SmallInt = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class MetricAsked(Model):
    name: MetricName
    mode: MetricMode


class RuleAsked(Model):
    """A stop rule as asked for: ranges of single values. `graph.types.stop_rules.resolved` judges them together."""

    metric: JudgedMetric | None = None
    mode: MetricMode | None = None
    min_delta: Annotated[Number, Field(ge=0)] = 0.0
    patience: Count | None = None
    grace_period: Count = 0
    stopping_threshold: Number | None = None
    divergence_threshold: Number | None = None
    check_finite: bool | None = None
    smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    plateau: bool = True
    rising: bool = True
    aggressive: bool = False
    dry_run: bool = False


class AfterAsked(Model):
    simulation: str | None = None
    client_key: Word | None = None
    index: Annotated[int, Field(ge=0, lt=MOST_AT_ONCE)] | None = None
    condition: DependencyCondition = DependencyCondition.SUCCESS

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if [self.simulation, self.client_key, self.index].count(None) != 2:
            raise ValueError("has exactly one of simulation, clientKey and index")
        return self


def _some_text(notes: str | None) -> str | None:
    return notes or None


class PackageAsked(Model):
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    name: Name | None = None
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{7,64}$")] | None = None
    dirty: bool | None = None

    @property
    def source(self) -> dict[str, Any]:
        """What is said of it beside its content."""
        return self.model_dump(include={"name", "commit", "dirty"}, exclude_none=True)


RuntimeEnv = Annotated[dict[str, Any], AfterValidator(_storable), AfterValidator(check_runtime_env)]
After = Annotated[tuple[AfterAsked, ...], _at_most(MOST_DEPENDENCIES)]
Notes = Annotated[
    Annotated[str, StringConstraints(max_length=MAX_NOTES), AfterValidator(_no_nul)] | None, AfterValidator(_some_text)
]
StopRules = Annotated[tuple[RuleAsked, ...], _at_most(MOST_RULES)]


class SimulationAsked(TypedDict, total=False):
    """The rules of a simulation's input, by the names of `db.simulations.Wanted`, which has the defaults.

    What was left out is not there. `project` and `machine` are looked up first, `client_key` goes beside.
    """

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as Pydantic's documentation has it

    name: Name
    entrypoint: Required[Command]
    project: Name
    parameters: Parameters
    environment: Variables
    working_directory: PathText
    package: PackageAsked
    runtime_env: RuntimeEnv
    tags: Tags
    notes: Notes
    after: After
    cpus: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False), _in("resources", "cpus")]
    memory_gib: Annotated[Finite, Field(le=10_000_000), _in("resources", "memoryGib")]
    gpus: Annotated[int, Field(ge=0, le=10_000), _in("resources", "gpus")]
    gpu_model: Annotated[Word | None, _in("resources", "gpuModel")]
    labels: Annotated[Labels, _in("resources", "labels")]
    machine: Annotated[str, _in("resources", "machine")]
    max_price_per_hour: Annotated[Price, _in("resources", "maxPricePerHour")]
    machines: Annotated[int, Field(ge=1, le=MOST_MACHINES)]
    priority: SmallInt
    max_runtime: Annotated[Runtime, _in("limits", "maxRuntimeSeconds")]
    max_cost: Annotated[Cost, _in("limits", "maxCost")]
    max_steps: Annotated[Steps, _in("limits", "maxSteps")]
    max_retries: Annotated[Retries, _in("limits", "maxRetries")]
    retry_on: Annotated[RetryOn, _in("limits", "retryOn")]
    objective_metric: Annotated[JudgedMetric, _in("objective", "metric")]
    objective_mode: Annotated[Mode, _in("objective", "mode")]
    stopping: StopRules
    metric_modes: Annotated[
        dict[str, str],
        _read_as(Annotated[tuple[MetricAsked, ...], _at_most(100), AfterValidator(_named_once)], _modes),
        _in("metrics"),
    ]
    metrics_from: MetricsFrom
    metrics_patterns: Annotated[tuple[Pattern, ...], _at_most(20)]
    tensorboard: Annotated[tuple[PathText, ...], _at_most(20)]
    system_metrics_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None
    attended: bool
    attended_grace: Annotated[
        timedelta,
        _read_as(Annotated[int, Field(ge=1, le=int(LONGEST_GRACE.total_seconds()))], _seconds),
        AfterValidator(_of_attended),
        _in("attendedGraceSeconds"),
    ]
    preemptible: bool
    alerts: Annotated[tuple[Word, ...], _at_most(20)]
    client_key: Word


class SimulationsAsked(TypedDict, total=False):
    """The rules of many simulations at once."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    simulations: Required[Annotated[tuple[SimulationAsked, ...], _at_most(MOST_AT_ONCE), Field(min_length=1)]]
    client_key: Word


class ParametersAsked(TypedDict):
    """The rules of parameters alone."""

    parameters: Parameters


class SimulationForked(TypedDict, total=False):
    """The rules of what is different in a repetition, by the names of `db.simulations.Wanted`."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    name: Name
    entrypoint: Command
    parameters: Json
    tags: Tags
    notes: Notes
    priority: SmallInt
    from_checkpoint: bool
    package: PackageAsked
    runtime_env: RuntimeEnv


class SimulationChanged(TypedDict, total=False):
    """The rules of a change of a simulation, by the names of its columns. What was left out stays as it is."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    name: Name
    tags: Tags
    add_tags: Tags  # no columns: they change the tags that there are
    remove_tags: Tags
    notes: Notes
    priority: SmallInt
    preemptible: bool
    max_runtime: Annotated[Runtime, _in("limits", "maxRuntimeSeconds")]
    max_cost: Annotated[Cost, _in("limits", "maxCost")]
    max_steps: Annotated[Steps, _in("limits", "maxSteps")]
    max_retries: Annotated[Retries, _in("limits", "maxRetries")]
    retry_on: Annotated[RetryOn, _in("limits", "retryOn")]
    objective_metric: Annotated[JudgedMetric, _in("objective", "metric")]
    objective_mode: Annotated[Mode, _in("objective", "mode")]
    stopping: StopRules


def _scalar(choice: object) -> object:
    if not isinstance(choice, str | int | float):
        raise ValueError("must be a text, a number or a boolean")
    if isinstance(choice, str):
        if len(choice) > 4096:
            raise ValueError("has at most 4,096 characters")
        _no_nul(choice)
    return choice


class SweepParameterAsked(TypedDict, total=False):
    """The rules of a searched parameter, by the names of `policy.search_space.Parameter`, which has the defaults."""

    name: Required[Word]
    choices: Annotated[tuple[Annotated[Any, BeforeValidator(_scalar)], ...], _at_most(MOST_CHOICES)]
    low: Number
    high: Number
    step: Number
    log: bool
    integer: bool


def _short(parameters: tuple[SweepParameterAsked, ...]) -> tuple[SweepParameterAsked, ...]:
    _storable({"parameters": parameters})
    return parameters


TrialCount = Annotated[int, Field(ge=1, le=MOST_TRIALS)]
Parallel = Annotated[int, Field(ge=1, le=1_000)]


class SweepAsked(TypedDict, total=False):
    """The rules of a sweep's input. `graph.types.sweep_inputs.sweep_asked` judges its values together."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    simulation: Required[SimulationAsked]
    parameters: Required[Annotated[tuple[SweepParameterAsked, ...], _at_most(MOST_PARAMETERS), AfterValidator(_short)]]
    objective_metric: Required[Annotated[JudgedMetric, _in("objective", "metric")]]
    objective_mode: Annotated[Mode, _in("objective", "mode")]
    name: Name
    sampler: Sampler
    trials: TrialCount
    parallel: Parallel
    seeds: Annotated[int, Field(ge=1, le=100)]
    seed: Annotated[int, Field(ge=0)]
    max_cost: Cost
    patience: TrialCount | None
    stopping_threshold: Number
    pruning_rule: Annotated[Any, _in("pruning", "rule")]
    grace_period: Annotated[int, Field(ge=1, le=MAX_STEP), _in("pruning", "gracePeriod")]
    reduction_factor: Annotated[int, Field(ge=2, le=100), _in("pruning", "reductionFactor")]
    client_key: Word


class SweepChanged(TypedDict, total=False):
    """The rules of a change of a sweep, by the names of its columns. What was left out stays as it is."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    id: Required[str]
    trials: TrialCount
    parallel: Parallel
    max_cost: Cost
    patience: TrialCount | None


class MachineAsked(Model):
    name: Name
    host: Word | None = None
    cpus: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
    memory_gib: Annotated[Finite, Field(le=10_000_000)]
    gpus: Annotated[int, Field(ge=0, le=10_000)] = 0
    gpu_model: Word | None = None
    labels: Labels = {}
    price_per_hour: Price = Decimal(0)


class MachineChanged(Model):
    name: Name | None = None
    cpus: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    memory_gib: Annotated[Finite, Field(le=10_000_000)] | None = None
    gpus: Annotated[int, Field(ge=0, le=10_000)] | None = None
    gpu_model: Word | None = None
    labels: Labels | None = None
    price_per_hour: Price | None = None


class ProjectChanged(Model):
    weight: Annotated[Decimal, Field(gt=0, le=1_000_000, max_digits=18, decimal_places=6, allow_inf_nan=False)] = (
        Decimal(1)
    )
    gpu_quota: Annotated[int, Field(ge=0, le=1_000_000)] | None = None


class DrainAsked(Model):
    deadline: Annotated[datetime, AfterValidator(_in_a_year)] | None = None


class TokenAsked(Model):
    name: Name
    role: Role
    projects: Annotated[tuple[str, ...], _at_most(1_000), Field(min_length=1)] | None = None
    expires_in_seconds: Annotated[int, Field(ge=1)] | None = None  # as GraphQL's Int goes: 68 years


class BudgetAsked(Model):
    amount: Price
    period: Period
    project: str | None = None


class BudgetChanged(Model):
    id: str
    amount: Price


def _not_none(name: str) -> str:
    if name.lower() == "none":
        raise ValueError("is the word for no target: choose another name")
    return name


TargetName = Annotated[Name, AfterValidator(_not_none)]
TargetUrl = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_one_line)]
TargetKinds = Annotated[tuple[AlertKind, ...], _at_most(20), Field(min_length=1)] | None  # None: all
TargetProjects = Annotated[tuple[str, ...], _at_most(1_000), Field(min_length=1)] | None  # None: all


class AlertTargetAsked(Model):
    name: TargetName
    transport: Transport
    url: TargetUrl
    kinds: TargetKinds = None
    projects: TargetProjects = None
    is_default: bool = False


class AlertTargetChanged(TypedDict, total=False):
    """The rules of a change of an alert target. What was left out stays as it is."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    id: Required[str]
    name: TargetName
    url: TargetUrl
    kinds: TargetKinds
    projects: TargetProjects
    is_default: bool


def _operand(value: object) -> Decimal | str:
    """A value that parameters are compared with: numbers exactly, words and booleans as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        if not abs(value) < 10**400:  # neither is NaN
            raise ValueError("must be a finite number of at most 400 digits")
        return Decimal(str(value))
    if not isinstance(value, str):
        raise ValueError("must be a number, a text or a boolean")
    if len(value) > 400:
        raise ValueError("has at most 400 characters")
    return _no_nul(value)


def _like(glob: str) -> str:
    r"""A glob with `*` and `?` as a pattern of LIKE."""
    return "".join({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}.get(each, each) for each in glob)


def _in_utc(at: datetime) -> datetime:
    """A time without an offset is UTC."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999") from None


class ConditionAsked(Model):
    name: Word
    comparison: Comparison = Comparison.EQ
    value: Annotated[Decimal | str, BeforeValidator(_operand)]


class FilterAsked(TypedDict, total=False):
    """The rules of a filter of simulations, by the names of `db.listing.Filter`."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # type: ignore[misc]  # as above

    text: Word
    name_like: Annotated[Word, AfterValidator(_like), _in("name")]
    tags: Annotated[tuple[Word, ...], _at_most(MOST_CONDITIONS)]
    any_tags: Annotated[tuple[Word, ...], _at_most(MOST_CONDITIONS)]
    created_by: Word
    created_from: Annotated[datetime, AfterValidator(_in_utc)]
    created_to: Annotated[datetime, AfterValidator(_in_utc)]
    sweep: str
    parameters: Annotated[tuple[ConditionAsked, ...], _at_most(MOST_CONDITIONS)]


_JUDGES: dict[type, TypeAdapter[Any]] = {}  # made once for each of the few rules above


def check(rules: type[Checked], given: object) -> Checked:
    """Judge a Strawberry input. Raises `Invalid` with what is wrong: not with the first alone, nor without end."""
    judge: TypeAdapter[Checked] = _JUDGES.get(rules) or _JUDGES.setdefault(rules, TypeAdapter(rules))
    try:
        return judge.validate_python(_plain(given))
    except ValidationError as error:
        problems = error.errors()
        # A list that lost its bad items is called too short as well: that is no mistake of its own.
        bad_items = {problem["loc"][:-1] for problem in problems}
        raise Invalid(
            [
                _user_error(problem["loc"], problem["msg"])
                for problem in problems
                if problem["type"] != "too_short" or problem["loc"] not in bad_items
            ][:MOST_FINDINGS]
        ) from None


def _plain(given: object) -> object:
    """An input as a mapping, by the names that clients know.

    What was left out stays out, so that a default has one place: the rules here, or `Wanted`. So does null, which is
    what typed clients send for it, except where it has a meaning of its own.
    """
    if has_object_definition(given):  # not every definition: the members of an enum have one too
        fields: Mapping[str, object] = vars(given)
        return {
            to_camel(name): _plain(value)
            for name, value in fields.items()
            if value is not strawberry.UNSET and (value is not None or name in CLEARABLE)
        }
    if isinstance(given, list):
        return [_plain(each) for each in given]
    return given


def _user_error(location: tuple[int | str, ...], message: str) -> UserError:
    sentence = message.removeprefix("Value error, ").replace("dictionary", "JSON object")
    path = [str(part) for part in location if part != "[key]"]
    return UserError(code=UserErrorCode.INVALID, message=f"{'.'.join(path[:4])[:120]}: {sentence}", field=path[:8])
