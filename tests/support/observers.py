"""Observers of a simulation in a test: the witness, from inside, and a subscriber, from outside."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import witness
from live import PATIENCE_SECONDS, Service, eventually, within


@dataclass(frozen=True)
class Witness:
    """A simulation that keeps a diary (witness.py), seen from outside."""

    directory: Path

    @classmethod
    def on(cls, service: Service, name: str = "witness") -> Witness:
        directory = service.data_directory / name
        directory.mkdir()
        return cls(directory)

    @property
    def command(self) -> tuple[str, ...]:
        return ("python", witness.__file__, str(self.directory))

    def permit(self, name: str) -> None:
        """Let it `speak`, `finish`, or `let-go` after a stop request."""
        (self.directory / name).touch()

    def notes(self, word: str, attempt: int | None = None) -> list[int]:
        """The numbers behind this word in its diary; of all attempts, if none is given."""
        with suppress(FileNotFoundError):
            lines = [line.split() for line in (self.directory / "diary").read_text().splitlines()]
            return [int((*line, "0")[2]) for line in lines if line[1] == word and attempt in (None, int(line[0]))]
        return []

    @property
    def said(self) -> int:
        """How many points it has printed, at least."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.directory / "said").read_text())
        return 0

    async def has_noted(self, word: str, attempt: int = 1) -> None:
        await eventually(lambda: bool(self.notes(word, attempt)), f"attempt {attempt} noted {word!r}")

    async def has_said(self, more: int) -> None:
        """Wait until it has printed so many more points."""
        begin = self.said
        await eventually(lambda: self.said >= begin + more, f"{more} more points")


@dataclass
class Watch:
    """A subscriber that collects the events of a convergence, and resumes by cursor when it is cut off."""

    service: Service
    simulation_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    _following: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, service: Service, simulation_id: str) -> Watch:
        """Begin to watch."""
        watch = cls(service, simulation_id)
        watch._following = asyncio.create_task(watch._follow())
        return watch

    async def to_the_end(self) -> dict[str, Any]:
        """Wait until the subscription completes; the last event."""
        assert self._following is not None
        async with within(PATIENCE_SECONDS, f"the convergence of {self.simulation_id} completes"):
            await self._following
        return self.events[-1]

    async def leave(self) -> None:
        """Watch no more."""
        assert self._following is not None
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following

    async def _follow(self) -> None:
        async for event in self.service.curve(self.simulation_id):
            self.events.append(event)

    def received(self, metric: str) -> list[tuple[int, int, float | None]]:
        """Attempt, step and value of every point, in the order of arrival."""
        return [
            (event["attempt"], step, value)
            for event in self.events
            for series in event["series"]
            if series["metric"] == metric
            for step, value in zip(series["steps"], series["values"], strict=True)
        ]

    async def has_received(self, count: int, metric: str = "loss") -> None:
        await eventually(lambda: len(self.received(metric)) >= count, f"{count} points arrive")
