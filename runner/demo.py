"""A built-in simulation: prints a seeded, noisy convergence curve at a steady pace, without training code.

Prints one JSON line a step, like any simulation. With `--diverge` the loss turns round after a third of the steps and
is NaN in the last third; NaN is data, so the exit status is still 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence


def points(steps: int, seed: int, diverge: bool) -> Iterator[dict[str, float]]:
    """Yield one record a step. The loss decays exponentially to 0.05, the accuracy rises to 0.98, both with noise."""
    noise = random.Random(seed)
    turn, ruin = steps // 3, 2 * steps // 3
    for step in range(steps):
        progress = min(step, turn) / steps if diverge else step / steps
        loss = (0.05 + 2.3 * math.exp(-5 * progress)) * noise.lognormvariate(0, 0.06)
        accuracy = (0.98 - 0.88 * math.exp(-5 * progress)) + noise.gauss(0, 0.01)
        if diverge and step >= turn:
            loss *= math.exp(12 * (step - turn) / max(steps - turn, 1))
            accuracy -= (accuracy - 0.1) * min(1.0, (step - turn) / max(ruin - turn, 1))
        if diverge and step >= ruin:
            loss = math.nan
        yield {"step": step, "loss": round(loss, 6), "accuracy": round(min(max(accuracy, 0.0), 1.0), 6)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the curve, a line every `--interval` seconds."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    started_at = time.monotonic()
    try:
        for number, record in enumerate(points(options.steps, options.seed, options.diverge)):
            # Against the start and not against the line before, so that delays don't add up.
            time.sleep(max(0.0, started_at + number * options.interval - time.monotonic()))
            print(json.dumps(record), flush=True)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader is gone, as in `| head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.demo",
        description="A built-in simulation: prints a noisy convergence curve as JSON lines.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=_steps, default=200, help="how many lines to print")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same curve")
    parser.add_argument("--interval", type=_seconds, default=0.05, help="seconds from one line to the next")
    parser.add_argument("--diverge", action="store_true", help="let the loss turn round, grow and end as NaN")
    return parser


def _steps(text: str) -> int:
    try:
        steps = int(text)
    except ValueError:
        steps = -1
    if steps < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 up, got {text!r}")
    return steps


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to 86400, got {text!r}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
