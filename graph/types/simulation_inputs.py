"""Inputs of the mutations of simulations. Defaults are those of `db.simulations.Wanted`; `inputs` judges values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from decimal import Decimal
from typing import Any

import strawberry
from strawberry.scalars import JSON

from db import projects
from db.simulations import Wanted
from graph.types.dependency import AfterInput
from graph.types.enums import MetricsFrom, Reason
from graph.types.metric import MetricInput
from graph.types.package import PackageInput
from graph.types.scalars import Step
from graph.types.stop_rules import ObjectiveInput, StopRuleInput
from policy.retry import RETRYABLE

DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Wanted) if each.default is not MISSING}


@strawberry.input(description="Requirements that the simulation has of its machine.")
class ResourcesInput:
    cpus: float = DEFAULTS["cpus"]
    memory_gib: float = DEFAULTS["memory_gib"]
    gpus: int = DEFAULTS["gpus"]
    gpu_model: str | None = strawberry.field(
        default=None, description="A part of the model's name, ignoring case: A100."
    )
    labels: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object: labels that the machine must have, with these values."
    )
    machine: strawberry.ID | None = strawberry.field(default=None, description="The only machine that it may run on.")
    max_price_per_hour: Decimal | None = strawberry.field(
        default=None, description="The highest price of the billed share."
    )


@strawberry.input(description="Limits on run time, cost and retries.")
class LimitsInput:
    max_runtime_seconds: int | None = strawberry.field(
        default=None, description="The longest run time of each attempt, from its start."
    )
    max_cost: Decimal | None = strawberry.field(
        default=None,
        description="The highest cost of all its attempts together, in the installation's currency. It is stopped "
        "early enough for the grace of the stop to be paid.",
    )
    max_steps: Step | None = strawberry.field(
        default=None,
        description="The number of steps that it is planned to take: a declaration for stop rules, forecasts and the "
        "order of the queue, never enforced.",
    )
    max_retries: int = strawberry.field(
        default=DEFAULTS["max_retries"], description="The highest number of attempts after the first."
    )
    retry_on: list[Reason] = strawberry.field(
        default_factory=lambda: [Reason(each) for each in DEFAULTS["retry_on"]],
        description=f"The reasons after which it is retried: any of {', '.join(RETRYABLE)}.",
    )


@strawberry.input(description="A simulation to create.")
class CreateSimulationInput:
    entrypoint: list[str] = strawberry.field(
        description="The argument vector, run without a shell. `{lr}` in a word stands for the value of the parameter "
        "`lr`, if there are `parameters`; `{{lr}}` is text. What it prints becomes points by `metricsFrom`."
    )
    name: str | None = strawberry.field(default=None, description="Default: derived from the entrypoint.")
    project: str = strawberry.field(
        default=projects.DEFAULT, description="The project's name; a new name creates a project."
    )
    parameters: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object; reaches the simulation as SIMULATION_PARAMETERS, in JSON."
    )
    environment: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object of strings. Only the simulation can read the values again.",
    )
    working_directory: str | None = strawberry.field(default=None, description="A directory on the machine.")
    package: PackageInput | None = strawberry.field(
        default=None,
        description="The code that it starts in: a directory that was packed and uploaded, unpacked for each attempt. "
        "Instead of `workingDirectory`.",
    )
    runtime_env: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object: Ray's runtime environment, with `pip`, `uv`, `conda`, `config`, which all users of the "
        "cluster can read, and `env_vars`, which are added to `environment`. It runs on nodes of Ray clusters only.",
    )
    tags: list[str] = strawberry.field(default_factory=list)
    notes: str | None = strawberry.field(default=None, description="Free text, at most 10,000 characters.")
    after: list[AfterInput] = strawberry.field(
        default_factory=list, description="Simulations of its project that it runs after, at most 1,000."
    )
    resources: ResourcesInput = strawberry.field(default_factory=ResourcesInput)
    machines: int = strawberry.field(
        default=DEFAULTS["machines"],
        description="On how many machines it runs at once, 1 to 1,000: `resources` is what it needs of each. It starts "
        "when there is room on all of them.",
    )
    priority: int = strawberry.field(default=DEFAULTS["priority"], description="A higher priority is planned first.")
    limits: LimitsInput = strawberry.field(default_factory=LimitsInput)
    metrics: list[MetricInput] = strawberry.field(
        default_factory=list,
        description="Whether lower or higher is better, for metrics where the name does not imply it.",
    )
    metrics_from: MetricsFrom = strawberry.field(
        default=DEFAULTS["metrics_from"], description="Which lines of its output are points, beside those of patterns."
    )
    metrics_patterns: list[str] = strawberry.field(
        default_factory=list,
        description="Regular expressions in Python's syntax, at most 20, searched in each line: named groups are "
        "metrics, and the group `step` is the step: `epoch (?P<step>\\d+) loss=(?P<loss>\\S+)`.",
    )
    objective: ObjectiveInput | None = strawberry.field(
        default=None, description="The metric by which it is judged. Default: the metric of the first stop rule."
    )
    stopping: list[StopRuleInput] = strawberry.field(
        default_factory=list, description="Rules that stop it by its curves, at most 10; any of them does."
    )
    system_metrics_seconds: float | None = strawberry.field(
        default=None,
        description="The interval of system metrics (`system/cpu` and others), at most a day; 0: none. Default: as the "
        "installation, 10 s.",
    )
    tensorboard: list[str] = strawberry.field(
        default_factory=list,
        description="Directories whose TensorBoard event files are points too, at most 20; relative ones start at the "
        "working directory. Files below the working directory and SIMULATION_OUTPUT_DIR always are.",
    )
    attended: bool = strawberry.field(
        default=DEFAULTS["attended"],
        description="Start it only when a client subscribes to its convergence, and stop it (FINISHED, UNWATCHED) "
        "after the grace without a subscriber.",
    )
    attended_grace_seconds: int | None = strawberry.field(
        default=None,
        description="With `attended`: for how long it may be on a machine without a subscriber. 1 to 86,400; 60 if "
        "left out.",
    )
    preemptible: bool = strawberry.field(
        default=DEFAULTS["preemptible"],
        description="Allow that it is stopped to make room for another simulation, and goes on later from its "
        "checkpoint. It may start earlier for it: a preemptible simulation fills gaps that are reserved for others.",
    )
    alerts: list[str] | None = strawberry.field(
        default=None,
        description="Names of the alert targets that hear of it; an empty list: none. Default: those of its project.",
    )
    client_key: str | None = strawberry.field(
        default=None,
        description="An idempotency key of the client: equal keys in a project create one simulation.",
    )


@strawberry.input(description="Simulations to queue together, each as for createSimulation.")
class CreateSimulationsInput:
    simulations: list[CreateSimulationInput] = strawberry.field(description="1 to 1,000 simulations.")
    client_key: str | None = strawberry.field(
        default=None,
        description="An idempotency key of the client for the whole call: the same call again creates nothing.",
    )


@strawberry.input(description="The simulation to change.")
class SimulationInput:
    id: strawberry.ID


@strawberry.input(description="The simulation to repeat, and what is different. What is left out is as in the old one.")
class ForkSimulationInput:
    id: strawberry.ID
    name: str | None = strawberry.field(default=None, description="Its name.")
    entrypoint: list[str] | None = strawberry.field(
        default=None,
        description="The argument vector. What is left out is filled again where the old one's was filled from "
        "`parameters`.",
    )
    parameters: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object: parameters to add or to replace, by name. Null removes one; others stay.",
    )
    tags: list[str] | None = strawberry.field(default=None, description="All of its tags.")
    notes: str | None = strawberry.field(
        default=strawberry.UNSET, description="Free text, at most 10,000 characters; null: none."
    )
    priority: int | None = strawberry.field(default=None, description="A higher priority is planned first.")
    package: PackageInput | None = strawberry.field(
        default=None, description="Other code to start in; it replaces `workingDirectory` too."
    )
    runtime_env: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Another runtime environment of Ray; an empty object: none."
    )
    from_checkpoint: bool = strawberry.field(
        default=False,
        description="Begin with a copy of the checkpoint directory of the old one: on any machine, if its last attempt "
        "has stored one; else on the machine where it is, also waiting while that is offline.",
    )


@strawberry.input(description="Limits to change. Null removes a limit; what is left out stays as it is.")
class UpdateLimitsInput:
    max_runtime_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="The longest run time of each attempt, from its start."
    )
    max_cost: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="The highest cost of all its attempts together."
    )
    max_steps: Step | None = strawberry.field(
        default=strawberry.UNSET, description="The number of steps that it is planned to take."
    )
    max_retries: int | None = strawberry.field(
        default=strawberry.UNSET, description="The highest number of attempts after the first."
    )
    retry_on: list[Reason] | None = strawberry.field(
        default=strawberry.UNSET, description="The reasons after which it is retried."
    )


@strawberry.input(description="The simulation to change, and what of it. What is left out stays as it is.")
class UpdateSimulationInput:
    id: strawberry.ID
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its new name.")
    tags: list[str] | None = strawberry.field(default=strawberry.UNSET, description="All of its tags.")
    add_tags: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Tags that it gets; the others stay."
    )
    remove_tags: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Tags that it loses, unless `addTags` has them; the others stay."
    )
    notes: str | None = strawberry.field(
        default=strawberry.UNSET, description="Free text, at most 10,000 characters; null removes it."
    )
    priority: int | None = strawberry.field(
        default=strawberry.UNSET, description="A higher priority is planned first. It matters while it is queued."
    )
    preemptible: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it may be stopped to make room for another simulation."
    )
    objective: ObjectiveInput | None = strawberry.field(
        default=strawberry.UNSET,
        description="The metric by which it is judged; null: that of its first stop rule, else it is guessed.",
    )
    stopping: list[StopRuleInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="All of its stop rules; an empty list removes them. Only points from now on decide.",
    )
    limits: UpdateLimitsInput | None = strawberry.field(default=strawberry.UNSET, description="Limits to change.")
