"""Options and arguments shared by several commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from cli import completion
from cli.arguments import Retryable
from cli.listing import Filters

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
        metavar="ID",
        help="Numbers, names or ids of simulations, or beginnings of names; `last`: the newest one.",
        autocompletion=completion.active_simulations,
    ),
]
_CHOSEN = "Numbers, names or ids of simulations, or beginnings of names; `last`: the newest one. Or a filter."
ChosenSimulations = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help=_CHOSEN, autocompletion=completion.simulations)
]
ChosenActive = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help=_CHOSEN, autocompletion=completion.active_simulations)
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
RetryOn = Annotated[
    list[str] | None,
    typer.Option(
        "--retry-on",
        metavar="REASON",
        help=f"Retry after: {', '.join(get_args(Retryable)).lower()}.  [server's default: machine_lost]",
    ),
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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without a question.")]


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that filter simulations, in the place of its parameter `filters`."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(_filters, eval_str=True).parameters

    @wraps(command)
    def called(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in options}
        command(filters=_filters(**chosen), **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        parameters += options.values() if name == "filters" else [parameter]
    called.__signature__ = own.replace(  # type: ignore[attr-defined]  # what `inspect.signature` reads
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    return called


def _filters(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            "-s",
            metavar="STATE",
            help="Filter by state: queued, starting, running, finished, failed, cancelled.",
            autocompletion=completion.states,
        ),
    ] = None,
    project: ProjectName = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            metavar="COMPARISON",
            help="Compare parameters: 'lr<1e-3', 'lr<1e-3, optimizer=adam'; repeatable. A number is "
            "compared with numbers only, text with text only, alphabetically.",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep", metavar="SWEEP", help="Only trials of this sweep: number, name or id; `last`: the newest."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            "-t",
            metavar="TAG",
            help="With this tag; repeatable: with all of them.",
            autocompletion=completion.tags,
        ),
    ] = None,
    any_tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="With this tag; repeatable: with any of them.", autocompletion=completion.tags
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Name, where * is any text and ? any character: 'vit*'.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text in the name, the command or the notes; or a number.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Submitted by this user.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Submitted since: 7d, 12h, or a local date like 2026-11-01.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Submitted before: likewise.")] = None,
) -> Filters:
    return Filters(
        states=tuple(state or ()), project=project, text=text, name=name, tags=tuple(tag or ()),
        any_tags=tuple(any_tag or ()), user=user, since=since, until=until, where=tuple(where or ()), sweep=sweep,
    )  # fmt: skip
