"""Commands of `simulations projects` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.group import ListsByDefault
from cli.options import AsJson, Token, TokenFile, Url

EPILOG = """
\b
Examples:
  simulations projects update vision --weight 2       twice the part of the machines, when projects compete
  simulations projects update vision --gpu-quota 8    at most 8 GPUs at once
  simulations projects update vision --gpu-quota none

Simulations beyond the quota wait, with the reason QUOTA; what runs is not stopped for it.
"""

app = typer.Typer(
    help="List projects, and change their weights and quotas. Submitting to a new name creates a project.",
    cls=ListsByDefault,
    epilog=EPILOG,
    rich_markup_mode=None,
)


@app.command("list")
def list_(
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List projects by name."""
    from cli import browse
    from cli.requests import projects
    from cli.server import parse_server

    found = list(projects(parse_server(url, token, token_file)))
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    else:
        browse.print_projects(found)


@app.command()
def update(
    project: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the project.", autocompletion=completion.projects)
    ],
    weight: Annotated[
        str | None,
        typer.Option(metavar="WEIGHT", help="Its part of the machines when projects compete; above 0."),
    ] = None,
    gpu_quota: Annotated[
        str | None, typer.Option(metavar="GPUS", help="How many GPUs it may use at once; none: no quota.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Change the weight and the GPU quota of a project."""
    from cli import browse
    from cli.arguments import parse_project_change
    from cli.requests import project_id, update_project
    from cli.server import parse_server

    wanted = parse_project_change(weight, gpu_quota)
    server = parse_server(url, token, token_file)
    changed = update_project(server, {**wanted, "id": project_id(server, project)})
    if as_json:
        terminal.print_json(changed.as_json())
    else:
        terminal.print_line(browse.project_sentence(changed))
