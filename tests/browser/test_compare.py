"""Several simulations over one another, in a real browser."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from live import Service
from playwright.async_api import Locator, Page, expect

OpenPage = Any  # a fixture of conftest.py

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


async def test_simulations_are_found_by_name_and_all_of_it_is_in_the_address(
    page: Page, swept: dict[str, str], open_page: OpenPage
) -> None:
    _, two, _ = swept
    await page.goto("/compare")
    await expect(page.get_by_text("Nothing to compare yet")).to_be_visible()
    for name in swept:
        await page.get_by_role("searchbox").fill(name)
        await page.get_by_role("list", name="Simulations found").get_by_role("button").filter(has_text=name).click()
        await expect(page.get_by_role("link", name=name)).to_be_visible()
    await expect(page.get_by_label("Metric")).to_have_value("loss")
    await page.get_by_label("X axis").select_option("cost")
    await page.get_by_role("button", name="Logarithmic").click()
    await expect(page).to_have_url(re.compile("x=cost.*log=1|log=1.*x=cost"))

    other = await open_page(page.url)
    await expect(chart_of(other)).to_have_attribute("data-held", re.compile(r'("points":50,.*){3}'))
    await expect(chart_of(other)).to_have_attribute("data-x", "cost")
    await expect(other.get_by_role("button", name="Logarithmic")).to_have_attribute("aria-pressed", "true")
    told = json.loads(await chart_of(other).get_attribute("data-held") or "")
    assert [each["curve"] for each in told] == list(swept.values())

    await other.get_by_role("button", name=f"Remove {two}").click()
    await expect(other.get_by_role("link", name=two)).to_be_hidden()
    await expect(other).not_to_have_url(re.compile(re.escape(swept[two])))
    await other.go_back()
    await expect(other.get_by_role("link", name=two)).to_be_visible()
    assert await other.get_by_role("main").locator("b").count() == 0


async def test_the_table_says_what_differs_first_and_marks_the_best(page: Page, swept: dict[str, str]) -> None:
    await page.goto(f"/compare?ids={','.join(swept.values())}")
    table = page.get_by_role("region", name="Side by side").get_by_role("table")
    best = table.get_by_role("row", name=re.compile("^Best loss"))
    await expect(best.locator(".top")).to_have_text(re.compile(r"0\.0067568\s+at step 49"))
    heads = await table.get_by_role("rowheader").all_inner_texts()
    assert heads.index("Parameters that differ") + 1 == heads.index("rate")
    assert heads.index("The same in all") + 1 == heads.index("batch")
    await expect(table.get_by_role("row", name=re.compile("^rate")).get_by_role("cell")).to_have_text(["1", "2", "3"])
    await page.get_by_label("Metric").select_option("other")
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'"points":0,.*"points":50,.*"points":50,'))


async def test_reading_values_off_moves_nothing_below(open_page: OpenPage, swept: dict[str, str]) -> None:
    page = await open_page(f"/compare?ids={','.join(swept.values())}", viewport={"width": 600, "height": 900})
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'("points":50,.*){3}'))
    await expect(page.get_by_text("best").first).to_be_visible()
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
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile('"points":50,'))


@pytest.mark.parametrize("width", [1440, 360])
async def test_the_page_has_no_accessibility_violations(
    open_page: OpenPage, swept: dict[str, str], axe: Callable[..., Any], width: int
) -> None:
    page = await open_page(f"/compare?ids={','.join(swept.values())}", viewport={"width": width, "height": 900})
    await expect(chart_of(page)).to_have_attribute("data-held", re.compile(r'("points":50,.*){3}'))
    await axe(page)
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "nothing is wider than the window"
