"""createSimulations, `after`, pause and notes: all or none, once however often, refused by index and field."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from db.public_ids import decode, encode

World = Any  # the fixtures of conftest.py

ERRORS = "userErrors { code message field }"
MANY = f"""mutation ($input: CreateSimulationsInput!) {{
  createSimulations(input: $input) {{ simulations {{ id name }} {ERRORS} }}
}}"""
ONE = f"""mutation ($input: CreateSimulationInput!) {{
  createSimulation(input: $input) {{ simulation {{ id name }} {ERRORS} }}
}}"""
SHOW = """query ($id: ID!) { simulation(id: $id) {
  state reason reasonDetail notes paused queuePosition waiting { reason detail }
  after { condition simulation { id name } } dependents { condition simulation { id name } }
} }"""
PAUSE = f"mutation ($id: ID!) {{ pauseSimulation(input: {{id: $id}}) {{ simulation {{ paused }} {ERRORS} }} }}"
RESUME = f"mutation ($id: ID!) {{ resumeSimulation(input: {{id: $id}}) {{ simulation {{ paused }} {ERRORS} }} }}"
DELETE = f"mutation ($id: ID!) {{ deleteSimulation(input: {{id: $id}}) {{ {ERRORS} }} }}"
UPDATE = f"""mutation ($input: UpdateSimulationInput!) {{
  updateSimulation(input: $input) {{ simulation {{ name tags notes priority }} {ERRORS} }}
}}"""


def item(name: str = "s", **given: Any) -> dict[str, Any]:
    return {"entrypoint": ["true"], "name": name, **given}


async def submit(world: World, *items: dict[str, Any], **given: Any) -> Any:
    return await world.api.data(MANY, {"input": {"simulations": list(items), **given}})


async def submitted(world: World, *items: dict[str, Any], **given: Any) -> list[str]:
    payload = await submit(world, *items, **given)
    assert payload["userErrors"] == [], payload
    return [each["id"] for each in payload["simulations"]]


async def refusal(world: World, *items: dict[str, Any], **given: Any) -> Any:
    """The one error of a refused submission, which created nothing."""
    before = await world.select("SELECT (SELECT count(*) FROM simulations), (SELECT count(*) FROM projects)")
    payload = await submit(world, *items, **given)
    assert payload["simulations"] == []
    after = await world.select("SELECT (SELECT count(*) FROM simulations), (SELECT count(*) FROM projects)")
    assert after == before
    [error] = payload["userErrors"]
    return error


async def show(world: World, public_id: str) -> Any:
    return await world.api.data(SHOW, {"id": public_id})


# --- many at once ----------------------------------------------------------------------------------------------


async def test_a_thousand_are_queued_in_their_order_with_as_many_statements_as_ten(world: World, engine: Any) -> None:
    async def statements(count: int) -> int:
        sent: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            sent.append(statement)

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        try:
            ids = await submitted(world, *(item(f"s{number}") for number in range(count)))
        finally:
            event.remove(engine.sync_engine, "before_cursor_execute", note)
        assert len(set(ids)) == count
        names = await world.select("SELECT name FROM simulations ORDER BY id DESC LIMIT :count", count=count)
        assert [name for (name,) in reversed(names)] == [f"s{number}" for number in range(count)]
        return len(sent)

    few, many = await statements(10), await statements(1000)
    assert many <= few + 8, "rows are inserted in a few pieces"
    assert await world.select("SELECT count(*) FROM events WHERE kind = 'QUEUED'") == [(1010,)]


async def test_more_than_a_thousand_and_none_are_refused(world: World) -> None:
    error = await refusal(world, *(item() for _ in range(1001)))
    assert (error["code"], error["field"]) == ("INVALID", ["simulations"])
    assert error["message"] == "simulations: has at most 1,000 items, and this has 1,001"
    assert (await refusal(world))["field"] == ["simulations"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"entrypoint": []}, ["entrypoint"]),
        ({"resources": {"cpus": -1}}, ["resources", "cpus"]),
        ({"resources": {"machine": encode("Machine", 99)}}, ["resources", "machine"]),
        ({"alerts": ["unknown"]}, ["alerts"]),
        ({"stopping": [{"metric": "loss", "stoppingThreshold": 0.1}] * 11}, ["stopping"]),
        ({"after": [{"simulation": encode("Simulation", 99)}]}, ["after", "0", "simulation"]),
        ({"after": [{"simulation": encode("Machine", 1)}]}, ["after", "0", "simulation"]),
        ({"after": [{"clientKey": "unknown"}]}, ["after", "0", "clientKey"]),
        ({"after": [{"index": 4}]}, ["after", "0", "index"]),
        ({"after": [{"index": -1}]}, ["after", "0", "index"]),
        ({"after": [{}]}, ["after", "0"]),
        ({"after": [{"index": 0, "clientKey": "x"}]}, ["after", "0"]),
        ({"after": [{"index": 0}, {"index": 0}]}, ["after", "1"]),
        ({"clientKey": "taken"}, ["clientKey"]),
    ],
)
async def test_one_bad_item_refuses_all_and_names_its_index(
    world: World, given: dict[str, Any], field: list[str]
) -> None:
    await world.api.data(ONE, {"input": item("other", clientKey="taken")})
    error = await refusal(world, item(), item(project="new"), item("bad", **given), item())
    assert error["field"] == ["simulations", "2", *field]
    assert error["message"].startswith(".".join(error["field"][:4]))


async def test_the_same_call_again_creates_nothing_also_when_made_at_once(world: World) -> None:
    items = [item("a"), item("b", after=[{"index": 0}]), item("c", after=[{"index": 1, "condition": "ANY"}])]
    every = await asyncio.gather(*(submitted(world, *items, clientKey="night") for _ in range(4)))
    assert len({tuple(ids) for ids in every}) == 1
    await world.select("UPDATE simulations SET state = 'FINISHED', finished_at = now() WHERE name = 'a' RETURNING id")
    assert await submitted(world, *items, clientKey="night") == every[0]
    assert await world.select("SELECT count(*) FROM simulations") == [(3,)]
    assert await world.select("SELECT count(*) FROM dependencies") == [(2,)]
    error = await refusal(world, item("a"), item("other"), item("c"), clientKey="night")
    assert (error["code"], error["field"]) == ("TAKEN", ["simulations", "1", "clientKey"])


@pytest.mark.parametrize("own", [{}, {"clientKey": "own"}])
async def test_a_key_that_was_used_for_more_or_fewer_simulations_is_taken(world: World, own: dict[str, str]) -> None:
    await submitted(world, item("a", **own), item("b"), clientKey="night")
    for others in ([item("b"), item("c")], [item("b"), item("c"), item("d")]):
        error = await refusal(world, item("a", **own), *others, clientKey="night")
        assert (error["code"], error["field"]) == ("TAKEN", ["clientKey"])
        assert "for a call with 2 simulations, and this one has" in error["message"]
    assert await world.select("SELECT count(*) FROM simulations") == [(2,)]
    assert len(await submitted(world, item("a"), clientKey="night 1/2")) == 1, "another key, however it is written"


async def test_a_thousand_sent_twice_at_once_are_a_thousand(world: World) -> None:
    items = [item(f"s{number}", after=[{"index": 0}] if number % 10 == 1 else []) for number in range(1000)]
    first, second = await asyncio.gather(*(submitted(world, *items, clientKey="night") for _ in range(2)))
    assert first == second
    assert len(set(first)) == 1000
    assert await world.select("SELECT count(*) FROM simulations") == [(1000,)]
    assert await world.select("SELECT count(*) FROM events WHERE kind = 'QUEUED'") == [(1000,)]
    assert await world.select("SELECT count(*) FROM dependencies") == [(100,)]


async def test_keys_of_items_count_too(world: World) -> None:
    first = await submitted(world, item("a", clientKey="a"), item("b", after=[{"clientKey": "a"}]))
    second = await submitted(world, item("c", after=[{"clientKey": "a"}]), item("a", clientKey="a"))
    assert second[1] == first[0]
    assert [each["simulation"]["id"] for each in (await show(world, second[0]))["after"]] == [first[0]]
    error = await refusal(world, item(clientKey="x"), item(clientKey="x"))
    assert error["field"] == ["simulations", "1", "clientKey"]


async def test_what_a_repeated_call_adds_behind_what_has_ended_does_not_wait_for_it(world: World) -> None:
    first, _ = await submitted(world, item("a", clientKey="a"), item("b"))
    await world.select("UPDATE simulations SET state = 'FINISHED', finished_at = now() WHERE name = 'a' RETURNING id")
    [_, second] = await submitted(world, item("a", clientKey="a"), item("late", after=[{"index": 0}]))
    assert (await show(world, second))["waiting"] is None
    await world.select("UPDATE simulations SET state = 'FAILED' WHERE name = 'a' RETURNING id")
    error = await refusal(world, item("a", clientKey="a"), item("later", after=[{"index": 0}]))
    assert (error["code"], error["field"]) == ("WRONG_STATE", ["simulations", "1", "after", "0"])
    assert "It could never run" in error["message"]
    assert first


# --- after -----------------------------------------------------------------------------------------------------


async def test_both_directions_and_the_wait_are_shown(world: World) -> None:
    first, second, third, _ = await submitted(
        world,
        item("train", after=[{"index": 1}]),
        item("prep"),
        item("report", after=[{"index": 0, "condition": "ANY"}, {"clientKey": "own"}]),
        item("other", clientKey="own"),
    )
    train, prep, report = await show(world, first), await show(world, second), await show(world, third)
    assert [(each["simulation"]["name"], each["condition"]) for each in train["after"]] == [("prep", "SUCCESS")]
    assert [(each["simulation"]["name"], each["condition"]) for each in prep["dependents"]] == [("train", "SUCCESS")]
    assert {(each["simulation"]["name"], each["condition"]) for each in report["after"]} == {
        ("train", "ANY"), ("other", "SUCCESS"),
    }  # fmt: skip
    assert train["waiting"] == {
        "reason": "DEPENDENCY", "detail": "It waits for the success of prep, which is QUEUED.",
    }  # fmt: skip
    assert report["waiting"]["detail"].endswith(", and for 1 other.")
    assert train["queuePosition"] is None


@pytest.mark.parametrize("length", [1, 2, 3, 400])
async def test_cycles_are_refused_however_long(world: World, length: int) -> None:
    items = [item(f"s{number}", after=[{"index": (number + 1) % length}]) for number in range(length)]
    error = await refusal(world, *items)
    assert (error["code"], error["field"][0], error["field"][2]) == ("INVALID", "simulations", "after")
    others = "" if length == 1 else f", by way of {length - 1:,} other{'s' if length > 2 else ''}"
    assert error["message"].endswith(f"It would run after itself{others}.")


async def test_the_number_that_a_simulation_will_have_and_that_of_a_deleted_one_mean_nothing(world: World) -> None:
    [gone] = await submitted(world, item("gone"))
    own = decode(gone)[1] + 1
    await world.select("UPDATE simulations SET state = 'FINISHED', finished_at = now() RETURNING id")
    deleted = await world.api.data(DELETE, {"id": gone})
    assert deleted["userErrors"] == []
    for given in (gone, encode("Simulation", own), str(own), f"#{own}"):
        payload = await world.api.data(ONE, {"input": item(after=[{"simulation": given}])})
        [error] = payload["userErrors"]
        assert (error["code"], error["field"]) == ("NOT_FOUND", ["after", "0", "simulation"]), given


async def test_an_index_means_nothing_in_a_submission_of_one(world: World) -> None:
    for index, sentence in ((0, "It would run after itself."), (1, "There is no simulation 1 in this submission.")):
        payload = await world.api.data(ONE, {"input": item(after=[{"index": index}])})
        assert [each["message"] for each in payload["userErrors"]] == [sentence]


async def test_one_is_submitted_after_another_by_id_and_by_key(world: World) -> None:
    first = await world.api.data(ONE, {"input": item("prep", clientKey="prep")})
    given = [{"simulation": first["simulation"]["id"]}]
    second = await world.api.data(ONE, {"input": item("a", after=given, clientKey="a")})
    again = await world.api.data(ONE, {"input": item("a", after=given, clientKey="a")})
    assert second["simulation"]["id"] == again["simulation"]["id"]
    other = await world.api.data(ONE, {"input": item("a", clientKey="a")})
    assert [each["code"] for each in other["userErrors"]] == ["TAKEN"], "what it runs after is content too"
    third = await world.api.data(ONE, {"input": item("b", after=[{"clientKey": "prep", "condition": "FAILURE"}])})
    shown = await show(world, third["simulation"]["id"])
    assert shown["waiting"]["detail"] == "It waits for the failure of prep, which is QUEUED."


# --- pause, notes ----------------------------------------------------------------------------------------------


async def test_what_waits_is_paused_and_resumed(world: World) -> None:
    [public_id] = await submitted(world, item())
    assert (await world.api.data(PAUSE, {"id": public_id}))["simulation"] == {"paused": True}
    shown = await show(world, public_id)
    assert (shown["paused"], shown["queuePosition"], shown["waiting"]["reason"]) == (True, None, "PAUSED")
    assert (await world.api.data(RESUME, {"id": public_id}))["simulation"] == {"paused": False}
    running = await world.running()
    payload = await world.api.data(PAUSE, {"id": running.simulation_id})
    [error] = payload["userErrors"]
    assert (error["code"], error["field"]) == ("WRONG_STATE", ["id"])
    for wrong in (encode("Simulation", 99), encode("Machine", 1), "", "x" * 300):
        for verb in (PAUSE, RESUME):
            assert [each["field"] for each in (await world.api.data(verb, {"id": wrong}))["userErrors"]] == [["id"]]


async def test_notes_are_given_changed_and_removed_also_after_the_end(world: World) -> None:
    [public_id] = await submitted(world, item(notes="why\nso", clientKey="n"))
    assert (await show(world, public_id))["notes"] == "why\nso"
    changed = await world.api.data(UPDATE, {"input": {"id": public_id, "notes": "x" * 10_000, "priority": 4}})
    assert (len(changed["simulation"]["notes"]), changed["simulation"]["priority"]) == (10_000, 4)
    for wrong in ("x" * 10_001, "a\0b"):
        payload = await world.api.data(UPDATE, {"input": {"id": public_id, "notes": wrong}})
        assert [each["field"] for each in payload["userErrors"]] == [["notes"]]
    await world.select("UPDATE simulations SET state = 'FINISHED', finished_at = now() RETURNING id")
    removed = await world.api.data(UPDATE, {"input": {"id": public_id, "notes": None, "tags": ["kept"]}})
    assert removed["simulation"] == {"name": "s", "tags": ["kept"], "notes": None, "priority": 4}
    payload = await world.api.data(UPDATE, {"input": {"id": public_id, "priority": 1}})
    assert [each["code"] for each in payload["userErrors"]] == ["WRONG_STATE"]


async def test_several_machines_are_chosen_by_labels_and_not_by_name(world: World) -> None:
    machine = encode("Machine", await world.machine())
    error = await refusal(world, item(), item(machines=2, resources={"machine": machine}))
    assert error["field"] == ["simulations", "1", "resources", "machine"]
    assert "choose them by labels" in error["message"]
    assert await submitted(world, item(machines=2), item(machines=1, resources={"machine": machine}))


FORK = f"""mutation ($input: ForkSimulationInput!) {{
  forkSimulation(input: $input) {{
    simulation {{ id name entrypoint parameters environment tags notes priority retryOf {{ id }} }} {ERRORS}
  }}
}}"""


async def test_a_fork_is_as_the_old_one_but_for_what_was_changed(world: World) -> None:
    old = await world.simulation(
        name="old", entrypoint=["python", "train.py"], parameters={"lr": 0.1, "seed": 2**53 + 1, "x": None},
        environment={"KEY": "secret"}, tags=["a"], notes="n", priority=3,
    )  # fmt: skip
    same = (await world.api.data(FORK, {"input": {"id": old}}))["simulation"]
    assert same == {
        "id": same["id"], "name": "old", "entrypoint": ["python", "train.py"], "tags": ["a"], "notes": "n",
        "parameters": {"lr": 0.1, "seed": 2**53 + 1, "x": None}, "environment": {"KEY": None}, "priority": 3,
        "retryOf": {"id": old},
    }  # fmt: skip
    changes = {
        "name": "new", "entrypoint": ["python", "b.py"], "parameters": {"seed": 7, "x": None, "wd": [1]}, "tags": [],
        "notes": None, "priority": -1,
    }  # fmt: skip
    new = (await world.api.data(FORK, {"input": {"id": old, **changes}}))["simulation"]
    assert new["parameters"] == {"lr": 0.1, "seed": 7, "wd": [1]}
    assert {name: new[name] for name in changes if name != "parameters"} == {
        name: value for name, value in changes.items() if name != "parameters"
    }
    kept = await world.select("SELECT environment::text FROM simulations WHERE name = 'new'")
    assert kept == await world.select("SELECT environment::text FROM simulations WHERE name = 'old' LIMIT 1")


async def test_parameters_of_a_fork_are_judged_together_with_the_old_ones(world: World) -> None:
    old = await world.simulation(parameters={"lr": 0.1})
    payload = await world.api.data(FORK, {"input": {"id": old, "parameters": {"LR": 1}}})
    [error] = payload["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["parameters"])
    assert "rename one of them" in error["message"]


async def test_a_command_is_filled_from_the_parameters_and_filled_again_by_a_fork(world: World) -> None:
    given = ["train", "--lr={lr}", "--opt={opt.name}", "{{lr}}", "${lr}", "{flag}", "x = {lr}; print(f'{other}')"]
    parameters = {"lr": 0.1, "opt": {"name": "adam; rm -rf /"}, "flag": False, "seed": 2**60}
    old = await world.simulation(name="old", entrypoint=given, parameters=parameters)
    show = "query ($id: ID!) { simulation(id: $id) { entrypoint entrypointTemplate parameters } }"
    shown = await world.api.data(show, {"id": old})
    assert shown["entrypoint"] == [
        "train", "--lr=0.1", "--opt=adam; rm -rf /", "{lr}", "${lr}", "false", "x = 0.1; print(f'{other}')",
    ]  # fmt: skip
    assert shown["entrypointTemplate"] == given

    changed = (await world.api.data(FORK, {"input": {"id": old, "parameters": {"lr": 1e-05}}}))["simulation"]
    assert changed["entrypoint"][:4] == ["train", "--lr=1e-05", "--opt=adam; rm -rf /", "{lr}"]
    again = (await world.api.data(FORK, {"input": {"id": changed["id"], "parameters": {"lr": 3}}}))["simulation"]
    assert again["entrypoint"][1] == "--lr=3"
    renamed = (await world.api.data(FORK, {"input": {"id": old, "name": "new"}}))["simulation"]
    assert renamed["entrypoint"] == shown["entrypoint"]
    other = (await world.api.data(FORK, {"input": {"id": old, "entrypoint": ["b", "{seed}"]}}))["simulation"]
    assert other["entrypoint"] == ["b", str(2**60)]
    payload = await world.api.data(FORK, {"input": {"id": old, "parameters": {"flag": None}}})
    assert [error["field"] for error in payload["userErrors"]] == [["entrypoint", "5"]]


async def test_a_command_without_parameters_stays_as_it_is(world: World) -> None:
    for given in ({}, {"parameters": {}}):
        made = await world.simulation(entrypoint=["awk", "{print}", "{{x}}", "{lr}"], **given)
        show = "query ($id: ID!) { simulation(id: $id) { entrypoint entrypointTemplate } }"
        assert await world.api.data(show, {"id": made}) == {
            "entrypoint": ["awk", "{print}", "{{x}}", "{lr}"], "entrypointTemplate": None,
        }  # fmt: skip


async def test_a_name_that_is_no_parameter_and_a_command_that_grows_too_long_are_refused(world: World) -> None:
    error = await refusal(world, item(), item(entrypoint=["t", "--lr={lrr}"], parameters={"lr": 1}))
    assert (error["code"], error["field"]) == ("INVALID", ["simulations", "1", "entrypoint", "1"])
    assert error["message"] == (
        "simulations.1.entrypoint.1: {lrr} is no parameter; if it is meant as text, write {{lrr}}"
    )
    long = {"entrypoint": ["t", "{x}" * 20_000], "parameters": {"x": "y" * 60_000}}
    error = await refusal(world, item(**long))
    assert (error["code"], error["field"]) == ("INVALID", ["simulations", "0", "entrypoint"])
    assert "more than 65,536 bytes with its parameters" in error["message"]


async def test_the_same_key_finds_what_was_filled_in(world: World) -> None:
    asked = item("a", entrypoint=["t", "{x}"], parameters={"x": 1}, clientKey="k")
    first, again = [(await world.api.data(ONE, {"input": asked}))["simulation"]["id"] for _ in range(2)]
    assert first == again
    payload = await world.api.data(ONE, {"input": {**asked, "entrypoint": ["t", "1"]}})
    assert [error["code"] for error in payload["userErrors"]] == ["TAKEN"]


# --- forks from a checkpoint -----------------------------------------------------------------------------------

FROM_CHECKPOINT = f"""mutation ($id: ID!) {{
  forkSimulation(input: {{id: $id, fromCheckpoint: true}}) {{
    simulation {{ id resources {{ machineName machine {{ name }} }} retryOf {{ id }} }} {ERRORS}
  }}
}}"""


async def test_a_fork_from_a_checkpoint_goes_to_the_machine_that_has_it(world: World) -> None:
    supervisor = await world.running(name="old")
    await world.select("UPDATE members SET checkpoint_at = now() RETURNING 1")
    [(machine,)] = await world.select("SELECT name FROM machines WHERE id IN (SELECT machine_id FROM members)")
    for is_over in (False, True):
        if is_over:
            await supervisor.exit()
        made = (await world.api.data(FROM_CHECKPOINT, {"id": supervisor.simulation_id}))["simulation"]
        assert made["resources"] == {"machineName": machine, "machine": {"name": machine}}
        assert made["retryOf"] == {"id": supervisor.simulation_id}
    assert await world.select("SELECT count(*) FROM simulations WHERE from_checkpoint") == [(2,)]
    plain = (await world.api.data(FORK, {"input": {"id": made["id"]}}))["simulation"]
    assert plain["id"] != made["id"]
    assert await world.select("SELECT count(*) FROM simulations WHERE from_checkpoint") == [(2,)], (
        "a retry is from zero"
    )


async def test_where_no_checkpoint_can_be_copied_a_sentence_says_why(world: World) -> None:
    async def refused(simulation: str) -> str:
        payload = await world.api.data(FROM_CHECKPOINT, {"id": simulation})
        [error] = payload["userErrors"]
        assert (error["code"], error["field"]) == ("WRONG_STATE", ["fromCheckpoint"])
        return str(error["message"])

    queued = await world.simulation()
    assert await refused(queued) == "It has not run yet, so it has no checkpoint."
    supervisor = await world.running()
    await supervisor.exit()
    assert "no file was seen in SIMULATION_CHECKPOINT_DIR" in await refused(supervisor.simulation_id)
    await world.select("UPDATE members SET checkpoint_at = now() RETURNING 1")
    await world.select("UPDATE machines SET engine = 'ray' RETURNING id")
    assert "a node of a cluster, where none is copied" in await refused(supervisor.simulation_id)
    await world.select("UPDATE members SET machine_id = NULL RETURNING id")
    assert "was deleted, and its checkpoint with it" in await refused(supervisor.simulation_id)
    await world.select("UPDATE simulations SET machines = 2 RETURNING id")
    assert "several machines" in await refused(supervisor.simulation_id)
