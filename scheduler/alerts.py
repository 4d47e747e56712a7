"""Alerts: the leader's loop that turns marked events into deliveries, and sends what is due.

`run_once()` is a round. It writes the deliveries of new events in one transaction, and starts a task for each target
that has something due; it waits for none of them, so a slow receiver holds up only itself. A task sends one message
after the other until none is due or one fails. No transaction is open while a message is sent.

A delivery is claimed before it is sent and noted afterwards. If the scheduler is killed in between, the claim runs out
and the message is sent again: at least once, with the same id, by which a receiver finds out about the second time. A
failed delivery is tried again with growing pauses (`policy.alerts`), for three days.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

from db import alert_deliveries, alert_targets
from db.alert_deliveries import Sending, Work
from db.alert_targets import Transport
from db.connection import Sessions, driver_of
from db.errors import DatabaseUnavailable
from policy.alerts import AlertKind, retry_after
from scheduler import alert_apprise
from scheduler.alert_messages import compose
from scheduler.alert_webhooks import DeliveryFailed, Webhooks
from settings import Settings

log = structlog.get_logger()

MOST_EVENTS = 500  # in one transaction; the others follow at once
WEBHOOKS_AT_ONCE = 32
PROCESSES_AT_ONCE = 2  # of Apprise, which are a Python interpreter each
CLAIM = timedelta(seconds=90)  # longer than any attempt takes
WAITS_CHECKED_SECONDS = 60
FORGOTTEN_SECONDS = 3600  # between two deletions of old deliveries
KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class AlertSummary:
    """Result of a round. `unfinished`: there are more events, so the next round begins at once."""

    events: int = 0
    written: int = 0  # deliveries
    started: int = 0  # tasks
    unfinished: bool = False


class Alerts:
    """Alerts of the leading scheduler; two at once do no harm."""

    def __init__(
        self,
        sessions: Sessions,
        settings: Settings,
        *,
        webhooks: Webhooks | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._webhooks = webhooks or Webhooks(settings.alert_networks)
        self._chance = chance
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by target
        self._turns = {
            Transport.WEBHOOK: asyncio.Semaphore(WEBHOOKS_AT_ONCE),
            Transport.APPRISE: asyncio.Semaphore(PROCESSES_AT_ONCE),
        }
        self._waits_at = self._forgets_at = monotonic()

    async def run_once(self) -> AlertSummary:
        """Do the whole round once; what it began to send goes on."""
        now = monotonic()
        if now >= self._waits_at:
            self._waits_at = now + WAITS_CHECKED_SECONDS
            await self.note_long_waits()
        if now >= self._forgets_at:
            self._forgets_at = now + FORGOTTEN_SECONDS
            async with self._sessions.begin() as session:
                await alert_deliveries.forget(session, KEPT)
        work, summary = await self._look(), AlertSummary()
        if work.has_events:
            summary = await self._write()
            work = await self._look()
        return replace(summary, started=self._start(work.due_targets))

    async def note_long_waits(self) -> int:
        """Record what waits too long, if a target listens to that; return how many events."""
        if not self._settings.alert_wait_seconds:
            return 0
        async with self._sessions.begin() as session:
            targets = await alert_targets.every(session)
            if not any(AlertKind.WAITS_TOO_LONG in each.kinds for each in targets):
                return 0
            return await alert_deliveries.note_long_waits(session, timedelta(seconds=self._settings.alert_wait_seconds))

    async def idle(self) -> None:
        """Wait until nothing is being sent."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Cut off what is being sent; it is sent again when its claim has run out."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> Work:
        async with driver_of(self._sessions) as driver:
            return await alert_deliveries.look(driver)

    async def _write(self) -> AlertSummary:
        async with self._sessions.begin() as session:
            events = await alert_deliveries.pending_events(session, MOST_EVENTS)
            if not events:
                return AlertSummary()
            targets = await alert_targets.every(session)
            messages = await compose(session, events, targets, self._settings) if targets else []
            written = await alert_deliveries.settle_events(session, [event.id for event in events], messages)
        return AlertSummary(len(events), written, unfinished=len(events) == MOST_EVENTS)

    def _start(self, due: Sequence[int]) -> int:
        """Start a task for each of these targets that has none; return how many."""
        new = [target_id for target_id in due if target_id not in self._tasks]
        for target_id in new:
            task = asyncio.create_task(self._send_all(target_id), name=f"alerts-{target_id}")
            self._tasks[target_id] = task
            task.add_done_callback(lambda _task, target_id=target_id: self._tasks.pop(target_id, None))  # type: ignore[misc]  # a lambda's default
        return len(new)

    async def _send_all(self, target_id: int) -> None:
        """Send what is due at a target, one after the other, until one fails."""
        try:
            async with self._sessions() as session:
                found = await alert_targets.by_ids(session, [target_id])
            for target in found:
                while await self._send_next(target_id, Transport(target.transport)):
                    pass
        except DatabaseUnavailable as error:
            log.debug("alerts_interrupted", target_id=target_id, error=str(error))
        except Exception as error:  # any error: logged, tried again when the claim has run out
            log.error("alert_task_failed", target_id=target_id, error=str(error), exc_info=True)

    async def _send_next(self, target_id: int, transport: Transport) -> bool:
        """Send the next message; True if it was accepted."""
        async with self._turns[transport]:
            async with self._sessions.begin() as session:
                sending = await alert_deliveries.claim(session, target_id, CLAIM)
            if sending is None:
                return False
            try:
                await self._send(sending)
            except Exception as error:  # any: one that is not noted would be tried again at once, and for ever
                if not isinstance(error, DeliveryFailed):
                    log.error("alert_sending_broken", target=sending.target_name, error=str(error), exc_info=True)
                    error = DeliveryFailed(f"Sending it failed with {type(error).__name__}, see the scheduler's log.")
                await self._note_failed(sending, error)
                return False
        async with self._sessions.begin() as session:
            await alert_deliveries.note_delivered(session, sending)
            if sending.is_test:
                await alert_deliveries.hasten(session, target_id)
        log.info("alert_delivered", target=sending.target_name, delivery_id=sending.id, attempts=sending.attempts)
        return True

    async def _send(self, sending: Sending) -> None:
        if sending.transport == Transport.WEBHOOK:
            await self._webhooks.send(sending, datetime.now(UTC))
        else:
            await alert_apprise.send(sending, self._settings.alert_networks)

    async def _note_failed(self, sending: Sending, failure: DeliveryFailed) -> None:
        pause = None if failure.is_final else retry_after(sending.attempts, sending.age, self._chance())
        async with self._sessions.begin() as session:
            await alert_deliveries.note_failed(session, sending, str(failure), pause)
        log.warning(
            "alert_failed", target=sending.target_name, delivery_id=sending.id, attempts=sending.attempts,
            error=str(failure), again_in_seconds=pause.total_seconds() if pause is not None else None,
        )  # fmt: skip
