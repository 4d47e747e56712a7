"""Several simulations over one another, in a real browser: two as well as a hundred."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
import pytest_asyncio
from ended import METRICS, fill
from live import Service, eventually, number_of
from playwright.async_api import Locator, Page, expect
from swept import OBJECTIVE, fill_sweep

from db.public_ids import encode

OpenPage = Any  # a fixture of conftest.py
Axe = Callable[..., Any]

SWEPT = """
import json, os
rate = json.loads(os.environ["SIMULATION_PARAMETERS"])["rate"]
for step in range(50):
    record = {"step": step, "loss": 1 / (1 + step * rate)}
    if rate > 1:
        record["other"] = step
        record["validation/of-a-very-long-name-that-no-telephone-has-room-for"] = step
    print(json.dumps(record), flush=True)
"""
# Prints a point for each line of its standard input file, which grows.
LIVE = """
import json, os, time
for step in range(5):
    print(json.dumps({"step": step, "loss": 1 / (step + 1)}), flush=True)
while not os.path.exists("go"):
    time.sleep(0.05)
for step in range(5, 10):
    print(json.dumps({"step": step, "loss": 1 / (step + 1)}), flush=True)
"""
ZOOM = """(reader, times) => {
    while (times--) reader.dispatchEvent(new KeyboardEvent('keydown', { key: '+', bubbles: true, cancelable: true }))
}"""
MANY = 100
BACKGROUNDS = "all => all.map(each => getComputedStyle(each).backgroundColor)"
LINES = "all => all.map(each => getComputedStyle(each).stroke + ' ' + getComputedStyle(each).strokeDasharray)"
STROKES = "all => all.map(each => getComputedStyle(each).stroke)"
CURVES = """() => (document.querySelector('[data-held]')?.dataset.held.match(/"points":[1-9]/g) ?? []).length"""


@pytest_asyncio.fixture(loop_scope="session")
async def swept(service: Service) -> dict[str, str]:
    """Three simulations that differ in a parameter; their ids by their names."""
    found = {}
    for rate in (1, 2, 3):
        name = f"swept <b>{rate}</b>"
        parameters = {"batch": 64, "rate": rate, "a/very/long/name/" * 6: 1}
        found[name] = await service.submit(sys.executable, "-c", SWEPT, name=name, parameters=parameters)
    for simulation_id in found.values():
        assert (await service.finished(simulation_id))["state"] == "FINISHED"
    return found


def chart_of(page: Page) -> Locator:
    return page.get_by_role("group", name=re.compile("simulations$"))


def table_of(page: Page) -> Locator:
    return page.get_by_role("region", name="Side by side").get_by_role("table")


def row_of(page: Page, name: str) -> Locator:
    return table_of(page).get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


async def held(page: Page) -> list[dict[str, Any]]:
    return list(json.loads(await chart_of(page).get_attribute("data-held") or ""))


async def test_simulations_are_found_by_name_and_all_of_it_is_in_the_address(
    page: Page, swept: dict[str, str], open_page: OpenPage
) -> None:
    _, two, _ = swept
    await page.goto("/compare")
    await expect(page.get_by_text("Nothing to compare yet")).to_be_visible()
    for name in swept:
        await page.get_by_role("searchbox", name="Add a simulation").fill(name)
        if name == two:
            await page.keyboard.press("Enter")
        else:
            await page.get_by_role("list", name="Simulations found").get_by_role("button").filter(has_text=name).click()
        await expect(page.get_by_role("link", name=name)).to_be_visible()
    await expect(page.get_by_label("Metric", exact=True)).to_have_value("loss")
    await page.get_by_label("X axis").select_option("cost")
    await page.get_by_role("button", name="Logarithmic").click()
    await expect(page).to_have_url(re.compile("x=cost.*log=1|log=1.*x=cost"))

    other = await open_page(page.url)
    await expect(chart_of(other)).to_have_attribute("data-held", re.compile(r'("points":50,.*){3}'))
    await expect(chart_of(other)).to_have_attribute("data-x", "cost")
    await expect(other.get_by_role("button", name="Logarithmic")).to_have_attribute("aria-pressed", "true")
    assert [each["curve"] for each in await held(other)] == list(swept.values())

    await other.get_by_role("button", name=f"Remove {two}").click()
    await expect(other.get_by_role("link", name=two)).to_be_hidden()
    await expect(other).not_to_have_url(re.compile(re.escape(quote(swept[two], safe=""))))
    await other.go_back()
    await expect(other.get_by_role("link", name=two)).to_be_visible()
    assert await other.get_by_role("main").locator("b").count() == 0


async def test_simulations_are_added_by_keyboard(page: Page, swept: dict[str, str]) -> None:
    await page.goto("/compare")
    field = page.get_by_role("searchbox", name="Add a simulation")
    found = page.get_by_role("list", name="Simulations found").get_by_role("button")
    await field.focus()
    await expect(found).to_have_count(len(swept))
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(found.nth(1)).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("ArrowUp")
    await expect(found.last).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(found).to_have_count(len(swept) - 1)
    await expect(field).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(found.first).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(found).to_have_count(0)
    await expect(field).to_be_focused()


async def test_the_table_says_what_differs_first_and_marks_the_best(page: Page, swept: dict[str, str]) -> None:
    *_, three = swept
    await page.goto(f"/compare?ids={','.join(swept.values())}")
    heads = page.get_by_role("region", name="Side by side").get_by_role("columnheader")
    await expect(heads.filter(has_text="Best loss")).to_have_attribute("aria-sort", "ascending")
    await expect(row_of(page, three).locator(".top")).to_have_text(re.compile(r"0\.0067568\s+at step 49"))
    await expect(table_of(page).locator(".top")).to_have_count(1)
    await expect(heads.filter(has_text="rate")).to_be_visible()
    await expect(heads.filter(has_text="batch")).to_have_count(0)
    for number, name in enumerate(swept, 1):
        await expect(row_of(page, name).get_by_role("cell", name=str(number), exact=True)).to_be_visible()
    await page.get_by_text("The same in all").click()
    await expect(page.get_by_role("definition").filter(has_text="64")).to_be_visible()

    await page.get_by_label("Metric", exact=True).select_option("other")
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'"points":0,.*"points":50,.*"points":50,'))


async def test_reading_values_off_moves_nothing_below(open_page: OpenPage, swept: dict[str, str]) -> None:
    page = await open_page(f"/compare?ids={','.join(swept.values())}", viewport={"width": 600, "height": 900})
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'("points":50,.*){3}'))
    await expect(page.get_by_role("columnheader", name=re.compile("^Best"))).to_be_visible()
    below = page.get_by_role("heading", name="Side by side")
    stood = await below.bounding_box()
    await chart_of(page).locator(".u-over").hover()
    await expect(page.get_by_text(re.compile(r"^step \d+$")).first).to_be_visible()
    assert await below.bounding_box() == stood


async def test_what_is_not_there_is_said_and_left_out(page: Page, swept: dict[str, str]) -> None:
    [first, *_] = swept.values()
    missing = "U2ltdWxhdGlvbjo5OTk5OTk="  # Simulation:999999
    await page.goto(f"/compare?ids={first},{missing}")
    await expect(page.get_by_text("No simulation has the id")).to_be_visible()
    await page.get_by_role("button", name="Remove", exact=True).click()
    await expect(page.get_by_text("No simulation has the id")).to_be_hidden()
    one = page.get_by_role("group", name=re.compile("1 simulation$"))
    await expect(one).to_have_attribute("data-held", re.compile('"points":50,'))


@pytest.mark.parametrize("width", [1440, 360])
async def test_the_page_has_no_accessibility_violations(
    open_page: OpenPage, swept: dict[str, str], axe: Axe, width: int
) -> None:
    page = await open_page(f"/compare?ids={','.join(swept.values())}", viewport={"width": width, "height": 900})
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'("points":50,.*){3}'))
    await axe(page)
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "nothing is wider than the window"


async def test_runs_that_go_on_are_drawn_as_they_go_on(service: Service, page: Page) -> None:
    directory = service.data_directory / "live"
    directory.mkdir(mode=0o777)
    given = {"workingDirectory": str(directory), "parameters": {"lr": 0.1}}
    ids = [await service.submit(sys.executable, "-c", LIVE, name=f"live {number}", **given) for number in (1, 2)]
    await page.goto(f"/compare?ids={','.join(ids)}")
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'"points":5,.*"points":5,'))
    (directory / "go").touch()
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'"points":10,.*"points":10,'))
    await expect(row_of(page, "live 1")).to_contain_text("Finished")
    assert [each["repeated"] for each in await held(page)] == [0, 0]


COUNTED = "run => (context, options) => (axe.left = context.exclude.length, run(context, options))"
ROW = "<tr><td style='color: black'>text <button>text</button></td></tr>"


async def test_of_rows_alike_few_are_judged_and_each_that_is_another_one(page: Page, axe: Axe) -> None:
    table = f"<table><thead><tr><th>Name</th></tr></thead><tbody>{ROW * 50}</tbody></table>"
    await page.set_content(f"<html lang=en><title>t</title><main><h1>t</h1>{table}</main></html>")
    await axe(page)
    rows = page.locator("tbody tr")
    await page.evaluate("run => (axe.run = eval(run)(axe.run))", COUNTED)
    await axe(page)
    assert await page.evaluate("axe.left") == 47
    await rows.nth(30).locator("td").evaluate("cell => cell.style.color = '#ccc'")
    with pytest.raises(AssertionError, match="color-contrast"):
        await axe(page)
    await rows.nth(30).evaluate("row => row.remove()")
    await rows.nth(40).locator("button").evaluate("button => button.textContent = ''")
    with pytest.raises(AssertionError, match="button-name"):
        await axe(page)


# --- a hundred -------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def sweep(service: Service) -> int:
    """A hundred ended simulations of a sweep, with twelve metrics of long names."""
    return await fill_sweep(service, MANY)


@pytest_asyncio.fixture(loop_scope="session")
async def plain(service: Service) -> int:
    """The same with its objective alone: each metric more is a chart of a hundred curves more."""
    return await fill_sweep(service, MANY, metrics=(OBJECTIVE,))


@pytest_asyncio.fixture(loop_scope="session")
async def seeded(service: Service) -> int:
    """Six trials of three seeds each."""
    return await fill_sweep(service, 6, seeds=3, metrics=METRICS[4:6])


async def drawn(page: Page, count: int) -> None:
    """Wait until so many curves have points."""

    async def are_there() -> bool:
        return bool(await page.evaluate(CURVES) == count)

    await eventually(are_there, f"{count} curves have points")


async def test_a_hundred_runs_are_compared_in_one_request_for_their_curves(
    open_page: OpenPage, sweep: int, axe: Axe
) -> None:
    page = await open_page(None)
    asked: list[str] = []

    def sent(frame: str | bytes) -> None:
        if "curves(" in str(frame):
            asked.append(json.loads(frame)["payload"]["variables"]["metric"])

    page.on("websocket", lambda socket: socket.on("framesent", sent))
    await page.goto(f"/compare?sweep={sweep}")
    await drawn(page, MANY)
    assert asked.count(OBJECTIVE) == 1
    assert len(set(asked)) == len(asked), "each metric once"
    await expect(page.get_by_text("100 runs of the sweep")).to_be_visible()
    await expect(table_of(page).get_by_role("rowheader")).to_have_count(MANY)
    await expect(page.get_by_label("Metric", exact=True)).to_have_value(OBJECTIVE)
    await expect(page.get_by_label("Colour by")).to_have_value("param:learning_rate")
    await expect(page.locator(".key").filter(has_text="learning_rate")).to_contain_text("in the middle")  # logarithmic
    small = page.locator(f'[data-metric="{METRICS[0]}"]')
    await small.scroll_into_view_if_needed()
    await expect(small).to_have_attribute("data-drawn", "100")
    titles = page.locator("figcaption .name")
    await expect(titles.locator("[data-head]")).to_have_count(0)  # none is cut in its middle
    assert await titles.evaluate_all("all => all.every(each => each.scrollHeight <= each.clientHeight + 1)")
    await axe(page)

    await page.get_by_role("button", name=f"Show {METRICS[0]} in the large chart").click()
    await expect(page.get_by_label("Metric", exact=True)).to_have_value(METRICS[0])
    await expect(page).to_have_url(re.compile("metric=train"))


async def test_runs_are_pointed_at_in_the_chart_in_the_table_and_by_keyboard(page: Page, plain: int) -> None:
    await page.goto(f"/compare?sweep={plain}&clip=1")
    await drawn(page, MANY)
    lit = table_of(page).locator("tr.lit")
    tip = page.locator(".tip")
    await expect(lit).to_have_count(0)
    row = table_of(page).get_by_role("row").nth(2)
    await row.hover()
    await expect(lit).to_have_count(1)
    name = await row.get_by_role("link").get_attribute("aria-label")

    reader = page.get_by_role("slider", name="Read the values")
    await reader.focus()
    await page.keyboard.press("Home")
    await page.keyboard.press("ArrowUp")
    await expect(tip).to_be_visible()
    first = await tip.locator("strong").first.inner_text()
    await page.keyboard.press("ArrowUp")
    await expect(tip.locator("strong").first).not_to_have_text(first)
    await expect(lit).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(lit).to_have_count(0)

    over = chart_of(page).locator(".u-over")
    box = await over.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.85)
    await expect(lit).to_have_count(1)
    await expect(tip).to_contain_text("learning_rate")
    await expect(tip).to_contain_text(await lit.get_by_role("link").get_attribute("aria-label") or "")
    await page.mouse.move(5, 5)
    await expect(lit).to_have_count(0)
    assert name


async def test_zooming_asks_for_the_points_of_that_part(service: Service, open_page: OpenPage) -> None:
    many = await fill_sweep(service, 12, metrics=(OBJECTIVE,), points=8_000)  # more than are drawn of each
    page = await open_page(None)
    asked: list[dict[str, Any]] = []

    def sent(frame: str | bytes) -> None:
        if "curves(" in str(frame):
            asked.append(json.loads(frame)["payload"]["variables"])

    page.on("websocket", lambda socket: socket.on("framesent", sent))
    await page.goto(f"/compare?sweep={many}")
    await drawn(page, 12)
    chart = chart_of(page)
    await expect(chart).to_have_attribute("data-finer", "0")
    reader = page.get_by_role("slider", name="Read the values")
    await reader.focus()
    await page.keyboard.press("Home")
    # Six times before the next frame: of a wider part that is asked for on the way, the points in sight may suffice.
    await reader.evaluate(ZOOM, 6)
    await expect(chart).to_have_attribute("data-finer", re.compile("^[1-9]"))
    whole, part = asked[0], asked[-1]
    assert (whole["fromStep"], whole["toStep"]) == (None, None)
    assert 0 <= part["fromStep"] < part["toStep"] <= 10_000 // 2**6 + 20
    assert part["maxPoints"] < whole["maxPoints"], "as many as the chart has room for"
    # The points in sight are read one by one: 8,000 points are at every 1.25th step.
    read = []
    for _ in range(8):
        await page.keyboard.press("ArrowRight")
        read.append(float(await reader.get_attribute("aria-valuenow") or "nan"))
    assert max(after - before for before, after in pairwise(read)) <= 2, read
    await page.keyboard.press("0")
    await expect(chart).to_have_attribute("data-finer", "0")


async def test_outliers_are_offered_to_be_clipped(page: Page, plain: int) -> None:
    await page.goto(f"/compare?sweep={plain}")
    await drawn(page, MANY)
    clip = page.get_by_role("button", name="Clip 4 outliers")
    await expect(clip).to_have_attribute("aria-pressed", "false")
    await clip.click()
    await expect(clip).to_have_attribute("aria-pressed", "true")
    await expect(page).to_have_url(re.compile("clip=1"))
    await page.reload()
    await expect(clip).to_have_attribute("aria-pressed", "true")


async def test_runs_are_sorted_hidden_and_left_out(page: Page, plain: int) -> None:
    await page.goto(f"/compare?sweep={plain}")
    await drawn(page, MANY)
    region = page.get_by_role("region", name="Side by side")
    await region.get_by_role("button", name="learning_rate").click()
    await expect(region.get_by_role("columnheader", name="learning_rate")).to_have_attribute("aria-sort", "ascending")
    rows = table_of(page).get_by_role("row")
    await expect(rows.nth(1)).to_contain_text("0.00001")
    await region.get_by_role("button", name="learning_rate").click()
    await expect(rows.nth(1)).to_contain_text("0.1")
    await rows.nth(1).get_by_role("checkbox").uncheck()
    await drawn(page, MANY - 1)
    assert len(await held(page)) == MANY - 1
    await region.get_by_role("checkbox", name="Draw all").check()
    await drawn(page, MANY)
    # What one leaves out of a sweep makes it a choice of single ones.
    await rows.nth(1).get_by_role("button", name=re.compile("^Remove")).click()
    await expect(page).to_have_url(re.compile(r"ids="))
    await expect(table_of(page).get_by_role("rowheader")).to_have_count(MANY - 1)


async def test_seeds_are_a_group_with_its_mean_and_spread(page: Page, seeded: int, axe: Axe) -> None:
    await page.goto(f"/compare?sweep={seeded}")
    await drawn(page, 18)
    await page.get_by_label("Group by").select_option("seeds")
    await expect(page.get_by_text("6 groups: mean")).to_be_visible()
    await drawn(page, 6)
    assert len(await held(page)) == 6
    await expect(page).to_have_url(re.compile("group=seeds"))
    await table_of(page).get_by_role("row").nth(1).hover()
    await expect(table_of(page).locator("tr.lit")).to_have_count(3)
    for kind in ("since", "elapsed", "wall", "cost"):
        await page.get_by_label("X axis").select_option(kind)
        await expect(chart_of(page)).to_have_attribute("data-x", kind)
        await drawn(page, 6)
    await axe(page)
    await page.get_by_label("Group by").select_option("param:optimizer.name")
    await drawn(page, 2)
    # Learning rates differ within both groups: the legend names these instead.
    await page.get_by_label("Colour by").select_option("param:learning_rate")
    keys = chart_of(page).locator("xpath=..").locator(".summed .key")
    await expect(keys).to_have_text([re.compile("optimizer.name (adam|sgd)")] * 2)
    of_keys = await keys.locator("svg line").evaluate_all(STROKES)
    of_rows = await table_of(page).locator("tbody .swatch").evaluate_all(BACKGROUNDS)
    assert len(set(of_keys)) == 2
    assert set(of_rows) == set(of_keys)
    areas, rings, names = await saved(page)
    assert (areas, rings) == (2, 0), "the bands, as on the page"
    assert len([name for name in names if "optimizer.name" in name]) == 2


async def test_a_picture_of_a_hundred_runs_is_that_of_the_page(page: Page, plain: int) -> None:
    await page.goto(f"/compare?sweep={plain}")
    await drawn(page, MANY)
    areas, rings, names = await saved(page)
    assert (areas, rings) == (0, 0)
    assert len(names) < 40, "no legend of a hundred names"


async def saved(page: Page) -> tuple[int, int, list[str]]:
    """Save the chart as SVG: how many areas and rings it has, and its texts."""
    async with page.expect_download() as download:
        await chart_of(page).locator("xpath=..").get_by_role("button", name="SVG").click()
    picture = ElementTree.fromstring(Path(await (await download.value).path()).read_text())
    name = "{http://www.w3.org/2000/svg}"
    areas = [each for each in picture.iter(f"{name}path") if each.get("fill-opacity")]
    texts = ["".join(each.itertext()) for each in picture.iter(f"{name}text")]
    return len(areas), len(list(picture.iter(f"{name}circle"))), texts


async def test_colours_that_come_twice_are_told_apart_in_the_legend_and_what_has_none_is_named(
    service: Service, page: Page
) -> None:
    await fill(service, 13, ("loss",), 2)
    rows = await service.fetch("SELECT id FROM simulations ORDER BY id")
    seats = ", ".join(f'({row["id"]}, \'{{"seat": "s{at}"}}\'::jsonb)' for at, row in enumerate(rows[:10]))
    await service.alter("UPDATE simulations SET parameters = '{}'")
    await service.alter(f"UPDATE simulations SET parameters = seat FROM (VALUES {seats}) AS t (of, seat) WHERE id = of")
    ids = ",".join(encode("Simulation", row["id"]) for row in rows)
    await page.goto(f"/compare?ids={ids}&colour=param:seat")
    await drawn(page, 13)
    keys = page.locator(".key")
    await expect(keys).to_have_text([*(f"s{at}" for at in range(10)), "not given"])
    lines = await keys.locator("svg line").evaluate_all(LINES)
    assert len(set(lines)) == len(lines)


async def test_what_a_filter_finds_is_compared(service: Service, page: Page, plain: int) -> None:
    await page.goto("/?tag=swept&where=batch_size%3D64")
    await page.get_by_role("link", name="Compare these").click()
    await expect(page).to_have_url(re.compile(r"/compare\?tag=swept"))
    [[count]] = await service.fetch("SELECT count(*) FROM simulations WHERE parameters->'batch_size' = '64'")
    await expect(page.get_by_text(f"{count} that match")).to_be_visible()
    await drawn(page, count)
    assert plain


async def test_a_hundred_are_chosen_from_the_list(service: Service, page: Page, plain: int) -> None:
    rows = await service.fetch("SELECT id FROM simulations ORDER BY id DESC LIMIT 3")
    await page.goto("/?tag=swept")
    boxes = page.get_by_role("checkbox", name=re.compile("^Select vision"))
    for number in range(3):
        await boxes.nth(number).check()
    await page.get_by_role("link", name="Compare", exact=True).click()
    await drawn(page, 3)
    assert {each["curve"] for each in await held(page)} == {encode("Simulation", row["id"]) for row in rows}
    assert plain


async def test_a_telephone_has_room_for_a_hundred(open_page: OpenPage, sweep: int, axe: Axe) -> None:
    page = await open_page(f"/compare?sweep={sweep}&clip=1", viewport={"width": 390, "height": 844})
    await drawn(page, MANY)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await axe(page)


async def test_names_and_numbers_stand_for_ids_in_the_address(page: Page, swept: dict[str, str]) -> None:
    [first, second, third] = swept.values()
    await page.goto(f"/compare?ids={first},{quote('swept <b>2')},%23{number_of(third)}")
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile('("points":50,.*){3}'))
    await table_of(page).get_by_role("button", name="Remove swept <b>2</b>").click()
    await expect(page).to_have_url(re.compile(f"ids={quote(first, safe='')}%2C{quote(third, safe='')}$"))
    assert second not in page.url


async def test_a_metric_without_a_direction_has_no_best(page: Page, swept: dict[str, str]) -> None:
    await page.goto(f"/compare?ids={','.join(swept.values())}&metric=other")
    await expect(table_of(page).get_by_role("columnheader", name="Last other")).to_be_visible()
    await expect(table_of(page).get_by_role("columnheader", name="Best other")).to_have_count(0)
