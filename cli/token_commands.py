"""Commands of `simulations token` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.group import ListsByDefault
from cli.options import AsJson

app = typer.Typer(
    help="Create, list and revoke API tokens, directly in the database.",
    cls=ListsByDefault,
    rich_markup_mode=None,
)
TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token, shown in the history.")]


@app.command("create")
def create(
    name: TokenName,
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="viewer: read; operator: run simulations; admin: everything.")
    ],
    project: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Limit to this project, created if new; repeatable.  [all]"),
    ] = None,
    expires_in: Annotated[str | None, typer.Option(metavar="DURATION", help="Lifetime: 30d, 12h.  [unlimited]")] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the token to this new file (mode 0600) instead of printing it."),
    ] = None,
    if_none: Annotated[bool, typer.Option("--if-none", help="Do nothing if a valid token exists.")] = False,
) -> None:
    """Create a token. It is printed once, on standard output, and can't be shown again."""
    from cli import tokens

    tokens.create(tokens.NewToken(name, role, project or (), expires_in, output, if_none))


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all tokens, newest first, without their secrets."""
    from cli import tokens

    tokens.list_all(as_json=as_json)


@app.command("revoke")
def revoke(name: TokenName) -> None:
    """Revoke a token and close the connections opened with it."""
    from cli import tokens

    tokens.revoke(name)
