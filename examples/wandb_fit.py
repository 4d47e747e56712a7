"""Fit a line and record it with W&B: nothing here is made for this service. Needs wandb, no account.

simulations submit --watch -- python examples/wandb_fit.py
"""

from __future__ import annotations

import sys

try:
    import wandb
except ImportError as missing:
    sys.exit(f"{missing}: pip install wandb")

slope, rate = 0.0, 0.02
with wandb.init(project="line", config={"rate": rate}) as run:
    for _ in range(20):
        error = sum((slope * x - 3 * x) ** 2 for x in range(5)) / 5
        slope -= rate * sum(2 * x * (slope * x - 3 * x) for x in range(5)) / 5
        run.log({"loss": error, "slope": slope})
