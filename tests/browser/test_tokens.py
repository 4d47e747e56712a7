"""The page of API tokens: created with a secret that is shown once, revoked; and seen by administrators only."""

from __future__ import annotations

from typing import Any

from live import http
from playwright.async_api import Page, expect

Axe = Any  # the fixtures of conftest.py
OpenPage = Any
Service = Any


async def test_a_token_is_created_used_and_revoked(page: Page, service: Service) -> None:
    await service.alter("INSERT INTO projects (name) VALUES ('<b>vision</b>')")
    await page.goto("/")
    await page.get_by_role("button", name="Who you are").click()
    await page.get_by_role("link", name="API tokens").click()
    await expect(page.get_by_role("heading", name="No tokens")).to_be_visible()
    await page.get_by_role("button", name="Create a token").first.click()
    form = page.get_by_role("dialog", name="Create an API token")
    await form.get_by_label("All, including later ones").uncheck()
    await form.get_by_role("button", name="Create it").click()
    await expect(form.get_by_role("alert")).to_contain_text("Enter a name.")
    await expect(form.get_by_role("alert")).to_contain_text("Choose at least one, or all.")
    await form.get_by_label("Name", exact=True).fill("ci")
    await form.get_by_label("Role").select_option("VIEWER")
    await form.get_by_label("Expires after").select_option(label="30 days")
    await form.get_by_label("<b>vision</b>").check()
    await form.get_by_role("button", name="Create it").click()
    secret = await page.get_by_test_id("secret").text_content()
    assert secret is not None
    await page.get_by_role("button", name="I have kept it").click()
    await expect(page.get_by_test_id("secret")).to_have_count(0)

    line = page.get_by_role("list", name="API tokens").get_by_role("listitem")
    for words in ("ci", "viewer, only <b>vision</b>", "Expires", "never used"):
        await expect(line).to_contain_text(words)
    assert await viewer(service, secret) == {"name": "ci", "role": "VIEWER"}

    await line.get_by_role("button", name="Revoke ci").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
    await expect(page.get_by_role("heading", name="No tokens")).to_be_visible()
    await page.get_by_label("Show 1 revoked or expired").check()
    await expect(line).to_contain_text("Revoked")
    await expect(line.get_by_role("button")).to_have_count(0)
    assert await viewer(service, secret) is None


async def viewer(service: Service, secret: str) -> Any:
    """Who one is with this token; None if it is refused."""
    async with http(headers={"Authorization": f"Bearer {secret}"}) as client:
        answer = await client.post(f"{service.address}/graphql", json={"query": "{ viewer { name role } }"})
    return (answer.json().get("data") or {}).get("viewer")


async def test_it_is_accessible_and_fits_any_screen(open_page: OpenPage, service: Service, axe: Axe) -> None:
    await service.alter(
        "INSERT INTO tokens (name, role, digest, created_by, expires_at) "
        "SELECT 'token ' || n || repeat('x', 150), 'OPERATOR', sha256(n::text::bytea), 'ada', "
        "now() + n * interval '1 day' FROM generate_series(0, 3) AS n"
    )
    page = await open_page("/tokens")
    await expect(page.get_by_role("button", name="Revoke")).to_have_count(3)
    for width in (1440, 768, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    await page.get_by_role("button", name="Create a token").click()
    await expect(page.get_by_role("dialog", name="Create an API token")).to_be_visible()
    await axe(page)


async def test_projects_have_a_page_with_what_they_cost_and_lead_to_their_simulations(
    page: Page, service: Service, axe: Axe
) -> None:
    await service.alter("INSERT INTO projects (name, gpu_quota) VALUES ('vision', 3)")
    await service.submit("true", project="vision", name="of vision")
    await service.submit("true", name="of another")
    await page.goto("/")
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Projects", exact=True).click()
    line = page.get_by_role("region", name="All projects").get_by_role("listitem").filter(has_text="vision")
    await expect(line).to_contain_text("at most 3 GPUs at once")
    await line.get_by_role("button", name="Edit vision").click()
    form = page.get_by_role("dialog", name="Edit vision")
    await form.get_by_label("GPU quota").fill("5")
    await form.get_by_role("button", name="Save").click()
    await expect(line).to_contain_text("at most 5 GPUs at once")
    for width in (1440, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    await line.get_by_role("link", name="vision").click()
    await expect(page.get_by_text("of vision", exact=True).first).to_be_visible()
    await expect(page.get_by_text("of another", exact=True)).to_have_count(0)
