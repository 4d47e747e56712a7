"""Load: many simulations at once (a thousand by `make chaos`), and simulations that fork and print without limit."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from effort import LOAD_SIMULATIONS as MANY
from live import BRISK, IN_ONE, Service, eventually, points
from observers import Watch

AT_ONCE = 10  # clients
ANSWERS = 10  # to a client that asks while all that goes on
NO_MACHINE_OF_ITS_OWN = {**BRISK, "SIMULATIONS_LOCAL_MACHINE": "0"}
CREATE_MACHINE = """
mutation CreateMachine($input: CreateMachineInput!) {
  createMachine(input: $input) { machine { id } userErrors { message } }
}
"""
QUEUE = """
query Queue { simulations(states: [QUEUED], first: 1) { totalCount nodes { waiting { reason detail } } } }
"""
SOME_RAN = "SELECT count(*) >= 10 FROM simulations WHERE state = 'FINISHED'"
ALL_EXPLAINED = """
SELECT NOT EXISTS (
  SELECT FROM simulations WHERE state = 'QUEUED' AND queue_class NOT IN (SELECT queue_class FROM queue_classes)
)
"""
ALL_OVER = "SELECT bool_and(state IN ('FINISHED', 'CANCELLED')) FROM simulations"
# How many attempts were open at most at a time: each beginning counts one up, each end one down.
MOST_AT_A_TIME = """
SELECT max(open) FROM (
  SELECT sum(change) OVER (ORDER BY at, change) AS open FROM (
    SELECT assigned_at AS at, 1 AS change FROM attempts
    UNION ALL SELECT ended_at, -1 FROM attempts WHERE ended_at IS NOT NULL
  ) AS changes
) AS counted
"""


async def test_many_simulations_at_once_queue_up_run_two_at_a_time_and_can_be_cancelled(lend: Any) -> None:
    async with lend(**NO_MACHINE_OF_ITS_OWN) as service:
        await declare(service, {"name": "small", "cpus": 2, "memoryGib": 1})
        watcher = asyncio.create_task(ask(service))
        ids = await submit_many(service, MANY)
        assert len(set(ids)) == MANY

        # They make progress, and each that waits is told why.
        await eventually(lambda: service.says(SOME_RAN), "some have run")
        await eventually(lambda: service.says(ALL_EXPLAINED), "all that wait are told why")
        queue = (await service.execute(QUEUE))["simulations"]
        assert queue["totalCount"] > 0
        assert queue["nodes"][0]["waiting"]["reason"] == "MACHINES_BUSY"
        assert "small" in queue["nodes"][0]["waiting"]["detail"]

        await cancel_many(service, ids)
        await eventually(lambda: service.says(ALL_OVER), "all have come to an end")
        watcher.cancel()
        # How fast it answers meanwhile is for benchmarks; that it goes on answering is not.
        assert await watcher >= ANSWERS
        [most] = await service.fetch(MOST_AT_A_TIME)
        assert most["max"] == 2
        attempts = await service.fetch("SELECT max(number) AS most, count(*) AS made FROM attempts")
        assert attempts[0]["most"] == 1, "none was lost or run twice"
        assert attempts[0]["made"] < MANY, "and most had not begun when they were cancelled"
        await eventually(lambda: not service.processes_of(), "nothing of them is left")
        await eventually(service.is_free, "the machine is free again")


async def declare(service: Service, machine: dict[str, Any]) -> None:
    """Create a machine as soon as the scheduler has recorded its host."""
    await eventually(lambda: service.says("SELECT count(*) = 1 FROM hosts"), "a host has told that it is there")
    made = await service.execute(CREATE_MACHINE, input=machine)
    assert not made["createMachine"]["userErrors"], made


async def submit_many(service: Service, count: int) -> list[str]:
    """Submit them from several clients at once, each with as many in a request as it may have."""
    given = {"entrypoint": ["true"], "resources": {"cpus": 1}}
    shares = [[given] * (count // AT_ONCE)] * AT_ONCE
    return list(chain.from_iterable(await asyncio.gather(*map(service.submit_many, shares))))


async def cancel_many(service: Service, ids: list[str]) -> None:
    """Cancel them, many in a request; those that have ended meanwhile return an error, which is ignored."""
    for begin in range(0, len(ids), IN_ONE):
        fields = [
            f"c{number}: cancelSimulation(input: {{id: {json.dumps(public_id)}}}) {{ userErrors {{ message }} }}"
            for number, public_id in enumerate(ids[begin : begin + IN_ONE])
        ]
        await service.execute(f"mutation Cancel {{ {' '.join(fields)} }}")


async def ask(service: Service) -> int:
    """Ask again and again how long the queue is, until cancelled; how many answers came."""
    answers = 0
    with suppress(asyncio.CancelledError):
        while True:
            await service.execute(QUEUE)
            answers += 1
            await asyncio.sleep(0.05)  # it is a client, not a load
    return answers


# --- what one simulation can do --------------------------------------------------------------------------------------

FORKS = """
import os, signal, sys
for number in range(100):
    if os.fork() == 0:
        if number % 2: os.setsid()
        if number % 3: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()
print("forked", flush=True)
if len(sys.argv) > 1: signal.pause()
"""
GIGABYTE = """
import json, os
line = b"x" * 1023 + b"\\n"
for step in range(1000):
    os.write(1, json.dumps({"step": step, "loss": step / 7}).encode() + b"\\n")
    for _ in range(10): os.write(1, line * 100)
"""
CLOSES = """
import os, sys, time
print('{"step": 0, "loss": 1}', flush=True)
for descriptor in (0, 1, 2): os.close(descriptor)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
open(sys.argv[2], "w").close()
os._exit(7)
"""


RAVES = """
import json, os
def say(text): os.write(1, (text if isinstance(text, bytes) else text.encode()) + b"\\n")
say("no json"); say("[1, 2]"); say("null"); say("")
say('{"step": 7, "loss": 1}'); say('{"step": 6, "loss": 0.9}'); say('{"step": 8, "loss": "low", "good": true}')
say('{"step": 9, "loss": {"deep": 1}, "fine": 3}')
say('{"step": 10, "loss": NaN}'); say('{"step": 11, "loss": -Infinity}')
say(json.dumps({f"m{number}": number for number in range(100)} | {"step": 2**31 + 1}))
say('{"' + "n" * 1_000_000 + '": 1}'); say('{"long": 1, "pad": "' + "x" * 10_000_000 + '"}')
say(b"bad \\xff\\xfe bytes"); say(b"nul \\0 byte"); say('{"step": 3000000000, "loss": 1e400}')
os.write(1, b'{"step": 9007199254740992, "loss": 0.5}')
"""


async def test_what_is_no_point_goes_to_the_log_and_what_is_one_arrives(service: Service) -> None:
    simulation = await service.submit("python", "-c", RAVES)
    watch = Watch.of(service, simulation)
    last = await watch.to_the_end()
    assert (last["state"], last["reason"]) == ("FINISHED", "COMPLETED")
    assert points(watch.events, "loss") == [
        (7, 1.0), (10, None), (11, None), (3_000_000_000, None), (2**53, 0.5),
    ]  # fmt: skip
    assert points(watch.events, "fine") == [(9, 3.0)]
    assert [points(watch.events, f"m{number}") for number in range(100)] == [
        [(2**31 + 1, float(number))] for number in range(100)
    ]
    assert points(watch.events, "long") == []
    shown = await service.show(simulation)
    logged = "\n".join(chunk["text"] for chunk in shown["logs"]["nodes"] if chunk["stream"] == "STDOUT")
    for line in ("no json", "[1, 2]", '{"step": 6, "loss": 0.9}', "bad \ufffd\ufffd bytes", "nul \ufffd byte"):
        assert line in logged.split("\n")
    assert "x" * 1000 in logged
    assert "bytes more]" in logged


async def test_a_simulation_that_forks_a_hundred_children_leaves_none_behind(service: Service) -> None:
    ends, stays = await service.submit("python", "-c", FORKS), await service.submit("python", "-c", FORKS, "stay")
    assert (await service.finished(ends))["reason"] == "COMPLETED"
    await service.until(stays, "RUNNING")
    [attempt] = (await service.show(stays))["attempts"]
    await eventually(lambda: len(service.processes_of(attempt["id"])) == 102, "supervisor, child and its hundred")
    await service.cancel(stays)
    assert (await service.finished(stays))["state"] == "CANCELLED"
    await eventually(lambda: not service.processes_of(), "none is left")


async def test_a_simulation_that_prints_a_gigabyte_loses_log_and_no_point(service: Service) -> None:
    simulation = await service.submit("python", "-c", GIGABYTE)
    shown = await service.finished(simulation, seconds=240)
    assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED")
    stored = await service.log_of(simulation, "loss")
    assert [(step, value) for _, step, value in stored] == [(step, step / 7) for step in range(1000)]
    [size] = await service.fetch("SELECT sum(length(text)) FROM log_chunks")
    assert 0 < size["sum"] < 70 * 2**20
    dropped = await service.fetch("SELECT text FROM log_chunks WHERE stream = 'SUPERVISOR' AND text LIKE 'dropped %'")
    assert dropped, "and it says so"


async def test_a_simulation_that_closes_its_output_goes_on_to_its_own_end(service: Service, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    simulation = await service.submit("python", "-c", CLOSES, str(go), str(done))
    watch = Watch.of(service, simulation)
    await watch.has_received(1)
    go.touch()
    last = await watch.to_the_end()
    assert done.exists()
    assert (last["state"], last["reason"]) == ("FAILED", "EXIT_CODE")
    assert (await service.show(simulation))["attempts"][0]["exitCode"] == 7


async def test_simulations_that_exit_before_they_are_told_anything_end_as_they_wanted(service: Service) -> None:
    ids = [await service.submit(command) for command in ("true", "false") * 5]
    ends = [(await service.finished(each))["reason"] for each in ids]
    assert ends == ["COMPLETED", "EXIT_CODE"] * 5
    await eventually(lambda: not service.processes_of(), "nothing of them is left")
