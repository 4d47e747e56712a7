"""Commands that work on an installation: `up`, `doctor`, `migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson


def up(
    build: Annotated[
        bool, typer.Option("--build", help="In a checkout: also build the dashboard if it is out of date.")
    ] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C. HOST, PORT and DATABASE_URL configure it."""
    from cli.up import up

    raise typer.Exit(up(builds_pages=build))


def doctor(as_json: AsJson = False) -> None:
    """Check this installation and print advice for each problem. Changes nothing.

    Run it on the host of the service with the service's settings (DATABASE_URL, HOST, PORT, SIMULATIONS_DATA_DIR,
    ...). It checks the data directory, disk, port, database and tables, clock, processes and machines.
    """
    from cli.doctor import doctor

    raise typer.Exit(doctor(as_json=as_json))


def migrate() -> None:
    """Migrate the database to the schema of this version."""
    from cli.migrate import migrate

    raise typer.Exit(migrate())
