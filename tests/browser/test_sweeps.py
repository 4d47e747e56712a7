"""Sweeps in a real browser: the list, the page of one, its charts by pointer and keyboard, what is done there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest_asyncio
from live import Service, eventually
from playwright.async_api import Locator, Page, expect
from swept import OBJECTIVE, fill_sweep

OpenPage = Any  # a fixture of conftest.py
Axe = Callable[..., Any]

TRIALS = 40
NAME = "vision-transformer-base-patch16 <b>learning rate</b> and batch size"
CREATE = """mutation ($input: CreateSweepInput!) {
  createSweep(input: $input) { sweep { number } userErrors { message } }
}"""
STATE = "query ($id: ID!) { sweep(id: $id) { state trialsPlanned parallel counts { complete } } }"
MADE = """query ($id: ID!) {
  sweep(id: $id) {
    sampler seed objective { metric mode } pruning { rule gracePeriod } parameters { name low high integer choices }
    trials {
      nodes {
        simulations { tags priority notes parameters entrypoint limits { maxSteps } resources { cpus } }
      }
    }
  }
}"""
CURVES = """() => (document.querySelector('[data-held]')?.dataset.held.match(/"points":[1-9]/g) ?? []).length"""
# What is drawn on canvases from now on.
RECORD_STROKES = """() => {
    const {stroke} = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.stroke = function (...given) {
        (this.canvas.strokes ??= new Set()).add(this.strokeStyle);
        return stroke.apply(this, given);
    };
}"""
RECORD_TEXTS = """() => {
    const {fillText} = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...more) {
        const half = this.measureText(text).width / 2;
        if (text) (this.canvas.texts ??= []).push({text, y, left: x - half, right: x + half});
        return fillText.call(this, text, x, y, ...more);
    };
}"""
HEX = """
    const two = each => Number(each).toString(16).padStart(2, '0');
    const hex = (of, what) => '#' + getComputedStyle(of)[what].match(/\\d+/g).slice(0, 3).map(two).join('');
"""
STROKES = "canvas => [...(canvas.strokes ?? [])]"
COLOURS_OF_KEYS = f"""all => {{
    {HEX}
    return Object.fromEntries(all.map(each => [
        each.querySelector('.value').textContent.trim(), hex(each.querySelector('svg line'), 'stroke'),
    ]));
}}"""
COLOURS_OF_TRIALS = f"""table => {{
    {HEX}
    const heads = [...table.querySelectorAll('thead th')];
    const at = heads.findIndex(each => each.querySelector('button')?.title === 'optimizer.name');
    return [...table.querySelectorAll('tbody tr')].map(each => [
        each.children[at].textContent.trim(), hex(each.querySelector('.swatch'), 'backgroundColor'),
    ]);
}}"""
# Labels of the x axis: the lowest ones, from left to right.
LABELS_BELOW = """canvas => {
    const lowest = Math.max(...canvas.texts.map(each => each.y));
    return canvas.texts.filter(each => each.y === lowest).sort((one, other) => one.left - other.left);
}"""
QUICK = 'import json, sys; print(json.dumps({"step": 1, "loss": (float(sys.argv[1]) - 0.3) ** 2}))'


@pytest_asyncio.fixture(loop_scope="session")
async def sweep(service: Service) -> int:
    """One that has ended, with forty trials."""
    return await fill_sweep(service, TRIALS, metrics=(OBJECTIVE,))


async def running(service: Service, **given: Any) -> int:
    """One whose trials really run."""
    asked = {
        "simulation": {"entrypoint": [sys.executable, "-c", QUICK, "{x}"], "resources": {"cpus": 0.1}},
        "parameters": [{"name": "x", "low": 0.0, "high": 1.0}], "objective": {"metric": "loss"}, "trials": 3,
        "parallel": 3, "name": "quick", **given,
    }  # fmt: skip
    made = (await service.execute(CREATE, input=asked))["createSweep"]
    assert made["userErrors"] == []
    return int(made["sweep"]["number"])


def trials_of(page: Page) -> Locator:
    return page.get_by_role("table", name="Trials").get_by_role("rowheader")


def coordinates(page: Page) -> Locator:
    return page.locator("[data-inside]")


def slider(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name="Parallel coordinates").get_by_role("slider", name=name, exact=True)


async def test_a_sweep_shows_its_progress_its_best_and_its_trials(open_page: OpenPage, sweep: int, axe: Axe) -> None:
    page = await open_page("/sweeps")
    row = page.get_by_role("table", name="Sweeps").get_by_role("row").filter(has_text="Finished")
    await expect(row).to_contain_text("40/40")
    await axe(page)
    await row.get_by_role("link", name=NAME).click()
    await expect(page).to_have_url(re.compile(rf"/sweeps/{sweep}$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    facts = page.locator("dl[aria-label=Progress]")
    await expect(facts).to_contain_text("4 pruned, 3 failed")
    await expect(facts).to_contain_text("trial 2:")
    await expect(facts.get_by_role("meter", name="Spent of the budget")).to_be_visible()
    await expect(page.get_by_text("Ended: All trials have begun.")).to_be_visible()

    await expect(trials_of(page)).to_have_count(TRIALS)
    await expect(trials_of(page).first).to_have_text("2")
    await expect(page.get_by_role("table", name="Trials").locator(".top")).to_have_count(1)
    await expect(page.locator("[data-dots]").first).to_have_attribute("data-dots", "37")

    async def drawn() -> bool:
        return bool(await page.evaluate(CURVES) == TRIALS)

    await eventually(drawn, "all curves have points")
    bars = page.get_by_role("list", name="Importance").get_by_role("listitem")
    await expect(bars).to_have_count(4)
    await expect(bars.first).to_contain_text("learning_rate")
    await axe(page)
    assert await page.get_by_role("main").locator("b").count() == 0


async def test_axes_are_brushed_by_dragging_and_by_keyboard(page: Page, sweep: int) -> None:
    await page.goto(f"/sweeps/{sweep}")
    await expect(coordinates(page)).to_have_attribute("data-inside", str(TRIALS))
    low, high = slider(page, "batch_size, from"), slider(page, "batch_size, to")
    await low.focus()
    await expect(low).to_have_attribute("aria-valuetext", "64")
    await page.keyboard.press("ArrowUp")
    await expect(low).to_have_attribute("aria-valuetext", "128")
    await expect(coordinates(page)).not_to_have_attribute("data-inside", str(TRIALS))
    inside = int(await coordinates(page).get_attribute("data-inside") or 0)
    assert 0 < inside < TRIALS
    await expect(trials_of(page)).to_have_count(inside)
    await high.focus()
    await page.keyboard.press("Home")
    await expect(high).to_have_attribute("aria-valuetext", "128")  # the ends never cross
    fewer = int(await coordinates(page).get_attribute("data-inside") or 0)
    assert 0 < fewer < inside
    # Trials without a result have no place on the last axis: they fall out with any brush on it.
    await slider(page, f"{OBJECTIVE}, to").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Escape")
    await high.focus()
    await page.keyboard.press("Escape")
    await expect(coordinates(page)).to_have_attribute("data-inside", str(TRIALS))

    canvas = coordinates(page).locator("canvas")
    await canvas.scroll_into_view_if_needed()
    box = await canvas.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 94, box["y"] + 40)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 94, box["y"] + 120, steps=4)
    await page.mouse.up()
    await expect(page.get_by_text("within the brushes").first).to_be_visible()
    chosen = int(await coordinates(page).get_attribute("data-inside") or 0)
    assert 0 < chosen < TRIALS
    await expect(trials_of(page)).to_have_count(chosen)
    await page.get_by_role("button", name="Clear brushes").click()
    await expect(trials_of(page)).to_have_count(TRIALS)


async def test_a_parameter_is_set_against_the_objective(page: Page, sweep: int) -> None:
    await page.goto(f"/sweeps/{sweep}")
    scatter = page.get_by_role("region", name="Parameter and objective")
    await expect(scatter.get_by_role("img")).to_have_attribute("aria-label", f"{OBJECTIVE} by learning_rate: 37 trials")
    await scatter.get_by_label("Parameter").select_option("optimizer.name")
    await expect(scatter.get_by_role("img")).to_have_attribute(
        "aria-label", f"{OBJECTIVE} by optimizer.name: 37 trials"
    )
    await page.get_by_role("list", name="Importance").get_by_role("button", name="batch_size").click()
    await expect(scatter.get_by_label("Parameter")).to_have_value("batch_size")


async def test_one_choice_colours_everything_and_is_named(page: Page, sweep: int) -> None:
    await page.goto(f"/sweeps/{sweep}")
    await expect(trials_of(page)).to_have_count(TRIALS)
    await expect(page.get_by_text("colour: learning_rate")).to_have_count(4)  # what tells them apart is chosen
    await page.evaluate(RECORD_STROKES)
    await page.get_by_label("Colour by").select_option("param:optimizer.name")
    await expect(page.get_by_text("colour: optimizer.name")).to_have_count(4)
    keys = await page.locator(".key").evaluate_all(COLOURS_OF_KEYS)
    assert len(keys) > 1
    assert len(set(keys.values())) == len(keys)
    swatches = await page.get_by_role("table", name="Trials").evaluate(COLOURS_OF_TRIALS)
    assert {(name, colour) for name, colour in swatches} == set(keys.items())
    for picture in ("Parallel coordinates", "Parameter and objective", "Best so far"):
        strokes = await page.get_by_role("region", name=picture).locator("canvas").first.evaluate(STROKES)
        assert set(keys.values()) <= set(strokes), picture

    await page.get_by_label("Colour by").select_option("best")
    await expect(page.get_by_text(f"colour: {OBJECTIVE}")).to_have_count(4)
    await page.goto(f"/sweeps/{sweep}?colour=param:nonsense")
    await expect(page.get_by_text("colour: learning_rate")).to_have_count(4)


async def test_labels_of_an_axis_do_not_touch_on_a_telephone(page: Page, sweep: int) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto(f"/sweeps/{sweep}")
    scatter = page.get_by_role("region", name="Parameter and objective")
    await scatter.get_by_label("Parameter").select_option("batch_size")
    await page.evaluate(RECORD_TEXTS)
    for name in ("learning_rate", "optimizer.name"):
        await scatter.get_by_label("Parameter").select_option(name)
        await expect(scatter.get_by_role("img")).to_have_attribute("aria-label", re.compile(f"by {name}"))
        texts = await scatter.locator("canvas").evaluate(LABELS_BELOW)
        assert len(texts) > 1
        assert [one for one, other in pairwise(texts) if one["right"] + 2 > other["left"]] == [], name


async def test_a_trial_stands_out_everywhere(page: Page, sweep: int) -> None:
    await page.goto(f"/sweeps/{sweep}")
    await expect(trials_of(page)).to_have_count(TRIALS)
    row = page.get_by_role("table", name="Trials").get_by_role("row").nth(3)
    await row.hover()
    await expect(row).to_have_class(re.compile("lit"))
    await page.get_by_role("table", name="Trials").get_by_role("link", name=re.compile("^#")).nth(5).focus()
    await expect(page.get_by_role("table", name="Trials").get_by_role("row").nth(6)).to_have_class(re.compile("lit"))


async def test_trials_are_sorted(page: Page, sweep: int) -> None:
    await page.goto(f"/sweeps/{sweep}")
    await expect(trials_of(page)).to_have_count(TRIALS)
    table = page.get_by_role("table", name="Trials")
    await table.get_by_role("button", name="Trial", exact=True).click()
    await expect(trials_of(page).first).to_have_text("0")
    await table.get_by_role("button", name="Trial", exact=True).click()
    await expect(trials_of(page).first).to_have_text("39")
    await table.get_by_role("button", name="learning_rate").click()
    await expect(table.get_by_role("columnheader", name="learning_rate")).to_have_attribute("aria-sort", "ascending")
    await expect(trials_of(page).first).to_have_text("0")


async def test_trials_of_an_objective_to_maximise_begin_with_the_greatest_value(
    service: Service, page: Page, sweep: int
) -> None:
    await service.alter("UPDATE sweeps SET objective_mode = 'MAX'")
    await page.goto(f"/sweeps/{sweep}")
    await expect(trials_of(page)).to_have_count(TRIALS)
    head = page.get_by_role("table", name="Trials").get_by_role("columnheader").nth(1)
    await expect(head.get_by_role("button")).to_have_attribute("title", OBJECTIVE)
    await expect(head).to_have_attribute("aria-sort", "descending")
    await expect(head).to_contain_text("▼")
    complete = [
        float(await row.get_by_role("cell").first.inner_text())
        for row in await page.get_by_role("table", name="Trials").get_by_role("row").filter(has_text="Complete").all()
    ]
    assert len(complete) > 20
    assert complete == sorted(complete, reverse=True)
    await head.get_by_role("button").click()
    await expect(head).to_have_attribute("aria-sort", "ascending")


async def test_the_best_is_run_again_in_one_click(service: Service, page: Page, sweep: int) -> None:
    await page.goto(f"/sweeps/{sweep}")
    await page.get_by_role("button", name="Run the best again").click()
    await expect(page).to_have_url(re.compile("/simulations/"))
    [row] = await service.fetch(
        "SELECT retry_of, parameters->'batch_size' AS batch FROM simulations ORDER BY id DESC LIMIT 1"
    )
    [best] = await service.fetch("SELECT id, parameters->'batch_size' AS batch FROM simulations WHERE trial = 2")
    assert (row["retry_of"], row["batch"]) == (best["id"], best["batch"])


async def test_a_sweep_is_created_followed_extended_and_cancelled(service: Service, page: Page, axe: Axe) -> None:
    await page.goto("/sweeps")
    await expect(page.get_by_text("No sweeps yet.")).to_be_visible()
    await page.get_by_role("button", name="New sweep").click()
    form = page.get_by_role("dialog", name="New sweep")
    await form.get_by_role("button", name="Start it").click()
    await expect(form.get_by_role("alert")).to_contain_text("Enter a command")
    await axe(page)
    await form.get_by_label("Command").fill(f"{sys.executable} -c '{QUICK}' {{x}}")
    await form.get_by_label("Name of parameter 1").fill("x")
    await form.get_by_label("Value of parameter x").fill("0..1")
    await form.get_by_label("Objective").fill("loss")
    await form.get_by_label("Trials").fill("3")
    await form.get_by_role("button", name="Start it").click()
    await expect(page).to_have_url(re.compile(r"/sweeps/\d+$"))
    number = page.url.rsplit("/", 1)[1]
    # What its trials come to is seen as it comes.
    await expect(page.locator(".state").first).to_have_text("Finished")
    await expect(trials_of(page)).to_have_count(3)
    await expect(page.get_by_text("There is too little to say")).to_be_visible()

    await page.get_by_role("button", name="Extend").click()
    form = page.get_by_role("dialog", name=re.compile("^Extend"))
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_role("alert")).to_contain_text("Nothing was changed")
    await axe(page)
    await form.get_by_label("Trials").fill("6")
    await form.get_by_role("button", name="Save").click()
    await expect(form).to_be_hidden()
    await expect(trials_of(page)).to_have_count(6)
    await expect(page.get_by_role("list", name="Importance")).to_be_visible()

    async def planned() -> bool:
        return bool((await service.execute(STATE, id=number))["sweep"]["counts"]["complete"] == 6)

    await eventually(planned, "all six are complete")

    endless = await running(service, simulation={"entrypoint": ["sleep", "600", "{x}"], "resources": {"cpus": 0.1}})
    await page.goto(f"/sweeps/{endless}")
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the sweep").click()
    await expect(page.get_by_text("The sweep was cancelled.")).to_be_visible()
    await expect(page.locator(".state").first).to_have_text("Cancelled")
    await expect(page.get_by_role("button", name="Extend")).to_be_hidden()
    # What was cancelled did not fail, and is not red.
    await expect(page.get_by_role("table", name="Trials").locator(".state.off")).to_have_text(["Cancelled"] * 3)
    await expect(page.get_by_role("img", name="3 of 3 trials ended: 3 cancelled")).to_be_visible()


async def test_the_form_has_what_the_command_line_has(service: Service, page: Page, axe: Axe) -> None:
    await page.goto("/sweeps")
    await page.get_by_role("button", name="New sweep").click()
    form = page.get_by_role("dialog", name="New sweep")
    await form.get_by_label("Command").fill(f"{sys.executable} -c '{QUICK}' {{x}} {{n}} {{opt}} {{data}}")
    rows = [
        ("x", "0..1", "range"),
        ("n", "2..8", "auto"),
        ("opt", "adam", "choices"),
        ("data", "9007199254740993", "value"),
    ]
    for number, (name, value, kind) in enumerate(rows, 1):
        if number > 1:
            await form.get_by_role("button", name="Add a parameter").click()
        await form.get_by_label(f"Name of parameter {number}").fill(name)
        await form.get_by_label(f"Value of parameter {name}", exact=True).fill(value)
        await form.get_by_label(f"Kind of parameter {name}", exact=True).select_option(kind)
    await expect(form.get_by_label("Kind of parameter n", exact=True)).to_contain_text("as written: whole numbers")
    await form.get_by_label("Objective", exact=True).fill("loss")
    await form.get_by_label("Direction").select_option("MAX")
    await form.get_by_label("Sampler", exact=True).select_option("RANDOM")
    await form.get_by_label("Trials", exact=True).fill("2")
    await form.get_by_label("CPUs of each").fill("0.1")
    await form.get_by_label("Planned steps").fill("100")
    await form.get_by_label("Pruning").select_option("MEDIAN")
    await form.get_by_text("When it compares and ends").click()
    await form.get_by_label("First comparison").fill("7")
    await form.get_by_label("Seed of the sampler").fill("11")
    await form.get_by_text("Project, tags and priority").click()
    await form.get_by_label("Priority").fill("high")
    await form.get_by_label("Tags").fill("swept,")
    await form.get_by_text("Project, tags and priority").click()
    await form.get_by_role("button", name="Start it").click()
    # What is wrong is in a part that was folded: it is open again, and the way to it is a press of Enter.
    await form.get_by_role("alert").get_by_role("button", name="Priority").press("Enter")
    await expect(form.get_by_label("Priority")).to_be_focused()
    await axe(page)
    await form.get_by_label("Priority").fill("3")
    await form.locator("summary").filter(has_text="Notes").click()
    await form.get_by_role("textbox", name="Notes").fill("A *first* try")
    await form.get_by_role("button", name="Start it").click()
    await expect(page).to_have_url(re.compile(r"/sweeps/\d+$"))
    made = (await service.execute(MADE, id=page.url.rsplit("/", 1)[1]))["sweep"]
    assert (made["sampler"], made["seed"], made["objective"]) == ("RANDOM", 11, {"metric": "loss", "mode": "MAX"})
    assert made["pruning"] == {"rule": "MEDIAN", "gracePeriod": 7}
    space = [{"name": "x", "low": 0, "high": 1, "integer": False, "choices": None},
             {"name": "n", "low": 2, "high": 8, "integer": True, "choices": None},
             {"name": "opt", "low": None, "high": None, "integer": False, "choices": ["adam"]}]  # fmt: skip
    assert made["parameters"] == space
    await expect(trials_of(page)).to_have_count(2)
    [one, _] = (await service.execute(MADE, id=page.url.rsplit("/", 1)[1]))["sweep"]["trials"]["nodes"]
    [simulation] = one["simulations"]
    assert (simulation["tags"], simulation["priority"], simulation["notes"]) == (["swept"], 3, "A *first* try")
    assert simulation["parameters"]["data"] == 9007199254740993
    assert simulation["entrypoint"][-1] == "9007199254740993"
    assert (simulation["limits"], simulation["resources"]) == ({"maxSteps": 100}, {"cpus": 0.1})


async def test_a_telephone_has_room_for_it(open_page: OpenPage, sweep: int, axe: Axe) -> None:
    for address in ("/sweeps", f"/sweeps/{sweep}"):
        page = await open_page(address, viewport={"width": 390, "height": 844})
        await expect(page.get_by_text(NAME).first).to_be_visible()
        if address != "/sweeps":
            await expect(trials_of(page)).to_have_count(TRIALS)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        await axe(page)


async def test_a_sweep_that_is_not_there_is_said(page: Page, sweep: int, axe: Axe) -> None:
    await page.goto(f"/sweeps/{sweep + 1000}")
    await expect(page.get_by_role("main")).to_contain_text("is not the id, number or name of a sweep")
    await axe(page)
    await page.get_by_role("link", name="See all sweeps").click()
    await expect(page).to_have_url("/sweeps")
