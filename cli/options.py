"""Options and arguments shared by several commands."""

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
        help="URL of the server.  [the one of this data directory, else http://localhost:8000]",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="TOKEN", envvar="SIMULATIONS_TOKEN", help="API token; needed if the server requires a login."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        envvar="SIMULATIONS_TOKEN_FILE",
        help="File with the API token; overrides --token. Safer: all users of a host can read arguments.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SimulationId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Number, name or id of the simulation, or the beginning of its name; `last`: the newest one.",
        autocompletion=completion.simulations,
    ),
]
SimulationIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="Numbers, names or ids of simulations, or beginnings of names; `last`: the newest one.",
        autocompletion=completion.active_simulations,
    ),
]
ProjectName = Annotated[
    str | None,
    typer.Option("--project", metavar="NAME", help="Filter by project.", autocompletion=completion.projects),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", "-m", help="Only this metric; repeatable.", metavar="NAME", autocompletion=completion.metrics
    ),
]
Notes = Annotated[str | None, typer.Option(metavar="TEXT", help="Free text about it.")]
LogScale = Annotated[bool, typer.Option("--log", help="Draw values on a logarithmic scale.")]
StopRules = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="RULE",
        help="Stop rule: plateau,metric=val/loss. Repeatable; any of them stops it. Its parts: submit --help.",
    ),
]
ObjectiveMetric = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="METRIC[:MODE]",
        help="Metric by which it is judged: val/loss, or acc:max.  [server's default: by the first stop rule]",
        autocompletion=completion.metrics,
    ),
]
AlertNames = Annotated[
    list[str] | None,
    typer.Option(
        "--alert",
        metavar="NAME",
        help="Alert target that hears of it; repeatable; none: no target.  [the defaults of its project]",
        autocompletion=completion.alert_targets,
    ),
]
ObjectiveOrGuess = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="METRIC[:MODE]",
        help="Metric by which it is judged: val/loss, or acc:max; '': that of its first stop rule, else guessed.",
        autocompletion=completion.metrics,
    ),
]
Workdir = Annotated[
    str | None,
    typer.Option(
        "--workdir",
        metavar="DIR",
        help="Send this directory along and start in it; `.`: this one. Left out: what .gitignore names.",
    ),
]
RuntimeEnv = Annotated[
    str | None,
    typer.Option(
        "--runtime-env",
        metavar="FILE",
        help="Ray's runtime environment (pip, uv, conda, config, env_vars): a YAML file, or JSON. For clusters only.",
    ),
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", metavar="AMOUNT", help="Maximum cost of all attempts together: 12.50.")
]
MaxSteps = Annotated[
    int | None,
    typer.Option(metavar="STEPS", help="Planned number of steps, for stop rules and forecasts; never enforced."),
]
GpuModel = Annotated[str | None, typer.Option(metavar="MODEL", help="Required GPU model, or part of its name: A100.")]
RequiredLabels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Required label of the machine.")
]
OnlyMachine = Annotated[
    str | None,
    typer.Option(metavar="MACHINE", help="Run only on this machine: name or id.", autocompletion=completion.machines),
]
MaxPrice = Annotated[str | None, typer.Option(metavar="PRICE", help="Maximum price per hour.")]
Priority = Annotated[int | None, typer.Option(help="Priority; higher is placed first.")]
