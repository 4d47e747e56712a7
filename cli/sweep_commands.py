"""Commands of `simulations sweep` and their options; `simulations sweeps` lists."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import completion, terminal
from cli.group import CreatesByDefault
from cli.options import (
    AlertNames,
    AsJson,
    GpuModel,
    MaxPrice,
    MaxSteps,
    Notes,
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

EPILOG = """
\b
Examples:
  simulations sweep -p lr=log:1e-4..1e-1 -p batch=64,128 --trials 40 --parallel 4 --objective val/loss \\
      -- python train.py --lr {lr} --batch {batch}
  simulations sweep -p depth=2..8 -p act=relu,gelu --sampler grid --objective acc:max -- python train.py
  simulations sweep --file sweep.yaml --watch
  simulations sweep watch last
  simulations retry $(simulations sweep best last)

A word like {lr} in the command stands for the parameter's value; {{lr}} is text. No shell reads the command. All
parameters also reach the simulation as SIMULATION_PARAMETERS, in JSON.
"""

app = typer.Typer(
    help="Create, follow, extend, cancel and export sweeps: searches for the best parameters.",
    cls=CreatesByDefault,
    epilog=EPILOG,
    rich_markup_mode=None,
)

SweepId = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="Number, name or id of the sweep, or the beginning of its name; `last`: the newest one."
    ),
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", metavar="AMOUNT", help="Maximum cost of all its trials together: 50.")
]


# The first word that is no option begins the command; later options are the command's, with or without `--`.
@app.command(context_settings={"allow_interspersed_args": False})
def create(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="Program and arguments of each trial, run without a shell; {lr} stands for the value of lr.",
            show_default=False,
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=RANGE",
            help="lr=log:1e-4..1e-1, depth=2..8, x=0..1:0.25, batch=64,128; one value: the same for all. Repeatable.",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC[:MODE]",
            help="Metric whose best value is a trial's result: val/loss, or acc:max.",
            autocompletion=completion.metrics,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tpe, random, grid, quasi-random, cma-es.  [server's default: tpe]"),
    ] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Number of trials.  [grid: all of them]")] = None,
    parallel: Annotated[int | None, typer.Option(metavar="N", help="Trials at once.  [server's default: 1]")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Run each trial so many times, with the parameter seed=0, 1, ...; the mean counts."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the sampler.  [random]")] = None,
    max_cost: MaxCost = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="End after so many trials in a row without a better one.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(metavar="VALUE", help="End once a trial's result reaches this value.")
    ] = None,
    max_steps: MaxSteps = None,
    grace_period: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="First step at which trials are compared.  [10 % of --max-steps]"),
    ] = None,
    reduction_factor: Annotated[
        int | None,
        typer.Option(metavar="N", help="The best one of so many trials goes on.  [server's default: 3]"),
    ] = None,
    pruning: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="How trials are compared: halving, median, none.  [server's default: halving]"
        ),
    ] = None,
    no_pruning: Annotated[
        bool, typer.Option("--no-pruning", help="Let every trial run to its end: --pruning none.")
    ] = False,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Sweep file in YAML; `-`: standard input. Options override it."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the sweep; its trials are NAME-0, NAME-1, ...  [derived from the command]"
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Project; created if the name is new.", autocompletion=completion.projects),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="Environment variable.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "-t", metavar="TAG", help="Tag of each trial.", autocompletion=completion.tags),
    ] = None,
    notes: Notes = None,
    cpus: Annotated[float | None, typer.Option(help="Required CPUs of each trial.  [server's default: 1]")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Required memory in GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Required GPUs.")] = None,
    gpu_model: GpuModel = None,
    label: RequiredLabels = None,
    machine: OnlyMachine = None,
    max_price_per_hour: MaxPrice = None,
    priority: Priority = None,
    max_runtime: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Maximum runtime of each trial: 90s, 15m, 2h.")
    ] = None,
    max_retries: Annotated[int | None, typer.Option(help="Maximum number of retries of each trial.")] = None,
    retry_on: RetryOn = None,
    metrics_pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help=r"Named groups are points: 'loss=(?P<loss>\S+)'. Repeatable."),
    ] = None,
    stop: StopRules = None,
    alert: AlertNames = None,
    preemptible: Annotated[
        bool, typer.Option("--preemptible", help="Trials may be stopped to make room, and go on later.")
    ] = False,
    client_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Idempotency key: a second sweep with this key returns the first one."),
    ] = None,
    working_directory: Annotated[
        str | None,
        typer.Option(
            "--working-directory", "-C", metavar="PATH", help="Working directory on the machine; `.`: this directory."
        ),
    ] = None,
    workdir: Workdir = None,
    runtime_env: RuntimeEnv = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Create a sweep and print its number: `simulations sweep -p lr=log:1e-4..1e-1 ... -- COMMAND`.

    \b
    Keys of a sweep file (W&B's and Optuna's words are understood, too):
      parameters: {lr: {low: 1e-4, high: 0.1, log: true}, batch: [64, 128], epochs: 5},
      objective: {metric: val/loss, mode: MIN}, sampler, trials, parallel, seeds, seed, max_cost, patience,
      stopping_threshold, pruning: {rule: halving, grace_period, reduction_factor}, name, project, client_key,
      simulation: {entrypoint: [python, train.py, "--lr={lr}"], ...}   as a submission file: submit --help

    With --max-steps (or --grace-period) trials are compared while they run, and those that are worse than most at the
    same step are stopped. A trial that fails has no result; five failed ones and no other end the sweep.
    """
    from cli import sweeps
    from cli.server import parse_server
    from cli.submit import Submission
    from cli.sweep_file import read_sweep

    server = parse_server(url, token, token_file)
    submission = Submission(
        command=command or (), project=project, environment=env or (), tags=tag or (), notes=notes, cpus=cpus,
        memory_gib=memory_gib, gpus=gpus, gpu_model=gpu_model, labels=label or (), machine=machine,
        max_price_per_hour=max_price_per_hour, priority=priority, max_runtime=max_runtime, max_steps=max_steps,
        max_retries=max_retries, retry_on=retry_on or (), metrics_patterns=metrics_pattern or (), stop=stop or (),
        alerts=alert or (), preemptible=preemptible, working_directory=working_directory, workdir=workdir,
        runtime_env=runtime_env,
    )  # fmt: skip
    options = _given(
        name=name, trials=trials, parallel=parallel, seeds=seeds, seed=seed, maxCost=max_cost, patience=patience,
        stoppingThreshold=target, clientKey=client_key,
    )  # fmt: skip
    wanted = sweeps.sweep_input(
        submission, parameter or (), read_sweep(file) if file is not None else {}, objective=objective,
        sampler=sampler, options=options, pruning="none" if no_pruning else pruning, grace_period=grace_period,
        reduction_factor=reduction_factor,
    )  # fmt: skip
    made = sweeps.create(server, wanted)
    if as_json:
        terminal.print_json(made.as_json())
    else:
        sweeps.tell(server, made, staying=watch)
    sweeps.warn_of_unused(wanted)
    if watch:
        raise typer.Exit(sweeps.watch(server, made.id))


@app.command("list")
def list_(
    project: Annotated[
        str | None,
        typer.Option("--project", metavar="NAME", help="Only of this project.", autocompletion=completion.projects),
    ] = None,
    active: Annotated[bool, typer.Option("--active", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List sweeps, newest first."""
    from cli import requests, sweeps
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    found = requests.sweeps(server, project=project, active=True if active else None, limit=limit)
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    elif not found:
        terminal.say("No sweeps. Create one: simulations sweep --help")
    else:
        sweeps.print_list(found)


@app.command()
def show(
    sweep: SweepId, as_json: AsJson = False, url: Url = None, token: Token = None, token_file: TokenFile = None
) -> None:
    """Show a sweep with its trials, the best first, and how much each parameter matters."""
    from cli import requests, sweeps
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    found = requests.sweep(server, sweep, importances=True)
    every = list(requests.trials(server, found.id))
    if as_json:
        shown: Any = found.as_json()
        terminal.print_json({**shown, "trials": [each.as_json() for each in every]})
    else:
        sweeps.show(found, every)


@app.command()
def watch(sweep: SweepId, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """Follow a sweep to its end: trials done, the best so far, cost, time left."""
    from cli import sweeps
    from cli.server import parse_server

    raise typer.Exit(sweeps.watch(parse_server(url, token, token_file), sweep))


@app.command()
def best(
    sweep: SweepId, as_json: AsJson = False, url: Url = None, token: Token = None, token_file: TokenFile = None
) -> None:
    """Print the simulation of the best trial; run it again: simulations retry $(simulations sweep best SWEEP)."""
    from cli import requests, sweeps
    from cli.server import parse_server

    found = requests.sweep(parse_server(url, token, token_file), sweep)
    if as_json:
        terminal.print_json(found.best.as_json() if found.best is not None else None)
        return
    raise typer.Exit(sweeps.tell_best(found))


@app.command()
def extend(
    sweep: SweepId,
    trials: Annotated[int | None, typer.Option(metavar="N", help="New number of trials in all.")] = None,
    parallel: Annotated[int | None, typer.Option(metavar="N", help="New number of trials at once.")] = None,
    max_cost: MaxCost = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="End after so many trials in a row without a better one.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Give a sweep more trials, machines or money; one that has ended goes on."""
    from cli import sweeps
    from cli.server import parse_server

    wanted = _given(trials=trials, parallel=parallel, maxCost=max_cost, patience=patience)
    changed = sweeps.extend(parse_server(url, token, token_file), sweep, wanted)
    if as_json:
        terminal.print_json(changed.as_json())
    else:
        terminal.print_line(f"#{changed.number} {terminal.clean(changed.name)}: {sweeps.progress(changed)}")


@app.command()
def cancel(
    sweep: SweepId, as_json: AsJson = False, url: Url = None, token: Token = None, token_file: TokenFile = None
) -> None:
    """Cancel a sweep: no more trials begin, and those that have not ended are cancelled."""
    from cli import requests
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    cancelled = requests.cancel_sweep(server, requests.sweep(server, sweep).id)
    if as_json:
        terminal.print_json(cancelled.as_json())
    else:
        terminal.say(f"#{cancelled.number} {terminal.clean(cancelled.name)} is {cancelled.state}.")


@app.command()
def export(
    sweep: SweepId,
    storage: Annotated[str, typer.Argument(metavar="FILE", help="A file of SQLite, or the URL of an Optuna storage.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study.  [SWEEP's name and number]")
    ] = None,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Write a sweep as an Optuna study, for optuna-dashboard or code: `simulations sweep export last study.db`."""
    from cli import requests, sweeps
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    found = requests.sweep(server, sweep)
    count = sweeps.export(server, found, storage, name)
    written = terminal.say_count(count, "trial")
    terminal.say(f"Wrote {written} of #{found.number} {terminal.clean(found.name)} into {terminal.clean(storage)}.")


def _given(**values: object) -> dict[str, object]:
    """Drop options that were not given, so that only the server has defaults."""
    return {name: value for name, value in values.items() if value is not None}
