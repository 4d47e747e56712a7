"""Commands of `simulations alert` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.group import ListsByDefault
from cli.options import AsJson, Token, TokenFile, Url

EPILOG = """
\b
Examples:
  simulations alert create ops https://hooks.example.org/simulations --default
      A webhook for everything, signed by Standard Webhooks. Its secret is printed once.
  simulations alert create vision - --project vision --on failed --on diverged < url
      A URL of Apprise from standard input, because all users of a host can read arguments:
      slack://..., mailto://..., msteams://..., discord://..., ntfy://... (https://appriseit.com/services/)
  simulations alert update ops --to https://hooks.example.org/new --on failed
  simulations alert test ops
  simulations submit --alert ops -- python train.py

\b
Kinds for --on:
  ended           finished, failed or cancelled      diverged        stopped: a bound, NaN or infinite
  failed          failed, for any reason             target-reached  stopped: at its target
  machine-lost    whether it is retried or not       plateau         stopped: no improvement
  waits-too-long  in the queue for an hour (SIMULATIONS_ALERT_WAIT_SECONDS); equal ones are one alert
  budget          80 percent of a budget, or all of it, is spent

\b
A message is sent until it is accepted, for three days at most, and may arrive twice: its webhook-id is the same.
Only administrators create, change, test and delete targets, and see their URLs.
"""

app = typer.Typer(
    help="List, create, change, test and delete receivers of alerts: webhooks, e-mail, chats.",
    cls=ListsByDefault,
    epilog=EPILOG,
    rich_markup_mode=None,
)

TargetName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name or id of the alert target.", autocompletion=completion.alert_targets),
]


@app.command("list")
def list_(as_json: AsJson = False, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """List alert targets, with what became of their newest messages."""
    from cli import alerts
    from cli.requests import alert_targets
    from cli.server import parse_server

    found = list(alert_targets(parse_server(url, token, token_file)))
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    elif not found:
        terminal.say("No alert targets. An administrator creates one: simulations alert create --help")
    else:
        alerts.print_list(found)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, for submit --alert NAME.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="http(s)://... of a webhook, or a URL of Apprise; `-`: read it from standard input."
        ),
    ],
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="KIND", help="Listen to this kind; repeatable.  [all]")
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project",
            metavar="NAME",
            help="Let this project use it; repeatable.  [all]",
            autocompletion=completion.projects,
        ),
    ] = None,
    default: Annotated[
        bool,
        typer.Option("--default", help="Use it for budgets, and for simulations that name no target, of its projects."),
    ] = False,
    apprise: Annotated[
        bool, typer.Option("--apprise", help="The http(s):// URL is one of Apprise, not of a webhook.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Create an alert target. The secret of a webhook is printed once, on standard output."""
    from cli import alerts
    from cli.requests import create_alert_target, project_id
    from cli.server import parse_server

    wanted = alerts.create_input(alerts.NewTarget(name, target, on or (), default, apprise))
    server = parse_server(url, token, token_file)
    if project:
        wanted["projects"] = [project_id(server, each) for each in project]
    made = create_alert_target(server, wanted)
    if as_json:
        terminal.print_json(made.as_json())
    else:
        alerts.tell_created(made)


@app.command()
def update(
    target: TargetName,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A new name.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="URL", help="A new URL of the same kind of receiver; `-`: read it from standard input."
        ),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="KIND", help="Listen to this kind; replaces all kinds; repeatable."),
    ] = None,
    all_kinds: Annotated[bool, typer.Option("--all-kinds", help="Listen to all kinds.")] = False,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project",
            metavar="NAME",
            help="Let this project use it; replaces all projects; repeatable.",
            autocompletion=completion.projects,
        ),
    ] = None,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Let all projects use it.")] = False,
    default: Annotated[
        bool | None,
        typer.Option(
            "--default/--no-default",
            help="Use it for budgets, and for simulations that name no target, of its projects.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Change an alert target. Its secret stays, and messages that wait are sent to a new URL at once."""
    from cli import alerts
    from cli.requests import alert_target_id, project_id, update_alert_target
    from cli.server import parse_server

    change = alerts.TargetChange(name, to, on, all_kinds, project, all_projects, default)
    wanted = alerts.change_input(change)
    server = parse_server(url, token, token_file)
    wanted["id"] = alert_target_id(server, target)
    if project:
        wanted["projects"] = [project_id(server, each) for each in project]
    changed = update_alert_target(server, wanted)
    if as_json:
        terminal.print_json(changed.as_json())
    else:
        terminal.print_line(f"{terminal.clean(changed.id)}  {terminal.clean(changed.name)}: changed")


@app.command("test")
def send_test(
    target: TargetName,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Send a test message, and wait until it is accepted or an attempt fails."""
    from cli import alerts
    from cli.requests import alert_target_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    raise typer.Exit(alerts.test(server, target, alert_target_id(server, target)))


@app.command()
def delete(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Names or ids of alert targets.", autocompletion=completion.alert_targets),
    ],
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Delete alert targets with their messages, also those that were not sent yet."""
    from cli.change import delete_alert_targets
    from cli.server import parse_server

    raise typer.Exit(delete_alert_targets(parse_server(url, token, token_file), targets))
