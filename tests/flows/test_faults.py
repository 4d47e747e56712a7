"""Faults other than kills: outages, clocks, full disks, second instances, and attempts that return too late."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from live import BRISK, PROGRAM_SECONDS, Service, eventually, free_port, held, http, kill, part_on, points, service_on
from observers import Watch, Witness
from outages import GONE

from cli.errors import ExitCode
from db.embedded.server import EmbeddedServer, serve
from runner.supervisor import assignment

Lend = Any  # a fixture of conftest.py

FEW = 5  # points to see before something happens
LEASE_SECONDS = 4.0  # a dozen heartbeats: who beats is not lost on a busy machine
SHORT_LEASE = {**BRISK, "SIMULATIONS_LEASE_SECONDS": f"{LEASE_SECONDS:g}"}
LONG_LEASE = {**BRISK, "SIMULATIONS_LEASE_SECONDS": "60"}
# A scheduler that takes another lock than the others, and so leads beside another leader.
SECOND_LEADER = (
    "-c",
    "import sys, scheduler.leader, scheduler.__main__ as it; scheduler.leader.LEADER_LOCK += 1; sys.exit(it.main())",
)
DRAIN = "mutation Drain($id: ID!) { drainMachine(input: {id: $id}) { userErrors { message } } }"
RESUME = "mutation Resume($id: ID!) { resumeMachine(input: {id: $id}) { userErrors { message } } }"
HELLO = """
mutation Hello($input: HelloAttemptInput!) { helloAttempt(input: $input) { attempt { id } verdict } }
"""
REPORT = """
mutation Report($input: ReportAttemptInput!) {
  reportAttempt(input: $input) { attempt { id } verdict expectedBatch }
}
"""


COVERED = """
SELECT count(*) = 2
   AND min(now() - covered_since) > $1 * interval '1 s'
   AND max(now() - beat_at) < $1 * interval '0.3 s'
FROM coverage
"""
AN_HOUR_AGO = """
UPDATE attempts SET stop_wanted_at = stop_wanted_at - interval '1 hour';
UPDATE coverage SET covered_since = now();
"""
DEMO = ("python", "-m", "runner.demo", "--steps", "1000000", "--interval", "0.01")
SILENT_FOR_AN_HOUR = """
UPDATE members AS m SET heartbeat_at = m.heartbeat_at - interval '1 hour'
FROM attempts AS a WHERE a.id = m.attempt_id AND a.number = 1 AND m.ended_at IS NULL;
UPDATE coverage SET covered_since = covered_since - interval '1 hour';
UPDATE hosts SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE name = 'elsewhere';
UPDATE machines SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE name = 'elsewhere';
"""
LATE_POINTS = {"loss": {"steps": [10**6], "values": [0.5], "elapsed": [1.0]}}


@pytest.fixture
async def own_server(filled_directory: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that belongs to the test, which may do with it what it likes."""
    with serve(filled_directory, settings={"fsync": "off"}) as server:
        yield server


async def running(service: Service, **given: Any) -> tuple[Witness, Watch]:
    """Start a simulation, and subscribe to it."""
    witness = Witness.on(service)
    witness.permit("speak")
    watch = Watch.of(service, await service.submit(*witness.command, **given))
    await watch.has_received(FEW)
    return witness, watch


async def it_completes(service: Service, witness: Witness, watch: Watch) -> None:
    """Let it finish: it was never lost, and everything it printed arrived once and in order."""
    witness.permit("finish")
    last = await watch.to_the_end()
    assert (last["state"], last["reason"]) == ("FINISHED", "COMPLETED")
    assert len((await service.show(watch.simulation_id))["attempts"]) == 1
    [printed] = witness.notes("printed")
    stored = await service.log_of(watch.simulation_id, "loss")
    assert [step for _, step, _ in stored] == list(range(printed))
    assert watch.received("loss") == stored


async def more_than_a_lease() -> None:
    """Wait until a lease has passed; it is time itself that is waited for."""
    until = time.monotonic() + 1.2 * LEASE_SECONDS
    await eventually(lambda: time.monotonic() > until, "a lease has passed")


async def a_covered_lease(service: Service) -> None:
    """Wait until attempts that were silent all the time would have been found."""
    await service.in_time_says("a lease is covered", COVERED, 1.2 * LEASE_SECONDS)
    await service.rounds(3)


# --- outages ---------------------------------------------------------------------------------------------------------


async def test_a_service_that_comes_back_at_another_address_is_found(lend: Lend) -> None:
    async with lend(**BRISK) as service:
        witness, watch = await running(service)
        assert await service.end() == 0
        service.port = free_port()
        await service.up()
        await watch.has_received(witness.said + FEW)
        await it_completes(service, witness, watch)


@pytest.mark.parametrize("how", ["stopped", "hanging"])
async def test_a_database_that_is_away_for_longer_than_a_lease_costs_nothing(
    own_server: EmbeddedServer, how: str
) -> None:
    with service_on(own_server.url, **SHORT_LEASE) as service:
        await service.up()
        witness, watch = await running(service)
        if how == "stopped":
            kill(psutil.Process(own_server.pid))
            await more_than_a_lease()
            own_server.restart()
        else:
            async with GONE[how](own_server):
                await more_than_a_lease()
        await service.ready()
        await a_covered_lease(service)
        await it_completes(service, witness, watch)


@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_an_outage_under_reporting_simulations_is_two_lines_for_each_process_and_no_traceback(
    own_server: EmbeddedServer, how: str
) -> None:
    """It was 271 tracebacks for 20 simulations in 20 seconds."""
    with service_on(own_server.url, **LONG_LEASE) as service:
        await service.up()
        witness, watch = await running(service)
        others = [await service.submit(*DEMO) for _ in range(4)]
        for each in others:
            await service.until(each, "RUNNING")
        async with GONE[how](own_server):
            await eventually(lambda: service.log.count("database_away") == 2, "graph and scheduler have noticed")
            async with http() as client:
                for _ in range(20):
                    response = await client.post(
                        f"{service.address}/graphql", json={"query": "{ tokens { nodes { id } } }"}
                    )
                    assert response.status_code == 503, response.text
                    assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
                assert (await client.get(f"{service.address}/readyz")).status_code == 503
        await eventually(lambda: service.log.count("database_back") == 2, "and that it is back")
        await it_completes(service, witness, watch)
        for each in others:
            assert [attempt["reason"] for attempt in (await service.show(each))["attempts"]] == [None]
            await service.cancel(each)
        assert "Traceback" not in service.log
        warnings = [line for line in service.log.splitlines() if '"level": "warning"' in line]
        assert sorted(json.loads(line)["event"] for line in warnings) == ["database_away"] * 2 + ["database_back"] * 2
        assert '"level": "error"' not in service.log


@pytest.mark.parametrize("who", ["graph", "scheduler", "all of it, as when a laptop is closed"])
async def test_who_sleeps_for_longer_than_a_lease_has_lost_no_attempt(lend: Lend, who: str) -> None:
    async with lend(**SHORT_LEASE) as service:
        witness, watch = await running(service)
        sleepers = [service.child(who)] if who in ("graph", "scheduler") else service.everything()
        with held(*sleepers):
            await more_than_a_lease()
        await a_covered_lease(service)
        await it_completes(service, witness, watch)


async def test_a_cancellation_before_an_outage_of_an_hour_takes_effect_after_it(lend: Lend) -> None:
    async with lend(**BRISK) as service:
        witness, watch = await running(service)
        witness.permit("let-go")
        with held(*service.recorded("supervisor")):
            async with service.paused("scheduler"):
                await service.cancel(watch.simulation_id)
                await service.alter(AN_HOUR_AGO)
                kill(service.child("graph"), service.child("scheduler"))
        last = await watch.to_the_end()

        assert (last["state"], last["reason"]) == ("CANCELLED", "CANCELLED")
        assert witness.notes("told"), "it was asked to end, and not killed"
        [printed] = witness.notes("printed")
        assert [step for _, step, _ in watch.received("loss")] == list(range(printed)), "and had time to tell the rest"
        await eventually(lambda: not service.processes_of(), "nothing of it is left")


async def test_a_simulation_cancelled_while_its_supervisor_is_cut_off_never_begins(
    database_url: str,
) -> None:
    nowhere = {"SIMULATIONS_PUBLIC_URL": f"http://127.0.0.1:{free_port()}"}
    with service_on(database_url, **BRISK, **nowhere) as service:
        await service.up()
        witness = Witness.on(service)
        simulation = await service.submit(*witness.command)
        await eventually(lambda: bool(service.recorded("supervisor")), "its supervisor is started")
        await service.cancel(simulation)
        del service.environment["SIMULATIONS_PUBLIC_URL"]
        assert await service.end() == 0
        await service.up()
        shown = await service.finished(simulation)

        assert (shown["state"], shown["reason"]) == ("CANCELLED", "CANCELLED")
        assert not witness.notes("begun")


async def test_what_waits_is_cancelled_with_no_scheduler_there(lend: Lend) -> None:
    async with lend(**BRISK) as service, service.paused("scheduler"):
        simulation = await service.submit("true")
        await service.cancel(simulation)
        assert (await service.show(simulation))["state"] == "CANCELLED"


# --- clocks ----------------------------------------------------------------------------------------------------------


async def move_clock(service: Service, by: str) -> None:
    """As if Postgres' clock had jumped: all times it ever wrote move the other way."""
    service.spent = True
    columns = await service.fetch(
        """
        SELECT table_name, string_agg(format('%1$I = %1$I - interval %2$L', column_name, $1::text), ', ') AS moved
        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type = 'timestamp with time zone'
        GROUP BY table_name
        """,
        by,
    )
    names = [row["table_name"] for row in columns]
    assert {"attempts", "coverage", "hosts", "machines", "simulations"} <= set(names)
    await service.alter("; ".join(f"UPDATE {row['table_name']} SET {row['moved']}" for row in columns))


@pytest.mark.parametrize("by", ["1 hour", "-1 hour"])
async def test_a_clock_that_jumps_loses_nothing_and_stops_nothing(lend: Lend, by: str) -> None:
    async with lend(**LONG_LEASE) as service:
        witness, watch = await running(service, limits={"maxRuntimeSeconds": 600})
        with held(*service.recorded("supervisor")):
            await move_clock(service, by)
            await service.rounds(3)
        await service.rounds(3)
        await it_completes(service, witness, watch)


async def test_after_a_clock_was_set_back_the_queue_moves_on_and_a_silent_attempt_is_found(lend: Lend) -> None:
    async with lend(**SHORT_LEASE) as service:
        witness, watch = await running(service, limits={"maxRetries": 1})
        async with service.paused("scheduler"):
            waiting = await service.submit("true")
            await move_clock(service, "-1 hour")
        assert (await service.finished(waiting))["state"] == "FINISHED"
        with held(*service.processes_of()):
            await witness.has_noted("begun", 2)
        witness.permit("finish")
        await watch.to_the_end()
        attempts = (await service.show(watch.simulation_id))["attempts"]
        assert [attempt["reason"] for attempt in attempts] == ["MACHINE_LOST", "COMPLETED"]


# --- twins -----------------------------------------------------------------------------------------------------------


async def test_a_second_up_on_a_data_directory_names_the_first_and_harms_nothing(lend: Lend) -> None:
    async with lend(**BRISK) as service:
        witness, watch = await running(service)
        before = [service.child("graph"), service.child("scheduler")]
        second = Service(service.data_directory, free_port(), service.environment, starts=service.starts)
        second.start()
        assert await second.ended() == ExitCode.ALREADY_RUNNING
        assert service.process is not None
        assert f"http://localhost:{service.port}" in second.log_of_start
        assert f"pid {service.process.pid}" in second.log_of_start
        assert [service.child("graph"), service.child("scheduler")] == before
        await it_completes(service, witness, watch)


async def test_two_leaders_launch_nothing_twice_and_share_the_work(database_url: str, tmp_path: Path) -> None:
    count, journal = 40, tmp_path / "journal"
    with (
        service_on(database_url, **LONG_LEASE, SIMULATIONS_MACHINE_NAME="here") as service,
        part_on(database_url, SECOND_LEADER, {**LONG_LEASE, "SIMULATIONS_MACHINE_NAME": "there"}) as second,
    ):
        second.port = service.port
        await service.up()
        second.start()
        await eventually(lambda: all("leadership_won" in each.log for each in (service, second)), "both lead")
        simulations = [
            await service.submit("sh", "-c", f"echo {number} >> {journal}; sleep 0.1", resources={"cpus": 0.5})
            for number in range(count)
        ]
        for simulation in simulations:
            assert (await service.finished(simulation))["state"] == "FINISHED"

        assert sorted(map(int, journal.read_text().split())) == list(range(count))
        rows = await service.fetch(
            "SELECT m.machine_name, a.number FROM members m JOIN attempts a ON a.id = m.attempt_id"
        )
        assert {row["number"] for row in rows} == {1}
        assert {row["machine_name"] for row in rows} == {"here", "there"}
        assert await second.end() == 0


async def test_an_old_attempt_that_returns_after_its_successor_began_is_over_and_leaves(database_url: str) -> None:
    """Its host is cut off (scheduler dead, all else stopped), so no process can prove that the attempt is dead."""
    with (
        service_on(database_url, **LONG_LEASE, SIMULATIONS_MACHINE_NAME="here") as service,
        part_on(database_url, ("-m", "scheduler"), {**LONG_LEASE, "SIMULATIONS_MACHINE_NAME": "elsewhere"}) as other,
    ):
        await service.up()
        await eventually(service.is_free, "its machine has joined")
        [here] = await service.machines()
        await service.execute(DRAIN, id=here["id"])
        other.port = service.port
        other.start()
        simulation = await service.submit("python", "-m", "runner.demo", "--steps", "100000", "--interval", "0.01")
        watch = Watch.of(service, simulation)
        await watch.has_received(FEW)
        [attempt] = (await service.show(simulation))["attempts"]
        [place] = other.data_directory.glob("attempts/*")
        token = assignment.read(place)["token"]

        # Meanwhile a third may list the packages of the program's Python, once.
        await eventually(lambda: len(other.processes_of()) == 2, "its supervisor and its child are left")
        with held(*other.processes_of()):
            await other.end(signal.SIGKILL)
            await service.execute(RESUME, id=here["id"])

            async def is_succeeded() -> bool:
                await service.alter(SILENT_FOR_AN_HOUR)  # again, for a new leader counts from its first beat on
                return any(number == 2 for number, _, _ in watch.received("loss"))

            await eventually(is_succeeded, "a successor")
            before = [point for point in await service.log_of(simulation, "loss") if point[0] == 1]
            # By hand first, with everything that the old one knows:
            [row] = await service.fetch(
                "SELECT m.nonce, m.next_batch FROM members m JOIN attempts a ON a.id = m.attempt_id WHERE a.number = 1"
            )
            late = {"batch": row["next_batch"], "points": LATE_POINTS, "exit": {"exitCode": 0}}
            for query, more in ((HELLO, {}), (HELLO, {"nonce": "another"}), (REPORT, {}), (REPORT, late)):
                told = {"attemptId": attempt["id"], "nonce": row["nonce"], **more}
                assert await say(service, token, query, told) == (attempt["id"], "OVER")
        # ... then the real one, which no other process can end any more:
        await eventually(lambda: not other.processes_of(), "it and its child are gone")
        seen = len(watch.received("loss"))
        await watch.has_received(seen + FEW)
        assert [point for point in await service.log_of(simulation, "loss") if point[0] == 1] == before
        shown = await service.show(simulation)
        assert [each["reason"] for each in shown["attempts"]] == ["MACHINE_LOST", None]
        await service.cancel(simulation)
        assert (await watch.to_the_end())["state"] == "CANCELLED"


async def say(service: Service, token: str, query: str, told: dict[str, Any]) -> tuple[str, str]:
    """Speak as a supervisor does; whom the answer names, and the verdict."""
    async with http(headers={"Authorization": f"Bearer {token}"}) as client:
        response = await client.post(f"{service.address}/graphql", json={"query": query, "variables": {"input": told}})
    [answer] = response.json()["data"].values()
    return answer["attempt"]["id"], answer["verdict"]


# --- disks -----------------------------------------------------------------------------------------------------------

FULL_BYTES = 1024
FLOOD = """
import json, os, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
for step in range(int(sys.argv[2])): print(json.dumps({"step": step, "loss": 1 / (step + 1)}))
"""


def has_grown(attempt: Path) -> bool:
    """Whether a batch has grown beyond what a full disk lets it (what could not be written is taken back)."""
    for path in attempt.glob("*.jsonl"):
        with suppress(FileNotFoundError):
            if path.stat().st_size > FULL_BYTES:
                return True
    return False


@pytest.mark.parametrize("disk", ["disk with room", "full disk"])
async def test_what_is_printed_during_an_outage_arrives_after_it(lend: Lend, disk: str, tmp_path: Path) -> None:
    count, go = 200_000, tmp_path / "go"
    async with lend(**LONG_LEASE) as service:
        simulation = await service.submit(
            "python", "-c", FLOOD, str(go), str(count), environment={"PYTHONUNBUFFERED": ""}
        )
        await eventually(lambda: bool(service.recorded("child")), "it runs")
        [supervisor], [child] = service.recorded("supervisor"), service.recorded("child")
        [attempt] = service.data_directory.glob("attempts/*")
        async with service.paused("graph"):
            if disk == "full disk":  # for the supervisor, it seems so: no file of its can grow
                resource.prlimit(supervisor.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
            go.touch()
            await eventually(lambda: not child.is_running(), "all was printed and read", seconds=PROGRAM_SECONDS)
            assert has_grown(attempt) == (disk == "disk with room")
        shown = await service.finished(simulation)
        assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED"), shown
        assert [step for _, step, _ in await service.log_of(simulation, "loss")] == list(range(count))
        await eventually(lambda: not service.processes_of(), "nothing of it is left")


# --- retries ---------------------------------------------------------------------------------------------------------

RESUMES = """
import json, os, pathlib, signal
attempt = int(os.environ["SIMULATION_ATTEMPT"])
kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "step")
begin = int(kept.read_text()) if kept.exists() else 0
for step in range(begin, 10 if attempt == 1 else 15):
    print(json.dumps({"step": step, "loss": attempt}), flush=True)
    if step == 4: kept.write_text("5")
if attempt == 1: signal.pause()
"""


async def test_a_retry_goes_on_from_its_checkpoint_and_supersedes_what_it_reports_again(lend: Lend) -> None:
    async with lend(**BRISK) as service:
        simulation = await service.submit("python", "-c", RESUMES, limits={"maxRetries": 1})
        watch = Watch.of(service, simulation)
        await watch.has_received(10)
        kill(*service.recorded("supervisor"))
        assert (await watch.to_the_end())["state"] == "FINISHED"

        curve = [(step, 1.0) for step in range(5)] + [(step, 2.0) for step in range(5, 15)]
        assert points(watch.events, "loss") == curve
        marks = [(each["attempt"], series["supersedesFrom"]) for each in watch.events for series in each["series"]]
        assert [mark for mark in marks if mark[1] is not None] == [(2, 5)]
        again = await service.events(simulation)
        assert points(again, "loss") == curve, "a later subscriber sees the same"
        shown = await service.show(simulation)
        assert [attempt["reason"] for attempt in shown["attempts"]] == ["MACHINE_LOST", "COMPLETED"]


async def test_only_what_was_chosen_is_retried_and_only_so_often(lend: Lend) -> None:
    third = "import os, sys; sys.exit(int(os.environ['SIMULATION_ATTEMPT']) < 3)"
    orphan = "import os, signal; os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    cases: list[tuple[str, int, list[str], tuple[str, str, list[str]]]] = [
        (third, 2, ["EXIT_CODE"], ("FINISHED", "COMPLETED", ["EXIT_CODE", "EXIT_CODE", "COMPLETED"])),
        (third, 1, ["EXIT_CODE"], ("FAILED", "EXIT_CODE", ["EXIT_CODE", "EXIT_CODE"])),
        (third, 9, ["MACHINE_LOST"], ("FAILED", "EXIT_CODE", ["EXIT_CODE"])),
        (orphan, 1, ["MACHINE_LOST"], ("FAILED", "MACHINE_LOST", ["MACHINE_LOST", "MACHINE_LOST"])),
        (orphan, 9, ["EXIT_CODE"], ("FAILED", "MACHINE_LOST", ["MACHINE_LOST"])),
    ]
    async with lend(**BRISK) as service:
        simulations = [
            await service.submit("python", "-c", code, limits={"maxRetries": most, "retryOn": chosen})
            for code, most, chosen, _ in cases
        ]
        for simulation, (_, _, _, expected) in zip(simulations, cases, strict=True):
            shown = await service.finished(simulation)
            reasons = [attempt["reason"] for attempt in shown["attempts"]]
            assert (shown["state"], shown["reason"], reasons) == expected
        await eventually(lambda: not service.processes_of(), "nothing of them is left")


async def test_what_a_machine_that_shuts_down_ends_politely_is_made_again(lend: Lend) -> None:
    polite = "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
    polite += """print('{"step": 1, "loss": 1}', flush=True); """
    polite += "os.environ['SIMULATION_ATTEMPT'] == '1' and signal.pause()"
    async with lend(**BRISK) as service:
        simulation = await service.submit("python", "-c", polite, limits={"maxRetries": 1})
        watch = Watch.of(service, simulation)
        await watch.has_received(1)  # it handles the signal from then on
        await watch.leave()
        for supervisor in service.recorded("supervisor"):
            supervisor.terminate()
        shown = await service.finished(simulation)
        assert [attempt["reason"] for attempt in shown["attempts"]] == ["MACHINE_LOST", "COMPLETED"]
