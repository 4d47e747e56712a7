"""Train boosted trees with LightGBM: nothing here is made for this service. Needs lightgbm.

simulations submit --watch -- python examples/lightgbm_train.py
"""

from __future__ import annotations

import sys

try:
    import lightgbm as lgb
    import numpy as np
except ImportError as missing:
    sys.exit(f"{missing}: pip install lightgbm")

numbers = np.random.default_rng(0)
x = numbers.normal(size=(300, 5))
y = x[:, 0] + x[:, 1] ** 2
train = lgb.Dataset(x[:200], y[:200])
valid = lgb.Dataset(x[200:], y[200:], reference=train)
parameters = {"metric": "l2", "verbose": -1}
lgb.train(parameters, train, 20, [train, valid], ["train", "valid"], callbacks=[lgb.log_evaluation(1)])
