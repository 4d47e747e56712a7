"""Commands of `simulations files` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, SimulationId, Token, TokenFile, Url

EPILOG = """
\b
Examples:
  simulations files ls last
  simulations files get last                        all outputs, into this directory
  simulations files get last model.pt --to /tmp     one file
  simulations files get 108 --kind checkpoint       its newest checkpoint
  simulations files get 108 --kind package          the code that it starts in
"""

app = typer.Typer(
    help="List and download stored files of simulations: outputs and checkpoints.",
    epilog=EPILOG,
    rich_markup_mode=None,
    no_args_is_help=True,
)


@app.command()
def ls(
    simulation_id: SimulationId,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List the stored files of a simulation, with size, time and digest."""
    from cli import files
    from cli.requests import resolve_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    files.print_files(server, resolve_id(server, simulation_id), as_json=as_json)


@app.command()
def get(
    simulation_id: SimulationId,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Files, or directories with all below them.  [all]")
    ] = None,
    to: Annotated[Path, typer.Option("--to", metavar="DIRECTORY", help="Where to write them.")] = Path(),
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="output, checkpoint, or package: the code that it starts in, as tar.")
    ] = "output",
    rank: Annotated[int, typer.Option(help="Of a simulation on several machines: whose files.", min=0)] = 0,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Download stored files. What is there already, with the same content, is not downloaded again."""
    from cli import files, packages
    from cli.requests import resolve_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    if kind.lower() == packages.KIND:
        packages.get(server, resolve_id(server, simulation_id), paths or (), to)
        return
    files.download(server, resolve_id(server, simulation_id), paths or (), to=to, kind=kind, rank=rank)
