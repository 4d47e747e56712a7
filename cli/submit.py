"""`simulations submit`: options as the API's CreateSimulationInput, and the next commands."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from cli.answers import Forked, Simulation
from cli.arguments import (
    MetricsFrom,
    Mode,
    Retryable,
    absolute_directory,
    is_written,
    parse_after,
    parse_duration,
    parse_pairs,
    parse_parameters,
    parse_words,
    relative_files,
    short_command,
    written_out,
)
from cli.errors import UsageError
from cli.packages import with_package
from cli.requests import create, create_all, machine_id, resolve_id
from cli.server import Server
from cli.stop_rules import parse_objective, parse_rules
from cli.submission_file import read_runtime_env
from cli.terminal import clean, print_json, print_line, say, say_count


@dataclass(frozen=True, slots=True)
class Submission:
    """Options of `submit`. None or empty: the server's default."""

    command: Sequence[str] = ()
    name: str | None = None
    project: str | None = None
    parameters: Sequence[str] = ()
    environment: Sequence[str] = ()
    tags: Sequence[str] = ()
    notes: str | None = None
    after: Sequence[str] = ()
    cpus: float | None = None
    memory_gib: float | None = None
    gpus: int | None = None
    gpu_model: str | None = None
    labels: Sequence[str] = ()
    machine: str | None = None
    max_price_per_hour: str | None = None
    machines: int | None = None
    priority: int | None = None
    max_runtime: str | None = None
    max_cost: str | None = None
    max_steps: int | None = None
    max_retries: int | None = None
    retry_on: Sequence[str] = ()
    metric_modes: Sequence[str] = ()
    metrics_from: str | None = None
    metrics_patterns: Sequence[str] = ()
    objective: str | None = None
    stop: Sequence[str] = ()
    tensorboard: Sequence[str] = ()
    alerts: Sequence[str] = ()
    system_metrics: float | None = None
    attended: bool = False
    attended_grace: str | None = None
    preemptible: bool = False
    client_key: str | None = None
    working_directory: str | None = None
    workdir: str | None = None
    runtime_env: str | None = None


def submit(server: Server, submission: Submission, given: Mapping[str, object] = MappingProxyType({})) -> Simulation:
    """Submit the options, laid over a submission file. Raises `CommandError`."""
    wanted = _completed(combine(given, submission_input(submission)))
    simulation = create(server, with_package(server, with_ids(server, wanted, {}), {}))
    _warn_of_relative_files(wanted)
    return simulation


def submit_all(server: Server, submission: Submission, given: Sequence[Mapping[str, object]]) -> list[Simulation]:
    """Submit several together, all or none, the options laid over each. The client key is that of the whole."""
    if submission.command:
        raise UsageError("The file has several simulations, each with its own entrypoint: leave out the command.")
    options = submission_input(submission)
    key = options.pop("clientKey", None)
    every = [_completed(combine(each, options), number) for number, each in enumerate(given, 1)]
    known: dict[str, str] = {}
    sent: dict[tuple[str, str | None], dict[str, object]] = {}
    named = [with_ids(server, each, known) for each in every]
    wanted = {"simulations": [with_package(server, each, sent) for each in named], **_given(clientKey=key)}
    made = create_all(server, wanted)
    _warn_of_relative_files(every[0])
    return made


def _completed(wanted: dict[str, object], number: int | None = None) -> dict[str, object]:
    """Check what the options and the file are together. number: in the file, if it has several."""
    if not wanted.get("entrypoint"):
        if number is not None:
            raise UsageError(f"Simulation {number} of the file has no entrypoint.")
        raise UsageError("No command given. Add it after two dashes: simulations submit -- python train.py")
    if "attendedGraceSeconds" in wanted and not wanted.get("attended"):
        raise UsageError("--attended-grace needs an attended simulation: add --attended.")
    return require_one_directory(wanted)


def require_one_directory(wanted: dict[str, object]) -> dict[str, object]:
    """Return the input unless it has both a directory to send and one on the machine."""
    if wanted.get("workdir") is not None and wanted.get("workingDirectory") is not None:
        raise UsageError(
            "--workdir sends a directory to start in, --working-directory names one there: give one of them."
        )
    return wanted


def with_ids(server: Server, wanted: Mapping[str, object], known: dict[str, str]) -> dict[str, object]:
    """Replace the name of a machine, and `last`, by ids. known: those of names that were looked up before."""
    made = dict(wanted)
    resources = _section(wanted, "resources")
    if resources.get("machine") is not None:
        name = str(resources["machine"])
        known[name] = known.get(name) or machine_id(server, name)
        made["resources"] = {**resources, "machine": known[name]}
    after = wanted.get("after")
    if isinstance(after, list):
        made["after"] = [
            {**each, "simulation": resolve_id(server, str(each["simulation"]))} if "simulation" in each else each
            for each in after
        ]
    return made


def submission_input(submission: Submission) -> dict[str, object]:
    """Build a CreateSimulationInput. The machine stays a name, and the package a directory, `workdir`.

    Raises `UsageError`.
    """
    resources = _given(
        cpus=submission.cpus,
        memoryGib=submission.memory_gib,
        gpus=submission.gpus,
        gpuModel=submission.gpu_model,
        labels=parse_pairs(submission.labels, "--label") or None,
        machine=submission.machine,
        maxPricePerHour=submission.max_price_per_hour,
    )
    return _given(
        entrypoint=list(submission.command) or None,
        name=submission.name,
        project=submission.project,
        parameters=parse_parameters(submission.parameters) or None,
        environment=parse_pairs(submission.environment, "--env") or None,
        tags=list(submission.tags) or None,
        notes=submission.notes,
        after=[parse_after(each) for each in submission.after] or None,
        resources=resources or None,
        machines=submission.machines,
        priority=submission.priority,
        limits=_given(
            maxRuntimeSeconds=_seconds(submission.max_runtime),
            maxCost=submission.max_cost,
            maxSteps=submission.max_steps,
            maxRetries=submission.max_retries,
            retryOn=parse_words("--retry-on", submission.retry_on, get_args(Retryable)) or None,
        )
        or None,
        metrics=[
            {"name": name, "mode": parse_words("--metric-mode", [mode], get_args(Mode))[0]}
            for name, mode in parse_pairs(submission.metric_modes, "--metric-mode").items()
        ]
        or None,
        metricsFrom=(
            parse_words("--metrics", [submission.metrics_from], get_args(MetricsFrom))[0]
            if submission.metrics_from is not None
            else None
        ),
        metricsPatterns=list(submission.metrics_patterns) or None,
        objective=parse_objective(submission.objective),
        stopping=parse_rules(submission.stop) or None,
        tensorboard=list(submission.tensorboard) or None,
        alerts=parse_alerts(submission.alerts),
        systemMetricsSeconds=submission.system_metrics,
        attended=submission.attended or None,
        attendedGraceSeconds=_seconds(submission.attended_grace),
        preemptible=submission.preemptible or None,
        clientKey=submission.client_key,
        workingDirectory=absolute_directory(submission.working_directory),
        workdir=absolute_directory(submission.workdir),
        runtimeEnv=read_runtime_env(submission.runtime_env) if submission.runtime_env is not None else None,
    )


def parse_alerts(names: Sequence[str]) -> list[str] | None:
    """Return the names of alert targets; an empty list for the word none. Raises `UsageError`."""
    if not names:
        return None
    if any(name.strip().lower() == "none" for name in names):
        if len(names) > 1:
            raise UsageError("--alert none can't be combined with other names.")
        return []
    return list(names)


@dataclass(frozen=True, slots=True)
class Change:
    """Options of `update`. None: unchanged; of a limit, the word none removes it, of the objective, an empty text."""

    name: str | None = None
    tags: Sequence[str] | None = None
    notes: str | None = None
    priority: int | None = None
    objective: str | None = None
    stop: Sequence[str] | None = None
    no_stop: bool = False
    max_runtime: str | None = None
    max_cost: str | None = None
    max_steps: str | None = None
    max_retries: int | None = None


def change_input(change: Change) -> dict[str, object]:
    """Build an UpdateSimulationInput without the id. Raises `UsageError`."""
    if change.no_stop and change.stop:
        raise UsageError("--no-stop removes all stop rules: it can't be combined with --stop.")
    limits = {
        **_limit("maxRuntimeSeconds", change.max_runtime, _seconds),
        **_limit("maxCost", change.max_cost, str),
        **_limit("maxSteps", change.max_steps, _steps),
        **_given(maxRetries=change.max_retries),
    }
    wanted = _given(
        name=change.name,
        tags=list(change.tags) if change.tags else None,
        notes=change.notes,
        priority=change.priority,
        objective=parse_objective(change.objective),
        stopping=[] if change.no_stop else parse_rules(change.stop) if change.stop else None,
        limits=limits or None,
    )
    if change.objective == "":
        wanted["objective"] = None
    if not wanted:
        raise UsageError("Nothing to change. Give an option: simulations update --help")
    return wanted


@dataclass(frozen=True, slots=True)
class Fork:
    """Options of `retry`. None or empty: as in the old simulation."""

    command: Sequence[str] = ()
    parameters: Sequence[str] = ()
    without: Sequence[str] = ()
    name: str | None = None
    tags: Sequence[str] | None = None
    notes: str | None = None
    priority: int | None = None
    from_checkpoint: bool = False
    workdir: str | None = None
    runtime_env: str | None = None


def fork_input(fork: Fork) -> dict[str, object]:
    """Build a ForkSimulationInput without the id, with `workdir` for a package; empty if nothing is different.

    Raises `UsageError`.
    """
    parameters = parse_parameters(fork.parameters)
    for name in fork.without:
        if name in parameters:
            raise UsageError(f"--without: {name} is also given by --parameter")
        parameters[name] = None
    return _given(
        entrypoint=list(fork.command) or None,
        parameters=parameters or None,
        name=fork.name,
        tags=list(fork.tags) if fork.tags else None,
        notes=fork.notes,
        priority=fork.priority,
        fromCheckpoint=fork.from_checkpoint or None,
        workdir=absolute_directory(fork.workdir),
        runtimeEnv=read_runtime_env(fork.runtime_env) if fork.runtime_env is not None else None,
    )


def warn_of_own_values(fork: Forked, changes: Mapping[str, object]) -> None:
    """Point out a changed parameter whose option has another value in the command: the program would see no change."""
    changed = _section(changes, "parameters")
    for name, value, command in written_out(fork.entrypoint, changed):
        if changed[name] is not None and not is_written(value, fork.parameters.get(name)):
            short = short_command(command)
            again = f"simulations retry {fork.id} -- "
            say(
                f"Note: the command has {clean(name)} written out, as {clean(value, limit=60)}, so the parameter "
                f"reaches the program only in SIMULATION_PARAMETERS. To change the command, write {{{clean(name)}}} "
                f"there: {clean(again + short if short == shlex.join(command) else f'{short} ({again}COMMAND)')}",
                style="yellow",
            )
            return


def _limit(name: str, text: str | None, parse: Callable[[str], object]) -> dict[str, object]:
    if text is None:
        return {}
    return {name: None if text.strip().lower() == "none" else parse(text)}


def _steps(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise UsageError(f"--max-steps: expected a whole number or none, got {text!r}") from None


def combine(file: Mapping[str, object], options: Mapping[str, object]) -> dict[str, object]:
    """Merge options over a file: options win, key by key in mappings."""
    combined = dict(file)
    for name, value in options.items():
        below = combined.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            combined[name] = combine(below, value) if name == "resources" else {**below, **value}
        elif name == "metrics" and isinstance(below, list) and isinstance(value, list):
            combined[name] = list({each["name"]: each for each in (*below, *value)}.values())
        else:
            combined[name] = value
    return combined


def tell(simulation: Simulation, *, as_json: bool, staying: bool) -> None:
    """Print the new simulation's id on standard output, and the next commands on standard error."""
    if as_json:
        print_json(simulation.as_json())
        return
    print_line(clean(simulation.id))
    say(f"{clean(simulation.name)} is {simulation.state} in the project {clean(simulation.project.name)}.")
    if not staying:
        does = "It starts when a client watches its curve" if simulation.attended else "Watch its curve"
        say(f"{does}: simulations watch {clean(simulation.id)}   (or: simulations watch last)")


def tell_all(simulations: Sequence[Simulation], *, as_json: bool) -> None:
    """Print the ids of new simulations, a line for each, in the order of the file."""
    if as_json:
        print_json([each.as_json() for each in simulations])
        return
    for each in simulations:
        print_line(clean(each.id))
    are = "is" if len(simulations) == 1 else "are"
    say(f"{say_count(len(simulations), 'simulation')} {are} queued. List them: simulations list")


def subscription(simulation: Simulation) -> str:
    """Return the subscription to its curve, for GraphiQL."""
    fields = "state series { metric steps values }"
    return f'subscription {{ convergence(simulationId: "{clean(simulation.id)}") {{ {fields} }} }}'


def _seconds(duration: str | None) -> int | None:
    """Parse a duration into whole seconds, rounded up."""
    return math.ceil(parse_duration(duration).total_seconds()) if duration is not None else None


def _warn_of_relative_files(wanted: Mapping[str, object]) -> None:
    command = wanted["entrypoint"]
    files = relative_files([str(word) for word in command]) if isinstance(command, list) else []
    if files and wanted.get("workingDirectory") is None and wanted.get("workdir") is None:
        say(
            f"Note: {clean(files[0])} is a file here, but the simulation starts in a directory of its own. "
            "Send this directory along with --workdir ., or give --working-directory . or an absolute path.",
            style="yellow",
        )


def _given(**values: object) -> dict[str, object]:
    """Drop options that were not given, so that only the server has defaults."""
    return {name: value for name, value in values.items() if value is not None}


def _section(wanted: Mapping[str, object], name: str) -> dict[str, object]:
    section = wanted.get(name)
    return section if isinstance(section, dict) else {}
