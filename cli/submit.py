"""`simulations submit`: the command line's options as the API's CreateSimulationInput, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cli.answers import Simulation
from cli.arguments import absolute_directory, parse_duration, parse_pairs, parse_parameters, relative_files
from cli.errors import UsageError
from cli.server import Server, create, machine_id
from cli.terminal import clean, print_json, print_line, say


@dataclass(frozen=True, slots=True)
class Order:
    """What was typed. None and empty mean: the server's default."""

    command: Sequence[str]
    name: str | None = None
    project: str | None = None
    parameters: Sequence[str] = ()
    environment: Sequence[str] = ()
    tags: Sequence[str] = ()
    cpus: float | None = None
    memory_gib: float | None = None
    gpus: int | None = None
    gpu_model: str | None = None
    labels: Sequence[str] = ()
    machine: str | None = None
    max_price_per_hour: str | None = None
    priority: int | None = None
    max_runtime: str | None = None
    max_retries: int | None = None
    attended: bool = False
    attended_grace: str | None = None
    client_key: str | None = None
    working_directory: str | None = None


def submit(server: Server, order: Order) -> Simulation:
    """Queue what was ordered. Raises `CommandError`."""
    wanted = order_input(order)
    if order.machine is not None:
        wanted["resources"] = {**_section(wanted, "resources"), "machine": machine_id(server, order.machine)}
    simulation = create(server, wanted)
    _warn_of_relative_files(order)
    return simulation


def order_input(order: Order) -> dict[str, object]:
    """Put an order into the API's words, but for the machine, whose name needs looking up. Raises `UsageError`."""
    if not order.command:
        raise UsageError("What shall run? Give the command after two dashes: simulations submit -- python train.py")
    if order.attended_grace is not None and not order.attended:
        raise UsageError("--attended-grace says for how long an attended simulation may go unwatched: add --attended.")
    resources = _given(
        cpus=order.cpus,
        memoryGib=order.memory_gib,
        gpus=order.gpus,
        gpuModel=order.gpu_model,
        labels=parse_pairs(order.labels, "--label") or None,
        maxPricePerHour=order.max_price_per_hour,
    )
    return _given(
        entrypoint=list(order.command),
        name=order.name,
        project=order.project,
        parameters=parse_parameters(order.parameters) or None,
        environment=parse_pairs(order.environment, "--env") or None,
        tags=list(order.tags) or None,
        resources=resources or None,
        priority=order.priority,
        limits=_given(maxRuntimeSeconds=_seconds(order.max_runtime), maxRetries=order.max_retries) or None,
        attended=order.attended or None,
        attendedGraceSeconds=_seconds(order.attended_grace),
        clientKey=order.client_key,
        workingDirectory=absolute_directory(order.working_directory),
    )


def tell(simulation: Simulation, *, as_json: bool, watching: bool) -> None:
    """Print the new simulation's id, alone on standard output, and beside it what can be done with it."""
    if as_json:
        print_json(simulation.as_json())
        return
    print_line(clean(simulation.id))
    say(f"{clean(simulation.name)} is {simulation.state} in the project {clean(simulation.project.name)}.")
    if not watching:
        does = "It starts when somebody watches its curve" if simulation.attended else "Watch its curve"
        say(f"{does}: simulations watch {clean(simulation.id)}   (or: simulations watch last)")


def _seconds(duration: str | None) -> int | None:
    """Whole seconds, rounded up."""
    return math.ceil(parse_duration(duration).total_seconds()) if duration is not None else None


def _warn_of_relative_files(order: Order) -> None:
    files = relative_files(order.command)
    if files and order.working_directory is None:
        say(
            f"Note: {clean(files[0])} is a file here, but the simulation starts in a directory of its own. "
            "Give --working-directory . or an absolute path.",
            style="yellow",
        )


def _given(**values: object) -> dict[str, object]:
    """Leave out what was not given, so that defaults have one place: the server."""
    return {name: value for name, value in values.items() if value is not None}


def _section(wanted: dict[str, object], name: str) -> dict[str, object]:
    section = wanted.get(name)
    return section if isinstance(section, dict) else {}
