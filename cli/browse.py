"""`simulations list`, `show` and `projects`: output as tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from rich.table import Table
from rich.text import Text

from cli.answers import Alert, Attempt, Details, Notice, Objective, Package, Project, Simulation, Source
from cli.files import say_size
from cli.listing import Sorting
from cli.money import is_set, money, price
from cli.tables import Column, print_table
from cli.terminal import clean, say_age, say_count, say_duration, say_number, state_text, stdout

MOST_EVENTS = 20  # of the history; the newest
LONGEST_TITLE = 30  # of a column that is named after a metric


def print_list(simulations: Sequence[Simulation], sorting: Sorting, *, more: bool) -> None:
    """Print a table; its first column after the name is what it is sorted by. more: there are some beyond it."""
    now = datetime.now(UTC)
    console = stdout()
    key = sorting.metric or sorting.parameter or ("COST" if sorting.field == "COST" else None)
    columns = (
        Column("ID", is_key=True),
        Column("NAME", from_width=24, max_width=40),
        *([Column(clean(key, limit=LONGEST_TITLE), from_width=30, max_width=40)] if key is not None else []),
        Column("BEST OBJECTIVE", from_width=80, max_width=40),
        Column("PROJECT", from_width=100, max_width=40),
        Column("STATE", from_width=36),
        Column("WHY", from_width=70, max_width=60, folds=True),
        Column("MACHINE", from_width=100, max_width=30),
        Column("CHANGED", from_width=60),
    )
    rows: list[tuple[str | Text, ...]] = [
        (
            str(each.number),
            clean(each.name),
            *([_key(each, sorting)] if key is not None else []),
            short_objective(each.objective),
            clean(each.project.name),
            state_text(each.state),
            clean(each.why, limit=200),
            clean(each.machine.name) if each.machine else "",
            say_age(each.changed_at, now),
        )
        for each in simulations
    ]
    print_table(console, columns, rows)
    if more:
        is_newest_first = (sorting.field, sorting.direction) == ("CREATED_AT", "DESC")
        console.print(
            Text(f"There are {'older' if is_newest_first else 'further'} ones: --limit N, or --all.", style="dim")
        )


def _key(simulation: Simulation, sorting: Sorting) -> str:
    """Return the value that a row is sorted by."""
    if sorting.parameter is not None:
        value = simulation.parameter
        return "" if value is None else clean(value if isinstance(value, str) else json.dumps(value), limit=100)
    if sorting.field == "COST":
        cost = simulation.cost
        return money(cost.amount, cost.currency) if cost is not None and is_set(cost.amount) else ""
    metric = simulation.metric
    if metric is None:
        return ""
    best = {"MIN": metric.min_value, "MAX": metric.max_value, None: metric.best_value}[sorting.mode]
    number = metric.last_value if sorting.field == "LAST" else best
    return say_number(number) if number is not None else ""


def short_objective(objective: Objective | None) -> str:
    """Return the objective in a few words: its best value where a direction is known, else its last one, named so."""
    if objective is None:
        return ""
    if objective.best_value is not None:
        return clean(f"{objective.metric} {say_number(objective.best_value)}")
    return clean(
        f"{objective.metric} {say_number(objective.value)} last" if objective.value is not None else objective.metric
    )


def print_projects(projects: Sequence[Project]) -> None:
    """Print a table, sorted by name."""
    now = datetime.now(UTC)
    columns = (
        Column("NAME", folds=True),
        Column("ID"),
        Column("WEIGHT", from_width=60),
        Column("GPU QUOTA", from_width=60),
        Column("MADE", from_width=50),
    )
    rows = [
        (clean(each.name), clean(each.id), amount(each.weight), quota(each.gpu_quota), say_age(each.created_at, now))
        for each in projects
    ]
    print_table(stdout(), columns, rows)


def project_sentence(project: Project) -> str:
    """Return a sentence about a project's weight and quota."""
    limit = f"{say_count(project.gpu_quota, 'GPU')} at once" if project.gpu_quota is not None else "no GPU quota"
    return f"Project {clean(project.name)}: weight {amount(project.weight)}, {limit}."


def amount(exact: str) -> str:
    """Format a decimal without trailing zeros."""
    return f"{Decimal(exact).normalize():f}"


def quota(gpus: int | None) -> str:
    return f"{gpus:,}" if gpus is not None else "none"


def print_details(simulation: Details) -> None:
    """Print the details of one simulation."""
    now = datetime.now(UTC)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for title, value in _facts(simulation, now):
        if value:
            facts.add_row(title, value)
    console = stdout()
    console.print(Text.assemble((clean(simulation.name), "bold"), "  ", state_text(simulation.state)))
    console.print(facts)
    for line in notice_lines(simulation.notices):
        console.print(Text(line, style="yellow"))
    if simulation.attempts:
        table = Table(box=None, pad_edge=False, header_style="bold", title="Attempts", title_justify="left")
        for heading in ("NO", "MACHINE", "BEGAN", "TOOK", "END"):
            table.add_column(heading, overflow="fold")
        for attempt in simulation.attempts:
            table.add_row(*_attempt(attempt, now))
        console.print()
        console.print(table)
    if simulation.events:
        table = Table(box=None, pad_edge=False, header_style="bold", title="History", title_justify="left")
        for heading in ("AT", "WHAT", "WHO"):
            table.add_column(heading, overflow="fold")
        for event in simulation.events[-MOST_EVENTS:]:
            table.add_row(f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}", clean(event.kind), clean(event.actor))
        console.print()
        console.print(table)


def notice_lines(notices: Sequence[Notice]) -> list[str]:
    """Return a line for each notice: how many, an example, what to change."""
    return [
        f"Notice: {clean(each.kind)}, {say_count(each.count, 'time')}"
        f"{f', as in `{clean(each.example, limit=100)}`' if each.example else ''}. {clean(each.advice)}"
        for each in notices
    ]


def _facts(simulation: Details, now: datetime) -> Iterator[tuple[str, str]]:
    resources, limits, cost = simulation.resources, simulation.limits, simulation.cost
    currency = cost.currency if cost is not None else ""
    yield "number", f"#{simulation.number}"
    yield "id", clean(simulation.id)
    yield "project", clean(simulation.project.name)
    yield "why", clean(simulation.why)
    yield "place in queue", f"{simulation.queue_position:,}" if simulation.queue_position is not None else ""
    yield "behind", clean(simulation.ahead.detail) if simulation.ahead is not None else ""
    yield "starts", _start(simulation.estimated_start, now)
    yield "command", clean(shlex.join(simulation.entrypoint), limit=2000)
    yield "directory", clean(simulation.working_directory or "")
    yield "package", _package(simulation.package)
    yield "runtime env", _json(simulation.runtime_env or {})
    yield "parameters", _json(simulation.parameters)
    # Values may be secrets, and a terminal may be seen by others: only --json shows them.
    yield "environment", ", ".join(clean(name) for name in simulation.environment)
    patterns = ", ".join(clean(pattern) for pattern in simulation.metrics_patterns)
    read = "" if simulation.metrics_from == "AUTO" and not patterns else simulation.metrics_from.lower()
    yield "metrics from", f"{clean(read)}{f', {patterns}' if patterns else ''}"
    yield "notes", clean(simulation.notes or "", limit=2000)
    yield "runs after", "\n".join(clean(each.words()) for each in simulation.after)
    yield "before", "\n".join(clean(each.words()) for each in simulation.dependents)
    yield "tags", ", ".join(clean(tag) for tag in simulation.tags)
    model = f" ({resources.gpu_model})" if resources.gpu_model else ""
    gpus = f"{say_count(resources.gpus, 'GPU')}{model}" if resources.gpus else ""
    needs = [
        f"{resources.cpus:g} {'cpu' if resources.cpus == 1 else 'cpus'}",
        f"{resources.memory_gib:g} GiB" if resources.memory_gib else "",
        gpus,
    ]
    needs += [f"{name}={value}" for name, value in resources.labels.items()]
    needs += [f"machine {resources.machine.name}"] if resources.machine else []
    if resources.max_price_per_hour is not None:
        needs.append(f"at most {price(resources.max_price_per_hour, currency)} per hour")
    several = f"{simulation.machines} machines, each with " if simulation.machines > 1 else ""
    yield "needs", clean(several + ", ".join(need for need in needs if need))
    yield "machine", clean(simulation.machine.name) if simulation.machine else ""
    yield "priority", str(simulation.priority) if simulation.priority else ""
    yield "preemptible", "yes" if simulation.preemptible else ""
    longest = limits.max_runtime_seconds
    runtime = f"{say_duration(timedelta(seconds=longest))}, " if longest is not None else ""
    runtime += f"at most {price(limits.max_cost, currency)} in all, " if limits.max_cost is not None else ""
    retries = say_count(limits.max_retries, "retry", "retries")
    yield "limits", f"{runtime}{retries} after {', '.join(map(clean, limits.retry_on)) or 'nothing'}"
    yield "planned steps", f"{limits.max_steps:,}" if limits.max_steps is not None else ""
    yield "objective", _objective(simulation.objective)
    stopping = simulation.stopping
    yield "stop rules", "\n".join(clean(rule.words(), limit=500) for rule in stopping.rules)
    yield "forecast", clean(simulation.forecast.sentence, limit=1000) if simulation.forecast is not None else ""
    yield "stopped by", clean(stopping.evidence.sentence, limit=1000) if stopping.evidence is not None else ""
    yield "dry run", "\n".join(f"{clean(each.reason)}: {clean(each.sentence)}" for each in stopping.would_have_stopped)
    yield "warning", "\n".join(clean(notice, limit=500) for notice in stopping.notices)
    yield "alerts", "\n".join(map(_alert, simulation.alerts))
    yield "submitted", f"{say_age(simulation.created_at, now)} by {clean(simulation.created_by)}"
    if simulation.started_at is not None:
        until = simulation.finished_at or now
        running = "" if simulation.finished_at else " so far"
        yield "took", f"{say_duration(until - simulation.started_at)}{running}"
    kept = simulation.checkpoint
    yield "checkpoint", f"{say_age(kept.at, now)}, on {clean(kept.machine_name)}" if kept is not None else ""
    yield "cost", money(cost.amount, cost.currency) if cost is not None and is_set(cost.amount) else ""
    yield from _source(simulation.source)
    yield "retry of", clean(simulation.retry_of.id) if simulation.retry_of else ""


def _start(at: datetime | None, now: datetime) -> str:
    if at is None:
        return ""
    return f"at the latest {at.astimezone():%Y-%m-%d %H:%M:%S}, in {say_duration(max(at - now, timedelta(0)))}"


def _objective(objective: Objective | None) -> str:
    if objective is None:
        return ""
    mode = f" ({objective.mode.lower()})" if objective.mode is not None else ""
    now = f", now {say_number(objective.value, 6)}" if objective.value is not None else ""
    best = ""
    if objective.best_value is not None and objective.best_step is not None:
        best = f", best {say_number(objective.best_value, 6)} at step {objective.best_step:,}"
    return clean(f"{objective.metric}{mode}{now}{best}")


def _alert(alert: Alert) -> str:
    name = alert.target.name if alert.target is not None else "a deleted target"
    return clean(f"{alert.type} to {name}: {alert.state.lower().replace('_', ' ')}")


def _attempt(attempt: Attempt, now: datetime) -> tuple[str, ...]:
    began = attempt.started_at or attempt.assigned_at
    end = attempt.reason or ("" if attempt.ended_at else "goes on")
    if attempt.exit_code:
        end += f", exit code {attempt.exit_code}"
    if attempt.signal:
        end += f", signal {attempt.signal}"
    if attempt.reason_detail:
        end += f": {attempt.reason_detail}"
    gpus = f" GPU {','.join(map(str, attempt.gpu_indices))}" if attempt.gpu_indices else ""
    took = say_duration((attempt.ended_at or now) - began)
    return str(attempt.number), f"{clean(attempt.machines)}{gpus}", say_age(began, now), took, clean(end)


def _json(value: dict[str, object] | object) -> str:
    return clean(json.dumps(value, ensure_ascii=False), limit=2000) if value else ""


def _package(package: Package | None) -> str:
    if package is None:
        return ""
    dirty = {True: " with changes", False: "", None: ""}[package.dirty]
    git = f", commit {package.commit[:12]}{dirty}" if package.commit else ""
    return clean(f"{package.name or 'unnamed'}, {say_size(package.size_bytes)}, {package.digest[:12]}{git}")


def _source(source: Source | None) -> Iterator[tuple[str, str]]:
    """What the newest attempt ran; packages are counted: `--json` has them all."""
    if source is None:
        return
    dirty = {True: ", with changes", False: ", without changes", None: ""}[source.dirty]
    remote = f" of {source.remote}" if source.remote else ""
    yield "commit", clean(f"{source.commit}{dirty}{remote}") if source.commit else ""
    packages = f", {say_count(len(source.packages), 'package')}" if source.packages else ""
    yield "ran on", clean(f"{source.host or ''}{f', Python {source.python}{packages}' if source.python else ''}")
