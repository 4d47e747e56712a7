"""The commands and their options. Each parses, makes one call into its file, and returns an exit code.

Expected errors (`cli.errors`) become sentences on standard error here, for all commands; anything else is a defect and
keeps its traceback. A command imports what it needs when it runs: `simulations list` should not wait for a database
driver, and no command but `up`, `migrate`, `doctor` and `token` needs `db`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, machine_commands, shells, terminal, token_commands
from cli.group import Commands
from cli.options import (
    AsJson,
    LogScale,
    Metrics,
    ProjectName,
    SimulationId,
    SimulationIds,
    Token,
    TokenFile,
    Url,
)

EPILOG = """
\b
Exit codes:
  0    done; of submit --wait, submit --watch, watch and demo: it FINISHED
  1    it FAILED; of up and migrate: it could not start; of doctor: something is wrong
  2    wrong usage: the sentence says what was expected
  3    the service runs already on this data directory
  4    the port is taken
  5    it was CANCELLED
  6    the server could not be reached, or refused
  130  Ctrl-C; what runs on machines goes on
  141  nobody reads the output any more, as in `| head`

\b
The server is the one at SIMULATIONS_URL or --url. Where it asks for a login, give a token with
SIMULATIONS_TOKEN_FILE or --token-file. Every command that reads has --json.
"""

app = typer.Typer(
    name="simulations",
    help="Schedule AI simulations, and watch each one's convergence curve live.",
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
        bool, typer.Option("--build", help="In a checkout: build the dashboard beside it, if need be.")
    ] = False,
) -> None:
    """Run the whole service on this machine, until Ctrl-C. HOST, PORT and DATABASE_URL say where."""
    from cli.up import up

    raise typer.Exit(up(builds_pages=build))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Find out what is wrong with this installation, and what to do. Changes nothing.

    It looks with the settings of the service (DATABASE_URL, HOST, PORT, SIMULATIONS_DATA_DIR, ...), on its host: at
    the data directory, the disk, the port, the database and its tables, the clock, the processes and the machines.
    """
    from cli.doctor import doctor

    raise typer.Exit(doctor(as_json=as_json))


@app.command()
def migrate() -> None:
    """Bring the database's tables up to this version."""
    from cli.migrate import migrate

    raise typer.Exit(migrate())


# The first word that is no option begins the command: its own options are not ours, with or without the dashes.
@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="The program and its arguments; no shell. Everything after the dashes is its own.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="An order in YAML; `-` is standard input. Options win over it."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Made from the command if left out.")] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A new name makes a new project.", autocompletion=completion.projects),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="KEY=VALUE",
            help="JSON, or else text; reaches it in JSON as SIMULATION_PARAMETERS.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="An environment variable.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="To find it by.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Processors it needs.  [server's default: 1]")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Memory it needs, in GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs it needs.")] = None,
    gpu_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Part of the model's name: A100.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="The machine must have it.")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            metavar="MACHINE", help="Only on this machine: its name or id.", autocompletion=completion.machines
        ),
    ] = None,
    max_price_per_hour: Annotated[
        str | None, typer.Option(metavar="PRICE", help="Only where it costs no more.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    max_runtime: Annotated[str | None, typer.Option(metavar="DURATION", help="End it after 90s, 15m, 2h, 1d.")] = None,
    max_retries: Annotated[
        int | None, typer.Option(help="How often it goes back to the queue, as when its machine is lost.")
    ] = None,
    retry_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REASON",
            help="After what: machine_lost, exit_code, launch_error.  [server's default: machine_lost]",
        ),
    ] = None,
    metric_mode: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=MODE", help="Which way is best: accuracy=max.  [server's default: by the metric's name]"
        ),
    ] = None,
    attended: Annotated[
        bool, typer.Option("--attended", help="Start when somebody watches its curve; stop when nobody does.")
    ] = False,
    attended_grace: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="For how long nobody may watch it.  [server's default: 60s]"),
    ] = None,
    client_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Submitting the same key twice makes one simulation.")
    ] = None,
    working_directory: Annotated[
        str | None,
        typer.Option("--working-directory", "-C", metavar="PATH", help="On the machine; `.` is this directory."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; the exit code says how it ended.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "--follow", "-w", help="The same, and draw its curve meanwhile.")
    ] = False,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Queue a simulation, and print its id.

    \b
    simulations submit --gpus 1 --memory-gib 16 -- python train.py --epochs 20
    simulations submit --file order.yaml --wait

    \b
    An order in YAML has these words, all of them optional but one entrypoint, here or in the file:
      name, project, entrypoint: [python, train.py], working_directory, tags: [...], priority,
      parameters: {...}, environment: {...}, metrics: {accuracy: MAX}, attended, attended_grace: 60s, client_key,
      resources: {cpus, memory_gib, gpus, gpu_model, labels: {...}, machine, max_price_per_hour},
      limits: {max_runtime: 2h, max_retries, retry_on: [MACHINE_LOST]}
    """
    from cli import submit, waiting
    from cli import watch as watching
    from cli.server import parse_server
    from cli.submission_file import read_submission

    server = parse_server(url, token, token_file)
    submission = submit.Submission(
        command=command or (), name=name, project=project, parameters=parameter or (), environment=env or (),
        tags=tag or (), cpus=cpus, memory_gib=memory_gib, gpus=gpus, gpu_model=gpu_model, labels=label or (),
        machine=machine, max_price_per_hour=max_price_per_hour, priority=priority, max_runtime=max_runtime,
        max_retries=max_retries, retry_on=retry_on or (), metric_modes=metric_mode or (), attended=attended,
        attended_grace=attended_grace, client_key=client_key,
        working_directory=working_directory,
    )  # fmt: skip
    simulation = submit.submit(server, submission, read_submission(file) if file is not None else {})
    submit.tell(simulation, as_json=as_json, staying=watch or wait)
    if watch:
        raise typer.Exit(watching.watch(server, simulation.id, metric or (), log_scale=log, as_json=as_json))
    if wait:
        raise typer.Exit(waiting.wait(server, simulation.id))


@app.command()
def demo(
    steps: Annotated[int, typer.Option(min=1, help="How many points of each metric.")] = 200,
    interval: Annotated[float, typer.Option(min=0.0, help="Seconds between them.")] = 0.1,
    diverge: Annotated[bool, typer.Option("--diverge", help="Let it go wrong half way.")] = False,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Run the built-in simulation, and draw its curve live: it needs no code of yours."""
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
            help="Only these: queued, starting, running, finished, failed, cancelled.",
            autocompletion=completion.states,
        ),
    ] = None,
    project: ProjectName = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="No limit.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List simulations, newest first."""
    from cli import browse
    from cli.arguments import parse_states
    from cli.requests import newest_first
    from cli.server import parse_server

    wanted = None if everything else limit
    # One more than is shown tells whether there are more.
    found = newest_first(
        parse_server(url, token, token_file),
        states=parse_states(state or ()),
        project=project,
        limit=wanted + 1 if wanted is not None else None,
    )
    shown = found[:wanted]
    if as_json:
        terminal.print_json([each.as_json() for each in shown])
    elif not shown:
        terminal.say(
            "No simulations." if state or project else "No simulations yet. Submit one: simulations submit -- COMMAND"
        )
    else:
        browse.print_list(shown, more=len(found) > len(shown))


@app.command()
def show(
    simulation: SimulationId,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Show everything about a simulation."""
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
    """Draw a simulation's curve live, until it ends. Ctrl-C stops watching; the simulation goes on, unless attended."""
    from cli import watch
    from cli.requests import resolve_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    raise typer.Exit(watch.watch(server, simulation_id, metric or (), log_scale=log, as_json=as_json))


@app.command()
def logs(
    simulation: SimulationId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until it ends.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", min=1, help="Only the last lines of what there is.")
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(
            "--stream", metavar="STREAM", help="Only this: stdout, stderr or supervisor; repeat it for several."
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on behind this place: a `cursor` of --json.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Print a simulation's log.

    That is what it wrote that was no point, and what its supervisor said of it. Points are for `watch`.

    With --follow it goes on through lost connections, without a hole, and ends with the simulation. Control characters
    are left out; --json has everything, one chunk on a line.
    """
    from cli import logs
    from cli.arguments import STREAMS, parse_words
    from cli.requests import resolve_id
    from cli.server import parse_server

    streams = frozenset(parse_words("--stream", stream or (), STREAMS))
    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    raise typer.Exit(
        logs.logs(server, simulation_id, streams=streams, tail=tail, after=after, follow=follow, as_json=as_json)
    )


@app.command()
def cancel(
    simulations: SimulationIds,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Cancel simulations; one that runs is stopped first."""
    from cli.change import cancel_all
    from cli.server import parse_server

    raise typer.Exit(cancel_all(parse_server(url, token, token_file), simulations))


@app.command()
def retry(
    simulation: SimulationId,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Queue a new simulation like an ended one."""
    from cli.requests import resolve_id, retry
    from cli.server import parse_server
    from cli.submit import tell

    server = parse_server(url, token, token_file)
    tell(retry(server, resolve_id(server, simulation)), as_json=as_json, staying=False)


@app.command()
def projects(
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List projects by name. A new one is made by submitting to it."""
    from cli import browse
    from cli.requests import projects
    from cli.server import parse_server

    found = list(projects(parse_server(url, token, token_file)))
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    else:
        browse.print_projects(found)


app.add_typer(machine_commands.app, name="machines")
app.add_typer(token_commands.app, name="token")


def run() -> None:
    """Run the command line."""
    shells.register()
    app(prog_name="simulations")
