"""The time of the newest checkpoint, as a supervisor sees it in the directory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from runner.supervisor import checkpoints
from runner.supervisor.checkpoints import Checkpoints
from runner.supervisor.spool import Batch, Spool, first_above

SAVING = """
import os, pathlib, signal, sys, time
kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "last.pt")
def save(*_):
    kept.write_text("state")
    os.utime(kept, (1_700_000_000, 1_700_000_000))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("waits", flush=True)
while True:
    time.sleep(0.01)
"""


def write(path: Path, at: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("state")
    os.utime(path, (at, at))


def test_the_newest_file_counts_wherever_it_is_and_is_told_once(tmp_path: Path) -> None:
    noted: list[float] = []
    seen = Checkpoints(tmp_path, noted.append)
    seen.look()
    write(tmp_path / "epoch-1" / "model.pt", 1000.0)
    write(tmp_path / "epoch-1" / "deep" / "optimizer.pt", 3000.0)
    write(tmp_path / "notes.txt", 2000.0)
    for _ in range(3):
        seen.look()
    write(tmp_path / "epoch-2.pt", 2500.0)
    seen.look()
    write(tmp_path / "epoch-1" / "model.pt", 4000.0)
    seen.look()
    assert noted == [3000.0, 4000.0]


def test_a_time_in_the_future_is_now_and_what_can_not_be_read_is_left_out(tmp_path: Path) -> None:
    noted: list[float] = []
    Checkpoints(tmp_path / "gone", noted.append).look()
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    os.utime(tmp_path / "link", (500.0, 500.0), follow_symlinks=False)
    write(tmp_path / "model.pt", time.time() + 86_400 * 365)
    before = time.time()
    Checkpoints(tmp_path, noted.append).look()
    assert len(noted) == 1
    assert before <= noted[0] <= time.time()


def test_a_directory_full_of_files_is_read_in_part(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(checkpoints, "MOST_FILES", 10)
    for number in range(50):
        write(tmp_path / str(number), 1000.0 + number)
    assert len(list(checkpoints._times(tmp_path))) == 10


def test_it_travels_in_a_batch_and_waits_on_disk_like_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000_000, 2_000_000)
    spool.add_checkpoint(1_700_000_000.75)
    spool.write_out()
    payload = spool.head()
    assert payload == b',"facts":{"checkpointAt":"2023-11-14T22:13:20Z"}'
    found = first_above(tmp_path, 0)
    assert found is not None
    assert found[1].encode() == payload
    assert Batch().is_empty


def test_the_checkpoint_of_the_grace_is_reported_with_the_end(service: Any, supervise: Any) -> None:
    started = supervise(SAVING)
    service.wait(lambda: "waits" in service.log("STDOUT"))
    service.stop_reason, service.verdict = "PREEMPTED", "STOP"
    assert started.wait() == 0
    noted = [batch["facts"]["checkpointAt"] for batch in service.stored if "checkpointAt" in batch.get("facts", {})]
    assert noted == ["2023-11-14T22:13:20Z"]
