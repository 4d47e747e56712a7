"""Environments with real trackers' clients and training libraries, each with a lock of its own.

MLflow and this service need different versions of some libraries, and of each client several versions are tested.
`forms` has the libraries whose output the readers know. It is the largest, 0.9 GB unpacked: Keras trains with JAX (its
NumPy backend can't, PyTorch is larger), and xgboost-cpu leaves out CUDA's libraries. Where they can't be installed the
tests that need them are skipped; with REQUIRE_TRACKERS set, as in CI, they fail.
"""

from __future__ import annotations

from pathlib import Path

import environments

LOCKS = Path(__file__).with_name("trackers")


def python_of(name: str) -> str:
    """The interpreter of an environment, named as its lock. Skips the test where it can't be made."""
    return environments.python_of(LOCKS / f"{name}.lock", "REQUIRE_TRACKERS")
