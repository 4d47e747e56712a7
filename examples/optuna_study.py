"""Minimise a function with Optuna: nothing here is made for this service. Needs optuna.

simulations submit --watch -- python examples/optuna_study.py
"""

from __future__ import annotations

import sys

try:
    import optuna
except ImportError as missing:
    sys.exit(f"{missing}: pip install optuna")

study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)
