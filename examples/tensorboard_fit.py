"""Fit a line and record it for TensorBoard: nothing here is made for this service. Needs tensorboardX.

simulations submit --watch -- python examples/tensorboard_fit.py
"""

from __future__ import annotations

import sys

try:
    from tensorboardX import SummaryWriter
except ImportError as missing:
    sys.exit(f"{missing}: pip install tensorboardX")

slope, rate = 0.0, 0.02
with SummaryWriter() as writer:
    for epoch in range(20):
        error = sum((slope * x - 3 * x) ** 2 for x in range(5)) / 5
        slope -= rate * sum(2 * x * (slope * x - 3 * x) for x in range(5)) / 5
        writer.add_scalar("loss", error, epoch)
        writer.add_scalar("slope", slope, epoch)
