"""Callbacks, with fakes that call them in the order and with the arguments of Keras, Lightning and Transformers, and
with the real Keras and Optuna. Each runs in a process of its own, as a simulation.

Protocols: keras.src.callbacks.CallbackList 3.15, lightning.pytorch.trainer.call 2.6, transformers.TrainerCallback 5.24.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tracker_clients import python_of

pytestmark = pytest.mark.timeout(1200)  # what the first of them needs may have to be installed

BASE = "class {name}:\n    def __init__(self): self.has_base = True\n"
# keras/callbacks.py and the like: a base class with the constructor's call that a subclass owes it.
FRAMEWORKS = {
    "keras/callbacks.py": BASE.format(name="Callback"),
    "lightning/pytorch/callbacks.py": BASE.format(name="Callback"),
    "transformers.py": BASE.format(name="TrainerCallback"),
}
SCALAR = """
class Tensor:  # of one element, as PyTorch's
    def __init__(self, value): self.value = value
    def item(self): return self.value
"""
KERAS = """
import simulations, sys
assert "keras" not in sys.modules, "imported lazily"
def fit(callback, epochs, batches, first=0):
    assert callback.has_base and type(callback).__mro__[2].__module__ == "keras.callbacks"
    for epoch in range(first, epochs):
        for batch in range(batches):
            if hasattr(callback, "on_train_batch_end"):
                callback.on_train_batch_end(batch, {"loss": 10 - epoch - batch / 10})
        callback.on_epoch_end(epoch, {"loss": 9.0 - epoch, "val_loss": 8.0 - epoch})
if sys.argv[1] == "epochs":
    fit(simulations.keras.Callback(), 2, 5); fit(simulations.keras.Callback(), 4, 5, first=2)
else:
    fit(simulations.keras.Callback(every_n_batches=2), 2, 5)
"""
LIGHTNING = (
    SCALAR
    + """
import simulations
class Trainer:
    global_step, log_every_n_steps, sanity_checking, is_global_zero = 0, 2, True, True
    callback_metrics = {"val_loss": Tensor(99.0)}
trainer, callback = Trainer(), simulations.lightning.Callback()
assert callback.has_base
callback.on_validation_end(trainer, None)
trainer.sanity_checking, trainer.callback_metrics = False, {}
for epoch in range(2):
    for batch in range(4):
        trainer.global_step += 1
        trainer.callback_metrics["train_loss"] = Tensor(1 / trainer.global_step)
        callback.on_train_batch_end(trainer, None, None, None, batch)
    trainer.callback_metrics["val_loss"] = Tensor(5.0 - epoch)
    callback.on_validation_end(trainer, None)
    trainer.callback_metrics["train_acc"] = Tensor(0.5 + epoch)
    callback.on_train_epoch_end(trainer, None)
"""
)
TRANSFORMERS = """
import simulations
class State: global_step, is_world_process_zero = 0, True
state, callback = State(), simulations.transformers.Callback()
assert callback.has_base
for step in (10, 20):
    state.global_step = step
    callback.on_log(None, state, None, logs={"loss": 1 / step, "epoch": step / 20}, model=None)
callback.on_log(None, state, None, logs={"eval_loss": 0.5, "note": "text", "epoch": 1.0})
state.is_world_process_zero = False
callback.on_log(None, state, None, logs={"loss": 7.0})
"""
OPTUNA = """
import optuna, simulations, sys
def objective(trial):
    x = trial.suggest_float("x", -1, 1)
    if trial.number == 0:
        trial.report(5.0, 0); raise optuna.TrialPruned()
    if trial.number == 2: raise ValueError("fails")
    return x * x
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
study.optimize(objective, n_trials=6, callbacks=[simulations.optuna.Callback()], catch=(ValueError,))
import json; print(json.dumps([trial.value for trial in study.trials]))
many = optuna.create_study(directions=["minimize", "maximize"])
many.optimize(lambda trial: (trial.number, -trial.number), n_trials=2, callbacks=[simulations.optuna.Callback()])
parallel = optuna.create_study()
callbacks = [simulations.optuna.Callback()]
parallel.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=20, n_jobs=4, callbacks=callbacks)
"""


@pytest.fixture(autouse=True)
def frameworks(tmp_path: Path) -> None:
    for name, text in FRAMEWORKS.items():
        path = tmp_path / "frameworks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_keras_reports_each_epoch_as_it_counts_them(run: Any) -> None:
    ran = run(KERAS, "epochs")
    assert ran.status == 0, ran.err
    assert ran.points("loss") == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0)]
    assert ran.points("val_loss") == [(1, 8.0), (2, 7.0), (3, 6.0), (4, 5.0)]


def test_keras_reports_batches_if_asked(run: Any) -> None:
    ran = run(KERAS, "batches")
    assert ran.points("loss") == [(2, 9.9), (4, 9.7), (5, 9.0), (6, 9.0), (8, 8.8), (10, 8.6)], ran.err
    assert ran.points("val_loss") == [(5, 8.0), (10, 7.0)]


REAL_KERAS = """
import json, os
os.environ["KERAS_BACKEND"] = "jax"
import keras, numpy as np, simulations
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
callback = simulations.keras.Callback(every_n_batches=2)
history = model.fit(x, x[:, 0], epochs=3, batch_size=10, validation_split=0.2, verbose=0, callbacks=[callback]).history
print(json.dumps(history))
"""


def test_the_real_keras_calls_it_as_the_fake_does(run: Any) -> None:
    ran = run(REAL_KERAS, python=python_of("forms"))
    assert ran.status == 0, ran.err
    history = json.loads(ran.out)
    assert [step for step, _ in ran.points("loss")] == [2, 4, 6, 8, 10, 12]
    assert [value for _, value in ran.points("loss")][1::2] == pytest.approx(history["loss"])
    assert ran.points("val_loss") == [(4 * n, pytest.approx(value)) for n, value in enumerate(history["val_loss"], 1)]


def test_lightning_reports_steps_validations_and_epochs(run: Any) -> None:
    ran = run(LIGHTNING)
    assert ran.points("train_loss") == [(step, 1 / step) for step in (2, 4, 6, 8)], ran.err
    assert ran.points("val_loss") == [(4, 5.0), (8, 4.0)]  # not the sanity check's, and not repeated in between
    assert ran.points("train_acc") == [(4, 0.5), (6, 0.5), (8, 0.5)]
    assert (ran.status, ran.err) == (0, "")


def test_transformers_reports_what_is_logged(run: Any) -> None:
    ran = run(TRANSFORMERS)
    assert ran.points("loss") == [(10, 0.1), (20, 0.05)], ran.err
    assert ran.points("eval_loss") == [(20, 0.5)]
    assert ran.points("epoch") == [(10, 0.5), (20, 1.0)]
    assert (ran.status, ran.err) == (0, "")


def test_optuna_reports_each_trial(run: Any) -> None:
    ran = run(OPTUNA, python=python_of("forms"))
    assert ran.status == 0, ran.err
    values = json.loads(ran.out)
    first = [line for line in ran.reported if "value" in line][:5]
    assert [(line["step"], line["value"]) for line in first] == [(n, values[n]) for n in (0, 1, 3, 4, 5)]
    assert values[0] == 5.0
    assert "best_value" not in first[0]  # pruned
    assert first[4]["best_value"] == min(values[1:2] + values[3:6])
    assert ran.points("values/0") == [(0, 0.0), (1, 1.0)]
    assert ran.points("values/1") == [(0, 0.0), (1, -1.0)]
    parallel = [int(line["step"]) for line in ran.reported if "value" in line][5:]
    assert len(parallel) == 20
    assert parallel == sorted(set(parallel))


def test_a_framework_that_is_missing_is_named(run: Any, tmp_path: Path) -> None:
    (tmp_path / "frameworks" / "keras" / "callbacks.py").unlink()
    ran = run("import simulations\ntry: simulations.keras.Callback\nexcept ImportError as e: print(e)")
    assert ran.out.startswith("simulations.keras.Callback needs one of these modules: keras.callbacks"), ran.err


def test_a_hook_that_fails_never_ends_the_training(run: Any) -> None:
    ran = run(
        """
import simulations
callback = simulations.lightning.Callback()
for _ in range(2): callback.on_train_batch_end(None, None, None, None, 0)
print("went on")
"""
    )
    assert (ran.status, ran.out) == (0, "went on\n")
    assert ran.err.count("on_train_batch_end reports nothing: AttributeError") == 1
