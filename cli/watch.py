"""`simulations watch`: a simulation's live curve until its end; the exit code is that of the final state.

Three displays (`cli.follow.Display`): a drawing on a terminal, a line per event elsewhere, the events with `--json`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.advice import say_advice, say_notices
from cli.answers import ConvergenceEvent, Objective, Simulation
from cli.curve import Curve
from cli.errors import ExitCode
from cli.follow import Follower
from cli.plot import can_draw, draw
from cli.server import Server
from cli.terminal import clean, print_json, print_line, say, say_duration, say_number, state_text, stdout

FRAME_SECONDS = 0.125
DRAWING_SHARE = 0.1  # of a CPU, at most, for a curve of millions of points
TALLEST = 24  # rows of plots: more rows show no more detail


def watch(server: Server, simulation_id: str, metrics: Sequence[str], *, log_scale: bool, as_json: bool) -> ExitCode:
    """Watch a simulation to its end. Raises `CommandError`."""
    console = stdout()
    told = Told(simulation_id)
    try:
        if as_json:
            asyncio.run(Follower(server, simulation_id, metrics, JsonLines(told)).run())
        elif console.is_terminal and can_draw():
            asyncio.run(_draw(server, simulation_id, metrics, told, console, log_scale=log_scale))
        else:
            asyncio.run(Follower(server, simulation_id, metrics, Lines(told)).run())
    except KeyboardInterrupt:
        attended = told.now is not None and told.now.attended
        fate = "is stopped soon unless a client watches it" if attended else "goes on"
        say(f"Stopped watching; the simulation {fate}. Watch it again: simulations watch {clean(simulation_id)}")
        return ExitCode.INTERRUPTED
    if not as_json:
        print_line(told.end())
        say_notices(server, told.now)
        say_advice(server, told.now)
    return ExitCode.of(told.curve.state)


class Told:
    """Received state and curve, shared by the displays."""

    def __init__(self, simulation_id: str) -> None:
        self.id = simulation_id
        self.curve = Curve()
        self.now: Simulation | None = None
        self._is_out = False

    def update(self, simulation: Simulation) -> None:
        """Update the simulation's state; the connection is up."""
        if self._is_out:
            say("Connected again.")
        self.now, self._is_out = simulation, False

    def say_outage(self, sentence: str) -> None:
        """Report a lost connection once, for any number of tries."""
        if not self._is_out:
            say(sentence)
        self._is_out = True

    @property
    def objective(self) -> str | None:
        """The metric by which the simulation is judged."""
        return self.now.objective.metric if self.now is not None and self.now.objective is not None else None

    def _is_past(self, objective: Objective) -> bool:
        """Whether the best value is older than the newest, which the line has anyway."""
        metric = self.curve.metrics.get(objective.metric)
        last = metric.last_finite() if metric is not None else None
        return last is None or last[0] != objective.best_step

    def head(self) -> Text:
        """Return the state line."""
        if self.now is None:
            return Text(f"Asking for {clean(self.id)} …", style="dim")
        now = self.now
        line = Text.assemble((clean(now.name), "bold"), "  ", state_text(now.state))
        if now.machine is not None and not now.is_final:
            line.append(f" on {clean(now.machine.name)}")
        if self.curve.attempt > 1:
            line.append(f", attempt {self.curve.attempt}")
        if now.started_at is not None:
            line.append(f", {say_duration((now.finished_at or datetime.now(UTC)) - now.started_at)}")
        if now.why:
            line.append(f"  {clean(now.why)}", style="dim")
        return line

    def end(self) -> Text:
        """Return the final line: "FINISHED (COMPLETED) after 12.3 s, loss 0.021 at step 199"."""
        state, reason = self.curve.state, self.curve.reason
        line = Text.assemble(state_text(state), f" ({clean(reason)})" if reason else "")
        if self.now is not None and self.now.finished_at is not None:
            began = self.now.started_at or self.now.created_at
            line.append(f" after {say_duration(self.now.finished_at - began)}")
        objective = self.now.objective if self.now is not None else None
        if objective is not None and objective.best_value is not None and self._is_past(objective):
            best = f"best {objective.metric} {say_number(objective.best_value)} at step {objective.best_step}"
            line.append(f", {clean(best)}")
        summary = self.curve.summary(self.objective)
        if summary:
            line.append(f", {clean(summary)}")
        if self.now is not None and self.now.reason_detail:
            line.append(f": {clean(self.now.reason_detail)}")
        return line


class Lines:
    """Display: a plain line for each event, for pipes, logs and screen readers."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._said = ""

    def simulation(self, simulation: Simulation) -> None:
        self._told.update(simulation)
        line = f"{simulation.state} {clean(simulation.why)}".rstrip()
        if line != self._said and not simulation.is_final:
            print_line(f"{clean(simulation.name)}: {line}")
        self._said = line

    def event(self, event: ConvergenceEvent) -> None:
        self._told.curve.add(event)
        newest: dict[int, list[str]] = {}
        for series in event.series:
            if series.supersedes_from is not None:
                print_line(
                    f"attempt {event.attempt}: {clean(series.metric)} goes on from step {series.supersedes_from}"
                )
            if series.steps:
                value = series.values[-1]
                told = f"{clean(series.metric, limit=100)}={'not finite' if value is None else say_number(value)}"
                newest.setdefault(series.steps[-1], []).append(told)
        for step, values in newest.items():
            print_line(f"step {step}  {' '.join(values)}")

    def outage(self, sentence: str) -> None:
        self._told.say_outage(sentence)


class JsonLines:
    """Display: events as in the API, one JSON object per line."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def simulation(self, simulation: Simulation) -> None:
        self._told.update(simulation)

    def event(self, event: ConvergenceEvent) -> None:
        self._told.curve.add(event)
        print_json(event.as_json())

    def outage(self, sentence: str) -> None:
        self._told.say_outage(sentence)


class Drawing:
    """Display: curves, redrawn in place a few times a second."""

    def __init__(self, told: Told, console: Console, *, log_scale: bool) -> None:
        self._told = told
        self._console = console
        self._log_scale = log_scale
        self._outage = ""

    def simulation(self, simulation: Simulation) -> None:
        self._told.update(simulation)
        self._outage = ""

    def event(self, event: ConvergenceEvent) -> None:
        self._told.curve.add(event)
        self._outage = ""

    def outage(self, sentence: str) -> None:
        self._outage = sentence

    def frame(self) -> Group:
        """Draw the current state at the terminal's current size."""
        width, height = self._console.size
        metrics = self._told.curve.leading(self._told.objective)
        rows = min(TALLEST, height - len(metrics) - 4)
        parts = [draw(metrics, width, rows, log_scale=self._log_scale)] if metrics else []
        outage = [Text(self._outage, style="yellow")] if self._outage else []
        return Group(self._told.head(), *parts, *outage)


async def _draw(
    server: Server, simulation_id: str, metrics: Sequence[str], told: Told, console: Console, *, log_scale: bool
) -> None:
    drawing = Drawing(told, console, log_scale=log_scale)
    with Live(drawing.frame(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        frames = asyncio.create_task(_redraw(live, drawing))
        try:
            await Follower(server, simulation_id, metrics, drawing).run()
        finally:
            frames.cancel()
            with suppress(asyncio.CancelledError):
                await frames
            live.update(drawing.frame(), refresh=True)


async def _redraw(live: Live, drawing: Drawing) -> None:
    while True:
        began = time.perf_counter()
        live.update(drawing.frame(), refresh=True)
        await asyncio.sleep(max(FRAME_SECONDS, (time.perf_counter() - began) / DRAWING_SHARE))
