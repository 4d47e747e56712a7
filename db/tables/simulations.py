"""Simulations, the indexes of their lists and of the queue, their numbers, and dependencies between them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.states import MetricsFrom, Reason, SimulationState
from db.tables.base import THIS_TRANSACTION, Base, enum_of, id_column, now_column, unread

# All columns that a placement depends on, as one value: the planner treats simulations with equal values alike. The
# project is a part of it, so that no other project's simulations could be made to share it.
# tests/db/test_queue.py fails if it lacks a field of `policy.matching.Requirements`.
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


class Simulation(Base):
    """A requested simulation. `attempt` is the fence: the number of the newest attempt, 0 before the first."""

    __tablename__ = "simulations"

    id: Mapped[int] = id_column()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    state: Mapped[SimulationState] = mapped_column(
        enum_of(SimulationState, checked=True), server_default=SimulationState.QUEUED.value
    )
    reason: Mapped[Reason | None] = mapped_column(enum_of(Reason))
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
    metrics_from: Mapped[MetricsFrom] = mapped_column(enum_of(MetricsFrom), server_default=text("'AUTO'"))
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
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id"))  # the code that it starts in
    package_source: Mapped[dict[str, Any] | None]  # what its user says of that: name, commit, dirty
    runtime_env: Mapped[dict[str, Any] | None]  # handed through to Ray

    created_by: Mapped[str]
    client_key: Mapped[str | None]
    client_digest: Mapped[bytes | None]  # of what was asked for under that key
    retry_of: Mapped[int | None] = mapped_column(ForeignKey("simulations.id", ondelete="SET NULL"))
    from_checkpoint: Mapped[bool] = mapped_column(server_default=text("false"))  # begins with a copy of that one's
    sweep_id: Mapped[int | None] = mapped_column(ForeignKey("sweeps.id"))
    trial: Mapped[int | None] = mapped_column(Integer)  # its number in the sweep; with several seeds, of several

    created_at: Mapped[datetime] = now_column()
    queued_at: Mapped[datetime] = now_column()  # of the newest queueing; a retry waits until then
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
    waiting: Mapped[str | None] = unread(String(40))
    waiting_detail: Mapped[str | None] = unread()
    # Never written: sweeps and dependencies group simulations. Kept as a migration only adds; goes in the next release.
    group_id: Mapped[int | None] = unread()
    # Unread since 0008, where the intent went to the attempt; they go in the next release.
    stop_wanted_at: Mapped[datetime | None] = unread()
    stop_wanted_by: Mapped[str | None] = unread()
    stop_reason: Mapped[Reason | None] = unread(enum_of(Reason))

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
        Index("ix_simulations_package_id", "package_id", postgresql_where=text("package_id IS NOT NULL")),
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
        # The direction of a metric whose name implies none.
        Index(
            "ix_simulations_objective", "objective_metric", "id", postgresql_where=text("objective_mode IS NOT NULL")
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


# Changes of the numbers of simulations that have not ended, by project; their sum is how many there are. Written by
# triggers (0028), never changed, added up by `db.overview.fold`: rows without a key, because nothing looks one up.
simulation_counts = Table(
    "simulation_counts",
    Base.metadata,
    Column("project_id", BigInteger, nullable=False),
    *(Column(state, Integer, nullable=False) for state in ("queued", "starting", "running")),
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
