"""The page of the plan: what runs on each machine and until when, what room is reserved, and what waits behind it."""

from __future__ import annotations

import re
from typing import Any

from playwright.async_api import Locator, Page, expect

Axe = Any  # the fixtures of conftest.py
OpenPage = Any
Service = Any

HTML = "<b>long"  # in a regular expression, a slash would end the selector
SLEEP = ("python", "-c", "import time; time.sleep(600)")
CREATE = (
    "mutation M($input: CreateMachineInput!) { createMachine(input: $input) { machine { id } userErrors { message } } }"
)
HUNDRED = """
INSERT INTO machines (name, engine, engine_key, host, declared, cpus, memory_gib, gpus, labels, price_per_hour)
SELECT 'node-' || lpad(n::text, 5, '0'), 'ray', 'key-' || n, NULL, false, 64, 512, 8, '{}', 9.5
FROM generate_series(1, 100) AS n
"""


async def machine(service: Service, name: str, **given: Any) -> str:
    answer = (await service.execute(CREATE, input={"name": name, "cpus": 4, "memoryGib": 8, **given}))["createMachine"]
    assert answer["userErrors"] == []
    return str(answer["machine"]["id"])


def on(page: Page, name: str) -> Locator:
    """What stands on a machine's lanes."""
    return page.get_by_role("list", name=f"On {name}", exact=True)


async def planned(service: Service) -> str:
    """A machine that is full of two runs, with and without a limit, and two that wait for it; its id."""
    whole = await machine(service, "part", gpus=4)
    for name, gpus, given in (
        (HTML, 2, {"limits": {"maxRuntimeSeconds": 7200}}), ("open end", 2, {"preemptible": True}),
    ):  # fmt: skip
        needs = {"cpus": 1, "gpus": gpus, "machine": whole}
        await service.until(await service.submit(*SLEEP, name=name, resources=needs, **given), "RUNNING")
    for name, gpus in (("reserved", 2), ("behind", 4)):
        needs = {"cpus": 1, "gpus": gpus, "machine": whole}
        await service.submit(*SLEEP, name=name, resources=needs, limits={"maxRuntimeSeconds": 7200})
    return whole


async def test_what_runs_is_reserved_and_waits_is_shown_as_it_changes(page: Page, service: Service) -> None:
    await planned(service)
    await page.goto("/")
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Plan", exact=True).click()
    await expect(page.get_by_role("heading", name="Plan", exact=True, level=1)).to_be_visible()
    await expect(page.get_by_text("2 machines, 2 queued")).to_be_visible()
    lanes = on(page, "part")
    bounded = lanes.get_by_role("link", name=re.compile(r"^<b>long: since .*, at the latest .*, 50 % of the machine"))
    await expect(bounded).to_have_text(HTML)
    open_end = lanes.get_by_role("link", name=re.compile(r"^open end: since .*, end unknown, .*, preemptible\.$"))
    await expect(open_end).to_have_class(re.compile(r"\bopen\b.*|.*\bpreemptible\b"))
    await expect(lanes.get_by_role("link", name=re.compile("^reserved: reserved from "))).to_be_visible()
    await expect(lanes.get_by_role("link", name=re.compile("^behind: reserved from .*, in 1 h "))).to_be_visible()

    await page.get_by_label("Time ahead").select_option("Next day")
    await expect(page).to_have_url("/plan?hours=24")
    await page.get_by_label("Time ahead").select_option("Next 6 hours")
    await expect(page).to_have_url("/plan")
    await bounded.click()
    await expect(page.get_by_role("heading", name=HTML, exact=True, level=1)).to_be_visible()
    await page.go_back()

    running = await service.fetch("SELECT id FROM simulations WHERE name = 'open end'")
    [[number]] = [list(row) for row in running]
    await service.cancel(str(number))
    await expect(lanes.get_by_role("link", name=re.compile("^open end"))).to_have_count(0)
    await expect(lanes.get_by_role("link", name=re.compile("^reserved: since"))).to_be_visible()
    await expect(page.get_by_text("2 machines, 1 queued")).to_be_visible()


async def test_many_machines_are_read_page_by_page(page: Page, service: Service) -> None:
    await service.alter(HUNDRED)
    await page.goto("/plan")
    machines = page.get_by_role("list", name="Machines").locator("> li")
    await expect(machines).to_have_count(50)
    await expect(page.get_by_text("101 machines, 0 queued")).to_be_visible()
    await page.get_by_role("button", name="Next page").click()
    await expect(page).to_have_url(re.compile(r"/plan\?after="))
    await expect(machines.first).to_contain_text("node-00051")
    await page.get_by_role("button", name="Next page").click()
    await expect(machines).to_have_count(1)
    await expect(page.get_by_role("button", name="Next page")).to_be_disabled()
    await page.get_by_role("button", name="First page").click()
    await expect(machines).to_have_count(50)


async def test_it_is_accessible_and_fits_any_screen(open_page: OpenPage, service: Service, axe: Axe) -> None:
    await planned(service)
    page = await open_page("/plan")
    await expect(on(page, "part").get_by_role("listitem")).to_have_count(4)  # two are reserved for
    for width in (1440, 768, 390, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
