"""Simulations on several machines, in real processes: two machines of one host, whose members meet over TCP."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live import BRISK, Service, eventually, held, kill, number_of

from db.connection import create_engine, session_factory
from db.events import PLANNER
from runner.supervisor import assignment
from transitions.preempt import preempt

# Rank 0 listens where it is told to, the others connect; then each adds up what the others send. `SIGN` is a file for
# which all wait before they end.
PROGRAM = """
import json, os, pathlib, socket, sys, time

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
assert (rank, size) == (int(os.environ["SIMULATION_RANK"]), int(os.environ["SIMULATION_WORLD_SIZE"]))
meeting = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
attempt, sign = int(os.environ["SIMULATION_ATTEMPT"]), pathlib.Path(sys.argv[1])

def line(connection):
    return connection.makefile("rw")

if rank == 0:
    with socket.create_server(meeting, reuse_port=False) as listener:
        peers = [line(listener.accept()[0]) for _ in range(size - 1)]
    total = sum(int(peer.readline()) for peer in peers)
    for peer in peers:
        print(total, file=peer, flush=True)
else:
    while True:
        try:
            peer = line(socket.create_connection(meeting))
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    print(rank * 10, file=peer, flush=True)
    total = int(peer.readline())
print(json.dumps({"step": attempt, "total": total + rank}), flush=True)
print("rank", rank, "of", size, flush=True)
while not (sign / f"end-{attempt}").exists():
    time.sleep(0.01)
sys.exit(3 if (sign / f"fail-{attempt}-{rank}").exists() else 0)
"""
# Goes on where the attempt before left off; at SIGTERM it writes down where it is. Ends by itself at a sign.
TRAINING = """
import json, os, pathlib, signal, sys, time

kept, enough = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "step"), pathlib.Path(sys.argv[1], "enough")
step = int(kept.read_text()) if kept.exists() else 0
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended and not enough.exists():
    step += 1
    print(json.dumps({"step": step, "loss": 1 / step}), flush=True)
    time.sleep(0.02)
kept.write_text(str(step))
"""
MACHINES = "{ machines(states: [ONLINE]) { nodes { id simulations { id } } } }"
DRAIN = "mutation ($input: DrainMachineInput!) { drainMachine(input: $input) { userErrors { message } } }"
MACHINE = "mutation ($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }"
SHOWN = """
query ($id: ID!) {
  simulation(id: $id) {
    state reason reasonDetail waiting { reason detail }
    attempts { reason reasonDetail members { rank machineName exitCode signal endedAt } }
    notices { kind count }
    first: logs(rank: 0) { nodes { stream text } } second: logs(rank: 1) { nodes { stream text } }
  }
}
"""


class Gang:
    """A service with two machines, and a directory of signs for the programs."""

    def __init__(self, service: Service, signs: Path) -> None:
        self.service = service
        self.signs = signs

    def sign(self, name: str) -> None:
        (self.signs / name).touch()

    async def submit(self, machines: int = 2, **given: Any) -> str:
        return await self.service.submit(
            sys.executable, "-c", PROGRAM, str(self.signs), machines=machines, resources={"cpus": 1}, **given
        )

    async def has_met(self, simulation: str, attempt: int = 1) -> None:
        """Wait for the curve, which begins when the members have met, and for both logs."""

        async def met() -> bool:
            steps = [step for number, step, _ in await self.service.log_of(simulation, "total") if number == attempt]
            return bool(steps) and (await self.show(simulation))["second"]["nodes"] != []

        await eventually(met, f"the members of attempt {attempt} have met")

    async def show(self, simulation: str) -> Any:
        return (await self.service.execute(SHOWN, id=simulation))["simulation"]

    def recorded(self, who: str, rank: int) -> Any:
        """The `supervisor` or `child` of a member."""
        for path in (self.service.data_directory / "attempts").glob("*/config.json"):
            if assignment.read(path.parent)["rank"] == rank:
                [process] = self.service.recorded(who, path.parent.name)
                return process
        raise LookupError(rank)


@pytest.fixture
async def gang(lend: Any, tmp_path: Path) -> AsyncIterator[Gang]:
    settings = {**BRISK, "SIMULATIONS_LOCAL_MACHINE": "false"}
    async with lend(**settings) as service:
        for name in ("left", "right"):
            made = await service.execute(MACHINE, input={"name": name, "cpus": 1, "memoryGib": 1})
            assert not made["createMachine"]["userErrors"], made
        yield Gang(service, tmp_path)


async def test_two_members_start_together_on_two_machines_meet_and_end(gang: Gang) -> None:
    simulation = await gang.submit()
    await gang.has_met(simulation)
    gang.sign("end-1")
    assert (await gang.service.finished(simulation))["state"] == "FINISHED"
    shown = await gang.show(simulation)
    [attempt] = shown["attempts"]
    assert {each["machineName"] for each in attempt["members"]} == {"left", "right"}
    assert [(each["rank"], each["exitCode"]) for each in attempt["members"]] == [(0, 0), (1, 0)]
    assert await gang.service.log_of(simulation, "total") == [(1, 1, 10.0)], "of rank 0 alone"
    assert shown["notices"] == [{"kind": "HIGHER_RANK", "count": 1}]
    assert [each["text"] for each in shown["first"]["nodes"]] == ["rank 0 of 2"]
    assert "rank 1 of 2" in "\n".join(each["text"] for each in shown["second"]["nodes"])
    await eventually(lambda: not gang.service.processes_of(), "no process is left")
    await eventually(gang.service.is_free, "both machines are free")


@pytest.mark.parametrize("victim", ["supervisor", "child", "exit"])
async def test_the_end_of_one_member_ends_the_attempt_everywhere_and_the_retry_succeeds(
    gang: Gang, victim: str
) -> None:
    limits = {"maxRetries": 1, "retryOn": ["MACHINE_LOST", "EXIT_CODE"]}
    simulation = await gang.submit(limits=limits)
    await gang.has_met(simulation)
    gang.sign("end-2")
    if victim == "exit":
        gang.sign("fail-1-1")
        gang.sign("end-1")
    else:
        kill(gang.recorded(victim, rank=1))
    finished = await gang.service.finished(simulation)
    shown = await gang.show(simulation)
    assert (finished["state"], finished["reason"]) == ("FINISHED", "COMPLETED"), shown
    first, second = shown["attempts"]
    assert first["reason"] == ("MACHINE_LOST" if victim == "supervisor" else "EXIT_CODE")
    assert first["reasonDetail"].startswith("Rank 1 of 2, on ")
    assert [each["exitCode"] for each in second["members"]] == [0, 0]
    assert [(attempt, step) for attempt, step, _ in await gang.service.log_of(simulation, "total")] == [(1, 1), (2, 2)]
    await eventually(lambda: not gang.service.processes_of(), "no process is left")
    await eventually(gang.service.is_free, "both machines are free")


@pytest.mark.parametrize("victims", [["scheduler"], ["graph"], ["graph", "scheduler"], ["launcher"]])
async def test_a_part_of_the_service_that_is_killed_changes_nothing_for_a_gang(gang: Gang, victims: list[str]) -> None:
    simulation = await gang.submit(limits={"maxRetries": 0})
    await gang.has_met(simulation)
    kill(*(gang.service.launchers() if victims == ["launcher"] else map(gang.service.child, victims)))
    gang.sign("end-1")
    await gang.service.whole()
    shown = await gang.service.finished(simulation)
    assert (shown["state"], len(shown["attempts"])) == ("FINISHED", 1)


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_member_that_is_killed_before_its_hello_ends_the_wait_of_the_other(gang: Gang, rank: int) -> None:
    service = gang.service
    async with service.paused("scheduler"):
        simulation = await gang.submit(limits={"maxRetries": 1, "retryOn": ["MACHINE_LOST"]})
        graph = await service.pause("graph")
    with held(graph):
        await eventually(lambda: len(service.recorded("supervisor")) == 2, "both supervisors are started")
        kill(gang.recorded("supervisor", rank))
    gang.sign("end-2")
    shown = await service.finished(simulation)
    reasons = [each["reason"] for each in shown["attempts"]]
    assert (shown["state"], reasons) == ("FINISHED", ["MACHINE_LOST", "COMPLETED"])
    assert [attempt for attempt, _, _ in await service.log_of(simulation, "total")] == [2], "none ran alone"


async def test_one_that_is_larger_than_all_machines_waits_says_so_and_can_be_cancelled(gang: Gang) -> None:
    simulation = await gang.submit(machines=3)

    async def waits() -> bool:
        return (await gang.show(simulation))["waiting"] is not None

    await eventually(waits, "it was considered")
    assert (await gang.show(simulation))["waiting"] == {
        "reason": "NO_MACHINE_FITS",
        "detail": "It needs 3 machines at once: 2 machines meet its requirements.",
    }
    smaller = await gang.submit()
    gang.sign("end-1")
    assert (await gang.service.finished(smaller))["state"] == "FINISHED"
    await gang.service.cancel(simulation)
    assert (await gang.service.finished(simulation))["state"] == "CANCELLED"


async def test_a_cancelled_gang_is_stopped_everywhere(gang: Gang) -> None:
    simulation = await gang.submit()
    await gang.has_met(simulation)
    await gang.service.cancel(simulation)
    assert (await gang.service.finished(simulation))["state"] == "CANCELLED"
    [attempt] = (await gang.show(simulation))["attempts"]
    assert [each["signal"] for each in attempt["members"]] == [15, 15]
    await eventually(lambda: not gang.service.processes_of(), "no process is left")


# --- preemption and drains -------------------------------------------------------------------------------------------


async def preempted(service: Service, simulation: str) -> bool:
    engine = create_engine(service.database_url, application="test")
    try:
        async with session_factory(engine).begin() as session:
            return await preempt(session, number_of(simulation), PLANNER, evidence={"for": "a test"})
    finally:
        await engine.dispose()


@pytest.mark.parametrize("victim", ["graph", "scheduler", "launcher", "supervisor"])
async def test_a_gang_that_is_preempted_runs_again_whatever_is_killed_meanwhile(gang: Gang, victim: str) -> None:
    service = gang.service
    simulation = await gang.submit(limits={"maxRetries": 0})
    await gang.has_met(simulation)
    assert await preempted(service, simulation)
    match victim:
        case "launcher":
            kill(*service.launchers())
        case "supervisor":
            kill(gang.recorded("supervisor", rank=1))
        case _:
            kill(service.child(victim))
    gang.sign("end-2")
    await service.whole()
    shown = await service.finished(simulation)
    reasons = [each["reason"] for each in shown["attempts"]]
    assert (shown["state"], reasons) == ("FINISHED", ["PREEMPTED", "COMPLETED"]), "no retry was left"
    assert [attempt for attempt, _, _ in await service.log_of(simulation, "total")] == [1, 2]
    await eventually(lambda: not service.processes_of(), "no process is left")
    await eventually(service.is_free, "both machines are free")


async def test_what_a_drained_machine_still_runs_at_its_deadline_goes_on_elsewhere_from_its_checkpoint(
    gang: Gang,
) -> None:
    service = gang.service
    simulation = await service.submit(
        sys.executable, "-c", TRAINING, str(gang.signs), resources={"cpus": 1}, limits={"maxRetries": 0}
    )

    async def reports(attempt: int) -> bool:
        return any(each == attempt for each, _, _ in await service.log_of(simulation, "loss"))

    await eventually(lambda: reports(1), "it has begun")
    was_on = (await service.show(simulation))["machine"]["name"]
    [drained] = [each for each in (await service.execute(MACHINES))["machines"]["nodes"] if each["simulations"]]
    past = "2026-01-01T00:00:00Z"
    answer = await service.execute(DRAIN, input={"id": drained["id"], "deadline": past})
    assert not answer["drainMachine"]["userErrors"], answer
    await eventually(lambda: reports(2), "it goes on")
    gang.sign("enough")
    shown = await service.finished(simulation)
    attempts = [(each["reason"], each["exitCode"]) for each in shown["attempts"]]
    assert attempts == [("PREEMPTED", 0), ("COMPLETED", 0)]
    assert {was_on, shown["machine"]["name"]} == {"left", "right"}
    steps = [step for _, step, _ in await service.log_of(simulation, "loss")]
    assert steps == list(range(1, len(steps) + 1)), "no gap: they are of one host"
