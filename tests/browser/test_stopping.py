"""Objective, stop rules, limits and forecasts in a real browser: a stopped run and its evidence, changes, the form."""

from __future__ import annotations

import re
import sys
from typing import Any
from urllib.parse import urlsplit

from live import Service
from playwright.async_api import Locator, Page, expect

Axe = Any  # the fixtures of conftest.py
OpenPage = Any

# Falls to a plateau with a little noise, and goes on until it is stopped.
PLATEAU = """
import json, math, sys, time
for step in range(0, 100_000, 10):
    noise = 0.004 * math.sin(12.9898 * step)
    print(json.dumps({"step": step, "val/loss": 0.2 + math.exp(-step / 60) + noise, "loss": 0.1 + noise}), flush=True)
    time.sleep(0.01 if step < 700 else 0.1)
"""
# Reports 60 points, and waits.
WAITING = """
import json, sys, time
for step in range(0, 600, 10):
    print(json.dumps({"step": step, "loss": 0.2 + (step + 1) ** -0.5}), flush=True)
while True:
    time.sleep(0.1)
"""
SHOW = """
query Show($id: ID!) {
  simulation(id: $id) {
    state reason objective { metric mode }
    stopping { rules { metric patience stoppingThreshold plateau dryRun } evidence { step sentence } }
    limits { maxRuntimeSeconds maxCost maxSteps }
  }
}
"""


async def show(service: Service, simulation_id: str) -> Any:
    return (await service.execute(SHOW, id=simulation_id))["simulation"]


def chart_of(page: Page) -> Locator:
    return page.get_by_role("group", name=re.compile("Convergence of"))


def stops(page: Page) -> Locator:
    return page.get_by_role("region", name="Stop rules and limits")


async def stopped(service: Service, **given: Any) -> str:
    """A run that a rule has stopped at its plateau, beside a dry run that would have; its id."""
    simulation_id = await service.submit(
        sys.executable, "-c", PLATEAU, name="resnet-50", objective={"metric": "val/loss"},
        stopping=[{"patience": 20}, {"patience": 5, "dryRun": True}], limits={"maxSteps": 1200, "maxCost": "100"},
        **given,
    )  # fmt: skip
    await service.until(simulation_id, "FINISHED")
    return simulation_id


async def test_a_stopped_run_shows_its_rule_evidence_forecast_and_limits(
    open_page: OpenPage, service: Service, axe: Axe
) -> None:
    simulation_id = await stopped(service)
    known = await show(service, simulation_id)
    page = await open_page(f"/simulations/{simulation_id}")
    await expect(page.get_by_test_id("standing")).to_have_text("Stopped: plateau.")
    sentence = known["stopping"]["evidence"]["sentence"]
    await expect(page.get_by_test_id("evidence")).to_have_text(sentence)
    assert re.search(r"saved, by maxSteps of 1,200", sentence), sentence
    await expect(page.get_by_test_id("objective")).to_contain_text("val/loss")
    await expect(page).to_have_title(re.compile(r"^val/loss 0\.\d+ · Finished · resnet-50"))
    step = f"{known['stopping']['evidence']['step']:,}"
    marks = page.get_by_test_id("mark")
    await expect(marks).to_have_text([
        f"stopped: patience at step {step}", re.compile(r"dry run, would have stopped: patience at step \d+"),
    ])  # fmt: skip
    await expect(chart_of(page)).to_have_attribute("data-ahead", "1200")
    await expect(chart_of(page)).to_have_attribute("data-x-max", "1200")
    await expect(page.get_by_test_id("forecast")).to_contain_text(
        "By step 1,200 the best val/loss would have been about"
    )
    await expect(stops(page)).to_contain_text("no improvement for 20 evaluations, not finite")
    await expect(stops(page).get_by_test_id("dry-run")).to_contain_text("Dry run, nothing was stopped")
    await expect(stops(page).get_by_role("progressbar", name="Planned steps")).to_be_visible()
    await expect(stops(page).get_by_role("progressbar", name="Cost")).to_be_visible()
    await expect(stops(page).get_by_role("button", name="Change")).to_have_count(0)
    for width in (1440, 768, 360):
        await page.set_viewport_size({"width": width, "height": 900})
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px at {width}"
        await axe(page)

    await page.set_viewport_size({"width": 1440, "height": 900})
    await page.get_by_role("button", name="Forecast").click()
    last = int(float(await chart_of(page).get_attribute("data-x-max") or 0))
    assert last < 1200, "without the forecast the curve has all the room"
    await page.get_by_label("X axis").select_option("elapsed")
    await expect(page.get_by_role("button", name="Forecast")).to_be_disabled()
    await expect(marks).to_have_count(2)

    await page.goto("/")
    row = page.get_by_role("row", name=re.compile("resnet-50"))
    await expect(row).to_contain_text(re.compile(r"val/loss 0\.\d+"))
    await expect(row).to_contain_text("Stopped: plateau.")
    await expect(row).not_to_contain_text("evaluations")


async def test_rules_and_limits_are_changed_while_it_runs_with_the_keyboard(
    page: Page, service: Service, axe: Axe
) -> None:
    simulation_id = await service.submit(sys.executable, "-c", WAITING, name="long", limits={"maxSteps": 1000})
    await service.until(simulation_id, "RUNNING")
    await page.goto(f"/simulations/{simulation_id}")
    await expect(page.get_by_test_id("forecast")).to_contain_text("By step 1,000 the best loss will be about")
    await expect(stops(page)).to_contain_text("No stop rules")
    await expect(page.get_by_role("term").filter(has_text="Cost")).to_have_count(0)  # no machine has a price
    change = stops(page).get_by_role("button", name="Change")
    await change.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Change stop rules and limits")
    await expect(dialog.get_by_label("Objective")).to_have_value("loss")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(change).to_be_focused()

    await page.keyboard.press("Enter")
    await dialog.get_by_label("Stop it when it no longer improves").check()
    await dialog.get_by_text("Options", exact=True).click()
    await dialog.get_by_label("Patience").fill("-3")
    await dialog.get_by_label("Target").fill("0.01")
    await dialog.get_by_label("Maximum runtime").fill("2h")
    await axe(page)
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_label("Patience")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Patience").fill("30")
    await dialog.get_by_role("button", name="Save changes").click()
    await expect(dialog).to_be_hidden()
    await expect(stops(page)).to_contain_text("no improvement for 30 evaluations, 0.01 reached, not finite")
    await expect(stops(page)).to_contain_text("of 2 h")
    await expect(page.get_by_test_id("forecast")).to_contain_text("The target loss 0.01 is likely not reached")
    await expect(page.get_by_text(re.compile("Changed by .*: .*stop rules"))).to_be_visible()
    found = await show(service, simulation_id)
    assert found["stopping"]["rules"] == [
        {"metric": "loss", "patience": 30, "stoppingThreshold": 0.01, "plateau": True, "dryRun": False}
    ]
    assert found["limits"] == {"maxRuntimeSeconds": 7200, "maxCost": None, "maxSteps": 1000}
    await service.cancel(simulation_id)
    await service.until(simulation_id, "CANCELLED")


async def test_the_form_takes_objective_rules_and_limits_and_a_copy_keeps_them(
    open_page: OpenPage, service: Service, axe: Axe
) -> None:
    page = await open_page("/submit")
    await page.get_by_label("Command", exact=True).fill("python -m runner.demo --steps 3 --interval 0")
    await page.locator("summary", has_text="Objective and stop rules").click()
    await page.get_by_label("Stop it when it no longer improves").check()
    await page.get_by_role("button", name="Submit", exact=True).click()
    await expect(page.get_by_label("Objective", exact=True)).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Objective", exact=True).fill("val/loss")
    await page.locator("summary", has_text="Limits and retries").click()
    await page.get_by_label("Maximum cost").fill("12.5")
    await page.get_by_label("Planned steps", exact=True).fill("300")
    await expect(page.get_by_text("--stop metric=val/loss")).to_be_visible()
    await page.get_by_text("Options", exact=True).click()
    for width in (1440, 360):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await axe(page)
    await page.get_by_role("button", name="Submit", exact=True).click()
    await page.wait_for_url("**/simulations/*")
    simulation_id = urlsplit(page.url).path.rsplit("/", 1)[1]
    expected = await show(service, simulation_id)
    assert [each["metric"] for each in expected["stopping"]["rules"]] == ["val/loss"]
    assert (float(expected["limits"]["maxCost"]), expected["limits"]["maxSteps"]) == (12.5, 300)

    await page.goto(f"/submit?from={simulation_id}")
    await expect(page.get_by_text("val/loss · 1 stop rule")).to_be_visible()
    await page.get_by_role("button", name="Submit", exact=True).click()
    await page.wait_for_url(lambda url: "/simulations/" in url and simulation_id not in url)
    again = await show(service, urlsplit(page.url).path.rsplit("/", 1)[1])
    assert (again["objective"], again["stopping"]["rules"], again["limits"]) == (
        expected["objective"], expected["stopping"]["rules"], expected["limits"],
    )  # fmt: skip
