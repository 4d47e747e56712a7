"""Fixtures for tests of containers. They run only on request: they need a container engine, and minutes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from installation import Installation
from live import free_port

ASKED_FOR = "CONTAINERS" in os.environ


@pytest.fixture(scope="session")
def started() -> Iterator[Installation]:
    """The installation of all tests here, up; nothing of it is left afterwards."""
    if not ASKED_FOR:
        pytest.skip("needs a Docker engine and some minutes: make test-containers")
    installation = Installation(f"simulations-test-{os.getpid()}", free_port())
    try:
        installation.up("--build")
        yield installation
    finally:
        sys.stdout.write(installation.compose("logs", "--no-color", "--timestamps"))
        installation.compose("down", "--volumes", "--rmi", "local", "--remove-orphans")


@pytest.fixture
async def installation(started: Installation) -> Installation:
    """An installation of which all runs, whatever the test before did to it."""
    await started.whole()
    return started
