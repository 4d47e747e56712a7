"""Sweeps in real processes: kill -9 of scheduler and API at any time, a budget, and a loser that is pruned."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from live import ROOT, Service, eventually, kill, output_of

from policy.sampling import Trial, ask
from policy.search_space import Parameter, Sampler

CREATE = """
mutation ($input: CreateSweepInput!) { createSweep(input: $input) { sweep { id } userErrors { message } } }
"""
SHOW = """
query ($id: ID!) {
  sweep(id: $id) {
    state reason counts { complete failed pruned } cost { amount } best { number value }
    trials { nodes { number state value step parameters simulations { entrypoint state reason reasonDetail } } }
  }
}
"""
# Ends by itself with a good parameter; with another it waits to be stopped.
TRAINS = """
import json, signal, sys
x = float(sys.argv[1])
for step in range(1, 11):
    print(json.dumps({"step": step, "val/loss": x + 1 / step}), flush=True)
if x > 0.5:
    signal.pause()
"""


async def sweep(service: Service, **given: Any) -> str:
    made = await service.execute(CREATE, input={"objective": {"metric": "val/loss"}, **given})
    assert made["createSweep"]["userErrors"] == [], made
    return str(made["createSweep"]["sweep"]["id"])


async def ended(service: Service, sweep_id: str) -> Any:
    seen: list[Any] = []

    async def is_over() -> bool:
        seen.append((await service.execute(SHOW, id=sweep_id))["sweep"])
        return bool(seen[-1]["state"] != "RUNNING")

    await eventually(is_over, "the sweep ends", seconds=240)
    return seen[-1]


async def priced_machine(service: Service) -> str:
    """A cent a second for each cpu."""
    await eventually(lambda: service.says("SELECT count(*) > 0 FROM hosts"), "a host is known")
    [[host]] = await service.fetch("SELECT id FROM hosts LIMIT 1")
    made = await service.execute(
        "mutation ($input: CreateMachineInput!) "
        "{ createMachine(input: $input) { machine { id } userErrors { message } } }",
        input={"name": "priced", "cpus": 2, "memoryGib": 1, "pricePerHour": "72", "host": host},
    )  # fmt: skip
    assert made["createMachine"]["userErrors"] == [], made
    return str(made["createMachine"]["machine"]["id"])


async def test_kill_9_of_scheduler_and_api_changes_no_parameters_and_the_budget_holds(brisk: Service) -> None:
    machine = await priced_machine(brisk)
    sweep_id = await sweep(
        brisk,
        simulation={
            "entrypoint": [sys.executable, "-c", TRAINS, "{x}"], "resources": {"cpus": 1, "machine": machine},
        },
        parameters=[{"name": "x", "low": 0.0, "high": 0.5}], trials=6, parallel=2, seed=7, maxCost="2",
    )  # fmt: skip
    for number, part in enumerate(("scheduler", "graph", "scheduler")):
        await eventually(
            lambda number=number: brisk.says(f"SELECT count(*) > {number} FROM sweep_trials"),  # type: ignore[misc]
            "a trial has begun",
        )
        kill(brisk.child(part))
        await brisk.whole()
    shown = await ended(brisk, sweep_id)
    assert shown["reason"] in ("COMPLETED", "MAX_COST"), shown
    space = [Parameter("x", low=0.0, high=0.5)]
    trials: list[Trial] = []
    for each in shown["trials"]["nodes"]:
        expected = ask(Sampler.TPE, space, "MIN", 7, trials)  # its first ten trials are drawn without the others
        assert each["parameters"] == expected.parameters
        assert [run["entrypoint"][-1] for run in each["simulations"]] == [str(expected.parameters["x"])]
        trials.append(Trial(len(trials), expected.parameters))
    assert shown["counts"]["complete"] >= 1
    assert 0 < Decimal(shown["cost"]["amount"]) <= 2
    best = min((each for each in shown["trials"]["nodes"] if each["value"] is not None), key=lambda each: each["value"])
    assert shown["best"] == {"number": best["number"], "value": best["value"]}


async def test_a_loser_is_pruned_while_it_runs(brisk: Service) -> None:
    choices = Parameter("x", choices=(0.1, 0.2, 0.9))

    def order(seed: int) -> list[object]:
        trials: list[Trial] = []
        for number in range(3):
            trials.append(Trial(number, ask(Sampler.GRID, [choices], "MIN", seed, trials).parameters))
        return [each.parameters["x"] for each in trials]

    seed = next(each for each in range(100) if order(each)[-1] == 0.9)
    sweep_id = await sweep(
        brisk, simulation={"entrypoint": [sys.executable, "-c", TRAINS, "{x}"], "limits": {"maxSteps": 20},
                           "resources": {"cpus": 0.1}},
        parameters=[{"name": "x", "choices": [0.1, 0.2, 0.9]}], sampler="GRID", seed=seed,
    )  # fmt: skip
    shown = await ended(brisk, sweep_id)
    assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED")
    assert shown["counts"] == {"complete": 2, "failed": 0, "pruned": 1}
    loser = shown["trials"]["nodes"][2]
    [run] = loser["simulations"]
    assert (run["state"], run["reason"]) == ("FINISHED", "PRUNED")
    assert "trials at step 2 are better than its 1.4" in run["reasonDetail"]
    assert (loser["state"], loser["step"]) == ("PRUNED", 2)
    assert shown["best"]["value"] == 0.2


async def run(service: Service, *words: str, status: int = 0) -> tuple[str, str]:
    """A command of the command line: its standard output and error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "SIMULATIONS_URL": service.address},
    )  # fmt: skip
    out, err = await output_of(process)
    assert process.returncode == status, err
    return out, err


async def test_a_sweep_from_the_command_line_to_an_optuna_study(brisk: Service, tmp_path: Path) -> None:
    number, told = await run(
        brisk, "sweep", "-p", "x=0.1,0.2,0.3", "-p", "n=3", "--sampler", "grid", "--parallel", "3", "--cpus", "0.1",
        "--objective", "val/loss", "--watch", "--", sys.executable, "-c", TRAINS, "{x}",
    )  # fmt: skip
    number = number.strip()
    assert "3/3 trials; best val/loss 0.2 (trial" in told
    assert "FINISHED: All of its 3 trials have begun." in told

    listed, _ = await run(brisk, "sweeps", "--json")
    assert [each["counts"]["complete"] for each in json.loads(listed) if str(each["number"]) == number] == [3]
    table, _ = await run(brisk, "sweep", "show", number)
    assert [line.split()[1] for line in table.splitlines() if line[:1].isdigit()] == ["0.2", "0.3", "0.4"]
    best, words = await run(brisk, "sweep", "best", number)
    assert "x=0.1" in words
    shown, _ = await run(brisk, "show", best.strip(), "--json")
    assert json.loads(shown)["parameters"] == {"n": 3, "x": 0.1}
    again, _ = await run(brisk, "retry", best.strip())
    assert again.strip()
    _, refused = await run(brisk, "sweep", "cancel", number, status=6)
    assert "It has ended already: COMPLETED." in refused

    file = tmp_path / "study.db"
    _, told = await run(brisk, "sweep", "export", number, str(file), "--name", "mine")
    [line] = told.splitlines()  # and no warning of a library
    assert line.startswith(f"Wrote 3 trials of #{number} ")
    _, refused = await run(brisk, "sweep", "export", number, str(file), "--name", "mine", status=2)
    assert "has a study of that name" in refused
    with closing(sqlite3.connect(file)) as database:
        values = database.execute("SELECT value FROM trial_values ORDER BY value").fetchall()
    assert [each for (each,) in values] == pytest.approx([0.2, 0.3, 0.4])
