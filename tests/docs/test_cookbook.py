"""Every example of the cookbook works as shown, in the order of the page."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from live import BRISK, ROOT, Service, eventually, http, kill, service_on
from pages import blocks
from session import Session

PAGE = ROOT / "docs" / "cookbook.md"
NOT_RUN = {
    "SIMULATIONS_MACHINE_NAME=vm SIMULATIONS_MACHINE_PRICE_PER_HOUR=3.60 make run": "what this test starts instead",
}
IN_TURNS = """
import json, os, sys, time
for turn in range(3):
    while turn and not os.path.exists(f"{sys.argv[1]}/turn{turn}"): time.sleep(0.01)
    for step in range(turn * 200, turn * 200 + 200):
        print(json.dumps({"step": step, "loss": 1.0, "accuracy": 0.5}), flush=True)
        time.sleep(0.01)
"""


@pytest.mark.timeout(600)
async def test_every_example_works_as_shown(database_url: str, tmp_path: Path) -> None:
    settings = {**BRISK, "SIMULATIONS_MACHINE_NAME": "vm", "SIMULATIONS_MACHINE_PRICE_PER_HOUR": "3.60"}
    with service_on(database_url, **settings) as service:
        await service.up()
        await Session(service, tmp_path, NOT_RUN).read(PAGE)


@pytest.mark.parametrize("language", ["python", "js"])
async def test_the_clients_of_the_page_resume_without_gaps(lend: Any, tmp_path: Path, language: str) -> None:
    [block] = [block for block in blocks(PAGE) if block.language == language]
    async with lend(**BRISK) as service:
        simulation = await service.submit("python", "-c", IN_TURNS, str(tmp_path))
        reader = Session(service, tmp_path, {})
        reader.likeness.given_out["U2ltdWxhdGlvbjox"] = simulation
        printed = asyncio.create_task(reader.program(block))
        for turn in (1, 2):
            await eventually(lambda: printed.done() or is_watched(service), "it is connected")
            kill(service.child("graph"))
            (tmp_path / f"turn{turn}").touch()  # goes on only now: it can't end before the second kill
            await service.whole()
        assert (await printed).startswith("FINISHED 600 points")


async def is_watched(service: Service) -> bool:
    async with http() as client:
        metrics = (await client.get(f"{service.address}/metrics")).text
    return re.search(r'simulations_subscribers\{kind="log"\} 1', metrics) is not None
