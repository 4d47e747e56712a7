"""Fit a line and record it with MLflow: nothing here is made for this service. Needs mlflow-skinny.

simulations submit --watch -- python examples/mlflow_fit.py
"""

from __future__ import annotations

import sys

try:
    import mlflow
except ImportError as missing:
    sys.exit(f"{missing}: pip install mlflow-skinny")

slope, rate = 0.0, 0.02
with mlflow.start_run(run_name="line"):
    mlflow.log_param("rate", rate)
    for epoch in range(20):
        error = sum((slope * x - 3 * x) ** 2 for x in range(5)) / 5
        slope -= rate * sum(2 * x * (slope * x - 3 * x) for x in range(5)) / 5
        mlflow.log_metrics({"loss": error, "slope": slope}, step=epoch)
