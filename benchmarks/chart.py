"""Redraw time of the dashboard's chart, legend included, when points arrive, in headless Chromium.

The floor is uPlot alone with the same points, redrawn alternately. Then 100 runs in one chart, in turns with uPlot
alone: how long a redraw takes for a new point of each run, for another run that stands out, and for a zoom. And the
page of a comparison of 100 runs of 10,000 points on a service, in turns with that of one of them: from the start of its
navigation to the first picture with all curves in it, for curves that were looked at before (`db.curve_levels`) and for
the first look at them. The bars are a frame and a second.

Other processes make a redraw take longer, not cost more: for the 100 runs the CPU time of Chromium's renderer and GPU
processes is measured, too, which hardly depends on them. Needs Playwright and Chromium; if one of them is missing, it
prints a message and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.database import fresh_database
from benchmarks.report import Row, publish
from benchmarks.service import running_service
from benchmarks.stored import STORED
from db.connection import connect_raw

WEB = Path(__file__).resolve().parents[1] / "web"
BUILT = WEB / "benchmark" / "dist"
FRAME_MS = 16.7  # of a screen with 60 Hz
FRESH = 20  # new points a frame
RUNS = 100
RUN_POINTS = 10_000
THINNED = 600  # points that the page asks for of each of 100 runs (web/src/compare/runs.svelte.ts)
BATCH = 100  # points of a row, as a quick program has them
FIRST_PICTURE_MS = 1_000.0
OPENED = 7  # times; the first warms server and browser
KINDS = {
    "floor": "uPlot alone, a new point for each", "grown": "a new point for each", "highlighted": "another stands out",
    "zoomed": "zoomed",
}  # fmt: skip
TURNS = 6  # in each of which each kind is redrawn

# $1: runs, $2: points of each, $3: points of a batch. The last one has a tag of its own, too.
FILL = (
    """
WITH runs AS (
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, reason, attempt, tags, parameters,
                             started_at, finished_at, final_cost)
    SELECT p.id, 'run ' || n, '{true}', 'ada', 'FINISHED', 'COMPLETED', 1,
           CASE WHEN n = $1::int THEN ARRAY['many', 'one'] ELSE ARRAY['many'] END, jsonb_build_object('lr', n / 1e4),
           now() - interval '1 h', now(), 1
    FROM projects AS p, generate_series(1, $1::int) AS n WHERE p.name = 'default'
    RETURNING id, started_at, finished_at
), points AS (
    SELECT id, 'val/loss' AS metric, s, s::bigint AS step, 1 + s / $3::int AS batch, s * 0.1::float8 AS elapsed,
           (1 + id % 50) / 50.0 * (0.1 + 2.2 * exp(-s / 2000.0) + 0.02 * sin(s * 1.7 + id))::float8 AS v
    FROM runs, generate_series(0, $2::int - 1) AS s
), """
    + STORED
    + "SELECT count(*) FROM runs"
)
# Notes when the chart held points of all runs for the first time, and its canvas was drawn.
WATCH = """
new MutationObserver((_, observer) => {
    const held = document.querySelector('[data-held]')?.dataset.held;
    const runs = new URLSearchParams(location.search).get('tag') === 'one' ? 1 : RUNS;
    if (!held || (held.match(/"points":[1-9]/g) ?? []).length < runs) return;
    observer.disconnect();
    requestAnimationFrame(() => {
        document.querySelector('[data-held] canvas').getContext('2d').getImageData(0, 0, 1, 1);
        window.firstPicture = performance.now();
    });
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ['data-held'] });
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


def measure(address: str, chromium: str, cases: list[dict[str, Any]]) -> list[dict[str, list[float]]]:
    """Milliseconds of each redraw, of the chart and of the floor, for each case."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found: list[dict[str, list[float]]] = []
        for case in cases:
            page = browser.new_page(viewport={"width": 1280, "height": 1200})
            page.goto(address)
            page.wait_for_function("() => 'measure' in window")
            found.append(page.evaluate("(asked) => measure(asked)", case))
            page.close()
        browser.close()
    return found


async def fill(url: str) -> None:
    """Put the runs of the comparison into a database."""
    connection = await connect_raw(url, application="benchmark")
    try:
        await connection.execute(FILL, RUNS, RUN_POINTS, BATCH)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


@dataclass
class Taken:
    """Milliseconds of each of several measurements: by the clock, and of CPU in the browser's processes."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def many(address: str, chromium: str, frames: int) -> tuple[dict[str, Taken], dict[str, Taken]]:
    """Redraws of many runs, by what is redrawn for; first pictures of the page of a comparison, of many and of one."""
    from playwright.sync_api import sync_playwright

    with fresh_database() as url:
        asyncio.run(fill(url))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            redraws = _redraws(browser, address, frames)
            pictures = _pictures(browser, url)
            browser.close()
    return redraws, pictures


def _redraws(browser: Any, address: str, frames: int) -> dict[str, Taken]:
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.goto(address)
    page.wait_for_function("() => 'openMany' in window")
    page.evaluate("(asked) => openMany(asked)", {"runs": RUNS, "points": THINNED})
    found = {kind: Taken() for kind in KINDS}
    each = max(1, frames // TURNS)
    for _ in range(TURNS):
        for kind, taken in found.items():
            before = cpu_of(browser)
            taken.wall += page.evaluate("(asked) => redrawMany(asked)", {"kind": kind, "frames": each})
            taken.cpu.append(spent(browser, before) / each)
    page.close()
    return found


async def forget(url: str) -> None:
    """As if no curve had been looked at."""
    connection = await connect_raw(url, application="benchmark")
    try:
        await connection.execute("TRUNCATE curve_levels")
    finally:
        await connection.close()


def _pictures(browser: Any, url: str) -> dict[str, Taken]:
    found = {"new": Taken(), "many": Taken(), "one": Taken()}
    with running_service(DATABASE_URL=url, SIMULATIONS_LOCAL_MACHINE="false") as service:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.add_init_script(WATCH.replace("RUNS", str(RUNS)))
        for _ in range(OPENED):
            for kind, taken in found.items():
                if kind == "new":  # in a thread: Playwright's own loop runs in this one
                    with ThreadPoolExecutor(1) as thread:
                        thread.submit(asyncio.run, forget(url)).result()
                page = context.new_page()
                before = cpu_of(browser)
                page.goto(f"{service}/compare?tag={'one' if kind == 'one' else 'many'}&metric=val%2Floss")
                page.wait_for_function("() => window.firstPicture !== undefined")
                taken.cpu.append(spent(browser, before))
                taken.wall.append(page.evaluate("window.firstPicture"))
                page.close()
    return {kind: Taken(taken.wall[1:], taken.cpu[1:]) for kind, taken in found.items()}


def cpu_of(browser: Any) -> dict[int, float]:
    """Milliseconds of CPU so far of the processes that run and draw pages: the renderers and the GPU process."""
    session = browser.new_browser_cdp_session()
    told = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return {each["id"]: 1e3 * each["cpuTime"] for each in told if each["type"] in ("renderer", "GPU")}


def spent(browser: Any, before: dict[int, float]) -> float:
    """Milliseconds of CPU since `before`; the renderer of a page that was closed ends meanwhile, and counts no more."""
    return sum(now - before.get(number, 0.0) for number, now in cpu_of(browser).items())


def main() -> int:
    """Return 0; what is missing to measure is no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("--points", type=int, default=100_000, help="of each metric (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=120, help="redraws of each (default: %(default)s)")
    parser.add_argument("--many", action="store_true", help="only the comparison of many runs")
    parser.add_argument(
        "--chromium",
        default=shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-headless-shell"),
    )
    options = parser.parse_args()
    if missing := _missing(options.chromium):
        print(f"The chart was not measured: there is no {missing}.", file=sys.stderr)
        return 0
    cases = [
        {"points": options.points, "metrics": metrics, "smoothing": smoothing, "frames": options.frames, "fresh": FRESH}
        for metrics, smoothing in ((1, 0), (1, 0.9), (4, 0))
    ]
    subprocess.run([sys.executable, WEB / "build.py", "benchmark"], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=BUILT))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    measured = measure(address, options.chromium, cases) if not options.many else []
    subprocess.run([sys.executable, WEB / "build.py"], check=True)
    redraws, pictures = many(address, options.chromium, options.frames)
    server.shutdown()
    rows: list[Row] = []
    for case, found in zip(cases, measured, strict=False):
        named = f"{case['points']:,} points"
        if case["metrics"] > 1:
            named += f" of each of {case['metrics']} metrics"
        if case["smoothing"]:
            named += ", smoothed"
        chart, floor = statistics.median(found["chart"]), statistics.median(found["floor"])
        rows += [
            Row("chart", f"{named}, median redraw", chart, "ms", floor, chart / floor),
            Row("chart", f"{named}, p95 redraw", p95(found["chart"]), "ms", p95(found["floor"]),
                p95(found["chart"]) / p95(found["floor"])),
            Row("chart", f"{named}, median redraw in a frame", chart, "ms", FRAME_MS, chart / FRAME_MS),
        ]  # fmt: skip
    publish("chart", [*rows, *rows_of_many(redraws, pictures)])
    return 0


def rows_of_many(redraws: dict[str, Taken], pictures: dict[str, Taken]) -> list[Row]:
    """Each redraw and first picture: against its bar, and its CPU against that of the floor."""
    named = f"{RUNS} runs of {RUN_POINTS:,} points"
    rows: list[Row] = []
    for kind, words in KINDS.items():
        if kind == "floor":
            continue
        wall, cpu = _medians(redraws[kind])
        alone, least = _medians(redraws["floor"])
        rows += [
            Row("chart", f"{named}, {words}, median redraw in a frame", wall, "ms", FRAME_MS, wall / FRAME_MS),
            Row("chart", f"{named}, {words}, median redraw", wall, "ms", alone, wall / alone),
            Row("chart", f"{named}, {words}, CPU of a redraw", cpu, "ms", least, cpu / least),
        ]
    first, _ = _medians(pictures["new"])
    wall, cpu = _medians(pictures["many"])
    alone, least = _medians(pictures["one"])
    return [
        *rows,
        Row(
            "chart",
            f"{named}, first picture at the first look",
            first,
            "ms",
            FIRST_PICTURE_MS,
            first / FIRST_PICTURE_MS,
        ),
        Row("chart", f"{named}, first picture", wall, "ms", FIRST_PICTURE_MS, wall / FIRST_PICTURE_MS),
        Row("chart", f"{named}, first picture beside that of one run", wall, "ms", alone, wall / alone),
        Row("chart", f"{named}, CPU of the page until its first picture", cpu, "ms", least, cpu / least),
    ]


def _medians(taken: Taken) -> tuple[float, float]:
    return statistics.median(taken.wall), statistics.median(taken.cpu)


def p95(numbers: list[float]) -> float:
    return statistics.quantiles(numbers, n=20)[-1]


def _missing(chromium: str | None) -> str | None:
    if chromium is None:
        return "Chromium"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright"
    return None


if __name__ == "__main__":
    sys.exit(main())
