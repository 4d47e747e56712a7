"""What arrives at the service, whatever the child prints and however the network behaves."""

from __future__ import annotations

import itertools
import json
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner import supervisor

Until = Callable[[Callable[[], object]], None]

NONE: dict[str, list[float]] = {"steps": [], "values": [], "elapsed": []}


# --- what the child prints ---


def test_points_logs_and_the_exit_arrive_in_order(service: Any, supervise: Any) -> None:
    started = supervise(
        "import sys\n"
        "print('hello')\n"
        'for step in range(5): print(\'{"step": %d, "loss": %g, "accuracy": 1}\' % (step, 1 / (step + 1)))\n'
        "print('bye'); print('oops', file=sys.stderr); sys.exit(3)"
    )
    assert started.wait() == 0
    assert service.points("loss") == [(0, 1.0), (1, 0.5), (2, 0.333333), (3, 0.25), (4, 0.2)]
    assert service.points("accuracy") == [(step, 1.0) for step in range(5)]
    assert service.log("STDOUT") == "hello\nbye"
    assert service.log("STDERR") == "oops"
    assert service.exit == {"exitCode": 3, "signal": None, "reason": None, "message": None}
    assert "exit" in service.stored[-1]
    assert [batch["batch"] for batch in service.stored] == list(range(1, len(service.stored) + 1))
    assert len(service.nonces) == 1
    assert len(service.nonces.pop()) == 32


def in_turns(tmp_path: Path, *lines: str) -> tuple[str, Callable[[], None]]:
    """The code of a child that prints each line only when told to, and how to tell it. The first comes by itself."""
    code = f"""
import os, time
for number, line in enumerate({lines!r}):
    while number and not os.path.exists(f"{tmp_path}/turn{{number}}"): time.sleep(0.01)
    print(line)
"""
    turns = itertools.count(1)
    return code, lambda: (tmp_path / f"turn{next(turns)}").touch()


def test_elapsed_counts_seconds_from_the_start_of_the_child(service: Any, supervise: Any, tmp_path: Path) -> None:
    code, go_on = in_turns(tmp_path, '{"a": 1}', '{"a": 2}')
    before = time.monotonic()
    started = supervise(code)
    service.wait(lambda: service.points("a"))
    go_on()
    started.wait()
    first, second = [second for batch in service.stored for second in batch.get("points", {"a": NONE})["a"]["elapsed"]]
    assert 0 <= first < second < time.monotonic() - before


def test_values_that_are_not_finite_arrive_as_words_in_valid_json(service: Any, supervise: Any) -> None:
    supervise("import json, math\nfor v in (math.nan, math.inf, -math.inf, 1.5): print(json.dumps({'loss': v}))").wait()
    assert service.points("loss") == [(0, "NaN"), (1, "Infinity"), (2, "-Infinity"), (3, 1.5)]
    for _, body in service.bodies:
        json.loads(body, parse_constant=lambda word: pytest.fail(f"bare {word} is not JSON"))


def test_a_line_is_reported_at_once_and_not_when_the_child_ends(service: Any, supervise: Any) -> None:
    supervise("import time\nprint('{\"loss\": 1}')\ntime.sleep(1000)")
    service.wait(lambda: service.points("loss") == [(0, 1.0)])


def test_bad_output_goes_to_the_log_and_never_ends_the_run(service: Any, supervise: Any) -> None:
    started = supervise(
        """
import os, json
def line(text): os.write(1, (text if isinstance(text, bytes) else text.encode()) + b"\\n")
line('not json'); line('[1, 2]'); line('3.5'); line('"text"'); line('null'); line('')
line('{"step": 7, "loss": 1}'); line('{"step": 6, "loss": 0.9}'); line('{"step": 8, "loss": "low", "good": true}')
line('{"step": 9, "loss": {"deep": 1}, "fine": 3}')
line(json.dumps({f"m{i}": i for i in range(100)} | {"step": 3_000_000_000}))
line('{"' + "n" * 1_000_000 + '": 1}'); line('{"long": 1, "pad": "' + "x" * 10_000_000 + '"}')
line(b'bad \\xff\\xfe bytes'); line(b'nul \\0 byte'); line('{"loss": 1e400, "step": 3000000001}')
os.write(1, b'{"step": 4000000000, "last": 1}')
"""
    )
    assert started.wait() == 0
    assert service.points("loss") == [(7, 1.0), (3_000_000_001, "Infinity")]
    assert service.points("fine") == [(9, 3.0)]
    assert service.points("m99") == [(3_000_000_000, 99.0)]
    assert service.points("last") == [(4_000_000_000, 1.0)]
    assert service.points("long") == []
    log = service.log("STDOUT").split("\n")
    assert log[:6] == ["not json", "[1, 2]", "3.5", '"text"', "null", ""]
    assert log[6:8] == ['{"step": 6, "loss": 0.9}', '{"step": 8, "loss": "low", "good": true}']
    assert log[8] == '{"step": 9, "loss": {"deep": 1}, "fine": 3}'
    assert [line[-30:] for line in log[9:11]] == [
        ("n" * 30 + f" … [cut: {1_000_007 - supervisor.MAX_LOGGED_LINE} bytes more]")[-30:],
        ("x" * 30 + f" … [cut: {10_000_022 - supervisor.MAX_LOGGED_LINE} bytes more]")[-30:],
    ]
    assert log[11:] == ["bad \ufffd\ufffd bytes", "nul \ufffd byte"]
    assert service.exit["exitCode"] == 0


def test_a_progress_bar_that_never_ends_its_line_is_seen_while_it_moves(service: Any, supervise: Any) -> None:
    supervise("import sys, time\nsys.stderr.write('10%\\r20%\\r'); sys.stderr.flush(); time.sleep(1000)")
    service.wait(lambda: service.log("STDERR") == "10%\n20%")


def test_a_flood_drops_and_counts_logs_and_never_points(service: Any, supervise: Any) -> None:
    lines, flood = 300, 1_000_000
    started = supervise(
        f"""
import os
for step in range({lines}):
    os.write(1, b"y\\n" * {flood // 2})
    os.write(1, b'{{"loss": %d}}\\n' % step)
""",
        maxRuntimeSeconds=60,
    )
    assert started.wait() == 0
    assert service.exit["exitCode"] == 0
    assert service.points("loss") == [(step, float(step)) for step in range(lines)]
    marks = [line for line in service.log("SUPERVISOR").split("\n") if line.startswith("dropped ")]
    dropped = sum(int(mark.split()[1]) for mark in marks)
    logged = sum(
        len(chunk["text"]) + 1
        for batch in service.stored
        for chunk in batch.get("logs", ())
        if chunk["stream"] == "STDOUT"
    )
    assert dropped + logged == lines * flood
    seconds = service.arrivals[-1] - service.arrivals[0]
    assert logged <= supervisor.LOG_BURST_BYTES + supervisor.LOG_RATE_BYTES * (seconds + 2)
    assert len(marks) <= seconds + 3


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
    assert len(gaps) / sum(gaps) < 1.5 / supervisor.REPORT_SPACING_SECONDS


# --- how the network behaves ---

OVER_FROM_ELSEWHERE = {"attempt": {"id": "QXR0ZW1wdDo5OTk="}, "verdict": "OVER", "expectedBatch": 1, "userErrors": []}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((401, b'{"errors": [{"message": "who?"}]}'), id="401"),
        pytest.param((404, b"not found"), id="404"),
        pytest.param((302, b""), id="302"),
        pytest.param((500, json.dumps({"data": {"reportAttempt": OVER_FROM_ELSEWHERE}}).encode()), id="500"),
        pytest.param((200, b"<html>Welcome to the hotel's wireless network</html>"), id="a captive portal"),
        pytest.param(
            (200, json.dumps({"data": {"reportAttempt": OVER_FROM_ELSEWHERE}}).encode()), id="another attempt"
        ),
        pytest.param((200, b'{"data": {"reportAttempt": null}}'), id="null"),
        pytest.param((200, b'{"data": null, "errors": [{"message": "internal"}]}'), id="an error"),
        pytest.param((200, b"[" * 100_000), id="a deep list"),
        pytest.param((200, b"[1]"), id="a list"),
        pytest.param((200, b"\xff\xfe"), id="bytes"),
        pytest.param((200, b""), id="nothing"),
        pytest.param((200, None), id="a cut connection"),
    ],
)
def test_only_a_reply_that_names_this_attempt_counts(
    service: Any, supervise: Any, reply: tuple[int, bytes | None]
) -> None:
    left = {"helloAttempt": 2, "reportAttempt": 4}

    def misbehave(name: str, _: Mapping[str, Any]) -> tuple[int, bytes | None] | None:
        left[name] -= 1
        return reply if left[name] >= 0 else None

    service.misbehave = misbehave
    assert supervise("for i in range(3): print('{\"loss\": 1}')").wait() == 0
    assert [step for step, _ in service.points("loss")] == [0, 1, 2]
    assert service.exit["exitCode"] == 0


def test_an_error_that_comes_with_our_name_is_no_answer_either(service: Any, supervise: Any) -> None:
    named = {"attempt": {"id": "QXR0ZW1wdDo3Lw=="}, "verdict": "OVER", "expectedBatch": 1, "userErrors": []}
    reply = json.dumps({"data": {"reportAttempt": named}, "errors": [{"message": "half of it failed"}]}).encode()
    tries = iter([(200, reply)] * 3)
    service.misbehave = lambda name, _: next(tries, None) if name == "reportAttempt" else None
    assert supervise("print('{\"loss\": 1}')").wait() == 0
    assert service.points("loss") == [(0, 1.0)]


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


def test_the_address_may_change_while_it_runs(service: Any, supervise: Any, tmp_path: Path) -> None:
    supervise(
        "print('{\"loss\": 1}')\ninput_file = '" + str(tmp_path / "go") + "'\n"
        "import os, time\nwhile not os.path.exists(input_file): time.sleep(0.01)\nprint('{\"loss\": 2}')"
    )
    service.wait(lambda: service.points("loss"))
    service.close()
    (tmp_path / "go").touch()
    (tmp_path / "address").write_text(service.open())
    service.wait(lambda: service.exit)
    assert service.points("loss") == [(0, 1.0), (1, 2.0)]
    assert len(service.nonces) == 1


def test_the_service_may_come_up_after_the_supervisor(
    service: Any, supervise: Any, tmp_path: Path, until: Until
) -> None:
    url, service.url = service.url, "no address at all"
    started = supervise("print('{\"loss\": 1}')")
    until(lambda: "can't be reached" in started.complaints)
    (tmp_path / "address").unlink()
    (tmp_path / "address").write_text(url)
    assert started.wait() == 0
    assert service.points("loss") == [(0, 1.0)]


def test_a_refused_batch_is_replaced_by_a_sentence_and_what_follows_arrives(
    service: Any, supervise: Any, tmp_path: Path
) -> None:
    service.refuses = lambda given: "unlucky" if 13.0 in given.get("points", {"a": NONE})["a"]["values"] else None
    code, go_on = in_turns(tmp_path, '{"a": 1}', '{"a": 13}', '{"a": 2}')
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


def test_a_service_that_went_back_in_time_is_told_the_rest(service: Any, supervise: Any, tmp_path: Path) -> None:
    code, go_on = in_turns(tmp_path, '{"a": 0}', '{"a": 1}', '{"a": 2}')
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


# --- where it is kept meanwhile ---


def _unreachable(service: Any) -> Callable[[], None]:
    service.misbehave = lambda name, _: (503, b"later") if name == "reportAttempt" else None

    def heal() -> None:
        service.misbehave = lambda *_: None

    return heal


LINES = 300_000  # far more than a pipe holds
PRINT_MUCH = f"""
import os
for first in range(0, {LINES}, 1000):
    os.write(1, b"".join(b'{{"a": %d}}\\n' % i for i in range(first, first + 1000)))
open("printed", "w").close()
"""


def _sees_all(service: Any) -> bool:
    return [step for step, _ in service.points("a")] == list(range(LINES))


def test_an_outage_is_spooled_to_files_and_delivered_in_order(service: Any, supervise: Any, until: Until) -> None:
    heal = _unreachable(service)
    started = supervise(PRINT_MUCH, config={"spool_memory_bytes": 1_000_000})
    until((started.directory / "work" / "printed").exists)
    until(lambda: len(list((started.directory / "spool").glob("*.json"))) >= 3)
    heal()
    assert started.wait() == 0
    assert _sees_all(service)
    assert not (started.directory / "spool").exists()


@pytest.mark.parametrize("failure", ["no directory", "no room"])
def test_with_the_disk_full_the_simulation_waits_and_nothing_is_lost(
    service: Any, supervise: Any, until: Until, tmp_path: Path, failure: str
) -> None:
    heal = _unreachable(service)
    if failure == "no directory":
        (tmp_path / "attempt").mkdir()
        (tmp_path / "attempt" / "spool").write_text("a file where the directory should be")
    started = supervise(PRINT_MUCH, config={"spool_memory_bytes": 100_000, "spool_limit_bytes": 1_000_000})
    if failure == "no room":
        resource.prlimit(started.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    until(lambda: "the simulation waits" in started.complaints)
    assert not (started.directory / "work" / "printed").exists()
    heal()
    assert started.wait() == 0
    assert _sees_all(service)
    assert service.exit["exitCode"] == 0
