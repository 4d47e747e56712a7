"""Fit a multi-layer perceptron with scikit-learn: nothing here is made for this service. Needs scikit-learn.

simulations submit --watch -- python examples/sklearn_mlp.py
"""

from __future__ import annotations

import sys

try:
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier
except ImportError as missing:
    sys.exit(f"{missing}: pip install scikit-learn")

x, y = load_digits(return_X_y=True)
MLPClassifier(hidden_layer_sizes=(32,), max_iter=20, verbose=True, random_state=0).fit(x / 16, y)
