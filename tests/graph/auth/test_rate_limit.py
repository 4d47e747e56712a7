"""Rate limits: a burst, then a steady rate, per key, with a bounded number of keys."""

from __future__ import annotations

import pytest

from graph.auth import rate_limit
from graph.auth.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("per_minute", [1, 7, 10, 6_000])
def test_so_many_may_come_at_once_and_then_one_in_each_period(clock: Clock, per_minute: int) -> None:
    limit = RateLimit(per_minute, clock=clock)
    assert [limit.take("ada") for _ in range(per_minute)] == [0] * per_minute
    for _ in range(3):
        wait = limit.take("ada")
        assert wait == pytest.approx(60 / per_minute)
        clock.now += wait
        assert limit.take("ada") == 0
    clock.now += 60
    assert [limit.take("ada") for _ in range(per_minute)] == [0] * per_minute


def test_what_one_spends_is_not_anothers(clock: Clock) -> None:
    limit = RateLimit(1, clock=clock)
    assert limit.take("ada") == 0
    assert limit.take("ada") > 0
    assert limit.take("bob") == 0


def test_asking_spends_nothing_and_what_is_refused_neither(clock: Clock) -> None:
    limit = RateLimit(2, clock=clock)
    assert [limit.wait_seconds("ada") for _ in range(5)] == [0] * 5
    limit.take("ada")
    limit.take("ada")
    first = limit.take("ada")
    assert limit.take("ada") == first


def test_who_goes_on_although_refused_never_has_to_wait_for_ever(clock: Clock) -> None:
    limit = RateLimit(10, clock=clock)
    for _ in range(1_000):
        limit.spend("ada")
    assert limit.wait_seconds("ada") <= 70


def test_no_more_keys_are_kept_than_there_is_room_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_KEYS", 3)
    limit = RateLimit(1, clock=clock)
    for name in ("ada", "bob", "eve", "ada", "dan"):
        limit.spend(name)
    assert len(limit._full_again_at) == 3
    assert limit.wait_seconds("bob") == 0, "who was seen longest ago is forgotten"
    assert limit.wait_seconds("ada") > 0
