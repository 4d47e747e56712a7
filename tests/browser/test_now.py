"""The first page in a real browser: running and queued simulations, waiting reasons and cost, live."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from effort import LOAD_SIMULATIONS as MANY
from playwright.async_api import Page, WebSocketRoute, expect

Service = Any  # the fixtures of conftest.py
OpenPage = Any
Axe = Any
Complaints = Any

# Goes on when a file is there.
HELD = """
import os, sys, time
print('{"loss": 3}', flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print('{"loss": 1}')
"""
NARROW = {"width": 360, "height": 740}
FIRST_VIEW_BYTES = 61_000
NEVER = {"gpus": 100}  # no machine has them
LONG = ("python", "-m", "runner.demo", "--steps", "100000", "--interval", "0.2")
DELETE = "mutation Delete($id: ID!) { deleteSimulation(input: {id: $id}) { userErrors { message } } }"
HOSTILE = "<img src=x onerror=document.title='owned'> & \"quotes\""


def section(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True)


def line(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def at_a_glance(page: Page, name: str) -> Any:
    """The figure under a heading of the strip."""
    return page.locator(".glance > div").filter(has=page.get_by_text(name, exact=True)).locator("dd")


async def test_who_has_nothing_yet_is_told_what_to_do_and_the_demo_is_a_button(page: Page) -> None:
    await page.goto("/")
    await expect(page.get_by_role("heading", name="No simulations yet.")).to_be_visible()
    await expect(page.get_by_role("link", name="Submit a simulation")).to_be_visible()
    await page.get_by_role("button", name="Run the demo").click()
    await expect(page).to_have_url(re.compile(r"/simulations/\w+"))
    await page.go_back()
    await expect(line(page, "demo")).to_be_visible()


async def test_what_runs_what_waits_and_what_has_ended_stand_apart_and_say_why(
    service: Service, page: Page, axe: Axe
) -> None:
    await service.submit(*LONG, name="long one", project="vision", tags=["a-tag"])
    await service.submit("true", name="too big", resources=NEVER)
    await service.finished(await service.submit("python", "-c", "raise SystemExit(3)", name="broken"))
    await page.goto("/")

    running = section(page, "On machines").get_by_role("row").filter(has_text="long one")
    await expect(running).to_contain_text("Running")
    await expect(running).to_contain_text("loss")
    await expect(running.locator("svg path")).to_have_count(1)  # its small curve
    await expect(running).to_contain_text("a-tag")
    await expect(section(page, "Waiting").get_by_role("row").filter(has_text="too big")).to_contain_text(
        "No machine has"
    )
    await expect(section(page, "Ended").get_by_role("row").filter(has_text="broken")).to_contain_text("exit code 3")
    await expect(at_a_glance(page, "Running")).to_have_text("1")
    await expect(at_a_glance(page, "Waiting")).to_have_text("1")
    await expect(section(page, "Machines")).to_contain_text("CPUs")
    await axe(page)

    await page.set_viewport_size(NARROW)
    assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    await axe(page)


async def test_it_is_live_a_simulation_goes_from_one_section_to_the_next(service: Service, page: Page) -> None:
    await page.goto("/")
    simulation = await service.submit(*LONG, name="moving")
    await expect(section(page, "On machines").get_by_text("moving")).to_be_visible()
    await service.cancel(simulation)
    await expect(section(page, "Ended").get_by_text("moving")).to_be_visible()
    await expect(section(page, "On machines").get_by_text("moving")).to_have_count(0)
    await expect(line(page, "moving")).to_contain_text("Cancelled")
    await expect(at_a_glance(page, "Running")).to_have_text("0")


async def test_what_has_ended_stands_there_with_its_last_value(service: Service, page: Page, tmp_path: Path) -> None:
    await page.goto("/")
    await service.submit("python", "-c", HELD, str(tmp_path / "on"), name="quick")
    await expect(line(page, "quick")).to_contain_text("loss 3")
    (tmp_path / "on").touch()
    await expect(section(page, "Ended").get_by_role("row").filter(has_text="quick")).to_contain_text("loss 1")
    await expect(line(page, "quick").locator("svg path")).to_have_count(1)  # its curve has both points


async def test_what_was_deleted_elsewhere_goes(service: Service, page: Page) -> None:
    ids = [await service.submit("true", name=name, resources=NEVER) for name in ("deleted", "stays", "cancelled")]
    await service.cancel(ids[0])
    await page.goto("/")
    await expect(line(page, "deleted")).to_be_visible()
    await service.execute(DELETE, id=ids[0])
    await service.cancel(ids[2])
    await expect(line(page, "deleted")).to_have_count(0)
    await expect(line(page, "cancelled")).to_contain_text("Cancelled")
    await expect(line(page, "stays")).to_be_visible()


async def test_what_is_searched_for_is_text_and_one_entry_of_the_history(service: Service, page: Page) -> None:
    for name in ("lr 1e-4", "lr 0.0001", "run 007", "run 7"):
        await service.submit("true", name=name, resources=NEVER)
    await page.goto("/")
    for text, found, other in (("1e-4", "lr 1e-4", "lr 0.0001"), ("007", "run 007", "run 7")):
        await expect(line(page, other)).to_be_visible()
        await page.get_by_placeholder("Search name").fill(text)
        await page.keyboard.press("Enter")
        await expect(line(page, other)).to_have_count(0)
        await expect(line(page, found)).to_be_visible()
        await expect(page).to_have_url(f"/?text={text}")
        await page.reload()
        await expect(page.get_by_placeholder("Search name")).to_have_value(text)
        await page.go_back()
        await expect(page).to_have_url("/")


async def test_the_way_back_leads_to_where_one_was_in_the_list(service: Service, page: Page) -> None:
    await service.submit_many([{"entrypoint": ["true"], "name": f"many {n}", "resources": NEVER} for n in range(70)])
    await page.goto("/")
    await page.get_by_role("button", name="Show more").click()
    await expect(section(page, "Waiting").get_by_role("rowheader")).to_have_count(70)
    last = section(page, "Waiting").get_by_role("rowheader").last.get_by_role("link")
    name = await last.inner_text()
    await last.click()
    await expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    await page.wait_for_function("() => scrollY === 0")
    await page.go_back()
    await expect(page.get_by_role("link", name=name, exact=True)).to_be_in_viewport()
    await page.get_by_role("link", name="Machines", exact=True).click()
    await expect(page.get_by_role("heading", name="Machines", level=1)).to_be_visible()
    await page.get_by_role("link", name="Now", exact=True).click()
    await expect(section(page, "Waiting").get_by_role("rowheader")).to_have_count(50)
    await page.wait_for_function("() => scrollY === 0")


async def test_an_address_with_what_is_no_id_says_so_once(page: Page) -> None:
    await page.goto("/?project=nonsense")
    await expect(page.get_by_role("alert")).to_have_text("'nonsense' is not an id.")
    await expect(page.get_by_label("Project")).to_have_value("nonsense")
    await page.get_by_role("link", name="Clear", exact=True).click()
    await expect(page.get_by_role("heading", name="No simulations yet.")).to_be_visible()


async def test_another_page_begins_at_its_beginning_for_the_keyboard(service: Service, page: Page) -> None:
    await service.submit("true", name="one", resources=NEVER)
    await page.goto("/")
    await page.get_by_role("link", name="one", exact=True).click()
    await expect(page.get_by_role("heading", name="one")).to_be_visible()
    await expect(page.get_by_role("main")).to_be_focused()


async def test_the_view_is_in_the_address_bar_and_survives_a_reload(service: Service, page: Page) -> None:
    await service.submit("true", name="alpha", project="vision", resources=NEVER)
    await service.submit("true", name="beta", project="language", resources=NEVER)
    await page.goto("/")
    await page.get_by_label("Project").select_option("vision")
    await expect(line(page, "beta")).to_have_count(0)
    await expect(line(page, "alpha")).to_be_visible()
    await page.get_by_label("State").select_option("QUEUED")
    await expect(page).to_have_url(re.compile(r"project=.*state=QUEUED|state=QUEUED.*project="))
    await page.reload()
    await expect(line(page, "alpha")).to_be_visible()
    await expect(line(page, "beta")).to_have_count(0)
    await expect(section(page, "Ended")).to_have_count(0)

    # What comes in has to match, too.
    await service.submit("true", name="gamma", project="vision", resources=NEVER)
    await service.submit("true", name="delta", project="language", resources=NEVER)
    await expect(line(page, "gamma")).to_be_visible()
    await expect(line(page, "delta")).to_have_count(0)

    await page.get_by_placeholder("Search name").fill("ALPH")
    await page.keyboard.press("Enter")
    await expect(line(page, "gamma")).to_have_count(0)
    await expect(line(page, "alpha")).to_be_visible()
    await page.get_by_role("link", name="Clear", exact=True).click()
    await expect(line(page, "delta")).to_be_visible()
    await page.go_back()
    await expect(line(page, "delta")).to_have_count(0)


async def test_two_pages_show_many_simulations_and_what_becomes_of_them(service: Service, open_page: OpenPage) -> None:
    many = [{"entrypoint": ["true"], "name": f"many {n}", "resources": NEVER} for n in range(MANY)]
    ids = await service.submit_many(many)
    pages = [await open_page("/"), await open_page("/?state=QUEUED")]
    # Not by their roles: to find those, a browser goes through the whole tree, each time it is looked.
    heads = "tbody th[scope=row]"
    more = pages[1].locator("button", has_text="Show more")
    # Of a long list only what is in sight is in the page: the first and the last by their places.
    first = pages[1].locator("tbody tr[aria-rowindex='2']")
    for page in pages:
        await expect(section(page, "Waiting").locator("header")).to_contain_text(f"{MANY:,}")
    await expect(section(pages[0], "Waiting").locator(heads)).to_have_count(50)
    await expect(first).to_contain_text("many 0")
    # It goes on by itself where one scrolls to its end.
    last = f"tbody tr[aria-rowindex='{MANY + 1}']"
    await pages[1].wait_for_function("row => (scrollTo(0, 1e9), document.querySelector(row) !== null)", arg=last)
    await expect(pages[1].locator(last)).to_contain_text(f"many {MANY - 1}")
    await expect(more).to_have_count(0)
    assert await pages[1].locator(heads).count() < MANY

    for simulation in ids[:20]:
        await service.cancel(simulation)
    for page in pages:
        await expect(section(page, "Waiting").locator("header")).to_contain_text(f"{MANY - 20:,}")
        await expect(at_a_glance(page, "Waiting")).to_have_text(f"{MANY - 20:,}")
    await expect(section(pages[1], "Waiting").get_by_role("table")).to_have_attribute("aria-rowcount", f"{MANY - 19}")
    await expect(pages[1].locator(f"tbody tr[aria-rowindex='{MANY - 19}']")).to_contain_text(f"many {MANY - 1}")
    await expect(section(pages[0], "Ended").get_by_role("rowheader")).to_have_count(20)


async def test_a_name_full_of_html_is_a_name(service: Service, page: Page) -> None:
    await service.submit(*LONG, name=HOSTILE, project=HOSTILE, tags=[HOSTILE])
    await page.goto("/")
    await expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    assert await page.locator("main img").count() == 0
    assert "owned" not in await page.title()


async def test_a_lost_connection_is_said_the_clocks_stop_and_all_of_it_is_true_again_after(
    service: Service, open_page: OpenPage, complaints: Complaints
) -> None:
    complaints.expect("WebSocket connection")
    complaints.expect("ERR_CONNECTION_REFUSED")
    simulation = await service.submit(*LONG, name="goes on")
    gone = await service.submit("true", name="cancelled meanwhile", resources=NEVER)
    page = await open_page(None, own=True)
    await page.clock.install()
    await page.goto("/")
    await expect(line(page, "goes on")).to_contain_text("Running")

    await service.end()
    banner = page.get_by_text("The connection was lost")
    await expect(banner).to_be_visible()
    time = line(page, "goes on").locator(".time")
    stood = await time.inner_text()
    await page.clock.fast_forward(5_000)
    assert await time.inner_text() == stood

    await service.up()
    await service.cancel(gone)
    await expect(banner).to_have_count(0)
    await expect(section(page, "Ended").get_by_text("cancelled meanwhile")).to_be_visible()
    await expect(line(page, "goes on")).to_contain_text("Running")
    await service.cancel(simulation)


async def test_the_first_view_is_small(open_page: OpenPage) -> None:
    page = await open_page(None, own=True)
    sizes: dict[str, int] = {}

    async def note(response: Any) -> None:
        if response.request.resource_type == "script":
            sizes[response.url] = int((await response.all_headers())["content-length"])

    page.on("response", note)
    await page.goto("/")
    await expect(page.get_by_text("Machines online")).to_be_visible()
    await page.wait_for_load_state("networkidle")
    assert sizes
    assert sum(sizes.values()) < FIRST_VIEW_BYTES, sizes


async def test_what_is_chosen_leads_to_the_comparison(service: Service, page: Page) -> None:
    for name in ("one", "two"):
        await service.finished(
            await service.submit("python", "-m", "runner.demo", "--steps", "5", "--interval", "0", name=name)
        )
    await page.goto("/")
    for name in ("one", "two"):
        await page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()
    await page.get_by_role("link", name="Compare", exact=True).click()
    await expect(page).to_have_url(re.compile(r"/compare\?ids="))


class Unanswered:
    """The way to the server, on which the first answers to an operation get lost, or say that it can't answer now."""

    def __init__(self, operation: str, count: int, answer: dict[str, Any]) -> None:
        self.left = count
        self._operation = operation
        self._answer = answer

    async def between(self, ours: WebSocketRoute) -> None:
        server = ours.connect_to_server()
        asked: set[str] = set()

        def from_page(message: str | bytes) -> None:
            frame = json.loads(message)
            if self.left and frame["type"] == "subscribe" and f"query {self._operation}(" in frame["payload"]["query"]:
                self.left -= 1
                asked.add(frame["id"])
                ours.send(json.dumps({"id": frame["id"], **self._answer}))
            elif frame.get("id") not in asked:
                server.send(message)

        ours.on_message(from_page)


async def test_machines_that_have_not_been_read_yet_are_not_said_to_be_none(page: Page, service: Service) -> None:
    held: list[tuple[WebSocketRoute, str | bytes]] = []

    async def between(ours: WebSocketRoute) -> None:
        server = ours.connect_to_server()

        def from_page(message: str | bytes) -> None:
            if "query MachinesNow" in str(message):
                held.append((server, message))
            else:
                server.send(message)

        ours.on_message(from_page)

    await service.submit("true", name="waits", resources=NEVER)
    await page.route_web_socket("**/graphql", between)
    await page.goto("/")
    await expect(line(page, "waits")).to_be_visible()
    await expect(at_a_glance(page, "Machines online")).to_have_text("–")
    await expect(section(page, "Machines")).not_to_contain_text("No machines")
    for server, message in held:
        server.send(message)
    await expect(at_a_glance(page, "Machines online")).to_have_text("1\xa0of 1")


NOTHING = {"type": "complete"}
AWAY = {
    "type": "error",
    "payload": [{"message": "The database is away.", "extensions": {"code": "UNAVAILABLE"}}],
}


@pytest.mark.parametrize("answer", [NOTHING, AWAY], ids=["no answer", "an outage"])
async def test_a_list_that_had_no_answer_is_asked_for_again(page: Page, service: Service, answer: Any) -> None:
    await service.finished(await service.submit("true", name="over"))  # no change of it brings it
    lost = Unanswered("Simulations", 6, answer)  # two of each section
    await page.route_web_socket("**/graphql", lost.between)
    await page.goto("/")
    await expect(line(page, "over")).to_be_visible()
    assert lost.left == 0


@pytest.mark.parametrize("answer", [NOTHING, AWAY], ids=["no answer", "an outage"])
async def test_a_simulation_that_had_no_answer_is_asked_for_again(page: Page, service: Service, answer: Any) -> None:
    simulation_id = await service.submit("true", name="over")
    await service.finished(simulation_id)
    lost = Unanswered("Simulation", 1, answer)
    await page.route_web_socket("**/graphql", lost.between)
    await page.goto(f"/simulations/{simulation_id}")
    await expect(page.get_by_role("heading", name="over", exact=True)).to_be_visible()
    await expect(page.get_by_text("The database is away.")).to_have_count(0)
    assert lost.left == 0
