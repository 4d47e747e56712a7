"""Tables, without behaviour: functions are in the modules named after the tables; only `lifecycle` writes `state`.

Conventions: `*_at` is timestamptz in UTC, durations are intervals, money is numeric, ids are bigint inside (Relay
ids are made in `graph`). Relationships are not mapped: each statement selects what its caller needs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.states import FileKind, LogStream, MetricsFrom, Reason, Role, SimulationState

Money = Numeric(18, 6)
Timestamp = DateTime(timezone=True)


def _enum(
    kind: type[SimulationState] | type[Reason] | type[LogStream] | type[Role] | type[MetricsFrom] | type[FileKind],
    *,
    checked: bool = False,
) -> Enum:
    """Text with Python's enum on this side. Only closed sets, as states and roles, have a CHECK: reasons grow."""
    return Enum(kind, native_enum=False, length=40, create_constraint=checked, name=kind.__name__.lower())


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
        float: Float(53),
        Decimal: Money,
        datetime: Timestamp,
        timedelta: Interval,
        dict[str, Any]: JSONB(none_as_null=True),  # else None would be stored as the JSON value null
        dict[str, str]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(BigInteger),
        list[float]: ARRAY(Float(53)),
    }


def _id() -> Mapped[int]:
    return mapped_column(BigInteger, Identity(always=True), primary_key=True)


def _unread(*kind: Any, **given: Any) -> Mapped[Any]:
    """A column that an older version of the service reads; here reading it raises."""
    return mapped_column(*kind, deferred=True, deferred_raiseload=True, **given)


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


THIS_TRANSACTION = text("((pg_current_xact_id())::text)::bigint")

# All columns that a placement depends on, as one value: the planner treats simulations with equal values alike. The
# project is a part of it, so that no other project's simulations could be made to share it.
_QUEUE_CLASS = (
    "md5(project_id::text || ' ' || cpus::text || ' ' || memory_gib::text || ' ' || gpus::text || ' ' || "
    "quote_nullable(gpu_model) || ' ' || labels::text || ' ' || coalesce(machine_id::text, '') || ' ' || "
    "quote_nullable(machine_name) || ' ' || coalesce(max_price_per_hour::text, '') || "
    "CASE WHEN machines > 1 THEN ' machines ' || machines::text ELSE '' END)::uuid"
)


# What runs that are likely to take equally long have in common: the planner learns from those that have ended.
_LEARNING_CLASS = "hash_array_extended(array_append(entrypoint, name), project_id)"
_PLANNED = text("state = 'QUEUED' AND NOT held")
_LEFT = text("state = 'CANCELLED' OR (state = 'QUEUED' AND held)")

# What the index on the text of simulations is made of: also written in migrations 0019 and 0024.
for _function in (
    """
    CREATE OR REPLACE FUNCTION simulation_text(name text, entrypoint text[], notes text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT lower(
            left(name || ' ' || array_to_string(entrypoint, ' '), 1000) || ' ' || left(coalesce(notes, ''), 2000)
        )
    $$
    """,
    """
    CREATE OR REPLACE FUNCTION trigrams(given text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT coalesce(array_agg(DISTINCT substr(given, place, 3)), '{}')
        FROM generate_series(1, length(given) - 2) AS place
    $$
    """,
):
    event.listen(Base.metadata, "before_create", DDL(_function))  # type: ignore[no-untyped-call]  # as SQLAlchemy has it


class Project(Base):
    """A group of simulations. `default` always exists."""

    __tablename__ = "projects"

    id: Mapped[int] = _id()
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()
    weight: Mapped[Decimal] = mapped_column(server_default=text("1"))  # of its fair share
    gpu_quota: Mapped[int | None] = mapped_column(Integer)  # GPUs at once; null: as many as there are

    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("gpu_quota >= 0", name="gpu_quota"),
    )


class Simulation(Base):
    """A requested simulation. `attempt` is the fence: the number of the newest attempt, 0 before the first."""

    __tablename__ = "simulations"

    id: Mapped[int] = _id()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    state: Mapped[SimulationState] = mapped_column(
        _enum(SimulationState, checked=True), server_default=SimulationState.QUEUED.value
    )
    reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    reason_detail: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))

    entrypoint: Mapped[list[str]]
    entrypoint_template: Mapped[list[str] | None]  # before parameters were filled in; null: none were
    parameters: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    recorded_parameters: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  # by its program
    environment: Mapped[dict[str, str]] = mapped_column(server_default=text("'{}'::jsonb"))
    working_directory: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'::text[]"))
    notes: Mapped[str | None]

    cpus: Mapped[float] = mapped_column(server_default=text("1"))
    memory_gib: Mapped[float] = mapped_column(server_default=text("0"))
    gpus: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    gpu_model: Mapped[str | None]
    labels: Mapped[dict[str, str]] = mapped_column(server_default=text("'{}'::jsonb"))
    machine_id: Mapped[int | None] = mapped_column(ForeignKey("machines.id", ondelete="SET NULL"))  # the only one
    machine_name: Mapped[str | None]  # its name, kept when the machine is deleted
    max_price_per_hour: Mapped[Decimal | None]
    machines: Mapped[int] = mapped_column(Integer, server_default=text("1"))  # how many members an attempt has
    queue_class: Mapped[UUID] = mapped_column(Uuid, Computed(_QUEUE_CLASS, persisted=True))
    learning_class: Mapped[int] = mapped_column(Computed(_LEARNING_CLASS, persisted=True))
    priority: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    dependencies_left: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # of `Dependency`, not met yet
    # Queued, and no candidate for a machine: the indexes of the queue are without it.
    held: Mapped[bool] = mapped_column(Computed("paused OR dependencies_left > 0", persisted=True))

    max_runtime: Mapped[timedelta | None]
    max_cost: Mapped[Decimal | None]  # of all attempts together, in the installation's currency
    max_steps: Mapped[int | None]  # a declaration: rules and forecasts use it, nothing enforces it
    max_retries: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    retry_on: Mapped[list[str]] = mapped_column(server_default=text("'{}'::text[]"))
    metric_modes: Mapped[dict[str, str]] = mapped_column(server_default=text("'{}'::jsonb"))  # MetricMode by metric
    metrics_from: Mapped[MetricsFrom] = mapped_column(_enum(MetricsFrom), server_default=text("'AUTO'"))
    metrics_patterns: Mapped[list[str]] = mapped_column(server_default=text("'{}'::text[]"))  # regular expressions
    objective_metric: Mapped[str | None]  # None: not declared
    objective_mode: Mapped[str | None]  # MetricMode; None: by the metric's name
    stopping: Mapped[dict[str, Any] | None]  # policy.rule_documents
    stopping_revision: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # counts changes of the above
    would_stop: Mapped[dict[str, Any] | None]  # evidence of each dry-run rule that came true, by its place in the list
    system_metrics_seconds: Mapped[float | None]  # interval; 0: none; None: as the installation
    tensorboard: Mapped[list[str]] = mapped_column(server_default=text("'{}'::text[]"))  # directories
    attended: Mapped[bool] = mapped_column(server_default=text("false"))  # runs only while it is watched
    attended_grace: Mapped[timedelta] = mapped_column(server_default=text("'00:01:00'::interval"))  # and so much longer
    preemptible: Mapped[bool] = mapped_column(server_default=text("false"))  # may be stopped for another one

    alert_target_ids: Mapped[list[int] | None]  # whom its alerts go to; null: the defaults of its project

    created_by: Mapped[str]
    client_key: Mapped[str | None]
    client_digest: Mapped[bytes | None]  # of what was asked for under that key
    retry_of: Mapped[int | None] = mapped_column(ForeignKey("simulations.id", ondelete="SET NULL"))
    from_checkpoint: Mapped[bool] = mapped_column(server_default=text("false"))  # begins with a copy of that one's
    sweep_id: Mapped[int | None] = mapped_column(ForeignKey("sweeps.id"))
    trial: Mapped[int | None] = mapped_column(Integer)  # its number in the sweep; with several seeds, of several

    created_at: Mapped[datetime] = _now()
    queued_at: Mapped[datetime] = _now()  # of the newest queueing; a retry waits until then
    # The transaction of the newest queueing, or of the pause or cancellation that ended it: what has arrived or left
    # since a snapshot is found by it, however late it commits.
    queued_xid: Mapped[int] = mapped_column(server_default=THIS_TRANSACTION)
    started_at: Mapped[datetime | None]  # the first hello
    finished_at: Mapped[datetime | None]
    final_cost: Mapped[Decimal | None]  # of all attempts, once it has ended

    # Progress as of the newest queueing: what a preempted run has behind it. One that failed or was lost begins anew.
    attained: Mapped[timedelta] = mapped_column(server_default=text("'00:00:00'::interval"))  # useful run time
    steps_done: Mapped[int | None]  # the highest step of its objective, else of any metric of its own
    step_rate: Mapped[float | None]  # steps per second

    # Unread since 0007, where a waiting reason went to the class; they go in the next release.
    waiting: Mapped[str | None] = _unread(String(40))
    waiting_detail: Mapped[str | None] = _unread()
    # Never written: sweeps and dependencies group simulations. Kept as a migration only adds; goes in the next release.
    group_id: Mapped[int | None] = _unread()
    # Unread since 0008, where the intent went to the attempt; they go in the next release.
    stop_wanted_at: Mapped[datetime | None] = _unread()
    stop_wanted_by: Mapped[str | None] = _unread()
    stop_reason: Mapped[Reason | None] = _unread(_enum(Reason))

    __table_args__ = (
        UniqueConstraint("project_id", "client_key"),
        Index(
            "ix_simulations_queue",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=_PLANNED,
        ),
        # The first of each class of equal requirements; those that need a watcher are found by their watchers.
        Index(
            "ix_simulations_queue_class",
            "queue_class",
            "attended",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=_PLANNED,
        ),
        # Whether anything has arrived in the queue, or has come to the end of its backoff.
        Index("ix_simulations_queued_xid", "queued_xid", postgresql_where=_PLANNED),
        Index("ix_simulations_queued_at", "queued_at", postgresql_where=_PLANNED),
        # Whether anything has left the queue without a machine.
        Index("ix_simulations_left_xid", "queued_xid", postgresql_where=_LEFT),
        Index("ix_simulations_active", "id", postgresql_where=text("state IN ('QUEUED', 'STARTING', 'RUNNING')")),
        # What the planner looks through at each tick, for unwatched ones.
        Index("ix_simulations_attended", "id", postgresql_where=text("attended AND state IN ('STARTING', 'RUNNING')")),
        # What the judge and the planner look through, however much runs without rules and limits.
        Index("ix_simulations_judged", "id", postgresql_where=text("stopping IS NOT NULL AND state = 'RUNNING'")),
        Index(
            "ix_simulations_max_cost",
            "id",
            postgresql_where=text("max_cost IS NOT NULL AND state IN ('STARTING', 'RUNNING')"),
        ),
        Index("ix_simulations_project_id_id", "project_id", "id"),
        Index("ix_simulations_state_id", "state", "id"),
        Index("ix_simulations_name_id", "name", "id"),
        # What lists are sorted and filtered by, besides `results` and `parameter_values`.
        *(
            Index(f"ix_simulations_{column}_id", column, "id", postgresql_where=text(f"{column} IS NOT NULL"))
            for column in ("final_cost", "started_at", "finished_at")
        ),
        Index("ix_simulations_created_at", "created_at"),
        Index("ix_simulations_created_by_id", "created_by", "id"),
        Index("ix_simulations_tags", "tags", postgresql_using="gin"),
        Index("ix_simulations_name_prefix", "name", "id", postgresql_ops={"name": "text_pattern_ops"}),
        Index(
            "ix_simulations_text", text("trigrams(simulation_text(name, entrypoint, notes))"), postgresql_using="gin"
        ),
        # Whose metrics and costs still change.
        Index(
            "ix_simulations_begun",
            "id",
            postgresql_where=text("attempt > 0 AND state IN ('QUEUED', 'STARTING', 'RUNNING')"),
        ),
        # What a deletion looks through, to set it to null.
        Index("ix_simulations_retry_of", "retry_of", postgresql_where=text("retry_of IS NOT NULL")),
        Index("ix_simulations_machine_id", "machine_id", postgresql_where=text("machine_id IS NOT NULL")),
        Index("ix_simulations_sweep_id", "sweep_id", "trial", "id", postgresql_where=text("sweep_id IS NOT NULL")),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("dependencies_left >= 0", name="dependencies_left"),
    )


class Dependency(Base):
    """A simulation that runs after another, which was created before it: its id is lower. Deleted with either."""

    __tablename__ = "dependencies"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    after_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    condition: Mapped[str] = mapped_column(String(10))  # policy.dependencies.DependencyCondition

    __table_args__ = (
        Index("ix_dependencies_after_id", "after_id", "simulation_id"),
        CheckConstraint("after_id < simulation_id", name="order"),
    )


class Sweep(Base):
    """A search for the best parameters: trials are simulations made of `template`, at most `parallel` at once.

    Active until `ended_at`: `reason` is set once no more trials begin, `ended_at` once all of them have ended.
    """

    __tablename__ = "sweeps"

    id: Mapped[int] = _id()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    template: Mapped[dict[str, Any]]  # db.simulations.Wanted, as JSON values
    space: Mapped[list[Any]] = mapped_column(JSONB)  # policy.search_space
    sampler: Mapped[str] = mapped_column(String(20))  # policy.search_space.Sampler
    seed: Mapped[int]
    objective_metric: Mapped[str]
    objective_mode: Mapped[str]  # MetricMode
    trials: Mapped[int] = mapped_column(Integer)  # how many there are to be
    parallel: Mapped[int] = mapped_column(Integer)
    seeds: Mapped[int] = mapped_column(Integer, server_default=text("1"))  # simulations of each trial
    max_cost: Mapped[Decimal | None]  # of all its trials together
    patience: Mapped[int | None] = mapped_column(Integer)
    target: Mapped[float | None]
    grace_period: Mapped[int | None]  # policy.sweep; null: no pruning. With reduction_factor halving, else the median
    reduction_factor: Mapped[int | None] = mapped_column(Integer)
    created_by: Mapped[str]
    client_key: Mapped[str | None]
    client_digest: Mapped[bytes | None]  # of what was asked for under that key
    created_at: Mapped[datetime] = _now()
    reason: Mapped[str | None] = mapped_column(String(40))  # policy.sweep_progress.SweepReason
    reason_detail: Mapped[str | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("project_id", "client_key"),
        Index("ix_sweeps_active", "id", postgresql_where=text("ended_at IS NULL")),  # what the scheduler looks through
        Index("ix_sweeps_project_id_id", "project_id", "id"),
        Index("ix_sweeps_name_id", "name", "id"),
        CheckConstraint("trials > 0 AND parallel > 0 AND seeds > 0", name="counts"),
    )


class Trial(Base):
    """A trial of a sweep: the parameters that its sampler chose, and how it ended. It outlives its simulations."""

    __tablename__ = "sweep_trials"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # from 0
    parameters: Mapped[dict[str, Any]]
    notes: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  # of the sampler
    begun_at: Mapped[datetime] = _now()
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(20))  # policy.sampling.Outcome
    value: Mapped[float | None]  # the mean of its simulations' best values
    spread: Mapped[float | None]  # their standard deviation
    step: Mapped[int | None]  # that a pruned one came to
    cost: Mapped[Decimal | None]

    __table_args__ = (Index("ix_sweep_trials_open", "sweep_id", "number", postgresql_where=text("outcome IS NULL")),)


class RungResult(Base):
    """The best value of a simulation of a sweep when it came to a rung. Rows with lower ids were there before it."""

    __tablename__ = "sweep_rungs"

    id: Mapped[int] = _id()
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    step: Mapped[int]
    simulation_id: Mapped[int]  # it may be deleted: its result stays
    value: Mapped[float]  # infinite without a finite value
    average: Mapped[float | None]  # of its values until then, for the median rule

    __table_args__ = (UniqueConstraint("sweep_id", "step", "simulation_id"),)


class QueueClass(Base):
    """Waiting reason of one class of equal requirements. Written by the planner, for classes in its memory."""

    __tablename__ = "queue_classes"

    queue_class: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    reason: Mapped[str] = mapped_column(String(40))  # policy.waiting.WaitingReason
    detail: Mapped[str]
    alerted_at: Mapped[datetime | None]  # of the newest alert that something of this class waits too long


class Plan(Base):
    """The newest plan, one row: the order of the queue, what is reserved, and sentences. All by `db.newest_plan`.

    One row instead of a column of each simulation: a change of the order would otherwise write the whole queue.
    """

    __tablename__ = "plans"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # 1
    at: Mapped[datetime] = _now()
    queue: Mapped[list[int]] = mapped_column(server_default=text("'{}'::bigint[]"))  # simulations, the first first
    rules: Mapped[str] = mapped_column(Text, server_default="")  # a letter for each place: why it is not the one before
    reservations: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    # Waiting reasons of single simulations, by id: those that wait for something else than their class does.
    own: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # The newest transaction that changed what a plan depends on beside the queue and the machines.
    asked_xid: Mapped[int | None]

    __table_args__ = (CheckConstraint("id = 1", name="one"),)


class Host(Base):
    """A host whose scheduler process launches local work; its id is kept in that host's data directory."""

    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    gpus: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    heartbeat_at: Mapped[datetime] = _now()
    created_at: Mapped[datetime] = _now()


class Machine(Base):
    """Something that runs attempts, with the resources and the price its owner or its engine declared."""

    __tablename__ = "machines"

    id: Mapped[int] = _id()
    name: Mapped[str] = mapped_column(unique=True)
    engine: Mapped[str]
    engine_key: Mapped[str]  # the engine's own id of it
    host: Mapped[str | None] = mapped_column(ForeignKey("hosts.id"))
    declared: Mapped[bool] = mapped_column(server_default=text("false"))  # made by createMachine
    cpus: Mapped[float]
    memory_gib: Mapped[float]
    gpus: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    gpu_model: Mapped[str | None]
    labels: Mapped[dict[str, str]] = mapped_column(server_default=text("'{}'::jsonb"))
    price_per_hour: Mapped[Decimal] = mapped_column(server_default=text("0"))
    draining: Mapped[bool] = mapped_column(server_default=text("false"))
    drain_deadline: Mapped[datetime | None]  # when what still runs there is stopped; null: never
    heartbeat_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        UniqueConstraint("engine", "engine_key"),
        Index("ix_machines_host", "host"),
    )


class Attempt(Base):
    """One execution: its `number` is the fence between attempts. Current while `ended_at IS NULL`."""

    __tablename__ = "attempts"

    id: Mapped[int] = _id()
    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)

    assigned_at: Mapped[datetime] = _now()
    greeted_at: Mapped[datetime | None]  # the first hello of a member that had to wait for others
    started_at: Mapped[datetime | None]  # the hello of the last member
    ended_at: Mapped[datetime | None]
    reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    reason_detail: Mapped[str | None]
    exit_code: Mapped[int | None] = mapped_column(Integer)
    signal: Mapped[int | None] = mapped_column(Integer)

    # An intent, not a state: since when it is to be stopped, by whom, why, and what that was judged by.
    stop_wanted_at: Mapped[datetime | None]
    stop_wanted_by: Mapped[str | None]
    stop_reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    stop_evidence: Mapped[dict[str, Any] | None]
    amended: Mapped[dict[str, Any] | None]  # what has changed of its order since its hello: transitions.amend

    # Unread since 0008, where they went to the members; they go in the next release.
    machine_id: Mapped[int | None] = _unread(ForeignKey("machines.id", ondelete="SET NULL"))
    machine_name: Mapped[str | None] = _unread()
    host: Mapped[str | None] = _unread()
    gpu_indices: Mapped[list[int]] = _unread(server_default=text("'{}'::bigint[]"))
    price_per_hour: Mapped[Decimal | None] = _unread()
    share: Mapped[Decimal | None] = _unread(Numeric(9, 8))
    currency: Mapped[str | None] = _unread(String(3))
    token_digest: Mapped[bytes | None] = _unread(unique=True)
    nonce: Mapped[str | None] = _unread()
    next_batch: Mapped[int] = _unread(server_default=text("1"))
    launched_at: Mapped[datetime | None] = _unread()
    heartbeat_at: Mapped[datetime] = _unread(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("simulation_id", "number"),
        # What the promise rests on: never two attempts of one simulation whose writes count.
        Index("uq_attempts_current", "simulation_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("ix_attempts_machine_id", "machine_id"),
        # What is counted for those who look how it is doing.
        Index("ix_attempts_lost", "id", postgresql_where=text("reason = 'MACHINE_LOST'")),
        Index("ix_attempts_open", "machine_id", "id", postgresql_where=text("ended_at IS NULL")),
        {"postgresql_with": {"fillfactor": 70}},
    )


class Member(Base):
    """One process of an attempt, on one machine. It reports while `ended_at IS NULL`: that is the fence of a report."""

    __tablename__ = "members"

    id: Mapped[int] = _id()
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"))
    rank: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # 0 leads: its points are the curve
    machine_id: Mapped[int | None] = mapped_column(ForeignKey("machines.id", ondelete="SET NULL"))
    machine_name: Mapped[str]
    host: Mapped[str | None]

    # The grant: what it holds of the machine, whatever becomes of the simulation's requirements.
    cpus: Mapped[float]
    memory_gib: Mapped[float]
    gpus: Mapped[int] = mapped_column(Integer)
    gpu_indices: Mapped[list[int]] = mapped_column(server_default=text("'{}'::bigint[]"))

    # What it is billed by, as it was at assignment.
    price_per_hour: Mapped[Decimal]
    share: Mapped[Decimal] = mapped_column(Numeric(9, 8))  # dominant share of the machine, 0..1
    currency: Mapped[str] = mapped_column(String(3))
    assigned_at: Mapped[datetime] = _now()

    token_digest: Mapped[bytes | None] = mapped_column(unique=True)  # SHA-256, minted anew at each launch
    nonce: Mapped[str | None]  # of the supervisor that said hello first
    address: Mapped[str | None]  # at which the other members' hosts reach it, from its hello
    port: Mapped[int | None] = mapped_column(Integer)  # free there: rank 0's is the meeting point
    next_batch: Mapped[int] = mapped_column(server_default=text("1"))
    launched_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime] = _now()
    saved_at: Mapped[datetime | None]  # when it last stored a part of its files
    exit_code: Mapped[int | None] = mapped_column(Integer)
    signal: Mapped[int | None] = mapped_column(Integer)
    checkpoint_at: Mapped[datetime | None]  # the newest file in its checkpoint directory
    ended_at: Mapped[datetime | None]  # its own end; at the latest the transaction that ends the attempt

    __table_args__ = (
        UniqueConstraint("attempt_id", "rank"),
        Index("ix_members_machine_id", "machine_id", postgresql_where=text("machine_id IS NOT NULL")),
        # What is current, in the order of attempts, and what is held on a machine: however much has ended.
        Index("ix_members_current", "attempt_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_members_held", "machine_id", postgresql_where=text("ended_at IS NULL")),
        # What was spent in a period, and since a budget was last counted.
        Index("ix_members_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
        # A report updates the row in place: room on the page keeps it a heap-only update.
        {"postgresql_with": {"fillfactor": 70}},
    )


class DeletedMember(Base):
    """What a member cost whose simulation was deleted: deleting gives no money back. Copied by the deletion."""

    __tablename__ = "deleted_members"

    id: Mapped[int] = _id()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    simulation_id: Mapped[int]
    simulation_name: Mapped[str]
    created_by: Mapped[str]
    tags: Mapped[list[str]]
    attempt: Mapped[int] = mapped_column(Integer)
    machine_name: Mapped[str]
    price_per_hour: Mapped[Decimal]
    share: Mapped[Decimal] = mapped_column(Numeric(9, 8))
    currency: Mapped[str] = mapped_column(String(3))
    assigned_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    is_wasted: Mapped[bool]
    saved: Mapped[Decimal]  # by the stop that ended it; of the member of rank 0

    __table_args__ = (
        Index("ix_deleted_members_ended_at", "ended_at"),
        Index("ix_deleted_members_project_id", "project_id"),
    )


class Budget(Base):
    """Amount that a project (null: the whole installation) may spend in each period of one kind.

    The second half is the state of the newest period that the judge has seen. The row's lock, the last in the order,
    makes starts that come together see each other.
    """

    __tablename__ = "budgets"

    id: Mapped[int] = _id()
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    period: Mapped[str] = mapped_column(String(10))  # policy.budget.Period
    amount: Mapped[Decimal]
    currency: Mapped[str] = mapped_column(String(3))
    created_at: Mapped[datetime] = _now()
    created_by: Mapped[str]

    period_begin: Mapped[datetime | None]  # of the period that the following columns are about
    counted: Mapped[Decimal] = mapped_column(server_default=text("0"))  # cost of members that ended before `counted_to`
    counted_to: Mapped[datetime | None]
    warned_percent: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    closed_at: Mapped[datetime | None]  # attempts were stopped for it: nothing else starts in this period

    __table_args__ = (
        UniqueConstraint("project_id", "period", postgresql_nulls_not_distinct=True),
        CheckConstraint("amount >= 0", name="amount"),
    )


class Watcher(Base):
    """Watch lease: a graph process has subscribers of an attended simulation until then, by Postgres' clock."""

    __tablename__ = "watchers"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    watcher: Mapped[str] = mapped_column(primary_key=True)  # a graph process, each start of it
    watched_until: Mapped[datetime]

    # Renewed every few seconds: room on the page keeps it a heap-only update.
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)


class Convergence(Base):
    """One metric of one batch, as columns. `convergence_points` is the view that unnests it for psql."""

    __tablename__ = "convergence"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    steps: Mapped[list[int]]
    values: Mapped[list[float]]
    elapsed: Mapped[list[float]]
    received_at: Mapped[datetime] = _now()


class Metric(Base):
    """Summary of one attempt's points of one metric. The extremes are of finite values; null where there is none."""

    __tablename__ = "metrics"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    first_step: Mapped[int]
    last_step: Mapped[int]
    last_value: Mapped[float]  # may be NaN or infinite
    min_step: Mapped[int | None]
    min_value: Mapped[float | None]
    max_step: Mapped[int | None]
    max_value: Mapped[float | None]

    # Each batch updates the row in place: room on the page keeps it a heap-only update.
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)


class Result(Base):
    """Summary of a metric of an ended simulation over all its attempts, to sort lists by; null: not finite.

    Written by the move to a final state. `metrics` has no index on values: each batch would have to write it.
    """

    __tablename__ = "results"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    last_value: Mapped[float | None]
    min_value: Mapped[float | None]
    max_value: Mapped[float | None]

    __table_args__ = tuple(
        Index(f"ix_results_{column}", "metric", column, "simulation_id", postgresql_where=text(f"{column} IS NOT NULL"))
        for column in ("last_value", "min_value", "max_value")
    )


class ParameterValue(Base):
    """A number or a word among a simulation's parameters, by its path (`optimizer.lr`). Written by triggers (0019)."""

    __tablename__ = "parameter_values"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[Decimal | None] = mapped_column(Numeric)
    word: Mapped[str | None]  # of a string or a boolean

    __table_args__ = tuple(
        Index(
            f"ix_parameter_values_{column}",
            "name",
            column,
            "simulation_id",
            postgresql_where=text(f"{column} IS NOT NULL"),
        )
        for column in ("number", "word")
    )


class LogChunk(Base):
    """A stretch of one stream's log, for each rank in the order of (attempt, batch, position)."""

    __tablename__ = "log_chunks"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True, server_default=text("0"))
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    stream: Mapped[LogStream] = mapped_column(_enum(LogStream))
    text: Mapped[str]
    received_at: Mapped[datetime] = _now()


class Notice(Base):
    """Output of one kind that was nearly points, or was dropped: how many times in a member, with an example."""

    __tablename__ = "notices"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True, server_default=text("0"))
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)  # an open set: the supervisor's
    count: Mapped[int]
    example: Mapped[str]
    advice: Mapped[str]


class StoredFiles(Base):
    """The newest list of a directory's files, of one rank: all of their pieces are stored."""

    __tablename__ = "stored_files"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[FileKind] = mapped_column(_enum(FileKind), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    stored_at: Mapped[datetime] = _now()
    size_bytes: Mapped[int]
    entries: Mapped[list[Any]] = mapped_column(JSONB)  # db.files.Entry


class StoredPiece(Base):
    """A part of a simulation's files, under its id in the store. Without a simulation it is to be removed there."""

    __tablename__ = "stored_pieces"

    id: Mapped[int] = _id()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    simulation_id: Mapped[int | None] = mapped_column(ForeignKey("simulations.id", ondelete="SET NULL"))
    digest: Mapped[bytes]  # SHA-256
    size_bytes: Mapped[int]
    created_at: Mapped[datetime] = _now()
    stored_at: Mapped[datetime | None]  # null: reserved, not there yet

    __table_args__ = (
        UniqueConstraint("simulation_id", "digest"),
        # What a project has stored, for its quota; what is to be removed, and what was never uploaded.
        Index("ix_stored_pieces_of_project", "project_id", postgresql_include=["size_bytes"],
              postgresql_where=text("simulation_id IS NOT NULL")),
        Index("ix_stored_pieces_unowned", "id", postgresql_where=text("simulation_id IS NULL")),
        Index("ix_stored_pieces_unstored", "created_at", postgresql_where=text("stored_at IS NULL")),
    )  # fmt: skip


class AttemptSource(Base):
    """What an attempt ran: git commit, command, host, Python and packages, recorded by its supervisor."""

    __tablename__ = "attempt_sources"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    source: Mapped[dict[str, Any]]  # at most 64 KiB; see `sources`


class Token(Base):
    """An API token. Its text was shown once and is stored nowhere: the token is found by its digest."""

    __tablename__ = "tokens"

    id: Mapped[int] = _id()
    name: Mapped[str]  # whom events name
    digest: Mapped[bytes] = mapped_column(unique=True)  # SHA-256 of 256 random bits: nothing to guess, so nothing slow
    role: Mapped[Role] = mapped_column(_enum(Role, checked=True))
    # Of which projects; null: of all. An array, so that finding a token reads one row; a project's id is never reused.
    project_ids: Mapped[list[int] | None]
    created_at: Mapped[datetime] = _now()
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute

    __table_args__ = (
        # Events name who did it: one name is one token, until it is revoked.
        Index("uq_tokens_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )


class Login(Base):
    """A browser login. Its cookie's value is stored nowhere: the login is found by its digest."""

    __tablename__ = "logins"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("tokens.id"))  # what it stands for: it ends with it
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_logins_token_id_created_at", "token_id", "created_at"),
        Index("ix_logins_expires_at", "expires_at"),
    )


class Event(Base):
    """One event: kind, object, time, actor and origin. No foreign key: the record outlives its object."""

    __tablename__ = "events"

    id: Mapped[int] = _id()
    at: Mapped[datetime] = _now()
    kind: Mapped[str]
    actor: Mapped[str]
    origin: Mapped[str | None]
    object_type: Mapped[str]
    object_id: Mapped[int | None]
    project_id: Mapped[int | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    # The outbox of alerts: until its deliveries are written. A mark, not a position: ids don't commit in their order.
    alert_pending: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        Index("ix_events_object_type_object_id_id", "object_type", "object_id", "id"),
        Index("ix_events_alert_pending", "id", postgresql_where=text("alert_pending")),
    )


class AlertTarget(Base):
    """A receiver of alerts. The URL and the signing secret are readable here: they are needed for each delivery."""

    __tablename__ = "alert_targets"

    id: Mapped[int] = _id()
    name: Mapped[str] = mapped_column(unique=True)
    transport: Mapped[str] = mapped_column(String(20))  # db.alert_targets.Transport
    url: Mapped[str]
    secret: Mapped[str | None]  # of a webhook: whsec_...
    kinds: Mapped[list[str]]  # policy.alerts.AlertKind
    project_ids: Mapped[list[int] | None]  # that may use it; null: all
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))  # of those projects' simulations and budgets
    created_at: Mapped[datetime] = _now()
    created_by: Mapped[str]
    delivered_at: Mapped[datetime | None]  # the newest
    failed_at: Mapped[datetime | None]  # likewise
    last_error: Mapped[str | None]  # of that failure; null after a delivery


class AlertDelivery(Base):
    """One message to one target: sent until it is accepted or given up, always with the same id and content."""

    __tablename__ = "alert_deliveries"

    id: Mapped[int] = _id()
    target_id: Mapped[int] = mapped_column(ForeignKey("alert_targets.id", ondelete="CASCADE"))
    event_id: Mapped[int | None]  # null: a test
    simulation_id: Mapped[int | None]  # no foreign key: it may be deleted before the message has arrived
    message_id: Mapped[UUID] = mapped_column(Uuid, server_default=text("gen_random_uuid()"))
    type: Mapped[str]
    payload: Mapped[str]  # JSON, as it is signed and sent
    title: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = _now()
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[datetime] = _now()  # not to be sent before; during an attempt, its lease
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    error: Mapped[str | None]  # of the newest attempt

    __table_args__ = (
        UniqueConstraint("target_id", "event_id"),
        Index("ix_alert_deliveries_target_id_id", "target_id", "id"),
        Index("ix_alert_deliveries_simulation_id", "simulation_id", postgresql_where=text("simulation_id IS NOT NULL")),
        Index(
            "ix_alert_deliveries_due",
            "target_id",
            "next_at",
            postgresql_where=text("delivered_at IS NULL AND given_up_at IS NULL"),
        ),
        Index("ix_alert_deliveries_created_at", "created_at"),
    )


class Coverage(Base):
    """Time since which a role beats without a gap, by Postgres' clock: a lease counts within it only."""

    __tablename__ = "coverage"

    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    covered_since: Mapped[datetime]
    beat_at: Mapped[datetime]
