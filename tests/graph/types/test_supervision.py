"""Supervisors' mutations: hellos and reports that are repeated, out of order, cut, forged or malformed."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from structlog.testing import capture_logs

from db.public_ids import encode

World = Any  # the fixtures of conftest.py
Serve = Any


def column(steps: list[Any], values: list[Any] | None = None, elapsed: list[Any] | None = None) -> dict[str, Any]:
    return {
        "steps": steps,
        "values": values if values is not None else [0.5] * len(steps),
        "elapsed": elapsed if elapsed is not None else [0.0] * len(steps),
    }


async def stored(world: World) -> list[Any]:
    """Every batch: (attempt, batch, metric, steps)."""
    return list(
        await world.select("SELECT attempt, batch, metric, steps FROM convergence ORDER BY attempt, batch, metric")
    )


# --- hello -----------------------------------------------------------------------------------------------------


async def test_hello_is_answered_with_the_work_order_and_begins_the_attempt(world: World) -> None:
    simulation = await world.simulation(
        name="a name", entrypoint=["python", "-c", "pass"], environment={"LEVEL": "debug"}, workingDirectory="/data",
        parameters={"learningRate": 0.1, "note": "x", "on": True, "deep": {"a": 1}, "bad-name": 1},
        limits={"maxRuntimeSeconds": 60}, project="vision", tensorboard=["logs", "/shared"],
    )  # fmt: skip
    supervisor = await world.attempt(simulation)
    payload = await supervisor.hello()
    assert payload["attempt"] == {"id": supervisor.attempt_id}
    assert (payload["verdict"], payload["userErrors"]) == ("CONTINUE", [])
    order = payload["order"]
    assert order.pop("environment") == {
        "LEVEL": "debug",
        "SIMULATION_ID": simulation,
        "SIMULATION_NAME": "a name",
        "SIMULATION_PROJECT": "vision",
        "SIMULATION_ATTEMPT": "1",
        "SIMULATION_PARAMETERS": '{"on":true,"deep":{"a":1},"note":"x","bad-name":1,"learningRate":0.1}',
        "SIMULATION_PARAMETER_LEARNINGRATE": "0.1",
        "SIMULATION_PARAMETER_NOTE": "x",
        "SIMULATION_PARAMETER_ON": "true",
    }
    assert order == {
        "entrypoint": ["python", "-c", "pass"],
        "workingDirectory": "/data",
        "maxRuntimeSeconds": 60.0,
        "stopGraceSeconds": world.api.settings.stop_grace_seconds,
        "heartbeatSeconds": world.api.settings.heartbeat_seconds,
        "gpuIndices": [],
        "tensorboard": ["logs", "/shared"],
        "systemMetricsSeconds": 10.0,
    }
    assert (await world.show(simulation))["state"] == "RUNNING"


async def test_recorded_parameters_and_tags_are_shown_beside_those_given(world: World) -> None:
    simulation = await world.simulation(parameters={"lr": 0.1}, tags=["mine"], limits={"maxRetries": 1})
    supervisor = await world.attempt(simulation)
    await supervisor.hello()
    facts = {"parameters": {"lr": 5, "depth": 3, "net": "small"}, "tags": ["team=vision", "mine"]}
    for _ in range(2):  # repeated, because its answer was lost
        await supervisor.report(batch=1, facts=facts)
    await supervisor.report(batch=2, facts={"parameters": {"depth": 4}})
    query = "query ($id: ID!) { simulation(id: $id) { parameters tags } }"
    shown = await world.api.data(query, {"id": simulation})
    assert shown == {"parameters": {"lr": 0.1, "depth": 4, "net": "small"}, "tags": ["mine", "team=vision"]}
    order = (await supervisor.hello())["order"]
    assert order["environment"]["SIMULATION_PARAMETERS"] == '{"lr":0.1}', "the program gets those given alone"


async def test_system_metrics_are_a_group_of_their_own(world: World) -> None:
    simulation = await world.simulation(systemMetricsSeconds=2.5)
    supervisor = await world.attempt(simulation)
    assert (await supervisor.hello())["order"]["systemMetricsSeconds"] == 2.5
    await supervisor.report(batch=1, points={"system/cpu": column([1_795_000_000])})
    query = """query ($id: ID!) { simulation(id: $id) {
        objective { metric } systemMetricsSeconds metrics { name } system: metrics(system: true) { name lastStep }
        convergence(metric: "system/cpu") { steps }
    } }"""
    shown = await world.api.data(query, {"id": simulation})
    assert shown == {
        "objective": None,
        "systemMetricsSeconds": 2.5,
        "metrics": [],
        "system": [{"name": "system/cpu", "lastStep": 1_795_000_000}],
        "convergence": {"steps": [1_795_000_000]},
    }
    points = {f"m{number}": column([1]) for number in range(1_000)}
    answer = await supervisor.report(batch=2, points={**points, "system/cpu": column([1_795_000_010])})
    assert answer["userErrors"] == [], "they take no place of the others"
    found = await world.api.data("query ($id: ID!) { simulation(id: $id) { metrics { name } } }", {"id": simulation})
    assert {each["name"] for each in found["metrics"]} == set(points)
    await supervisor.report(batch=3, exit={"exitCode": 0})
    follow = (
        "subscription ($id: ID!, $only: [String!]) "
        "{ convergence(simulationId: $id, metrics: $only) { series { metric } } }"
    )
    seen: dict[str, set[str]] = {}
    for which, only in (("all", None), ("asked", ["system/cpu"])):
        async with world.api.subscribe(follow, {"id": simulation, "only": only}) as events:
            seen[which] = {each["metric"] async for event in events for each in event["convergence"]["series"]}
    assert seen == {"all": set(points), "asked": {"system/cpu"}}


async def test_the_source_of_an_attempt_is_shown(world: World) -> None:
    supervisor = await world.running()
    source = {
        "commit": "c" * 40, "dirty": True, "remote": "https://example.org/a\u202e",
        "command": ["python", 3, "train.py"],
        "host": "h\0" + "x" * 2_000, "python": 3, "packages": {"numpy": "2.0", "odd": None}, "later": {"a": 1},
    }  # fmt: skip
    for _ in range(2):  # repeated, because its answer was lost
        answer = await supervisor.report(batch=1, facts={"source": source})
    assert answer["expectedBatch"] == 2
    query = "query ($id: ID!) { simulation(id: $id) { source { commit dirty remote command host python packages } } }"
    shown = (await world.api.data(query, {"id": supervisor.simulation_id}))["source"]
    assert shown.pop("host") == "h\ufffd" + "x" * 498
    assert shown == {
        "commit": "c" * 40, "dirty": True, "remote": "https://example.org/a ", "command": ["python", "train.py"],
        "python": None, "packages": {"numpy": "2.0"},
    }  # fmt: skip
    other = await world.simulation()
    assert (await world.api.data(query, {"id": other}))["source"] is None


@pytest.mark.parametrize(
    "facts",
    [
        {"source": ["a"]},
        {"source": {"command": ["x" * 70_000]}},
        {"parameters": [1]},
        {"parameters": {"a": [1]}},
        {"parameters": {"": 1}},
        {"parameters": {"x" * 201: 1}},
        {"parameters": {f"p{number}": 1 for number in range(1_001)}},
        {"tags": [f"t{number}" for number in range(51)]},
    ],
)
async def test_facts_that_are_not_storable_are_refused_and_nothing_is_stored(
    world: World, facts: dict[str, Any]
) -> None:
    supervisor = await world.running()
    answer = await supervisor.report(batch=1, points={"loss": column([1])}, facts=facts)
    assert [error["code"] for error in answer["userErrors"]] == ["BATCH_REFUSED"]
    assert answer["expectedBatch"] == 1
    assert await stored(world) == []


async def test_the_first_nonce_binds_the_attempt_and_any_other_is_told_over(world: World) -> None:
    supervisor = await world.attempt(await world.simulation())
    first = await supervisor.hello()
    again = await supervisor.hello()
    assert again == first, "the answer may have been lost on the way"
    other = await supervisor.hello(nonce="another process")
    assert (other["verdict"], other["order"], other["attempt"]) == ("OVER", None, {"id": supervisor.attempt_id})
    answer = await supervisor.report(nonce="another process", batch=1, points={"loss": column([1])})
    assert (answer["verdict"], answer["attempt"]) == ("OVER", {"id": supervisor.attempt_id})
    assert await stored(world) == []
    kinds = [event["kind"] for event in (await world.show(supervisor.simulation_id))["events"]]
    assert kinds == ["QUEUED", "STARTING", "RUNNING"]


async def test_hello_twice_at_once_binds_one_of_them(world: World, serve: Serve) -> None:
    other = await serve()
    supervisor = await world.attempt(await world.simulation())
    first = asyncio.create_task(supervisor.hello(nonce="a"))
    supervisor.api = other
    second = asyncio.create_task(supervisor.hello(nonce="b"))
    verdicts = sorted([(await first)["verdict"], (await second)["verdict"]])
    assert verdicts == ["CONTINUE", "OVER"]


async def test_hello_after_a_cancel_is_told_to_stop_and_begins_nothing(world: World) -> None:
    supervisor = await world.attempt(await world.simulation())
    await world.cancel(supervisor.simulation_id)
    payload = await supervisor.hello()
    assert payload["verdict"] == "STOP"
    assert (await world.show(supervisor.simulation_id))["state"] == "STARTING"
    await supervisor.send(exit={"reason": "CANCELLED"})
    assert (await world.show(supervisor.simulation_id))["state"] == "CANCELLED"


@pytest.mark.parametrize("say", ["hello_body", "report_body"])
async def test_only_the_attempts_own_token_opens_it(world: World, say: str, subtests: pytest.Subtests) -> None:
    supervisor, other = await world.running(), await world.running()
    everything = "SELECT attempt_id, nonce, heartbeat_at, next_batch FROM members ORDER BY attempt_id"
    before = await world.select(everything)
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "no token": ({"token": None}, "UNAUTHENTICATED"),
        "an empty token": ({"token": ""}, "UNAUTHENTICATED"),
        "a wrong token": ({"token": "wrong", "status": 401}, "UNAUTHENTICATED"),
        "the token of an attempt that there is not": ({"token": "x" * 43, "status": 401}, "UNAUTHENTICATED"),
        "another attempt's token": ({"token": other.token}, "UNAUTHENTICATED"),
        "an attempt that there is not": ({"attemptId": encode("Attempt", 999)}, "UNAUTHENTICATED"),
        "the id of another type": ({"attemptId": encode("Simulation", 1)}, "BAD_USER_INPUT"),
        "an id that is none": ({"attemptId": "nonsense"}, "BAD_USER_INPUT"),
        "an empty nonce": ({"nonce": ""}, "BAD_USER_INPUT"),
        "an endless nonce": ({"nonce": "n" * 101}, "BAD_USER_INPUT"),
        "a nonce with a NUL byte": ({"nonce": "a\0b"}, "BAD_USER_INPUT"),
    }
    for case, (given, code) in cases.items():
        with subtests.test(case):
            body = await getattr(supervisor, say)(**given)
            assert body.get("data") is None
            (error,) = body["errors"]
            assert error["extensions"]["code"] == code
            assert supervisor.attempt_id not in str(body), "only an answer that names the attempt may end it"
            assert "OVER" not in str(body)
    assert await world.select(everything) == before


async def test_a_wrong_token_ends_nothing(world: World) -> None:
    supervisor = await world.running()
    body = await supervisor.report_body(token="wrong", status=401, batch=1, exit={"exitCode": 0})
    assert body["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert (await world.show(supervisor.simulation_id))["state"] == "RUNNING"


# --- batches ---------------------------------------------------------------------------------------------------


async def test_a_batch_twice_is_acknowledged_and_not_stored_again(world: World) -> None:
    supervisor = await world.running()
    for _ in range(3):
        answer = await supervisor.report(batch=1, points={"loss": column([1, 2])}, logs=[log("a\n")])
        assert (answer["verdict"], answer["expectedBatch"], answer["userErrors"]) == ("CONTINUE", 2, [])
    assert await stored(world) == [(1, 1, "loss", [1, 2])]
    assert (await world.counts())["log_chunks"] == 1


async def test_a_duplicate_and_an_empty_report_are_heartbeats(world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(1)
    for given in ({}, {"batch": 1, "points": {"loss": column([1])}}, {"batch": 9, "points": {"loss": column([1])}}):
        await world.select("UPDATE members SET heartbeat_at = now() - interval '1 hour'")
        answer = await supervisor.report(**given)
        assert answer["expectedBatch"] == 2
        assert await world.select("SELECT now() - heartbeat_at < interval '1 minute' FROM members") == [(True,)]


async def test_a_gap_is_answered_with_the_number_expected(world: World) -> None:
    supervisor = await world.running()
    answer = await supervisor.report(batch=3, points={"loss": column([3])})
    assert (answer["verdict"], answer["expectedBatch"], answer["userErrors"]) == ("CONTINUE", 1, [])
    for number in (1, 2, 3):
        await supervisor.report(batch=number, points={"loss": column([number])})
    assert await stored(world) == [(1, number, "loss", [number]) for number in (1, 2, 3)]


async def test_an_older_batch_after_a_newer_one_is_not_stored(world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(1)
    await supervisor.loss(2)
    answer = await supervisor.report(batch=1, points={"loss": column([7])})
    assert answer["expectedBatch"] == 3
    assert [steps for *_, steps in await stored(world)] == [[1], [2]]


async def test_one_batch_at_once_through_two_processes_is_stored_once(world: World, serve: Serve) -> None:
    supervisor, other = await world.running(), await serve()
    apis = (supervisor.api, other)
    for number in range(1, 6):
        sent = []
        for api in apis * 3:
            supervisor.api = api
            sent.append(asyncio.create_task(supervisor.report(batch=number, points={"loss": column([number])})))
            await asyncio.sleep(0)  # the request is made with this process
        assert {answer["expectedBatch"] for answer in await asyncio.gather(*sent)} == {number + 1}
    assert await stored(world) == [(1, number, "loss", [number]) for number in range(1, 6)]


async def test_what_an_old_attempt_sends_does_not_count(world: World) -> None:
    old = await world.running(limits={"maxRetries": 3})
    await old.loss(1, 2)
    await world.lose(old)
    answer = await old.report(batch=2, points={"loss": column([3])})
    assert (answer["verdict"], answer["attempt"]) == ("OVER", {"id": old.attempt_id})
    new = await world.running(old.simulation_id)
    await new.loss(2)
    for given in ({"batch": 2, "points": {"loss": column([3])}}, {"batch": 2, "exit": {"exitCode": 0}}, {}):
        answer = await old.report(**given)
        assert (answer["verdict"], answer["attempt"]) == ("OVER", {"id": old.attempt_id})
    assert (await old.hello())["verdict"] == "OVER"
    assert await stored(world) == [(1, 1, "loss", [1, 2]), (2, 1, "loss", [2])]
    assert (await world.show(old.simulation_id))["state"] == "RUNNING"


async def test_the_history_says_from_where_an_attempt_was_reported(world: World) -> None:
    supervisor = await world.running()
    await supervisor.exit()
    told = await world.select("SELECT kind, origin FROM events WHERE actor = 'supervisor' ORDER BY id")
    assert told == [("RUNNING", "127.0.0.1"), ("FINISHED", "127.0.0.1")]


async def test_after_the_end_everything_is_over(world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(1)
    await supervisor.exit()
    before = await world.counts()
    for given in (
        {},
        {"batch": 2, "exit": {"exitCode": 0}},  # its answer was lost: sent again
        {"batch": 3, "points": {"loss": column([9])}, "logs": [log("late\n")]},
        {"batch": 3, "exit": {"exitCode": 1}},
        {"batch": 3, "points": []},
    ):
        answer = await supervisor.report(**given)
        assert (answer["verdict"], answer["attempt"]) == ("OVER", {"id": supervisor.attempt_id})
    assert await world.counts() == before
    assert (await world.show(supervisor.simulation_id))["state"] == "FINISHED"


def log(text: str, stream: str = "STDOUT") -> dict[str, str]:
    return {"stream": stream, "text": text}


REFUSED: dict[str, Any] = {
    "columns of unequal length": {"loss": column([1, 2], [1.0])},
    "elapsed of another length": {"loss": column([1], elapsed=[])},
    "no points": {"loss": column([])},
    "a list": [1],
    "a string": "loss",
    "a metric that is no object": {"loss": [1]},
    "a column that is missing": {"loss": {"steps": [1], "values": [1]}},
    "a column too many": {"loss": {**column([1]), "extra": [1]}},
    "a column that is a string": {"loss": {"steps": "1", "values": "1", "elapsed": "1"}},
    "steps that don't rise": {"loss": column([2, 2])},
    "steps that go back": {"loss": column([3, 2, 4])},
    "a negative step": {"loss": column([-1])},
    "a step above 2^53": {"loss": column([2**53 + 1])},
    "a step beyond every integer": {"loss": column([10**30])},
    "a step that is a float": {"loss": column([1.0])},
    "a step that is a bool": {"loss": column([True])},
    "a step that is a string": {"loss": column(["1"])},
    "a step that is null": {"loss": column([None])},
    "a step that is a list": {"loss": column([[1]])},
    "a value that is a string": {"loss": column([1], ["0.5"])},
    "a value that is nearly infinite": {"loss": column([1], ["infinity"])},
    "a value that is a bool": {"loss": column([1], [True])},
    "a value that is null": {"loss": column([1], [None])},
    "a value that is nested": {"loss": column([1], [[1.0]])},
    "elapsed that is a string": {"loss": column([1], elapsed=["NaN"])},
    "elapsed that is a bool": {"loss": column([1], elapsed=[False])},
    "an empty metric name": {"": column([1])},
    "a metric name of 257 characters": {"m" * 257: column([1])},
    "a metric name of a megabyte": {"m" * 1_000_000: column([1])},
    "a metric name with a NUL byte": {"a\0b": column([1])},
    "1,001 metrics": {f"m{number}": column([1]) for number in range(1_001)},
    "10,001 points in all": {"a": column(list(range(5_000))), "b": column(list(range(5_001)))},
    "one bad metric among good ones": {"loss": column([1]), "bad": column([1], ["x"])},
}


async def test_a_batch_that_breaks_a_rule_is_refused_and_its_number_stays_free(
    world: World, subtests: pytest.Subtests
) -> None:
    supervisor = await world.running()
    await supervisor.loss(1)
    before = await world.counts()
    for case, given in REFUSED.items():
        with subtests.test(case):
            answer = await supervisor.report(batch=2, points=given, logs=[log("x\n")], exit={"exitCode": 0})
            (error,) = answer["userErrors"]
            assert (error["code"], error["field"]) == ("BATCH_REFUSED", ["points"])
            assert 10 < len(error["message"]) < 300
            assert (answer["verdict"], answer["expectedBatch"]) == ("CONTINUE", 2)
            assert answer["attempt"] == {"id": supervisor.attempt_id}
    assert await world.counts() == before
    await supervisor.send({"loss": column([2])})
    assert [steps for *_, steps in await stored(world)] == [[1], [2]]


async def test_too_many_points_are_refused_in_one_answer(world: World) -> None:
    supervisor = await world.running()
    count = 100_000  # of the shortest numbers: more would be over the limit of a body
    answer = await supervisor.report(batch=1, points={"loss": column(list(range(count)), [0] * count, [0] * count)})
    assert [error["code"] for error in answer["userErrors"]] == ["BATCH_REFUSED"]
    assert f"{count} points" in answer["userErrors"][0]["message"]
    assert answer["expectedBatch"] == 1


async def test_a_million_points_are_not_even_read(world: World) -> None:
    supervisor = await world.running()
    before = await world.counts()
    points = {"loss": column(list(range(10**6)), [0] * 10**6, [0] * 10**6)}
    given = {"attemptId": supervisor.attempt_id, "nonce": supervisor.nonce, "batch": 1, "points": points}
    query = "mutation($input: ReportAttemptInput!) { reportAttempt(input: $input) { expectedBatch } }"
    body = {"query": query, "variables": {"input": given}}
    headers = {"authorization": f"Bearer {supervisor.token}"}
    response = await world.api.client.post("/graphql", json=body, headers=headers)
    assert response.status_code == 413
    assert await world.counts() == before


async def test_other_reports_that_break_a_rule_name_the_field(world: World, subtests: pytest.Subtests) -> None:
    supervisor = await world.running()
    before = await world.counts()
    for case, (given, field) in {
        "points without a number": ({"points": {"loss": column([1])}}, "batch"),
        "an exit without a number": ({"exit": {"exitCode": 0}}, "batch"),
        "logs without a number": ({"logs": [log("x")]}, "batch"),
        "number 0": ({"batch": 0, "exit": {"exitCode": 0}}, "batch"),
        "a negative number": ({"batch": -1}, "batch"),
        "too much log": ({"batch": 1, "logs": [log("x" * 1_000_001)] * 2}, "logs"),
        "too many chunks of log": ({"batch": 1, "logs": [log("")] * 3_001}, "logs"),
    }.items():
        with subtests.test(case):
            answer = await supervisor.report(**given)
            assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [("BATCH_REFUSED", [field])]
            assert answer["expectedBatch"] == 1
    assert await world.counts() == before


async def test_a_refused_batch_of_an_attempt_that_is_over_is_told_so(world: World) -> None:
    supervisor = await world.running()
    await supervisor.exit()
    answer = await supervisor.report(batch=2, points={"loss": column([1], ["x"])})
    assert answer["verdict"] == "OVER"
    body = await supervisor.report_body(token="wrong", status=401, batch=2, points={"loss": column([1], ["x"])})
    assert body["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_what_is_not_finite_is_stored_as_it_is(world: World) -> None:
    supervisor = await world.running()
    await supervisor.send({"loss": column([1, 2, 3, 4, 5], ["NaN", "Infinity", "-Infinity", -0.0, 1e308])})
    ((values,),) = await world.select('SELECT "values" FROM convergence')
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 0.0, 1e308]


async def test_the_widest_of_everything_is_taken(world: World) -> None:
    supervisor = await world.running()
    wide = "ü" * 256
    await supervisor.send({wide: column([0, 2**31, 2**53], [1, 2**60, -1.5])})
    await supervisor.send({f"m{number}": column(list(range(10))) for number in range(1_000)})
    assert await world.select('SELECT steps, "values" FROM convergence WHERE batch = 1') == [
        ([0, 2**31, 2**53], [1.0, float(2**60), -1.5])
    ]
    assert await world.select("SELECT count(*), sum(cardinality(steps)) FROM convergence WHERE batch = 2") == [
        (1_000, 10_000)
    ]


async def test_logs_are_kept_in_order_and_without_nul(world: World) -> None:
    supervisor = await world.running()
    await supervisor.send(logs=[log("b\n"), log("a\0c\n", "STDERR"), log("", "SUPERVISOR")])
    assert await world.select("SELECT position, stream, text FROM log_chunks ORDER BY position") == [
        (0, "STDOUT", "b\n"), (1, "STDERR", "a�c\n"), (2, "SUPERVISOR", ""),
    ]  # fmt: skip


# --- the end ---------------------------------------------------------------------------------------------------

NO_RETRY = {"maxRetries": 0}
EXITS: list[tuple[dict[str, Any], str, str, str | None]] = [
    ({"exitCode": 0}, "FINISHED", "COMPLETED", None),
    ({"exitCode": 3}, "FAILED", "EXIT_CODE", "It ended with exit code 3."),
    ({"signal": 9}, "FAILED", "EXIT_CODE", "It was ended by signal 9 (SIGKILL)."),
    ({"signal": 999}, "FAILED", "EXIT_CODE", "It was ended by signal 999 (unknown)."),
    ({"reason": "LAUNCH_ERROR", "message": "No such file: x"}, "FAILED", "LAUNCH_ERROR", "No such file: x"),
    ({"reason": "MAX_RUNTIME", "signal": 15}, "FAILED", "MAX_RUNTIME", None),
    ({"exitCode": 1, "reason": "nonsense", "message": "a\0b"}, "FAILED", "EXIT_CODE", "a�b"),
    ({"exitCode": 1, "reason": "CANCELLED"}, "FAILED", "EXIT_CODE", "It ended with exit code 1."),
    ({}, "FAILED", "EXIT_CODE", "It ended with exit code None."),
]


async def test_each_exit_leads_to_its_final_state(world: World, subtests: pytest.Subtests) -> None:
    for given, state, reason, detail in EXITS:
        with subtests.test(str(given)):
            supervisor = await world.running(limits=NO_RETRY)
            await supervisor.send({"loss": column([1])}, exit=given)
            shown = await world.show(supervisor.simulation_id)
            assert (shown["state"], shown["reason"], shown["reasonDetail"]) == (state, reason, detail)
            assert shown["finishedAt"]
            (attempt,) = shown["attempts"]
            assert (attempt["reason"], attempt["reasonDetail"]) == (reason, detail)
            assert attempt["endedAt"]
            if reason != "LAUNCH_ERROR":
                assert (attempt["exitCode"], attempt["signal"]) == (given.get("exitCode"), given.get("signal"))


async def test_an_exit_that_may_be_retried_goes_back_to_the_queue(world: World) -> None:
    supervisor = await world.running(limits={"maxRetries": 1, "retryOn": ["EXIT_CODE"]})
    with capture_logs() as logged:
        await supervisor.exit(1)
    (told,) = [each for each in logged if each["event"] == "attempt_ended"]
    assert (told["reason"], told["exit_code"], told["attempt"]) == ("EXIT_CODE", 1, 1)
    assert told["retry_after_seconds"] > 0
    shown = await world.show(supervisor.simulation_id)
    assert (shown["state"], shown["reason"], shown["finishedAt"]) == ("QUEUED", None, None)
    assert shown["attempts"][0]["reason"] == "EXIT_CODE"
    waits = await world.select("SELECT queued_at > now() FROM simulations")
    assert waits == [(True,)], "not before a pause"

    again = await world.running(supervisor.simulation_id)
    order = (await again.hello())["order"]
    assert order["environment"]["SIMULATION_ATTEMPT"] == "2"
    with capture_logs() as logged:
        await again.exit(1)
    assert [each["retry_after_seconds"] for each in logged if each["event"] == "attempt_ended"] == [None]
    shown = await world.show(supervisor.simulation_id)
    assert (shown["state"], shown["reason"]) == ("FAILED", "EXIT_CODE")
    assert [attempt["number"] for attempt in shown["attempts"]] == [1, 2]


async def test_an_exit_that_was_not_chosen_is_final(world: World) -> None:
    supervisor = await world.running(limits={"maxRetries": 5, "retryOn": ["MACHINE_LOST"]})
    await supervisor.exit(1)
    assert (await world.show(supervisor.simulation_id))["state"] == "FAILED"


async def test_after_a_cancel_the_next_report_is_told_to_stop(world: World) -> None:
    supervisor = await world.running(limits={"maxRetries": 5, "retryOn": ["EXIT_CODE"]})
    await world.cancel(supervisor.simulation_id)
    for given in ({}, {"batch": 1, "points": {"loss": column([1])}}):
        answer = await supervisor.report(**given)
        assert (answer["verdict"], answer["stopReason"]) == ("STOP", "CANCELLED")
    assert len(await stored(world)) == 1, "what comes before its end counts"
    supervisor.batch = 2
    await supervisor.send(exit={"signal": 15, "reason": "CANCELLED"})
    shown = await world.show(supervisor.simulation_id)
    assert (shown["state"], shown["reason"]) == ("CANCELLED", "CANCELLED")


@pytest.mark.parametrize(("code", "state"), [(0, "FINISHED"), (1, "CANCELLED")])
async def test_what_ends_by_itself_after_a_cancel(world: World, code: int, state: str) -> None:
    supervisor = await world.running(limits={"maxRetries": 5, "retryOn": ["EXIT_CODE"]})
    await world.cancel(supervisor.simulation_id)
    await supervisor.exit(code)
    assert (await world.show(supervisor.simulation_id))["state"] == state


async def test_an_exit_and_a_cancel_at_once_leave_one_end(world: World, serve: Serve) -> None:
    other = await serve()
    for _ in range(5):
        supervisor = await world.running(limits=NO_RETRY)
        exiting = asyncio.create_task(supervisor.exit(0))
        cancelled = await other.data(
            "mutation ($id: ID!) { cancelSimulation(input: {id: $id}) { userErrors { code } } }",
            {"id": supervisor.simulation_id},
        )
        await exiting
        assert cancelled["userErrors"] in ([], [{"code": "WRONG_STATE"}])
        shown = await world.show(supervisor.simulation_id)
        assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED")
        assert [event["kind"] for event in shown["events"]].count("FINISHED") == 1


MEETING = """
mutation Hello($input: HelloAttemptInput!) {
  helloAttempt(input: $input) { verdict order { rank worldSize addresses masterPort systemMetricsSeconds } }
}
"""
MEMBERS = """
query ($id: ID!) {
  simulation(id: $id) { machines attempts { members { rank machineName machine { name } endedAt exitCode } } }
}
"""


async def test_the_members_of_a_gang_wait_for_each_other_and_meet_at_rank_0s_port(world: World) -> None:
    async def hello(supervisor: Any, address: str, port: int | None = None) -> Any:
        given = {"attemptId": supervisor.attempt_id, "nonce": supervisor.nonce, "address": address, "port": port}
        return await world.api.data(MEETING, {"input": given}, token=supervisor.token)

    await world.host("other-host")
    first, second = await world.gang(2, "host-1", "other-host")
    for _ in range(2):
        assert await hello(first, "10.0.0.1", 4242) == {"verdict": "WAIT", "order": None}
    assert (await first.report())["verdict"] == "CONTINUE", "a heartbeat is none of its business"
    meeting = {"worldSize": 2, "addresses": ["10.0.0.1", "fe80::1"], "masterPort": 4242}
    order = {"rank": 1, **meeting, "systemMetricsSeconds": 0.0}
    assert await hello(second, "fe80::1") == {"verdict": "CONTINUE", "order": order}
    order = {"rank": 0, **meeting, "systemMetricsSeconds": 10.0}
    assert await hello(first, "10.0.0.1", 4242) == {"verdict": "CONTINUE", "order": order}

    await second.exit()
    shown = await world.api.data(MEMBERS, {"id": first.simulation_id})
    members = shown["attempts"][0]["members"]
    assert shown["machines"] == 2
    ends = [(each["rank"], each["exitCode"], each["endedAt"] is None) for each in members]
    assert ends == [(0, None, True), (1, 0, False)]
    assert (await world.show(first.simulation_id))["state"] == "RUNNING"


async def test_addresses_and_ports_that_are_none_are_refused(world: World) -> None:
    [supervisor, _] = await world.gang(2)
    for given in ({"address": "here; rm"}, {"port": 0}, {"port": 70000}):
        body = await supervisor.hello_body(**given)
        assert next(iter(given)) in body["errors"][0]["message"]


async def test_points_of_rank_1_are_acknowledged_and_no_part_of_the_curve(world: World) -> None:
    supervisors = await world.gang(2)
    for each in supervisors:
        await each.hello()
    await supervisors[1].loss(1, 2)
    await supervisors[0].loss(1)
    simulation_id = supervisors[0].simulation_id
    assert [tuple(row) for row in await world.select("SELECT attempt, batch, steps FROM convergence")] == [(1, 1, [1])]
    query = "query ($id: ID!) { simulation(id: $id) { notices { kind count } } }"
    shown = await world.api.data(query, {"id": simulation_id})
    assert shown["notices"] == [{"kind": "HIGHER_RANK", "count": 2}]
