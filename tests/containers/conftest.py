"""Fixtures for tests of containers. They run only on request: they need a container engine, and minutes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from installation import RAY, Installation
from live import free_port

ASKED_FOR = "CONTAINERS" in os.environ


@contextmanager
def installed(installation: Installation) -> Iterator[Installation]:
    """An installation, up while the block runs; nothing of it is left afterwards."""
    if not ASKED_FOR:
        pytest.skip("needs a Docker engine and some minutes: make test-containers")
    try:
        installation.up("--build")
        yield installation
    finally:
        sys.stdout.write(installation.compose("logs", "--no-color", "--timestamps"))
        installation.compose("down", "--volumes", "--rmi", "local", "--remove-orphans")


@pytest.fixture(scope="session")
def started() -> Iterator[Installation]:
    """The installation of most tests here."""
    with installed(Installation(f"simulations-test-{os.getpid()}", free_port())) as installation:
        yield installation


@pytest.fixture(scope="session")
def with_ray() -> Iterator[Installation]:
    """Another one, with the profile "ray"."""
    with installed(Installation(f"simulations-ray-{os.getpid()}", free_port(), scale=1, more=RAY)) as installation:
        yield installation


@pytest.fixture
async def installation(started: Installation) -> Installation:
    """An installation of which all runs, whatever the test before did to it."""
    await started.whole()
    return started
