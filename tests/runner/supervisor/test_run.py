"""One attempt as a process: what it prints arrives, it ends when that is wanted, and nothing is left behind."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import archive

Until = Callable[[Callable[[], object]], None]
Exists = Callable[[int], bool]

NONE: dict[str, list[float]] = {"steps": [], "values": [], "elapsed": []}

READY = "print('{\"ready\": 1}', flush=True)\n"


def pids(service: Any) -> list[int]:
    return [int(found) for found in re.findall(r"pid (\d+)", service.log("STDOUT"))]


# --- what is printed ---


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
    message = "It ended with exit code 3: oops"
    assert service.exit == {"exitCode": 3, "signal": None, "reason": None, "message": message}
    assert "exit" in service.stored[-1]
    assert [batch["batch"] for batch in service.stored] == list(range(1, len(service.stored) + 1))
    assert len(service.nonces) == 1
    assert len(service.nonces.pop()) == 32


def test_elapsed_counts_seconds_from_the_start_of_the_child(service: Any, supervise: Any, in_turns: Any) -> None:
    code, go_on = in_turns('{"a": 1}', '{"a": 2}')
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


# --- ending ---


def test_a_stop_is_asked_for_first(service: Any, supervise: Any) -> None:
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('saving'), sys.exit(0)))\n" + READY
    started = supervise(code + "while True: time.sleep(1)")
    service.wait(lambda: service.points("ready"))
    service.verdict, service.stop_reason = "STOP", "CANCELLED"
    assert started.wait() == 0
    assert service.log("STDOUT") == "saving"
    assert service.exit == {"exitCode": 0, "signal": None, "reason": "CANCELLED", "message": None}


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(service: Any, supervise: Any, exists: Exists) -> None:
    code = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('pid', os.getpid())\n" + READY
    started = supervise(code + "while True: time.sleep(1)", stopGraceSeconds=0.3)
    service.wait(lambda: service.points("ready") and pids(service))
    service.verdict, service.stop_reason = "STOP", "CANCELLED"
    assert started.wait() == 0
    assert service.exit == {"exitCode": None, "signal": 9, "reason": "CANCELLED", "message": None}
    assert not exists(pids(service)[0])


def test_a_child_that_was_faster_than_the_stop_reports_its_own_end(service: Any, supervise: Any) -> None:
    def stop_once_it_has_ended(_: str, given: Any) -> None:
        if "exit" in given:
            service.verdict, service.stop_reason = "STOP", "CANCELLED"

    service.misbehave = stop_once_it_has_ended
    assert supervise("raise SystemExit(5)").wait() == 0
    assert service.exit == {"exitCode": 5, "signal": None, "reason": None, "message": None}


def test_a_stop_during_an_outage_takes_effect_after_it(service: Any, supervise: Any) -> None:
    started = supervise(READY + "import time; time.sleep(1000)")
    service.wait(lambda: service.points("ready"))
    service.misbehave = lambda *_: (503, b"")
    service.verdict, service.stop_reason = "STOP", "CANCELLED"
    sent = len(service.bodies)
    service.wait(lambda: len(service.bodies) > sent + 2)
    assert started.process.poll() is None
    service.misbehave = lambda *_: None
    assert started.wait() == 0
    assert service.exit["reason"] == "CANCELLED"


def test_a_stop_before_the_start_starts_nothing(service: Any, supervise: Any, tmp_path: Path) -> None:
    service.hello_verdict = service.verdict = "STOP"
    service.stop_reason = "CANCELLED"
    assert supervise(entrypoint=["touch", str(tmp_path / "started")]).wait() == 0
    assert (service.exit["reason"], service.exit["exitCode"]) == ("CANCELLED", None)
    assert not (tmp_path / "started").exists()


def test_over_at_hello_ends_it_without_a_word(service: Any, supervise: Any, tmp_path: Path) -> None:
    service.hello_verdict = "OVER"
    assert supervise(entrypoint=["touch", str(tmp_path / "started")]).wait() == 0
    assert service.bodies == []
    assert not (tmp_path / "started").exists()


def test_over_kills_everything_and_reports_nothing_more(service: Any, supervise: Any, exists: Exists) -> None:
    started = supervise(
        "import os, signal, subprocess, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "escaped = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print('pid', os.getpid()); print('pid', escaped.pid)\ntime.sleep(1000)"
    )
    service.wait(lambda: len(pids(service)) == 2)
    service.verdict = "OVER"
    assert started.wait() == 0
    assert service.exit is None
    assert not any(map(exists, pids(service)))


def test_the_time_limit_is_kept_without_the_service(service: Any, supervise: Any, exists: Exists, until: Until) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo pid $$; while :; do sleep 1; done"]
    started = supervise(entrypoint=stubborn, maxRuntimeSeconds=2, stopGraceSeconds=0.2)
    service.wait(lambda: pids(service))
    service.misbehave = lambda *_: (503, b"")
    until(lambda: not exists(pids(service)[0]))
    service.misbehave = lambda *_: None
    assert started.wait() == 0
    assert (service.exit["signal"], service.exit["reason"]) == (9, "MAX_RUNTIME")
    assert service.exit["message"] == "It ran longer than its limit of 2 seconds."


def test_the_cost_limit_is_kept_without_the_service(service: Any, supervise: Any, exists: Exists, until: Until) -> None:
    limits = {"maxCostSeconds": 2, "stopGraceSeconds": 7}
    started = supervise(entrypoint=["sh", "-c", "echo pid $$; sleep 1000"], maxRuntimeSeconds=500, **limits)
    service.wait(lambda: pids(service))
    service.misbehave = lambda *_: (503, b"")
    until(lambda: not exists(pids(service)[0]))
    service.misbehave = lambda *_: None
    assert started.wait() == 0
    assert (service.exit["signal"], service.exit["reason"]) == (15, "MAX_COST")
    pays = "Its cost limit pays for no more than 2 seconds of this attempt and its stop grace of 7 seconds."
    assert service.exit["message"] == pays


def test_a_changed_order_holds_from_the_next_reply_on(service: Any, supervise: Any) -> None:
    started = supervise(READY + "import time; time.sleep(1000)", heartbeatSeconds=500, maxRuntimeSeconds=1000)
    service.order_change = {"heartbeatSeconds": 0.05, "maxRuntimeSeconds": None, "maxCostSeconds": 1000}
    service.wait(lambda: service.points("ready"))
    service.wait(lambda: service.heartbeats >= 3)  # with the order's heartbeat there would be none
    service.order_change = {"heartbeatSeconds": "soon", "maxRuntimeSeconds": None, "maxCostSeconds": 0}
    seen = service.heartbeats
    service.wait(lambda: service.heartbeats >= seen + 3)
    assert started.process.poll() is None, "a change that makes no sense changes nothing"
    service.order_change = {"heartbeatSeconds": 0.05, "maxRuntimeSeconds": None, "maxCostSeconds": 0}
    assert started.wait() == 0
    assert service.exit["reason"] == "MAX_COST"


def test_every_descendant_is_gone_however_it_tried_to_escape(service: Any, supervise: Any, exists: Exists) -> None:
    started = supervise(
        """
import os, subprocess, sys
plain = subprocess.Popen(["sleep", "1000"])
session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
unmarked = subprocess.Popen(["env", "-i", sys.executable, "-c", '''
import os, signal
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(15, signal.SIG_IGN)
print("pid", os.getpid(), flush=True)
os.closerange(0, 3)
signal.pause()
'''], stdout=subprocess.PIPE)
print(unmarked.stdout.readline().decode())
print("pid", plain.pid); print("pid", session.pid)
"""
    )
    assert started.wait() == 0
    assert len(pids(service)) == 3
    assert not any(map(exists, pids(service)))


def test_a_hundred_children_are_no_problem(service: Any, supervise: Any, exists: Exists) -> None:
    started = supervise(
        "import os, time\n"
        "for i in range(100):\n"
        "    if not (pid := os.fork()):\n"
        "        if i % 2: os.setsid()\n"
        "        if i % 5: time.sleep(1000)\n"
        "        os._exit(0)\n"
        "    print('pid', pid)\n"
    )
    assert started.wait() == 0
    assert len(pids(service)) == 100
    assert not any(map(exists, pids(service)))


def test_a_child_that_closes_its_output_and_goes_on_is_waited_for(service: Any, supervise: Any, tmp_path: Path) -> None:
    started = supervise(
        f"import os, time\nprint('last words', flush=True)\nos.closerange(0, 3)\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\nos._exit(7)"
    )
    service.wait(lambda: service.log("STDOUT") == "last words")
    beats = service.heartbeats
    service.wait(lambda: service.heartbeats > beats + 3)
    assert started.process.poll() is None
    (tmp_path / "go").touch()
    assert started.wait() == 0
    assert service.exit["exitCode"] == 7


def test_output_kept_open_by_an_escaped_process_is_not_waited_for(service: Any, supervise: Any) -> None:
    assert supervise("import os\nif not os.fork(): os.setsid(); os.execvp('sleep', ['sleep', '1000'])").wait() == 0
    assert service.exit["exitCode"] == 0


def test_a_child_that_exits_at_once_has_its_say(service: Any, supervise: Any) -> None:
    supervise(entrypoint=["echo", '{"loss": 1}']).wait()
    assert service.points("loss") == [(0, 1.0)]
    assert service.exit["exitCode"] == 0


def test_a_signal_of_its_own_is_reported_as_that(service: Any, supervise: Any) -> None:
    supervise("import os; os.kill(os.getpid(), 11)").wait()
    assert service.exit == {"exitCode": None, "signal": 11, "reason": None, "message": None}


# --- the supervisor itself ---


def test_told_to_end_it_ends_the_child_delivers_and_claims_no_end(service: Any, supervise: Any, exists: Exists) -> None:
    code = "import os, signal, sys, time\nsignal.signal(15, lambda *_: (print('{\"saved\": 1}'), sys.exit(0)))\n"
    started = supervise(code + "print('pid', os.getpid()); time.sleep(1000)")
    service.wait(lambda: pids(service))
    started.process.send_signal(signal.SIGTERM)
    assert started.wait() == 1
    assert service.log("SUPERVISOR") == "the machine is going down: the supervisor received SIGTERM"
    assert service.points("saved") == [(0, 1.0)]
    assert service.exit is None  # no stop was wanted: the engine finds it dead, and it can be retried
    assert not exists(pids(service)[0])


def test_an_end_of_its_own_is_reported_even_while_the_machine_goes_down(service: Any, supervise: Any) -> None:
    service.misbehave = lambda name, given: (503, b"") if "exit" in given and not told else None
    told: list[int] = []
    started = supervise("print('done')")
    service.wait(lambda: any(b'"exit":' in body for _, body in service.bodies))
    started.process.send_signal(signal.SIGTERM)
    told.append(1)
    assert started.wait() == 0
    assert service.exit["exitCode"] == 0


def test_told_to_end_without_a_service_it_does_not_wait_for_it(service: Any, supervise: Any, exists: Exists) -> None:
    started = supervise(READY + "import os, time; print('pid', os.getpid()); time.sleep(1000)")
    service.wait(lambda: pids(service))
    service.misbehave = lambda *_: (503, b"")
    started.process.send_signal(signal.SIGTERM)
    assert started.wait() == 1
    assert not exists(pids(service)[0])


def test_what_a_terminal_sends_changes_nothing(service: Any, supervise: Any, tmp_path: Path) -> None:
    code = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    started = supervise(READY + code)
    service.wait(lambda: service.points("ready"))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        started.process.send_signal(number)
        beats = service.heartbeats
        service.wait(lambda beats=beats: service.heartbeats > beats + 1)
    (tmp_path / "go").touch()
    assert started.wait() == 0
    assert service.exit["exitCode"] == 0


def test_it_gives_up_some_time_after_the_end_of_its_child(service: Any, supervise: Any) -> None:
    service.misbehave = lambda name, _: (503, b"") if name == "reportAttempt" else None
    started = supervise("print('{\"loss\": 1}')", config={"give_up_seconds": 0.5})
    assert started.wait() == 1
    assert "gave up" in started.complaints


def test_an_unknown_verdict_changes_nothing(service: Any, supervise: Any, exists: Exists) -> None:
    started = supervise("import os, time; print('pid', os.getpid()); time.sleep(1000)")
    service.wait(lambda: pids(service))
    service.verdict = "EXPLODE"
    beats = service.heartbeats
    service.wait(lambda: service.heartbeats > beats + 2)
    assert started.process.poll() is None
    assert exists(pids(service)[0])


@pytest.mark.parametrize(
    ("module", "place"),
    [("reporter", "    def _settle(self, answer"), ("run", "    def _pause_or_resume(self)")],
)
def test_if_the_program_itself_fails_nothing_stays_behind(
    service: Any, supervise: Any, exists: Exists, tmp_path: Path, module: str, place: str
) -> None:
    contents = archive.sources()
    name = f"runner/supervisor/{module}.py"
    before, after = contents[name].decode().split(place)
    signature, body = after.split("\n", 1)
    mistake = f"        if os.path.exists({str(tmp_path / 'mistake')!r}): raise RuntimeError('a mistake')"
    contents[name] = f"{before}{place}{signature}\n        import os\n{mistake}\n{body}".encode()
    program = archive.install(tmp_path / "mistaken", contents)
    code = "import os, time; print('pid', os.getpid(), flush=True)\nwhile True: print('more'); time.sleep(0.01)"
    started = supervise(code, program=program)
    service.wait(lambda: pids(service))
    (tmp_path / "mistake").touch()
    assert started.wait() == 1
    assert "a mistake" in started.complaints
    assert not exists(pids(service)[0])
