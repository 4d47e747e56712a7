"""Machines through the API: created, changed, drained, deleted, listed, and their free resources."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from db.public_ids import encode

World = Any  # the fixture of conftest.py

FIELDS = """
machine {
  id name engine host declared state draining drainingSince labels pricePerHour currency heartbeatAt
  resources { cpus memoryGib gpus gpuModel } free { cpus memoryGib gpus } simulations { id state }
}
userErrors { code message field }
"""
CREATE = f"mutation ($input: CreateMachineInput!) {{ createMachine(input: $input) {{ {FIELDS} }} }}"
UPDATE = f"mutation ($input: UpdateMachineInput!) {{ updateMachine(input: $input) {{ {FIELDS} }} }}"
DRAIN = f"mutation ($id: ID!) {{ drainMachine(input: {{id: $id}}) {{ {FIELDS} }} }}"
RESUME = f"mutation ($id: ID!) {{ resumeMachine(input: {{id: $id}}) {{ {FIELDS} }} }}"
DELETE = "mutation ($id: ID!) { deleteMachine(input: {id: $id}) { deletedId userErrors { code message field } } }"
SHOW = f"query ($id: ID!) {{ machine(id: $id) {{ {FIELDS.split('machine {')[1].split('userErrors')[0]} }}"
LIST = """
query ($first: Int! = 50, $after: String, $states: [MachineState!], $engine: String, $nameContains: String,
       $direction: OrderDirection! = ASC) {
  machines(first: $first, after: $after, states: $states, engine: $engine, nameContains: $nameContains,
           direction: $direction) {
    totalCount nodes { name } edges { cursor node { name } } pageInfo { hasNextPage endCursor }
  }
}
"""
PART = {"name": "part", "cpus": 2, "memoryGib": 8}


async def declared(world: World, **given: Any) -> Any:
    await world.host()
    payload = await world.api.data(CREATE, {"input": {**PART, **given}})
    assert payload["userErrors"] == []
    return payload["machine"]


def codes(payload: Any) -> list[tuple[str, Any]]:
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


async def test_a_machine_is_a_part_of_the_only_host(world: World) -> None:
    made = await declared(world)
    assert (made["name"], made["engine"], made["host"], made["declared"]) == ("part", "local", "host-1", True)
    assert (made["state"], made["draining"]) == ("ONLINE", False)
    assert made["resources"] == {"cpus": 2.0, "memoryGib": 8.0, "gpus": 0, "gpuModel": None}
    assert made["free"] == {"cpus": 2.0, "memoryGib": 8.0, "gpus": 0}
    assert (made["labels"], Decimal(made["pricePerHour"]), made["currency"]) == ({}, 0, "USD")
    assert await world.api.data(SHOW, {"id": made["id"]}) == made


async def test_that_a_host_is_offered_twice_is_said_when_it_is_done(world: World) -> None:
    """A host of 4 cpus and 16 GiB, a machine by itself, and parts of it beside that."""
    found = await world.machine("whole", cpus=4.0, memory_gib=16.0)
    notices = "notices machine { id } userErrors { message }"
    create = f"mutation ($input: CreateMachineInput!) {{ createMachine(input: $input) {{ {notices} }} }}"
    update = f"mutation ($input: UpdateMachineInput!) {{ updateMachine(input: $input) {{ {notices} }} }}"

    made = await world.api.data(create, {"input": PART})
    assert made["userErrors"] == []
    assert made["notices"] == [
        "The machines of the host name of host-1 now offer 6 cpus (it has 4) and 24 GiB of memory (it has 16) "
        "together: programs that run at the same time share what there is. To divide the host instead, drain the "
        "machine whole."
    ]
    await world.api.data(DRAIN, {"id": encode("Machine", found)})
    assert (await world.api.data(create, {"input": {**PART, "name": "part-2"}}))["notices"] == []
    [notice] = (await world.api.data(update, {"input": {"id": made["machine"]["id"], "cpus": 3}}))["notices"]
    assert "5 cpus (it has 4) together" in notice
    assert "drain" not in notice


async def test_every_field_of_a_machine_is_kept(world: World) -> None:
    made = await declared(
        world, gpus=4, gpuModel="A100", labels={"zone": "a"}, pricePerHour="12.345678", host="name of host-1"
    )
    assert made["resources"] == {"cpus": 2.0, "memoryGib": 8.0, "gpus": 4, "gpuModel": "A100"}
    assert made["labels"] == {"zone": "a"}
    assert Decimal(made["pricePerHour"]) == Decimal("12.345678")
    assert made["host"] == "host-1"


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an empty name": ({"name": ""}, ["name"]),
    "an over-long name": ({"name": "n" * 201}, ["name"]),
    "a name with a NUL byte": ({"name": "a\0b"}, ["name"]),
    "no cpus": ({"cpus": 0}, ["cpus"]),
    "negative cpus": ({"cpus": -1}, ["cpus"]),
    "absurd cpus": ({"cpus": 1e12}, ["cpus"]),
    "negative memory": ({"memoryGib": -1}, ["memoryGib"]),
    "absurd memory": ({"memoryGib": 1e300}, ["memoryGib"]),
    "negative gpus": ({"gpus": -1}, ["gpus"]),
    "absurd gpus": ({"gpus": 2**31 - 1}, ["gpus"]),
    "a price below zero": ({"pricePerHour": "-1"}, ["pricePerHour"]),
    "an absurd price": ({"pricePerHour": "1e30"}, ["pricePerHour"]),
    "a price that is no number": ({"pricePerHour": "NaN"}, ["pricePerHour"]),
    "labels that are a list": ({"labels": []}, ["labels"]),
    "labels of numbers": ({"labels": {"Zone_a": 1}}, ["labels", "Zone_a"]),
    "an empty label": ({"labels": {"": "x"}}, ["labels", ""]),
    "too many labels": ({"labels": {str(number): "x" for number in range(101)}}, ["labels"]),
    "an empty gpu model": ({"gpuModel": ""}, ["gpuModel"]),
}


async def test_what_breaks_a_rule_is_named_and_nothing_is_stored(world: World, subtests: pytest.Subtests) -> None:
    machine = await declared(world)
    before = await world.counts()
    for case, (given, field) in BAD.items():
        with subtests.test(f"create: {case}"):
            payload = await world.api.data(CREATE, {"input": {**PART, "name": "another", **given}})
            assert (payload["machine"], codes(payload)) == (None, [("INVALID", field)])
        with subtests.test(f"update: {case}"):
            payload = await world.api.data(UPDATE, {"input": {"id": machine["id"], **given}})
            assert (payload["machine"], codes(payload)) == (None, [("INVALID", field)])
    assert await world.counts() == before
    assert await world.api.data(SHOW, {"id": machine["id"]}) == machine


async def test_a_name_that_is_taken_is_refused(world: World) -> None:
    await world.machine("m1")
    part = await declared(world)
    before = await world.counts()
    for name in ("m1", "part"):
        payload = await world.api.data(CREATE, {"input": {**PART, "name": name}})
        assert (payload["machine"], codes(payload)) == (None, [("TAKEN", ["name"])])
    payload = await world.api.data(UPDATE, {"input": {"id": part["id"], "name": "m1"}})
    assert codes(payload) == [("TAKEN", ["name"])]
    assert await world.counts() == before


async def test_a_host_must_be_known_and_named_where_there_are_several(world: World) -> None:
    payload = await world.api.data(CREATE, {"input": PART})
    assert codes(payload) == [("INVALID", ["host"])], "no scheduler has started yet"
    await world.host("host-1")
    await world.host("host-2")
    payload = await world.api.data(CREATE, {"input": PART})
    assert codes(payload) == [("INVALID", ["host"])]
    assert "name of host-2" in payload["userErrors"][0]["message"]
    assert codes(await world.api.data(CREATE, {"input": {**PART, "host": "host-3"}})) == [("NOT_FOUND", ["host"])]
    assert (await world.counts())["machines"] == 0
    by_id = await world.api.data(CREATE, {"input": {**PART, "host": "host-2"}})
    by_name = await world.api.data(CREATE, {"input": {**PART, "name": "p2", "host": "name of host-1"}})
    assert (by_id["machine"]["host"], by_name["machine"]["host"]) == ("host-2", "host-1")


async def test_an_update_changes_what_is_given_and_nothing_else(world: World) -> None:
    machine = await declared(world, gpus=1, gpuModel="A100", labels={"zone": "a"}, pricePerHour="2")
    payload = await world.api.data(UPDATE, {"input": {"id": machine["id"], "name": "renamed", "pricePerHour": "3"}})
    assert payload["userErrors"] == []
    assert payload["machine"] == {**machine, "name": "renamed", "pricePerHour": payload["machine"]["pricePerHour"]}
    assert Decimal(payload["machine"]["pricePerHour"]) == 3

    nulls = dict.fromkeys(("name", "cpus", "memoryGib", "gpus", "labels", "pricePerHour"))
    unchanged = await world.api.data(UPDATE, {"input": {"id": machine["id"], **nulls}})
    assert unchanged == payload, "null is what typed clients send for what was left out"
    cleared = await world.api.data(UPDATE, {"input": {"id": machine["id"], "gpuModel": None}})
    assert cleared["machine"]["resources"] == {**machine["resources"], "gpuModel": None}


async def test_an_update_that_changes_nothing_leaves_no_trace(world: World) -> None:
    machine = await declared(world)
    before = await world.counts()
    payload = await world.api.data(UPDATE, {"input": {"id": machine["id"], "cpus": 2}})
    assert (payload["machine"], payload["userErrors"]) == (machine, [])
    assert await world.counts() == before


async def test_what_an_engine_found_is_not_changed_but_may_be_drained(world: World) -> None:
    found = encode("Machine", await world.machine("m1"))
    for change in ({"cpus": 1}, {"labels": {}}, {"pricePerHour": "1"}, {"name": "x", "gpus": 1}):
        payload = await world.api.data(UPDATE, {"input": {"id": found, **change}})
        assert (payload["machine"], codes(payload)) == (None, [("WRONG_STATE", ["id"])])
    payload = await world.api.data(UPDATE, {"input": {"id": found, "name": "a better name"}})
    assert payload["machine"]["name"] == "a better name"
    assert (await world.api.data(DRAIN, {"id": found}))["machine"]["state"] == "DRAINING"


async def test_draining_and_resuming_may_be_said_twice(world: World) -> None:
    machine = await declared(world)
    for mutation, state, kind in ((DRAIN, "DRAINING", "DRAINED"), (RESUME, "ONLINE", "RESUMED")):
        for _ in range(2):
            payload = await world.api.data(mutation, {"id": machine["id"]})
            assert (payload["machine"]["state"], payload["userErrors"]) == (state, [])
        recorded = await world.select("SELECT at FROM events WHERE kind = :kind", kind=kind)
        assert len(recorded) == 1
        since = payload["machine"]["drainingSince"]
        assert since == (recorded[0][0].isoformat() if state == "DRAINING" else None)


async def test_a_machine_is_draining_since_it_was_drained_last(world: World) -> None:
    machine = await declared(world)
    first = (await world.api.data(DRAIN, {"id": machine["id"]}))["machine"]["drainingSince"]
    await world.api.data(RESUME, {"id": machine["id"]})
    second = (await world.api.data(DRAIN, {"id": machine["id"]}))["machine"]["drainingSince"]
    assert datetime.fromisoformat(first) < datetime.fromisoformat(second)


async def test_a_machine_shows_what_is_on_it_and_what_is_left(world: World) -> None:
    number = await world.machine("m1", cpus=4.0, memory_gib=16.0, gpus=4)
    machine = encode("Machine", number)
    for cpus in (0.1, 0.2):
        simulation = await world.simulation(resources={"cpus": cpus, "memoryGib": 2.5, "gpus": 1})
        supervisor = await world.attempt(simulation, number)
    await supervisor.hello()
    shown = await world.api.data(SHOW, {"id": machine})
    assert shown["free"] == {"cpus": 3.7, "memoryGib": 11.0, "gpus": 2}
    assert [each["state"] for each in shown["simulations"]] == ["STARTING", "RUNNING"]

    await supervisor.exit()
    shown = await world.api.data(SHOW, {"id": machine})
    assert shown["free"] == {"cpus": 3.9, "memoryGib": 13.5, "gpus": 3}
    assert len(shown["simulations"]) == 1


async def test_what_is_declared_smaller_than_what_is_on_it_is_free_of_nothing(world: World) -> None:
    machine = await declared(world, cpus=4)
    _, number = (await world.select("SELECT 1, id FROM machines"))[0]
    await world.attempt(await world.simulation(resources={"cpus": 3}), number)
    payload = await world.api.data(UPDATE, {"input": {"id": machine["id"], "cpus": 2}})
    assert payload["machine"]["free"]["cpus"] == 0


async def test_a_machine_is_deleted_once_nothing_is_on_it(world: World) -> None:
    number = await world.machine("m1")
    machine = encode("Machine", number)
    pinned = await world.simulation(resources={"machine": machine})
    supervisor = await world.attempt(await world.simulation(), number)
    before = await world.counts()
    payload = await world.api.data(DELETE, {"id": machine})
    assert (payload["deletedId"], codes(payload)) == (None, [("WRONG_STATE", ["id"])])
    assert await world.counts() == before

    await supervisor.hello()
    await supervisor.exit()
    assert await world.api.data(DELETE, {"id": machine}) == {"deletedId": machine, "userErrors": []}
    assert await world.api.data(SHOW, {"id": machine}) is None
    kept = await world.api.data(
        "query ($id: ID!) { simulation(id: $id) { resources { machineName machine { id } } } }", {"id": pinned}
    )
    assert kept == {"resources": {"machineName": "m1", "machine": None}}
    attempt = await world.api.data(
        "query ($id: ID!) { simulation(id: $id) { machine { id } attempts { machineName machine { id } } } }",
        {"id": supervisor.simulation_id},
    )
    assert attempt == {"machine": None, "attempts": [{"machineName": f"machine-{number}", "machine": None}]}


async def test_ids_that_lead_nowhere_are_refused_by_every_verb(world: World, subtests: pytest.Subtests) -> None:
    update = "mutation ($id: ID!) { updateMachine(input: {id: $id, cpus: 1}) { userErrors { code message field } } }"
    for mutation in (update, DRAIN, RESUME, DELETE):
        for public_id, code in {
            encode("Machine", 9): "NOT_FOUND", encode("Simulation", 1): "INVALID", "x": "INVALID",
        }.items():  # fmt: skip
            with subtests.test(f"{mutation[18:40]} {public_id}"):
                assert codes(await world.api.data(mutation, {"id": public_id})) == [(code, ["id"])]


async def test_machines_are_listed_by_name_and_by_what_they_are(world: World) -> None:
    for name in ("b", "a_1", "c", "ax1"):
        await world.machine(name)
    await world.select("UPDATE machines SET draining = true WHERE name = 'b'")
    long_ago = timedelta(seconds=world.api.settings.lease_seconds + 1)
    await world.select(
        "UPDATE machines SET heartbeat_at = now() - CAST(:ago AS interval) WHERE name = 'c'", ago=long_ago
    )

    async def names(**given: Any) -> list[str]:
        return [node["name"] for node in (await world.api.data(LIST, given))["nodes"]]

    everything = sorted(["a_1", "ax1", "b", "c"])
    assert sorted(await names()) == everything
    assert await names(direction="DESC") == (await names())[::-1]
    assert await names(states=["DRAINING"]) == ["b"]
    assert await names(states=["OFFLINE", "DRAINING"]) == ["b", "c"]
    assert await names(states=[]) == []
    assert await names(nameContains="_") == ["a_1"]
    assert await names(engine="ray") == []
    assert (await world.api.data(LIST, {"states": ["DRAINING"], "first": 1}))["totalCount"] == 1
    assert sorted(await names(engine="local")) == everything

    read: list[str] = []
    page = {"pageInfo": {"hasNextPage": True, "endCursor": None}}
    while page["pageInfo"]["hasNextPage"]:
        page = await world.api.data(LIST, {"first": 1, "after": page["pageInfo"]["endCursor"]})
        read += [edge["node"]["name"] for edge in page["edges"]]  # type: ignore[index]
        assert page["totalCount"] == 4
    assert read == await names()
