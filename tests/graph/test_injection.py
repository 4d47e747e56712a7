"""Injection: text of users and programs comes back as text, never as markup, a header, or a separate event."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

Api = Any  # the fixtures of conftest.py
World = Any

EVIL = "<script>alert(1)\u2028</script>\"'&"
READ = """
query ($id: ID!, $metric: String!) {
  simulation(id: $id) {
    name tags parameters entrypoint workingDirectory createdBy project { name }
    resources { gpuModel labels } machine { name labels }
    metrics { name } convergence(metric: $metric) { metric steps }
    logs { nodes { text } } events { kind actor detail } reasonDetail
  }
}
"""
CURVE = "subscription ($id: ID!) { convergence(simulationId: $id) { series { metric } } }"
LOG = "subscription ($id: ID!) { logs(simulationId: $id) { text } }"


def is_plain_json(response: httpx.Response) -> bool:
    return (
        response.headers["content-type"] in ("application/json; charset=utf-8", "application/json")
        and response.headers["x-content-type-options"] == "nosniff"
        and response.headers["content-security-policy"].startswith("default-src 'none'")
    )


async def test_html_in_every_name_comes_back_as_the_text_of_json(api: Api, world: World) -> None:
    """Of a simulation and all that belongs to it; and no answer is anything that a browser would draw."""
    machine = await world.machine(f"m {EVIL}", labels={EVIL: EVIL}, gpu_model=EVIL)
    given = {
        "name": EVIL, "project": f"p {EVIL}", "tags": [EVIL], "parameters": {EVIL: [EVIL]}, "entrypoint": [EVIL, EVIL],
        "workingDirectory": EVIL, "metrics": [{"name": EVIL, "mode": "MAX"}],
        "resources": {"gpuModel": EVIL, "labels": {EVIL: EVIL}},
    }  # fmt: skip
    supervisor = await world.attempt(await world.simulation(**given), machine)
    await supervisor.hello()
    await supervisor.send(
        {EVIL: {"steps": [1], "values": [1.0], "elapsed": [1.0]}}, logs=[{"stream": "STDOUT", "text": EVIL}]
    )
    await supervisor.exit(1)
    variables = {"id": supervisor.simulation_id, "metric": EVIL}
    response = await api.client.post("/graphql", json={"query": READ, "variables": variables})
    assert is_plain_json(response), response.headers
    body = response.json()
    assert "errors" not in body
    shown = body["data"]["simulation"]
    assert {key: shown[key] for key in ("name", "tags", "parameters", "entrypoint", "workingDirectory")} == {
        "name": EVIL, "tags": [EVIL], "parameters": {EVIL: [EVIL]}, "entrypoint": [EVIL, EVIL],
        "workingDirectory": EVIL,
    }  # fmt: skip
    assert shown["project"] == {"name": f"p {EVIL}"}
    assert shown["resources"] == {"gpuModel": EVIL, "labels": {EVIL: EVIL}}
    assert shown["machine"] == {"name": f"m {EVIL}", "labels": {EVIL: EVIL}}
    assert shown["metrics"] == [{"name": EVIL}]
    assert shown["convergence"] == {"metric": EVIL, "steps": [1]}
    assert [each["text"] for each in shown["logs"]["nodes"]] == [EVIL]
    for refused in (
        await api.client.post("/graphql", json={"query": EVIL}),
        await api.client.post("/graphql", json={"query": "{ viewer { name } }", "operationName": EVIL}),
        await api.client.get("/graphql", params={"query": "{ viewer { name } }", "variables": EVIL}),
        await api.client.post("/session", json={"token": EVIL}),
        await api.client.get("/graphql", params={"query": "{ x }"}, headers={"origin": "http://<script>"}),
    ):
        assert refused.status_code >= 400 or "errors" in refused.json()
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert "json" in refused.headers["content-type"]


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
async def test_what_looks_like_an_event_is_none(api: Api, world: World, line_end: str) -> None:
    """A metric and a log in which a server-sent event, an id or a header is written, in the past and live."""
    forged = line_end.join(("x", "", "event: complete", "id: end", "data:", "", "Set-Cookie: a=b", ""))
    supervisor = await world.running()
    columns = {forged: {"steps": [1], "values": [1.0], "elapsed": [1.0]}}
    await supervisor.send(columns, logs=[{"stream": "STDOUT", "text": forged}])
    await supervisor.exit()
    for query, found in (
        (CURVE, lambda data: [each["metric"] for each in data["convergence"]["series"]]),
        (LOG, lambda data: [data["logs"]["text"]]),
    ):
        response = await api.client.post(
            "/graphql",
            json={"query": query, "variables": {"id": supervisor.simulation_id}},
            headers={"accept": "text/event-stream"},
        )
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "set-cookie" not in response.headers
        blocks = [block.split("\n") for block in response.text.split("\n\n") if block]
        assert [line for block in blocks for line in block].count("event: complete") == 1
        assert blocks[-1][0] == "event: complete"
        data = [json.loads(line[6:]) for block in blocks for line in block if line.startswith("data: {")]
        assert [text for each in data for text in found(each["data"])] == [forged]
