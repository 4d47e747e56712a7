"""Signing in with a token: back to the requested page, and signing out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from live import eventually, http
from playwright.async_api import Page, expect

Axe = Any  # the fixtures of conftest.py
Complaints = Any
Service = Any

ADMIN = f"sim_{'a' * 43}"  # the one of conftest.py
WRONG = f"sim_{'w' * 43}"
TOKEN = "mutation T($input: CreateTokenInput!) { createToken(input: $input) { secret token { id } } }"
HOSTS = {"SIMULATIONS_ALLOWED_HOSTS": "simulations.example.org"}  # it asks everybody for a token
REVOKE = "mutation R($id: ID!) { revokeToken(input: {id: $id}) { userErrors { message } } }"


pytestmark = pytest.mark.parametrize("service", [pytest.param(HOSTS, id="asks")], indirect=True)


@pytest.fixture(autouse=True)
def refusals(complaints: Complaints) -> None:
    """A refused sign-in appears on the browser's console."""
    complaints.expect(r"status of 401|WebSocket")


async def ask(service: Service, query: str, **variables: Any) -> Any:
    async with http(headers={"Authorization": f"Bearer {ADMIN}"}) as client:
        body = (await client.post(f"{service.address}/graphql", json={"query": query, "variables": variables})).json()
    assert "errors" not in body, body
    return body["data"]


async def token(service: Service, name: str, role: str) -> tuple[str, str]:
    """A new one: its text and its id."""
    made = (await ask(service, TOKEN, input={"name": name, "role": role}))["createToken"]
    return made["secret"], made["token"]["id"]


async def sign_in(page: Page, secret: str) -> None:
    await page.get_by_label("API token").fill(secret)
    await page.get_by_role("button", name="Sign in").click()


async def test_one_comes_to_where_one_wanted_to_go_and_leaves_for_good(page: Page, axe: Axe) -> None:
    await page.goto("/machines?order=desc")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.get_by_label("API token")).to_be_focused()
    # What a password manager looks for: a form with a name and a password.
    form = page.locator("form[method=post]")
    await expect(form.locator("input[autocomplete=username]")).to_have_value(re.compile("^API token at "))
    await expect(page.get_by_label("API token")).to_have_attribute("autocomplete", "current-password")
    await expect(page.get_by_label("API token")).to_have_attribute("type", "password")
    await axe(page)
    await page.keyboard.type(f"  {ADMIN}\n")
    await expect(page.get_by_role("heading", name="Machines", level=1)).to_be_visible()
    await expect(page).to_have_url("/machines?order=desc")
    await expect(page.get_by_role("main")).to_be_focused()

    await page.reload()
    await page.get_by_role("button", name="Who you are").click()
    await expect(page.get_by_text("may do everything")).to_be_visible()
    await axe(page)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.get_by_role("button", name="Who you are")).to_have_count(0)
    assert await page.context.cookies() == []
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_refused_token_is_reported_and_can_be_typed_again(page: Page, axe: Axe) -> None:
    await page.goto("/")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("A token is missing: it begins with sim_.")
    for typed, sentence in {
        WRONG: "This token is unknown, expired or revoked.",
        "secret": "This is no API token: they begin with sim_.",
    }.items():
        await sign_in(page, typed)
        await expect(page.get_by_role("alert")).to_have_text(sentence)
        await expect(page.get_by_label("API token")).to_be_focused()
        await expect(page.get_by_label("API token")).to_have_value(typed)
    await axe(page)
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_label("API token")).to_have_attribute("type", "text")
    await sign_in(page, ADMIN)
    await expect(page.get_by_role("button", name="Who you are")).to_be_visible()


async def test_who_failed_too_often_is_held_off_and_then_let_in(
    page: Page, service: Service, complaints: Complaints
) -> None:
    complaints.expect("status of 429")
    service.spent = True  # it remembers
    await page.goto("/")
    alert = page.get_by_role("alert")

    async def is_held_off() -> bool:
        """One more failure is allowed every six seconds: on a slow machine it may be this one."""
        async with http() as client:
            while (await client.post(f"{service.address}/session", json={"token": WRONG})).status_code != 429:
                pass
        await sign_in(page, f"sim_{'x' * 43}")
        await expect(alert).to_contain_text(re.compile("Too many|unknown"))
        return await page.get_by_role("button", name="Try again in").is_visible()

    await eventually(is_held_off, "it is held off")
    await expect(alert).to_contain_text("Too many failed logins from this address")
    await expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    await sign_in(page, ADMIN)
    await expect(page.get_by_role("button", name="Who you are")).to_be_visible()


async def test_while_the_server_is_away_the_token_stays(page: Page, service: Service, complaints: Complaints) -> None:
    complaints.expect("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET")
    await page.goto("/")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await service.end()
    await sign_in(page, ADMIN)
    await expect(page.get_by_role("alert")).to_have_text("The server cannot be reached. Try again in a moment.")
    await expect(page.get_by_label("API token")).to_have_value(ADMIN)
    await service.up()
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("button", name="Who you are")).to_be_visible()


async def test_after_a_token_ends_the_user_signs_in_again_and_finds_the_typed_text_but_another_user_does_not(
    page: Page, service: Service
) -> None:
    command = page.get_by_label("Command", exact=True)
    ended = page.get_by_text("You were worker here. That has ended")
    first, first_id = await token(service, "worker", "OPERATOR")
    await page.goto("/submit")
    await sign_in(page, first)
    await command.fill("python train.py")
    await ask(service, REVOKE, id=first_id)
    await expect(ended).to_be_visible()
    second, second_id = await token(service, "worker", "OPERATOR")
    await sign_in(page, second)
    await expect(command).to_have_value("python train.py")
    await ask(service, REVOKE, id=second_id)
    await expect(ended).to_be_visible()
    await sign_in(page, ADMIN)
    await expect(command).to_have_value("")


async def test_viewers_are_offered_nothing_that_they_may_not_do(page: Page, service: Service, axe: Axe) -> None:
    secret, _ = await token(service, "<b>watcher</b>", "VIEWER")
    await page.goto("/machines")
    await sign_in(page, secret)
    await expect(page.get_by_role("list", name="Machines")).to_be_visible()
    for name in ("Add a machine", "Drain", "Edit", "Delete"):
        await expect(page.get_by_role("button", name=name)).to_have_count(0)
    await expect(page.get_by_role("link", name="Submit", exact=True)).to_have_count(0)
    await page.get_by_role("button", name="Who you are").click()
    await expect(page.get_by_text("<b>watcher</b> may read and watch (viewer).")).to_be_visible()
    await page.goto("/submit")
    await expect(page.get_by_role("heading", name="Submitting requires the OPERATOR role.")).to_be_visible()
    await axe(page)
