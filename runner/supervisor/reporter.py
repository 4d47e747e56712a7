"""Reporter: a thread that sends the spool's batches and heartbeats, and keeps the service's answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from runner.supervisor.assignment import REPORT_SPACING_SECONDS, OrderChange
from runner.supervisor.complaints import complain
from runner.supervisor.service import Backoff, Service, Unreachable
from runner.supervisor.spool import Spool

LAST_RETRY_SECONDS = 5.0


class Reporter:
    """Sends the spool and keeps the answers: `is_over`, `is_stop_wanted`, `stop_reason`, `order_change`.

    Its thread is made when it begins: the child that ends at once needs none.
    """

    def __init__(
        self,
        service: Service,
        spool: Spool,
        wake: Callable[[], None],
        heartbeat_seconds: float,
        first_heartbeat_seconds: float,
    ) -> None:
        self.is_over = False
        self.is_stop_wanted = False
        self.stop_reason: str | None = None
        self.order_change: OrderChange | None = None
        self.is_answered = False
        self.is_finished = False  # done, or failed by a defect of this program
        self._thread: threading.Thread | None = None
        self._service = service
        self._spool = spool
        self._heartbeat_seconds = heartbeat_seconds
        self._wake = wake
        # A short heartbeat means a short lease: after an outage the retry must come before the lease runs out.
        self._backoff = Backoff(min(LAST_RETRY_SECONDS, 2.5 * heartbeat_seconds))
        self._send_at = 0.0  # not before
        self._heartbeat_at = time.monotonic() + first_heartbeat_seconds  # not after
        self._refusals = 0

    @property
    def has_begun(self) -> bool:
        return self._thread is not None

    @property
    def is_done(self) -> bool:
        return self.is_over or self._spool.is_delivered

    def begin(self) -> None:
        """Start the thread, unless it runs or nothing is left to send."""
        if not self.has_begun and not self.is_finished:
            thread = threading.Thread(target=self._run, name="reporter", daemon=True)
            thread.start()
            self._thread = thread

    def try_once(self) -> None:
        """Send the only report of a short run without a thread; what is left after one try is for `begin`."""
        if not self.has_begun:
            if not self.is_done:
                self.run_once()
            self.is_finished = self.is_done

    def _run(self) -> None:
        try:
            while not self.is_done:
                self.run_once()
        finally:  # also after a defect: the reader has to notice
            self.is_finished = True
            self._wake()

    def run_once(self) -> None:
        """Wait until a batch or heartbeat is due, send it, apply the answer; after a failure, back off."""
        number = self._next()
        payload = b"" if number is None else self._spool.head()
        if number is not None:
            self._send_at = time.monotonic() + REPORT_SPACING_SECONDS
        try:
            answer = self._service.report(number, payload)
            settled = self._obey(answer, number)
        except Unreachable as error:
            time.sleep(self._backoff.failed(str(error)))
            return
        if not settled:
            time.sleep(self._backoff.failed(f"batch {number} was not taken: {str(answer)[:300]}"))
            return
        self._backoff.succeeded()

    def _next(self) -> int | None:
        with self._spool.changed:
            while True:
                now = time.monotonic()
                is_waiting = not self._spool.is_empty
                if is_waiting and now >= self._send_at:
                    return self._spool.number
                if not is_waiting and now >= self._heartbeat_at:
                    return None
                self._spool.changed.wait((self._send_at if is_waiting else self._heartbeat_at) - now)

    def _obey(self, answer: Mapping[str, object], number: int | None) -> bool:
        """Apply an answer to this attempt; False if the batch has to be sent again after a pause."""
        is_changed = self._amend(answer.get("orderChange"))
        self._heartbeat_at = time.monotonic() + self._heartbeat_seconds
        was_full, had_stop = self._spool.is_full, self.is_stop_wanted
        settled = True
        if answer["verdict"] == "OVER":
            self.is_over = True
        elif number is not None:
            settled = self._settle(answer, number)
        if answer["verdict"] == "STOP" and not had_stop:
            reason = answer.get("stopReason")
            self.stop_reason = reason if isinstance(reason, str) else None
            self.is_stop_wanted = True
        is_first, self.is_answered = not self.is_answered, True
        if self.is_over or is_first or was_full or is_changed or self.is_stop_wanted != had_stop:
            self._wake()
        return settled

    def _amend(self, raw: object) -> bool:
        """Apply a change of the order; True if it is new. A malformed one is ignored: the order stands."""
        if not isinstance(raw, dict):
            return False
        try:
            change = OrderChange.parse(raw)
        except (ValueError, KeyError) as error:
            complain(f"a change of the order that makes no sense: {type(error).__name__}: {error}")
            return False
        is_new, self.order_change = change != self.order_change, change
        self._heartbeat_seconds = change.heartbeat_seconds
        return is_new

    def _settle(self, answer: Mapping[str, object], number: int) -> bool:
        expected = answer.get("expectedBatch")
        if type(expected) is not int:
            raise Unreachable(f"an answer without expectedBatch: {str(answer)[:300]}")
        refusal = _refusal(answer)
        if expected > number:
            self._refusals = 0
            self._spool.acknowledge()
            return True
        if refusal is not None:
            self._refusals += 1
            complain(f"batch {number} was refused: {refusal}")
            # If the sentence is refused as well, the batch is replaced by an empty one: delivery never gets stuck.
            sentence = f"The service refused batch {number} and its content is lost: {refusal}"
            self._spool.replace_head(sentence if self._refusals == 1 else None)
            return self._refusals <= 2
        if expected < number and expected > 0:
            # Earlier batches were acknowledged and discarded: the service has gone back to an older state (a restored
            # backup), so delivery goes on from the batch it expects.
            complain(f"the service expects batch {expected} again, after it acknowledged {number - 1}")
            self._spool.renumber(expected)
        return False


def _refusal(answer: Mapping[str, object]) -> str | None:
    errors = answer.get("userErrors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict) and error.get("code") == "BATCH_REFUSED":
            return str(error.get("message"))[:1000].replace("\0", "\ufffd")
    return None
