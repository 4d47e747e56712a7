"""Dependencies and drains in real processes: what follows starts by itself, also after kill -9 of the scheduler."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from live import BRISK, Service, service_on

CREATE = """mutation ($input: CreateSimulationsInput!) {
  createSimulations(input: $input) { simulations { id } userErrors { message } }
}"""
CODE = "import json, sys; print(json.dumps({'step': 1, 'loss': 0.5})); sys.exit(%d)"


@pytest.fixture
def brisk(database_url: str) -> Iterator[Service]:
    with service_on(database_url, **BRISK) as service:
        yield service


def item(name: str, code: int, *after: tuple[int, str]) -> dict[str, object]:
    links = [{"index": index, "condition": condition} for index, condition in after]
    return {"name": name, "entrypoint": [sys.executable, "-c", CODE % code], "after": links}


async def test_a_pipeline_runs_in_its_order_and_ends_as_its_conditions_say(brisk: Service) -> None:
    await brisk.up()
    items = [
        item("report", 0, (1, "ANY"), (2, "ANY")),
        item("train", 3, (3, "SUCCESS")),
        item("publish", 0, (1, "SUCCESS")),
        item("prep", 0),
        item("cleanup", 0, (1, "FAILURE")),
    ]
    payload = (await brisk.execute(CREATE, input={"simulations": items}))["createSimulations"]
    assert payload["userErrors"] == []
    report, train, publish, prep, cleanup = [each["id"] for each in payload["simulations"]]
    brisk.child("scheduler").kill()
    ended = {each: await brisk.until(each, "FINISHED", "FAILED", "CANCELLED") for each in (report, cleanup)}
    assert {each: shown["state"] for each, shown in ended.items()} == {report: "FINISHED", cleanup: "FINISHED"}
    shown = {each: await brisk.show(each) for each in (prep, train, publish, report)}
    assert [shown[each]["state"] for each in (prep, train, publish)] == ["FINISHED", "FAILED", "CANCELLED"]
    assert shown[publish]["reason"] == "DEPENDENCY_FAILED"
    began = {
        row["id"]: (row["started_at"], row["finished_at"])
        for row in await brisk.fetch("SELECT name AS id, started_at, finished_at FROM simulations")
    }
    assert began["prep"][1] <= began["train"][0]
    assert began["train"][1] <= began["report"][0]
    assert began["publish"][0] is None
