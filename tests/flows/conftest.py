"""Fixtures for flows: a whole service, running and empty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from engines import ENGINES, Engine, OnRay, OnThisHost
from live import BRISK, Service


@pytest.fixture(params=ENGINES)
def runs_on(request: pytest.FixtureRequest) -> Engine:
    """What a service schedules onto; a Ray cluster with REQUIRE_RAY only."""
    return OnThisHost() if request.param == "local" else OnRay(request.getfixturevalue("ray_cluster"))


@pytest.fixture
async def service(lend: Any) -> AsyncIterator[Service]:
    """A service as a user has it."""
    async with lend() as service:
        yield service


@pytest.fixture
async def brisk(lend: Any) -> AsyncIterator[Service]:
    """One for which tenths of a second are what seconds are to others."""
    async with lend(**BRISK) as service:
        yield service
