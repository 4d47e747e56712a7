"""A simulation with many metrics in a real browser: small charts, its notes, and a run with changes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest_asyncio
from ended import METRICS, POINTS, fill
from live import number_of
from playwright.async_api import Locator, Page, expect

from db.public_ids import encode

Service = Any  # the fixtures of conftest.py
OpenPage = Any
Axe = Any

LOSS = "val/cross_entropy_loss_per_token"
MANY = 300
NOTES = """# Why
A **warm** start of `#107`.

- [paper](https://example.org/paper)
- <img src=x onerror="document.title='owned'"> [bad](javascript:alert(1)) <script>document.title='owned'</script>
"""
UPDATE = """mutation ($id: ID!, $notes: String) {
  updateSimulation(input: {id: $id, notes: $notes}) { userErrors { message } }
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def simulation(service: Service) -> str:
    """One that has ended, with twelve metrics."""
    await fill(service, 1)
    [row] = await service.fetch("SELECT id FROM simulations")
    return encode("Simulation", row["id"])


def charts(page: Page) -> Locator:
    return page.get_by_role("region", name="All metrics")


def small(page: Page, metric: str) -> Locator:
    return charts(page).locator("figure").filter(has=page.locator(f'[data-metric="{metric}"]'))


def large(page: Page) -> Locator:
    return page.get_by_role("group", name=re.compile("Convergence of"))


async def test_each_metric_has_a_small_chart_in_the_group_of_its_prefix(
    simulation: str, open_page: OpenPage, axe: Axe
) -> None:
    page = await open_page(f"/simulations/{simulation}")
    await expect(charts(page).locator("h3")).to_have_text(
        [re.compile(each) for each in ("val/", "Without", "train/", "perf/")]
    )
    for metric in METRICS[:8]:
        await expect(small(page, metric).first).to_be_attached()
    await expect(small(page, LOSS).locator("canvas")).to_be_visible()
    assert [curve["curve"] for curve in await _drawn(page)] == [LOSS], "the large one has the objective alone"
    assert (await page.title()).startswith(LOSS), "the objective is in the title"
    await axe(page)

    await small(page, METRICS[0]).get_by_role("button", name=f"Draw {METRICS[0]} in the large chart").click()
    await expect(large(page)).to_have_attribute("data-held", re.compile(METRICS[0]))
    await page.get_by_role("button", name="Logarithmic").click()
    await charts(page).get_by_placeholder("Search metrics").fill("ACCURACY top5")
    await expect(charts(page).locator("figure")).to_have_count(1)
    await charts(page).get_by_placeholder("Search metrics").fill("nothing like it")
    await expect(charts(page)).to_contain_text("No metric contains this.")


async def test_long_names_in_the_head_are_cut_in_their_middle(simulation: str, page: Page) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto(f"/simulations/{simulation}")
    name = page.get_by_test_id("objective").locator(".cut")
    await expect(name).to_have_text(LOSS)
    assert await name.evaluate("it => it.clientWidth < it.parentElement.clientWidth + 1"), "within its tile"
    assert await name.evaluate("it => parseFloat(getComputedStyle(it, '::after').width) > 40"), "with its end"


async def test_values_are_read_at_one_place_in_all_charts(simulation: str, page: Page) -> None:
    await page.goto(f"/simulations/{simulation}")
    canvas = small(page, LOSS).locator("[data-metric]")
    await expect(canvas.locator("canvas")).to_be_visible()
    await canvas.hover()
    at = await canvas.get_attribute("data-at")
    assert at is not None
    assert 1 < int(at) < POINTS
    await expect(small(page, METRICS[5]).locator("[data-metric]")).to_have_attribute("data-at", at)
    await expect(page.locator(".legend .where")).to_have_text(f"step {at}")
    await page.mouse.move(5, 5)
    await expect(page.locator(".legend .where")).to_have_text("Newest")


async def test_a_metric_without_a_direction_has_no_best(simulation: str, page: Page) -> None:
    await page.goto(f"/simulations/{simulation}")
    rows = page.get_by_role("region", name="Metrics", exact=True)
    undirected, loss = (rows.get_by_role("row").filter(has_text=name) for name in ("learning_rate", LOSS))
    await expect(loss.get_by_role("cell").nth(1)).to_contain_text("at step")
    await expect(loss.get_by_role("rowheader")).to_have_text(re.compile("↓$"))
    await expect(undirected.get_by_role("cell").nth(1)).to_have_text("")
    await expect(undirected.get_by_role("rowheader")).not_to_have_text(re.compile("[↑↓]"))
    canvas = small(page, "epoch").locator("[data-metric]")
    await expect(canvas).to_have_attribute("aria-label", re.compile("last (?!.*best)"))
    await expect(small(page, LOSS).locator("[data-metric]")).to_have_attribute("aria-label", re.compile("best"))


async def test_pinned_charts_are_first_also_in_the_next_simulation(simulation: str, page: Page) -> None:
    await page.goto(f"/simulations/{simulation}")
    pin = small(page, "epoch").get_by_role("button", name="Pin epoch")
    await pin.focus()
    await page.keyboard.press("Enter")
    await expect(charts(page).locator("h3").first).to_contain_text("Pinned")
    await page.reload()
    await expect(charts(page).locator("h3").first).to_contain_text("Pinned")
    await expect(charts(page).locator("figure").first).to_contain_text("epoch")


async def test_of_hundreds_of_metrics_those_in_sight_are_drawn(service: Service, page: Page) -> None:
    await fill(service, 1, tuple(f"layer{n:03}/norm" for n in range(MANY)), 3)
    [row] = await service.fetch("SELECT id FROM simulations")
    await page.goto(f"/simulations/{encode('Simulation', row['id'])}")
    await expect(charts(page).locator("header")).to_contain_text(str(MANY))
    await expect(charts(page).locator("figure").first).to_be_visible()
    assert await charts(page).locator("figure").count() < 60
    assert await page.evaluate("document.documentElement.scrollHeight") < 6_000
    await page.get_by_role("group", name="Charts").evaluate("each => each.scrollTo(0, each.scrollHeight)")
    await expect(small(page, f"layer{MANY - 1:03}/norm")).to_be_visible()
    assert await charts(page).locator("figure").count() < 60


async def test_a_chart_is_saved_as_a_picture(simulation: str, page: Page) -> None:
    await page.goto(f"/simulations/{simulation}")
    await expect(large(page)).to_have_attribute("data-held", re.compile(LOSS))
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Picture").click()
    file = await (await download.value).path()
    assert (await download.value).suggested_filename.endswith(".png")
    assert file.read_bytes().startswith(b"\x89PNG")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="SVG").click()
    assert (await download.value).suggested_filename.endswith(".svg")
    picture = ElementTree.fromstring(Path(await (await download.value).path()).read_text())
    name = "{http://www.w3.org/2000/svg}"
    texts = ["".join(each.itertext()) for each in picture.iter(f"{name}text")]
    assert LOSS in texts
    assert any(re.fullmatch(r"[\d.,]+", each) for each in texts), "numbers at the axes"
    assert picture.find(f".//{name}image") is None
    longest = max(len(re.findall("[ML]", each.get("d", ""))) for each in picture.iter(f"{name}path"))
    assert longest > 20, "the curve is a line of its points"
    assert "NaN" not in ElementTree.tostring(picture, "unicode")


async def test_each_curve_has_an_axis_with_its_name_or_the_ends_of_its_scale_in_words(
    service: Service, page: Page
) -> None:
    names = ["accuracy", "gap", "loss", "lr"]
    await fill(service, 1, tuple(names), 10)
    [row] = await service.fetch("SELECT id FROM simulations")
    await page.goto(f"/simulations/{encode('Simulation', row['id'])}")
    await expect(large(page)).to_have_attribute("data-held", re.compile("gap"))
    without = page.get_by_title(re.compile("no room for its axis"))
    await expect(without).to_have_count(0)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="SVG").click()
    picture = ElementTree.fromstring(Path(await (await download.value).path()).read_text())
    turned = [each.text for each in picture.iter() if "rotate" in each.get("transform", "")]
    assert sorted(map(str, turned)) == names
    await page.set_viewport_size({"width": 390, "height": 844})
    await expect(without).to_have_count(3)
    await expect(without.first).to_have_text(re.compile(r"^scale [\d.]+ to [\d.]+$"))


async def test_a_logarithmic_axis_of_all_doubles_has_numbers(service: Service, page: Page) -> None:
    values = ["5e-324", "1e-300", "NaN", "1.0", "1e300", "1.7976931348623157e308"]
    lines = "\n".join(f'{{"step": {step}, "loss": {value}}}' for step, value in enumerate(values))
    made = await service.submit(sys.executable, "-c", f"print({lines!r})")
    assert (await service.finished(made))["state"] == "FINISHED"
    await page.goto(f"/simulations/{made}")
    await expect(large(page)).to_have_attribute("data-held", re.compile("loss"))
    await page.get_by_role("button", name="Logarithmic").click()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="SVG").click()
    picture = ElementTree.fromstring(Path(await (await download.value).path()).read_text())
    texts = [str(each.text) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert len([each for each in texts if re.fullmatch(r"1e-?\d+", each)]) > 4


async def test_curves_of_one_chart_have_different_colours(service: Service, page: Page) -> None:
    names = [f"metric{number:02}" for number in range(17)]
    await fill(service, 1, tuple(names), 10)
    [row] = await service.fetch("SELECT id FROM simulations")
    await page.goto(f"/simulations/{encode('Simulation', row['id'])}")
    lines = large(page).locator("xpath=..").locator(".legend li:not(.off) svg line")
    await expect(lines).to_have_count(1)
    for name in ("metric08", "metric16"):  # as many colours further
        await small(page, name).get_by_role("button", name=f"Draw {name} in the large chart").click()
    await expect(lines).to_have_count(3)
    strokes = await lines.evaluate_all("all => all.map(each => getComputedStyle(each).stroke)")
    assert len(set(strokes)) == 3
    async with page.expect_download() as download:
        await page.get_by_role("button", name="SVG").click()
    picture = ElementTree.fromstring(Path(await (await download.value).path()).read_text())
    keys = [each.get("stroke") for each in picture.iter() if each.get("d", "").endswith("h18")]
    assert len(set(keys)) == 3


async def test_notes_are_markdown_without_what_could_act(
    simulation: str, service: Service, page: Page, axe: Axe
) -> None:
    await service.execute(UPDATE, id=simulation, notes=NOTES)
    await page.goto(f"/simulations/{simulation}")
    notes = page.get_by_role("region", name="Notes", exact=True)
    await expect(notes.get_by_role("heading", name="Why")).to_be_visible()
    await expect(notes.locator("strong")).to_have_text("warm")
    await expect(notes.get_by_role("link", name="paper")).to_have_attribute("rel", "noopener noreferrer")
    await expect(notes.get_by_text("bad")).to_be_visible()
    assert await notes.locator("img, script, [href^=javascript]").count() == 0
    assert "owned" not in await page.title()
    await axe(page)
    await page.get_by_role("button", name="Edit").click()
    await page.get_by_role("dialog").get_by_label("Tags").fill("edited, lr-sweep")
    await page.get_by_role("dialog").get_by_label("Notes").fill("shorter")
    await page.get_by_role("button", name="Save").click()
    await expect(notes).to_contain_text("shorter")
    await page.get_by_role("link", name="edited").click()
    await expect(page).to_have_url("/?tag=edited")
    await expect(page.locator("tbody th[scope=row]")).to_have_count(1)


async def test_a_run_with_changes_shows_what_differs_and_keeps_all_digits(
    simulation: str, service: Service, page: Page, axe: Axe
) -> None:
    await page.goto(f"/simulations/{simulation}")
    await page.get_by_role("button", name="Run again").click()
    dialog = page.get_by_role("dialog", name=re.compile("again"))
    await expect(dialog.get_by_text("Nothing is different.")).to_be_visible()
    await expect(dialog.get_by_label("Begin with a copy of its checkpoint")).to_be_hidden()  # it has none
    await dialog.get_by_label("lr", exact=True).fill("0.5")
    await expect(dialog.get_by_text("Different: lr.")).to_be_visible()
    await expect(dialog.get_by_text("was: 0.001")).to_be_visible()
    note = dialog.get_by_text("written out")
    await expect(note).to_be_hidden()  # the command has no option of its own for it
    await dialog.get_by_label("Command").fill("python train.py --lr=0.001")
    await expect(note).to_have_text(re.compile("The command has lr written out, as 0.001, .*Write {lr} there"))
    await dialog.get_by_label("Command").fill("python train.py --lr={lr}")
    await expect(note).to_be_hidden()
    await dialog.get_by_label("Name", exact=True).fill("changed")
    await dialog.get_by_role("button", name="Add a parameter").click()
    await dialog.get_by_label("Name of the new parameter").fill("seed")
    await dialog.get_by_label("seed", exact=True).fill("9223372036854775807")
    await axe(page)
    await dialog.get_by_role("button", name="Queue it again").click()
    await expect(page.get_by_role("heading", name="changed")).to_be_visible()
    [row] = await service.fetch("SELECT parameters::text AS p, retry_of FROM simulations WHERE name = 'changed'")
    assert row["retry_of"] == number_of(simulation)
    assert '"lr": 0.5' in row["p"]
    assert '"seed": 9223372036854775807' in row["p"]
    assert '"seed": 9007199254740994' in row["p"], "what was not touched keeps its digits"
    facts = page.get_by_role("table", name="Parameters")
    await expect(facts).to_contain_text("9223372036854775807")


async def _drawn(page: Page) -> Any:
    await expect(large(page)).to_have_attribute("data-held", re.compile("points"))
    return await large(page).evaluate("each => JSON.parse(each.dataset.held)")
