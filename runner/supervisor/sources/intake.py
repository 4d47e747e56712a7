"""Intake: points of all sources, on their way into the curve and the spool.

A point that is not taken is counted as a notice; it is never an error for the source.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Union

from runner.supervisor.curve import Curve, straight
from runner.supervisor.notices import Notices
from runner.supervisor.spool import Spool

FULL_SECONDS = 60.0  # the longest wait for room in the spool
FULL_POLL_SECONDS = 0.1


MAX_PARAMETERS = 1_000
MAX_TAGS = 50
MAX_NAME = 200  # characters of a parameter's name, and of a tag
MAX_TEXT = 1_000  # characters of a parameter's value
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,15})(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")

Scalar = Union[str, float, bool, None]  # evaluated, by Python 3.9 too


class Point(NamedTuple):
    """A value of a metric. wall_time: seconds since 1970 of the measurement; None: now."""

    metric: str
    step: int
    value: float
    wall_time: float | None = None


class Closed(OSError):
    """The attempt's output is sealed: the connection ends without an answer."""


class Intake:
    """Takes the points of the sources of one attempt, from any thread."""

    def __init__(self, curve: Curve, spool: Spool, notices: Notices) -> None:
        self.notices = notices
        self._curve = curve
        self._spool = spool
        self._started_at = time.monotonic()
        self._started_wall = time.time()
        self._lock = threading.RLock()
        self._parameters: dict[str, Scalar] = {}
        self._tags: set[str] = set()
        self._is_closed = False

    def add(self, source: str, points: Iterable[Point]) -> None:
        """Take points; those that count are in the spool's file on return. Raises Closed."""
        elapsed = round(time.monotonic() - self._started_at, 6)
        with self._lock:
            if self._is_closed:
                raise Closed
            for point in points:
                metric = straight(point.metric)
                value = self._curve.take_recorded(source, metric, point.step, point.value)
                if value is not None:
                    at = elapsed if point.wall_time is None else self._elapsed_at(point.wall_time, elapsed)
                    self._spool.add_points(point.step, at, [(metric, value)])
            self._spool.write_out()

    def describe(self, parameters: Mapping[str, object], tags: Iterable[str] = ()) -> None:
        """Take parameters and tags; new ones are in the spool's file on return. Text that is a number becomes one.

        Text is cut, and what is no scalar becomes JSON text. Raises Closed.
        """
        with self._lock:
            if self._is_closed:
                raise Closed
            for given, raw in parameters.items():
                name, value = _storable(given)[:MAX_NAME], _scalar(raw)
                is_known = name in self._parameters
                if not name or (is_known and self._parameters[name] == value) or (not is_known and self._is_rich):
                    continue
                self._parameters[name] = value
                self._spool.add_parameter(name, value)
            for tag in (_storable(each)[:MAX_NAME] for each in tags):
                if tag and tag not in self._tags and len(self._tags) < MAX_TAGS:
                    self._tags.add(tag)
                    self._spool.add_tag(tag)
            self._spool.write_out()

    @property
    def _is_rich(self) -> bool:
        return len(self._parameters) >= MAX_PARAMETERS

    def close(self) -> None:
        """Take nothing more, so that the exit is the last entry also if a thread still has points."""
        with self._lock:
            self._is_closed = True

    def wait_for_room(self) -> None:
        """Wait while the spool is full, for a minute at most: an error would end the user's program."""
        deadline = time.monotonic() + FULL_SECONDS
        with self._spool.changed:
            while self._spool.is_full and time.monotonic() < deadline:
                self._spool.changed.wait(FULL_POLL_SECONDS)

    @property
    def is_full(self) -> bool:
        """Whether the spool has no room: a file is read later."""
        return self._spool.is_full

    def _elapsed_at(self, wall_time: float, now: float) -> float:
        """Seconds since the start: a file may lag by minutes, and its clock may be another's."""
        seconds = wall_time - self._started_wall
        return min(max(round(seconds, 6), 0.0), now) if math.isfinite(seconds) else now


def _scalar(raw: object) -> Scalar:
    if isinstance(raw, str) and NUMBER.fullmatch(raw):
        raw = float(raw) if set(raw) & set(".eE") else int(raw)
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, (int, float)):
        is_exact = isinstance(raw, float) or -(2**63) <= raw < 2**64  # larger ones become doubles in the service
        return raw if is_exact and abs(raw) <= sys.float_info.max else _text_of(raw)
    text = raw if isinstance(raw, str) else json.dumps(raw, default=str)
    return _storable(text)[:MAX_TEXT]


def _text_of(number: float) -> str:
    """Return a number beyond JSON's as text: NaN, an infinity, or an integer; beyond doubles, its digits are cut."""
    return hex(int(number))[:MAX_TEXT] if sys.float_info.max < abs(number) < math.inf else repr(number)


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
