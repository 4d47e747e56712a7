"""Unmodified scripts on a real service: what they print becomes their curve, and what was nearly one a notice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from live import Service
from tracker_clients import python_of

EXAMPLES = Path(__file__).parents[2] / "examples"
LAST = {  # of each example, a metric and its last step; the slowest comes last
    "lightgbm_train": ("valid's l2", 20),
    "optuna_study": ("value", 19),
    "sklearn_mlp": ("loss", 20),
    "xgboost_train": ("valid-auc", 11),
    "keras_fit": ("val_loss", 10),
}

KERAS = r"""
import sys, time
for epoch in range(1, 4):
    print(f"Epoch {epoch}/3")
    for batch in range(1, 6):
        bar = "\u2501" * batch * 4
        sys.stdout.write(f"\r\x1b[1m{batch}/5\x1b[0m \x1b[32m{bar}\x1b[0m 0s 3ms/step - loss: {9 - batch / 10:.4f}")
        sys.stdout.write("\b" * 60)
    print(f"\r\x1b[1m5/5\x1b[0m {bar} \x1b[1m0s\x1b[0m 3ms/step - loss: {1 / epoch:.4f} - val_loss: {2 / epoch:.4f}")
"""
XGBOOST = r"""
for i in range(5): print(f"[{i}]\ttrain-rmse:{1 / (i + 1):.5f}\tvalid-rmse:{2 / (i + 1):.5f}")
print("[4]\ttrain-rmse:0.1"); print("[4]\ttrain-rmse:0.1")
"""
NOTICES = "{ simulation(id: $id) { notices { kind count example advice } metricsFrom metricsPatterns } }"


async def notices(service: Service, simulation: str) -> dict[str, dict[str, object]]:
    answer = await service.execute("query($id: ID!) " + NOTICES, id=simulation)
    return {each["kind"]: each for each in answer["simulation"]["notices"]}


async def curve(service: Service, simulation: str, metric: str) -> list[tuple[int, float]]:
    return [(step, value) for _, step, value in await service.log_of(simulation, metric)]


async def test_scripts_that_print_as_keras_and_xgboost_do_have_curves(service: Service) -> None:
    keras = await service.submit(sys.executable, "-c", KERAS)
    xgboost = await service.submit(sys.executable, "-c", XGBOOST)
    await service.finished(keras)
    await service.finished(xgboost)
    assert await curve(service, keras, "loss") == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert await curve(service, keras, "val_loss") == [(1, 2.0), (2, 1.0), (3, 0.6667)]
    assert await curve(service, xgboost, "valid-rmse") == [(n, pytest.approx(2 / (n + 1), abs=1e-5)) for n in range(5)]
    assert (await notices(service, xgboost))["NOT_RISING"]["count"] == 1  # the first repetition is usual there
    assert await notices(service, keras) == {}


async def test_lines_without_a_step_are_a_notice_and_with_its_pattern_a_curve(service: Service) -> None:
    code = "for n in range(12): print(f'loss: 0.{n + 10}')"
    first = await service.submit(sys.executable, "-c", code)
    await service.finished(first)
    notice = (await notices(service, first))["LOOKS_LIKE_METRICS"]
    assert (notice["count"], notice["example"]) == (12, "loss: 0.10")
    second = await service.submit(sys.executable, "-c", code, metricsPatterns=[r"loss: (?P<loss>\S+)"])
    third = await service.submit(sys.executable, "-c", code, metricsFrom="NONE")
    await service.finished(second)
    await service.finished(third)
    assert [step for step, _ in await curve(service, second, "loss")] == list(range(12))
    assert await notices(service, second) == {}
    assert await notices(service, third) == {}


@pytest.mark.timeout(1200)  # they may have to be installed
async def test_the_examples_have_curves_and_no_notice(service: Service) -> None:
    python = python_of("forms")
    names = {name: await service.submit(python, str(EXAMPLES / f"{name}.py")) for name in LAST}
    for simulation in names.values():
        await service.finished(simulation, seconds=240)  # five libraries are imported at once
    for name, (metric, last) in LAST.items():
        steps = [step for step, _ in await curve(service, names[name], metric)]
        assert steps == list(range(last + 1))[-len(steps) :], name
        assert len(steps) >= last, name
        assert await notices(service, names[name]) == {}, name
