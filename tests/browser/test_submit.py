"""The form at /submit: everything that createSimulation takes, nothing typed that gets lost, and one simulation however
often it is sent."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from live import PATIENCE_SECONDS, within
from playwright.async_api import Locator, Page, WebSocketRoute, expect

Axe = Any  # the fixtures of conftest.py
Complaints = Any
OpenPage = Any
Service = Any

NARROW = {"width": 360, "height": 740}
SECTIONS = (
    "Parameters", "Environment and working directory", "Project, tags and priority", "Which machine",
    "Limits and retries", "Points and trackers", "Metrics and watching",
)  # fmt: skip
SHOW = """
query Show($id: ID!) {
  simulation(id: $id) {
    name entrypoint parameters environment workingDirectory tags priority attended attendedGraceSeconds
    metricsFrom metricsPatterns tensorboard systemMetricsSeconds project { name }
    limits { maxRuntimeSeconds maxRetries retryOn }
    resources { cpus memoryGib gpus gpuModel labels machineName maxPricePerHour }
  }
}
"""
PATTERNS = [r"it (?P<step>\d+) E=(?P<energy>\S+)", '\'loss\' = "(?P<loss>[^"]+)"']
DIRECTORIES = ["/scratch/runs", "logs of it"]
# Clicks on the heads of sections, and waits until each has opened or closed.
TURN = """heads => Promise.all(heads.map(head => new Promise(turned => {
    head.parentElement.addEventListener('toggle', turned, { once: true });
    head.click();
})).map(each => each.then(() => null)))"""
EVERY = "query { simulations(first: 100) { nodes { id name } } }"


def command(page: Page) -> Locator:
    return page.get_by_label("Command", exact=True)


def submit(page: Page) -> Locator:
    return page.get_by_role("button", name="Submit", exact=True)


async def unfold(page: Page) -> None:
    """Open all sections, or close them again, at once: each click by a mouse waits for some frames."""
    heads = page.locator("summary").filter(has_text=re.compile("|".join(SECTIONS)))
    await expect(heads).to_have_count(len(SECTIONS))
    await heads.evaluate_all(TURN)


async def made(service: Service) -> list[Any]:
    return list((await service.execute(EVERY))["simulations"]["nodes"])


async def arrived(page: Page, service: Service) -> Any:
    """Wait until the page of the new simulation is there; the simulation."""
    await page.wait_for_url("**/simulations/*")
    return (await service.execute(SHOW, id=unquote(urlsplit(page.url).path.rsplit("/", 1)[1])))["simulation"]


async def test_with_the_keyboard_alone_a_simulation_is_submitted(page: Page, service: Service) -> None:
    await page.goto("/submit")
    await expect(command(page)).to_be_visible()
    async with within(PATIENCE_SECONDS, "Tab reaches the command"):
        while not await command(page).evaluate("field => field === document.activeElement"):
            await page.keyboard.press("Tab")
    await page.keyboard.type("python -m runner.demo --steps 3 --interval 0")
    await page.keyboard.press("Tab")
    await page.keyboard.type("by hand")
    await page.keyboard.press("Tab")
    await page.keyboard.type("0.1")
    await page.keyboard.press("Enter")
    simulation = await arrived(page, service)
    assert (simulation["name"], simulation["resources"]["cpus"]) == ("by hand", 0.1)
    assert simulation["entrypoint"] == ["python", "-m", "runner.demo", "--steps", "3", "--interval", "0"]


async def fill_all(page: Page, directory: str) -> None:
    await command(page).fill(r"""python train.py 'two words' "a \"b\"" \$HOME ''""")
    await page.get_by_label("Name", exact=True).fill("<b>all</b>")
    for section in SECTIONS:
        await page.locator("summary", has_text=section).click()
    for label, text in {
        "CPUs": "0.5", "Memory, GiB": "0.25", "GPUs": "0", "Working directory": directory, "Project": "a project",
        "Priority": "-5", "GPU model": "A100", "Maximum price per hour": "2.50", "Machine": "elsewhere",
        "Maximum runtime": "1h 30m", "Retries": "7", "Tags": "one, two",
    }.items():  # fmt: skip
        await page.get_by_label(label, exact=True).fill(text)
    values = {"lr": "0.1", "depth": "3", "deep": "true", "name": "resnet", "sizes": "[1, 2]", "text": "42"}
    for number, (key, value) in enumerate(values.items(), 1):
        await page.get_by_role("button", name="Add a parameter").click()
        await page.get_by_label(f"Name of parameter {number}", exact=True).fill(key)
        await page.get_by_label(f"Value of parameter {key}", exact=True).fill(value)
    await page.get_by_label("Type of parameter text").select_option("text")
    await page.get_by_role("button", name="Add a variable").click()
    await page.get_by_label("Name of variable 1").fill("API_KEY")
    await page.get_by_label("Value of variable API_KEY").fill("a secret")
    await page.get_by_role("button", name="Add a label").click()
    await page.get_by_label("Name of label 1").fill("zone")
    await page.get_by_label("Value of label zone").fill("a b")
    await page.get_by_label("it exited with an error").check()
    await page.get_by_label("Read points from").select_option(label="JSON lines and trackers")
    await page.get_by_label("Patterns").fill("\n".join(PATTERNS))
    await page.get_by_label("TensorBoard directories").fill("\n".join(DIRECTORIES))
    await page.get_by_label("System metrics").fill("1m")
    await page.get_by_role("button", name="Add a metric").click()
    await page.get_by_label("Name of metric 1").fill("accuracy")
    await page.get_by_label("Attended").check()
    await page.get_by_label("Grace").fill("2m")


def everything(directory: str) -> dict[str, Any]:
    return {
        "name": "<b>all</b>",
        "entrypoint": ["python", "train.py", "two words", 'a "b"', "$HOME", ""],
        "parameters": {"lr": 0.1, "depth": 3, "deep": True, "name": "resnet", "sizes": [1, 2], "text": "42"},
        "environment": {"API_KEY": None},
        "workingDirectory": directory,
        "tags": ["one", "two"],
        "priority": -5,
        "attended": True,
        "attendedGraceSeconds": 120,
        "metricsFrom": "JSON",
        "metricsPatterns": PATTERNS,
        "tensorboard": DIRECTORIES,
        "systemMetricsSeconds": 60.0,
        "project": {"name": "a project"},
        "limits": {"maxRuntimeSeconds": 5400, "maxRetries": 7, "retryOn": ["MACHINE_LOST", "EXIT_CODE"]},
        "resources": {
            "cpus": 0.5, "memoryGib": 0.25, "gpus": 0, "gpuModel": "A100", "labels": {"zone": "a b"},
            "machineName": "elsewhere", "maxPricePerHour": "2.5",
        },
    }  # fmt: skip


async def elsewhere(service: Service) -> None:
    """Make the machine that the form asks for."""
    made = await service.execute(
        'mutation { createMachine(input: {name: "elsewhere", cpus: 1, memoryGib: 1}) { userErrors { message } } }'
    )
    assert made["createMachine"]["userErrors"] == []


async def test_all_that_can_be_typed_reaches_the_simulation_by_the_form_the_command_line_and_graphql(
    page: Page, service: Service, tmp_path: Path
) -> None:
    await elsewhere(service)
    directory = str(tmp_path)
    await page.goto("/submit")
    await fill_all(page, directory)
    line = await page.get_by_label("The command line", exact=True).inner_text()
    shared = await page.get_by_role("link", name="Open in GraphiQL").get_attribute("href")
    assert "a secret" not in line
    assert shared is not None
    assert "secret" not in shared
    assert "a secret" not in await page.get_by_label("The variables").inner_text()

    await submit(page).click()
    by_form = await arrived(page, service)
    expected = everything(directory)
    assert by_form == expected

    # What stands beside the form does the same: the line in a shell, with this very command line.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "API_KEY": "a secret"}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    by_line = (await service.execute(SHOW, id=done.stdout.strip()))["simulation"]
    assert by_line == expected
    assert "--metric-mode accuracy=max" in line

    # The link's operation, as GraphiQL would send it.
    given = parse_qs(urlsplit(shared).fragment)
    answer = await service.execute(given["query"][0], **json.loads(given["variables"][0]))
    assert answer["createSimulation"]["userErrors"] == []
    identity = answer["createSimulation"]["simulation"]["id"]
    assert (await service.execute(SHOW, id=identity))["simulation"] == expected


def words_of_sh(line: str) -> list[str] | None:
    """What a shell makes of a line without expansions; None: it refuses it."""
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {line}\n"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.split("\0")[:-1] if done.returncode == 0 and not done.stderr else None


async def test_a_command_line_is_cut_as_a_shell_would_cut_it(page: Page) -> None:
    chance = random.Random(7)
    lines = ["".join(chance.choices("ab \"'\\-=", k=chance.randint(1, 12))) for _ in range(60)]
    lines += ['a "b\\\\c" d', "a'b'\"c\"", "a \\  b", '"\\a"', "'\\'", "''", "a \\\n b", "ü 'ö ä'"]
    await page.goto("/submit")
    for line in lines:
        if line.endswith("\\") or not line.strip():
            continue  # a shell would wait for another line
        await command(page).fill(line)
        expected = words_of_sh(line)
        if expected is None:
            await expect(page.get_by_text("is not closed.")).to_be_visible()
        else:
            shown = ["an empty word" if word == "" else word for word in expected]
            await expect(page.get_by_role("list", name="Arguments (argv)").get_by_role("listitem")).to_have_text(shown)


async def test_what_only_a_shell_would_understand_is_said_and_can_be_left_to_one(page: Page) -> None:
    await page.goto("/submit")
    await command(page).fill("echo $HOME 'it' > out.txt")
    await expect(page.get_by_text("> is passed on as a character.")).to_be_visible()
    await expect(page.get_by_text("no variable is put in")).to_be_visible()
    await page.get_by_role("button", name="Run it through a shell").click()
    shown = page.get_by_role("list", name="Arguments (argv)").get_by_role("listitem")
    await expect(shown).to_have_text(["sh", "-c", "echo $HOME 'it' > out.txt"])


WRONG: dict[str, tuple[str, str]] = {
    "Command": ("python 'train.py", "The ' at character 8 is not closed."),
    "Name": ("n" * 201, "at most 200"),
    "CPUs": ("many", "Expected a number, got “many”."),
    "Memory, GiB": ("-1", "greater than or equal to 0"),
    "GPUs": ("0.5", "Expected a whole number, got “0.5”."),
    "Project": ("p" * 201, "at most 200"),
    "Priority": ("9999999", "less than or equal to 1000000"),
    "GPU model": ("m" * 201, "at most 200"),
    "Maximum price per hour": ("$2", "Expected a price like 2.50"),
    "Machine": ("nowhere", "No machine is called “nowhere”."),
    "Maximum runtime": ("soon", "Expected a duration like 90s, 15m, 1h30m or 2d, got “soon”."),
    "Retries": ("-1", "greater than or equal to 0"),
    "Working directory": ("/" + "d" * 4096, "at most 4096"),
}


@pytest.mark.parametrize("label", WRONG)
async def test_wrong_input_is_told_at_its_field_and_stays(page: Page, service: Service, label: str) -> None:
    text, message = WRONG[label]
    await page.goto("/submit")
    await command(page).fill("python train.py")
    await unfold(page)
    field = page.get_by_label(label, exact=True)
    await field.fill(text)
    await unfold(page)  # folded away again
    await submit(page).click()
    summary = page.get_by_role("alert").filter(has_text="to mend")
    await expect(summary).to_contain_text(message)
    await expect(summary).to_be_focused()
    await expect(field).to_be_visible()
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_have_value(text)
    described = (await field.get_attribute("aria-describedby") or "").split()
    assert message in " ".join([await page.locator(f"[id='{each}']").inner_text() for each in described])
    await summary.get_by_role("button").click()
    await expect(field).to_be_focused()
    await field.press("End")
    await field.press_sequentially("x")
    await expect(summary).to_be_hidden()
    assert await made(service) == []


async def test_wrong_rows_are_told_and_parameters_keep_through_json(page: Page, service: Service) -> None:
    await page.goto("/submit")
    await command(page).fill("python train.py")
    await unfold(page)
    for _ in range(2):
        await page.get_by_role("button", name="Add a parameter").click()
    for number in (1, 2):
        await page.get_by_label(f"Name of parameter {number}", exact=True).fill("lr")
    await page.get_by_label("Value of parameter lr").first.fill("1e999")
    await page.get_by_role("button", name="Add a variable").click()
    await page.get_by_label("Name of variable 1").fill("SIMULATION_ID")
    await submit(page).click()
    summary = page.get_by_role("alert").filter(has_text="to mend")
    await expect(summary).to_contain_text("A number is too big for JSON")
    await expect(summary).to_contain_text("lr is given twice.")
    await page.get_by_role("button", name="JSON", exact=True).click()
    await expect(page.get_by_text("Mend the rows first")).to_be_visible()
    await page.get_by_label("Name of parameter 2", exact=True).fill("x")
    await page.get_by_label("Value of parameter lr").fill("0.5")
    await page.get_by_role("button", name="JSON", exact=True).click()
    text = page.get_by_label("Parameters in JSON")
    assert json.loads(await text.input_value()) == {"lr": 0.5, "x": ""}
    await text.fill('{"lr": }')
    await page.get_by_role("button", name="Rows", exact=True).click()
    await expect(page.get_by_role("alert").filter(has_text="Mend the JSON first.")).to_be_visible()
    await expect(text).to_have_value('{"lr": }')
    await text.fill('{"lr": {"a": [1, null]}}')
    await submit(page).click()
    await expect(summary).to_contain_text("SIMULATION_ID: Names that begin with SIMULATION_")
    await page.get_by_role("button", name="Remove variable SIMULATION_ID").click()
    await submit(page).click()
    assert (await arrived(page, service))["parameters"] == {"lr": {"a": [1, None]}}


async def test_whole_numbers_of_any_size_arrive_with_their_digits(page: Page, service: Service) -> None:
    seeds = {"seed": 12345678901234567890, "least": -9007199254740993, "nested": {"of": [9007199254740993, 1]}}
    await page.goto("/submit")
    await command(page).fill("python -c pass")
    await unfold(page)
    for number, (name, value) in enumerate(seeds.items(), 1):
        await page.get_by_role("button", name="Add a parameter").click()
        await page.get_by_label(f"Name of parameter {number}", exact=True).fill(name)
        await page.get_by_label(f"Value of parameter {name}").fill(json.dumps(value))
    await page.get_by_label("Type of parameter nested").select_option("json")
    await page.get_by_role("button", name="JSON", exact=True).click()
    assert json.loads(await page.get_by_label("Parameters in JSON").input_value()) == seeds
    await page.get_by_role("button", name="Rows", exact=True).click()
    await expect(page.get_by_label("Value of parameter seed")).to_have_value("12345678901234567890")
    assert json.loads(await page.get_by_label("The variables").inner_text())["input"]["parameters"] == seeds
    await page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    await page.get_by_role("button", name="Copy the mutation and its variables").click()
    mutation, variables = (await page.evaluate("window.copied")).split("\n\n")
    assert mutation.endswith("}")
    assert json.loads(variables)["input"]["parameters"] == seeds
    await submit(page).click()
    assert (await arrived(page, service))["parameters"] == seeds


async def test_a_double_click_makes_one_simulation(page: Page, service: Service) -> None:
    await page.goto("/submit")
    await command(page).fill("python -c pass")
    await submit(page).dblclick()
    await arrived(page, service)
    assert len(await made(service)) == 1


class Severed:
    """The way to the server, which breaks when the answer to a submit comes back: it was done, the answer lost."""

    def __init__(self) -> None:
        self.armed = True

    async def between(self, ours: WebSocketRoute) -> None:
        server = ours.connect_to_server()
        asked: set[str] = set()

        def from_page(message: str | bytes) -> None:
            frame = json.loads(message)
            if frame["type"] == "subscribe" and "createSimulation" in frame["payload"]["query"]:
                asked.add(frame["id"])
            server.send(message)

        async def from_server(message: str | bytes) -> None:
            if self.armed and json.loads(message).get("id") in asked:
                self.armed = False
                await server.close()
                await ours.close()
            else:
                ours.send(message)

        ours.on_message(from_page)
        server.on_message(from_server)


async def test_a_connection_lost_while_sending_loses_nothing_and_doubles_nothing(page: Page, service: Service) -> None:
    await page.route_web_socket("**/graphql", Severed().between)
    await page.goto("/submit")
    await command(page).fill("python -c pass")
    await page.get_by_label("Name", exact=True).fill("once")
    await submit(page).click()
    await expect(page.get_by_role("alert")).to_contain_text("It is not known whether it was queued")
    await expect(page.get_by_role("alert")).to_contain_text("The connection is back: send it again.")
    assert [each["name"] for each in await made(service)] == ["once"]
    await expect(command(page)).to_have_value("python -c pass")
    await page.get_by_role("button", name="Send again").click()
    assert (await arrived(page, service))["name"] == "once"
    assert len(await made(service)) == 1


async def test_what_was_changed_after_an_unknown_end_is_another_simulation_only_if_one_says_so(
    page: Page, service: Service
) -> None:
    await page.route_web_socket("**/graphql", Severed().between)
    await page.goto("/submit")
    await command(page).fill("python -c pass")
    await page.get_by_label("Name", exact=True).fill("first")
    await submit(page).click()
    await expect(page.get_by_role("alert")).to_contain_text("The connection is back: send it again.")
    await page.get_by_label("Name", exact=True).fill("second")
    await page.get_by_role("button", name="Send again").click()
    await expect(page.get_by_text("It was sent before with other content, and that is queued")).to_be_visible()
    assert [each["name"] for each in await made(service)] == ["first"]
    await page.get_by_role("button", name="Queue this as another one").click()
    assert (await arrived(page, service))["name"] == "second"
    assert sorted(each["name"] for each in await made(service)) == ["first", "second"]


async def test_what_is_not_sent_stays_while_one_looks_around_and_is_asked_for_before_one_leaves(page: Page) -> None:
    await page.goto("/submit")
    await command(page).fill("python train.py")
    await page.get_by_role("link", name="Machines", exact=True).click()
    await expect(page.get_by_role("heading", name="Machines", level=1)).to_be_visible()
    await page.get_by_role("link", name="Submit", exact=True).click()
    await expect(command(page)).to_have_value("python train.py")
    asked: list[str] = []

    async def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        await dialog.dismiss()

    page.on("dialog", stay)
    async with page.expect_event("dialog"):
        await page.evaluate("location.assign('/graphql')")
    await expect(command(page)).to_have_value("python train.py")
    assert asked == ["beforeunload"]
    await page.get_by_role("button", name="Start over").click()
    await page.get_by_role("button", name="Throw it away").click()
    await expect(command(page)).to_have_value("")
    await expect(command(page)).to_be_focused()


async def test_another_one_like_it_takes_all_but_the_secrets(page: Page, service: Service) -> None:
    first = await service.submit(
        "python", "-c", "print('a b')", name="first", parameters={"lr": 0.1, "text": "42"}, tags=["a, b"],
        environment={"API_KEY": "a secret", "PLAIN": "x"}, limits={"maxRuntimeSeconds": 5400},
        metricsFrom="NONE", metricsPatterns=PATTERNS, tensorboard=DIRECTORIES, systemMetricsSeconds=0,
    )  # fmt: skip
    await page.goto(f"/submit?from={first}")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("first")
    await expect(page.get_by_text("Values of environment variables can't be read back")).to_be_visible()
    await submit(page).click()
    await expect(page.get_by_role("alert")).to_contain_text("API_KEY")
    await page.get_by_label("Value of variable API_KEY").fill("another")
    await page.get_by_role("button", name="Remove variable PLAIN").click()
    await submit(page).click()
    second = await arrived(page, service)
    before = (await service.execute(SHOW, id=first))["simulation"]
    assert second == {**before, "environment": {"API_KEY": None}}


async def test_large_doubles_are_repeated_as_they_are(page: Page, service: Service) -> None:
    given = {"a": 1e22, "b": 1e300, "c": [1e23, 1e-9], "d": {"x": 1e25}, "e": 1e20, "f": 1.5e21}
    first = await service.submit("true", parameters=given)
    await page.goto(f"/submit?from={first}")
    await expect(page.get_by_label("The command line", exact=True)).to_contain_text("--parameter a=1e+22")
    assert json.loads(await page.get_by_label("The variables").inner_text())["input"]["parameters"] == given
    await submit(page).click()
    assert (await arrived(page, service))["parameters"] == given
    await page.get_by_role("button", name="Run again").click()
    await page.get_by_role("textbox", name="a", exact=True).fill("1e30")
    here = page.url
    await page.get_by_role("button", name="Queue it again").click()
    await expect(page).not_to_have_url(here)
    assert (await arrived(page, service))["parameters"] == {**given, "a": 1e30}


async def test_the_demo_is_one_button(page: Page, service: Service) -> None:
    await page.goto("/submit")
    await page.get_by_role("button", name="Fill in the demo").click()
    await submit(page).click()
    assert (await arrived(page, service))["entrypoint"][:3] == ["python", "-m", "runner.demo"]


async def test_the_form_is_accessible_and_fits_a_narrow_screen(open_page: OpenPage, axe: Axe) -> None:
    for options in ({}, {"viewport": NARROW}):
        page = await open_page("/submit", **options)
        await command(page).fill(f"python {'long' * 40} 'two  words' | tee")
        await unfold(page)
        for button in ("Add a parameter", "Add a variable", "Add a label", "Add a metric"):
            await page.get_by_role("button", name=button).click()
        await page.get_by_label("Attended").check()
        await page.get_by_label("CPUs").fill("x")
        await submit(page).click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await axe(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
