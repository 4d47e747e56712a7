"""The live updates of one graph process, wired together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from db.connection import Sessions
from db.outage import Outage
from graph.live.background import Background
from graph.live.forecasts import Forecasts
from graph.live.hub import Hub
from graph.live.importances import Importances
from graph.live.notifications import Notifications
from graph.live.watch_leases import WatchLeases
from graph.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Live:
    """The hub, where its hints come from, who is watched, the outages that all wait out, and what is computed."""

    hub: Hub
    notifications: Notifications
    watch_leases: WatchLeases
    outage: Outage
    forecasts: Forecasts
    importances: Importances
    background: Background

    @classmethod
    def on(
        cls,
        sessions: Sessions,
        lease: timedelta,
        *,
        url: str | None = None,
        outage: Outage | None = None,
        metrics: Metrics | None = None,
        tokens_changed: Callable[[], None] = lambda: None,
    ) -> Self:
        """Wire the parts. url: of the database to listen on; None: notifications are off."""
        outage, metrics = outage or Outage(), metrics or Metrics()
        hub = Hub(sessions, outage, metrics.delivered, has_hints=url is not None)
        notifications = Notifications(url, hub, outage, tokens_changed, metrics.stored)
        leases = WatchLeases(sessions, lease)
        return cls(hub, notifications, leases, outage, Forecasts(sessions), Importances(sessions), Background())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Push while the block runs."""
        async with self.notifications.running(), self.watch_leases.running(), self.background.running():
            yield
