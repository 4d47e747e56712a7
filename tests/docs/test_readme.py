"""The README's examples run as shown, and the make targets it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from live import BRISK, ROOT, service_on
from pages import blocks
from session import Session, commands_in

PAGE = ROOT / "README.md"
NOT_RUN = {
    "make run": "the service that this test starts",
    "make test": "what runs this test",
    "make examples": "make test has installed them",
    "docker compose exec graph cat /var/lib/simulations-admin/token": "tests/containers",
}


@pytest.mark.timeout(600)
async def test_the_tour_works_as_shown(database_url: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    with service_on(database_url, cold=True, **BRISK, SIMULATIONS_MACHINE_NAME="vm") as service:
        await service.up()
        await Session(service, tmp_path, NOT_RUN).read(PAGE)


def test_excluded_commands_are_shown_and_make_targets_exist() -> None:
    consoles = [block for block in blocks(PAGE) if block.language == "console"]
    shown = [command for block in consoles for command, _ in commands_in(block.text)]
    assert set(NOT_RUN) <= set(shown)

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", PAGE.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.M), target
