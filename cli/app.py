"""Commands and their options. Each command parses, makes one call into its module, and returns an exit code.

Expected errors (`cli.errors`) become sentences on standard error, for all commands; any other exception is a defect
and keeps its traceback. A command imports its modules when it runs: `simulations list` does not load a database
driver, and only `up`, `migrate`, `doctor` and `token` need `db`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli import (
    alert_commands,
    budget_commands,
    completion,
    file_commands,
    machine_commands,
    project_commands,
    shells,
    sweep_commands,
    terminal,
    token_commands,
)
from cli.group import Commands
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
    ProjectName,
    RequiredLabels,
    SimulationId,
    SimulationIds,
    StopRules,
    Token,
    TokenFile,
    Url,
)

EPILOG = """
\b
Exit codes:
  0    success; submit --wait, submit --watch, watch, demo: the simulation is FINISHED
  1    the simulation FAILED; up, migrate: failed to start; doctor: found a problem
  2    wrong usage; the message names the expected value
  3    the service already runs on this data directory
  4    the port is in use
  5    the simulation was CANCELLED
  6    the server was unreachable or refused the request
  130  interrupted by Ctrl-C; simulations on machines continue
  141  standard output was closed, as by `| head`

\b
SIMULATIONS_URL or --url set the server. If it requires a login, pass a token with
SIMULATIONS_TOKEN_FILE or --token-file. Every command that reads has --json.
"""

app = typer.Typer(
    name="simulations",
    help="Schedule AI simulations and watch their convergence curves live.",
    epilog=EPILOG,
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,  # typer's scripts evaluate what others have named: `cli.shells` has its own
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def simulations(
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            help="Install completion for the current shell.",
            callback=shells.install,
            is_eager=True,
            expose_value=False,
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            help="Show completion for the current shell, to copy it or customize the installation.",
            callback=shells.show,
            is_eager=True,
            expose_value=False,
        ),
    ] = False,
) -> None:
    pass


@app.command()
def up(
    build: Annotated[
        bool, typer.Option("--build", help="In a checkout: also build the dashboard if it is out of date.")
    ] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C. HOST, PORT and DATABASE_URL configure it."""
    from cli.up import up

    raise typer.Exit(up(builds_pages=build))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this installation and print advice for each problem. Changes nothing.

    Run it on the host of the service with the service's settings (DATABASE_URL, HOST, PORT, SIMULATIONS_DATA_DIR,
    ...). It checks the data directory, disk, port, database and tables, clock, processes and machines.
    """
    from cli.doctor import doctor

    raise typer.Exit(doctor(as_json=as_json))


@app.command()
def migrate() -> None:
    """Migrate the database to the schema of this version."""
    from cli.migrate import migrate

    raise typer.Exit(migrate())


# The first word that is no option begins the command; later options are the command's, with or without `--`.
@app.command(context_settings={"allow_interspersed_args": False})
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
    retry_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REASON",
            help="Retry after: machine_lost, exit_code, launch_error.  [server's default: machine_lost]",
        ),
    ] = None,
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
    simulations submit --gpus 1 --memory-gib 16 -- python train.py --epochs 20
    simulations submit --file order.yaml --wait
    simulations submit --stop plateau,metric=val/loss --max-cost 20 -- python train.py

    \b
    Keys of a submission file (only entrypoint is required, in the file or as the command):
      name, project, entrypoint: [python, train.py], working_directory, tags: [...], priority, machines,
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
        working_directory=working_directory,
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


@app.command()
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


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            "-s",
            metavar="STATE",
            help="Filter by state: queued, starting, running, finished, failed, cancelled.",
            autocompletion=completion.states,
        ),
    ] = None,
    project: ProjectName = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="KEY",
            help="Best first by a metric (val/loss, score:max, loss:last), or by param:NAME, cost, created, started, "
            "finished, name, priority.",
            autocompletion=completion.sort_keys,
        ),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The other way round.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", "-w", metavar="COMPARISON", help="Compare a parameter: 'lr<1e-3', 'optimizer=adam'; repeatable."
        ),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="SWEEP", help="Only trials of this sweep: number, name or id.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            "-t",
            metavar="TAG",
            help="With this tag; repeatable: with all of them.",
            autocompletion=completion.tags,
        ),
    ] = None,
    any_tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="With this tag; repeatable: with any of them.", autocompletion=completion.tags
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Name, where * is any text and ? any character: 'vit*'.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text in the name, the command or the notes; or a number.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Submitted by this user.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Submitted since: 7d, 12h, or a date like 2026-11-01.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Submitted before: likewise.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of simulations.")] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="No limit.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List simulations, newest first, or sorted by what they reached.

    \b
    simulations list --sort val/loss --limit 5 --tag lr-sweep     the five best of a sweep
    simulations list --where 'lr<1e-3' --where optimizer=adam     by parameters (quote < and >)
    simulations list --name 'vit*' --since 7d --user ada --state finished
    simulations list --sort cost --since 30d                      the most expensive of a month

    The first column is the number: every command takes it in the place of an id, as well as a name or the beginning of
    a name that only one simulation has. Simulations without a value of the sort key come last.
    """
    from datetime import UTC, datetime

    from cli import browse
    from cli.arguments import parse_states
    from cli.listing import Filters, parse_sort
    from cli.requests import newest_first
    from cli.server import parse_server

    wanted = None if everything else limit
    sorting = parse_sort(sort, reverse=reverse)
    filters = Filters(
        text=text, name=name, tags=tag or (), any_tags=any_tag or (), user=user, since=since, until=until,
        where=where or (), sweep=sweep,
    ).as_filter(datetime.now(UTC))  # fmt: skip
    states = parse_states(state or ())
    # Ask for one more than is shown, to detect further ones.
    found = newest_first(
        parse_server(url, token, token_file),
        states=states,
        project=project,
        limit=wanted + 1 if wanted is not None else None,
        filters=filters,
        sorting=sorting if sort is not None or reverse else None,
    )
    shown = found[:wanted]
    if as_json:
        terminal.print_json([each.as_json() for each in shown])
    elif not shown:
        terminal.say(
            "No simulations."
            if states or project or filters
            else "No simulations yet. Submit one: simulations submit -- COMMAND"
        )
    else:
        browse.print_list(shown, sorting, more=len(found) > len(shown))


@app.command()
def show(
    simulation: SimulationId,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Show the details of a simulation."""
    from cli import browse
    from cli.advice import say_advice
    from cli.requests import get, resolve_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    details = get(server, resolve_id(server, simulation))
    if as_json:
        terminal.print_json(details.as_json())
    else:
        browse.print_details(details)
        say_advice(server, details)


@app.command()
def watch(
    simulation: SimulationId,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Draw a simulation's curve live until its end. Ctrl-C stops watching, not the simulation (unless attended)."""
    from cli import watch
    from cli.requests import resolve_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    raise typer.Exit(watch.watch(server, simulation_id, metric or (), log_scale=log, as_json=as_json))


@app.command()
def logs(
    simulation: SimulationId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow new output until the simulation ends.")
    ] = False,
    rank: Annotated[
        int, typer.Option(metavar="RANK", min=0, help="Of a simulation on several machines: whose log.")
    ] = 0,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", min=1, help="Print only the last lines.")
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", metavar="STREAM", help="Only this stream: stdout, stderr or supervisor; repeatable."),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option("--grep", "-g", metavar="TEXT", help="Print only lines that contain this text, in any case."),
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Start after this `cursor` of --json.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Print a simulation's log.

    The log holds the output that is not a metric point, and messages of the supervisor. `watch` shows the points.

    --follow reconnects after lost connections without gaps, and ends with the simulation. --grep searches the log where
    it is stored: only the lines found are transferred. Control characters are removed; --json prints everything, one
    chunk per line.
    """
    from cli import logs
    from cli.arguments import STREAMS, parse_words
    from cli.requests import resolve_id
    from cli.server import parse_server

    streams = frozenset(parse_words("--stream", stream or (), STREAMS))
    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    raise typer.Exit(
        logs.logs(
            server,
            simulation_id,
            streams=streams,
            tail=tail,
            after=after,
            follow=follow,
            as_json=as_json,
            rank=rank,
            grep=grep,
        )
    )


@app.command()
def cancel(
    simulations: SimulationIds,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Cancel simulations; a running one is stopped first."""
    from cli.change import cancel_all
    from cli.server import parse_server

    raise typer.Exit(cancel_all(parse_server(url, token, token_file), simulations))


@app.command()
def pause(
    simulations: SimulationIds,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Pause simulations that wait in the queue: they get no machine until they are resumed."""
    from cli.change import pause_all
    from cli.server import parse_server

    raise typer.Exit(pause_all(parse_server(url, token, token_file), simulations))


@app.command()
def resume(
    simulations: SimulationIds,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Resume paused simulations."""
    from cli.change import resume_paused
    from cli.server import parse_server

    raise typer.Exit(resume_paused(parse_server(url, token, token_file), simulations))


@app.command()
def update(
    simulations: SimulationIds,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="New name.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "-t", metavar="TAG", help="All of its tags; repeatable.", autocompletion=completion.tags),
    ] = None,
    notes: Notes = None,
    priority: Annotated[int | None, typer.Option(help="Priority; matters while it is queued.")] = None,
    objective: ObjectiveMetric = None,
    stop: StopRules = None,
    no_stop: Annotated[bool, typer.Option("--no-stop", help="Remove all stop rules.")] = False,
    max_runtime: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Maximum runtime: 90s, 15m, 2h, 1d; none: no limit.")
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Maximum cost of all attempts together; none: no limit.")
    ] = None,
    max_steps: Annotated[
        str | None, typer.Option(metavar="STEPS", help="Planned number of steps; none: not known.")
    ] = None,
    max_retries: Annotated[int | None, typer.Option(help="Maximum number of retries.")] = None,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Change simulations, also while they run: stop rules, limits, name, tags, notes, priority.

    \b
    simulations update last --stop patience=10,metric=val/loss --max-cost 20

    --stop replaces all stop rules. Only points that arrive from now on decide. Parts of a rule: submit --help.
    """
    from cli.change import update_all
    from cli.server import parse_server
    from cli.submit import Change, change_input

    change = Change(
        name=name, tags=tag, notes=notes, priority=priority, objective=objective, stop=stop, no_stop=no_stop,
        max_runtime=max_runtime, max_cost=max_cost, max_steps=max_steps, max_retries=max_retries,
    )  # fmt: skip
    wanted = change_input(change)
    raise typer.Exit(update_all(parse_server(url, token, token_file), simulations, wanted))


@app.command()
def retry(
    simulation: SimulationId,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Another command.", show_default=False)
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Add or replace a parameter; repeatable."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="KEY", help="Leave out a parameter; repeatable.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Other tags; repeatable.")] = None,
    notes: Annotated[str | None, typer.Option(help="Other notes.")] = None,
    priority: Annotated[int | None, typer.Option(help="Another priority.")] = None,
    from_checkpoint: Annotated[
        bool,
        typer.Option("--from-checkpoint", help="Begin with a copy of its checkpoint, on the machine that has it."),
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Submit a copy of an ended simulation; with changes, also of one that still runs.

    \b
    simulations retry last -p seed=7 --name again
    """
    from cli.requests import fork, resolve_id, retry
    from cli.server import parse_server
    from cli.submit import Fork, fork_input, tell

    changes = fork_input(
        Fork(
            command or (), parameter or (), without or (), name=name, tags=tag, notes=notes, priority=priority,
            from_checkpoint=from_checkpoint,
        )
    )  # fmt: skip
    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    copy = fork(server, simulation_id, changes) if changes else retry(server, simulation_id)
    tell(copy, as_json=as_json, staying=False)


@app.command()
def costs(
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="GROUP", help="Group by project, user, machine, name or tag; repeatable, or with commas."
        ),
    ] = None,
    day: Annotated[bool, typer.Option("--day", help="A row for each day.")] = False,
    week: Annotated[bool, typer.Option("--week", help="A row for each week, from Monday.")] = False,
    month: Annotated[bool, typer.Option("--month", help="A row for each month.")] = False,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="From this date on: 2026-11-01.  [ever]")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Up to this date, excluded.  [now]")] = None,
    project: ProjectName = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Show where the money went: `simulations costs --by project --week`.

    WASTED is the cost of attempts that failed, were lost or preempted, and that no later attempt continued from a
    checkpoint. A simulation counts under each of its tags; the total counts it once.
    """
    from cli import costs
    from cli.errors import UsageError
    from cli.requests import costs as ask_for_costs
    from cli.server import parse_server

    if as_csv and as_json:
        raise UsageError("--csv and --json can't be combined.")
    groups = costs.parse_groups(by or (), day=day, week=week, month=month)
    begin, end = costs.parse_time("--from", since), costs.parse_time("--to", to)
    found = ask_for_costs(parse_server(url, token, token_file), groups, since=begin, to=end, project=project)
    if as_json:
        terminal.print_json(found.as_json())
    elif as_csv:
        costs.print_csv(found, groups)
    else:
        costs.print_costs(found, groups)


@app.command()
def plan(
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Show the newest plan: machines over time, with what runs there until when, and what is reserved."""
    from cli import plan
    from cli.requests import plan as ask_for_plan
    from cli.server import parse_server

    found = ask_for_plan(parse_server(url, token, token_file))
    if as_json:
        terminal.print_json(found.as_json())
    elif not found.machines:
        terminal.say("No machines. The scheduler of a host creates one: simulations up")
    else:
        plan.print_plan(found)


app.command("sweeps")(sweep_commands.list_)
app.add_typer(sweep_commands.app, name="sweep")
app.add_typer(project_commands.app, name="projects")
app.add_typer(budget_commands.app, name="budget")
app.add_typer(file_commands.app, name="files")
app.add_typer(machine_commands.app, name="machines")
app.add_typer(alert_commands.app, name="alert")
app.add_typer(token_commands.app, name="token")


def run() -> None:
    """Run the command line."""
    shells.register()
    app(prog_name="simulations")
