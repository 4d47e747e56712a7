"""What is sent again, what is replaced, and what a service that went back in time is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.assignment import REPORT_SPACING_SECONDS
from runner.supervisor.reporter import Reporter
from runner.supervisor.service import Unreachable
from runner.supervisor.spool import Exit, Spool

NONE: dict[str, list[float]] = {"steps": [], "values": [], "elapsed": []}


def test_a_flood_of_points_comes_in_full_batches_in_valid_order(service: Any, supervise: Any) -> None:
    started = supervise(
        "import os\nfor i in range(100): os.write(1, b''.join(b'{\"a\": %d, \"b\": 1}\\n' % i for j in range(500)))"
    )
    assert started.wait() == 0
    assert [step for step, _ in service.points("a")] == list(range(50_000))
    assert [step for step, _ in service.points("b")] == list(range(50_000))
    assert (
        max(sum(len(column["steps"]) for column in batch.get("points", {}).values()) for batch in service.stored)
        <= 10_000
    )
    assert max(len(body) for _, body in service.bodies) < 1_000_000
    gaps = [later - earlier for earlier, later in zip(service.arrivals, service.arrivals[1:], strict=False)]
    assert len(gaps) / sum(gaps) < 1.5 / REPORT_SPACING_SECONDS


def test_a_batch_whose_answer_was_lost_is_sent_again_the_same_and_stored_once(service: Any, supervise: Any) -> None:
    seen: set[int] = set()

    def cut_the_first_of_each(_: str, given: Mapping[str, Any]) -> tuple[int, bytes | None] | None:
        number = given.get("batch")
        if number is None or number in seen:
            return None
        seen.add(number)
        return 200, None

    service.misbehave, service.stores_first = cut_the_first_of_each, True
    started = supervise("import time\nfor i in range(6): print('{\"loss\": %d}' % i); time.sleep(0.1)")
    assert started.wait() == 0
    assert service.points("loss") == [(step, float(step)) for step in range(6)]
    for number in seen:
        bodies = [body for sent, body in service.bodies if sent == number]
        assert len(bodies) >= 2
        assert len(set(bodies)) == 1


def test_a_refused_batch_is_replaced_by_a_sentence_and_what_follows_arrives(
    service: Any, supervise: Any, in_turns: Any
) -> None:
    service.refuses = lambda given: "unlucky" if 13.0 in given.get("points", {"a": NONE})["a"]["values"] else None
    code, go_on = in_turns('{"a": 1}', '{"a": 13}', '{"a": 2}')
    started = supervise(code)
    service.wait(lambda: service.points("a"))
    go_on()
    service.wait(lambda: service.log("SUPERVISOR"))
    go_on()
    assert started.wait() == 0
    assert service.points("a") == [(0, 1.0), (2, 2.0)]
    assert service.log("SUPERVISOR") == "The service refused batch 2 and its content is lost: unlucky"
    assert service.exit["exitCode"] == 0


def test_the_exit_survives_a_refusal_and_a_refusal_of_the_sentence_too(service: Any, supervise: Any) -> None:
    service.refuses = lambda given: "no points and no logs" if "points" in given or "logs" in given else None
    assert supervise("print('{\"a\": 1}'); print('text')").wait() == 0
    assert service.exit["exitCode"] == 0
    assert service.points("a") == []


def test_a_service_that_went_back_in_time_is_told_the_rest(service: Any, supervise: Any, in_turns: Any) -> None:
    code, go_on = in_turns('{"a": 0}', '{"a": 1}', '{"a": 2}')
    started = supervise(code)
    service.wait(lambda: len(service.stored) == 1)
    go_on()
    service.wait(lambda: len(service.stored) == 2)
    with service.changed:
        service.stored.clear()
    go_on()
    assert started.wait() == 0
    assert service.points("a") == [(2, 2.0)]
    assert service.exit["exitCode"] == 0


# --- the only report of a short run -----------------------------------------------------------------------------------


class Scripted:
    """A service that fails at some of its calls, by their place."""

    def __init__(self, failures: Iterable[int]) -> None:
        self.reported: list[int | None] = []
        self._failures = set(failures)

    def report(self, number: int | None, _: bytes) -> Mapping[str, object]:
        self.reported.append(number)
        if len(self.reported) in self._failures:
            raise Unreachable("not now")
        return {"verdict": "CONTINUE", "expectedBatch": (number or 0) + 1, "userErrors": []}


def ended(directory: Path, failures: Iterable[int] = ()) -> tuple[Reporter, Scripted, Spool]:
    service, spool = Scripted(failures), Spool(directory, 1 << 20, 1 << 20)
    spool.close(Exit(exit_code=0))
    return Reporter(service, spool, lambda: None, 2.0, 2.0), service, spool  # type: ignore[arg-type]  # what it uses


def test_the_only_report_of_a_short_run_takes_no_thread(tmp_path: Path) -> None:
    reporter, service, spool = ended(tmp_path)
    reporter.try_once()
    reporter.begin()
    assert service.reported == [1]
    assert spool.is_delivered
    assert (reporter.is_finished, reporter.has_begun) == (True, False)


@pytest.mark.parametrize("failures", [[1], [1, 2, 3]])
def test_what_did_not_arrive_at_once_is_sent_by_the_thread(tmp_path: Path, failures: list[int], until: Any) -> None:
    reporter, service, spool = ended(tmp_path, failures)
    reporter.try_once()
    assert not reporter.is_finished
    reporter.begin()
    reporter.begin()
    until(lambda: reporter.is_finished)
    assert service.reported == [1] * (len(failures) + 1)
    assert spool.is_delivered
    assert reporter.is_finished


def test_nothing_is_tried_where_nothing_is_left(tmp_path: Path) -> None:
    reporter, service, _ = ended(tmp_path)
    reporter.try_once()
    reporter.try_once()
    assert service.reported == [1]
