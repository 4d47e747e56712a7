"""What flows are tried on: a whole service, up and running."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from live import Service, service_on


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    """A service that is up, on a database of its own."""
    with service_on(database_url) as service:
        await service.up()
        yield service
