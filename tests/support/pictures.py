"""`make pictures`: the screenshots in docs/, of a service on which simulations really run.

    python tests/support/pictures.py [FOLDER]
    python tests/support/pictures.py --all FOLDER

A service on data and a database of its own gets two declared machines and programs that print curves; each page is
photographed when it shows what it is there for. Only the past is made up: for the page of costs, the attempts are made
to have begun hours ago, and on several days; the sweep of a hundred trials is rows (swept.py). Ends with an error if a
page reports one, or if a picture is larger than a page should load (`MOST_BYTES`).

`--all` photographs every page for a person to look at: in both themes, at 1440 and at 390 pixels, with a hundred runs
of twelve metrics with long names beside those that run. It is whole pages, up to `TALLEST`, and belongs to no folder
of the repository.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ended import fill
from live import ROOT, Service, eventually, service_on
from playwright.async_api import Page, async_playwright, expect
from swept import fill_sweep

from db.public_ids import encode

MOST_BYTES = 200_000
SIZE = {"width": 1280, "height": 800}
PATIENCE_MILLISECONDS = 60_000
SIZES = {"narrow": (390, 844), "wide": (1440, 900)}
TALLEST = 2_600  # pixels of a picture of a whole page
SETTINGS = {"SIMULATIONS_LOCAL_MACHINE": "false", "SIMULATIONS_TICK_SECONDS": "0.3"}

# python train.py FLOOR SPEED SEEN [nan]: a noisy curve that falls to FLOOR; SEEN steps come fast, the others slowly.
TRAIN = """
import json, math, random, sys, time
floor, speed, seen = map(float, sys.argv[1:4])
noise = random.Random(1)
for step in range(0, 1_000_000, 50):
    loss = floor + 2 * math.exp(-step / speed)
    if "nan" in sys.argv and step >= seen:
        loss = math.nan
    spread = 0.04 * loss + 0.004
    point = {"step": step, "val/loss": loss + noise.gauss(0, spread), "train/loss": 0.9 * loss + noise.gauss(0, spread)}
    print(json.dumps(point), flush=True)
    time.sleep(0.04 if step < seen else 2)
"""
MACHINE = "mutation M($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }"
BUDGET = "mutation B($input: CreateBudgetInput!) { createBudget(input: $input) { userErrors { message } } }"
TARGET = "mutation T($input: CreateAlertTargetInput!) { createAlertTarget(input: $input) { userErrors { message } } }"
TO = {"name": "vision-on-call-and-all-others", "transport": "WEBHOOK", "url": "https://hooks.example.org/x"}
TOKEN = "mutation T($input: CreateTokenInput!) { createToken(input: $input) { userErrors { message } } }"
PROJECTS = "{ projects(first: 100) { nodes { id name } } }"
ENDED = ("FINISHED", "FAILED")
CURVES = """() => (document.querySelector('[data-held]')?.dataset.held.match(/"points":[1-9]/g) ?? []).length"""

# Hours and days instead of seconds, each run at a time of its own.
LONGER = """
UPDATE members AS m SET assigned_at = m.assigned_at - (a.simulation_id % 5 + 2) * interval '3 h 20 min'
FROM attempts AS a WHERE a.id = m.attempt_id;
UPDATE attempts AS a SET assigned_at = (SELECT min(m.assigned_at) FROM members AS m WHERE m.attempt_id = a.id)
"""


@dataclass(frozen=True)
class Photographer:
    """Takes pictures of the pages of one service."""

    page: Page
    folder: Path

    async def take(self, name: str, height: int = SIZE["height"]) -> None:
        """Photograph the page that is open, from its top."""
        await self.page.screenshot(
            path=self.folder / name, clip={"x": 0, "y": 0, "width": SIZE["width"], "height": height}
        )
        size = (self.folder / name).stat().st_size
        if size > MOST_BYTES:
            raise SystemExit(f"{name} has {size:,} bytes: at most {MOST_BYTES:,} are to be loaded with a page of docs.")
        sys.stderr.write(f"{name}: {size:,} bytes\n")


async def main(folder: Path, *, everything: bool = False) -> None:
    """Take the pictures of the documents, or those of every page."""
    with service_on(None, **SETTINGS) as service:
        await service.up()
        runs = await submitted(service)
        async with async_playwright() as playwright:
            names = ("chromium", "google-chrome", "chromium-headless-shell")
            chromium = next(filter(None, map(shutil.which, names)), None)
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = await browser.new_page(
                base_url=service.address, viewport=SIZE, locale="en-US", reduced_motion="reduce"
            )
            expect.set_options(timeout=PATIENCE_MILLISECONDS)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            if everything:
                await photograph_everything(service, runs, page, folder)
            else:
                await photograph(service, runs, Photographer(page, folder))
            await browser.close()
        if errors:
            raise SystemExit("\n".join(errors))


async def submitted(service: Service) -> dict[str, str]:
    """Machines, and what runs, waits and has ended on them; the ids by name."""
    code = service.data_directory / "vision"
    code.mkdir(mode=0o755)
    (code / "train.py").write_text(TRAIN)
    for given in (
        {"name": "h100-1", "cpus": 64, "memoryGib": 1024, "gpus": 8, "gpuModel": "H100", "pricePerHour": "24.48"},
        {"name": "a100-1", "cpus": 32, "memoryGib": 512, "gpus": 4, "gpuModel": "A100", "pricePerHour": "7.2"},
    ):
        made = await service.execute(MACHINE, input=given)
        assert made["createMachine"]["userErrors"] == []
    runs: dict[str, str] = {}

    async def run(name: str, floor: float, speed: int, seen: int, *words: str, gpus: int = 2, **given: Any) -> str:
        runs[name] = await service.submit(
            "python", "train.py", str(floor), str(speed), str(seen), *words, name=name,
            workingDirectory=str(code), objective={"metric": "val/loss"},
            **{"project": "vision", "resources": {"cpus": 4, "memoryGib": 32, "gpus": gpus}, **given},
        )  # fmt: skip
        return runs[name]

    plateau = await run(
        "resnet-50, lr 0.1", 0.2, 2500, 100_000, gpus=8, tags=["night"],
        limits={"maxSteps": 30_000, "maxCost": "100"}, stopping=[{}, {"patience": 12, "dryRun": True}],
    )  # fmt: skip
    broken = await run("resnet-50, lr 30", 0.9, 2500, 3_000, "nan", tags=["night"], stopping=[{}])
    for each in (plateau, broken):
        await service.until(each, *ENDED)
    whole = {"cpus": 16, "memoryGib": 256, "gpus": 8, "gpuModel": "H100"}
    await run("vit-small", 0.31, 4000, 9_000, limits={"maxSteps": 20_000, "maxRuntimeSeconds": 14_400}, gpus=4,
              stopping=[{"stoppingThreshold": 0.3}], alerts=[])  # fmt: skip
    await run("unet-3d", 0.6, 6000, 5_000, limits={"maxSteps": 30_000}, gpus=4, preemptible=True, project="medical")
    await run("detr", 0.4, 3000, 4_000, limits={"maxRuntimeSeconds": 7_200}, gpus=4, project="medical")
    for name in ("vit-small", "unet-3d", "detr"):
        await service.until(runs[name], "RUNNING")
    await run("llm-1b", 1.9, 3000, 9_000, limits={"maxRuntimeSeconds": 21_600}, resources=whole, project="language")
    await run("llm-1b, evaluation", 1.9, 3000, 9_000, after=[{"simulation": runs["llm-1b"]}], project="language")
    await run("whisper-xl", 1.1, 3000, 9_000, resources={**whole, "gpus": 16}, project="language")
    return runs


async def photograph(service: Service, runs: dict[str, str], photographer: Photographer) -> None:
    page = photographer.page
    await page.goto(f"/simulations/{runs['vit-small']}")
    chart = page.get_by_role("group", name=re.compile("Convergence of"))
    await expect(chart).to_have_attribute("data-ahead", "20000")
    await expect(chart).to_have_attribute("data-held", re.compile(r'"points":(1[89]|[2-9]\d)\d,'))
    await photographer.take("simulation.png")

    await page.goto(f"/simulations/{runs['resnet-50, lr 0.1']}")
    await expect(page.get_by_test_id("evidence")).to_contain_text("saved")
    await expect(page.get_by_test_id("mark")).to_have_count(2)
    await expect(chart).to_have_attribute("data-ahead", "30000")
    await photographer.take("stopped.png")

    await page.goto("/plan")
    await expect(page.get_by_role("link", name=re.compile("^llm-1b: reserved"))).to_be_visible()
    await photographer.take("plan.png", 300)

    await page.goto("/")
    await expect(page.get_by_text("whisper-xl")).to_be_visible()
    await photographer.take("now.png")

    await service.alter(LONGER)
    found = (await service.execute(PROJECTS))["projects"]["nodes"]
    ids = {each["name"]: each["id"] for each in found}
    for project, amount in ((ids["vision"], "500"), (ids["medical"], "300"), (None, "1500")):
        made = await service.execute(BUDGET, input={"project": project, "amount": amount})
        assert made["createBudget"]["userErrors"] == []
    await page.goto("/costs?by=name")
    await expect(page.get_by_role("meter")).to_have_count(3)
    await photographer.take("costs.png")
    await photograph_sweep(service, photographer)


async def photograph_sweep(service: Service, photographer: Photographer) -> None:
    """A sweep of a hundred trials on its page, and one with several seeds compared."""
    page = photographer.page
    sweep, seeded = await fill_sweep(service, 100), await fill_sweep(service, 12, seeds=3)

    async def drawn(count: int) -> bool:
        return bool(await page.evaluate(CURVES) == count)

    await page.goto(f"/compare?sweep={seeded}&group=seeds")
    await eventually(partial(drawn, 12), "all groups are drawn")
    await photographer.take("compare.png")
    await page.goto(f"/sweeps/{sweep}?clip=1")
    await expect(page.get_by_role("list", name="Importance").get_by_role("listitem")).to_have_count(4)
    await eventually(partial(drawn, 100), "all curves are drawn")
    await photographer.take("sweep.png")


async def photograph_everything(service: Service, runs: dict[str, str], page: Page, folder: Path) -> None:
    """Each page in each theme and width, after it has come to rest."""
    folder.mkdir(parents=True, exist_ok=True)
    await service.alter(LONGER)
    for project, amount in ((None, "1500"), ("vision", "500")):
        found = (await service.execute(PROJECTS))["projects"]["nodes"]
        ids = {each["name"]: each["id"] for each in found}
        await service.execute(BUDGET, input={"project": ids.get(project or ""), "amount": amount})
    await fill(service, 100)
    sweep, seeded = await fill_sweep(service, 100), await fill_sweep(service, 12, seeds=3)
    await service.execute(TARGET, input=TO)
    for name, role in (("ada, who trains very large models on very large machines", "OPERATOR"), ("ci", "VIEWER")):
        await service.execute(TOKEN, input={"name": name, "role": role})
    [[ended]] = await service.fetch("SELECT max(id) FROM simulations WHERE name LIKE '%number-00001'")
    addresses = {
        "now": "/", "list": "/?tag=lr-sweep", "simulation": f"/simulations/{runs['vit-small']}",
        "stopped": f"/simulations/{runs['resnet-50, lr 0.1']}", "twelve": f"/simulations/{encode('Simulation', ended)}",
        "waiting": f"/simulations/{runs['whisper-xl']}", "compare": f"/compare?sweep={sweep}",
        "compare-seeds": f"/compare?sweep={seeded}&group=seeds", "compare-none": "/compare", "sweeps": "/sweeps",
        "sweep": f"/sweeps/{sweep}", "costs": "/costs", "costs-day": "/costs?by=user&every=day", "plan": "/plan",
        "projects": "/projects", "tokens": "/tokens", "machines": "/machines", "alerts": "/alerts", "submit": "/submit",
        "missing": "/nothing-here",
    }  # fmt: skip
    opened = {"sweeps": "New sweep", "machines": "Add a machine", "tokens": "Create a token", "costs": "Add a budget",
              "alerts": "Add an alert target", "twelve": "Retry"}  # fmt: skip
    for theme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            await page.set_viewport_size({"width": width, "height": height})
            await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            for name, address in addresses.items():
                await page.goto(address)
                await page.wait_for_load_state("networkidle")
                await expect(page.get_by_text("Loading …")).to_have_count(0)
                await page.wait_for_timeout(700)  # charts are drawn when their points have come
                await page.screenshot(path=folder / f"{name}-{size}-{theme}.png")
                tall = await page.evaluate("document.documentElement.scrollHeight")
                if tall > height and theme == "light":
                    await page.screenshot(
                        path=folder / f"{name}-{size}-whole.png", full_page=True,
                        clip={"x": 0, "y": 0, "width": width, "height": min(tall, TALLEST)},
                    )  # fmt: skip
                across = await page.evaluate("document.documentElement.scrollWidth")
                if across > width:
                    sys.stderr.write(f"{name} is {across} pixels wide at {width}\n")
                button = page.get_by_role("button", name=opened.get(name, ""), exact=True)
                if name in opened and await button.count():
                    await button.first.click()
                    await page.screenshot(path=folder / f"{name}-form-{size}-{theme}.png")
            assert page.context.browser is not None
            signed_out = await page.context.browser.new_page(base_url=service.address, locale="en-US")
            await signed_out.set_viewport_size({"width": width, "height": height})
            await signed_out.emulate_media(color_scheme=theme)
            await signed_out.route_web_socket("**/graphql", lambda socket: socket.close(code=4403, reason="Forbidden"))
            await signed_out.goto("/")
            await expect(signed_out.get_by_role("heading", name="Sign in")).to_be_visible()
            await signed_out.screenshot(path=folder / f"sign-in-{size}-{theme}.png")
            await signed_out.close()


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--all"]
    asyncio.run(main(Path(words[0]) if words else ROOT / "docs", everything="--all" in sys.argv))
