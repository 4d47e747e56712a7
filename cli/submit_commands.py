"""Commands that submit something new: `submit`, `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.options import (
    AlertNames,
    AsJson,
    GpuModel,
    LogScale,
    MaxCost,
    MaxPrice,
    MaxSteps,
    Metrics,
    Notes,
    ObjectiveMetric,
    OnlyMachine,
    Priority,
    RequiredLabels,
    RetryOn,
    RuntimeEnv,
    StopRules,
    Token,
    TokenFile,
    Url,
    Workdir,
)


def submit(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="Program and arguments, run without a shell. Everything after -- belongs to the command.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Submission file in YAML; `-`: standard input. Options override it. A list, or documents divided by "
            "`---`, are submitted together.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the simulation.  [derived from the command]")
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Project; created if the name is new.", autocompletion=completion.projects),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="KEY=VALUE",
            help="Parameter; JSON, else text. Passed as JSON in SIMULATION_PARAMETERS.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="Environment variable.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "-t", metavar="TAG", help="Tag for searching.", autocompletion=completion.tags),
    ] = None,
    notes: Notes = None,
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID[:CONDITION]",
            help="Run after the success of this one, or on ID:any, ID:failure. Repeatable; `last`: the newest one.",
            autocompletion=completion.simulations,
        ),
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="Required CPUs.  [server's default: 1]")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Required memory in GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Required GPUs.")] = None,
    machines: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Run on so many machines at once, each with these resources.  [server's default: 1]"
        ),
    ] = None,
    gpu_model: GpuModel = None,
    label: RequiredLabels = None,
    machine: OnlyMachine = None,
    max_price_per_hour: MaxPrice = None,
    priority: Priority = None,
    max_runtime: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Maximum runtime: 90s, 15m, 2h, 1d.")
    ] = None,
    max_cost: MaxCost = None,
    max_steps: MaxSteps = None,
    max_retries: Annotated[
        int | None, typer.Option(help="Maximum number of retries, for example after a lost machine.")
    ] = None,
    retry_on: RetryOn = None,
    metric_mode: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=MODE",
            help="Mode of a metric, min or max: accuracy=max.  [server's default: by the metric's name]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="FROM",
            help="Lines that are points: auto (JSON and known forms of text), json, none.  [server's default: auto]",
        ),
    ] = None,
    metrics_pattern: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX",
            help=r"Named groups are points: 'loss=(?P<loss>\S+)'; `step` is the step. Repeatable.",
        ),
    ] = None,
    objective: ObjectiveMetric = None,
    stop: StopRules = None,
    tensorboard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="Directory with TensorBoard event files outside the working directory. Repeatable.",
        ),
    ] = None,
    alert: AlertNames = None,
    system_metrics: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Interval of system metrics (cpu, memory, GPUs); 0: none. Default 10."),
    ] = None,
    attended: Annotated[
        bool, typer.Option("--attended", help="Start when a client watches its curve; stop when no client does.")
    ] = False,
    attended_grace: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long an attended run may go unwatched.  [server's default: 60s]"),
    ] = None,
    preemptible: Annotated[
        bool,
        typer.Option(
            "--preemptible", help="May be stopped to make room for another run; it goes on later from its checkpoint."
        ),
    ] = False,
    client_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Idempotency key: a second submission with this key returns the first simulation."
        ),
    ] = None,
    working_directory: Annotated[
        str | None,
        typer.Option(
            "--working-directory", "-C", metavar="PATH", help="Working directory on the machine; `.`: this directory."
        ),
    ] = None,
    workdir: Workdir = None,
    runtime_env: RuntimeEnv = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; the exit code is that of the final state.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "--follow", "-w", help="Like --wait, and draw the curve live.")
    ] = False,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Submit a simulation and print its id.

    \b
    simulations submit --workdir . --gpus 1 --memory-gib 16 -- python train.py --epochs 20
    simulations submit --file order.yaml --wait
    simulations submit --stop plateau,metric=val/loss --max-cost 20 -- python train.py

    \b
    Keys of a submission file (only entrypoint is required, in the file or as the command):
      name, project, entrypoint: [python, train.py], workdir: ., working_directory, tags: [...], priority, machines,
      runtime_env: {pip: [...], env_vars: {...}},
      parameters: {...}, environment: {...}, metrics: {accuracy: MAX}, metrics_from: json, metrics_patterns: [...],
      tensorboard: [DIR, ...], system_metrics: 10s, attended, attended_grace: 60s, client_key, preemptible,
      objective: {metric: val/loss, mode: MIN}, stopping: [{metric, patience: 10, ...}], alerts: [NAME], notes,
      after: [ID, ID:any, {client_key: KEY}, {index: 0, condition: FAILURE}],
      resources: {cpus, memory_gib, gpus, gpu_model, labels: {...}, machine, max_price_per_hour},
      limits: {max_runtime: 2h, max_cost, max_steps, max_retries, retry_on: [MACHINE_LOST]}

    \b
    Several in one file are submitted all or none, at most 1,000; `after` may name others of them by index, from 0, or
    client key. --client-key is then the key of the whole file.

    \b
    Parts of --stop, separated by commas; without any but the metric, the default rule:
      metric=NAME, mode=min|max, patience=EVALUATIONS, min-delta=X, grace-period=STEP, target=X,
      divergence-threshold=X, smoothing=0..1, aggressive, dry-run, no-plateau, no-rising, no-check-finite
    """
    from cli import submit, waiting
    from cli import watch as watching
    from cli.errors import UsageError
    from cli.server import parse_server
    from cli.submission_file import read_submissions

    server = parse_server(url, token, token_file)
    submission = submit.Submission(
        command=command or (), name=name, project=project, parameters=parameter or (), environment=env or (),
        tags=tag or (), notes=notes, after=after or (), cpus=cpus, memory_gib=memory_gib, gpus=gpus,
        gpu_model=gpu_model, labels=label or (), machines=machines, machine=machine,
        max_price_per_hour=max_price_per_hour, priority=priority, max_runtime=max_runtime,
        max_retries=max_retries, retry_on=retry_on or (), metric_modes=metric_mode or (),
        metrics_from=metrics, metrics_patterns=metrics_pattern or (),
        tensorboard=tensorboard or (), system_metrics=system_metrics, attended=attended,
        max_cost=max_cost, max_steps=max_steps, objective=objective, stop=stop or (), alerts=alert or (),
        attended_grace=attended_grace, client_key=client_key, preemptible=preemptible,
        working_directory=working_directory, workdir=workdir, runtime_env=runtime_env,
    )  # fmt: skip
    given = read_submissions(file) if file is not None else {}
    if isinstance(given, list):
        if watch or wait:
            raise UsageError("--wait and --watch are for one simulation: the file has several.")
        submit.tell_all(submit.submit_all(server, submission, given), as_json=as_json)
        return
    simulation = submit.submit(server, submission, given)
    submit.tell(simulation, as_json=as_json, staying=watch or wait)
    if watch:
        raise typer.Exit(watching.watch(server, simulation.id, metric or (), log_scale=log, as_json=as_json))
    if wait:
        raise typer.Exit(waiting.wait(server, simulation.id))


def demo(
    steps: Annotated[int, typer.Option(min=1, help="Points of each metric.")] = 200,
    interval: Annotated[float, typer.Option(min=0.0, help="Seconds between points.")] = 0.1,
    diverge: Annotated[bool, typer.Option("--diverge", help="Let the loss diverge half way.")] = False,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Run the built-in demo simulation and draw its curve."""
    from cli import submit
    from cli import watch as watching
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    options = ["--steps", str(steps), "--interval", f"{interval:g}", *(["--diverge"] if diverge else [])]
    simulation = submit.submit(
        server, submit.Submission(["python", "-m", "runner.demo", *options], name="demo", tags=["demo"])
    )
    submit.tell(simulation, as_json=as_json, staying=True)
    if not as_json:
        terminal.say(f"In GraphiQL: {submit.subscription(simulation)}")
    raise typer.Exit(watching.watch(server, simulation.id, metric or (), log_scale=log, as_json=as_json))
