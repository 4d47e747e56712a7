"""The page of costs: bars and sums by group, CSV, budgets, and what it shows without prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

Axe = Any  # the fixtures of conftest.py
OpenPage = Any
Service = Any

# Two projects, a tag, a failed attempt; all of it yesterday and the day before, and long ended.
SPENT = """
INSERT INTO projects (name) VALUES ('<b>vision</b>');
INSERT INTO simulations (project_id, name, entrypoint, created_by, state, attempt, tags)
SELECT p.id, p.name, '{true}', 'ada', 'FINISHED', 1, CASE WHEN p.name = 'default' THEN '{}' ELSE '{big}' END::text[]
FROM projects AS p;
INSERT INTO attempts (simulation_id, number, assigned_at, ended_at, reason)
SELECT id, 1, now() - interval '30 h', now() - interval '20 h',
       CASE WHEN name = 'default' THEN 'COMPLETED' ELSE 'EXIT_CODE' END
FROM simulations;
INSERT INTO members (attempt_id, machine_name, cpus, memory_gib, gpus, price_per_hour, share, currency, assigned_at,
                     ended_at)
SELECT a.id, 'm', 1, 0, 0, CASE WHEN s.name = 'default' THEN 1 ELSE 4 END, 1, 'USD', a.assigned_at, a.ended_at
FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id;
INSERT INTO budgets (project_id, period, amount, currency, created_by)
SELECT CASE WHEN n = 1 THEN (SELECT id FROM projects WHERE name <> 'default') END, 'TOTAL', 45 * n, 'USD', 'ada'
FROM generate_series(1, 2) AS n
"""


async def test_where_the_money_went_is_shown_in_groups_and_kept_in_the_address(
    page: Page, service: Service, tmp_path: Path
) -> None:
    await service.alter(SPENT)
    await page.goto("/")
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Costs", exact=True).click()
    await expect(page.get_by_role("heading", name="Costs", exact=True, level=1)).to_be_visible()
    rows = page.get_by_role("region", name="Costs").locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("<b>vision</b>")
    await expect(rows.first).to_contain_text("40.00 USD")
    await expect(rows.last).to_contain_text("10.00 USD")
    widths = [await bar.evaluate("each => each.style.width") for bar in await page.locator("td .bar").all()]
    assert widths == ["100%", "25%"]
    totals = page.get_by_role("region", name="Costs").locator("dl")
    await expect(totals).to_contain_text("50.00 USD")
    await expect(totals).to_contain_text("Wasted")

    await page.get_by_label("Divide by time").select_option("day")
    await page.get_by_label("Group by").select_option("tag")
    await expect(page).to_have_url("/costs?every=day&by=tag")
    await expect(page.get_by_text("A simulation counts under each of its tags")).to_be_visible()
    await expect(page.get_by_role("columnheader", name="Day")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("columnheader", name="Tag")).to_be_visible()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download CSV").click()
    await (await download.value).save_as(tmp_path / "costs.csv")
    lines = (tmp_path / "costs.csv").read_text().splitlines()
    assert lines[0] == "day,tag,currency,amount,wasted,saved,attempts,simulations"
    assert sum(float(line.split(",")[3]) for line in lines[1:]) == pytest.approx(50)

    budgets = page.get_by_role("region", name="Budgets").get_by_role("listitem")
    await expect(budgets).to_have_count(2)
    await expect(budgets.first).to_contain_text("40.00 USD spent (88 %)")
    await expect(budgets.last).to_contain_text("The whole installation")
    await expect(budgets.last.get_by_role("meter")).to_have_attribute("aria-valuenow", "55")


async def test_an_administrator_creates_changes_and_deletes_budgets(page: Page, service: Service) -> None:
    await service.alter("INSERT INTO projects (name) VALUES ('vision')")
    await page.goto("/costs")
    await page.get_by_role("button", name="Add a budget").click()
    form = page.get_by_role("dialog", name="Add a budget")
    await form.get_by_role("button", name="Add it").click()
    await expect(form.get_by_role("alert")).to_contain_text("Enter an amount.")
    await form.get_by_label("Amount").fill("a lot")
    await form.get_by_role("button", name="Add it").click()
    await expect(form.get_by_role("alert")).to_contain_text("Expected a price")
    await form.get_by_label("Amount").fill("12.50")
    await form.get_by_label("Spent by").select_option("vision")
    await form.get_by_label("Period").select_option("each week")
    await form.get_by_role("button", name="Add it").click()
    [line] = [page.get_by_role("region", name="Budgets").get_by_role("listitem")]
    await expect(line).to_contain_text("vision")
    await expect(line).to_contain_text("12.50 USD each week")

    await page.get_by_role("button", name="Add a budget").click()
    await form.get_by_label("Spent by").select_option("vision")
    await form.get_by_label("Period").select_option("each week")
    await form.get_by_label("Amount").fill("1")
    await form.get_by_role("button", name="Add it").click()
    await expect(form.get_by_role("alert")).to_contain_text("has a budget for this period")
    await form.get_by_role("button", name="Cancel").click()

    await line.get_by_role("button", name="Change").click()
    change = page.get_by_role("dialog", name="Change the budget of vision, each week")
    await expect(change.get_by_label("Amount")).to_have_value("12.5")
    await change.get_by_label("Amount").fill("20")
    await change.get_by_role("button", name="Save").click()
    await expect(line).to_contain_text("20.00 USD each week")

    await line.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    await expect(page.get_by_text("No budgets: what runs may cost any amount.")).to_be_visible()


async def test_an_administrator_changes_weight_and_quota_of_a_project(page: Page, service: Service, axe: Axe) -> None:
    await service.alter("INSERT INTO projects (name) VALUES ('<b>vision</b>')")
    await page.goto("/costs")
    projects = page.get_by_role("region", name="Projects")
    line = projects.get_by_role("listitem").filter(has_text="<b>vision</b>")
    await expect(line).to_contain_text("weight 1, no GPU quota")
    await line.get_by_role("button", name="Edit").click()
    form = page.get_by_role("dialog", name="Edit <b>vision</b>")
    await form.get_by_label("Weight").fill("0")
    await form.get_by_label("GPU quota").fill("1.5")
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_role("alert")).to_contain_text("Expected a whole number")
    await form.get_by_label("GPU quota").fill("-1")
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_label("Weight")).to_have_attribute("aria-invalid", "true")  # says the server
    await expect(form.get_by_label("GPU quota")).to_have_attribute("aria-invalid", "true")
    await axe(page)
    await form.get_by_label("Weight").fill("2.5")
    await form.get_by_label("GPU quota").fill("8")
    await form.get_by_role("button", name="Save").click()
    await expect(form).to_be_hidden()
    await expect(line).to_contain_text("weight 2.5, at most 8 GPUs at once")
    await line.get_by_role("button", name="Edit").click()
    await form.get_by_label("GPU quota").fill("")
    await form.get_by_role("button", name="Save").click()
    await expect(line).to_contain_text("weight 2.5, no GPU quota")


async def test_without_prices_the_page_says_where_to_set_them(page: Page, service: Service) -> None:
    await page.goto("/costs")
    await expect(page.get_by_role("heading", name="No prices are set")).to_be_visible()
    await expect(page.get_by_text("SIMULATIONS_MACHINE_PRICE_PER_HOUR")).to_be_visible()
    await expect(page.get_by_text("0.00 USD")).to_have_count(0)
    await expect(page.get_by_role("button", name="Download CSV")).to_be_disabled()


async def test_it_is_accessible_and_fits_any_screen(open_page: OpenPage, service: Service, axe: Axe) -> None:
    await service.alter(SPENT)
    page = await open_page("/costs?every=day&by=name&days=7")
    await expect(page.locator("tbody tr").first).to_be_visible()
    await expect(page.get_by_role("meter")).to_have_count(2)
    for width in (1440, 768, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        table = page.get_by_role("region", name="Costs", exact=True).locator(".scroll")
        assert await table.evaluate("each => each.scrollWidth <= each.clientWidth"), "no column is out of sight"
