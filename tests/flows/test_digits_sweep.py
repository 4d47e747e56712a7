"""A sweep on real processes through kill -9 of everything, beside a grid: what both find, and what they compute for it.

In the long form (`make chaos`) the sweeps have 40 trials of the digits example, the median of 5 seeds; in the short one
there is one, of a few trials of a quick stand-in (`tests/support/trained.py`), in the same code.

A sweep has found what the grid has when its accuracy is as good but for one of the images that are tested, the smallest
difference there is: the best of a thousand such accuracies exceeds the second best by chance (of 80 sweeps replayed on
four seeds' curves 62 came to the very same accuracy with half of the grid's epochs, 76 to one image of it).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import trained
from effort import SWEEP_SEEDS, SWEEP_TRIALS
from live import BRISK, ROOT, Service, eventually, is_alive, kill

EPOCHS = 27
BATCHES = (64, 128)
RATES = (1e-4, 1.0)
STRIKES = range(4, SWEEP_TRIALS, 12)  # everything is killed when so many trials have begun
ROUNDING = 1e-4  # of an accuracy that the program prints
IMAGES = 450  # that are tested: a quarter of 1,797
IS_LONG = SWEEP_SEEDS > 1
PATIENCE_SECONDS = 900 if IS_LONG else 60
PROGRAM = str(ROOT / "examples" / "digits.py") if IS_LONG else trained.__file__
A_TRIAL = Decimal(1)  # of money: what a sweep may cost for each of its trials

MACHINE = """
mutation ($input: CreateMachineInput!) { createMachine(input: $input) { machine { id } userErrors { message } } }
"""
CREATE = """
mutation ($input: CreateSweepInput!) { createSweep(input: $input) { sweep { id number } userErrors { message } } }
"""
SHOW = """
query ($id: ID!) {
  sweep(id: $id) {
    state reason counts { complete failed pruned } cost { amount } best { value }
    trials(first: 100) { nodes { number state value step parameters } }
  }
}
"""
BEGUN = "SELECT count(*) >= $2 FROM sweep_trials WHERE sweep_id = $1"
PROMISED = "SELECT sum(coalesce(final_cost, max_cost)) FROM simulations WHERE sweep_id = $1"
LOST = """
SELECT count(*) FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id
WHERE s.sweep_id = $1 AND a.reason = 'MACHINE_LOST'
"""
# Each epoch that was computed, also in attempts that were killed, in the order of time.
COMPUTED = """
SELECT unnest(c."values") AS accuracy, a.started_at + unnest(c.elapsed) * interval '1 s' AS at
FROM simulations AS s JOIN attempts AS a ON a.simulation_id = s.id
JOIN convergence AS c ON c.simulation_id = s.id AND c.attempt = a.number
WHERE s.sweep_id = $1 AND c.metric = 'accuracy' ORDER BY at
"""
# Curves of given runs, by the program's own function, in a process of its own, as the sweep's are.
CURVES = """
import importlib.util, json, sys, warnings
warnings.filterwarnings("ignore")
spec = importlib.util.spec_from_file_location("program", sys.argv[1])
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
for run in json.load(sys.stdin):
    print(json.dumps([record["accuracy"] for record in program.train(**run)]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a sweep came to, beside its grid."""

    seed: int
    best: float
    of_grid: float
    until: float | None  # the part of the grid's epochs after which it was as good, but for an image
    until_equal: float | None  # and not but for one
    computed: float  # in all, as a part of the grid's epochs
    pruned: int
    lost: int  # attempts
    cost: Decimal

    def __str__(self) -> str:
        until = f"after {self.until:.0%} of its epochs" if self.until is not None else "never"
        until_equal = f"after {self.until_equal:.0%}" if self.until_equal is not None else "never"
        return (
            f"seed {self.seed}: best {self.best} (grid {self.of_grid}), as good but for an image {until}, as good "
            f"{until_equal}, {self.computed:.0%} in all; "
            f"{self.pruned} of {SWEEP_TRIALS} pruned, {self.lost} attempts lost, cost {self.cost}"
        )


@pytest.mark.timeout(240 + PATIENCE_SECONDS * SWEEP_SEEDS)
async def test_a_sweep_finds_what_a_grid_finds_with_half_of_the_compute_although_everything_is_killed(
    lend: Any,
) -> None:
    found = []
    async with lend(own_database=True, **BRISK) as service:
        machine = await priced_machine(service)
        for seed in range(SWEEP_SEEDS):
            found.append(await searched(service, machine, seed))
            print(found[-1])  # noqa: T201  # the figures
    assert all(each.best >= 0.9 * each.of_grid for each in found)
    if IS_LONG:
        shares = [each.until if each.until is not None else 2.0 for each in found]
        assert statistics.median(shares) <= 0.5, found


async def searched(service: Service, machine: str, seed: int) -> Found:
    """A sweep to its end, and its grid."""
    grid = await curves(
        {"learning_rate": rate, "batch_size": batch, "epochs": EPOCHS, "seed": seed}
        for rate in logarithmic(*RATES, -(-SWEEP_TRIALS // len(BATCHES)))
        for batch in BATCHES
    )
    grid, target = grid[:SWEEP_TRIALS], max(map(max, grid[:SWEEP_TRIALS]))
    budget = A_TRIAL * SWEEP_TRIALS
    made = await service.execute(CREATE, input={
        "simulation": {
            "entrypoint": [sys.executable, PROGRAM, "--learning-rate", "{learning_rate}", "--batch-size",
                           "{batch_size}", "--epochs", str(EPOCHS), "--seed", str(seed)],
            "resources": {"cpus": 1, "machine": machine}, "limits": {"maxSteps": EPOCHS, "maxRetries": 10},
        },
        "parameters": [{"name": "learning_rate", "low": RATES[0], "high": RATES[1], "log": True},
                       {"name": "batch_size", "choices": list(BATCHES)}],
        "objective": {"metric": "accuracy"}, "trials": SWEEP_TRIALS, "parallel": 2, "seed": seed,
        "maxCost": str(budget),
    })  # fmt: skip
    assert made["createSweep"]["userErrors"] == [], made
    sweep, number = made["createSweep"]["sweep"]["id"], made["createSweep"]["sweep"]["number"]
    for begun in STRIKES:
        await eventually(
            partial(service.says, BEGUN, number, begun), f"{begun} trials have begun", seconds=PATIENCE_SECONDS
        )
        await strike(service)
        [[promised]] = await service.fetch(PROMISED, number)
        assert promised <= budget
    shown = await ended(service, sweep)
    assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED"), shown
    assert 0 < Decimal(shown["cost"]["amount"]) <= budget
    await each_result_is_that_of_its_curve(shown["trials"]["nodes"], seed)
    values = [value for value, _ in await service.fetch(COMPUTED, number)]
    whole = EPOCHS * len(grid)

    def share(wanted: float) -> float | None:
        return next((at / whole for at, value in enumerate(values, 1) if value >= wanted), None)

    [[lost]] = await service.fetch(LOST, number)
    return Found(
        seed, shown["best"]["value"], target, share(target - 1 / IMAGES - ROUNDING), share(target), len(values) / whole,
        shown["counts"]["pruned"], lost, Decimal(shown["cost"]["amount"]),
    )  # fmt: skip


async def each_result_is_that_of_its_curve(trials: Sequence[Any], seed: int) -> None:
    """Whatever was killed, no trial has another result than its parameters give."""
    assert [each["number"] for each in trials] == list(range(SWEEP_TRIALS))
    expected = await curves({**each["parameters"], "epochs": EPOCHS, "seed": seed} for each in trials)
    for each, curve in zip(trials, expected, strict=True):
        assert each["state"] in ("COMPLETE", "PRUNED"), each
        seen = curve if each["state"] == "COMPLETE" else curve[: each["step"] + 1]
        assert each["value"] == max(seen), (each, curve)


async def strike(service: Service) -> None:
    """kill -9 of the service, its database, launchers, supervisors and programs, in the midst of a trial.

    From above: nothing is started any more while the next ones are looked for, and no supervisor sees its program die,
    which would be an end of that trial like any other.
    """
    await eventually(lambda: any(map(is_alive, service.recorded("child"))), "a trial is at work")
    kill(*service.itself())
    kill(*service.launchers())
    kill(*service.recorded("supervisor"))
    kill(*service.recorded("child"))
    kill(*service.everything())
    await service.ended()
    service.start()
    await service.whole()


async def ended(service: Service, sweep: str) -> Any:
    seen: list[Any] = []

    async def is_over() -> bool:
        seen.append((await service.execute(SHOW, id=sweep))["sweep"])
        return bool(seen[-1]["state"] != "RUNNING")

    await eventually(is_over, "the sweep ends", seconds=PATIENCE_SECONDS)
    return seen[-1]


async def priced_machine(service: Service) -> str:
    """A cent a second for each of two cpus."""
    [[host]] = await service.fetch("SELECT id FROM hosts")
    given = {"name": "priced", "cpus": 2, "memoryGib": 1, "pricePerHour": "72", "host": host}
    made = await service.execute(MACHINE, input=given)
    assert made["createMachine"]["userErrors"] == [], made
    return str(made["createMachine"]["machine"]["id"])


async def curves(runs: Any) -> list[list[float]]:
    """The accuracies of each epoch of these runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CURVES, PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate(json.dumps(list(runs)).encode())
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def logarithmic(low: float, high: float, count: int) -> list[float]:
    """So many numbers from low to high, with equal ratios."""
    return [low * (high / low) ** (at / (count - 1)) for at in range(count)]
