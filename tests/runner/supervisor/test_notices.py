"""Notices: counted for every line, written now and then."""

from __future__ import annotations

import pytest

from runner.supervisor import notices as module
from runner.supervisor.notices import LOG_RATE, MAX_TEXT, NOT_RISING, Notices


def test_a_notice_is_written_when_it_is_new_then_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    written: list[tuple[str, int]] = []
    notices = Notices(lambda kind, count, *_: written.append((kind, count)))
    for _ in range(10):
        notices.count(NOT_RISING, "x")
        notices.write_out()
    assert written == [(NOT_RISING, 1)]
    now = 106.0
    notices.write_out()
    notices.count(LOG_RATE, "", by=500)
    notices.write_out()
    notices.count(NOT_RISING, "x")
    notices.write_out(is_last=True)
    notices.write_out(is_last=True)
    assert written == [(NOT_RISING, 1), (NOT_RISING, 10), (LOG_RATE, 500), (NOT_RISING, 11)]


def test_the_first_example_is_kept_cut_and_cleaned() -> None:
    written: list[str] = []
    notices = Notices(lambda _, __, example, advice: written.extend((example, advice)))
    notices.count(NOT_RISING, "first\x1b[31m\n" + "x" * 10_000, subject="m\x07" * 1_000)
    notices.count(NOT_RISING, "second")
    notices.write_out(is_last=True)
    example, advice = written
    assert example.startswith("first [31m x")
    assert max(map(len, written)) == MAX_TEXT
    assert example.isprintable()
    assert advice.isprintable()


def test_every_kind_has_its_advice() -> None:
    kinds = {value for name, value in vars(module).items() if name.isupper() and value == name}
    assert set(module.ADVICE) == kinds
