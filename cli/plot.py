"""Text plots of curves: one small plot per metric, because each metric has its own unit.

plotext draws the lines; Rich adds colour, titles and layout. plotext is a compiled library, loaded with the first plot:
if it can't be loaded, `can_draw()` is false and the caller prints lines instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.curve import Metric
from cli.terminal import clean, say_number

MOST_PLOTS = 4  # the rest is shown as numbers
NARROWEST = 40  # columns of a plot beside another
LOWEST = 6  # rows
BRAILLE = r"[\u2801-\u28ff]+"
COLOURS = ("cyan", "green", "yellow", "magenta")


def can_draw() -> bool:
    """Whether the library that draws can be loaded here."""
    try:
        import plotext  # noqa: F401
    except ImportError:
        return False
    return True


def draw(metrics: Sequence[Metric], width: int, height: int, *, log_scale: bool) -> RenderableType:
    """Draw as many metrics as there is room for in `width` columns and `height` rows."""
    shown = list(metrics)[:MOST_PLOTS]
    columns = max(1, min(len(shown), width // NARROWEST))
    rows = math.ceil(len(shown) / columns) if shown else 0
    while rows * LOWEST > height and rows > 1:
        rows -= 1
    grid = Table.grid(padding=0)
    size = (width // columns, max(LOWEST, height // max(rows, 1)))
    plots = [_plot(metric, *size, log_scale, COLOURS[i % 4]) for i, metric in enumerate(shown[: rows * columns])]
    for start in range(0, len(plots), columns):
        grid.add_row(*plots[start : start + columns])
    return Group(grid, *(_numbers(metric) for metric in metrics))


def _numbers(metric: Metric) -> Text:
    line = Text(f"{clean(metric.name, limit=40):<12} ", no_wrap=True, overflow="ellipsis")
    last = metric.last_finite()
    if last is None:
        return line.append("no finite value yet" if metric.steps else "no point yet", style="dim")
    line.append(f"{say_number(last[1]):>10}", style="bold").append(f"  at step {last[0]}")
    lowest, highest = _range(metric.values)
    return line.append(f"   lowest {say_number(lowest)}   highest {say_number(highest)}", style="dim")


def _plot(metric: Metric, width: int, height: int, log_scale: bool, colour: str) -> Text:
    title = Text(clean(metric.name, limit=width - 10) + (" (log)" if log_scale else ""), style="bold")
    steps, values = metric.buckets(width * 2)
    drawn = [_place(value, log_scale) for value in values]
    points = [(step, value) for step, value in zip(steps, drawn, strict=True) if math.isfinite(value)]
    if not points:
        nothing = (
            "nothing above zero to draw on a log scale" if log_scale and metric.last_finite() else "no finite value yet"
        )
        return Text("\n").join([title, Text(nothing, style="dim"), *[Text("")] * (height - 2)])
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.plot_size(width - 1, height - 1)
    figure.canvas("default")
    signal = figure.signal([float(step) for step, _ in points], [value for _, value in points], marker="braille")
    signal.lines(True)
    for index in _after_gaps(drawn):
        signal.line(index, False)
    figure.draw(signal)
    xs = [points[0][0], (points[0][0] + points[-1][0]) // 2, points[-1][0]]
    xs = sorted(set(xs))
    figure.ruler("x").ticks([float(x) for x in xs], [_short(x) for x in xs])
    low, high = min(value for _, value in points), max(value for _, value in points)
    ys = sorted({low + (high - low) * part / 3 for part in range(4)})
    figure.ruler("y").ticks(ys, [say_number(10**y if log_scale else y) for y in ys])
    text = Text(figure.build().string(True).rstrip("\n"), no_wrap=True)
    text.highlight_regex(BRAILLE, colour)
    return Text("\n").join([title, text])


def _place(value: float, log_scale: bool) -> float:
    if not log_scale:
        return value
    return math.log10(value) if value > 0 else math.nan


def _after_gaps(values: Sequence[float]) -> list[int]:
    """Find drawn points that follow an undrawn value: no line leads to them."""
    found: list[int] = []
    position = 0
    gap = False
    for value in values:
        if not math.isfinite(value):
            gap = True
            continue
        if gap and position:
            found.append(position)
        gap = False
        position += 1
    return found


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return min(finite), max(finite)


def _short(step: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if abs(step) >= size:
            return f"{step / (1000 if unit == 'k' else size):.4g}{unit}"
    return str(step)
