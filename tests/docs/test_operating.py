"""What the page about operating names is told by a real service, and its rules can be read."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import yaml
from live import BRISK, ROOT, eventually, free_port, service_on
from pages import blocks

PAGE = ROOT / "docs" / "operating.md"
NAME = re.compile(r"\bsimulations_[a-z_]+\b")
SEQUENCE = re.compile(r"_id_seq$")


def named(page: Path) -> set[str]:
    return {name for name in NAME.findall(page.read_text(encoding="utf-8")) if not SEQUENCE.search(name)}


async def test_every_number_in_the_rules_is_told(database_url: str) -> None:
    port = free_port()
    with service_on(database_url, **BRISK, SIMULATIONS_SCHEDULER_METRICS_PORT=str(port)) as service:
        await service.up()
        simulation = await service.submit("python", "-m", "runner.demo", "--steps", "1")
        await service.finished(simulation)

        async def is_all_told() -> bool:
            async with httpx.AsyncClient() as client:
                told = [
                    (await client.get(address)).text
                    for address in (f"{service.address}/metrics", f"http://127.0.0.1:{port}/metrics")
                ]
            return named(PAGE) <= set(NAME.findall("\n".join(told)))

        assert named(PAGE)
        await eventually(is_all_told, f"all of {sorted(named(PAGE))}")


def test_the_rules_can_be_read() -> None:
    read = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]

    [[group]] = [each["groups"] for each in read if "groups" in each]
    assert all({"alert", "expr"} <= rule.keys() for rule in group["rules"])
