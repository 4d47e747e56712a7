"""Commands that only read: `list`, `show`, `watch`, `curve`, `logs`, `costs`, `plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.listing import Filters
from cli.options import AsJson, LogScale, Metrics, ProjectName, SimulationId, Token, TokenFile, Url, with_filters


@with_filters
def list_(
    filters: Filters,
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
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="Maximum number of simulations.")
    ] = 20,
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
    from cli import browse
    from cli.errors import ServerRefused
    from cli.listing import parse_sort
    from cli.requests import matching
    from cli.server import parse_server

    wanted = None if everything else limit
    sorting = parse_sort(sort, reverse=reverse)
    server = parse_server(url, token, token_file)
    # Ask for one more than is shown, to detect further ones.
    try:
        found = matching(
            server,
            filters,
            limit=wanted + 1 if wanted is not None else None,
            sorting=sorting if sort is not None or reverse else None,
        )
    except ServerRefused as refusal:
        raise sorting.as_typed(refusal) from None
    shown = found[:wanted]
    if as_json:
        terminal.print_json([each.as_json() for each in shown])
    elif not shown:
        terminal.say(
            "No simulations."
            if filters != Filters()
            else "No simulations yet. Submit one: simulations submit -- COMMAND"
        )
    else:
        browse.print_list(shown, sorting, more=len(found) > len(shown))


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


def curve(
    simulation: SimulationId,
    metric: Metrics = None,
    max_points: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=100_000, help="At most so many points of each metric, chosen by the curve's shape."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values: the default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each point.")] = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Print a simulation's points so far: metric, step, value, seconds since the attempt's start, attempt.

    Values that are not finite are NaN, Infinity and -Infinity, in JSON as strings. Points that a later attempt reported
    again are left out. `watch --json` prints events as they come.
    """
    from cli import points
    from cli.errors import UsageError
    from cli.requests import resolve_id
    from cli.server import parse_server

    if as_csv and as_json:
        raise UsageError("--csv and --json can't be combined.")
    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    raise typer.Exit(points.curve(server, simulation_id, metric or (), max_points=max_points, as_json=as_json))


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
