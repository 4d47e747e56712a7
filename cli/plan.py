"""`simulations plan`: machines over time, with what runs there and what is reserved, as text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from rich.text import Text

from cli.answers import Hold, Plan, PlannedMachine
from cli.tables import Column, print_table
from cli.terminal import clean, print_line, say_duration, state_text, stdout

WIDTH = 32  # characters of the timeline
LEAST_SPAN = timedelta(minutes=10)
SIGNS = {"HELD": "=", "LEAVING": "~", "RESERVED": ":"}
COLUMNS = (
    Column("MACHINE", folds=True),
    Column("STATE", from_width=70),
    Column("TIMELINE", from_width=110),
    Column("SIMULATION", folds=True),
    Column("WHEN"),
)
LEGEND = (
    f"{SIGNS['HELD']} runs, {SIGNS['LEAVING']} is being stopped, {SIGNS['RESERVED']} reserved, > without a known end"
)


def print_plan(plan: Plan) -> None:
    """Print a table with a row for each simulation on a machine, and one for each machine without any."""
    ends = [end for machine in plan.machines for hold in machine.holds if (end := _end(hold)) is not None]
    begins = [hold.begin for machine in plan.machines for hold in machine.holds if hold.kind == "RESERVED"]
    span = max([LEAST_SPAN, *(each - plan.now for each in (*ends, *begins))])
    rows: list[tuple[str | Text, ...]] = []
    for machine in plan.machines:
        holds = sorted(machine.holds, key=lambda each: (each.kind == "RESERVED", each.begin))
        rows += [_row(machine, hold, number == 0, plan.now, span) for number, hold in enumerate(holds)]
        if not holds:
            rows.append((clean(machine.name), state_text(machine.state), "." * WIDTH, "", "free"))
    print_table(stdout(), COLUMNS, rows)
    until = (plan.now + span).astimezone()
    print_line(f"{plan.queued:,} in the queue. The timeline begins now and ends {until:%Y-%m-%d %H:%M}: {LEGEND}.")


def _row(machine: PlannedMachine, hold: Hold, is_first: bool, now: datetime, span: timedelta) -> tuple[str | Text, ...]:
    name, state = (clean(machine.name), state_text(machine.state)) if is_first else ("", Text(""))
    of = hold.simulation
    who = f"{clean(of.name)} (#{of.number})" if of is not None else "(of another project)"
    return name, state, _bar(hold, now, span), who, ", ".join(_when(hold, now))


def _bar(hold: Hold, now: datetime, span: timedelta) -> str:
    end = _end(hold)
    first = min(max(int((hold.begin - now) / span * WIDTH), 0), WIDTH - 1)
    last = min(max(round((end - now) / span * WIDTH), first + 1), WIDTH) if end is not None else WIDTH
    sign = SIGNS.get(hold.kind, "?")
    bar = "." * first + sign * (last - first) + "." * (WIDTH - last)
    return bar if end is not None else f"{bar[:-1]}>"


def _end(hold: Hold) -> datetime | None:
    return hold.expected_end or hold.latest_end


def _when(hold: Hold, now: datetime) -> Iterator[str]:
    if hold.kind == "LEAVING":
        yield "is being stopped"
    if hold.kind == "RESERVED":
        yield f"reserved from {hold.begin.astimezone():%H:%M} on (in {_in(hold.begin, now)})"
        return
    if hold.expected_end is not None:
        yield f"about {_in(hold.expected_end, now)} left"
    if hold.latest_end is not None:
        yield f"at most {_in(hold.latest_end, now)} left"
    if hold.expected_end is None and hold.latest_end is None and hold.kind != "LEAVING":
        yield "end unknown"
    if hold.preemptible:
        yield "preemptible"


def _in(at: datetime, now: datetime) -> str:
    return say_duration(max(at - now, timedelta(0)))
