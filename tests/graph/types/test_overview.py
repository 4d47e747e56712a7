"""The overview: numbers of queued and running simulations, and their cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

World = Any  # the fixture of conftest.py

OVERVIEW = "{ overview { queued starting running cost { amount currency perHour } } }"


async def test_it_counts_what_is_not_over_and_adds_up_what_it_costs(world: World) -> None:
    empty = await world.api.data(OVERVIEW)
    nothing = {"amount": "0", "currency": "USD", "perHour": "0"}
    assert empty == {"queued": 0, "starting": 0, "running": 0, "cost": nothing}
    machine = await world.machine()
    for _ in range(2):
        await world.simulation()
    starting = await world.attempt(await world.simulation(), machine)
    running = await world.attempt(await world.simulation(), machine)
    await running.hello()
    await world.select("UPDATE members SET price_per_hour = 8, share = 0.25, assigned_at = now() - interval '1 hour'")
    seen = await world.api.data(OVERVIEW)
    assert (seen["queued"], seen["starting"], seen["running"]) == (2, 1, 1)
    assert Decimal(seen["cost"]["perHour"]) == 4
    assert round(Decimal(seen["cost"]["amount"]), 1) == 4
    await running.exit()
    await starting.hello()
    seen = await world.api.data(OVERVIEW)
    assert (seen["queued"], seen["starting"], seen["running"]) == (2, 0, 1)
    assert Decimal(seen["cost"]["perHour"]) == 2
