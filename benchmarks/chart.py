"""Redraw time of the dashboard's chart, legend included, when points arrive, in headless Chromium.

The floor is uPlot alone with the same points, redrawn alternately. Then 100 runs in one chart: how long a redraw takes
with a new point for each, and how long the page of a comparison of 100 runs of 10,000 points takes on a service, from
the start of its navigation to the first picture with all curves in it; the floors are a frame and a second. Needs
Playwright and Chromium; if one of them is missing, it prints a message and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.database import fresh_database
from benchmarks.report import Row, publish
from benchmarks.service import running_service
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

# $1: runs, $2: points of each, $3: points of a batch.
FILL = """
WITH runs AS (
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, reason, attempt, tags, parameters,
                             started_at, finished_at, final_cost)
    SELECT p.id, 'run ' || n, '{true}', 'ada', 'FINISHED', 'COMPLETED', 1, '{many}', jsonb_build_object('lr', n / 1e4),
           now() - interval '1 h', now(), 1
    FROM projects AS p, generate_series(1, $1::int) AS n WHERE p.name = 'default'
    RETURNING id, started_at, finished_at
), attempted AS (
    INSERT INTO attempts (simulation_id, number, assigned_at, started_at, ended_at, reason)
    SELECT id, 1, started_at, started_at, finished_at, 'COMPLETED' FROM runs
    RETURNING id, assigned_at, ended_at
), members AS (
    INSERT INTO members (attempt_id, machine_name, price_per_hour, share, currency, cpus, memory_gib, gpus, assigned_at,
                         ended_at)
    SELECT id, 'm', 1, 1, 'USD', 1, 0, 0, assigned_at, ended_at FROM attempted
), points AS (
    SELECT id, s, 1 + s / $3::int AS batch, (1 + id % 50) / 50.0 * (0.1 + 2.2 * exp(-s / 2000.0) + 0.02 * sin(s * 1.7 + id)) AS v
    FROM runs, generate_series(0, $2::int - 1) AS s
), curves AS (
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT id, 1, batch, 'val/loss', array_agg(s::bigint ORDER BY s), array_agg(v::float8 ORDER BY s),
           array_agg(s * 0.1::float8 ORDER BY s)
    FROM points GROUP BY id, batch
)
INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, min_value,
                     max_step, max_value)
SELECT id, 1, 'val/loss', count(*), 0, max(s), 0.1, max(s), min(v), 0, max(v) FROM points GROUP BY id
"""  # noqa: E501  # SQL
# Notes when the chart held points of all runs for the first time, and its canvas was drawn.
WATCH = """
new MutationObserver((_, observer) => {
    const held = document.querySelector('[data-held]')?.dataset.held;
    if (!held || (held.match(/"points":[1-9]/g) ?? []).length < RUNS) return;
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


def many(address: str, chromium: str, frames: int) -> tuple[dict[str, list[float]], list[float]]:
    """Milliseconds: of redraws of many runs, by what is redrawn for; of first pictures of the page of a comparison."""
    from playwright.sync_api import sync_playwright

    with fresh_database() as url:
        asyncio.run(fill(url))
        with sync_playwright() as playwright:
            return _many(playwright, url, address, chromium, frames)


def _many(
    playwright: Any, url: str, address: str, chromium: str, frames: int
) -> tuple[dict[str, list[float]], list[float]]:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.wait_for_function("() => 'measureMany' in window")
    redraws = page.evaluate("(asked) => measureMany(asked)", {"runs": RUNS, "points": THINNED, "frames": frames})
    page.close()
    pictures: list[float] = []
    with running_service(DATABASE_URL=url, SIMULATIONS_LOCAL_MACHINE="false") as service:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.add_init_script(WATCH.replace("RUNS", str(RUNS)))
        for _ in range(OPENED):
            page = context.new_page()
            page.goto(f"{service}/compare?tag=many&metric=val%2Floss")
            page.wait_for_function("() => window.firstPicture !== undefined")
            pictures.append(page.evaluate("window.firstPicture"))
            page.close()
    browser.close()
    return redraws, pictures[1:]


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
    named = f"{RUNS} runs of {RUN_POINTS:,} points"
    for kind, words in (("grown", "a new point for each"), ("highlighted", "another stands out"), ("zoomed", "zoomed")):
        value = statistics.median(redraws[kind])
        rows.append(
            Row("chart", f"{named}, {words}, median redraw in a frame", value, "ms", FRAME_MS, value / FRAME_MS)
        )
    first = statistics.median(pictures)
    rows.append(Row("chart", f"{named}, first picture", first, "ms", FIRST_PICTURE_MS, first / FIRST_PICTURE_MS))
    publish("chart", rows)
    return 0


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
