"""The main job, end to end: real processes, real sockets, the clients that users have."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from live import CLIENT, PATIENCE_SECONDS, ROOT, Service, eventually, output_of, points, service_on, within

DEMO = ("python", "-m", "runner.demo")


def node() -> list[str]:
    """Node of this machine, or the one that the test's dependencies brought."""
    program = shutil.which("node", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    assert program is not None, "node is missing: make test installs it"
    return [program]


async def test_the_demo_runs_to_its_end_and_the_graphql_ws_client_sees_every_point(service: Service) -> None:
    # Attended: it begins when the client watches, so that the client sees it run however long Node takes to start.
    simulation = await service.submit(*DEMO, "--steps", "60", "--interval", "0.01", "--seed", "7", attended=True)

    client = await asyncio.create_subprocess_exec(
        *node(), CLIENT / "convergence.mjs", f"ws://127.0.0.1:{service.port}/graphql", simulation,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await output_of(client)

    assert client.returncode == 0, errors
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    assert [step for step, _ in points(events, "loss")] == list(range(60))
    states = list(dict.fromkeys(event["state"] for event in events))
    assert states[-2:] == ["RUNNING", "FINISHED"]
    assert (events[-1]["state"], events[-1]["reason"]) == ("FINISHED", "COMPLETED")

    # A later subscriber gets the same curve, through another client.
    again = await service.events(simulation)
    assert points(again, "loss") == points(events, "loss")
    shown = await service.show(simulation)
    assert [event["kind"] for event in shown["events"]] == ["QUEUED", "STARTING", "RUNNING", "FINISHED"]
    assert [attempt["exitCode"] for attempt in shown["attempts"]] == [0]


async def test_a_subscriber_resumes_from_any_cursor_without_a_gap_or_a_duplicate(service: Service) -> None:
    simulation = await service.submit(*DEMO, "--steps", "40", "--interval", "0.02")
    whole = await service.events(simulation)

    for place in range(0, len(whole), 5):
        rest = await service.events(simulation, after=whole[place]["cursor"])
        assert points(whole[: place + 1] + rest, "loss") == points(whole, "loss")


async def test_a_diverging_demo_delivers_null_and_finishes(service: Service) -> None:
    simulation = await service.submit(*DEMO, "--steps", "30", "--interval", "0", "--diverge")
    events = await service.events(simulation)

    assert None in [value for _, value in points(events, "loss")]
    assert events[-1]["state"] == "FINISHED"


@pytest.mark.parametrize(("rate", "learns"), [("0.005", True), ("1000", False)])
async def test_the_digits_example_learns_or_visibly_fails_to(service: Service, rate: str, learns: bool) -> None:
    pytest.importorskip("sklearn")
    simulation = await service.submit(
        "python", str(ROOT / "examples" / "digits.py"), "--learning-rate", rate, "--epochs", "15"
    )
    events = await service.events(simulation)

    assert (events[-1]["state"], events[-1]["reason"]) == ("FINISHED", "COMPLETED")
    accuracy = points(events, "accuracy")[-1][1]
    assert (accuracy is not None and accuracy > 0.85) is learns


async def test_an_exit_code_is_told_and_the_log_says_why(service: Service) -> None:
    simulation = await service.submit("python", "-c", "import sys; print('no data'); sys.exit(3)")
    shown = await service.finished(simulation)

    assert (shown["state"], shown["reason"]) == ("FAILED", "EXIT_CODE")
    assert shown["attempts"][0]["exitCode"] == 3
    assert "no data" in "".join(chunk["text"] for chunk in shown["logs"]["nodes"])


ONE_BY_ONE = """
import pathlib, sys, time
for i in range(1, 11):
    while not pathlib.Path(sys.argv[1], str(i)).exists(): time.sleep(0.01)
    print("line", i, flush=True)
"""


async def test_lines_that_came_one_by_one_are_lines(service: Service, tmp_path: Path) -> None:
    simulation = await service.submit("python", "-c", ONE_BY_ONE, str(tmp_path))
    for number in range(1, 11):
        (tmp_path / str(number)).touch()
        is_stored = partial(service.says, "SELECT count(*) >= $1 FROM log_chunks WHERE stream = 'STDOUT'", number)
        await eventually(is_stored, f"line {number} is stored")
    shown = await service.finished(simulation)
    assert len(shown["logs"]["nodes"]) >= 10, "each in a chunk of its own"

    for options, lines in (((), range(1, 11)), (("-n", "3"), range(8, 11)), (("-f",), range(1, 11))):
        told = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", "logs", *options, simulation, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SIMULATIONS_URL": f"http://127.0.0.1:{service.port}"},
        )  # fmt: skip
        output, _ = await output_of(told)
        assert output.splitlines() == [f"line {number}" for number in lines]


async def test_a_command_that_does_not_exist_is_a_launch_error_that_names_it(service: Service) -> None:
    shown = await service.finished(await service.submit("no-such-program"))

    assert (shown["state"], shown["reason"]) == ("FAILED", "LAUNCH_ERROR")
    assert "no-such-program" in shown["reasonDetail"]


async def test_a_working_directory_has_to_be_there_and_allowed(database_url: str, tmp_path: Path) -> None:
    allowed, missing, other = tmp_path / "allowed", tmp_path / "allowed" / "missing", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    with service_on(database_url, SIMULATIONS_WORKING_DIRECTORY_ROOTS=str(allowed)) as service:
        await service.up()
        for directory, sentence in ((missing, "does not exist"), (other, "is not inside a directory allowed")):
            shown = await service.finished(await service.submit("pwd", workingDirectory=str(directory)))
            assert (shown["state"], shown["reason"]) == ("FAILED", "LAUNCH_ERROR")
            assert f"{directory} {sentence}" in shown["reasonDetail"]
        shown = await service.finished(await service.submit("pwd", workingDirectory=str(allowed)))
        assert "".join(chunk["text"] for chunk in shown["logs"]["nodes"]) == str(allowed)
        shown = await service.finished(await service.submit("pwd"))
        place = "".join(chunk["text"] for chunk in shown["logs"]["nodes"])
        assert place.startswith(str(service.data_directory)), "one of its own, where none was asked for"


async def test_a_requirement_that_no_machine_meets_waits_with_the_reason_until_one_joins(service: Service) -> None:
    await eventually(service.is_free, "its machine has joined")
    simulation = await service.submit("true", resources={"cpus": 0.1, "labels": {"zone": "moon"}})

    async def is_told() -> bool:
        waiting = (await service.show(simulation))["waiting"]
        return bool(waiting and waiting["reason"] == "NO_MACHINE_FITS" and "zone=moon" in waiting["detail"])

    await eventually(is_told, "its waiting reason names the requirement that no machine meets")
    joined = await service.execute(
        "mutation Join($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }",
        input={"name": "lander", "cpus": 1, "memoryGib": 1, "labels": {"zone": "moon"}},
    )
    assert not joined["createMachine"]["userErrors"]
    shown = await service.finished(simulation)
    assert (shown["state"], shown["machine"]["name"]) == ("FINISHED", "lander")


async def test_a_run_that_takes_too_long_is_stopped(service: Service) -> None:
    simulation = await service.submit("sleep", "600", limits={"maxRuntimeSeconds": 1})
    shown = await service.finished(simulation)

    assert (shown["state"], shown["reason"]) == ("FAILED", "MAX_RUNTIME")


async def test_cancel_ends_a_running_simulation_and_everything_it_started(service: Service) -> None:
    stubborn = "import os, signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    stubborn += "subprocess.Popen(['sleep', '600'], start_new_session=True); print('ready', flush=True); signal.pause()"
    simulation = await service.submit("python", "-c", stubborn)
    await service.until(simulation, "RUNNING")
    attempt = (await service.show(simulation))["attempts"][0]["id"]
    await eventually(lambda: len(service.processes_of(attempt)) >= 3, "supervisor, child and grandchild")
    await service.cancel(simulation)
    shown = await service.finished(simulation)

    assert (shown["state"], shown["reason"]) == ("CANCELLED", "CANCELLED")
    await eventually(lambda: not service.processes_of(attempt), "all of it is gone")


async def test_ctrl_c_ends_the_service_but_not_the_simulation_and_a_new_start_picks_it_up(service: Service) -> None:
    simulation = await service.submit(*DEMO, "--steps", "1000000", "--interval", "0.01")
    await service.until(simulation, "RUNNING")
    attempt = (await service.show(simulation))["attempts"][0]["id"]
    graph, scheduler = service.child("graph"), service.child("scheduler")

    assert await service.end(signal.SIGINT) == 0

    assert not graph.is_running()
    assert not scheduler.is_running()
    # Meanwhile a third may list the packages of the program's Python, once.
    await eventually(lambda: len(service.processes_of(attempt)) == 2, "its supervisor and its child are left")
    await service.up()
    events: list[dict[str, Any]] = []
    async with within(PATIENCE_SECONDS, "it is cancelled after some points"):
        async for event in service.curve(simulation):
            events.append(event)
            if len(events) == 20:
                await service.cancel(simulation)
    curve = points(events, "loss")
    assert [step for step, _ in curve] == list(range(len(curve)))
    assert events[-1]["state"] == "CANCELLED"
    assert len((await service.show(simulation))["attempts"]) == 1


async def test_the_command_that_is_announced_works_as_it_stands(service: Service) -> None:
    def announced() -> list[str]:
        return [line for line in service.log_of_start.splitlines() if "In another terminal:" in line]

    await eventually(lambda: bool(announced()), "it says how to go on")
    [line] = announced()
    program, *arguments = shlex.split(line.partition(":")[2])
    assert program == "python"
    ran = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, "--steps", "5", "--interval", "0",
        cwd=service.data_directory, env=clean_environment(), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await output_of(ran)
    assert ran.returncode == 0
    assert "FINISHED (COMPLETED)" in output


def clean_environment() -> dict[str, str]:
    """What another terminal has: nothing of where the service is."""
    own = ("SIMULATIONS_", "PG")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOST", "PORT", "DATABASE_URL") and not name.startswith(own)
    }


async def test_everything_on_the_embedded_database_survives_a_restart() -> None:
    with service_on(None) as service:
        await service.up()
        simulation = await service.submit(*DEMO, "--steps", "20", "--interval", "0")
        before = await service.events(simulation)
        assert await service.end(signal.SIGINT) == 0

        await service.up()
        after = await service.events(simulation)
        assert points(after, "loss") == points(before, "loss")
        assert await service.end() == 0
