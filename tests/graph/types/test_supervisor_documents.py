"""The short way of supervisors' documents: each answer is that of the long way, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import strawberry
from structlog.testing import capture_logs

from db.errors import DatabaseUnreachable
from graph.types.supervisor_documents import HELLO, REPORT
from runner.supervisor import service

World = Any  # the fixtures of conftest.py
Supervisor = Any
Answer = tuple[int, str, bytes]
LONG = " "  # behind a text that is not the supervisor's, then; places in the text stay


class Count:
    """How many operations Strawberry has executed."""

    def __init__(self) -> None:
        self.executed = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    count, execute = Count(), strawberry.Schema.execute

    async def counted(*given: Any, **named: Any) -> Any:
        count.executed += 1
        return await execute(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(strawberry.Schema, "execute", counted)
        yield count


async def ask(supervisor: Supervisor, text: str, given: dict[str, Any] | None, **more: Any) -> Answer:
    """Return status, content type and body, in which both twins have the same ids."""
    token = more.pop("token", supervisor.token)
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    whole = {"attemptId": supervisor.attempt_id, "nonce": "a nonce", **given} if given is not None else None
    variables = more.pop("variables", {"input": whole})
    client: httpx.AsyncClient = supervisor.api.client
    response = await client.post("/graphql", json={"query": text, "variables": variables, **more}, headers=headers)
    content = response.content
    for own, name in ((supervisor.attempt_id, b"ATTEMPT"), (supervisor.simulation_id, b"SIMULATION")):
        content = content.replace(own.encode(), name)
    return response.status_code, response.headers["content-type"], content


class Twins:
    """Two attempts in the same state: one is spoken for by the short way, the other by the long one."""

    def __init__(self, short: Supervisor, long: Supervisor) -> None:
        self.short = short
        self.long = long

    async def answer(self, text: str, given: dict[str, Any] | None = None, **more: Any) -> bytes:
        """Return the answer that both get."""
        short = await ask(self.short, text, given, **more)
        assert short == await ask(self.long, text + LONG, given, **more)
        return short[2]


@pytest.fixture
async def twins(world: World) -> Twins:
    """Twins before their hellos, of simulations that have all that an order may hold; both texts are known."""
    asked = {
        "name": "twin",
        "entrypoint": ["python", "ü \u2028"],
        "environment": {"LEVEL": "debug"},
        "workingDirectory": "/data",
        "parameters": {"rate": 0.1, "deep": {"a": [1, None]}},
        "limits": {"maxRuntimeSeconds": 60, "maxCost": "3.5"},
        "tensorboard": ["logs"],
        "metricsPatterns": ["loss (?P<loss>[0-9]+)"],
    }
    made = [await world.attempt(await world.simulation(**asked)) for _ in range(2)]
    known = await world.attempt(await world.simulation())
    for text in (HELLO, REPORT):
        assert b'"errors"' not in (await ask(known, text, {}))[2]
    return Twins(*made)


def test_the_texts_are_those_that_supervisors_send() -> None:
    assert (HELLO, REPORT) == (service.HELLO, service.REPORT)


async def test_hellos_and_reports_are_not_executed_by_strawberry(
    world: World, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(monkeypatch) as count:
        assert b'"CONTINUE"' in (await ask(twins.short, HELLO, {}))[2]
        assert b'"expectedBatch":2' in (await ask(twins.short, REPORT, {"batch": 1, "exit": {"exitCode": 0}}))[2]
        assert count.executed == 0
        assert b'"CONTINUE"' in (await ask(twins.long, HELLO + LONG, {}))[2]
        assert count.executed == 1
    assert (await world.show(twins.short.simulation_id))["state"] == "FINISHED"


async def test_hellos_have_the_same_answers(twins: Twins) -> None:
    first = await twins.answer(HELLO, {})
    assert json.loads(first)["data"]["helloAttempt"]["order"]["maxRuntimeSeconds"] == 60.0
    assert await twins.answer(HELLO, {}) != b""  # repeated
    assert b'"OVER"' in await twins.answer(HELLO, {"nonce": "another"})
    await twins.answer(HELLO, {"address": "10.0.0.1", "port": 1})


async def test_reports_have_the_same_answers(world: World, twins: Twins) -> None:
    await twins.answer(HELLO, {})
    points = {"loss": {"steps": [1, 2], "values": [0.5, "NaN"], "elapsed": [0.0, 1]}}
    logs = [{"stream": "STDOUT", "text": "a\nb"}, {"stream": "STDERR", "text": "\0 ü"}]
    facts = {
        "notices": [{"kind": "NOT_RISING", "count": 2, "example": "x", "advice": "y"}, {"kind": "MORE", "count": 1}],
        "parameters": {"lr": 1, "on": True},
        "tags": ["a", "b"],
        "source": {"commit": "c", "dirty": False, "packages": {"x": "1"}},
        "checkpointAt": "2026-01-01T00:00:00Z",
    }
    nothing: dict[str, Any] = {"batch": None, "points": None, "logs": None, "exit": None, "facts": None}
    await twins.answer(REPORT, {})  # a heartbeat
    await twins.answer(REPORT, nothing)
    await twins.answer(REPORT, {"batch": 1, "points": points})
    await twins.answer(REPORT, {"batch": 1, "points": points})  # repeated
    await twins.answer(REPORT, {"batch": 9, "points": points})  # one that is not expected
    await twins.answer(REPORT, {"batch": 2, "points": points, "logs": logs, "facts": facts})
    await twins.answer(REPORT, {"batch": 3, "logs": {"stream": "STDOUT", "text": "one for a list"}, "facts": {}})
    refused = await twins.answer(REPORT, {"batch": 4, "points": {"loss": {"steps": [2, 1]}}})
    assert b"BATCH_REFUSED" in refused
    for twin in (twins.short, twins.long):
        amend = (
            "mutation ($id: ID!) { updateSimulation(input: { id: $id, limits: { maxRuntimeSeconds: 90 } }) "
            "{ userErrors { message } } }"
        )
        assert (await world.api.data(amend, {"id": twin.simulation_id}))["userErrors"] == []
    assert b'"maxRuntimeSeconds":90.0' in await twins.answer(REPORT, {})
    for twin in (twins.short, twins.long):
        await world.cancel(twin.simulation_id)
    assert b'"stopReason":"CANCELLED"' in await twins.answer(REPORT, {})
    await twins.answer(REPORT, {"nonce": "another"})
    await twins.answer(REPORT, {"batch": 4, "exit": {"exitCode": None, "signal": 15, "reason": "CANCELLED"}})
    assert b'"OVER"' in await twins.answer(REPORT, {})
    left = await stored(world, twins.short)
    assert len(left) == 9
    assert left == await stored(world, twins.long)


async def stored(world: World, supervisor: Supervisor) -> list[Any]:
    """What the reports of an attempt have left."""
    rows = await world.select("SELECT reason, exit_code, signal FROM attempts WHERE id = :id", id=supervisor.number)
    of = "JOIN attempts AS a ON a.simulation_id = x.simulation_id WHERE a.id = :id ORDER BY 1, 2, 3"
    for what in (
        "x.batch, x.metric, x.steps, x.values::text FROM convergence",
        "x.batch, x.position, x.text FROM log_chunks",
        "x.kind, x.count, x.example FROM notices",
        "x.attempt, x.source::text, 1 FROM attempt_sources",
    ):
        rows += await world.select(f"SELECT {what} AS x {of}", id=supervisor.number)
    return list(rows)


MISTAKES: dict[str, dict[str, Any]] = {
    "another token": {"token": "another"},
    "no token": {"token": None},
    "an attempt that does not exist": {"given": {"attemptId": "QXR0ZW1wdDo5OTk5OTk="}},
    "an id of another type": {"given": {"attemptId": "U2ltdWxhdGlvbjox"}},
    "a malformed id": {"given": {"attemptId": "x"}},
    "an id that is a number": {"given": {"attemptId": 7}},
    "an id that is null": {"given": {"attemptId": None}},
    "an id that is an object": {"given": {"attemptId": {}}},
    "an empty nonce": {"given": {"nonce": ""}},
    "a long nonce": {"given": {"nonce": "x" * 100_000}},
    "a nonce with NUL": {"given": {"nonce": "\0"}},
    "a nonce that is a number": {"given": {"nonce": 1}},
    "an unknown field": {"given": {"nonces": 1}},
    "a hundred unknown fields": {"given": {f"field{number}": 1 for number in range(100)}},
    "no variables": {"variables": None},
    "no input": {"variables": {}},
    "an input that is null": {"variables": {"input": None}},
    "an input that is a list": {"variables": {"input": [1]}},
    "an input that is text": {"variables": {"input": "x"}},
    "an empty input": {"variables": {"input": {}}},
    "another operation's name": {"operationName": "Another"},
    "a batch that is a float": {"given": {"batch": 1.5}},
    "a batch of 2^31": {"given": {"batch": 2**31}},
    "a batch that is text": {"given": {"batch": "1"}},
    "a batch of 0": {"given": {"batch": 0}},
    "an address that is none": {"given": {"address": "here"}},
    "a port of 0": {"given": {"port": 0}},
    "a port that is text": {"given": {"port": "x"}},
    "logs of an unknown stream": {"given": {"batch": 1, "logs": [{"stream": "STDIN", "text": ""}]}},
    "logs without a text": {"given": {"batch": 1, "logs": [{"stream": "STDOUT"}]}},
    "more logs than values are read": {"given": {"batch": 1, "logs": [{"stream": "STDOUT", "text": ""}] * 10_000}},
    "an exit that is a number": {"given": {"batch": 1, "exit": 1}},
    "an exit without a number": {"given": {"exit": {"exitCode": 0}}},
    "an exit code of 2^40": {"given": {"batch": 1, "exit": {"exitCode": 2**40}}},
    "a notice's count of -1": {"given": {"batch": 1, "facts": {"notices": [{"kind": "X", "count": -1}]}}},
    "a time that is none": {"given": {"batch": 1, "facts": {"checkpointAt": "yesterday"}}},
    "points that are text": {"given": {"batch": 1, "points": "x"}},
}


@pytest.mark.parametrize("text", [HELLO, REPORT], ids=["hello", "report"])
async def test_mistakes_have_the_same_answers(twins: Twins, text: str, subtests: pytest.Subtests) -> None:
    if text is REPORT:
        await twins.answer(HELLO, {})
    for case, mistake in MISTAKES.items():
        with subtests.test(case):
            more = {name: value for name, value in mistake.items() if name != "given"}
            assert b"rror" in await twins.answer(text, mistake.get("given", {}), **more)


async def test_an_operation_that_is_named_has_the_same_answer(twins: Twins) -> None:
    assert b'"CONTINUE"' in await twins.answer(HELLO, {}, operationName="Hello")


async def test_tokens_of_the_api_are_refused_alike(twins: Twins, world: World) -> None:
    made = await world.api.data(
        'mutation { createToken(input: { name: "ada", role: ADMIN }) { secret userErrors { message } } }'
    )
    assert b"FORBIDDEN" in await twins.answer(REPORT, {}, token=made["secret"])


async def test_a_link_can_t_report(twins: Twins) -> None:
    client: httpx.AsyncClient = twins.short.api.client
    answers = [await client.get("/graphql", params={"query": text}) for text in (REPORT, REPORT + LONG)]
    assert [each.status_code for each in answers] == [405, 405]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [(RuntimeError("a defect"), 200, b"Something went wrong"), (DatabaseUnreachable("away"), 503, b"UNAVAILABLE")],
    ids=["defect", "outage"],
)
async def test_failures_have_the_same_answers_and_logs(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int, said: bytes
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise failure

    await twins.answer(HELLO, {})
    monkeypatch.setattr("graph.types.supervision.ingest", fail)
    with capture_logs() as logs:
        short = await ask(twins.short, REPORT, {})
        entries = [{**each, "exc_info": None} for each in logs]
        logs.clear()
        assert short == await ask(twins.long, REPORT + LONG, {})
    assert (short[0], said in short[2]) == (status, True)
    assert entries == [{**each, "exc_info": None} for each in logs]
