"""MLflow's REST API, without its client."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.sources import mlflow
from runner.supervisor.sources.mlflow import Mlflow, NoSuchEndpoint

OWN = "0123456789abcdef0123456789abcdef"


class Client:
    """Requests as MLflow's client sends them. `connection` numbers its connections."""

    def __init__(self, api: Mlflow) -> None:
        self.api = api
        self.now = 1_700_000_000_000

    def post(self, name: str, connection: int = 1, /, **given: object) -> Any:
        return self.api.answer("POST", mlflow.PATH + name, "", json.dumps(given).encode(), connection)

    def get(self, name: str, query: str = "") -> Any:
        return self.api.answer("GET", mlflow.PATH + name, query, b"", 1)

    def log(self, key: str, value: object, step: int = 0, run: str = OWN) -> None:
        self.now += 1
        answer = self.post(
            "runs/log-metric", run_id=run, run_uuid=run, key=key, value=value, timestamp=self.now, step=step
        )
        assert answer == {}

    def create(self, name: str | None = None, parent: str | None = None) -> str:
        tags = [{"key": "mlflow.parentRunId", "value": parent}] if parent else []
        return str(self.post("runs/create", experiment_id="0", run_name=name, tags=tags)["run"]["info"]["run_id"])


@pytest.fixture
def client(taken: Any, tmp_path: Path) -> Client:
    return Client(Mlflow(taken.intake, OWN, "a name", tmp_path / "out put"))


def test_the_simulations_run_is_active_and_its_artifacts_go_to_a_directory(client: Client, tmp_path: Path) -> None:
    run = client.get("runs/get", f"run_uuid={OWN}&run_id={OWN}")["run"]
    assert (run["info"]["run_id"], run["info"]["run_name"], run["info"]["status"]) == (OWN, "a name", "RUNNING")
    assert run["info"]["artifact_uri"] == f"file://{tmp_path}/out%20put"
    assert run["info"]["lifecycle_stage"] == "active"


def test_all_experiments_are_one(client: Client) -> None:
    assert client.get("experiments/get-by-name", "experiment_name=x")["experiment"]["experiment_id"] == "0"
    assert client.get("experiments/get", "experiment_id=17")["experiment"]["experiment_id"] == "0"
    assert client.post("experiments/create", name="x") == {"experiment_id": "0"}
    assert client.get("runs/get", f"run_id={OWN}")["run"]["info"]["experiment_id"] == "0"


def test_metrics_become_points(taken: Any, client: Client) -> None:
    for step, value in ((1, 0.5), (2, "NaN"), (3, "Infinity"), (5, "-Infinity"), (6, 1.0)):
        client.log("loss", value, step)
    assert taken.points("loss") == [(1, 0.5), (2, "NaN"), (3, "Infinity"), (5, "-Infinity"), (6, 1.0)]


def test_zeros_are_counted_until_another_step_comes(taken: Any, client: Client) -> None:
    for value in (3.0, 2.0, 1.0):
        client.log("no step", value)
    assert taken.points("no step") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    for step in (0, 10, 20, 0, 5):
        client.log("steps", 1.0, step)
    assert taken.points("steps") == [(0, 1.0), (10, 1.0), (20, 1.0)]


@pytest.mark.parametrize(
    "metrics",
    [None, "x", [None], [{}], [{"key": "a"}], [{"key": "a", "value": "x"}], [{"key": "a", "value": None, "step": []}]],
)
def test_a_metric_never_gets_an_error(metrics: object, client: Client) -> None:
    assert client.post("runs/log-batch", run_id=OWN, metrics=metrics) == {}
    assert client.post("runs/log-metric", run_id=OWN) == {}
    for step in (5, 5, 4, -1):
        client.log("back", 1.0, step)


def test_a_repeated_request_is_dropped_silently(taken: Any, client: Client) -> None:
    metric = {"key": "loss", "timestamp": 5, "step": 0}
    for connection, value in ((1, 1.0), (2, 1.0), (2, 0.5), (3, 0.5), (1, "NaN"), (4, "NaN")):
        client.post("runs/log-batch", connection, run_id=OWN, metrics=[{**metric, "value": value}])
    assert taken.points("loss") == [(0, 1.0), (1, 0.5), (2, "NaN")]
    assert taken.counts == {}


def test_equal_values_in_a_millisecond_count_on_one_connection(taken: Any, client: Client) -> None:
    metric = {"key": "constant", "timestamp": 5, "step": 0, "value": 1.0}
    for _ in range(3):
        client.post("runs/log-batch", run_id=OWN, metrics=[metric, metric])
    assert [step for step, _ in taken.points("constant")] == list(range(6))


def test_of_two_values_at_a_step_the_first_counts(taken: Any, client: Client) -> None:
    client.log("loss", 1.0, 3)
    client.log("loss", 2.0, 3)
    assert taken.points("loss") == [(3, 1.0)]
    assert taken.counts == {"NOT_RISING": 1}


def test_values_of_a_batch_are_put_in_order(taken: Any, client: Client) -> None:
    steps = [3, 1, 2, 5, 4]
    metrics = [{"key": "loss", "value": step, "timestamp": 100 + step, "step": step} for step in steps]
    client.post("runs/log-batch", run_id=OWN, metrics=metrics)
    assert [step for step, _ in taken.points("loss")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("with_steps", [True, False])
def test_an_asynchronous_client_loses_nothing(taken: Any, client: Client, with_steps: bool) -> None:
    waiting = [
        {"key": "loss", "value": float(step), "timestamp": 1000 + step, "step": step if with_steps else 0}
        for step in range(400)
    ]
    queue = threading.Lock()
    ready = threading.Barrier(10)

    def work(connection: int) -> None:
        ready.wait()
        while True:
            with queue:
                if not waiting:
                    break
                metric = waiting.pop(0)
            client.post("runs/log-batch", connection, run_id=OWN, metrics=[metric])
        client.api.forget(connection)

    client.post("runs/log-batch", 99, run_id=OWN, metrics=[])
    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points = taken.points("loss")
    assert [step for step, _ in points] == list(range(400))
    assert sorted(value for _, value in points) == [float(step) for step in range(400)]


def test_a_client_with_one_connection_waits_for_its_first_batch_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = [{"key": "loss", "value": 1.0, "timestamp": 1, "step": 1}]
    other = client.create("other")
    for connection, run in ((1, OWN), (2, other)):
        client.post("runs/log-batch", connection, run_id=run, metrics=metrics)
    monkeypatch.setattr(client.api._changed, "wait", lambda *_: pytest.fail("it waited"))
    for _ in range(5):
        client.post("runs/log-batch", 1, run_id=OWN, metrics=metrics)
        client.post("runs/log-batch", 2, run_id=other, metrics=metrics)
        client.log("alone", 1.0)


def test_the_first_created_run_is_the_simulation_and_later_ones_are_prefixed(taken: Any, client: Client) -> None:
    first = client.create()
    assert first != OWN
    client.log("loss", 1.0, 1, first)
    for run in (client.create("fold"), client.create("fold"), client.create()):
        client.log("loss", 1.0, 1, run)
    assert taken.metrics == {"loss", "fold/loss", "fold-3/loss", "run-4/loss"}


def test_a_run_created_after_points_is_another_one(taken: Any, client: Client) -> None:
    client.log("loss", 1.0, 1)
    client.log("loss", 1.0, 1, client.create("second"))
    assert taken.metrics == {"loss", "second/loss"}


def test_a_nested_run_is_prefixed_although_its_parent_has_no_points(taken: Any, client: Client) -> None:
    client.log("loss", 1.0, 1, client.create("child", parent=OWN))
    client.log("loss", 1.0, 1)
    assert taken.metrics == {"loss", "child/loss"}


def test_a_metric_of_an_unknown_run_is_kept(taken: Any, client: Client) -> None:
    client.log("loss", 1.0, 1, "f" * 32)
    assert taken.metrics == {"run-1/loss"}
    with pytest.raises(NoSuchEndpoint, match="is not of this simulation"):
        client.get("runs/get", "run_id=other")


def test_the_end_of_a_run_is_no_end_of_points(taken: Any, client: Client) -> None:
    ended = client.post("runs/update", run_id=OWN, run_uuid=OWN, status="FAILED", end_time=5)
    assert (ended["run_info"]["status"], ended["run_info"]["end_time"]) == ("FAILED", 5)
    client.log("LogisticRegression_score_X", 1.0)
    assert taken.points("LogisticRegression_score_X") == [(0, 1.0)]


def test_what_was_logged_is_read_back(client: Client) -> None:
    client.post("runs/log-batch", run_id=OWN, params=[{"key": "lr", "value": "0.1"}], tags=[{"key": "t", "value": "x"}])
    client.post("runs/log-parameter", run_id=OWN, key="depth", value="3")
    client.post("runs/set-tag", run_id=OWN, key="u", value="y")
    client.log("loss", "NaN", 4)
    data = client.get("runs/get", f"run_id={OWN}")["run"]["data"]
    assert data["params"] == [{"key": "lr", "value": "0.1"}, {"key": "depth", "value": "3"}]
    assert data["tags"] == [{"key": "t", "value": "x"}, {"key": "u", "value": "y"}]
    assert [(each["key"], each["value"], each["step"]) for each in data["metrics"]] == [("loss", "NaN", 4)]


def test_logged_models_are_ready_and_each_has_its_directory(client: Client) -> None:
    models = [client.post("logged-models", name="m", source_run_id=OWN)["model"]["info"] for _ in range(2)]
    assert len({each["model_id"] for each in models}) == len({each["artifact_uri"] for each in models}) == 2
    again = client.get(f"logged-models/{models[0]['model_id']}")["model"]["info"]
    assert (again["artifact_uri"], again["status"]) == (models[0]["artifact_uri"], "LOGGED_MODEL_READY")


@pytest.mark.parametrize("name", ["runs/log-inputs", "runs/outputs", "runs/log-model", "runs/delete-tag"])
def test_what_is_not_used_is_accepted(name: str, client: Client) -> None:
    assert client.post(name, run_id=OWN) == {}


@pytest.mark.parametrize("name", ["runs/search", "registered-models/create", "metrics/get-history"])
def test_other_endpoints_are_refused_by_name(name: str, client: Client) -> None:
    with pytest.raises(NoSuchEndpoint, match=f"{name} is not offered inside a simulation"):
        client.post(name)


def test_a_full_spool_holds_the_answer_back(client: Client, taken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(taken.intake, "wait_for_room", lambda: waited.append(True))
    client.log("loss", 1.0, 1)
    assert waited == [True]
