"""GraphiQL without a network beyond this host: queries, mutations, subscriptions and completion by the schema."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from live import eventually
from playwright.async_api import Page, Route, expect

Complaints = Any  # the fixtures of conftest.py
OpenPage = Any
Service = Any


async def cut_off(page: Page, service: Service) -> None:
    """Let nothing through but to the service."""

    async def judge(route: Route) -> None:
        is_own = route.request.url.startswith((service.address, "data:", "blob:"))
        await (route.continue_() if is_own else route.abort())

    await page.context.route("**/*", judge)


async def run(page: Page) -> None:
    await page.get_by_role("button", name=re.compile("Execute query")).click()


def response(page: Page) -> Any:
    return page.locator(".graphiql-response .view-lines")


async def open_example(page: Page, name: str) -> None:
    editor = page.locator(".graphiql-query-editor .view-lines")
    await expect(editor).to_contain_text(
        "{"
    )  # whatever it begins with: until then a tab that is chosen shows that, too
    await page.get_by_role("tab").get_by_role("button", name=name, exact=True).click()
    await expect(editor).to_contain_text(name)


async def type_headers(page: Page, headers: dict[str, str]) -> None:
    """Fill the empty header editor, by its name: the one that is visible may still be the variables editor."""
    editor = page.locator('.graphiql-editor-tool .monaco-editor[data-uri$="request-headers.json"]')
    await expect(editor.locator(".view-lines")).to_have_text("")
    await editor.click()
    await expect(editor).to_have_class(re.compile(r"\bfocused\b"))
    await page.keyboard.insert_text(json.dumps(headers))
    await expect(editor.locator(".view-lines")).to_contain_text("AUTHORIZATION")


async def keep_headers(page: Page, headers: dict[str, str]) -> None:
    """Fill the header editor of the tab "Simulations" until that tab, and so the history, has what was typed.

    GraphiQL's tab takes over what was typed after 100 ms without a change; a tab that is left earlier forgets it.
    """
    editor = page.locator('.graphiql-editor-tool .monaco-editor[data-uri$="request-headers.json"] .view-lines')

    async def came_back_with_them() -> bool:
        await type_headers(page, headers)
        await open_example(page, "SubmitDemo")
        await open_example(page, "Simulations")
        return "AUTHORIZATION" in await editor.inner_text()

    await eventually(came_back_with_them, "the headers are in their tab")


async def test_the_examples_of_a_first_visit_query_change_and_follow(page: Page, service: Service) -> None:
    await cut_off(page, service)
    simulation = await service.submit("python", "-m", "runner.demo", "--steps", "20", "--interval", "0.01")
    await service.finished(simulation)
    await page.goto("/graphql")
    await expect(page).to_have_title("GraphiQL · Simulations")
    await open_example(page, "Simulations")
    await run(page)
    await expect(response(page)).to_contain_text("FINISHED")
    await open_example(page, "SubmitDemo")
    await run(page)
    await expect(response(page)).to_contain_text('"userErrors": []')
    [[count]] = await service.fetch("SELECT count(*) FROM simulations")
    assert count == 2
    await open_example(page, "Watch")
    await expect(page.locator(".graphiql-editor-tool .view-lines").first).to_contain_text(simulation)
    await run(page)
    await expect(response(page)).to_contain_text("COMPLETED")
    await expect(page.get_by_role("button", name=re.compile("Execute query"))).to_be_visible()


async def test_the_documentation_knows_the_schema(page: Page, service: Service) -> None:
    await cut_off(page, service)
    await page.goto("/graphql")
    await page.get_by_role("button", name="Show Documentation Explorer").click()
    explorer = page.get_by_role("region", name="Documentation Explorer").or_(page.locator(".graphiql-doc-explorer"))
    await expect(explorer.first).to_contain_text("Subscription")
    await explorer.first.get_by_role("link", name="Subscription").click()
    await expect(explorer.first).to_contain_text("convergence")


async def test_a_link_brings_its_operation_and_its_variables_and_no_server_hears_of_them(
    page: Page, service: Service
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    query = "query Shared($id: ID!) { node(id: $id) { id } }"
    await page.goto("/graphql#" + urlencode({"query": query, "variables": '{"id": "U2ltdWxhdGlvbjox"}'}))
    await expect(page.locator(".graphiql-query-editor .view-lines")).to_contain_text("query Shared")
    await expect(page.locator(".graphiql-editor-tool .view-lines").first).to_contain_text("U2ltdWxhdGlvbjox")
    await expect(page).to_have_url("/graphql")
    await run(page)
    await expect(response(page)).to_contain_text('"node": null')
    assert not [url for url in asked if "Shared" in url]
    await page.get_by_role("button", name="Copy a link to this operation").click()
    await page.wait_for_function("() => location.hash")
    given = parse_qs(urlsplit(page.url).fragment)
    assert given["query"] == [query]
    assert json.loads(given["variables"][0]) == {"id": "U2ltdWxhdGlvbjox"}


async def test_colours_are_those_of_the_dashboard_and_a_link_leads_back(page: Page) -> None:
    await page.goto("/")
    await page.evaluate("localStorage.setItem('theme', 'dark')")
    await page.goto("/graphql")
    await expect(page.locator("body")).to_have_class(re.compile("graphiql-dark"))
    await page.get_by_role("link", name="Simulations").click()
    await expect(page).to_have_url("/")


# It has another name: no longer this host's own, it asks for a token.
@pytest.mark.parametrize("service", [{"SIMULATIONS_ALLOWED_HOSTS": "simulations.example"}], indirect=True)
async def test_a_token_in_the_header_editor_is_sent_with_requests_and_on_sockets(
    page: Page, service: Service, token: str, complaints: Complaints
) -> None:
    complaints.expect("status of 401")
    await page.goto("/graphql")
    await open_example(page, "Watch")
    await run(page)
    await expect(response(page)).to_contain_text("The connection was closed (4403): This needs an API token")
    await page.get_by_role("button", name="Headers").click()
    await type_headers(page, {"AUTHORIZATION": f"Bearer {token}"})
    await run(page)
    await expect(response(page)).to_contain_text("is not the id, number or name of a simulation.")
    await open_example(page, "Simulations")
    await keep_headers(page, {"AUTHORIZATION": f"Bearer {token}"})
    await run(page)
    await expect(response(page)).to_contain_text('"queued": 0')
    kept = await page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert "graphiql:queries" in kept
    assert token not in kept
