"""The tree of commands (`*_commands`). Each parses, makes one call into its module, and returns an exit code.

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
    change_commands,
    file_commands,
    machine_commands,
    project_commands,
    read_commands,
    service_commands,
    shells,
    submit_commands,
    sweep_commands,
    token_commands,
)
from cli.group import Commands

EPILOG = """
\b
Exit codes:
  0    success; submit --wait, submit --watch, watch, demo: the simulation is FINISHED
  1    the simulation FAILED; up, migrate: failed to start; doctor: found a problem
  2    wrong usage; the message names the expected value
  3    the service already runs on this data directory
  4    the port is in use
  5    the simulation was CANCELLED
  6    the server was unreachable or refused the request, or a question was not answered with yes
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


# In the order in which --help lists them.
app.command()(service_commands.up)
app.command()(service_commands.doctor)
app.command()(service_commands.migrate)
# The first word that is no option begins the command; later options are the command's, with or without `--`.
app.command(context_settings={"allow_interspersed_args": False})(submit_commands.submit)
app.command()(submit_commands.demo)
app.command("list")(read_commands.list_)
app.command()(read_commands.show)
app.command()(read_commands.watch)
app.command()(read_commands.curve)
app.command()(read_commands.logs)
app.command()(change_commands.cancel)
app.command()(change_commands.delete)
app.command()(change_commands.tag)
app.command()(change_commands.pause)
app.command()(change_commands.resume)
app.command()(change_commands.update)
app.command()(change_commands.retry)
app.command()(read_commands.costs)
app.command()(read_commands.plan)
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
