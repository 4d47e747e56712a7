"""W&B's API, without its client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.supervisor.sources.wandb import Wandb

UPSERT = "mutation UpsertBucket($id: String) { upsertBucket(input: {id: $id}) { bucket { id } inserted } }"


def create(wandb: Wandb, name: str, shown: str | None = None) -> Any:
    variables = {"name": name, "displayName": shown, "project": "p", "entity": None}
    body = json.dumps({"query": UPSERT, "variables": variables}).encode()
    return wandb.answer("/graphql", body)


def stream(wandb: Wandb, run: str, offset: int, *lines: object) -> Any:
    content = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    body = {"files": {"wandb-history.jsonl": {"offset": offset, "content": content}, "output.log": {}}}
    return wandb.answer(f"/files/e/p/{run}/file_stream", json.dumps(body).encode())


def test_a_run_is_created_and_its_history_becomes_points(taken: Any) -> None:
    wandb = Wandb(taken.intake)
    bucket = create(wandb, "abc")["data"]["upsertBucket"]["bucket"]
    assert (bucket["name"], bucket["displayName"], bucket["project"]["name"]) == ("abc", "abc", "p")
    lines = ({"loss": 1, "_step": 0, "_timestamp": 1.7e9}, '{"loss": NaN, "deep": {"er": Infinity}, "_step": 3}')
    assert stream(wandb, "abc", 0, *lines) == {"exitcode": None, "limits": {}}
    assert taken.points("loss") == [(0, 1.0), (3, "NaN")]
    assert taken.points("deep.er") == [(3, "Infinity")]
    assert taken.metrics == {"loss", "deep.er"}


def test_a_repeated_request_changes_nothing(taken: Any) -> None:
    wandb = Wandb(taken.intake)
    lines = [{"loss": step, "_step": step} for step in range(6)]
    stream(wandb, "abc", 0, *lines[:4])
    stream(wandb, "abc", 0, *lines[:4])
    stream(wandb, "abc", 2, *lines[2:])
    assert taken.points("loss") == [(step, float(step)) for step in range(6)]
    assert taken.counts == {}


def test_metrics_of_later_runs_are_prefixed_with_their_names(taken: Any) -> None:
    wandb = Wandb(taken.intake)
    for run, shown in (("a", "first"), ("b", "fold"), ("c", "fold")):
        create(wandb, run, shown)
        create(wandb, run, shown)  # the client repeats it
        stream(wandb, run, 0, {"loss": 1, "_step": 0})
    assert taken.metrics == {"loss", "fold/loss", "fold-c/loss"}


def test_what_is_no_number_is_no_point(taken: Any) -> None:
    values = {"image": {"_type": "image-file", "size": 3}, "text": "x", "flag": True, "none": None, "list": [1]}
    stream(Wandb(taken.intake), "a", 0, {**values, "huge": 10**400, "deep": {"text": "x", "n": 1}, "_step": 0})
    stream(Wandb(taken.intake), "a", 0, "no JSON", "[1]", {"no step": 1}, {"_step": True, "x": 1})
    assert taken.metrics == {"deep.n"}


@pytest.mark.parametrize("body", [{}, {"files": []}, {"files": {"wandb-history.jsonl": {"offset": "x"}}}, []])
def test_a_stream_without_history_is_answered(body: object, taken: Any) -> None:
    answer = Wandb(taken.intake).answer("/files/e/p/r/file_stream", json.dumps(body).encode())
    assert answer == {"exitcode": None, "limits": {}}


def test_other_questions_get_an_error_and_the_viewer_an_answer(taken: Any) -> None:
    wandb = Wandb(taken.intake)
    viewer: Any = wandb.answer("/graphql", b'{"query": "query Viewer { viewer { id } }"}')
    assert viewer["data"]["viewer"]["username"] == "simulations"
    other: Any = wandb.answer("/graphql", b'{"query": "query Other { serverInfo { x } }"}')
    assert (other["data"], len(other["errors"])) == (None, 1)
    assert wandb.answer("/other", b"{}") is None
