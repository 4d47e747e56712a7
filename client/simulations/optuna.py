"""Callback for Optuna: `study.optimize(objective, n_trials=100, callbacks=[simulations.optuna.Callback()])`."""

from __future__ import annotations

import threading
from typing import Any

from ._hooks import harmless
from ._reporting import report


class Callback:
    """Reports each finished trial: `value` and `best_value`, or `values/0`, `values/1` with several objectives.

    The step is the trial's number; with parallel trials, which end in any order, the next number that is free.
    """

    def __init__(self) -> None:
        self._last = -1
        self._lock = threading.Lock()

    @harmless
    def __call__(self, study: Any, trial: Any) -> None:
        if not trial.values:  # it failed, or was pruned before its first value
            return
        if len(trial.values) == 1:
            metrics = {"value": trial.values[0]}
            if trial.state.name == "COMPLETE":  # a pruned one has its last value, and may be the only one
                metrics["best_value"] = study.best_value
        else:
            metrics = {f"values/{index}": value for index, value in enumerate(trial.values)}
        with self._lock:  # Optuna calls from the trials' threads
            self._last = max(int(trial.number), self._last + 1)
            report(step=self._last, **metrics)
