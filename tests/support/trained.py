"""A quick stand-in for the digits example, with its options: `python trained.py --learning-rate 0.1 --batch-size 64`.

A run is the better the nearer its learning rate is to 0.1 (for 64 images in a batch), and learns for all of its epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator

PAUSE_SECONDS = 0.02  # of an epoch: whatever kills its process finds it at work


def train(learning_rate: float, epochs: int, batch_size: int, seed: int) -> Iterator[dict[str, float]]:
    """One record an epoch."""
    apart = math.log10(learning_rate * 64 / batch_size) + 1
    for epoch in range(epochs):
        learned = 1 - math.exp(-(epoch + 1) / (8 + seed))
        yield {"step": epoch, "loss": 2.3 * (1 - learned), "accuracy": round(0.98 * learned / (1 + apart**2), 4)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    for record in train(given.learning_rate, given.epochs, given.batch_size, given.seed):
        print(json.dumps(record), flush=True)  # noqa: T201  # its curve
        time.sleep(PAUSE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
