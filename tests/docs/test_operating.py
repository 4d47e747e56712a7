"""Metrics named in docs/operating.md exist in a real service, and its alert rules are valid YAML."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from live import BRISK, ROOT, eventually, free_port, http, service_on
from pages import blocks

PAGE = ROOT / "docs" / "operating.md"
NAME = re.compile(r"\bsimulations_[a-z_]+\b")
SEQUENCE = re.compile(r"_id_seq$")


def named(page: Path) -> set[str]:
    return {name for name in NAME.findall(page.read_text(encoding="utf-8")) if not SEQUENCE.search(name)}


async def test_every_metric_of_the_rules_is_exported(database_url: str) -> None:
    port = free_port()
    with service_on(database_url, **BRISK, SIMULATIONS_SCHEDULER_METRICS_PORT=str(port)) as service:
        await service.up()
        simulation = await service.submit("python", "-m", "runner.demo", "--steps", "1")
        await service.finished(simulation)

        async def are_all_exported() -> bool:
            async with http() as client:
                exported = [
                    (await client.get(address)).text
                    for address in (f"{service.address}/metrics", f"http://127.0.0.1:{port}/metrics")
                ]
            return named(PAGE) <= set(NAME.findall("\n".join(exported)))

        assert named(PAGE)
        await eventually(are_all_exported, f"all of {sorted(named(PAGE))}")


def test_the_rules_are_valid_yaml() -> None:
    read = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]

    [[group]] = [each["groups"] for each in read if "groups" in each]
    assert all({"alert", "expr"} <= rule.keys() for rule in group["rules"])
