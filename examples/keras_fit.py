"""Fit a small network with Keras: nothing here is made for this service. Needs keras and a backend, as jax.

simulations submit --watch -- python examples/keras_fit.py
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

try:
    import keras
    import numpy as np
except ImportError as missing:
    sys.exit(f"{missing}: pip install keras jax")

numbers = np.random.default_rng(0)
x = numbers.normal(size=(200, 8)).astype("float32")
y = x.sum(axis=1)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
model.compile("adam", "mse", metrics=["mae"])
model.fit(x, y, epochs=10, validation_split=0.2)
model.evaluate(x, y)
