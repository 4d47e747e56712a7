"""Several transfers at once: in order, not more than so many, and none is left behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from runner.supervisor.files.lanes import Buffers, in_order


def test_results_come_in_order_whichever_is_first() -> None:
    second_is_over = threading.Event()

    def act(number: int) -> int:
        if number == 0:
            assert second_is_over.wait(60)
        else:
            second_is_over.set()
        return number * number

    assert list(in_order(range(5), act, 2)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("at_once", [1, 3])
def test_not_more_than_so_many_are_begun_before_one_is_taken(at_once: int) -> None:
    begun: list[int] = []

    def items() -> Any:
        for number in range(10):
            begun.append(number)
            yield number

    results = in_order(items(), lambda number: number, at_once)
    for taken in range(10):
        assert next(results) == taken
        assert len(begun) == min(taken + at_once, 10)


def test_the_first_failure_is_raised_when_those_beside_it_are_over() -> None:
    over: list[int] = []
    failed = threading.Event()

    def act(number: int) -> None:
        if number == 0:
            failed.set()
            raise ValueError("first")
        assert failed.wait(60)
        over.append(number)

    with pytest.raises(ValueError, match="first"):
        list(in_order(range(10), act, 3))
    assert over == [1, 2]


def test_a_failure_of_the_items_waits_for_what_has_begun() -> None:
    over: list[int] = []

    def items() -> Any:
        yield 1
        raise KeyError("none")

    with pytest.raises(KeyError):
        list(in_order(items(), over.append, 3))
    assert over == [1]


def test_without_more_threads_each_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    assert list(in_order(range(3), str, 2)) == ["0", "1", "2"]
    with pytest.raises(ZeroDivisionError):
        list(in_order([0], lambda number: 1 // number, 2))


def test_memory_is_used_again() -> None:
    buffers = Buffers(10)
    with buffers.one() as first, buffers.one() as second:
        assert first.obj is not second.obj
    with buffers.one() as again:
        assert again in (first, second)
        assert len(again) == 10
    buffers.clear()
    assert buffers._idle == []
