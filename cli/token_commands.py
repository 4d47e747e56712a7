"""`simulations token ...`: its commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.group import ListsByDefault
from cli.options import AsJson

app = typer.Typer(
    help="Make, list and revoke tokens. Works on the database itself.",
    cls=ListsByDefault,
    rich_markup_mode=None,
)
TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Whom the history names.")]


@app.command("create")
def create(
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

    tokens.create(tokens.NewToken(name, role, project or (), expires_in, output, if_none))


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all tokens that were made, newest first; never what they read."""
    from cli import tokens

    tokens.list_all(as_json=as_json)


@app.command("revoke")
def revoke(name: TokenName) -> None:
    """Let nobody in with a token any more, and end what was opened with it."""
    from cli import tokens

    tokens.revoke(name)
