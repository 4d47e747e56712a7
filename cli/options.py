"""The options and arguments that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import completion

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="SIMULATIONS_URL",
        help="Where the server is.  [that of this data directory, or else http://localhost:8000]",
    ),
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
SimulationId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The simulation's id, or the word `last`: the newest.",
        autocompletion=completion.simulations,
    ),
]
SimulationIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...", help="Ids, or the word `last`: the newest.", autocompletion=completion.active_simulations
    ),
]
ProjectName = Annotated[
    str | None,
    typer.Option("--project", metavar="NAME", help="Only of this project.", autocompletion=completion.projects),
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", "-m", help="Only this metric; repeat it for several.", metavar="NAME")
]
LogScale = Annotated[bool, typer.Option("--log", help="Draw values on a logarithmic scale.")]
