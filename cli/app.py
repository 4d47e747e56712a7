"""The commands and their options. Each parses, makes one call into its file, and returns an exit code.

Expected errors (`cli.errors`) become sentences on standard error here, for all commands; anything else is a defect and
keeps its traceback. A command imports what it needs when it runs: `simulations list` should not wait for a database
driver, and no command but `up`, `migrate` and `token` needs `db`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import terminal
from cli.errors import CommandError, ExitCode

EPILOG = (
    "Exit codes: 0 done, or the watched simulation FINISHED. 1 it FAILED, or the service could not start. "
    "2 wrong usage. 3 already running. 4 the port is taken. 5 the watched simulation was CANCELLED. "
    "6 the server could not be reached, or refused. 130 Ctrl-C."
)


class Commands(TyperGroup):
    """The group of all commands: turns expected errors into sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:  # typer's own Context, whose class it does not export
        try:
            return super().invoke(ctx)
        except CommandError as error:
            for line in str(error).splitlines():
                terminal.say(line, style="red")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    name="simulations",
    help="Schedule AI simulations, and watch each one's convergence curve live.",
    epilog=EPILOG,
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="SIMULATIONS_URL", help="Where the server is.", show_default=True)
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="TOKEN", envvar="SIMULATIONS_TOKEN", help="Who is asking; needed where there is a login."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        envvar="SIMULATIONS_TOKEN_FILE",
        help="The same out of a file: arguments can be read by everybody on this host. Wins over --token.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SimulationId = Annotated[str, typer.Argument(metavar="ID", help="The simulation's id, or the word `last`: the newest.")]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", "-m", help="Only this metric; repeat it for several.", metavar="NAME")
]
LogScale = Annotated[bool, typer.Option("--log", help="Draw values on a logarithmic scale.")]

DEFAULT_URL = "http://localhost:8000"


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
def migrate() -> None:
    """Bring the database's tables up to this version."""
    from cli.migrate import migrate

    raise typer.Exit(migrate())


# The first word that is no option begins the command: its own options are not ours, with or without the dashes.
@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="The program and its arguments; no shell. What follows it is its own, best after two dashes.",
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Made from the command if left out.")] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="A new name makes a new project.")] = None,
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
    memory_gib: Annotated[float | None, typer.Option(help="Memory it needs.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs it needs.")] = None,
    gpu_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Part of the model's name: A100.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="The machine must have it.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(metavar="MACHINE", help="Only on this machine: its name or id.")
    ] = None,
    max_price_per_hour: Annotated[
        str | None, typer.Option(metavar="PRICE", help="Only where it costs no more.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    max_runtime: Annotated[str | None, typer.Option(metavar="DURATION", help="End it after 90s, 15m, 2h, 1d.")] = None,
    max_retries: Annotated[
        int | None, typer.Option(help="How often it goes back to the queue when its machine is lost.")
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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow its curve until it ends.")] = False,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Queue a simulation: simulations submit --gpus 1 -- python train.py --epochs 20"""
    from cli import submit
    from cli import watch as watching
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    order = submit.Order(
        command=command, name=name, project=project, parameters=parameter or (), environment=env or (), tags=tag or (),
        cpus=cpus, memory_gib=memory_gib, gpus=gpus, gpu_model=gpu_model, labels=label or (), machine=machine,
        max_price_per_hour=max_price_per_hour, priority=priority, max_runtime=max_runtime, max_retries=max_retries,
        attended=attended, attended_grace=attended_grace, client_key=client_key, working_directory=working_directory,
    )  # fmt: skip
    simulation = submit.submit(server, order)
    submit.tell(simulation, as_json=as_json, watching=watch)
    if watch:
        raise typer.Exit(watching.watch(server, simulation.id, metric or (), log_scale=log, as_json=as_json))


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", metavar="STATE", help="Only these: queued, running, ...")
    ] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this project.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="No limit.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List simulations, newest first."""
    from cli import browse
    from cli.arguments import parse_states
    from cli.server import newest_first, parse_server

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
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Show everything about a simulation."""
    from cli import browse
    from cli.server import get, parse_server, resolve_id

    server = parse_server(url, token, token_file)
    details = get(server, resolve_id(server, simulation))
    if as_json:
        terminal.print_json(details.as_json())
    else:
        browse.print_details(details)


@app.command()
def watch(
    simulation: SimulationId,
    metric: Metrics = None,
    log: LogScale = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Draw a simulation's curve live, until it ends. Ctrl-C stops watching; the simulation goes on, unless attended."""
    from cli import watch
    from cli.server import parse_server, resolve_id

    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    raise typer.Exit(watch.watch(server, simulation_id, metric or (), log_scale=log, as_json=as_json))


@app.command()
def cancel(
    simulations: Annotated[list[str], typer.Argument(metavar="ID", help="Ids, or the word `last`: the newest.")],
    url: Url = DEFAULT_URL,
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
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Queue a new simulation like an ended one."""
    from cli.server import parse_server, resolve_id, retry
    from cli.submit import tell

    server = parse_server(url, token, token_file)
    tell(retry(server, resolve_id(server, simulation)), as_json=as_json, watching=False)


token_app = typer.Typer(
    help="Make, list and revoke the tokens that let people and programs in. Works on the database itself.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(token_app, name="token")
TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Whom the history names.")]


@token_app.command("create")
def token_create(
    name: TokenName,
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="viewer reads, operator runs simulations, admin does everything.")
    ],
    project: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only for this one, made if it is new; repeat it for several.  [all]"),
    ] = None,
    expires_in: Annotated[str | None, typer.Option(metavar="DURATION", help="30d, 12h.  [never]")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, for its owner only, and do not print it.")
    ] = None,
    if_none: Annotated[bool, typer.Option("--if-none", help="Do nothing if there is a valid token already.")] = False,
) -> None:
    """Make a token. It is printed once, on standard output, and can't be read again."""
    from cli import tokens

    tokens.create(tokens.Order(name, role, project or (), expires_in, output, if_none))


@token_app.command("list")
def token_list(as_json: AsJson = False) -> None:
    """List all tokens that were made, newest first; never what they read."""
    from cli import tokens

    tokens.list_all(as_json=as_json)


@token_app.command("revoke")
def token_revoke(name: TokenName) -> None:
    """Let nobody in with a token any more, and end what was opened with it."""
    from cli import tokens

    tokens.revoke(name)


def main() -> None:
    """Run the command line."""
    app()
