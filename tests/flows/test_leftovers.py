"""An outage of graph that ends with the supervisor's death: all that was printed is stored, without graph."""

from __future__ import annotations

from typing import Any

import pytest
from live import BRISK, eventually, held, kill
from observers import Witness

PRINTED_BEFORE = 5  # points, then the outage begins
OVER = "SELECT ended_at IS NOT NULL FROM attempts"
SETTINGS = {**BRISK, "SIMULATIONS_LEASE_SECONDS": "60", "SIMULATIONS_RETRY_BACKOFF_SECONDS": "60"}


@pytest.mark.parametrize("more", [1, 7, 60])
async def test_what_was_printed_during_an_outage_outlives_its_supervisor(lend: Any, more: int) -> None:
    async with lend(**SETTINGS) as service:
        witness = Witness.on(service)
        witness.permit("speak")
        simulation_id = await service.submit(*witness.command, limits={"maxRetries": 0})
        await witness.has_said(PRINTED_BEFORE)
        async with service.paused("graph"):
            await witness.has_said(more)
            [supervisor], [child] = service.recorded("supervisor"), service.recorded("child")
            with held(child):  # nothing more comes; it may be stopped between a point and the note that it was printed
                said = witness.said
                newest = f'"loss",{said - 1},'
                spools = service.data_directory / "attempts"
                await eventually(
                    lambda: any(newest in path.read_text() for path in spools.glob("*/*.jsonl")),
                    "the newest point is on disk",
                )
                kill(supervisor)
            await eventually(lambda: service.says(OVER), "its attempt is over")
            stored = await service.log_of(simulation_id, "loss")
        assert [step for _, step, _ in stored] == list(range(len(stored)))
        assert len(stored) in (said, said + 1)
