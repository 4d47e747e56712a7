"""Train boosted trees with XGBoost: nothing here is made for this service. Needs xgboost.

simulations submit --watch -- python examples/xgboost_train.py
"""

from __future__ import annotations

import sys

try:
    import numpy as np
    import xgboost as xgb
except ImportError as missing:
    sys.exit(f"{missing}: pip install xgboost")

numbers = np.random.default_rng(0)
x = numbers.normal(size=(300, 5))
y = (x[:, 0] + x[:, 1] ** 2 > 1).astype(int)
train, valid = xgb.DMatrix(x[:200], y[:200]), xgb.DMatrix(x[200:], y[200:])
parameters = {"objective": "binary:logistic", "eval_metric": ["logloss", "auc"]}
xgb.train(parameters, train, 12, evals=[(train, "train"), (valid, "valid")])
