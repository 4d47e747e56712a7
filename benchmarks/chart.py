"""Redraw time of the dashboard's chart, legend included, when points arrive, in headless Chromium.

The floor is uPlot alone with the same points, redrawn alternately. Needs Playwright and Chromium; if one of them is
missing, it prints a message and measures nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.report import Row, publish

WEB = Path(__file__).resolve().parents[1] / "web"
BUILT = WEB / "benchmark" / "dist"
FRAME_MS = 17.0  # of a screen with 60 Hz
FRESH = 20  # new points a frame


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


def main() -> int:
    """Return 0; what is missing to measure is no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("--points", type=int, default=100_000, help="of each metric (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=120, help="redraws of each (default: %(default)s)")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
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
    measured = measure(f"http://127.0.0.1:{server.server_port}/", options.chromium, cases)
    server.shutdown()
    rows: list[Row] = []
    for case, found in zip(cases, measured, strict=True):
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
