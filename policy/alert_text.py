"""An alert as JSON and in words: the title and the sentence.

Names and details come from other users and end up in chats and e-mails: they are cut, and what would mention people,
make a link or change the markup there is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from policy import phrasing
from policy.alerts import AlertKind

LONGEST_DETAIL = 500
_LONGEST_NAME = 80
_HARMLESS = str.maketrans({"@": "\N{FULLWIDTH COMMERCIAL AT}", "<": "‹", ">": "›", "[": "(", "]": ")", "`": "'"})
_BY_KIND = {
    AlertKind.DIVERGED: "diverged",
    AlertKind.TARGET_REACHED: "reached its target",
    AlertKind.PLATEAU: "no longer improved and was stopped",
    AlertKind.FAILED: "failed",
}
_BY_STATE = {"FINISHED": "finished", "FAILED": "failed", "CANCELLED": "was cancelled"}


@dataclass(frozen=True, slots=True)
class Subject:
    """The simulation that an alert is about."""

    name: str
    number: int
    project: str


def plain(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return text of another user in one line, without markup that a chat or an e-mail would interpret."""
    shown = "".join(each if each.isprintable() else " " for each in phrasing.cut(text, longest))
    return " ".join(shown.translate(_HARMLESS).split())


def title(kinds: Sequence[AlertKind], subject: Subject, state: str, waited_seconds: float = 0) -> str:
    """Return what happened to a simulation, in a line."""
    return (
        f"{plain(subject.name)} (#{subject.number}) in {plain(subject.project)} {_verb(kinds, state, waited_seconds)}"
    )


def sentence(
    kinds: Sequence[AlertKind],
    subject: Subject,
    state: str,
    detail: str | None,
    *,
    waited_seconds: float = 0,
    waiting: int = 1,
) -> str:
    """Return what happened to a simulation, with the detail of its reason.

    waiting: how many simulations wait for the same, this one included.
    """
    told = f"{title(kinds, subject, state, waited_seconds)}."
    if detail:
        told += f" {plain(detail, LONGEST_DETAIL)}"
    if waiting > 1:
        others = f"{waiting - 1:,} others wait" if waiting > 2 else "Another one waits"
        told += f" {others} for the same."
    return told


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation came to in its objective. None: not finite, or neither direction is better."""

    metric: str
    value: float | None
    best_value: float | None
    best_step: int | None


def result_sentence(result: Result) -> str:
    """Return the newest and the best value of the objective."""
    value = f"{result.value:.6g}" if result.value is not None else "not finite"
    told = f"{plain(result.metric)} {value}"
    if result.best_value is not None:
        told += f", best {result.best_value:.6g} at step {result.best_step:,}"
    return f"{told}."


def budget_title(project: str | None, percent: int) -> str:
    """Return how much of a budget is spent. project: None for the whole installation."""
    owner = f"the budget of {plain(project)}" if project is not None else "the budget of the installation"
    return f"{percent} percent of {owner} is spent"


def budget_sentence(project: str | None, percent: int, spent: Decimal, amount: Decimal, currency: str) -> str:
    """Like `budget_title`, with the amounts."""
    of = f"{phrasing.money(spent, currency)} of {phrasing.money(amount, currency)}"
    return f"{budget_title(project, percent)}: {of}."


def test_title() -> str:
    """Return the title of a test message."""
    return "Test of an alert target"


def test_sentence(target: str, actor: str) -> str:
    """Return the sentence of a test message."""
    return f"This is a test of the alert target {plain(target)}, requested by {plain(actor)}."


def payload(kind: str, at: datetime, data: Mapping[str, Any]) -> str:
    """Return a message as JSON, in the form of Standard Webhooks. kind: its type."""
    timestamp = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": kind, "timestamp": timestamp, "data": data}, ensure_ascii=False, separators=(",", ":"))


def _verb(kinds: Sequence[AlertKind], state: str, waited_seconds: float) -> str:
    kind = kinds[0]
    if kind is AlertKind.MACHINE_LOST:
        return "lost its machine and is queued again" if state == "QUEUED" else "failed: its machine was lost"
    if kind is AlertKind.WAITS_TOO_LONG:
        return f"has waited for {phrasing.span(waited_seconds)}"
    return _BY_KIND.get(kind) or _BY_STATE[state]
