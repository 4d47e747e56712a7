"""How the child is started: command, directory, environment, descriptors; and what can't be started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor import child
from runner.supervisor.child import INHERITED, MARK_VARIABLE, NICENESS

Exists = Callable[[int], bool]


READY = "print('{\"ready\": 1}', flush=True)\n"


def pids(service: Any) -> list[int]:
    return [int(found) for found in re.findall(r"pid (\d+)", service.log("STDOUT"))]


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
    assert given["SIMULATION_OUTPUT_DIR"] == str(tmp_path / "outputs")
    assert (given["PYTHONUNBUFFERED"], given["CUDA_VISIBLE_DEVICES"]) == ("1", "1,3")
    assert (given["SIMULATION_RANK"], given["SIMULATION_WORLD_SIZE"]) == ("0", "1")
    ours = {"SIMULATION_PARAMETERS", "SIMULATION_ATTEMPT_ID", "SIMULATION_CHECKPOINT_DIR", "PYTHONUNBUFFERED"}
    ours |= {"CUDA_VISIBLE_DEVICES", MARK_VARIABLE, "LC_CTYPE", "SIMULATION_OUTPUT_DIR", "SIMULATION_REPORT"}
    ours |= {"SIMULATION_RANK", "SIMULATION_WORLD_SIZE"}  # no RANK, no LOCAL_RANK: libraries would wait for others
    trackers = {name for name in given if name.startswith(("MLFLOW_", "WANDB_"))}
    assert given.keys() <= ours | INHERITED | trackers
    assert (tmp_path / "checkpoints").is_dir()
    assert (tmp_path / "outputs").is_dir()


def test_a_member_of_a_gang_gets_its_rank_and_where_the_members_meet(service: Any, supervise: Any) -> None:
    supervise(
        "import os, json; print('env', json.dumps(dict(os.environ)))",
        environment={"MASTER_PORT": "1"},
        rank=1,
        worldSize=3,
        addresses=["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        masterPort=4242,
    ).wait()
    given = eval(service.log("STDOUT").removeprefix("env "))  # noqa: S307  # what our own child printed
    expected = {
        "SIMULATION_RANK": "1", "SIMULATION_WORLD_SIZE": "3", "SIMULATION_ADDRESSES": "10.0.0.1,10.0.0.2,10.0.0.3",
        "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4242", "RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0",
        "NODE_RANK": "1",
    }  # fmt: skip
    assert {name: given[name] for name in expected} == expected


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


# --- a copy of another simulation's checkpoint -----------------------------------------------------------------

LISTS = "import os, sys; d = os.environ['SIMULATION_CHECKPOINT_DIR']; print(sorted(os.listdir(d)), sys.argv[1:])"


def test_it_begins_with_a_copy_of_a_checkpoint_once(service: Any, supervise: Any, tmp_path: Path) -> None:
    source, own = tmp_path / "old; touch $HOME/x", tmp_path / "checkpoints"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "weights.pt").write_bytes(b"\0" * 100_000)
    (source / "latest").symlink_to("deep/weights.pt")
    (tmp_path / "checkpoints.part" / "of an attempt that was killed").mkdir(parents=True)
    config = {"checkpoint_source": str(source)}
    command = [sys.executable, "-c", LISTS, "a b", "$HOME", '"']
    started = supervise(entrypoint=command, config=config)
    assert started.wait() == 0
    assert service.log("STDOUT") == "['deep', 'latest'] ['a b', '$HOME', '\"']"
    assert (own / "latest").read_bytes() == b"\0" * 100_000
    assert (own / "latest").is_symlink()
    assert not (tmp_path / "checkpoints.part").exists()

    (own / "deep" / "weights.pt").write_text("its own")
    (source / "newer").touch()
    service.stored.clear()
    supervise(entrypoint=command, config=config).wait()
    assert (own / "deep" / "weights.pt").read_text() == "its own", "a later attempt goes on from its own"
    assert (source / "deep" / "weights.pt").read_bytes() == b"\0" * 100_000
    assert not (own / "newer").exists()


@pytest.mark.parametrize("left", ["nothing", "an empty directory", "a link"])
def test_without_a_checkpoint_to_copy_it_does_not_start(
    service: Any, supervise: Any, tmp_path: Path, left: str
) -> None:
    source = tmp_path / "old"
    if left == "an empty directory":
        source.mkdir()
    elif left == "a link":
        source.symlink_to("/etc")
    supervise(entrypoint=["true"], config={"checkpoint_source": str(source)}).wait()
    assert service.exit is not None
    assert "has left no checkpoint on this machine" in str(service.exit)
    assert not (tmp_path / "checkpoints").exists()


# --- low priority: the API shares the cores with what runs here ---


def test_a_simulation_and_what_it_starts_leave_the_cores_to_the_service(
    service: Any, supervise: Any, until: Callable[[Callable[[], object]], None]
) -> None:
    started = supervise(
        "import os, subprocess, sys\n"
        f"while os.getpriority(os.PRIO_PROCESS, 0) < {NICENESS}: pass\n"
        "print('pid', subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True)\n"
        "os.execvp('sleep', ['sleep', '1000'])"
    )
    service.wait(lambda: pids(service))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pids(service)[0]) == max(own, NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, started.process.pid) == own  # the supervisor reads what it prints at once
    group = Path(f"/proc/{started.process.pid}/autogroup")
    if group.exists():
        until(lambda: group.read_text().split()[-1] == str(NICENESS))


def test_a_session_is_lowered_once_that_is_possible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = tmp_path / "autogroup"
    monkeypatch.setattr(child, "AUTOGROUP", str(group))
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    assert child.lower_session()  # a kernel without: there is nothing to try again
    group.touch()
    with monkeypatch.context() as busy:
        busy.setattr(os, "write", raising(BlockingIOError))  # EAGAIN: ten in a second are lowered
        assert not child.lower_session()
    with monkeypatch.context() as refused:
        refused.setattr(os, "write", raising(PermissionError))
        assert child.lower_session()
    assert child.lower_session()
    assert group.read_text() == str(NICENESS)
    monkeypatch.setattr(os, "getsid", lambda _: os.getppid())  # the session of a terminal
    group.write_text("")
    assert child.lower_session()
    assert group.read_text() == ""


def raising(error: type[OSError]) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail
