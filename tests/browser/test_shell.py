"""What is round every page: it loads, from here alone; what nothing has; what stands in for it until it is built."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette

from graph.http.dashboard_files import DashboardFiles
from graph.http.headers import Headers

PATIENCE_MILLISECONDS = 60_000
Axe = Any  # the fixtures of conftest.py
Complaints = Any
OpenPage = Any
Service = Any


async def test_the_dashboard_loads_from_this_host_alone_with_a_name_for_each_page(open_page: OpenPage) -> None:
    page = await open_page(None, own=True)
    responses: list[str] = []
    page.on("response", lambda response: responses.append(f"{response.status} {response.url}"))
    await page.goto("/")
    await expect(page.get_by_role("banner")).to_contain_text("Simulations")
    await page.get_by_role("link", name="Machines", exact=True).click()
    await expect(page).to_have_url("/machines")
    await expect(page.get_by_role("main")).not_to_be_empty()
    assert {each.split()[0] for each in responses} <= {"200", "304"}, responses


async def test_on_a_narrow_screen_the_pages_are_in_a_menu_of_one_line(open_page: OpenPage, axe: Axe) -> None:
    page = await open_page("/", viewport={"width": 390, "height": 800})
    menu, pages = page.get_by_role("button", name="Menu", exact=True), page.get_by_role("navigation", name="Pages")
    await expect(menu).to_be_visible()
    await expect(pages).to_be_hidden()
    for width in (360, 390, 768, 1440):
        await page.set_viewport_size({"width": width, "height": 800})
        box = await page.get_by_role("banner").bounding_box()
        assert box is not None
        assert box["height"] < 60, f"{box['height']} px at {width}"
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    await expect(pages).to_be_visible()  # wide
    await page.set_viewport_size({"width": 390, "height": 800})
    await menu.focus()
    await page.keyboard.press("Enter")
    await expect(pages.get_by_role("link", name="Now", exact=True)).to_have_attribute("aria-current", "page")
    await axe(page)
    await page.keyboard.press("Escape")
    await expect(pages).to_be_hidden()
    await expect(menu).to_be_focused()
    await page.keyboard.press("Enter")
    for _ in range(3):
        await page.keyboard.press("Tab")
    await expect(pages.get_by_role("link", name="Machines", exact=True)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url("/machines")
    await expect(pages).to_be_hidden()
    await expect(page.get_by_role("heading", name="Machines", level=1)).to_be_visible()


async def test_a_second_visit_loads_no_script_again(open_page: OpenPage) -> None:
    page = await open_page("/", own=True)
    await expect(page.get_by_role("banner")).to_contain_text("Simulations")
    await page.wait_for_load_state("networkidle")  # what is loaded after the banner is in the cache by then
    await page.goto("/")
    await expect(page.get_by_role("banner")).to_contain_text("Simulations")
    sizes = await page.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.includes('/assets/')).map(e => e.transferSize)"
    )
    assert sizes
    assert not any(sizes), "all from the browser's cache"


async def test_an_address_that_nothing_has_says_so(page: Page, complaints: Complaints, axe: Axe) -> None:
    complaints.expect("status of 404")
    response = await page.goto("/nowhere")
    assert response is not None
    assert response.status == 404
    await expect(page.get_by_role("main")).to_contain_text("Page not found")
    await axe(page)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_leads_to_graphiql(page: Page, path: str) -> None:
    await page.goto(path)
    await expect(page).to_have_url("/graphql")
    await expect(page).to_have_title("GraphiQL · Simulations")


@pytest_asyncio.fixture(loop_scope="session")
async def unbuilt(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """The dashboard's files alone, before anything was built: their address, and the folder in which they are built."""
    listening = socket.create_server(("127.0.0.1", 0))
    dashboard = DashboardFiles((tmp_path / "dist",))
    app = Headers(Starlette(routes=dashboard.routes, exception_handlers={404: dashboard.not_found}))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", tmp_path
    server.should_exit = True
    await task
    listening.close()


async def test_before_the_build_there_is_a_sentence_that_gives_way_to_it(
    browser: Browser, complaints: Complaints, unbuilt: tuple[str, Path], built: Path
) -> None:
    address, folder = unbuilt
    complaints.expect("status of 503|status of 404|WebSocket connection")  # there is no API behind these files
    context = await browser.new_context(base_url=address)
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    page = await context.new_page()
    complaints.watch(page, address.removeprefix("http://"))
    await page.goto("/machines")
    await expect(page.get_by_text("The dashboard is not built yet.")).to_be_visible()
    shutil.copytree(built, folder / "draft")
    (folder / "draft").rename(folder / "dist")
    await expect(page.get_by_role("banner")).to_contain_text("Simulations")
    await expect(page).to_have_url(f"{address}/machines")
    await context.close()
