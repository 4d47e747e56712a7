"""Files that trackers write: which ones are this attempt's, how they are tailed, and the names of their metrics."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from messages import event, field, history, leveldb, plugin, simple, version

from runner.supervisor.sources import files
from runner.supervisor.sources.files import Files, Names, walk

Write = Callable[..., Path]
RECORDINGS = Path(__file__).with_name("recordings")
LATER = int(time.time()) + 100_000  # after the beginning of each test's attempt
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37  # prctl(2)
NAME = "events.out.tfevents.{time}.host"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Append to an event file below `root`: `write("runs/x", {"loss": 1.0}, step=3)`."""

    def write(directory: str, values: dict[str, float], *, step: int = 0, name: str = NAME) -> Path:
        path = tmp_path / "root" / directory / name.format(time=LATER)
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with open(path, "ab") as file:
            file.write(version() if is_new else b"")
            file.write(event(step, *(simple(tag, value) for tag, value in values.items())))
        return path

    (tmp_path / "root").mkdir()
    return write


@pytest.fixture
def tails(taken: Any, tmp_path: Path) -> Files:
    return Files(taken.intake, [tmp_path / "root"], time.time(), reads_online_runs=False)


def look(tails: Files) -> None:
    """A round of the thread in which it looks for new files."""
    tails._walk_at = 0.0
    tails.run_once()


def test_a_file_is_found_and_tailed(taken: Any, tails: Files, write: Write) -> None:
    look(tails)
    write("runs/x", {"loss": 1.0}, step=1)
    look(tails)
    assert taken.points("loss") == [(1, 1.0)]
    write("runs/x", {"loss": 0.5}, step=2)
    tails.run_once()  # a known file
    assert taken.points("loss") == [(1, 1.0), (2, 0.5)]


def test_a_torn_record_is_read_once_it_is_whole(taken: Any, tails: Files, write: Write) -> None:
    path = write("runs/x", {"loss": 1.0}, step=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    look(tails)
    assert taken.points("loss") == []
    path.write_bytes(whole)
    tails.run_once()
    assert taken.points("loss") == [(1, 1.0)]


def test_a_file_that_is_shorter_than_it_was_is_not_read_again(taken: Any, tails: Files, write: Write) -> None:
    path = write("runs/x", {"loss": 1.0}, step=1)
    look(tails)
    whole = path.read_bytes()
    path.write_bytes(whole[:3])
    tails.run_once()
    path.write_bytes(whole + event(2, simple("loss", 0.5)))
    tails.run_once()
    assert taken.points("loss") == [(1, 1.0), (2, 0.5)]


def test_a_file_made_before_the_attempt_is_skipped_even_if_it_still_grows(
    taken: Any, tails: Files, write: Write
) -> None:
    old = write("runs/old", {"old": 1.0})
    os.utime(old, (time.time() - 10, time.time() - 10))
    write("runs/older", {"older": 1.0}, name=f"events.out.tfevents.{int(time.time()) - 100}.host")
    write("runs/new", {"new": 1.0})
    look(tails)
    assert taken.metrics == {"new"}


def test_a_restart_writes_another_file_whose_old_steps_are_not_taken(taken: Any, tails: Files, write: Write) -> None:
    for step in range(5):
        write("runs/x", {"loss": 1.0}, step=step)
    look(tails)
    for step in range(3, 8):
        write("runs/x", {"loss": 2.0}, step=step, name="events.out.tfevents.{time}.host.again")
    look(tails)
    assert taken.points("loss") == [(step, 1.0 if step < 5 else 2.0) for step in range(8)]


@pytest.mark.parametrize(
    ("directories", "prefixes"),
    [
        (["runs/x"], [""]),
        (["."], [""]),
        (["runs/x", "runs/x/grp_a"], ["", "grp_a/"]),  # add_scalars
        (["logs/train", "logs/validation"], ["train/", "validation/"]),  # Keras
        (["logs/a/train", "logs/a/val"], ["train/", "val/"]),
        (["runs/a", "runs/b"], ["", "b/"]),
        (["a/run", "b/run", "c/run"], ["", "run/", "run-2/"]),
        (["lightning_logs/version_0"], [""]),
    ],
)
def test_metrics_are_named_by_the_directory_below_the_logging_directory(
    directories: list[str], prefixes: list[str]
) -> None:
    names = Names()
    assert [names.prefix(Path("/root", each)) for each in directories] == prefixes


def test_the_shallowest_directory_of_a_round_comes_first(taken: Any, tails: Files, write: Write) -> None:
    write("runs/x/a_group", {"grp": 1.0})
    write("runs/x", {"loss": 1.0})
    look(tails)
    assert taken.metrics == {"loss", "a_group/grp"}


def test_values_beside_hyperparameters_are_skipped(taken: Any, tails: Files, write: Write, tmp_path: Path) -> None:
    write("runs/x", {"loss": 1.0})
    path = tmp_path / "root/runs/x/1795935369.43" / f"events.out.tfevents.{int(time.time())}.host"
    path.parent.mkdir()
    hparams = event(0, field(1, "_hparams_/experiment") + plugin("hparams"))
    path.write_bytes(version() + hparams + event(0, simple("hparam/loss", 1)))
    look(tails)
    assert taken.metrics == {"loss"}


def test_garbage_ends_its_file_and_no_other(taken: Any, tails: Files, write: Write) -> None:
    bad = write("runs/a", {"bad": 1.0})
    bad.write_bytes(b"\xff" * 100)
    write("runs/b", {"good": 1.0})
    look(tails)
    write("runs/b", {"good": 0.5}, step=1)
    tails.run_once()
    assert [len(taken.points(metric)) for metric in taken.metrics] == [2]


def test_the_search_is_bounded_in_depth_and_entries_and_follows_no_link(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    wanted = {str(write("a/b/c/d/e", {"x": 1.0})), str(write(".", {"x": 1.0})), str(write("wandb/run", {"x": 1.0}))}
    for skipped in ("a/b/c/d/e/f", ".git", "mlruns/0", "node_modules/x", "own-venv/lib"):
        write(skipped, {"x": 1.0})
    (root / "own-venv" / "pyvenv.cfg").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "events.out.tfevents.1.host").touch()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "a-link.tfevents.1.host").symlink_to(tmp_path / "elsewhere" / "events.out.tfevents.1.host")
    assert set(walk(root)) == wanted
    assert walk(tmp_path / "none") == []
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    assert len(walk(root)) <= 3


def test_the_files_are_limited_and_that_is_said(
    taken: Any, tails: Files, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 3)
    for number in range(5):
        write(f"runs/{number}", {f"m{number}": 1.0})
    look(tails)
    look(tails)
    assert len(taken.metrics) == 3
    assert taken.counts["TOO_MANY_FILES"] >= 1


def test_a_full_spool_leaves_the_file_for_later(
    taken: Any, tails: Files, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("runs/x", {"loss": 1.0})
    is_full = True
    monkeypatch.setattr(type(taken.spool), "is_full", property(lambda _: is_full))
    look(tails)
    assert taken.points("loss") == []
    is_full = False
    look(tails)
    assert taken.points("loss") == [(0, 1.0)]


def test_the_last_read_takes_everything(taken: Any, tails: Files, write: Write) -> None:
    tails.start()
    write("runs/late", {"loss": 1.0})
    tails.close()
    assert "files" not in {each.name for each in threading.enumerate()}
    assert taken.points("loss") == [(0, 1.0)]


def test_without_a_thread_the_files_are_read_at_the_end(taken: Any, tails: Files, write: Write) -> None:
    write("runs/short", {"loss": 1.0})
    tails.close()
    assert taken.points("loss") == [(0, 1.0)]


@pytest.mark.parametrize(("online", "expected"), [(False, {"b"}), (True, {"a", "b"})])
def test_offline_runs_of_wandb_are_read_and_online_ones_if_they_are_the_users(
    online: bool, expected: set[str], taken: Any, tmp_path: Path
) -> None:
    for directory, metric in (("run-20261129-a", "a"), ("offline-run-20261129-b", "b")):
        path = tmp_path / "root" / "wandb" / directory / "run-x.wandb"
        path.parent.mkdir(parents=True)
        path.write_bytes(leveldb([history(step, [(metric, "0.5"), ("_runtime", "1")]) for step in range(3)]))
    look(Files(taken.intake, [tmp_path / "root"], time.time() - 1, reads_online_runs=online))
    assert taken.metrics == expected
    assert taken.points("b") == [(0, 0.5), (1, 0.5), (2, 0.5)]


def test_a_later_offline_run_of_wandb_is_prefixed_with_its_name(taken: Any, tmp_path: Path) -> None:
    files = Files(taken.intake, [tmp_path], time.time() - 1, reads_online_runs=False)
    for time_of, run, name in (("01", "z1", "first"), ("02", "a2", "second"), ("03", "b3", ""), ("04", "c4", "second")):
        path = tmp_path / "wandb" / f"offline-run-20261129_0000{time_of}-{run}" / f"run-{run}.wandb"
        path.parent.mkdir(parents=True)
        header = field(17, field(1, run) + (field(8, name) if name else b"") + field(10, f"tag of {run}"))
        path.write_bytes(leveldb([header, *(history(step, [("loss", "0.5")]) for step in range(2))]))
    look(files)
    assert taken.metrics == {"loss", "second/loss", "b3/loss", "second-c4/loss"}
    assert taken.points("second/loss") == [(0, 0.5), (1, 0.5)]
    assert taken.counts == {}


# --- recordings: files that TensorFlow 2.21, Keras 3.15 and PyTorch 2.13 wrote ---

HARMONIC = [(step, value) for step, value in enumerate((1.0, 0.5, 0.33333334, 0.25, 0.2))]
LOSSES = (1.9809644, 1.7503799, 1.5466356, 1.3666071)  # before each epoch, and after the last


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tensorflow", {"loss": HARMONIC}),
        ("torch", {"train/loss": [*HARMONIC, (5, "NaN")], "grp_a/grp": [(3, 1.0)], "grp_b/grp": [(3, 2.0)]}),
        (
            "keras",
            {
                "train/epoch_loss": list(enumerate(LOSSES[:3])),
                "train/epoch_learning_rate": [(0, 0.01), (1, 0.01), (2, 0.01)],
                "validation/epoch_loss": list(enumerate(LOSSES[1:])),
                "validation/evaluation_loss_vs_iterations": list(enumerate(LOSSES))[1:],
            },
        ),
    ],
)
def test_recorded_files_give_their_points(
    name: str, expected: dict[str, object], taken: Any, tails: Files, tmp_path: Path
) -> None:
    for path in sorted((RECORDINGS / name).rglob("*tfevents*")):
        fresh = re.sub(r"tfevents\.\d+", f"tfevents.{int(time.time())}", path.name)
        copy = tmp_path / "root" / path.relative_to(RECORDINGS).with_name(fresh.replace(".2.", f".{2**22 + 1}."))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    look(tails)
    assert {metric: taken.points(metric) for metric in taken.metrics} == expected


# --- files of other programs that write into the same directory ---


@pytest.fixture
def stranger() -> Iterator[Callable[[str], int]]:
    """Start a process that is no descendant of this one, and return its pid."""
    started: list[int] = []
    adopts = ctypes.c_int()
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts))
    prctl(PR_SET_CHILD_SUBREAPER, 0)  # with --cpu, this process adopts orphans

    def start(code: str) -> int:
        spawn = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {code!r}], stdout=2).pid)"
        ran = subprocess.run([sys.executable, "-c", spawn], stdout=subprocess.PIPE, check=True)
        started.append(int(ran.stdout))
        return started[-1]

    yield start
    prctl(PR_SET_CHILD_SUBREAPER, adopts)
    for pid in started:
        os.kill(pid, 9)


def test_a_file_named_by_a_living_process_of_another_program_is_skipped(
    taken: Any, tails: Files, write: Write, stranger: Callable[[str], int]
) -> None:
    pid = stranger("import time; time.sleep(1000)")
    mine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for number, (metric, writer) in enumerate({"theirs": pid, "mine": mine.pid, "ended": 2**22 + 1}.items()):
        write(f"runs/{number}", {metric: 1.0}, name=f"events.out.tfevents.{{time}}.host.{writer}.0.v2")
    try:
        look(tails)
    finally:
        mine.communicate(b"\n")
    assert {metric.rpartition("/")[2] for metric in taken.metrics} == {"mine", "ended"}


def test_a_file_that_only_another_program_holds_open_is_skipped(
    taken: Any, tails: Files, write: Write, stranger: Callable[[str], int], tmp_path: Path, until: Any
) -> None:
    path = write("runs/x", {"theirs": 1.0})
    stranger(f"import time; f = open({str(path)!r}, 'ab'); open({str(tmp_path / 'held')!r}, 'w'); time.sleep(1000)")
    until((tmp_path / "held").exists)
    look(tails)
    assert taken.metrics == set()
