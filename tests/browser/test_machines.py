"""The page of the machines: what is free, what runs where, and all that can be done with them, live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Browser, Locator, Page, expect

Axe = Any  # the fixtures of conftest.py
Complaints = Any
OpenPage = Any
Service = Any

PATIENCE_MILLISECONDS = 60_000
NARROW = {"width": 360, "height": 740}
HTML = '<img src=x onerror="document.title=1"><b>bold</b>'
CREATE = "mutation M($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }"
NAMES = "query { machines(first: 100) { nodes { name } } }"
THOUSANDS = """
INSERT INTO machines (name, engine, engine_key, host, declared, cpus, memory_gib, gpus, labels, price_per_hour)
SELECT 'node-' || lpad(n::text, 5, '0'), 'ray', 'key-' || n, NULL, false, 64, 512, 8, '{"rack": "r1"}', 9.5
FROM generate_series(1, 3000) AS n
"""


def line(page: Page, name: str) -> Locator:
    """A machine of the list."""
    heading = page.get_by_role("heading", name=name, exact=True)
    return page.get_by_role("list", name="Machines").locator("> li").filter(has=heading)


async def make(service: Service, name: str, **given: Any) -> None:
    answer = await service.execute(CREATE, input={"name": name, "cpus": 4, "memoryGib": 16, **given})
    assert answer["createMachine"]["userErrors"] == []


async def test_what_runs_where_and_what_it_costs_is_shown_as_it_changes(page: Page, service: Service) -> None:
    await make(service, "part", pricePerHour="8")
    await page.goto("/machines")
    part = line(page, "part")
    await expect(part).to_contain_text("No simulations.")
    await expect(part).to_contain_text("4 of 4 free")
    await expect(part).to_contain_text("16 of 16 GiB free")
    await expect(part.get_by_text("8.00 USD/h")).to_be_visible()
    [machine] = [each["id"] for each in await service.machines() if each["name"] == "part"]
    simulation = await service.submit(
        "python", "-c", "import time; time.sleep(600)", name="<i>long</i>",
        resources={"cpus": 1, "memoryGib": 1, "machine": machine},
    )  # fmt: skip
    await expect(part.get_by_role("link", name="<i>long</i>", exact=True)).to_have_attribute(
        "href", f"/simulations/{simulation}"
    )
    await expect(part).to_contain_text("3 of 4 free")
    await expect(part.get_by_text("2.00 USD/h")).to_be_visible()  # a quarter of the machine
    await service.cancel(simulation)
    await expect(part).to_contain_text("No simulations.")
    await expect(part).to_contain_text("4 of 4 free")


async def test_a_machine_is_added_changed_drained_resumed_and_deleted(page: Page, service: Service) -> None:
    await page.goto("/machines")
    await page.get_by_role("button", name="Add a machine").click()
    dialog = page.get_by_role("dialog", name="Add a machine")
    await dialog.get_by_role("button", name="Add it").click()
    summary = dialog.get_by_role("alert")
    await expect(summary).to_be_focused()
    await expect(summary.get_by_role("listitem")).to_have_count(3)  # a name, cpus, memory
    for label, text in {
        "Name": HTML, "CPUs": "2", "Memory, GiB": "x", "GPUs": "1.5", "GPU model": "A100", "Price per hour, USD": "$1",
    }.items():  # fmt: skip
        await dialog.get_by_label(label, exact=True).fill(text)
    await dialog.get_by_role("button", name="Add it").click()
    await expect(summary.get_by_role("listitem")).to_have_count(3)
    for label, message in {
        "Memory, GiB": "Expected a number, got “x”.", "GPUs": "Expected a whole number, got “1.5”.",
        "Price per hour, USD": "Expected a price like 2.50",
    }.items():  # fmt: skip
        field = dialog.get_by_label(label, exact=True)
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(summary).to_contain_text(message)
    for label, text in {"Memory, GiB": "4", "GPUs": "0", "Price per hour, USD": "1.25", "CPUs": "-1"}.items():
        await dialog.get_by_label(label, exact=True).fill(text)
    await dialog.get_by_role("button", name="Add it").click()
    await expect(summary).to_contain_text("greater than 0")  # says the server
    await expect(dialog.get_by_label("Name", exact=True)).to_have_value(HTML)
    await dialog.get_by_label("CPUs", exact=True).fill("2")
    await dialog.get_by_role("button", name="Add a label").click()
    await dialog.get_by_label("Name of label 1").fill("<b>zone</b>")
    await dialog.get_by_label("Value of label <b>zone</b>").fill("<i>a</i>")
    await dialog.get_by_role("button", name="Add it").click()
    await expect(dialog).to_be_hidden()

    added = line(page, HTML)
    await expect(added).to_contain_text("<b>zone</b>=<i>a</i>")
    await expect(added.get_by_text("1.25 USD/h")).to_be_visible()
    assert await page.locator("main img, main b, main i").count() == 0
    await expect(page).to_have_title("Machines · Simulations")

    await added.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Price per hour, USD").fill("3.5")
    await dialog.get_by_role("button", name="Remove label <b>zone</b>").click()
    await dialog.get_by_role("button", name="Save").click()
    await expect(added.get_by_text("3.50 USD/h")).to_be_visible()
    await expect(added).not_to_contain_text("zone")

    await added.get_by_role("button", name="Drain").click()
    await expect(added).to_contain_text("Draining")
    await expect(added).to_contain_text("since")
    await added.get_by_role("button", name="Resume").click()
    await expect(added).to_contain_text("Online")

    await added.get_by_role("button", name="Delete").click()
    question = page.get_by_role("dialog", name=f"Delete {HTML}?")
    await question.get_by_role("button", name="No, go back").click()
    await expect(question).to_be_hidden()
    await expect(added).to_be_visible()
    await added.get_by_role("button", name="Delete").click()
    await question.get_by_role("button", name="Delete it").click()
    await expect(added).to_have_count(0)
    assert HTML not in [each["name"] for each in (await service.execute(NAMES))["machines"]["nodes"]]


async def test_a_drained_machine_has_a_deadline_at_which_what_runs_on_it_starts_elsewhere(
    page: Page, service: Service, axe: Axe
) -> None:
    for name in ("part", "other"):
        await make(service, name, labels={"kind": "part"})
    simulation = await service.submit(
        "python", "-c", "import time; time.sleep(600)", name="long", resources={"cpus": 4, "labels": {"kind": "part"}}
    )
    await service.until(simulation, "RUNNING")
    first = (await service.show(simulation))["machine"]["name"]
    await page.goto("/machines")
    part = line(page, first)
    await part.get_by_role("button", name="Drain").click()
    await part.get_by_role("button", name="Deadline").click()
    dialog = page.get_by_role("dialog", name=f"Deadline of {first}")
    await dialog.get_by_label("Deadline").fill("2199-12-31T12:00")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("more than a year ahead")
    await axe(page)
    soon = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%dT%H:%M}"  # in whatever zone the browser is
    await dialog.get_by_label("Deadline").fill(soon)
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_be_hidden()
    await expect(part).to_contain_text("what runs goes on until")
    await part.get_by_role("button", name="Deadline").click()
    await expect(dialog.get_by_label("Deadline")).to_have_value(soon)
    await expect(part.get_by_role("link", name="long", exact=True)).to_be_visible()

    await dialog.get_by_label("Deadline").fill("2001-01-01T00:00")  # a time that has passed: at once
    await dialog.get_by_role("button", name="Save").click()
    other = line(page, "other" if first == "part" else "part")
    await expect(other.get_by_role("link", name="long", exact=True)).to_be_visible()
    await expect(part).to_contain_text("No simulations.")
    await page.goto(f"/simulations/{simulation}")
    attempts = page.get_by_role("region", name="Attempts").get_by_role("row")
    await expect(attempts.filter(has_text="Preempted")).to_contain_text(first)
    await expect(attempts.filter(has_text="It goes on.")).to_be_visible()


async def test_a_name_that_is_taken_is_told_at_its_field(page: Page, service: Service) -> None:
    await make(service, "taken")
    await page.goto("/machines")
    await page.get_by_role("button", name="Add a machine").click()
    dialog = page.get_by_role("dialog")
    for label, text in {"Name": "taken", "CPUs": "1", "Memory, GiB": "1"}.items():
        await dialog.get_by_label(label, exact=True).fill(text)
    await dialog.get_by_role("button", name="Add it").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Another machine is called")
    await expect(dialog.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")


async def test_a_busy_machine_is_not_deleted_and_says_why(page: Page, service: Service) -> None:
    simulation = await service.submit("python", "-c", "import time; time.sleep(600)")
    await service.until(simulation, "RUNNING")
    await page.goto("/machines")
    [machine] = (await service.execute(NAMES))["machines"]["nodes"]
    await line(page, machine["name"]).get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    await expect(page.get_by_role("status").filter(has_text="drain it and wait")).to_be_visible()
    await expect(line(page, machine["name"])).to_be_visible()
    await service.cancel(simulation)


async def test_the_view_is_in_the_address_bar_and_thousands_come_by_pages(page: Page, service: Service) -> None:
    await service.alter(THOUSANDS)
    await page.goto("/machines")
    rows = page.get_by_role("list", name="Machines").locator("> li")
    await expect(page.get_by_text("3,001", exact=True)).to_be_visible()
    await expect(rows).to_have_count(25)
    await expect(rows.first).to_contain_text("node-00001")
    await page.get_by_role("button", name="Next page").click()
    await expect(rows.first).to_contain_text("node-00026")
    await page.reload()
    await expect(rows.first).to_contain_text("node-00026")
    await page.go_back()
    await expect(rows.first).to_contain_text("node-00001")

    await page.get_by_label("Order").select_option("Name, Z to A")
    await expect(rows.first).not_to_contain_text("node-00001")
    await page.get_by_label("State").select_option("Offline")
    await expect(rows.first).to_contain_text("node-03000")
    await page.get_by_label("Name contains").fill("E-0299")
    await page.get_by_label("Name contains").press("Enter")
    await expect(page.get_by_text("10 match", exact=True)).to_be_visible()
    await expect(rows).to_have_count(10)
    kept = page.url
    await page.goto("/")
    await page.goto(kept)
    await expect(rows.first).to_contain_text("node-02999")
    await expect(page.get_by_label("State")).to_have_value("OFFLINE")
    await page.get_by_label("Engine").select_option("ray")
    await expect(page).to_have_url(f"{kept}&engine=ray")
    await page.get_by_label("Name contains").fill("none of them")
    await page.get_by_label("Name contains").press("Enter")
    await page.get_by_role("button", name="Show all").click()
    await expect(page.get_by_text("3,001", exact=True)).to_be_visible()


async def test_what_happened_while_the_server_was_away_is_there_when_it_is_back(
    page: Page, service: Service, complaints: Complaints
) -> None:
    complaints.expect("ERR_CONNECTION_REFUSED|WebSocket")
    await page.goto("/machines")
    await expect(page.get_by_role("button", name="Drain")).to_be_visible()
    await service.end()
    await expect(page.get_by_role("status").filter(has_text="The connection was lost")).to_be_visible()
    await service.alter(THOUSANDS.replace("3000", "3"))
    await service.up()
    await expect(line(page, "node-00003")).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="The connection was lost")).to_be_hidden()


async def test_where_there_is_no_machine_the_page_says_how_to_get_one(
    browser: Browser, lend: Any, built: Any, axe: Axe
) -> None:
    async with lend(SIMULATIONS_LOCAL_MACHINE="false") as service:
        context = await browser.new_context(base_url=service.address)
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        page = await context.new_page()
        await page.goto("/machines")
        await expect(page.get_by_role("heading", name="No machines yet")).to_be_visible()
        await axe(page)
        await page.get_by_role("main").get_by_role("button", name="Add a machine").last.click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        await context.close()


async def test_the_page_is_accessible_and_fits_a_narrow_screen(open_page: OpenPage, service: Service, axe: Axe) -> None:
    await make(service, "long" * 40, gpus=0, labels={"key" * 60: "value" * 30})
    for options in ({}, {"viewport": NARROW}):
        page = await open_page("/machines", **options)
        await expect(line(page, "long" * 40)).to_be_visible()
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await line(page, "long" * 40).get_by_role("button", name="Edit").click()
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
