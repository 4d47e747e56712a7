"""Every example of the cookbook works as it is shown, in the order of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import BRISK, ROOT, service_on
from session import Session

PAGE = ROOT / "docs" / "cookbook.md"
NOT_RUN = {
    "SIMULATIONS_MACHINE_NAME=vm SIMULATIONS_MACHINE_PRICE_PER_HOUR=3.60 make run": "what this test starts instead",
}


@pytest.mark.timeout(600)
async def test_every_example_works_as_it_is_shown(database_url: str, tmp_path: Path) -> None:
    settings = {**BRISK, "SIMULATIONS_MACHINE_NAME": "vm", "SIMULATIONS_MACHINE_PRICE_PER_HOUR": "3.60"}
    with service_on(database_url, **settings) as service:
        await service.up()
        await Session(service, tmp_path, NOT_RUN).read(PAGE)
