"""Commands that change simulations, or copy them: `cancel`, `delete`, `tag`, `pause`, ..."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion
from cli.listing import Filters
from cli.options import (
    AsJson,
    ChosenActive,
    ChosenSimulations,
    Notes,
    ObjectiveOrGuess,
    RuntimeEnv,
    SimulationId,
    SimulationIds,
    StopRules,
    Token,
    TokenFile,
    Url,
    Workdir,
    Yes,
    with_filters,
)


@with_filters
def cancel(
    simulations: ChosenActive = None,
    *,
    filters: Filters,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Cancel simulations; a running one is stopped first.

    \b
    simulations cancel 12 13
    simulations cancel --project vision --where 'lr>0.1'     those that have not ended, after a question
    """
    from cli.change import CANCEL, change_chosen
    from cli.server import parse_server

    raise typer.Exit(change_chosen(parse_server(url, token, token_file), CANCEL, simulations or (), filters, yes=yes))


@with_filters
def delete(
    simulations: ChosenSimulations = None,
    *,
    filters: Filters,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Delete ended simulations with their curves, logs, checkpoints and files, after a question.

    \b
    simulations delete 12 13
    simulations delete --state failed --until 30d     failed ones that are older than 30 days
    """
    from cli.change import DELETE, change_chosen
    from cli.server import parse_server

    raise typer.Exit(change_chosen(parse_server(url, token, token_file), DELETE, simulations or (), filters, yes=yes))


@with_filters
def tag(
    simulations: ChosenSimulations = None,
    add: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Tag to add; repeatable.", autocompletion=completion.tags)
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Tag to remove; repeatable.", autocompletion=completion.tags),
    ] = None,
    *,
    filters: Filters,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Add tags to simulations, and remove tags.

    \b
    simulations tag 12 13 --add best --remove todo
    simulations tag --sweep 3 --add baseline     its trials, after a question
    """
    from cli.change import change_chosen, tagging
    from cli.server import parse_server

    verb = tagging(add or (), remove or ())
    raise typer.Exit(change_chosen(parse_server(url, token, token_file), verb, simulations or (), filters, yes=yes))


@with_filters
def pause(
    simulations: ChosenActive = None,
    *,
    filters: Filters,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Pause simulations that wait in the queue: they get no machine until they are resumed.

    \b
    simulations pause --user ada     all that wait, after a question
    """
    from cli.change import PAUSE, change_chosen
    from cli.server import parse_server

    raise typer.Exit(change_chosen(parse_server(url, token, token_file), PAUSE, simulations or (), filters, yes=yes))


@with_filters
def resume(
    simulations: ChosenActive = None,
    *,
    filters: Filters,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Resume paused simulations.

    \b
    simulations resume --user ada     all that are paused, after a question
    """
    from cli.change import RESUME, change_chosen
    from cli.server import parse_server

    raise typer.Exit(change_chosen(parse_server(url, token, token_file), RESUME, simulations or (), filters, yes=yes))


def update(
    simulations: SimulationIds,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="New name.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "-t", metavar="TAG", help="All of its tags; repeatable.", autocompletion=completion.tags),
    ] = None,
    notes: Notes = None,
    priority: Annotated[int | None, typer.Option(help="Priority; matters while it is queued.")] = None,
    objective: ObjectiveOrGuess = None,
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
        typer.Option("--from-checkpoint", help="Begin with a copy of its checkpoint."),
    ] = False,
    workdir: Workdir = None,
    runtime_env: RuntimeEnv = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Submit a copy of an ended simulation; with changes, also of one that still runs.

    \b
    simulations retry last -p seed=7 --name again
    """
    from cli.packages import with_package
    from cli.requests import fork, get, resolve_id, retry
    from cli.server import parse_server
    from cli.submit import Fork, fork_input, tell, warn_of_own_values

    changes = fork_input(
        Fork(
            command or (), parameter or (), without or (), name=name, tags=tag, notes=notes, priority=priority,
            from_checkpoint=from_checkpoint, workdir=workdir, runtime_env=runtime_env,
        )
    )  # fmt: skip
    server = parse_server(url, token, token_file)
    simulation_id = resolve_id(server, simulation)
    if "workdir" in changes:
        changes = with_package(server, {**changes, "project": get(server, simulation_id).project.name}, {})
        del changes["project"]
    if changes:
        copy = fork(server, simulation_id, changes)
        tell(copy, as_json=as_json, staying=False)
        warn_of_own_values(copy, changes)
    else:
        tell(retry(server, simulation_id), as_json=as_json, staying=False)
