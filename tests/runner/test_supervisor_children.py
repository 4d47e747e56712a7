"""What becomes of the processes: started as told, ended when wanted, and none left behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import supervisor

Until = Callable[[Callable[[], object]], None]
Exists = Callable[[int], bool]

READY = "print('{\"ready\": 1}', flush=True)\n"


def pids(service: Any) -> list[int]:
    return [int(found) for found in re.findall(r"pid (\d+)", service.log("STDOUT"))]


# --- starting ---


def test_the_command_is_run_without_a_shell_in_a_directory_of_its_own(service: Any, supervise: Any) -> None:
    started = supervise(entrypoint=["printf", "%s|%s|%s\n", "$HOME", "a b", "*"])
    assert started.wait() == 0
    assert service.log("STDOUT") == "$HOME|a b|*"
    service.stored.clear()
    supervise("import os, sys; print(os.getcwd(), os.getpgid(0) == os.getpid(), sys.stdin.read() == '')").wait()
    assert service.log("STDOUT") == f"{started.directory / 'work'} True True"


def test_the_environment_is_made_and_not_inherited(service: Any, supervise: Any, tmp_path: Path) -> None:
    supervise(
        "import os, json; print('env', json.dumps(dict(os.environ)))",
        environment={"SIMULATION_PARAMETERS": '{"a": 1}', "PATH": os.environ["PATH"]},
        gpuIndices=[1, 3],
    ).wait()
    given = eval(service.log("STDOUT").removeprefix("env "))  # noqa: S307  # what our own child printed
    assert "SECRET_OF_THE_SERVICE" not in given
    assert given["SIMULATION_PARAMETERS"] == '{"a": 1}'
    assert given["SIMULATION_ATTEMPT_ID"] == "QXR0ZW1wdDo3Lw=="
    assert given["SIMULATION_CHECKPOINT_DIR"] == str(tmp_path / "checkpoints")
    assert (given["PYTHONUNBUFFERED"], given["CUDA_VISIBLE_DEVICES"]) == ("1", "1,3")
    ours = {"SIMULATION_PARAMETERS", "SIMULATION_ATTEMPT_ID", "SIMULATION_CHECKPOINT_DIR", "PYTHONUNBUFFERED"}
    ours |= {"CUDA_VISIBLE_DEVICES", supervisor.MARK_VARIABLE, "LC_CTYPE"}
    assert given.keys() <= ours | supervisor.INHERITED
    assert (tmp_path / "checkpoints").is_dir()


def test_without_gpus_none_is_visible(service: Any, supervise: Any) -> None:
    supervise(entrypoint=["sh", "-c", 'echo "gpus <$CUDA_VISIBLE_DEVICES>"']).wait()
    assert service.log("STDOUT") == "gpus <>"


def test_the_token_is_neither_in_an_argument_nor_in_an_environment(service: Any, supervise: Any) -> None:
    started = supervise(READY + "import os, time; print('pid', os.getpid()); time.sleep(1000)")
    service.wait(lambda: pids(service))
    for pid in (started.process.pid, *pids(service)):
        for name in ("cmdline", "environ"):
            assert b"token-of-this-attempt" not in Path("/proc", str(pid), name).read_bytes()


def test_signals_and_descriptors_are_as_a_program_expects_them(service: Any, supervise: Any) -> None:
    supervise(entrypoint=["sh", "-c", "grep SigIgn /proc/self/status; ls /proc/self/fd | tr '\\n' ' '"]).wait()
    ignored, descriptors = service.log("STDOUT").split("\n")
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0  # from the 32nd on they are the C library's own
    assert descriptors.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        (
            {"entrypoint": ["no-such-command", "-x"]},
            "The command no-such-command was not found on this machine's PATH.",
        ),
        ({"entrypoint": ["./missing.sh"]}, "./missing.sh does not exist on this machine"),
        ({"entrypoint": ["/etc/passwd"]}, "/etc/passwd can't be started: permission denied"),
        ({"entrypoint": ["/etc"]}, "/etc can't be started: permission denied"),
        ({"entrypoint": ["{tmp}/script"]}, "the interpreter that its first line names does not exist"),
        ({"entrypoint": ["{tmp}/garbage"]}, "can't be started: Exec format error"),
        ({"entrypoint": ["echo", "nul\0"]}, "'echo' can't be started"),
        ({"entrypoint": ["echo", "x" * 3_000_000]}, "Argument list too long"),
        ({"entrypoint": ["echo"], "environment": {"A=B": "1"}}, "'echo' can't be started"),
        (
            {"workingDirectory": "/no/such/place"},
            "The working directory /no/such/place does not exist on this machine.",
        ),
        ({"workingDirectory": "/etc/passwd"}, "The working directory /etc/passwd is not a directory."),
        ({"workingDirectory": "nul\0"}, "can't be used on this machine"),
        ({"workingDirectory": "/" + "x" * 5000}, "can't be used on this machine"),
    ],
)
def test_what_can_not_be_started_is_a_launch_error_that_names_it(
    service: Any, supervise: Any, tmp_path: Path, order: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "garbage").write_bytes(b"\x01\x02\x03")
    for name in ("script", "garbage"):
        (tmp_path / name).chmod(0o700)
    if "entrypoint" in order:
        order = order | {"entrypoint": [word.replace("{tmp}", str(tmp_path)) for word in order["entrypoint"]]}
    assert supervise(**order).wait() == 0
    assert (service.exit["reason"], service.exit["exitCode"], service.exit["signal"]) == ("LAUNCH_ERROR", None, None)
    assert sentence in service.exit["message"]


def test_the_working_directory_has_to_lie_in_an_allowed_root(service: Any, supervise: Any, tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    (allowed / "deep").mkdir(parents=True)
    other.mkdir()
    (allowed / "way out").symlink_to(other)
    config = {"allowed_roots": [str(allowed)]}
    for asked in (other, allowed / "way out", allowed / ".." / "other", tmp_path / "allowed2"):
        service.stored.clear()
        supervise(entrypoint=["pwd"], workingDirectory=str(asked), config=config).wait()
        assert service.exit["reason"] == "LAUNCH_ERROR"
        assert f"The working directory {asked} is not inside a directory allowed" in service.exit["message"]
    service.stored.clear()
    supervise(workingDirectory=str(allowed / "deep")).wait()
    assert service.log("STDOUT") == str(allowed / "deep")


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


def test_output_that_somebody_else_keeps_open_is_not_waited_for(service: Any, supervise: Any) -> None:
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
    assert service.log("SUPERVISOR") == "the machine is going down: the supervisor was told to end (SIGTERM)"
    assert service.points("saved") == [(0, 1.0)]
    assert service.exit is None  # nobody wanted it to end: the engine finds it dead, and it can be retried
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


def test_a_verdict_nobody_knows_changes_nothing(service: Any, supervise: Any, exists: Exists) -> None:
    started = supervise("import os, time; print('pid', os.getpid()); time.sleep(1000)")
    service.wait(lambda: pids(service))
    service.verdict = "EXPLODE"
    beats = service.heartbeats
    service.wait(lambda: service.heartbeats > beats + 2)
    assert started.process.poll() is None
    assert exists(pids(service)[0])


@pytest.mark.parametrize("place", ["    def _settle(self, answer", "    def _pause_or_resume(self)"])
def test_if_the_program_itself_fails_nothing_stays_behind(
    service: Any, supervise: Any, exists: Exists, tmp_path: Path, place: str
) -> None:
    source = Path(supervisor.__file__).read_text()
    before, after = source.split(place)
    signature, body = after.split("\n", 1)
    mistake = f"        if os.path.exists({str(tmp_path / 'mistake')!r}): raise RuntimeError('a mistake')"
    program = tmp_path / "supervisor.py"
    program.write_text(f"{before}{place}{signature}\n{mistake}\n{body}")
    code = "import os, time; print('pid', os.getpid(), flush=True)\nwhile True: print('more'); time.sleep(0.01)"
    started = supervise(code, program=str(program))
    service.wait(lambda: pids(service))
    (tmp_path / "mistake").touch()
    assert started.wait() == 1
    assert "a mistake" in started.complaints
    assert not exists(pids(service)[0])
