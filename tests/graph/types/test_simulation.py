"""Simulations through the API: created, refused, listed, cancelled, repeated, deleted."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pwd
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db.connection import session_factory
from db.public_ids import encode

World = Any  # the fixtures of conftest.py
Api = Any
Serve = Any
Statements = Any

CREATE = """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) {
    simulation {
      id name state reason entrypoint parameters environment workingDirectory tags priority createdBy
      createdAt startedAt finishedAt waiting { reason } stopWanted { reason } retryOf { id }
      project { name }
      machine { name }
      resources { cpus memoryGib gpus gpuModel labels machineName maxPricePerHour machine { name } }
      limits { maxRuntimeSeconds maxRetries retryOn }
      attempts { number }
      events { kind actor }
    }
    userErrors { code message field }
  }
}
"""
LIST = """
query List(
  $first: Int! = 50, $after: String, $states: [SimulationState!], $project: ID, $machine: ID, $nameContains: String,
  $tag: String, $orderBy: SimulationOrder
) {
  simulations(
    first: $first, after: $after, states: $states, project: $project, machine: $machine, nameContains: $nameContains,
    tag: $tag, orderBy: $orderBy
  ) {
    totalCount
    nodes { id name }
    edges { cursor node { id } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
LOCAL_USER = f"{pwd.getpwuid(os.getuid()).pw_name} (unverified)"
STATES = ("QUEUED", "STARTING", "RUNNING", "FINISHED", "FAILED", "CANCELLED")
ALL_FIELDS: dict[str, Any] = {
    "entrypoint": ["python", "train.py", "--note", "a line\nand another, ünïcode"],
    "name": "  everything  ",
    "project": "vision",
    "parameters": {"learningRate": 0.1, "layers": [1, 2], "nested": {"deep": None}},
    "environment": {"LEVEL": "debug", "EMPTY": ""},
    "workingDirectory": "/data",
    "tags": ["nightly", "ünïcode"],
    "resources": {
        "cpus": 0.5, "memoryGib": 1.5, "gpus": 2, "gpuModel": "A100", "labels": {"zone": "a"},
        "maxPricePerHour": "1.25",
    },
    "priority": -5,
    "limits": {"maxRuntimeSeconds": 60, "maxRetries": 0, "retryOn": ["EXIT_CODE", "MACHINE_LOST"]},
    "clientKey": "once",
}  # fmt: skip


async def create(api: Api, **given: Any) -> Any:
    return await api.data(CREATE, {"input": {"entrypoint": ["true"], **given}})


async def test_a_simulation_with_nothing_but_an_entrypoint_gets_the_defaults(api: Api) -> None:
    payload = await api.data(CREATE, {"input": {"entrypoint": ["/usr/bin/python3", "-u", "jobs/train.py"]}})
    made = payload["simulation"]
    assert payload["userErrors"] == []
    assert (made["name"], made["state"], made["project"]["name"]) == ("train.py", "QUEUED", "default")
    assert made["resources"] == {
        "cpus": 1.0, "memoryGib": 0.0, "gpus": 0, "gpuModel": None, "labels": {}, "machineName": None,
        "maxPricePerHour": None, "machine": None,
    }  # fmt: skip
    assert made["limits"] == {"maxRuntimeSeconds": None, "maxRetries": 3, "retryOn": ["MACHINE_LOST"]}
    assert (made["parameters"], made["environment"], made["tags"], made["priority"]) == ({}, {}, [], 0)
    assert [made[name] for name in ("reason", "startedAt", "finishedAt", "waiting", "machine", "retryOf")] == [None] * 6
    assert made["attempts"] == []
    assert made["events"] == [{"kind": "QUEUED", "actor": LOCAL_USER}]


async def test_every_field_of_a_simulation_is_kept(world: World) -> None:
    machine = encode("Machine", await world.machine("big"))
    given = {**ALL_FIELDS, "resources": {**ALL_FIELDS["resources"], "machine": machine}}
    payload = await world.api.data(CREATE, {"input": given})
    assert payload["userErrors"] == []
    made = payload["simulation"]
    assert made["name"] == "everything"
    assert made["project"]["name"] == "vision"
    for name in ("entrypoint", "parameters", "workingDirectory", "tags", "priority", "limits"):
        assert made[name] == given[name], name
    assert made["environment"] == dict.fromkeys(given["environment"]), "values can be written, never read"
    expected = {**ALL_FIELDS["resources"], "machineName": "big", "machine": {"name": "big"}}
    price = made["resources"].pop("maxPricePerHour")
    assert Decimal(price) == Decimal(expected.pop("maxPricePerHour"))
    assert made["resources"] == expected


async def test_null_means_the_default(api: Api) -> None:
    """Typed clients send null for what their user left out."""
    nullable = ("name", "parameters", "environment", "workingDirectory", "clientKey")
    payload = await create(
        api,
        **dict.fromkeys(nullable),
        resources={"gpuModel": None, "labels": None, "machine": None, "maxPricePerHour": None},
        limits={"maxRuntimeSeconds": None},
    )
    assert payload["userErrors"] == []
    assert payload["simulation"]["parameters"] == {}
    assert payload["simulation"]["resources"]["labels"] == {}


NUL = "a\0b"
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an empty name": ({"name": " "}, ["name"]),
    "an over-long name": ({"name": "n" * 201}, ["name"]),
    "a name with a NUL byte": ({"name": NUL}, ["name"]),
    "a name with a line break": ({"name": "a\nb"}, ["name"]),
    "an empty entrypoint": ({"entrypoint": []}, ["entrypoint"]),
    "an empty program": ({"entrypoint": [" ", "x"]}, ["entrypoint"]),
    "a NUL byte in an argument": ({"entrypoint": ["echo", NUL]}, ["entrypoint", "1"]),
    "an argument that is too long": ({"entrypoint": ["echo", "x" * 65_537]}, ["entrypoint", "1"]),
    "arguments that are too long together": ({"entrypoint": ["ü" * 17_000] * 2}, ["entrypoint"]),
    "too many arguments": ({"entrypoint": ["x"] * 1_001}, ["entrypoint"]),
    "an empty project": ({"project": ""}, ["project"]),
    "an over-long project": ({"project": "p" * 201}, ["project"]),
    "a project with a NUL byte": ({"project": NUL}, ["project"]),
    "parameters that are a list": ({"parameters": [1]}, ["parameters"]),
    "parameters that are a string": ({"parameters": "{}"}, ["parameters"]),
    "parameters that are too big": ({"parameters": {"x": "y" * 70_000}}, ["parameters"]),
    "parameters with a NUL byte": ({"parameters": {"x": [NUL]}}, ["parameters"]),
    "parameters with a NUL byte in a name": ({"parameters": {NUL: 1}}, ["parameters"]),
    "an environment of numbers": ({"environment": {"X": 1}}, ["environment", "X"]),
    "a variable without a name": ({"environment": {"": "x"}}, ["environment", ""]),
    "a variable with = in its name": ({"environment": {"A=B": "x"}}, ["environment", "A=B"]),
    "a variable of the service's own": ({"environment": {"SIMULATION_ID": "x"}}, ["environment", "SIMULATION_ID"]),
    "a variable with a NUL byte": ({"environment": {"X": NUL}}, ["environment", "X"]),
    "a variable with a blank in its name": ({"environment": {"A B": "x"}}, ["environment", "A B"]),
    "a variable with a line break in its name": ({"environment": {"A\n": "x"}}, ["environment", "A\n"]),
    "a variable that turns the text round": ({"environment": {"A\u202eB": "x"}}, ["environment", "A\u202eB"]),
    "a variable with an invisible character": ({"environment": {"A\u200bB": "x"}}, ["environment", "A\u200bB"]),
    "a variable with an escape sequence": ({"environment": {"\x1b[31mA": "x"}}, ["environment", "\x1b[31mA"]),
    "the GPUs as a variable": (
        {"environment": {"CUDA_VISIBLE_DEVICES": "0,1"}},
        ["environment", "CUDA_VISIBLE_DEVICES"],
    ),
    "two parameters with one variable": ({"parameters": {"lr": 1e-4, "LR": 2}}, ["parameters"]),
    "an empty working directory": ({"workingDirectory": ""}, ["workingDirectory"]),
    "a working directory with a NUL byte": ({"workingDirectory": NUL}, ["workingDirectory"]),
    "an over-long working directory": ({"workingDirectory": "/" * 4_097}, ["workingDirectory"]),
    "too many tags": ({"tags": ["t"] * 51}, ["tags"]),
    "an empty tag": ({"tags": ["good", ""]}, ["tags", "1"]),
    "a tag with a NUL byte": ({"tags": [NUL]}, ["tags", "0"]),
    "no cpus": ({"resources": {"cpus": 0}}, ["resources", "cpus"]),
    "negative cpus": ({"resources": {"cpus": -1}}, ["resources", "cpus"]),
    "absurd cpus": ({"resources": {"cpus": 1e300}}, ["resources", "cpus"]),
    "negative memory": ({"resources": {"memoryGib": -0.1}}, ["resources", "memoryGib"]),
    "absurd memory": ({"resources": {"memoryGib": 1e300}}, ["resources", "memoryGib"]),
    "negative gpus": ({"resources": {"gpus": -1}}, ["resources", "gpus"]),
    "absurd gpus": ({"resources": {"gpus": 2**31 - 1}}, ["resources", "gpus"]),
    "an empty gpu model": ({"resources": {"gpuModel": ""}}, ["resources", "gpuModel"]),
    "labels that are a list": ({"resources": {"labels": ["a"]}}, ["resources", "labels"]),
    "labels of numbers": ({"resources": {"labels": {"a": 1}}}, ["resources", "labels", "a"]),
    "a price below zero": ({"resources": {"maxPricePerHour": "-0.01"}}, ["resources", "maxPricePerHour"]),
    "a price that is no number": ({"resources": {"maxPricePerHour": "NaN"}}, ["resources", "maxPricePerHour"]),
    "a price that signals": ({"resources": {"maxPricePerHour": "sNaN"}}, ["resources", "maxPricePerHour"]),
    "an infinite price": ({"resources": {"maxPricePerHour": "Infinity"}}, ["resources", "maxPricePerHour"]),
    "an absurd price": ({"resources": {"maxPricePerHour": "1e30"}}, ["resources", "maxPricePerHour"]),
    "a price finer than a column": ({"resources": {"maxPricePerHour": "0.0000001"}}, ["resources", "maxPricePerHour"]),
    "an absurd priority": ({"priority": 1_000_001}, ["priority"]),
    "no time to run": ({"limits": {"maxRuntimeSeconds": 0}}, ["limits", "maxRuntimeSeconds"]),
    "an absurd time to run": ({"limits": {"maxRuntimeSeconds": 2**31 - 1}}, ["limits", "maxRuntimeSeconds"]),
    "negative retries": ({"limits": {"maxRetries": -1}}, ["limits", "maxRetries"]),
    "absurd retries": ({"limits": {"maxRetries": 1_001}}, ["limits", "maxRetries"]),
    "a retry after the end": ({"limits": {"retryOn": ["COMPLETED"]}}, ["limits", "retryOn"]),
    "an empty client key": ({"clientKey": ""}, ["clientKey"]),
    "an over-long client key": ({"clientKey": "k" * 201}, ["clientKey"]),
    "a client key with a NUL byte": ({"clientKey": NUL}, ["clientKey"]),
    "a machine that there is not": ({"resources": {"machine": encode("Machine", 999)}}, ["resources", "machine"]),
    "the id of another type": ({"resources": {"machine": encode("Simulation", 1)}}, ["resources", "machine"]),
    "an id that is none": ({"resources": {"machine": "%%%"}}, ["resources", "machine"]),
    "an id beyond every number": ({"resources": {"machine": encode("Machine", 10**30)}}, ["resources", "machine"]),
}


async def test_what_breaks_a_rule_is_named_and_nothing_is_stored(world: World, subtests: pytest.Subtests) -> None:
    before = await world.counts()
    for case, (given, field) in BAD.items():
        with subtests.test(case):
            payload = await create(world.api, **given)
            assert payload["simulation"] is None
            (error,) = payload["userErrors"]
            assert error["field"] == field
            assert error["code"] in ("INVALID", "NOT_FOUND")
            assert 10 < len(error["message"]) < 500
            assert "value_error" not in error["message"]
    assert await world.counts() == before


async def test_a_number_that_no_double_holds_is_not_stored_as_something_else(world: World) -> None:
    query = 'mutation { createSimulation(input: {entrypoint: ["true"], parameters: {x: [1e999]}}) { simulation { id } '
    answer = await world.api.execute(query + "userErrors { field message } } }")
    (error,) = answer["data"]["createSimulation"]["userErrors"]
    assert error["field"] == ["parameters"]
    assert "too large" in error["message"]
    document = "mutation M($p: JSON) { createSimulation(input: {entrypoint: [], parameters: $p}) { __typename } }"
    body = f'{{"query": "{document}", "variables": {{"p": {{"x": -1e999}}}}}}'
    headers = {"content-type": "application/json"}
    response = await world.api.client.post("/graphql", content=body, headers=headers)
    assert (response.status_code, "JSON" in response.text) == (400, True)
    assert (await world.counts())["simulations"] == 0


async def test_everything_that_is_wrong_is_told_at_once(world: World) -> None:
    payload = await create(world.api, name="", entrypoint=[], resources={"cpus": -1, "gpus": -1})
    assert [error["field"] for error in payload["userErrors"]] == [
        ["name"], ["entrypoint"], ["resources", "cpus"], ["resources", "gpus"],
    ]  # fmt: skip


async def test_a_refused_simulation_leaves_no_project_behind(world: World) -> None:
    payload = await create(world.api, project="new", resources={"machine": encode("Machine", 999)})
    assert payload["userErrors"][0]["code"] == "NOT_FOUND"
    assert await world.select("SELECT name FROM projects") == [("default",)]


async def test_what_the_types_forbid_is_an_error_of_the_request(world: World, subtests: pytest.Subtests) -> None:
    before = await world.counts()
    for case in ({"priority": 2**31}, {"entrypoint": None}, {"tags": [1]}, {"resources": {"maxPricePerHour": "much"}}):
        with subtests.test(str(case)):
            error = await world.api.error(CREATE, {"input": {"entrypoint": ["true"], **case}})
            assert error["message"]
            assert "Something went wrong" not in error["message"]
    assert await world.counts() == before


# --- client keys -----------------------------------------------------------------------------------------------


async def test_the_same_client_key_with_the_same_content_is_the_same_simulation(world: World) -> None:
    first = await create(world.api, **ALL_FIELDS)
    before = await world.counts()
    again = await create(world.api, **ALL_FIELDS)
    assert again == first
    assert await world.counts() == before


async def test_the_same_client_key_with_other_content_is_taken(world: World) -> None:
    await create(world.api, clientKey="once")
    before = await world.counts()
    payload = await create(world.api, clientKey="once", parameters={"x": 1})
    assert payload["simulation"] is None
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("TAKEN", ["clientKey"])]
    assert await world.counts() == before
    elsewhere = await create(world.api, clientKey="once", parameters={"x": 1}, project="another")
    assert elsewhere["userErrors"] == []


async def test_the_same_client_key_at_once_from_two_processes_makes_one_simulation(world: World, serve: Serve) -> None:
    other = await serve()
    for attempt in range(5):
        given = {"clientKey": f"key {attempt}", "project": f"project {attempt}"}
        payloads = await asyncio.gather(*(create(each, **given) for each in (world.api, other) * 4))
        assert [payload["userErrors"] for payload in payloads] == [[]] * 8
        assert len({payload["simulation"]["id"] for payload in payloads}) == 1
    assert (await world.counts())["simulations"] == 5
    assert await world.select("SELECT count(*) FROM events WHERE kind = 'QUEUED'") == [(5,)]


async def test_one_client_key_with_two_contents_at_once_goes_to_one_of_them(world: World, serve: Serve) -> None:
    other = await serve()
    payloads = await asyncio.gather(
        *(create(api, clientKey="k", priority=priority) for priority in (1, 2) for api in (world.api, other))
    )
    made = {payload["simulation"]["id"] for payload in payloads if payload["simulation"]}
    refused = [error["code"] for payload in payloads for error in payload["userErrors"]]
    assert (len(made), refused) == (1, ["TAKEN", "TAKEN"])


# --- cancel, retry, delete -------------------------------------------------------------------------------------

VERBS = {
    verb: f"mutation ($id: ID!) {{ {verb}Simulation(input: {{id: $id}}) {{ "
    f"{'deletedId' if verb == 'delete' else 'simulation { id state retryOf { id } stopWanted { reason by } }'} "
    "userErrors { code message field } } }"
    for verb in ("cancel", "retry", "delete")
}


async def test_cancelling_in_every_state(world: World, subtests: pytest.Subtests) -> None:
    expected = {"QUEUED": "CANCELLED", "STARTING": "STARTING", "RUNNING": "RUNNING", "CANCELLED": "CANCELLED"}
    for state in STATES:
        with subtests.test(state):
            simulation_id = await world.in_state(state)
            payload = await world.api.data(VERBS["cancel"], {"id": simulation_id})
            if state not in expected:
                assert payload["simulation"] is None
                (error,) = payload["userErrors"]
                assert (error["code"], error["field"]) == ("WRONG_STATE", ["id"])
                assert state in error["message"]
                continue
            assert payload["userErrors"] == []
            assert payload["simulation"]["state"] == expected[state]
            is_on_machine = state in ("STARTING", "RUNNING")  # what waits has no attempt that could be stopped
            wanted = {"reason": "CANCELLED", "by": LOCAL_USER} if is_on_machine else None
            assert payload["simulation"]["stopWanted"] == wanted
            assert (await world.select("SELECT actor FROM events ORDER BY id DESC LIMIT 1")) == [(LOCAL_USER,)]
            before = await world.counts()
            assert await world.api.data(VERBS["cancel"], {"id": simulation_id}) == payload, "asking again"
            assert await world.counts() == before


async def test_repeating_in_every_state(world: World, subtests: pytest.Subtests) -> None:
    for state in STATES:
        with subtests.test(state):
            simulation_id = await world.in_state(state)
            before = await world.counts()
            payload = await world.api.data(VERBS["retry"], {"id": simulation_id})
            if state in ("QUEUED", "STARTING", "RUNNING"):
                assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("WRONG_STATE", ["id"])]
                assert await world.counts() == before
            else:
                assert payload["userErrors"] == []
                assert payload["simulation"]["id"] != simulation_id
                assert payload["simulation"]["state"] == "QUEUED"
                assert payload["simulation"]["retryOf"] == {"id": simulation_id}
                assert (await world.show(simulation_id))["state"] == state, "final is final"


async def test_a_repeated_simulation_asks_for_the_same(world: World) -> None:
    original = (await create(world.api, **ALL_FIELDS))["simulation"]
    await world.cancel(original["id"])
    payload = await world.api.data(
        CREATE.replace("Create($input: CreateSimulationInput!)", "Retry($input: SimulationInput!)").replace(
            "createSimulation", "retrySimulation"
        ),
        {"input": {"id": original["id"]}},
    )
    unlike = ("id", "createdAt", "retryOf")
    assert {name: value for name, value in payload["simulation"].items() if name not in unlike} == {
        name: value for name, value in original.items() if name not in unlike
    }


async def test_deleting_in_every_state(world: World, subtests: pytest.Subtests) -> None:
    for state in STATES:
        with subtests.test(state):
            simulation_id = await world.in_state(state)
            payload = await world.api.data(VERBS["delete"], {"id": simulation_id})
            if state in ("QUEUED", "STARTING", "RUNNING"):
                assert payload["deletedId"] is None
                assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("WRONG_STATE", ["id"])]
                assert await world.show(simulation_id)
            else:
                assert payload == {"deletedId": simulation_id, "userErrors": []}
                assert await world.show(simulation_id) is None
                again = await world.api.data(VERBS["delete"], {"id": simulation_id})
                assert [error["code"] for error in again["userErrors"]] == ["NOT_FOUND"]


async def test_deletion_takes_the_curve_and_the_log_and_leaves_the_history(world: World) -> None:
    supervisor = await world.running()
    await supervisor.send(
        {"loss": {"steps": [1], "values": [1], "elapsed": [0]}}, logs=[{"stream": "STDOUT", "text": "x\n"}]
    )
    await supervisor.exit()
    await world.api.data(VERBS["delete"], {"id": supervisor.simulation_id})
    counts = await world.counts()
    assert {name: counts[name] for name in ("simulations", "attempts", "convergence", "log_chunks")} == dict.fromkeys(
        ("simulations", "attempts", "convergence", "log_chunks"), 0
    )
    kinds = await world.select("SELECT kind FROM events WHERE object_type = 'Simulation' ORDER BY id")
    assert [kind for (kind,) in kinds] == ["QUEUED", "STARTING", "RUNNING", "FINISHED", "DELETED"]


async def test_ids_that_lead_nowhere_are_refused_by_every_verb(world: World, subtests: pytest.Subtests) -> None:
    before = await world.counts()
    ids = {
        encode("Simulation", 999): "NOT_FOUND",
        encode("Machine", 1): "INVALID",
        "": "INVALID",
        "ünïcode": "NOT_FOUND",  # it could be a name
        "x" * 10_000: "INVALID",
        encode("Simulation", 2**63): "NOT_FOUND",
    }
    for verb, query in VERBS.items():
        for public_id, code in ids.items():
            with subtests.test(f"{verb} {public_id[:30]}"):
                (error,) = (await world.api.data(query, {"id": public_id}))["userErrors"]
                assert (error["code"], error["field"]) == (code, ["id"])
                assert len(error["message"]) < 300
    assert await world.counts() == before


# --- lists -----------------------------------------------------------------------------------------------------


async def names(api: Api, **given: Any) -> list[str]:
    return [node["name"] for node in (await api.data(LIST, given))["nodes"]]


async def test_filters_narrow_the_list(world: World) -> None:
    api = world.api
    machine = await world.machine("m1")
    for name, given in {
        "plain": {}, "tagged": {"tags": ["a", "b"]}, "per%cent": {"project": "other"}, "UPPER": {"tags": ["b"]},
    }.items():  # fmt: skip
        await world.simulation(name=name, **given)
    running = await world.attempt(await world.simulation(name="running"), machine)
    await running.hello()
    project = (await api.data("{ projects { nodes { id name } } }"))["nodes"][1]
    assert project["name"] == "other"

    assert await names(api) == ["running", "UPPER", "per%cent", "tagged", "plain"]
    assert await names(api, states=["RUNNING"]) == ["running"]
    assert await names(api, states=["RUNNING", "QUEUED"], tag="b") == ["UPPER", "tagged"]
    assert await names(api, states=[]) == []
    assert await names(api, project=project["id"]) == ["per%cent"]
    assert await names(api, machine=encode("Machine", machine)) == ["running"]
    assert await names(api, nameContains="upp") == ["UPPER"]
    assert await names(api, nameContains="%") == ["per%cent"]
    assert await names(api, nameContains="_") == []
    assert await names(api, project=encode("Project", 999)) == []


async def test_a_list_is_sorted_as_it_is_asked_for(world: World) -> None:
    for name, priority in (("b", 1), ("a", 3), ("c", 2), ("a", 2)):
        await world.simulation(name=name, priority=priority)
    listed = {
        (field, direction): [
            (node["name"], node["id"])
            for node in (await world.api.data(LIST, {"orderBy": {"field": field, "direction": direction}}))["nodes"]
        ]
        for field in ("CREATED_AT", "NAME", "PRIORITY")
        for direction in ("ASC", "DESC")
    }
    assert [name for name, _ in listed["CREATED_AT", "ASC"]] == ["b", "a", "c", "a"]
    assert [name for name, _ in listed["NAME", "ASC"]] == ["a", "a", "b", "c"]
    assert [name for name, _ in listed["PRIORITY", "DESC"]] == ["a", "a", "c", "b"]
    for field in ("CREATED_AT", "NAME", "PRIORITY"):
        assert listed[field, "DESC"] == listed[field, "ASC"][::-1]


@pytest.mark.parametrize("order", [None, {"field": "NAME", "direction": "ASC"}, {"field": "PRIORITY"}])
async def test_pages_are_stable_while_simulations_are_added(world: World, order: Any) -> None:
    for number in range(7):
        await world.simulation(name=f"{number % 3}", priority=number % 2)
    expected = [node["id"] for node in (await world.api.data(LIST, {"orderBy": order}))["nodes"]]
    read: list[str] = []
    after, has_next = None, True
    while has_next:
        page = await world.api.data(LIST, {"first": 2, "after": after, "orderBy": order})
        read += [edge["node"]["id"] for edge in page["edges"]]
        assert [edge["node"]["id"] for edge in page["edges"]] == [node["id"] for node in page["nodes"]]
        assert page["pageInfo"]["startCursor"] == page["edges"][0]["cursor"]
        assert page["pageInfo"]["endCursor"] == page["edges"][-1]["cursor"]
        after, has_next = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        await world.simulation(name="0", priority=1)  # in the midst of what was read
    assert [each for each in read if each in expected] == expected
    assert len(read) == len(set(read))


async def test_the_total_is_of_all_pages_that_match(world: World) -> None:
    for number in range(3):
        await world.simulation(tags=["odd"] if number % 2 else [])
    assert (await world.api.data(LIST, {"first": 1}))["totalCount"] == 3
    assert (await world.api.data(LIST, {"first": 1, "tag": "odd"}))["totalCount"] == 1


def cursor_of(key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


BAD_ARGUMENTS: dict[str, dict[str, Any]] = {
    "first 0": {"first": 0},
    "first below zero": {"first": -1},
    "first 10^9": {"first": 10**9},
    "an empty cursor": {"after": ""},
    "a cursor that is no base64": {"after": "%%%"},
    "a cursor in unicode": {"after": "ünïcode"},
    "a cursor that is no key": {"after": cursor_of({"id": 1})},
    "a cursor of another list": {"after": cursor_of(["name", 1])},
    "a cursor with a string": {"after": cursor_of(["1"])},
    "a cursor with a bool": {"after": cursor_of([True])},
    "a cursor beyond every number": {"after": cursor_of([2**63])},
    "a cursor with a NUL byte": {"after": cursor_of([NUL, 1]), "orderBy": {"field": "NAME"}},
    "a project that is a machine": {"project": encode("Machine", 1)},
    "a machine that is none": {"machine": "nonsense"},
    "a search with a NUL byte": {"nameContains": NUL},
    "an endless search": {"nameContains": "x" * 201},
    "a tag with a NUL byte": {"tag": NUL},
}


async def test_bad_arguments_of_a_list_are_told_in_a_sentence(api: Api, subtests: pytest.Subtests) -> None:
    for case, given in BAD_ARGUMENTS.items():
        with subtests.test(case):
            error = await api.error(LIST, given)
            assert error["extensions"]["code"] == "BAD_USER_INPUT", error
            assert "Something went wrong" not in error["message"]


async def test_the_other_lists_refuse_the_same(world: World, subtests: pytest.Subtests) -> None:
    simulation_id = await world.simulation()
    for field in ("machines", "projects", f'node(id: "{simulation_id}") {{ ... on Simulation {{ logs'):
        for argument in ("first: 0", "first: 1000000000", 'after: "nonsense"'):
            with subtests.test(f"{field} {argument}"):
                closing = " } }" if "{" in field else ""
                error = await world.api.error(f"{{ {field}({argument}) {{ pageInfo {{ endCursor }} }} {closing} }}")
                assert error["extensions"]["code"] == "BAD_USER_INPUT", error


# --- nodes -----------------------------------------------------------------------------------------------------

NODES = """
query ($ids: [ID!]!) {
  nodes(ids: $ids) { __typename id ... on Attempt { number } ... on Project { name } }
}
"""


async def test_any_object_is_found_by_its_id(world: World) -> None:
    supervisor = await world.running()
    project = await world.api.data("{ projects { nodes { id } } }")
    machine = await world.api.data("{ machines { nodes { id } } }")
    ids = [
        supervisor.simulation_id, machine["nodes"][0]["id"], project["nodes"][0]["id"], supervisor.attempt_id,
        encode("Simulation", 999), encode("Nonsense", 1), supervisor.simulation_id,
    ]  # fmt: skip
    nodes = await world.api.data(NODES, {"ids": ids})
    assert [node and node["__typename"] for node in nodes] == [
        "Simulation", "Machine", "Project", "Attempt", None, None, "Simulation",
    ]  # fmt: skip
    assert [node["id"] for node in nodes if node] == [*ids[:4], ids[6]]
    for public_id, node in zip(ids, nodes, strict=True):
        found = await world.api.data("query ($id: ID!) { node(id: $id) { __typename id } }", {"id": public_id})
        assert (found and found["id"]) == (node and node["id"])


async def test_bad_ids_are_refused_by_node_and_nodes(api: Api) -> None:
    for bad in ("", "nonsense", encode("Simulation", 10**30), "ü"):
        error = await api.error("query ($id: ID!) { node(id: $id) { id } }", {"id": bad})
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
    error = await api.error(NODES, {"ids": [encode("Project", 1)] * 501})
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    error = await api.error("query ($id: ID!) { simulation(id: $id) { id } }", {"id": encode("Machine", 1)})
    assert error["message"] == "This is the id of a 'Machine'; the id of a Simulation is expected."
    assert await api.data("query ($id: ID!) { simulation(id: $id) { id } }", {"id": encode("Simulation", 9)}) is None


async def test_a_list_of_fifty_costs_as_many_statements_as_a_list_of_two(
    world: World, serve: Serve, engine: AsyncEngine, statements: Statements
) -> None:
    """Also shows that every resolver takes the factory that was injected."""
    ids = [await world.simulation(project=f"project {number % 5}") for number in range(50)]
    for simulation_id in ids[::5]:
        await world.attempt(simulation_id)
    api = await serve(session_factory(engine))
    query = """
    query ($first: Int!) {
      simulations(first: $first) {
        nodes { name project { name } retryOf { id } machine { name state free { cpus } simulations { id } } }
      }
    }
    """
    costs = []
    for first in (2, 50):
        with statements.of(engine):
            listed = await api.data(query, {"first": first})
        assert len(listed["nodes"]) == first
        costs.append(len(statements.matching("FROM", "SELECT")))
        assert costs[-1] > 0, "the injected factory was not used"
        statements.clear()
    assert sum(1 for node in listed["nodes"] if node["machine"]) == 10
    assert costs[1] <= 8

    with statements.of(engine):
        nodes = await api.data(NODES, {"ids": ids})
    assert [node["id"] for node in nodes] == ids
    assert len(statements.matching("FROM simulations")) == 1


async def test_a_requirement_that_no_machine_could_meet_is_accepted(world: World) -> None:
    payload = await create(world.api, resources={"cpus": 100_000, "gpus": 10_000, "gpuModel": "Z9000"})
    assert payload["userErrors"] == []
    assert payload["simulation"]["state"] == "QUEUED"
