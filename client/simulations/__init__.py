"""Report metrics from a training script; outside a simulation every call does nothing.

    import simulations
    lr = simulations.parameters().get("lr", 0.1)
    simulations.report(step=120, loss=0.41)

    _reporting     report() and parameters(): ranks, values, the pipe to the supervisor
    _hooks         parts of every callback
    keras          Callback for Keras
    lightning      Callback for Lightning
    transformers   Callback for Hugging Face's Trainer
    optuna         Callback for Optuna's studies

Standard library of Python 3.9 and newer only. A framework is imported when its callback is first used. No call raises
into the training: what can't be reported is named once on standard error. Only rank 0 reports.
"""

from __future__ import annotations

import importlib
from typing import Any

from ._reporting import parameters, report

__all__ = ["parameters", "report"]
_CALLBACKS = ("keras", "lightning", "optuna", "transformers")


def __getattr__(name: str) -> Any:
    """Import `simulations.keras` and the others on their first use."""
    if name in _CALLBACKS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
