"""The page of a simulation, in a real browser: curves against the database, zoom, attempts, log, CSV, what one does."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import psutil
import pytest
import pytest_asyncio
from live import Service, eventually, kill, number_of
from playwright.async_api import Locator, Page, WebSocketRoute, expect

Axe = Any  # the fixtures of conftest.py
Complaints = Any
OpenPage = Any

REPORTS, PORTION = 60, 3  # points, and how many of them come at a time
HTML = "<img src=x onerror=\"document.title='broken'\"> & <b>bold</b>"

# Goes as far as a file says, line by line; `end N` ends it, with that status.
GATED = """
import json, math, sys, time
gate, step = sys.argv[1], 0
while True:
    word, _, number = open(gate).read().partition(" ")
    if word == "end":
        sys.exit(int(number))
    while word == "go" and step < int(number):
        loss = math.exp(-step / 50) + step % 7 / 100
        print(json.dumps({"step": step, "loss": loss, "accuracy": step / 1000}), flush=True)
        if step % 5 == 0:
            print(f"line of step {step}", flush=True)
        step += 1
    time.sleep(0.01)
"""
# Reports up to step 40, dies, and reports again from step 25 on; hostile names and values.
RETRIED = """
import json, math, os, sys
first = not os.path.exists(sys.argv[1])
open(sys.argv[1], "a").close()
for step in range(0, 41) if first else range(25, 61):
    value = math.nan if step in (10, 30) else (1 if first else 2) + step / 3
    print(json.dumps({"step": step, "loss": value, "=1+1,\\"x\\"": -step}), flush=True)
sys.exit(3 if first else 0)
"""
# Prints a portion when there is a file of the name of its first step.
IN_PORTIONS = """
import json, pathlib, sys, time
place, count, portion = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for step in range(count):
    while step % portion == 0 and not (place / str(step)).exists(): time.sleep(0.005)
    value = float("nan") if step % 9 == 0 else step
    print(json.dumps({"step": step, "loss": value}), flush=step % portion == portion - 1)
"""
STORED = "SELECT coalesce(sum(cardinality(steps)), 0) = $2 FROM convergence WHERE simulation_id = $1"
STANDING = """
WITH points AS (
    SELECT attempt, metric, unnest(steps) AS step, unnest("values") AS value, unnest(elapsed) AS elapsed
    FROM convergence WHERE simulation_id = $1
), firsts AS (
    SELECT attempt, metric, min(step) AS first FROM points GROUP BY attempt, metric
)
SELECT metric, step, value, elapsed, attempt FROM points AS p
WHERE NOT EXISTS (
    SELECT FROM firsts AS f WHERE f.metric = p.metric AND f.attempt > p.attempt AND f.first <= p.step
)
ORDER BY metric, step
"""  # said once more and in another way than the service does


SAVES = """
import os
kept = os.path.join(os.environ["SIMULATION_CHECKPOINT_DIR"], "last.pt")
open(kept, "w").close()
os.utime(kept, (1_700_000_000, 1_700_000_000))
"""


TURNING = """
import json
for each in "\\u202a\\u202b\\u202d\\u202e\\u2066\\u2067\\u2068":
    print(f"before {each}turned", flush=True)
print(json.dumps({"step": 1, "ac\\u202ecuracy": 1, "loss": 2}))
"""


class Gate:
    """How far a simulation may go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.go(0)

    def say(self, words: str) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(words)
        draft.replace(self.path)

    def go(self, steps: int) -> None:
        self.say(f"go {steps}")

    def end(self, status: int = 0) -> None:
        self.say(f"end {status}")

    async def submit(self, service: Service, **given: Any) -> str:
        return await service.submit(sys.executable, "-c", GATED, str(self.path), **given)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def chart_of(page: Page) -> Locator:
    return page.get_by_role("group", name=re.compile("Convergence of"))


async def has(page: Page, points: int) -> None:
    """Wait until the page holds so many points of its first curve."""
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(rf'"points":{points},'))


async def held(page: Page) -> dict[str, Any]:
    """What the page holds of each curve."""
    told = await chart_of(page).get_attribute("data-held")
    assert told is not None
    return {each.pop("curve"): each for each in json.loads(told)}


async def shown(page: Page) -> tuple[float, float]:
    """The part of the x axis that is shown."""
    low, high = [await chart_of(page).get_attribute(f"data-x-{end}") for end in ("min", "max")]
    assert low is not None
    assert high is not None
    return float(low), float(high)


async def shows(page: Page, low: float, high: float) -> tuple[float, float]:
    """Wait until this part of the x axis is shown; the very numbers."""

    async def is_shown() -> bool:
        return await shown(page) == (pytest.approx(low, abs=1), pytest.approx(high, abs=1))

    await eventually(is_shown, f"{low} to {high} are shown")
    return await shown(page)


async def drag(page: Page, begin: float, end: float) -> None:
    """Drag over the plot, from one share of its width to another."""
    box = await chart_of(page).locator(".u-over").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + begin * box["width"], y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + (begin + end) / 2 * box["width"], y)
    await page.mouse.move(box["x"] + end * box["width"], y)
    await page.mouse.up()


async def table_of(page: Page) -> list[tuple[int, list[float | None]]]:
    """All rows of the table of points, oldest first."""
    await page.get_by_role("button", name="Table").click()
    table = page.get_by_role("table", name="Points")
    rows: list[tuple[int, list[float | None]]] = []
    while True:
        cells = await table.locator("tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.title || cell.textContent.trim()))"
        )
        rows += [(int(step), [number(value) for value in values]) for step, *values in cells]
        older = page.get_by_role("button", name="Older")
        if await older.is_disabled():
            return rows[::-1]
        await older.click()


def number(text: str) -> float | None:
    """A cell: a number; NaN for "not finite"; None where it is empty."""
    return math.nan if text == "not finite" else float(text) if text else None


async def colours_of(page: Page, names: list[str]) -> list[int]:
    """How many pixels of the plot have the colour of each curve."""
    counted: list[int] = await page.locator(".frame canvas").evaluate(
        """(canvas, names) => {
            const style = getComputedStyle(canvas)
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
            return names.map(name => {
                const [r, g, b] = style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map(each => parseInt(each, 16))
                let found = 0
                for (let at = 0; at < data.length; at += 4)
                    found += data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255
                return found
            })
        }""",
        names,
    )
    return counted


async def hasten(socket: WebSocketRoute) -> None:
    """Pass everything on, but for the demo's pace: 300 steps in three seconds, not in thirty."""
    server = socket.connect_to_server()
    socket.on_message(lambda text: server.send(str(text).replace('"--interval","0.1"', '"--interval","0.01"')))


async def test_the_demo_goes_from_its_button_to_finished_with_its_curve_drawn(page: Page, service: Service) -> None:
    await page.route_web_socket("**/graphql", hasten)
    await page.goto("/")
    await page.get_by_role("button", name="Run the demo").first.click()
    await expect(page.get_by_role("heading", name="demo", exact=True)).to_be_visible()
    await expect(page.get_by_role("main").get_by_text("Finished", exact=True)).to_be_visible(timeout=90_000)
    await has(page, 300)

    simulation_id = unquote(page.url.rsplit("/", 1)[1])
    [entrypoint] = (await service.fetch("SELECT entrypoint FROM simulations"))[0]
    assert entrypoint == ["python", "-m", "runner.demo", "--steps", "300", "--interval", "0.01"]
    for metric, curve in (await held(page)).items():
        stored = await service.log_of(simulation_id, metric)
        assert curve == {"points": len(stored), "first": 0, "last": 299, "attempts": [1], "repeated": 0}
    assert min(await colours_of(page, ["--curve-1", "--curve-2"])) > 300
    await expect(page).to_have_title(re.compile(r"loss 0\.\d+ · Finished · demo"))
    await expect(page.get_by_test_id("standing")).to_have_text("Finished successfully.")


async def test_numbers_stand_as_the_reader_writes_them(open_page: OpenPage, service: Service) -> None:
    script = 'for step in (0, 2500): print(f\'{{"step": {step}, "loss": 1.5, "accuracy": 1.25e-7}}\')'
    simulation_id = await service.submit(sys.executable, "-c", script)
    assert (await service.finished(simulation_id))["state"] == "FINISHED"
    page = await open_page(f"/simulations/{simulation_id}", locale="de-DE")
    metrics = page.get_by_role("region", name="Metrics").get_by_role("row")
    await expect(metrics.filter(has_text="loss")).to_contain_text("1,5")
    await expect(metrics.filter(has_text="accuracy")).to_contain_text("1,25e-7")
    await page.get_by_role("slider", name=re.compile("Read the values")).focus()
    await page.keyboard.press("End")
    await expect(page.get_by_text("step 2.500", exact=True)).to_be_visible()


async def test_the_title_goes_on_in_a_tab_that_draws_nothing(page: Page, service: Service, gate: Gate) -> None:
    await page.add_init_script("window.requestAnimationFrame = () => 0")  # what a hidden tab does
    simulation_id = await gate.submit(service)
    await page.goto(f"/simulations/{simulation_id}")
    gate.go(1)
    await expect(page).to_have_title(re.compile(r"^loss 1 · "))
    gate.go(2)
    await expect(page).to_have_title(re.compile(r"^loss 0\.99"))
    gate.end()


async def test_a_tiny_value_among_others_can_be_shown_on_a_logarithmic_axis(page: Page, service: Service) -> None:
    script = 'for step in range(50): print(f\'{{"step": {step}, "loss": {1e-23 if step == 20 else 1}}}\')'
    simulation_id = await service.submit(sys.executable, "-c", script)
    assert (await service.finished(simulation_id))["state"] == "FINISHED"
    await page.goto(f"/simulations/{simulation_id}")
    await has(page, 50)
    await page.get_by_role("button", name="Logarithmic").click()
    await expect(page.get_by_role("button", name="Logarithmic")).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="Table").click()  # the tab still answers
    await expect(page.get_by_role("table", name="Points")).to_be_visible()


@pytest.mark.parametrize("size", ["1e-18", "1e-40", "1e40"])
async def test_values_of_any_size_have_numbers_at_a_linear_axis(page: Page, service: Service, size: str) -> None:
    program = f"import json; [print(json.dumps({{'step': n, 'residual': {size} * n}}), flush=True) for n in range(6)]"
    simulation = await service.submit(sys.executable, "-c", program)
    assert (await service.finished(simulation))["state"] == "FINISHED"
    await page.goto(f"/simulations/{simulation}")
    await has(page, 6)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="SVG").click()
    assert f">{size}</text>" in Path(await (await download.value).path()).read_text(encoding="utf-8")


async def test_a_zoom_stays_while_points_arrive_until_one_follows_again(
    page: Page, service: Service, gate: Gate
) -> None:
    gate.go(100)
    await page.goto(f"/simulations/{await gate.submit(service)}")
    await has(page, 100)
    await shows(page, 0, 99)

    await drag(page, 0.2, 0.4)
    await expect(chart_of(page)).to_have_attribute("data-following", "false")
    zoomed = await shows(page, 20, 40)
    gate.go(300)
    await has(page, 300)
    assert await shown(page) == zoomed

    await page.keyboard.down("Shift")
    await drag(page, 0.5, 0.25)
    await page.keyboard.up("Shift")
    panned = await shows(page, 25, 45)

    await page.get_by_role("button", name="Follow newest").click()
    await expect(chart_of(page)).to_have_attribute("data-x-max", "299")
    gate.go(500)
    await has(page, 500)
    await expect(chart_of(page)).to_have_attribute("data-x-max", "499")
    low, high = await shown(page)
    assert high - low == pytest.approx(panned[1] - panned[0])

    await page.get_by_role("button", name="Whole curve").click()
    await expect(chart_of(page)).to_have_attribute("data-x-min", "0")
    gate.end()


async def test_two_fingers_zoom_and_one_moves(open_page: OpenPage, service: Service, gate: Gate) -> None:
    gate.go(100)
    simulation_id = await gate.submit(service)
    page = await open_page(f"/simulations/{simulation_id}", viewport={"width": 360, "height": 740}, has_touch=True)
    await has(page, 100)
    plot = chart_of(page).locator(".u-over")
    await plot.scroll_into_view_if_needed()
    box = await plot.bounding_box()
    assert box is not None
    fingers = await page.context.new_cdp_session(page)

    async def put(kind: str, *shares: float) -> None:
        y = box["y"] + box["height"] / 2
        points = [{"x": box["x"] + share * box["width"], "y": y, "id": at} for at, share in enumerate(shares)]
        await fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    await put("touchStart", 0.45, 0.55)
    for apart in (0.2, 0.3, 0.4):
        await put("touchMove", 0.5 - apart / 2, 0.5 + apart / 2)
    await put("touchEnd")
    await expect(chart_of(page)).to_have_attribute("data-following", "false")
    low, high = await shown(page)
    assert high - low == pytest.approx(99 / 4, rel=0.2)
    assert (low + high) / 2 == pytest.approx(49.5, abs=3)

    await put("touchStart", 0.2)
    for share in (0.3, 0.4, 0.6):
        await put("touchMove", share)
    await put("touchEnd")

    async def is_moved() -> bool:
        return (await shown(page))[0] < low

    await eventually(is_moved, "it is moved")
    panned = await shown(page)
    assert panned[1] - panned[0] == pytest.approx(high - low)
    gate.end()


async def test_an_open_page_resumes_after_a_crash_with_neither_gap_nor_duplicate(
    page: Page, service: Service, gate: Gate, complaints: Complaints
) -> None:
    complaints.expect("WebSocket connection|ERR_CONNECTION_REFUSED|status of 50")
    gate.go(70)
    simulation_id = await gate.submit(service)
    await page.goto(f"/simulations/{simulation_id}")
    await has(page, 70)

    assert service.process is not None
    kill(psutil.Process(service.process.pid), service.child("graph"), service.child("scheduler"))
    await service.ended()
    await expect(page.get_by_text("The connection was lost")).to_be_visible()
    gate.go(140)  # not delivered now
    await service.up()
    await has(page, 140)
    await expect(page.get_by_text("The connection was lost")).to_be_hidden()
    gate.go(150)
    await has(page, 150)
    gate.end()
    await expect(page.get_by_role("main").get_by_text("Finished", exact=True)).to_be_visible()

    rows = await table_of(page)
    for place, metric in enumerate(("loss", "accuracy")):
        stored = [(step, value) for _, step, value in await service.log_of(simulation_id, metric)]
        assert [step for step, _ in stored] == list(range(150))
        assert [(step, values[place]) for step, values in rows] == stored
    assert {curve["repeated"] for curve in (await held(page)).values()} == {0}


@pytest_asyncio.fixture(loop_scope="session")
async def retried(service: Service, tmp_path: Path) -> str:
    """A simulation that came to its end in its second attempt."""
    simulation_id = await service.submit(
        sys.executable, "-c", RETRIED, str(tmp_path / "tried"),
        name=HTML, tags=[HTML], parameters={HTML: HTML}, limits={"maxRetries": 1, "retryOn": ["EXIT_CODE"]},
    )  # fmt: skip
    assert (await service.finished(simulation_id))["state"] == "FINISHED"
    return simulation_id


async def test_what_a_retry_reports_again_supersedes_and_attempts_are_told_apart(
    page: Page, service: Service, retried: str
) -> None:
    await page.goto(f"/simulations/{retried}")
    await has(page, 61)
    assert (await held(page))["loss"] == {"points": 61, "first": 0, "last": 60, "attempts": [1, 2], "repeated": 0}
    await expect(chart_of(page)).to_have_attribute("data-not-finite", "true")
    await expect(page.get_by_role("main").get_by_text("not finite", exact=True)).to_be_visible()

    rows = [values[0] for _, values in await table_of(page)]
    expected = [math.nan if step in (10, 30) else (1 if step < 25 else 2) + step / 3 for step in range(61)]
    assert rows == pytest.approx(expected, nan_ok=True)
    attempts = page.get_by_role("region", name="Attempts").get_by_role("row")
    await expect(attempts.nth(1)).to_contain_text("Finished successfully.")
    await expect(attempts.nth(2)).to_contain_text("exit code 3")
    await expect(page.get_by_role("region", name="History")).to_contain_text("Attempt 1 ended")
    for along in ("elapsed", "wall", "cost"):
        await page.get_by_label("X axis").select_option(along)
        await expect(chart_of(page)).to_have_attribute("data-x", along)
        await has(page, 61)


async def test_the_csv_is_what_the_database_holds(page: Page, service: Service, retried: str) -> None:
    await page.goto(f"/simulations/{retried}")
    await has(page, 61)
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Download CSV").click()
    download = await downloading.value
    assert re.fullmatch(r"[\w.-]+\.csv", download.suggested_filename)
    with Path(await download.path()).open(newline="") as file:
        head, *lines = csv.reader(file)

    assert head == ["metric", "step", "value", "elapsed_seconds", "attempt"]
    stored = await service.fetch(STANDING, number_of(retried))
    assert len(stored) == 2 * 61
    assert sorted(lines) == sorted(
        [
            "'" + row["metric"] if row["metric"].startswith("=") else row["metric"],
            str(row["step"]),
            shortest(row["value"]),
            shortest(row["elapsed"]),
            str(row["attempt"]),
        ]
        for row in stored
    )


def shortest(value: float) -> str:
    """As JavaScript writes a number."""
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return str(int(value)) if value == int(value) else re.sub(r"e-0", "e-", repr(value))


async def test_names_full_of_html_are_nothing_but_text(page: Page, retried: str) -> None:
    await page.goto(f"/simulations/{retried}")
    await expect(page.get_by_role("heading", name=HTML)).to_be_visible()
    await has(page, 61)
    await expect(page.get_by_role("table", name="Parameters")).to_contain_text(HTML)
    await expect(page).to_have_title(re.compile("<img src=x"))
    assert await page.get_by_role("main").locator("img, b").count() == 0


async def test_the_log_follows_until_one_scrolls_up(page: Page, service: Service, gate: Gate) -> None:
    gate.go(300)
    await page.goto(f"/simulations/{await gate.submit(service)}")
    log = page.get_by_role("log")
    await expect(log).to_contain_text("line of step 295")
    await expect(log).to_have_attribute("data-following", "true")

    async def is_at_its_end() -> bool:
        return bool(await log.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 24)

    await eventually(is_at_its_end, "it is at its end")
    await log.evaluate("box => box.scrollTo(0, 100)")
    await expect(log).to_have_attribute("data-following", "false")
    gate.go(600)
    await expect(log).to_have_attribute("data-lines", "120")
    assert await log.evaluate("box => box.scrollTop") == 100
    await page.get_by_role("button", name="Follow", exact=True).click()
    await expect(log).to_have_attribute("data-following", "true")
    await log.scroll_into_view_if_needed()
    gate.go(605)
    await expect(log.get_by_text("line of step 600", exact=True)).to_be_in_viewport()
    gate.end()


COLOURED = r"""
import sys, time
esc = chr(27)
print(f"{esc}[31;1mred{esc}[0m <b>plain</b> {esc}[92mgreen{esc}[m {esc}[33mamber{esc}[m {esc}[34mblue{esc}[m")
print(f"{esc}[38;2;200;0;200mmagenta{esc}[m {esc}[36mcyan{esc}[m {esc}[2mdim{esc}[m {esc}]0;title" + chr(7) + "end")
for number in range(60):
    print(f"Epoch {number} of a long log")
for percent in range(0, 101, 10):
    sys.stderr.write(f"\r{percent:3d}% of the bar"); sys.stderr.flush(); time.sleep(0.11)
sys.stderr.write("\nRuntimeError: CUDA out of memory\n")
sys.exit(1)
"""


async def test_no_character_of_a_program_changes_the_direction_of_the_page(page: Page, service: Service) -> None:
    """Names and lines come over a WebSocket, and none of these characters passes it."""
    simulation = await service.submit(
        sys.executable, "-c", TURNING, name="turning", parameters={"text": "a\u2066b"}, limits={"maxRetries": 0}
    )
    await page.goto(f"/simulations/{simulation}")
    await expect(page.get_by_role("log").get_by_text("before turned")).to_have_count(7)
    await expect(page.get_by_role("main")).to_contain_text("accuracy")
    await expect(page.get_by_role("main")).to_contain_text("ab")
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", await page.content())


async def test_a_log_has_its_colours_is_searched_and_saved(
    page: Page, service: Service, axe: Callable[..., Any]
) -> None:
    simulation = await service.submit(sys.executable, "-c", COLOURED, limits={"maxRetries": 0})
    await page.goto(f"/simulations/{simulation}")
    log = page.get_by_role("log")
    await expect(log).to_contain_text("CUDA out of memory")
    await expect(log).to_contain_text("magenta cyan dim end")
    colours = {}
    for name in ("red", "green", "yellow", "blue", "magenta", "cyan", "dim"):
        colours[name] = await log.locator(f".{name}").evaluate("part => getComputedStyle(part).color")
    assert len(set(colours.values())) == 7
    await expect(log.locator(".red.bold")).to_have_text("red")
    await expect(log).to_contain_text("<b>plain</b>")
    assert await log.locator("b, [style]").count() == 0
    await expect(log.get_by_text("% of the bar")).to_have_count(1)
    await expect(log.get_by_text("100% of the bar")).to_be_visible()
    await expect(page.get_by_role("main")).to_contain_text("exit code 1: RuntimeError: CUDA out of memory")
    await axe(page)

    field = page.get_by_label("Find in the log")
    status = page.get_by_role("search", name="Log").get_by_role("status")
    await field.fill("epoch 5")
    await expect(status).to_have_text("1 of 11")
    await expect(log.locator("mark")).to_have_count(11)
    await expect(log.locator("mark.now")).to_be_in_viewport()
    await field.press("Enter")
    await expect(status).to_have_text("2 of 11")
    await field.press("Shift+Enter")
    await field.press("Shift+Enter")
    await expect(status).to_have_text("11 of 11")
    await expect(log.locator(".line", has=page.locator("mark.now"))).to_contain_text("Epoch 59")
    await expect(log.locator("mark.now")).to_be_in_viewport()
    await page.get_by_role("button", name="Next match").click()
    await expect(status).to_have_text("1 of 11")
    await axe(page)
    await field.fill("no such text")
    await expect(status).to_have_text("not found")
    await field.press("Escape")
    await expect(field).to_have_value("")

    async with page.expect_download() as saving:
        await page.get_by_role("button", name="Download", exact=True).click()
    saved = await saving.value
    text = Path(await saved.path()).read_text(encoding="utf-8").splitlines()
    assert saved.suggested_filename.endswith(".log")
    assert "red <b>plain</b> green amber blue" in text
    assert [line for line in text if line.startswith("Epoch")] == [f"Epoch {n} of a long log" for n in range(60)]
    assert [line.strip() for line in text if "% of the bar" in line] == ["100% of the bar"]


async def test_system_metrics_are_a_folded_group_of_their_own(
    page: Page, service: Service, axe: Callable[..., Any]
) -> None:
    program = "import json, time; print(json.dumps({'step': 1, 'loss': 0.5}), flush=True); time.sleep(600)"
    simulation = await service.submit(sys.executable, "-c", program, systemMetricsSeconds=0.5)
    await page.goto(f"/simulations/{simulation}")
    group = page.get_by_test_id("system")
    chart = group.get_by_role("group", name=re.compile("System metrics of"))
    program_chart = page.get_by_role("group", name=re.compile("Convergence of"))
    await expect(program_chart).to_have_attribute("data-held", re.compile("loss"))
    await expect(chart).to_have_count(0)
    await group.get_by_text("System metrics", exact=True).click()
    await expect(chart).to_have_attribute("data-held", re.compile("system/cpu.*system/memory"), timeout=60_000)
    await group.get_by_role("button", name="Table").click()  # it stays when a metric comes that needs two samples
    await expect(group.get_by_role("button", name="cpu, cpus")).to_have_attribute("aria-pressed", "true")
    await expect(group.get_by_role("button", name="network receive, MiB/s")).to_be_visible(timeout=60_000)
    await expect(group.get_by_role("button", name="disk read, MiB/s")).to_have_attribute("aria-pressed", "false")
    await expect(group).not_to_contain_text("best ")
    assert "system/" not in str(await program_chart.get_attribute("data-held"))
    await expect(page.get_by_role("region", name="Metrics", exact=True)).not_to_contain_text("cpu")
    await axe(page)
    await expect(group.get_by_role("table", name="Points")).to_contain_text("Time")
    await group.get_by_text("System metrics", exact=True).click()
    await expect(chart).to_have_count(0)
    await service.cancel(simulation)


async def test_lines_of_a_long_log_that_are_not_shown_are_found_by_the_service(
    page: Page, service: Service, axe: Callable[..., Any]
) -> None:
    program = "for n in range(4_000): print(f'Epoch {n} of a long log')"
    simulation = await service.submit(sys.executable, "-c", program)
    await page.goto(f"/simulations/{simulation}")
    await expect(page.get_by_role("log")).to_contain_text("Epoch 3999")
    await page.get_by_label("Find in the log").fill("EPOCH 77")
    status = page.get_by_role("search", name="Log").get_by_role("status")
    await expect(status).to_have_text("not found")  # of the last 2,000 lines
    await page.get_by_role("button", name="Search all 4,000 lines").click()
    found = page.get_by_role("region", name="Search of the whole log")
    await expect(found.get_by_role("status")).to_have_text("11 lines contain “EPOCH 77”.")
    await expect(found.get_by_role("listitem")).to_have_count(11)
    await expect(found.get_by_role("listitem").first).to_contain_text("Epoch 77 of a long log")
    await page.get_by_label("Find in the log").press("Escape")
    await expect(found).to_have_count(0)
    await page.get_by_label("Find in the log").fill("needle")
    await page.get_by_role("button", name="Search all 4,000 lines").click()
    await expect(found.get_by_role("status")).to_have_text("0 lines contain “needle”.")
    # axe takes minutes for 2,000 lines, which it judges in other tests.
    await page.get_by_role("log").evaluate("log => log.replaceChildren()")
    await axe(page)


async def test_an_empty_chart_has_advice_on_lines_that_look_like_metrics(
    page: Page, service: Service, axe: Callable[..., Any]
) -> None:
    code = "for n in range(12): print(f'loss: {0.41 - n / 100:.2f}')"
    simulation = await service.submit(sys.executable, "-c", code)
    await page.goto(f"/simulations/{simulation}")
    notices = page.get_by_test_id("notices")
    await expect(notices).to_contain_text("looks like metrics, 12 times.")
    await expect(notices.locator("code")).to_have_text("loss: 0.41")
    await expect(notices).to_contain_text(r"Add --metrics-pattern 'loss: (?P<loss>\S+)'")
    await expect(page.get_by_text("No points were reported.")).to_be_visible()
    await axe(page)


async def test_one_cancels_and_retries_after_a_question(page: Page, service: Service, gate: Gate) -> None:
    gate.go(5)
    await page.goto(f"/simulations/{await gate.submit(service, name='once')}")
    await has(page, 5)
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("button", name="No, go back").click()
    await expect(page.get_by_role("main").get_by_text("Running", exact=True).first).to_be_visible()
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("button", name="Cancel simulation").click()
    await expect(page.get_by_role("main").get_by_text("Cancelled", exact=True)).to_be_visible()
    await expect(page.get_by_role("main")).to_be_focused()  # the button that asked is gone
    await expect(page.get_by_role("region", name="History")).to_contain_text("Stop requested")

    first = page.url
    await page.get_by_role("button", name="Run again").click()
    await page.get_by_role("button", name="Queue it again").click()
    await expect(page).not_to_have_url(first)
    await expect(page.get_by_role("region", name="What was asked for")).to_contain_text("Repeats")
    await has(page, 5)
    gate.end()

    await page.goto(first)
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete simulation").click()
    await expect(page).to_have_url("/")
    await page.goto(first)
    await expect(page.get_by_role("heading", name="Simulation not found")).to_be_visible()


async def test_what_waits_is_paused_and_resumed(page: Page, service: Service, axe: Axe) -> None:
    simulation = await service.submit("true", name="later", resources={"cpus": 10_000})
    await page.goto(f"/simulations/{simulation}")
    standing = page.get_by_test_id("standing")
    await expect(standing).to_contain_text("No machine")
    await page.get_by_role("button", name="Pause", exact=True).click()
    await expect(standing).to_contain_text("It is paused")
    await expect(page.get_by_role("button", name="Pause", exact=True)).to_have_count(0)
    await axe(page)
    await page.reload()
    await page.get_by_role("button", name="Resume", exact=True).click()
    await expect(standing).to_contain_text("No machine")
    await expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    for words in ("Paused", "Resumed"):
        await expect(page.get_by_role("region", name="History")).to_contain_text(words)


async def test_name_tags_priority_and_notes_are_edited_and_shown_as_text(
    page: Page, service: Service, axe: Axe
) -> None:
    simulation = await service.submit("true", name="plain", resources={"cpus": 10_000})
    await page.goto(f"/simulations/{simulation}")
    await page.get_by_role("button", name="Edit", exact=True).click()
    dialog = page.get_by_role("dialog", name="Edit plain")
    await dialog.get_by_label("Priority").fill("1.5")
    await dialog.get_by_label("Name", exact=True).fill("")
    await dialog.get_by_role("button", name="Save").click()
    summary = dialog.get_by_role("alert")
    await expect(summary).to_be_focused()
    await expect(summary).to_contain_text("Expected a whole number")
    await dialog.get_by_label("Priority").fill("7")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")  # says the server
    await axe(page)
    await dialog.get_by_label("Name", exact=True).fill(HTML)
    await dialog.get_by_label("Tags").fill("night, <i>big</i>, night")
    await dialog.get_by_label("Notes").fill(f"One\n{HTML}")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("heading", name=HTML, exact=True, level=1)).to_be_visible()
    facts = page.get_by_role("region", name="What was asked for")
    for expected in ("7", "<i>big</i>"):
        await expect(facts).to_contain_text(expected)
    for expected in ("One", HTML):
        await expect(page.get_by_role("region", name="Notes", exact=True)).to_contain_text(expected)
    assert await page.locator("main img, main b, main i").count() == 0


async def test_what_is_not_edited_stays_as_it_is_now(page: Page, service: Service) -> None:
    tags = ["with, a comma", 'and "quotes"']
    simulation = await service.submit("true", name="plain", tags=tags, resources={"cpus": 10_000})
    await page.goto(f"/simulations/{simulation}")
    await page.get_by_role("button", name="Edit", exact=True).click()
    dialog = page.get_by_role("dialog", name="Edit plain")
    await expect(dialog.get_by_label("Tags")).to_have_value('"with, a comma", "and ""quotes"""')
    elsewhere = 'mutation ($id: ID!) { updateSimulation(input: {id: $id, notes: "new"}) { userErrors { message } } }'
    await service.execute(elsewhere, id=simulation)
    await dialog.get_by_label("Name", exact=True).fill("renamed")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_be_hidden()
    asked = "query ($id: ID!) { simulation(id: $id) { name tags notes } }"
    found = (await service.execute(asked, id=simulation))["simulation"]
    assert found == {"name": "renamed", "tags": tags, "notes": "new"}


async def test_each_rank_has_a_log_of_its_own(page: Page, service: Service, axe: Axe, tmp_path: Path) -> None:
    create = "mutation M($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }"
    for name in ("left", "right"):
        made = await service.execute(create, input={"name": name, "cpus": 1, "memoryGib": 1, "labels": {"pair": "1"}})
        assert made["createMachine"]["userErrors"] == []
    program = "import os; print('this is rank', os.environ['SIMULATION_RANK'], flush=True)"
    simulation = await service.submit(
        sys.executable, "-c", program, name="pair", machines=2, resources={"cpus": 1, "labels": {"pair": "1"}}
    )
    await service.finished(simulation)
    await page.goto(f"/simulations/{simulation}")
    log, rank = page.get_by_role("log"), page.get_by_role("combobox", name="Rank")
    await expect(log).to_contain_text("this is rank 0")
    await rank.focus()
    await page.keyboard.press("ArrowDown")
    await expect(log).to_contain_text("this is rank 1")
    await expect(log).not_to_contain_text("this is rank 0")
    await expect(rank).to_have_value("1")
    await axe(page)
    async with page.expect_download() as download:
        await page.get_by_role("region", name="Log").get_by_role("button", name="Download").click()
    assert (await download.value).suggested_filename == "pair-rank-1.log"
    await (await download.value).save_as(tmp_path / "log")
    assert (tmp_path / "log").read_text().splitlines() == ["this is rank 1"]


async def test_curves_are_read_by_keyboard(page: Page, service: Service, gate: Gate) -> None:
    gate.go(200)
    await page.goto(f"/simulations/{await gate.submit(service)}")
    await has(page, 200)
    reader = page.get_by_role("slider", name=re.compile("Read the values"))
    await reader.focus()
    await page.keyboard.press("Home")
    await expect(reader).to_have_attribute("aria-valuetext", "step 0: loss 1, accuracy 0")
    await page.keyboard.press("ArrowRight")
    await expect(reader).to_have_attribute("aria-valuetext", re.compile("^step 1: loss .*, accuracy 0.001"))
    await page.keyboard.press("+")
    await expect(page.get_by_role("button", name="Whole curve")).to_be_visible()
    await page.keyboard.press("0")
    await expect(chart_of(page)).to_have_attribute("data-x-max", "199")
    await expect(page.get_by_role("img", name=re.compile("loss: 200 points, last"))).to_be_visible()
    gate.end()


async def test_what_is_directly_before_what_waits_is_named_with_the_rule(page: Page, service: Service) -> None:
    needs = {"cpus": 100_000}
    first = await service.submit("true", name=HTML, resources=needs)
    second = await service.submit("true", name="second", resources=needs)
    await page.goto(f"/simulations/{second}")
    ahead = page.get_by_test_id("ahead")
    await expect(ahead).to_contain_text(re.compile(r"Simulation \d+ is directly before it: it was submitted earlier\."))
    await ahead.get_by_role("link", name=HTML, exact=True).click()
    await expect(page).to_have_url(f"/simulations/{quote(first, safe='')}")
    await expect(page.get_by_test_id("standing")).to_contain_text("Place 1 in the queue.")
    await expect(page.get_by_test_id("ahead")).to_have_count(0)


async def test_the_age_and_place_of_the_newest_checkpoint_are_shown(page: Page, service: Service) -> None:
    simulation_id = await service.submit(sys.executable, "-c", SAVES)
    assert (await service.finished(simulation_id))["state"] == "FINISHED"
    await page.goto(f"/simulations/{simulation_id}")
    shown = page.get_by_test_id("checkpoint")
    await expect(shown).to_have_text(re.compile(r"ago, on \S+"))
    await expect(shown.locator("time")).to_have_attribute("datetime", re.compile("^2023-11-14T22:13:20"))
    await page.get_by_role("button", name="Run again").click()
    await expect(page.get_by_label("Begin with a copy of its checkpoint")).to_be_visible()


async def test_what_waits_says_why_and_what_is_no_id_is_refused_in_a_sentence(page: Page, service: Service) -> None:
    waiting = await service.submit("true", resources={"cpus": 100_000})
    await page.goto(f"/simulations/{waiting}")
    await expect(page.get_by_test_id("standing")).to_contain_text("cpus")
    await expect(page.get_by_role("heading", name="No points yet.")).to_be_visible()
    await page.goto("/simulations/nonsense")
    await expect(page.get_by_role("alert")).to_contain_text("'nonsense' is not the id, number or name of a")


async def test_a_past_of_many_reports_comes_together(page: Page, service: Service, tmp_path: Path) -> None:
    simulation_id = await service.submit(sys.executable, "-c", IN_PORTIONS, str(tmp_path), str(REPORTS), str(PORTION))
    for begin in range(0, REPORTS, PORTION):
        (tmp_path / str(begin)).touch()
        is_stored = partial(service.says, STORED, number_of(simulation_id), begin + PORTION)
        await eventually(is_stored, f"the portion of step {begin} is stored")
    assert (await service.finished(simulation_id))["state"] == "FINISHED"
    [[batches]] = await service.fetch(
        "SELECT count(*) FROM convergence WHERE simulation_id = $1", number_of(simulation_id)
    )
    assert batches >= REPORTS / PORTION
    frames: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(str(frame))))
    await page.goto(f"/simulations/{simulation_id}")
    await has(page, REPORTS)
    assert len([frame for frame in frames if '"steps":[' in frame]) <= 2
    rows = await table_of(page)
    assert [step for step, _ in rows] == list(range(REPORTS))
    assert [values[0] for _, values in rows] == pytest.approx(
        [math.nan if step % 9 == 0 else step for step in range(REPORTS)], nan_ok=True
    )


async def test_a_very_long_curve_is_drawn_from_some_of_its_points_and_says_so(page: Page, service: Service) -> None:
    count = 200_100
    script = f'for step in range({count}): print(f\'{{{{"step": {{step}}, "loss": {{step % 1000}}}}}}\')'
    simulation_id = await service.submit(sys.executable, "-c", script)
    assert (await service.finished(simulation_id))["state"] == "FINISHED"
    await page.goto(f"/simulations/{simulation_id}")
    await expect(page.get_by_role("region", name="Convergence")).to_contain_text(" of 200,100 points. The CSV has all.")
    curve = (await held(page))["loss"]
    assert curve["points"] <= 100_000
    assert (curve["first"], curve["last"]) == (0, count - 1)
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Download CSV").click()
    lines = await asyncio.to_thread(Path(await (await downloading.value).path()).read_bytes)
    assert lines.count(b"\r\n") == count + 1


@pytest.mark.parametrize("width", [1440, 360])
async def test_the_page_has_no_accessibility_violations(
    open_page: OpenPage, retried: str, axe: Callable[..., Any], width: int
) -> None:
    page = await open_page(f"/simulations/{retried}", viewport={"width": width, "height": 900})
    await has(page, 61)
    await page.get_by_role("button", name="Table").click()
    await axe(page)
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "nothing is wider than the window"


async def test_long_names_in_sentences_fit_on_a_telephone(service: Service, open_page: OpenPage) -> None:
    made = await service.execute(
        "mutation ($name: String!) { createMachine(input: {name: $name, cpus: 1, memoryGib: 1}) { machine { id } } }",
        name="m" * 54,
    )
    one_cpu = {"cpus": 1, "machine": made["createMachine"]["machine"]["id"]}
    first = await service.submit("sleep", "1000", name="p" * 120, resources=one_cpu)
    after = await service.submit("true", name="q" * 120, resources=one_cpu, after=[{"simulation": first}])
    ids = [await service.submit("true", name="r" * 120, resources=one_cpu, tags=["t" * 60]) for _ in range(2)]
    page = await open_page(None, viewport={"width": 390, "height": 844})
    for simulation_id, waits_for in ((after, "p" * 30), (ids[0], "m" * 30), (ids[1], "m" * 30)):
        await page.goto(f"/simulations/{simulation_id}")
        await expect(page.get_by_test_id("standing")).to_contain_text(waits_for)
        await expect(page.get_by_role("region", name="What was asked for")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, waits_for
