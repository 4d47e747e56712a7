"""Times of the points of many runs, in a real browser: they are asked for only when the x axis is by time."""

from __future__ import annotations

import json
import re
from typing import Any

from live import Service
from playwright.async_api import Page, expect
from swept import OBJECTIVE, fill_sweep

OpenPage = Any  # a fixture of conftest.py

RUNS = 4
# The x axis, and how many curves have points: in one look, so that both are of the same moment.
SHOWN = """
() => {
    const { x, xMin, xMax, held } = document.querySelector('[data-held]')?.dataset ?? {};
    return { x, from: Number(xMin), to: Number(xMax), curves: (held?.match(/"points":[1-9]/g) ?? []).length };
}
"""


async def shown(page: Page, x: str, beyond: float) -> None:
    """Wait until all curves are drawn along this x axis, beyond this x."""
    await page.wait_for_function(
        f"([x, beyond, runs]) => {{ const now = ({SHOWN})(); "
        "return now.x === x && now.to > beyond && now.curves === runs }",
        arg=[x, beyond, RUNS],
    )


async def test_times_are_asked_for_with_the_first_x_axis_that_needs_them(service: Service, open_page: OpenPage) -> None:
    sweep = await fill_sweep(service, RUNS, metrics=(OBJECTIVE,), points=200)
    page = await open_page(None)
    asked: list[dict[str, Any]] = []

    def sent(frame: str | bytes) -> None:
        if "curves(" in str(frame):
            asked.append(json.loads(frame)["payload"]["variables"])

    page.on("websocket", lambda socket: socket.on("framesent", sent))
    await page.goto(f"/compare?sweep={sweep}")
    await shown(page, "step", 100)
    assert [each["timed"] for each in asked] == [False]
    await expect(page.get_by_role("region", name="Side by side").get_by_role("rowheader")).to_have_count(RUNS)

    axis = page.get_by_label("X axis")
    await axis.select_option("elapsed")
    await shown(page, "elapsed", 10)
    assert [each["timed"] for each in asked] == [False, True]

    await axis.select_option("cost")
    await shown(page, "cost", 0)
    await axis.select_option("since")
    await shown(page, "since", 100)
    assert len(asked) == 2, "nothing is asked for twice"

    await page.goto(f"/compare?sweep={sweep}&x=wall")
    await shown(page, "wall", 1e9)
    assert [each["timed"] for each in asked] == [False, True, True]
    await expect(page.get_by_role("group", name=re.compile("simulations$"))).to_have_attribute("data-x", "wall")
