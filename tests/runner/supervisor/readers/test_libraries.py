"""The real libraries, as programs under a real supervisor: their points are what the libraries themselves return.

Each program ends by writing the truth, from the library's own history, as metric: [[step, value], ...]. All share one
locked environment (support/trackers/forms.lock).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tracker_clients import python_of

pytestmark = pytest.mark.timeout(1200)  # what the first of them needs may have to be installed

DATA = """
import json, numpy as np
numbers = np.random.default_rng(0)
x = numbers.normal(size=(200, 5)).astype("float32")
y = x[:, 0] + x[:, 1] ** 2
truth = {}
def keep(name, values, first=0, every=1):
    steps = range(first, first + len(values))
    truth[name] = [[s, float(v)] for s, v in zip(steps, values) if s % every == 0 or s == steps[-1]]
"""
PROGRAMS = {
    # A bar, then lines that go on with the epochs; an evaluation in between is no point.
    "keras": """
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras
model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(1)])
model.compile("adam", "mse", metrics=["mae"])
found = {}
for begin, end, verbose in ((0, 3, 1), (3, 6, 2)):
    history = model.fit(x, y, epochs=end, initial_epoch=begin, validation_split=0.2, verbose=verbose).history
    model.evaluate(x, y, verbose=verbose)
    for name, values in history.items():
        found.setdefault(name, []).extend(values)
for name, values in found.items():
    keep(name, values, first=1)
""",
    "xgboost": """
import xgboost as xgb
train, valid = xgb.DMatrix(x[:150], y[:150]), xgb.DMatrix(x[150:], y[150:])
found = {}
parameters = {"eval_metric": ["rmse", "mae"], "nthread": 1}
xgb.train(parameters, train, 12, evals=[(train, "train"), (valid, "valid")], evals_result=found, verbose_eval=5)
for data, metrics in found.items():
    for name, values in metrics.items():
        keep(f"{data}-{name}", values, every=5)
model = xgb.XGBRegressor(n_estimators=20, early_stopping_rounds=2, n_jobs=1, learning_rate=0.8)
model.fit(x[:150], y[:150], eval_set=[(x[150:], y[150:])], verbose=True)
keep("validation_0-rmse", model.evals_result()["validation_0"]["rmse"])
""",
    "lightgbm": """
import lightgbm as lgb
train = lgb.Dataset(x[:150], y[:150])
valid = lgb.Dataset(x[150:], y[150:], reference=train)
found = {}
lgb.train(
    {"metric": ["l2", "l1"], "num_threads": 1, "learning_rate": 0.9}, train, 40,
    [train, valid], ["training", "valid_0"],
    callbacks=[lgb.log_evaluation(1), lgb.record_evaluation(found), lgb.early_stopping(3)],
)
for data, metrics in found.items():
    for name, values in metrics.items():
        keep(f"{data}'s {name}", values, first=1)
""",
    "sklearn": """
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.neural_network import MLPRegressor
network = MLPRegressor(verbose=True, max_iter=8, random_state=0).fit(x, y)
keep("loss", network.loss_curve_, first=1)
trees = GradientBoostingRegressor(verbose=1, n_estimators=30, subsample=0.8, random_state=0).fit(x, y)
for name, values in (("Train Loss", trees.train_score_), ("OOB Improve", trees.oob_improvement_)):
    truth[name] = [[s, float(v)] for s, v in enumerate(values, 1) if s <= 10 or s % 10 == 0]
""",
    "optuna": """
import optuna
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=8)
keep("value", [trial.value for trial in study.trials])
""",
    "tensorboard": """
from tensorboard.summary import Writer
losses = [1 / (step + 1) for step in range(20)]
writer = Writer("runs/one")
for step, loss in enumerate(losses):
    writer.add_scalar("train/loss", np.float32(loss), step)
writer.close()
keep("train/loss", losses)
""",
    # Nothing but autolog: no line is printed, and each round arrives through the client.
    "autolog": """
import lightgbm as lgb, mlflow
mlflow.autolog(log_models=False)
found = {}
train = lgb.Dataset(x[:150], y[:150])
valid = lgb.Dataset(x[150:], y[150:], reference=train)
parameters = {"metric": "l2", "num_threads": 1, "verbose": -1}
lgb.train(parameters, train, 10, [valid], callbacks=[lgb.record_evaluation(found)])
keep("valid_0-l2", found["valid_0"]["l2"])
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_points_of_a_library_are_its_own_history(name: str, service: Any, supervise: Any, tmp_path: Path) -> None:
    code = f"{DATA}{PROGRAMS[name]}\njson.dump(truth, open('truth.json', 'w'))\n"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    started = supervise(entrypoint=[python_of("forms"), "-c", code], environment=quiet)
    started.process.wait(240)  # a first import compiles some thousand modules
    assert service.exit["exitCode"] == 0, service.logs
    truth = json.loads((tmp_path / "attempt" / "work" / "truth.json").read_text())
    for metric, points in truth.items():
        found = service.points(metric)
        assert [step for step, _ in found] == [step for step, _ in points], metric
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-3, abs=1e-4), (
            metric
        )
    metrics = {metric for batch in service.stored for metric in batch.get("points", ())}
    assert metrics == set(truth)
    assert service.notices == {}
    assert started.complaints == ""
