"""The list in a real browser: sorted, filtered as one types, with columns, long, narrow, and many acted on at once."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

from ended import METRICS, fill, name_of
from playwright.async_api import Locator, Page, expect

Service = Any  # the fixtures of conftest.py
OpenPage = Any
Axe = Any

NEVER = {"gpus": 100}  # no machine has them
PHONE = {"width": 390, "height": 844}
LOSS = "val/cross_entropy_loss_per_token"
IN_SIGHT = """() => [...document.querySelectorAll('tbody th[scope=row]')].filter(each => {
    const {top, bottom} = each.getBoundingClientRect();
    return top >= 0 && bottom <= innerHeight;
}).length"""

CANCEL = "mutation ($id: ID!) { cancelSimulation(input: {id: $id}) { userErrors { message } } }"
DELETE = "mutation ($id: ID!) { deleteSimulation(input: {id: $id}) { userErrors { message } } }"
# Whether a part of a name is as wide as its letters: the beginning, or the end where its middle is cut out.
SHOWS = """(element, part) => {
    const style = getComputedStyle(element, part === 'head' ? '::before' : '::after');
    const brush = document.createElement('canvas').getContext('2d');
    brush.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    return Math.abs((parseFloat(style.width) || 0) - brush.measureText(element.dataset[part]).width) < 1;
}"""
# Whether nothing of an element is cut off, by itself or by what it is in.
WHOLE = """element => {
    const {left, right, bottom} = element.getBoundingClientRect();
    const inside = element.closest('th, td').getBoundingClientRect();
    return right > left && left >= inside.left && right <= inside.right && bottom <= inside.bottom;
}"""
# Whether what a select shows is whole: it is as wide as it would be with that alone.
UNCUT = """select => {
    const alone = select.cloneNode();
    alone.append(select.selectedOptions[0].cloneNode(true));
    alone.style.cssText = 'width: auto; position: absolute';
    select.after(alone);
    const wanted = alone.getBoundingClientRect().width;
    alone.remove();
    return wanted <= select.getBoundingClientRect().width;
}"""
# Widths of the reasons that are in sight.
REASONS = """() => [...document.querySelectorAll('tbody .why')].flatMap(each => {
    const [own, around] = [each, each.parentElement].map(of => of.getBoundingClientRect());
    return own.top < around.bottom ? [own.width] : [];
})"""
# Where a toast and the bar are, once both are there.
APART = """() => {
    const [toast, bar] = ['.toasts p', '#selected'].map(each => document.querySelector(each)?.getBoundingClientRect());
    return toast && bar && { bottom: toast.bottom, top: bar.top };
}"""

SCROLLED = "to => [...document.querySelectorAll('.scroll')].every(each => each.scrollLeft === to)"
# Scrolls until the last row is there.
TO_THE_END = """place => {
    scrollTo(0, document.documentElement.scrollHeight);
    return document.querySelector(`tbody tr[aria-rowindex='${place}']`) !== null;
}"""


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def heads(page: Page) -> Locator:
    return page.locator("tbody th[scope=row] a")


async def names(page: Page, count: int) -> list[str | None]:
    await expect(heads(page).nth(count - 1)).to_be_visible()
    return [await heads(page).nth(at).get_attribute("aria-label") for at in range(count)]


async def test_eighteen_runs_are_in_sight_and_six_on_a_telephone_and_empty_sections_are_lines(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    await fill(service, 60)
    page = await open_page("/")
    await expect(heads(page).nth(49)).to_be_attached()
    assert await page.evaluate(IN_SIGHT) >= 18
    for empty in ("On machines", "Waiting"):
        box = await section(page, empty).bounding_box()
        assert box is not None
        assert box["height"] < 40
    await axe(page)
    long = heads(page).first.locator(".cut")
    await expect(long).to_have_text(name_of(1))
    assert await long.evaluate(SHOWS, "tail"), "cut in the middle"
    assert not await long.evaluate(SHOWS, "head")

    await page.set_viewport_size(PHONE)
    await expect(page.locator("thead").first).to_be_hidden()
    await expect(page.get_by_role("button", name="Columns")).to_be_visible()
    assert await page.evaluate(IN_SIGHT) >= 6
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await axe(page)


async def test_a_reason_is_shown_where_there_is_room_for_words(service: Service, open_page: OpenPage) -> None:
    await fill(service, 20, metrics=("val/loss",))
    await service.alter("UPDATE simulations SET reason = 'STOPPING_THRESHOLD', reason_detail = 'Loss fell below 0.2.'")
    page = await open_page("/")
    await expect(heads(page).nth(19)).to_be_attached()
    await expect(page.locator("tbody .figures").nth(19)).to_be_attached()
    for width in range(1_000, 2_000, 60):
        await page.set_viewport_size({"width": width, "height": 900})
        shown = await page.evaluate(REASONS)
        assert min(shown, default=100) >= 100, width
    assert shown, "a wide window has room"
    await expect(page.locator("tbody .figures").first).to_have_attribute("title", re.compile("fell below 0.2"))


async def test_the_heading_names_the_best_objective_and_the_row_says_where_no_best_is_known(
    service: Service, page: Page
) -> None:
    lines = [json.dumps({"step": step, "val/loss": loss, "gap": loss}) for step, loss in enumerate((3, 0.5, 2))]
    for metric in ("val/loss", "gap"):
        await service.submit("printf", "%s\\n", *lines, name=f"by {metric}", objective={"metric": metric})
    await page.goto("/")
    ended = section(page, "Ended")
    await expect(ended.get_by_role("rowheader")).to_have_count(2)
    await expect(ended.get_by_role("columnheader", name="Best objective", exact=True)).to_be_visible()
    await expect(ended.get_by_role("row").filter(has_text="by val/loss").locator(".figures")).to_have_text(
        "val/loss 0.5"
    )
    await expect(ended.get_by_role("row").filter(has_text="by gap").locator(".figures")).to_have_text("gap 2last")


async def test_three_sections_that_are_full_leave_eighteen_runs_in_sight(service: Service, page: Page) -> None:
    await fill(service, 60)
    await service.submit_many([{"entrypoint": ["true"], "name": f"w {n}", "resources": NEVER} for n in range(5)])
    await service.submit("python", "-m", "runner.demo", "--steps", "100000", "--interval", "0.2", name="runs")
    await page.goto("/")
    await expect(section(page, "On machines").get_by_role("rowheader")).to_have_count(1)
    await expect(section(page, "Ended").get_by_role("rowheader")).to_have_count(50)
    assert await page.evaluate(IN_SIGHT) >= 18


async def test_columns_are_chosen_moved_sorted_by_and_kept_in_the_address(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    await fill(service, 30)
    page = await open_page("/")
    await page.get_by_role("button", name="Columns").click()
    dialog = page.get_by_role("dialog", name="Columns")
    await dialog.get_by_placeholder("Search names").fill("cross_entropy")
    await dialog.get_by_role("button", name=f"Add {LOSS} best").click()
    await dialog.get_by_placeholder("Search names").fill("lr")
    await dialog.get_by_role("button", name="Add lr parameter").click()
    await dialog.get_by_placeholder("Search names").fill("seed")
    await dialog.get_by_role("button", name="Add optimizer.seed parameter").click()
    await axe(page)
    await dialog.get_by_role("button", name="Move optimizer.seed parameter to the left").click()
    await dialog.get_by_role("button", name="Done").click()
    await expect(page).to_have_url(re.compile(r"col=best%3A.*%2Cparam%3Aoptimizer.seed%2Cparam%3Alr"))
    row = section(page, "Ended").get_by_role("row").filter(has_text="00001")
    for short in ("lr", "optimizer.seed"):
        head = page.locator(f'[data-column="param:{short}"] .cut')
        assert [await head.evaluate(SHOWS, part) for part in ("head", "tail")] == [True, True], "there is room for it"
    await expect(row.locator(".cell").nth(1)).to_contain_text("9007199254740994")  # all digits of it
    await expect(row.locator(".cell").nth(2)).to_contain_text("0.001")

    # By keyboard, and dragged.
    lr = page.locator('[data-column="param:lr"]')
    await lr.focus()
    await page.keyboard.press("Alt+ArrowLeft")
    await expect(page).to_have_url(re.compile(r"%2Cparam%3Alr%2Cparam%3Aoptimizer.seed"))
    await expect(lr).to_be_focused()
    await lr.drag_to(page.locator(f'[data-column="best:{LOSS}"]'))
    await expect(page).to_have_url(re.compile(r"col=param%3Alr%2Cbest"))

    await page.get_by_role("button", name=f"{LOSS}, best").click()
    await expect(page).to_have_url(re.compile(r"sort=best%3Aval"))
    await expect(page.get_by_role("columnheader", name=f"{LOSS}, best")).to_have_attribute("aria-sort", "descending")
    await expect(section(page, "Simulations")).to_be_visible()
    assert await names(page, 3) == [name_of(n) for n in (1, 2, 3)]
    await lr.click()
    await lr.click()
    await expect(page).to_have_url(re.compile(r"sort=-param"))
    await expect(heads(page).first).to_have_attribute("aria-label", name_of(30))
    await axe(page)
    await page.reload()
    await expect(heads(page).first).to_have_attribute("aria-label", name_of(30))
    await expect(page.get_by_label("Order")).to_have_value("-param:lr")
    await page.get_by_label("Order").select_option("+cost")
    await expect(heads(page).first).to_have_attribute("aria-label", name_of(1))
    await page.go_back()
    await expect(heads(page).first).to_have_attribute("aria-label", name_of(30))
    await page.get_by_label("Order").select_option("")
    await expect(section(page, "Ended")).to_be_visible()


async def test_columns_are_offered_of_all_simulations_not_of_the_newest_alone(service: Service, page: Page) -> None:
    await fill(service, 1, ("rare/gain", "rare/loss"), 2)
    await fill(service, 60, ("loss",), 2)
    await page.goto("/")
    await page.get_by_role("button", name="Columns").click()
    dialog = page.get_by_role("dialog", name="Columns")
    await expect(dialog.get_by_role("button", name="Add loss best")).to_be_visible()
    await expect(dialog.get_by_placeholder("Search names")).to_be_focused()
    await dialog.get_by_placeholder("Search names").fill("RARE/L")
    await expect(dialog.get_by_role("button", name="Add rare/loss best")).to_be_visible()
    await expect(dialog.get_by_role("list", name="Names").get_by_role("button")).to_have_count(2)
    await dialog.get_by_placeholder("Search names").press("Enter")
    await expect(page).to_have_url(re.compile(r"col=last%3Arare%2Floss"))


async def test_the_last_and_the_best_of_a_metric_are_told_apart_and_their_columns_move_together(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    await fill(service, 30)
    await service.submit("true", name="waits", resources=NEVER)
    columns = ",".join(f"{kind}:{name}" for name in METRICS[:5] for kind in ("best", "last"))
    page = await open_page(f"/?col={columns}&tag=")
    await expect(heads(page)).to_have_count(31)
    for title, kind in product(("Waiting", "Ended"), ("best", "last")):  # above each section
        name = f"{METRICS[0]}, {kind}"
        head = section(page, title).get_by_role("button", name=name).get_by_text(kind, exact=True)
        assert await head.evaluate(WHOLE), "whole, however long the name is"
    await section(page, "Ended").locator(".scroll").evaluate("each => each.scrollLeft = 500")
    await page.wait_for_function(SCROLLED, arg=500)
    for each in (heads(page).first, heads(page).last):
        box = await each.bounding_box()
        assert box is not None
        assert box["x"] > 0, "a name stays where it is"
    await axe(page)

    await page.set_viewport_size(PHONE)
    for row in (page.get_by_role("row").nth(1), page.get_by_role("row").last):
        cells = row.locator(".cell:visible")
        await expect(cells).to_have_count(10)
        [around, last] = [await each.bounding_box() for each in (row, cells.last)]
        assert around is not None
        assert last is not None
        assert last["y"] + last["height"] <= around["y"] + around["height"], "nothing of a row is cut off"
        for at, kind in enumerate(("best", "last") * 5):
            await expect(cells.nth(at)).to_contain_text(re.compile(rf"{kind}\s*\S"))
            assert await cells.nth(at).get_by_text(kind).evaluate(WHOLE)


async def test_it_is_filtered_as_one_types_and_by_tag_user_time_and_parameter(service: Service, page: Page) -> None:
    await fill(service, 40)
    await page.goto("/")
    await expect(heads(page)).to_have_count(40)
    await page.get_by_placeholder("Search name").press_sequentially("warm")
    await expect(heads(page)).to_have_count(2)  # by their notes, with no further key
    await page.get_by_placeholder("Search name").fill("--run 17")
    await expect(heads(page)).to_have_count(1)  # by its command
    await page.go_back()
    await expect(page).to_have_url("/")  # what was typed is one entry of the history
    await expect(heads(page)).to_have_count(40)

    await page.get_by_role("button", name="baseline", exact=True).first.click()
    await expect(heads(page)).to_have_count(8)
    await page.get_by_role("button", name="More filters").click()
    await page.get_by_label("Parameter").fill("nonsense")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Not understood: nonsense.")).to_be_visible()
    await page.get_by_label("Parameter").fill("lr>0.005, lr, optimizer.name=adam")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Not understood: lr. Expected comparisons like lr<1e-3")).to_be_visible()
    await expect(heads(page)).to_have_count(8)
    await page.get_by_label("Parameter").fill("lr>0.005, optimizer.name=adam")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Not understood")).to_be_hidden()
    await expect(heads(page)).to_have_count(7)
    await page.get_by_role("button", name="Remove the filter lr>0.005").click()
    await page.get_by_role("button", name="Remove the filter optimizer.name=adam").click()
    await page.get_by_label("Parameter").fill("lr<=0.02")
    await page.keyboard.press("Enter")
    await expect(heads(page)).to_have_count(4)
    await page.get_by_label("User").fill("ada")
    await page.keyboard.press("Enter")
    await expect(heads(page)).to_have_count(2)
    await page.reload()
    await expect(heads(page)).to_have_count(2)
    await page.get_by_role("button", name="Remove the filter by ada").click()
    await page.get_by_role("button", name="Remove the filter lr<=0.02").click()
    await expect(heads(page)).to_have_count(8)
    await page.get_by_role("button", name="Remove the filter baseline").click()
    await expect(heads(page)).to_have_count(40)
    await page.get_by_role("button", name="More filters").click()
    await page.get_by_label("Created").select_option("1h")
    await expect(page.get_by_role("button", name="Remove the filter Last hour")).to_be_visible()
    await expect(heads(page)).to_have_count(40)
    await page.get_by_label("Until").fill("2020-01-01")
    await expect(section(page, "Ended")).to_contain_text("Nothing matches.")
    await page.get_by_role("link", name="Clear", exact=True).click()
    await expect(heads(page)).to_have_count(40)


async def test_on_a_telephone_it_is_sorted_and_narrowed_by_project_and_machine_under_more_filters(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    for n in (1, 2):
        await service.submit("true", name=f"w {n}", project=f"p{n}", resources=NEVER)
    page = await open_page("/", viewport=PHONE)

    def choice(name: str) -> Locator:
        return page.get_by_role("combobox", name=name, exact=True)

    await expect(heads(page)).to_have_count(2)
    assert await choice("State").evaluate(UNCUT), "All states"
    for folded in ("Project", "Machine", "Order"):
        await expect(choice(folded)).to_be_hidden()
    await page.get_by_role("button", name="More filters").click()
    await expect(choice("Machine")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await axe(page)
    await choice("Order").select_option("+name")
    await expect(section(page, "Simulations").get_by_role("rowheader")).to_have_count(2)
    assert await names(page, 2) == ["w 1", "w 2"]
    await choice("Project").select_option("p2")
    await expect(heads(page)).to_have_count(1)
    await page.get_by_role("button", name="More filters").click()
    for kept in ("Project", "Order"):  # what is chosen stays in sight
        await expect(choice(kept)).to_be_visible()
    await expect(choice("Machine")).to_be_hidden()


async def test_a_long_list_scrolls_to_its_end_and_only_what_is_in_sight_is_in_the_page(
    service: Service, page: Page
) -> None:
    await fill(service, 500, ("loss",), 2)
    await page.goto("/?sort=-created")
    await expect(heads(page).first).to_have_attribute("aria-label", name_of(1))
    table = section(page, "Simulations").get_by_role("table")
    await expect(table).to_have_attribute("aria-rowcount", "501")
    await page.wait_for_function(TO_THE_END, arg=501)
    await expect(page.locator("tbody tr[aria-rowindex='501']")).to_contain_text(name_of(500)[-12:])
    assert await heads(page).count() < 200
    await page.evaluate("scrollTo(0, 0)")
    await expect(page.locator("tbody tr[aria-rowindex='2']")).to_contain_text(name_of(1)[-12:])
    assert await heads(page).count() < 200


async def test_many_are_tagged_run_again_cancelled_and_deleted_at_once(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    items = [{"entrypoint": ["true"], "name": f"w {n}", "resources": NEVER, "parameters": {"lr": n}} for n in range(3)]
    await service.submit_many(items)
    page = await open_page("/")
    await page.get_by_role("checkbox", name="Select all shown: Waiting").check()
    bar = page.get_by_role("region", name="Selected")
    await expect(bar).to_contain_text("3 selected")
    await axe(page)

    await bar.get_by_role("button", name="Tag").click()
    dialog = page.get_by_role("dialog", name="Tag 3 simulations")
    await dialog.get_by_label("Add").fill("first, second")
    await axe(page)
    await dialog.get_by_role("button", name="Change tags").click()
    await expect(page.get_by_text("Tagged 3 simulations.")).to_be_visible()
    await expect(section(page, "Waiting").get_by_role("button", name="second")).to_have_count(3)

    await expect(bar).to_contain_text("3 selected")  # for what comes next
    await page.get_by_role("checkbox", name="Select w 0").uncheck()
    await bar.get_by_role("button", name="Run again").click()
    dialog = page.get_by_role("dialog", name="Run 2 simulations again")
    await dialog.get_by_role("button", name="Add a parameter").click()
    await dialog.get_by_label("Name of parameter 1").fill("seed")
    await dialog.get_by_label("Value of parameter seed").fill("9007199254740993")
    await dialog.get_by_label("Name", exact=True).fill("{name} again")
    await dialog.get_by_role("button", name="Queue 2 simulations").click()
    await expect(page.get_by_text("Queued 2 simulations.")).to_be_visible()
    await expect(page.get_by_role("main")).to_be_focused()  # its dialog is gone, and so is the bar
    for name in ("w 1 again", "w 2 again"):  # "all shown" is what is shown at that moment
        await expect(page.get_by_role("link", name=name)).to_be_visible()
    rows = await service.fetch("SELECT parameters::text AS p FROM simulations WHERE name LIKE '%again' ORDER BY name")
    assert [row["p"] for row in rows] == [f'{{"lr": {n}, "seed": 9007199254740993}}' for n in (1, 2)]

    await page.get_by_role("checkbox", name="Select all shown: Waiting").check()
    await expect(bar).to_contain_text("5 selected")
    await bar.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Cancel 5 simulations").click()
    await expect(page.get_by_text("Cancelled 5 simulations.")).to_be_visible()
    await expect(section(page, "Waiting")).to_contain_text("Nothing waits.")
    await page.get_by_role("checkbox", name="Select all shown: Ended").check()
    await bar.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete 5 simulations").click()
    await expect(page.get_by_text("Deleted 5 simulations.")).to_be_visible()
    await expect(page.get_by_role("heading", name="No simulations yet.")).to_be_visible()


async def test_what_is_typed_to_run_many_again_stays_until_nothing_is_refused(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    await service.submit_many([{"entrypoint": ["true"], "name": f"w {n}", "resources": NEVER} for n in range(2)])
    page = await open_page("/")
    await page.get_by_role("checkbox", name="Select all shown: Waiting").check()
    await page.get_by_role("button", name="Run again").click()
    dialog = page.get_by_role("dialog", name="Run 2 simulations again")
    await dialog.get_by_role("button", name="Add a parameter").click()
    await dialog.get_by_label("Name of parameter 1").fill("x")
    value = dialog.get_by_label("Value of parameter x")
    await value.fill("[" * 101 + "]" * 101)
    await dialog.get_by_label("Name", exact=True).fill("{name} again")
    await dialog.get_by_role("button", name="Queue 2 simulations").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Queued 0 of 2 simulations. 2 refused: ")
    await axe(page)
    await value.fill("1")
    await dialog.get_by_role("button", name="Queue 2 simulations").click()
    await expect(page.get_by_text("Queued 2 simulations.")).to_be_visible()
    await expect(dialog).to_be_hidden()
    rows = await service.fetch(
        "SELECT name, parameters::text AS p FROM simulations WHERE name LIKE '%again' ORDER BY 1"
    )
    assert [(row["name"], row["p"]) for row in rows] == [(f"w {n} again", '{"x": 1}') for n in range(2)]


async def test_more_can_be_selected_than_the_list_shows(service: Service, open_page: OpenPage, axe: Axe) -> None:
    await fill(service, 108, ("loss",), 2)
    page = await open_page("/")
    await expect(heads(page)).to_have_count(50)
    everything = page.get_by_role("button", name="Select all 108", exact=True)
    await expect(everything).to_be_hidden()
    await page.get_by_role("checkbox", name="Select all shown: Ended").check()
    bar = page.get_by_role("region", name="Selected")
    await expect(bar).to_contain_text("50 selected")
    await axe(page)
    await everything.click()
    await expect(bar).to_contain_text("108 selected")
    await expect(bar).not_to_contain_text("not shown")
    await expect(everything).to_be_hidden()
    await bar.get_by_role("button", name="Tag").click()
    await page.get_by_label("Add").fill("all")
    await page.get_by_role("button", name="Change tags").click()
    await expect(page.get_by_text("Tagged 108 simulations.")).to_be_visible()
    [tagged] = await service.fetch("SELECT count(*) AS n FROM simulations WHERE 'all' = ANY (tags)")
    assert tagged["n"] == 108

    await page.goto("/?where=lr%3C%3D0.06")
    await expect(heads(page)).to_have_count(50)
    await page.get_by_role("checkbox", name="Select all shown: Ended").check()
    await page.get_by_role("button", name="Select all 60 that match").click()
    await expect(bar).to_contain_text("60 selected")


async def test_what_is_selected_follows_what_others_do_and_what_the_list_hides_is_told(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    ids = await service.submit_many([{"entrypoint": ["true"], "name": f"w {n}", "resources": NEVER} for n in range(4)])
    page = await open_page("/")
    await expect(heads(page)).to_have_count(4)
    boxes = page.get_by_role("checkbox", name=re.compile("Select w"))
    await boxes.evaluate_all("all => all.slice(0, 3).forEach(each => each.click())")  # one task
    bar = page.get_by_role("region", name="Selected")
    await expect(bar).to_contain_text("3 selected")
    await expect(bar.get_by_role("button", name="Delete")).to_be_disabled()
    for each in ids[:3]:
        await service.execute(CANCEL, id=each)
    await expect(bar.get_by_role("button", name="Delete")).to_be_enabled()
    await expect(bar.get_by_role("button", name="Cancel")).to_be_disabled()
    await service.execute(DELETE, id=ids[0])
    await service.execute(CANCEL, id=ids[3])  # deletions are not announced: seen with what happens next
    await expect(bar).to_contain_text("2 selected")

    await page.get_by_placeholder("Search name").fill("w 1")
    await expect(bar).to_contain_text("2 selected, 1 not shown")
    await axe(page)
    await bar.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("dialog", name="Delete 2 simulations?")).to_contain_text(
        "1 of them is not in the list"
    )
    await page.get_by_role("button", name="Delete 2 simulations").click()
    await expect(page.get_by_text("Deleted 2 simulations.")).to_be_visible()
    await expect(bar).to_be_hidden()
    assert [row["name"] for row in await service.fetch("SELECT name FROM simulations")] == ["w 3"]


async def test_the_keyboard_goes_from_a_row_to_the_actions_and_a_toast_covers_none(
    service: Service, open_page: OpenPage
) -> None:
    await fill(service, 40, ("loss",), 2)
    for at, width in enumerate((1440, 390), 1):
        await service.submit("true", name=f"waits {at}", resources=NEVER)
        page = await open_page("/", viewport={"width": width, "height": 900})
        await expect(heads(page)).to_have_count(40 + at)
        await page.get_by_role("checkbox", name=f"Select waits {at}").check()
        await page.get_by_role("checkbox", name=f"Select {name_of(20)}").focus()
        await page.keyboard.press("Space")
        bar = page.get_by_role("region", name="Selected")
        await expect(bar).to_contain_text("2 selected")
        await page.keyboard.press("Tab")
        await expect(page.locator(":focus")).to_have_text("Go to the actions")
        await page.keyboard.press("Enter")
        await expect(bar).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(bar.get_by_role("link", name="Compare")).to_be_focused()
        for _ in range(3):
            await page.keyboard.press("Tab")
        await expect(bar.get_by_role("button", name="Cancel")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Cancel 2 simulations").press("Enter")
        await expect(bar).to_contain_text("1 selected")  # what was refused stays selected
        places = await (await page.wait_for_function(APART)).json_value()
        assert places["bottom"] <= places["top"]


async def test_an_address_that_makes_no_sense_is_explained_once_and_put_right(
    service: Service, open_page: OpenPage, axe: Axe
) -> None:
    await fill(service, 3, ("loss",), 2)
    page = await open_page("/?where=lr%3C%3D1,lr&sort=-nonsense&state=running&col=nothing,last:loss")
    said = page.get_by_role("alert")
    await expect(said).to_contain_text("ignored: where=lr, col=nothing, state=running, sort=-nonsense.")
    await expect(heads(page)).to_have_count(3)
    await axe(page)
    await said.get_by_role("button", name="Remove from the address").click()
    await expect(said).to_be_hidden()
    await expect(page).to_have_url(re.compile(r"/\?where=lr%3C%3D1&col=last%3Aloss$"))

    await page.goto("/?where=nonsense%3C1")
    await expect(page.get_by_role("alert")).to_have_text("No simulation has a parameter 'nonsense'.")
    await axe(page)
    await page.get_by_role("button", name="Clear filters and order").click()
    await expect(heads(page)).to_have_count(3)
    await page.goto("/?sort=best:nonsense")
    await expect(page.get_by_role("alert")).to_have_count(1)
    await page.get_by_role("button", name="Clear filters and order").click()
    await expect(heads(page)).to_have_count(3)
