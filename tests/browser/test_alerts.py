"""The page of alerts: targets are added, changed, tested and deleted; the secret is shown once."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page, expect

Axe = Any  # the fixtures of conftest.py
OpenPage = Any
Service = Any


async def test_a_target_is_added_with_its_secret_changed_tested_and_deleted(page: Page, service: Service) -> None:
    await service.alter("INSERT INTO projects (name) VALUES ('<b>vision</b>')")
    await page.goto("/")
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Alerts", exact=True).click()
    await expect(page.get_by_role("heading", name="No alert targets")).to_be_visible()
    await page.get_by_role("button", name="Add an alert target").first.click()
    form = page.get_by_role("dialog", name="Add an alert target")
    await form.get_by_role("button", name="Add it").click()
    await expect(form.get_by_role("alert")).to_contain_text("Enter a name.")
    await expect(form.get_by_role("alert")).to_contain_text("Enter a URL.")
    await form.get_by_label("Name", exact=True).fill("ops")
    await form.get_by_label("URL").fill("http://127.0.0.1/x")
    await form.get_by_role("button", name="Add it").click()
    await expect(form.get_by_role("alert")).to_contain_text("127.0.0.1 is not a public address")
    await form.get_by_label("URL").fill("https://localhost/x")
    await form.get_by_label("Waits too long").uncheck()
    await form.get_by_role("button", name="Add it").click()
    await expect(page.get_by_test_id("secret")).to_contain_text("whsec_")
    await page.get_by_role("button", name="I have kept it").click()
    await expect(page.get_by_test_id("secret")).to_have_count(0)

    [line] = [page.get_by_role("list", name="Alert targets").get_by_role("listitem")]
    await expect(line).to_contain_text("https://localhost/x")
    await expect(line).to_contain_text("Nothing accepted yet")
    await line.get_by_role("button", name="Edit").click()
    change = page.get_by_role("dialog", name="Edit ops")
    await expect(change.get_by_label("Waits too long")).not_to_be_checked()
    await expect(change.get_by_label("Failed", exact=True)).to_be_checked()
    await change.get_by_label("Waits too long").check()
    await change.get_by_label("All, including later ones").uncheck()
    await change.get_by_role("button", name="Save").click()
    await expect(change.get_by_role("alert")).to_contain_text("Choose at least one, or all.")
    await change.get_by_label("<b>vision</b>").check()
    await change.get_by_label("Use it for their budgets").check()
    await change.get_by_role("button", name="Save").click()
    for expected in ("everything", "<b>vision</b>", "default"):
        await expect(line).to_contain_text(expected)

    await line.get_by_role("button", name="Send a test").click()
    await expect(line).to_contain_text("127.0.0.1 is not a public address", timeout=60_000)
    await line.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    await expect(page.get_by_role("heading", name="No alert targets")).to_be_visible()


async def test_it_is_accessible_and_fits_any_screen(open_page: OpenPage, service: Service, axe: Axe) -> None:
    await service.alter(
        "INSERT INTO alert_targets (name, transport, url, kinds, is_default, created_by, last_error) "
        "SELECT 'target ' || n, 'WEBHOOK', 'https://hooks.example.org/' || repeat('x', 200), '{ENDED,FAILED}', n = 1, "
        "'ada', 'No connection could be made.' FROM generate_series(1, 3) AS n"
    )
    page = await open_page("/alerts")
    await expect(page.get_by_role("button", name="Send a test")).to_have_count(3)
    for width in (1440, 768, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    await page.get_by_role("button", name="Edit").first.click()
    await expect(page.get_by_role("dialog", name="Edit target 1")).to_be_visible()
    await axe(page)
