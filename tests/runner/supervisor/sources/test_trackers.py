"""Unmodified programs with the real clients of MLflow, W&B and tensorboardX, of several versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tracker_clients import python_of

pytestmark = pytest.mark.timeout(1200)  # what the first of them needs may have to be installed

EXAMPLES = Path(__file__).parents[4] / "examples"
HARMONIC = [(step, 1 / (step + 1)) for step in range(20)]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment without a login at W&B, in which no client reports to its maker."""
    (tmp_path / "home").mkdir()
    quiet = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {"HOME": str(tmp_path / "home"), **quiet}


def parameters(service: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for batch in service.stored:
        found |= batch.get("facts", {}).get("parameters", {})
    return found


def tags(service: Any) -> list[str]:
    return [tag for batch in service.stored for tag in batch.get("facts", {}).get("tags", ())]


MLFLOW = """
import mlflow, os, pathlib
mlflow.set_experiment("my experiment")
with mlflow.start_run(run_name="mine") as run:
    mlflow.log_params({"lr": 0.1, "net": "small"})
    mlflow.log_param("depth", 3)
    mlflow.set_tag("team", "vision")
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1))
    mlflow.log_metrics({"a": 1.0, "bad": float("nan")}, step=7)
    with mlflow.start_run(run_name="fold", nested=True):
        mlflow.log_metric("loss", 2.0, step=3)
    pathlib.Path("notes.txt").write_text("kept")
    mlflow.log_artifact("notes.txt")
    client = mlflow.MlflowClient()
    client.log_batch(run.info.run_id, metrics=[mlflow.entities.Metric("batched", 0.5, 1, step) for step in (1, 2)])
    assert client.get_run(run.info.run_id).data.params["lr"] == "0.1"
    for step in range(100):
        mlflow.log_metric("async", float(step), step=step, synchronous=False)
    mlflow.flush_async_logging()
mlflow.MlflowClient().log_metric(run.info.run_id, "after", 1.0)
"""


@pytest.mark.parametrize("environment", ["newest", "older"])
def test_mlflow(environment: str, service: Any, supervise: Any, home: dict[str, str], tmp_path: Path) -> None:
    started = supervise(entrypoint=[python_of(environment), "-c", MLFLOW], environment=home)
    assert started.wait() == 0
    assert service.exit["exitCode"] == 0, service.logs
    assert service.points("loss") == HARMONIC
    assert (service.points("a"), service.points("bad")) == ([(7, 1.0)], [(7, "NaN")])
    assert service.points("fold/loss") == [(3, 2.0)]
    assert service.points("batched") == [(1, 0.5), (2, 0.5)]
    assert service.points("async") == [(step, float(step)) for step in range(100)]
    assert service.points("after") == [(0, 1.0)]
    assert parameters(service) == {"lr": 0.1, "net": "small", "depth": 3}
    assert tags(service) == ["team=vision"]
    assert (tmp_path / "outputs" / "artifacts" / "notes.txt").read_text() == "kept"
    assert started.complaints == ""


OWN_STORE = """
import mlflow
mlflow.set_tracking_uri("file:./mine")
with mlflow.start_run():
    mlflow.log_metric("loss", 1.0)
"""


def test_a_store_that_the_program_chooses_itself_is_used(
    service: Any, supervise: Any, home: dict[str, str], tmp_path: Path
) -> None:
    supervise(entrypoint=[python_of("older"), "-c", OWN_STORE], environment=home).wait()
    assert service.exit["exitCode"] == 0, service.logs
    assert service.points("loss") == []
    assert list((tmp_path / "attempt" / "work" / "mine").rglob("loss"))


WANDB = """
import wandb
with wandb.init(project="mine", config={"lr": 0.1, "deep": {"er": 1}}, tags=["baseline"]) as run:
    for step in range(20):
        run.log({"loss": 1 / (step + 1), "deep": {"er": step}, "text": "x"})
    run.log({"bad": float("nan")}, step=30)
"""


@pytest.mark.parametrize("environment", ["newest", "older", "oldest"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandb(environment: str, mode: str, service: Any, supervise: Any, home: dict[str, str]) -> None:
    variables = {**home, **({"WANDB_MODE": mode} if mode == "offline" else {})}
    started = supervise(entrypoint=[python_of(environment), "-c", WANDB], environment=variables)
    assert started.wait() == 0
    assert service.exit["exitCode"] == 0, service.logs
    assert service.points("loss") == HARMONIC
    assert service.points("deep.er") == [(step, float(step)) for step in range(20)]
    assert service.points("bad") == [(30, "NaN")]
    assert parameters(service)["lr"] == 0.1
    assert tags(service) == ["baseline"]
    assert {metric for batch in service.stored for metric in batch.get("points", ())} == {"loss", "deep.er", "bad"}
    assert started.complaints == ""


TENSORBOARD = """
import tensorboardX
with tensorboardX.SummaryWriter("runs/x") as writer:
    for step in range(20):
        writer.add_scalar("train/loss", 1 / (step + 1), step)
    writer.add_scalars("grp", {"a": 1.0, "b": 2.0}, 3)
    writer.add_text("text", "x")
with tensorboardX.SummaryWriter("runs/x", filename_suffix="again") as writer:  # as after a restart
    for step in range(18, 22):
        writer.add_scalar("train/loss", 0.0, step)
"""


def test_tensorboard(service: Any, supervise: Any, home: dict[str, str]) -> None:
    started = supervise(entrypoint=[python_of("newest"), "-c", TENSORBOARD], environment=home)
    assert started.wait() == 0
    assert service.exit["exitCode"] == 0, service.logs
    loss = service.points("train/loss")
    assert loss[:20] == [(step, pytest.approx(value, abs=1e-7)) for step, value in HARMONIC]
    assert loss[20:] == [(20, 0.0), (21, 0.0)]
    assert (service.points("grp/a/grp"), service.points("grp/b/grp")) == ([(3, 1.0)], [(3, 2.0)])


BOTH = """
import json, mlflow, tensorboardX
with mlflow.start_run(), tensorboardX.SummaryWriter("runs") as writer:
    for step in range(20):
        value = 1 / (step + 1)
        mlflow.log_metric("loss", value, step=step)
        writer.add_scalar("loss", value, step)
        print(json.dumps({"step": step, "loss": value}), flush=True)
        writer.add_scalar("only_here", value, step)
"""


def test_a_value_that_goes_three_ways_is_one_curve(service: Any, supervise: Any, home: dict[str, str]) -> None:
    supervise(entrypoint=[python_of("newest"), "-c", BOTH], environment=home).wait()
    assert service.exit["exitCode"] == 0, service.logs
    assert service.points("loss") == HARMONIC
    assert len(service.points("only_here")) == 20
    kinds = {each["kind"] for batch in service.stored for each in batch.get("facts", {}).get("notices", ())}
    assert "OTHER_SOURCE" in kinds


@pytest.mark.parametrize("name", ["mlflow_fit", "wandb_fit", "tensorboard_fit"])
def test_the_examples(name: str, service: Any, supervise: Any, home: dict[str, str]) -> None:
    supervise(entrypoint=[python_of("newest"), str(EXAMPLES / f"{name}.py")], environment=home).wait()
    assert service.exit["exitCode"] == 0, service.logs
    losses = service.points("loss")
    assert [step for step, _ in losses] == [step for step, _ in service.points("slope")] == list(range(20))
    assert losses[0][1] == 54.0
    assert losses[-1][1] < 0.1
