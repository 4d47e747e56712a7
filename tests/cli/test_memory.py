"""Detection of out-of-memory kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import memory
from cli.children import say_who_killed


def test_the_count_is_that_of_the_own_control_group(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    assert memory.count_kills(own, tmp_path) is None
    own.write_text("9:name=systemd:/\n4:cpu,memory:/box/one\n")
    assert memory.count_kills(own, tmp_path) is None
    (tmp_path / "memory/box/one").mkdir(parents=True)
    (tmp_path / "memory/box/one/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert memory.count_kills(own, tmp_path) == 3
    own.write_text("0::/unit.service\n")
    (tmp_path / "unit.service").mkdir()
    (tmp_path / "unit.service/memory.events").write_text("low 0\noom 9\noom_kill 7\noom_group_kill 0\n")
    assert memory.count_kills(own, tmp_path) == 7


def test_the_kernels_log_names_a_process_by_its_whole_id(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    assert not memory.was_killed(123, log)
    log.write_text("3,1,2,-;Out of memory: Killed process 123 (python) total-vm:1kB\n")
    assert memory.was_killed(123, log)
    assert not memory.was_killed(12, log)
    log.write_text("3,1,2,-;Memory cgroup out of memory: Killed process 45, UID 0, (python)\n")
    assert memory.was_killed(45, log)
    log.write_text("6,1,2,-;sysrq: Killed process 45 (python)\n")
    assert not memory.was_killed(45, log)


def test_a_sigkill_is_explained_as_far_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "was_killed", lambda pid: pid == 1)
    monkeypatch.setattr(memory, "count_kills", lambda: 5)
    assert say_who_killed(1, 5) == "by the kernel: out of memory"
    assert say_who_killed(2, 4) == "probably by the kernel: out of memory"
    assert say_who_killed(2, 5) == say_who_killed(2, None) == "by a user, or by the kernel if memory was short"
