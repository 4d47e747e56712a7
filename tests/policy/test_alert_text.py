"""Alerts in words and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from policy.alert_text import (
    Result,
    Subject,
    budget_sentence,
    payload,
    plain,
    result_sentence,
    sentence,
    title,
)
from policy.alerts import kinds_of

DIGITS = Subject("digits", 108, "vision")


def told(event: str, reason: str, detail: str | None = None) -> str:
    return sentence(kinds_of(event, reason=reason), DIGITS, event, detail)


def test_each_end_has_its_words() -> None:
    assert told("FINISHED", "COMPLETED") == "digits (#108) in vision finished."
    assert told("CANCELLED", "CANCELLED") == "digits (#108) in vision was cancelled."
    assert told("FAILED", "EXIT_CODE", "Exit code 3.") == "digits (#108) in vision failed. Exit code 3."
    assert told("FAILED", "NON_FINITE_METRIC") == "digits (#108) in vision diverged."
    assert told("FINISHED", "STOPPING_THRESHOLD") == "digits (#108) in vision reached its target."
    assert told("FINISHED", "PATIENCE_EXHAUSTED") == "digits (#108) in vision no longer improved and was stopped."
    assert told("QUEUED", "MACHINE_LOST") == "digits (#108) in vision lost its machine and is queued again."
    assert told("FAILED", "MACHINE_LOST") == "digits (#108) in vision failed: its machine was lost."


def test_a_long_wait_says_how_long_and_how_many_wait_for_the_same() -> None:
    kinds = kinds_of("WAITS_TOO_LONG")
    alone = sentence(kinds, DIGITS, "QUEUED", "No machine fits.", waited_seconds=3900)
    assert alone == "digits (#108) in vision has waited for 1 h 5 min. No machine fits."
    assert sentence(kinds, DIGITS, "QUEUED", None, waited_seconds=60, waiting=2).endswith(
        "Another one waits for the same."
    )
    assert sentence(kinds, DIGITS, "QUEUED", None, waited_seconds=60, waiting=1001).endswith(
        "1,000 others wait for the same."
    )


def test_the_objective_is_told_with_its_best() -> None:
    assert result_sentence(Result("val/loss", 0.25, 0.1234567, 1200)) == "val/loss 0.25, best 0.123457 at step 1,200."
    assert result_sentence(Result("<b>", None, None, None)) == "‹b› not finite."


def test_a_budget_has_its_owner_and_its_amounts() -> None:
    assert budget_sentence("vision", 80, Decimal("400.5"), Decimal(500), "USD") == (
        "80 percent of the budget of vision is spent: 400.50 USD of 500.00 USD."
    )
    assert "of the installation" in budget_sentence(None, 100, Decimal(1), Decimal(1), "EUR")


def test_no_name_mentions_links_or_breaks_lines_in_a_chat() -> None:
    name = "@everyone <!channel> [win](http://x) `rm`\n\x1b[31m\u202eevil"
    shown = plain(name)
    assert not set("@<>[]`\n\x1b\u202e") & set(shown)
    assert "everyone" in shown
    assert name not in title(kinds_of("FAILED"), Subject(name, 1, name), "FAILED")
    assert len(plain("x" * 10_000)) <= 80
    assert len(sentence(kinds_of("FAILED"), DIGITS, "FAILED", "y" * 10_000)) < 600


def test_a_payload_is_json_with_a_type_and_a_time_in_utc() -> None:
    at = datetime(2026, 11, 29, 15, 0, tzinfo=timezone(timedelta(hours=1)))
    assert json.loads(payload("simulation.failed", at, {"sentence": "ü"})) == {
        "type": "simulation.failed", "timestamp": "2026-11-29T14:00:00Z", "data": {"sentence": "ü"},
    }  # fmt: skip
    assert payload("a", datetime(2026, 1, 1, tzinfo=UTC), {}) == (
        '{"type":"a","timestamp":"2026-01-01T00:00:00Z","data":{}}'
    )
