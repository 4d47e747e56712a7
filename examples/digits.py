"""Train a classifier on scikit-learn's bundled digits and print its convergence, one JSON line per epoch.

    python examples/digits.py --learning-rate 0.005 --epochs 40

Each line holds the epoch as `step`, the training `loss` and the `accuracy` on a quarter of the images that it never
trains on. Options may also come as JSON in SIMULATION_PARAMETERS, as `{"learning_rate": 0.005, "epochs": 40,
"batch_size": 8, "seed": 0}`; the command line wins. A learning rate that is far too high (1000) is no error: the loss
diverges, the accuracy stays at that of guessing, and the curve shows it. Needs scikit-learn
(`pip install -e ".[examples]"`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator

DEFAULTS: dict[str, float] = {"learning_rate": 0.005, "epochs": 40, "batch_size": 8, "seed": 0}


def train(learning_rate: float, epochs: int, batch_size: int, seed: int) -> Iterator[dict[str, float]]:
    """One record an epoch: a small neural network, stochastic gradient descent."""
    # One thread multiplies such small matrices faster than many; must be set before numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import numpy
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images / 16, digits, test_size=0.25, random_state=seed, stratify=digits)
    train_images, test_images, train_digits, test_digits = split
    classes = numpy.arange(10)
    network = MLPClassifier(
        hidden_layer_sizes=(256, 128),
        solver="sgd",
        learning_rate_init=learning_rate,
        batch_size=batch_size,
        random_state=seed,
    )
    loss, accuracy = math.nan, 0.0
    has_exploded = False
    for epoch in range(epochs):
        if not has_exploded:
            try:
                network.partial_fit(train_images, train_digits, classes=classes)
                loss, accuracy = float(network.loss_), float(network.score(test_images, test_digits))
            except ValueError:  # the weights are no longer finite: training can't recover
                has_exploded = True
                loss, accuracy = math.nan, float(numpy.mean(test_digits == classes[0]))
        yield {"step": epoch, "loss": loss, "accuracy": round(accuracy, 4)}


def main() -> int:
    """Train with the given options and print each epoch."""
    options = _parser().parse_args()
    warnings.filterwarnings(
        "ignore"
    )  # an overflow is expected with a learning rate that is too high; the curve shows it
    try:
        for record in train(options.learning_rate, options.epochs, options.batch_size, options.seed):
            print(json.dumps(record), flush=True)
    except ImportError as error:
        print(f'This example needs scikit-learn: pip install -e ".[examples]" ({error}).', file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = DEFAULTS | _parameters(parser)
    parser.add_argument("--learning-rate", type=_rate, default=str(defaults["learning_rate"]))
    parser.add_argument("--epochs", type=_count, default=str(defaults["epochs"]))
    parser.add_argument("--batch-size", type=_count, default=str(defaults["batch_size"]))
    parser.add_argument("--seed", type=int, default=str(defaults["seed"]))
    return parser


def _parameters(parser: argparse.ArgumentParser) -> dict[str, float]:
    text = os.environ.get("SIMULATION_PARAMETERS") or "{}"
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        parser.error(f"SIMULATION_PARAMETERS is not a JSON object: {text[:100]}")
    return {name: value for name, value in given.items() if name in DEFAULTS}


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above zero, got {text!r}")
    return rate


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, got {text!r}")
    return count


if __name__ == "__main__":
    sys.exit(main())
