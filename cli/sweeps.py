"""`simulations sweep ...`: inputs, tables, progress, and the export to an Optuna study."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.status import Status
from rich.text import Text

from cli.answers import Sweep, SweepParameter, SweepTrial
from cli.arguments import short_command, written_out
from cli.errors import ExitCode, UsageError
from cli.money import is_set, money
from cli.packages import with_package
from cli.requests import create_sweep, sweep, trials, update_sweep
from cli.search import parse_pruning, parse_sampler, parse_space, say_sampler
from cli.server import Server
from cli.stop_rules import parse_objective
from cli.submit import Submission, combine, require_one_directory, submission_input, with_ids
from cli.tables import Column, print_table
from cli.terminal import (
    clean,
    print_line,
    say,
    say_age,
    say_count,
    say_duration,
    say_number,
    state_text,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    import optuna

LOOK_AGAIN_SECONDS = 2.0


# --- what is asked for -----------------------------------------------------------------------------------------


def sweep_input(
    submission: Submission,
    parameters: Sequence[str],
    given: Mapping[str, object],
    *,
    objective: str | None,
    sampler: str | None,
    options: Mapping[str, object],
    pruning: str | None,
    grace_period: int | None,
    reduction_factor: int | None,
) -> dict[str, object]:
    """Lay options over a sweep file: a CreateSweepInput, except machines, which stay names. Raises `UsageError`."""
    searched, fixed = parse_space(parameters)
    own = submission_input(submission)
    if fixed:
        own["parameters"] = fixed
    template = given.get("simulation")
    template = combine(template if isinstance(template, dict) else {}, own)
    if isinstance(kept := (given.get("simulation") or {}), dict) and fixed:
        template["parameters"] = {**kept.get("parameters", {}), **fixed}
    if not template.get("entrypoint"):
        raise UsageError(
            "No command given. Add it after two dashes: simulations sweep -p lr=0.1,0.2 -- train --lr {lr}"
        )
    wanted: dict[str, object] = {**given, "simulation": template, **options}
    if searched:
        before = given.get("parameters")
        names = {each["name"] for each in searched}
        kept_ones = [each for each in before if each["name"] not in names] if isinstance(before, list) else []
        wanted["parameters"] = [*kept_ones, *searched]
    if not wanted.get("parameters"):
        raise UsageError("Nothing to search. Give ranges or choices: -p lr=log:1e-4..1e-1 -p batch=64,128")
    if objective is not None:
        wanted["objective"] = parse_objective(objective)
    if wanted.get("objective") is None:
        raise UsageError("No objective given: --objective val/loss, or --objective score:max")
    if sampler is not None:
        wanted["sampler"] = parse_sampler(sampler)
    rule = parse_pruning(pruning) if pruning is not None else None
    asked = {"rule": rule, "gracePeriod": grace_period, "reductionFactor": reduction_factor}
    asked = {name: value for name, value in asked.items() if value is not None}
    if rule == "NONE" and len(asked) > 1:
        raise UsageError("--no-pruning can't be combined with --grace-period and --reduction-factor.")
    if rule == "MEDIAN" and reduction_factor is not None:
        raise UsageError("--reduction-factor belongs to --pruning halving.")
    if asked:
        before = given.get("pruning")
        wanted["pruning"] = {**before, **asked} if rule is None and isinstance(before, dict) else asked
    _require_first_rung(wanted.get("pruning"), template.get("limits"))
    return wanted


def _require_first_rung(pruning: object, limits: object) -> None:
    """Refuse a rule that has no step to begin at, in the words of files and options. Raises `UsageError`."""
    if not isinstance(pruning, dict) or pruning.get("rule") in (None, "NONE") or "gracePeriod" in pruning:
        return
    if not isinstance(limits, dict) or limits.get("maxSteps") is None:
        raise UsageError(
            f"Pruning by {str(pruning['rule']).lower()} needs the first step at which trials are compared: "
            "--grace-period N or --max-steps N; in a file, "
            "`pruning: {grace_period: N}` or `simulation: {limits: {max_steps: N}}`."
        )


def create(server: Server, wanted: Mapping[str, object]) -> Sweep:
    """Create a sweep. Raises `CommandError`."""
    template = wanted["simulation"]
    assert isinstance(template, dict)
    named = with_ids(server, require_one_directory(template), {})
    return create_sweep(server, {**wanted, "simulation": with_package(server, named, {})})


def warn_of_unused(wanted: Mapping[str, object]) -> None:
    """Point out searched parameters that are not in the command: all trials may be the same."""
    template, searched = wanted["simulation"], wanted["parameters"]
    assert isinstance(template, dict)
    assert isinstance(searched, list)
    command = [str(word) for word in template["entrypoint"]]
    text = "\n".join(command)
    unused = [str(each["name"]) for each in searched if f"{{{each['name']}}}" not in text]
    if not unused or "SIMULATION_PARAMETER" in text:
        return
    example = [*command, f"--{unused[0]}", f"{{{unused[0]}}}"]
    for _, _, replaced in written_out(command, unused):
        example = list(replaced)
        break
    is_one = len(unused) == 1
    say(
        f"Note: {', '.join(map(clean, unused))} {'is' if is_one else 'are'} not in the command: the program gets "
        f"{'it' if is_one else 'them'} only in SIMULATION_PARAMETERS. Braces put a value into the command: "
        f"{clean(short_command(example))}",
        style="yellow",
    )


def extend(server: Server, reference: str, wanted: Mapping[str, object]) -> Sweep:
    """Change a sweep. Raises `CommandError`."""
    if not wanted:
        raise UsageError("Nothing to change. Give an option: simulations sweep extend --help")
    return update_sweep(server, {"id": sweep(server, reference).id, **wanted})


# --- what is shown ---------------------------------------------------------------------------------------------


def tell(server: Server, made: Sweep, *, staying: bool) -> None:
    """Print the new sweep's number on standard output, its page and the next commands on standard error."""
    print_line(str(made.number))
    say(
        f"{clean(made.name)}: {say_count(made.counts.planned, 'trial')}, {made.parallel:,} at once, by "
        f"{say_sampler(made.sampler)}, in the project {clean(made.project.name)}."
    )
    if not staying:
        say(f"Follow it: simulations sweep watch {made.number}   The best one: simulations sweep best {made.number}")
    say(f"On the page: {server.url}/sweeps/{made.number}")


def print_list(found: Sequence[Sweep]) -> None:
    """Print a table of sweeps."""
    now = datetime.now(UTC)
    columns = (
        Column("ID", is_key=True), Column("NAME", from_width=24, max_width=40),
        Column("STATE", from_width=36), Column("TRIALS"), Column("BEST", from_width=50, max_width=40),
        Column("COST", from_width=70), Column("SAMPLER", from_width=90), Column("PROJECT", from_width=100),
        Column("CREATED", from_width=60),
    )  # fmt: skip
    rows = [
        (
            str(each.number), clean(each.name), state_text(each.state), f"{each.counts.ended}/{each.counts.planned}",
            _best(each), _cost(each), say_sampler(each.sampler), clean(each.project.name),
            say_age(each.created_at, now),
        )
        for each in found
    ]  # fmt: skip
    print_table(stdout(), columns, rows)


def show(found: Sweep, every: Sequence[SweepTrial]) -> None:
    """Print a sweep, its trials from the best to the worst, and the importance of parameters."""
    lines = [
        (f"{clean(found.name)} (#{found.number})", found.state),
        ("Trials", progress(found)),
        ("Search", f"{say_sampler(found.sampler)}, seed {found.seed}: {', '.join(map(_range, found.parameters))}"),
        ("Objective", f"{clean(found.objective.metric)}, {found.objective.mode}"),
    ]
    if found.reason_detail:
        lines.append(("Reason", clean(found.reason_detail)))
    if found.importances:
        shown = (f"{clean(each.name)} {100 * each.importance:.0f} %" for each in found.importances)
        lines.append(("Importance", ", ".join(shown)))
    width = max(len(title) for title, _ in lines) + 2
    for title, text in lines:
        print_line(f"{title:<{width}}{text}")
    print_line("")
    print_trials(found, every)


def print_trials(found: Sweep, every: Sequence[SweepTrial]) -> None:
    """Print a table of trials, the best first, then those without a result."""
    names = [each.name for each in found.parameters]
    columns = (
        Column("TRIAL", is_key=True), Column(clean(found.objective.metric, limit=30)),
        *([Column("SPREAD", from_width=60)] if found.seeds > 1 else []),
        *(Column(clean(name, limit=30), from_width=40 + 12 * place, max_width=30) for place, name in enumerate(names)),
        Column("STATE", from_width=36), Column("STEP", from_width=90), Column("RUN", from_width=50),
    )  # fmt: skip
    rows = [
        (
            str(each.number),
            say_number(each.value) if each.value is not None else "",
            *([say_number(each.spread) if each.spread is not None else ""] if found.seeds > 1 else []),
            *(clean(_shown(each.parameters.get(name)), limit=100) for name in names),
            each.state.lower() if each.state != "OPEN" else " ".join(sorted({run.state for run in each.simulations})),
            f"{each.step:,}" if each.step is not None else "",
            " ".join(f"#{run.number}" for run in each.simulations[:3]),
        )
        for each in ranked(found, every)
    ]
    print_table(stdout(), columns, rows)


def ranked(found: Sweep, every: Sequence[SweepTrial]) -> list[SweepTrial]:
    """Sort trials: complete ones by their result, then the others by number."""
    sign = -1 if found.objective.mode == "MAX" else 1

    def key(trial: SweepTrial) -> tuple[bool, float, int]:
        is_complete = trial.state == "COMPLETE" and trial.value is not None
        return not is_complete, sign * (trial.value or 0.0) if is_complete else 0.0, trial.number

    return sorted(every, key=key)


def progress(found: Sweep) -> str:
    """Return how far a sweep is, in a line: trials, the best so far, its cost, and when it ends."""
    counts = found.counts
    words = ("running", "queued", "pruned", "failed", "cancelled")
    numbers = (counts.running, counts.queued, counts.pruned, counts.failed, counts.cancelled)
    parts = [f"{number:,} {word}" for number, word in zip(numbers, words, strict=True) if number]
    line = f"{counts.ended:,}/{say_count(counts.planned, 'trial')}" + (f" ({', '.join(parts)})" if parts else "")
    if found.best is not None:
        line += f"; best {_best(found)} (trial {found.best.number}: {_parameters(found.best)})"
    if is_set(found.cost.amount):
        line += f"; {_cost(found)}"
    if found.estimated_end is not None:
        left = max(found.estimated_end - datetime.now(UTC), timedelta(0))
        line += f"; about {say_duration(left)} left"
    return line


def watch(server: Server, reference: str) -> ExitCode:
    """Follow a sweep to its end; the exit code is that of its state. Ctrl-C leaves it running."""
    console = stderr()
    status = Status("", console=console) if console.is_terminal else None
    before = ""
    if status is not None:
        status.start()
    try:
        while True:
            found = sweep(server, reference)
            reference = found.id
            line = progress(found)
            if found.is_over:
                break
            if status is not None:
                status.update(Text(line))
            elif (stable := line.partition("; about")[0]) != before:
                say(line)
                before = stable
            time.sleep(LOOK_AGAIN_SECONDS)
    except KeyboardInterrupt:
        say(f"Stopped watching; the sweep goes on. Stop it: simulations sweep cancel {clean(reference)}")
        return ExitCode.INTERRUPTED
    finally:
        if status is not None:
            status.stop()
    say(f"{line}. {found.state}: {clean(found.reason_detail or found.reason or '')}")
    return ExitCode.of(found.state)


def tell_best(found: Sweep) -> ExitCode:
    """Print the best trial: its first simulation's number on standard output, the rest on standard error."""
    best = found.best
    if best is None:
        say("No trial has a result yet.")
        return ExitCode.NOT_DONE
    if best.simulations:
        print_line(str(best.simulations[0].number))
    spread = f" ± {say_number(best.spread)}" if best.spread is not None else ""
    say(f"Trial {best.number}: {_best(found)}{spread}, {_parameters(best)}")
    return ExitCode.OK


def _best(found: Sweep) -> str:
    if found.best is None or found.best.value is None:
        return ""
    return clean(f"{found.objective.metric} {say_number(found.best.value)}")


def _cost(found: Sweep) -> str:
    spent = money(found.cost.amount, found.cost.currency)
    return spent if found.max_cost is None else f"{spent} of {money(found.max_cost, found.cost.currency)}"


def _parameters(trial: SweepTrial) -> str:
    return clean(", ".join(f"{name}={_shown(value)}" for name, value in sorted(trial.parameters.items())), limit=300)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return say_number(value)
    return value if isinstance(value, str) else json.dumps(value)


def _range(parameter: SweepParameter) -> str:
    if parameter.choices is not None:
        return clean(f"{parameter.name} of {', '.join(map(_shown, parameter.choices))}", limit=200)
    by = f" by {parameter.step:g}" if parameter.step is not None else ""
    log = " (log)" if parameter.log else ""
    return clean(f"{parameter.name} {parameter.low:g} to {parameter.high:g}{by}{log}")


# --- the export ------------------------------------------------------------------------------------------------


def export(server: Server, found: Sweep, target: str, name: str | None) -> int:
    """Write a sweep as an Optuna study; return how many trials it has. target: a file of SQLite, or a storage's URL."""
    from optuna import create_study, logging
    from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
    from optuna.study import StudyDirection

    logging.set_verbosity(logging.ERROR)
    storage = target if "://" in target else f"sqlite:///{target}"
    every = list(trials(server, found.id))
    direction = StudyDirection.MAXIMIZE if found.objective.mode == "MAX" else StudyDirection.MINIMIZE
    try:
        study = create_study(storage=storage, study_name=name or f"{found.name}-{found.number}", direction=direction)
    except DuplicatedStudyError:
        raise UsageError("This storage has a study of that name: give another one with --name.") from None
    except Exception as error:  # noqa: BLE001  # whatever the driver of a database raises
        raise UsageError(f"{clean(target)} can't be used as a storage: {clean(str(error), limit=300)}") from None
    study.set_user_attr("sweep", found.number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # it concerns Optuna, not the export
        study.set_metric_names([found.objective.metric])
    study.add_trials([_frozen(found, each) for each in every])
    return len(every)


def _frozen(found: Sweep, trial: SweepTrial) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial

    states = {
        "COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAILED": TrialState.FAIL,
        "CANCELLED": TrialState.FAIL,
    }  # fmt: skip
    state = states.get(trial.state, TrialState.RUNNING)
    seen = {trial.step: trial.value} if trial.step is not None and trial.value is not None else None
    return create_trial(
        state=state,
        value=trial.value if state is TrialState.COMPLETE else None,
        params={each.name: trial.parameters[each.name] for each in found.parameters},
        distributions={each.name: _distribution(each) for each in found.parameters},
        user_attrs={"trial": trial.number, "simulations": [each.number for each in trial.simulations]},
        intermediate_values=seen,
    )


def _distribution(parameter: SweepParameter) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)  # type: ignore[arg-type]  # texts, numbers and booleans
    assert parameter.low is not None
    assert parameter.high is not None
    step = None if parameter.log else parameter.step  # Optuna has none of both
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, int(step or 1))
    return FloatDistribution(parameter.low, parameter.high, parameter.log, step)
