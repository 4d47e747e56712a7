"""System metrics: of real processes, of /proc and cgroup files, of a library and a command in NVIDIA's place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.curve import MAX_METRICS, Curve, Reading
from runner.supervisor.notices import Notices
from runner.supervisor.system import gpus, host, tree
from runner.supervisor.system.sampler import Sampler

NVML = """
#include <string.h>
typedef struct { unsigned gpu, memory; } Rates;
typedef struct { unsigned long long total, free, used; } Memory;
static int device[2];
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **handle) {
    if (index > 1) return 6;
    *handle = &device[index];
    return 0;
}
int nvmlDeviceGetUtilizationRates(int *handle, Rates *rates) { rates->gpu = 40 + (handle - device); return 0; }
int nvmlDeviceGetMemoryInfo(int *handle, Memory *memory) {
    memory->total = 80ULL << 30; memory->used = 20ULL << 30;
    return 0;
}
int nvmlDeviceGetPowerUsage(int *handle, unsigned *milliwatts) { *milliwatts = 300500; return 0; }
int nvmlDeviceGetTemperature(int *handle, int sensor, unsigned *degrees) { return sensor == 0 ? 3 : 0; }
"""
SMI = """#!/bin/sh
echo "$@" >> "$0.calls"
echo '0, 55, 1024, 120.5, 61'
echo '3, [N/A], 2048, [N/A], 40'
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler for a library in NVIDIA's place")
def test_gpus_are_read_by_the_library(tmp_path: Path) -> None:
    (tmp_path / "nvml.c").write_text(NVML)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "nvml.so", tmp_path / "nvml.c"], check=True)
    found = gpus.Library([0, 1, 9], str(tmp_path / "nvml.so")).read()
    assert found == {
        index: {"utilization": 40.0 + index, "memory": 20.0, "power": 300.5}
        for index in (0, 1)  # without a temperature, which this driver refuses
    }
    with pytest.raises(OSError, match="no such GPU"):
        gpus.Library([9], str(tmp_path / "nvml.so"))


def test_without_the_library_the_command_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "LIBRARY", "libnone.so")
    monkeypatch.setattr(gpus.Library.__init__, "__defaults__", ("libnone.so",))
    found = gpus.find([0, 3])
    assert found is not None
    assert found.read() == {
        0: {"utilization": 55.0, "memory": 1.0, "power": 120.5, "temperature": 61.0},
        3: {"memory": 2.0, "temperature": 40.0},
    }
    assert "--id=0,3" in (tmp_path / "nvidia-smi.calls").read_text()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
    assert gpus.find([0]) is None


AMD = {
    "list": """[
      {"gpu": 0, "usage": {"gfx_activity": {"value": 97, "unit": "%"}, "umc_activity": {"value": 3, "unit": "%"}},
       "power": {"socket_power": {"value": 412, "unit": "W"}, "power_management": "ENABLED"},
       "temperature": {"edge": "N/A", "hotspot": {"value": 58, "unit": "C"}, "mem": {"value": 44, "unit": "C"}},
       "mem_usage": {"total_vram": {"value": 196592, "unit": "MB"}, "used_vram": {"value": 2048, "unit": "MB"}}},
      {"gpu": 1, "usage": "N/A", "power": {"socket_power": "N/A"}, "mem_usage": {"used_vram": "N/A"}},
      {"gpu": 7, "usage": {"gfx_activity": {"value": 1, "unit": "%"}}}
    ]""",
    "object": """WARNING: User is missing the following required groups: render
    {"gpu_data": [
      {"gpu": 0, "usage": {"gfx_activity": {"value": 97.0, "unit": "%"}},
       "power": {"current_socket_power": "N/A", "average_socket_power": {"value": 412, "unit": "W"}},
       "temperature": {"edge": {"value": 58, "unit": "C"}, "hotspot": {"value": 71, "unit": "C"}},
       "mem_usage": {"used_vram": {"value": 2048, "unit": "MB"}}},
      {"gpu": 1, "usage": {}}
    ]}""",
    "text": """[{"gpu": 0, "usage": {"gfx_activity": "97 %"}, "power": {"socket_power": "412 W"},
      "temperature": {"edge": "58 C"}, "mem_usage": {"used_vram": "2048 MB"}}, {"gpu": 1}]""",
}


@pytest.mark.parametrize("form", AMD)
def test_gpus_of_amd_are_read_by_their_command(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(AMD[form])
    (tmp_path / "amd-smi").write_text('#!/bin/sh\necho "$@" >> "$0.calls"\nexec /bin/cat "${0%/*}/answer"\n')
    (tmp_path / "amd-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi
    monkeypatch.setattr(gpus.Library.__init__, "__defaults__", ("libnone.so",))
    found = gpus.find([0, 1])
    assert isinstance(found, gpus.AmdSmi)
    assert found.read() == {0: {"utilization": 97.0, "memory": 2.0, "power": 412.0, "temperature": 58.0}, 1: {}}
    assert "metric --gpu 0 1 --usage" in (tmp_path / "amd-smi.calls").read_text()


@pytest.mark.parametrize("answer", ["", "no driver", "[", "[{}]", '{"gpu_data": null}', '[{"gpu": 5}]', "7"])
def test_a_command_of_amd_that_names_no_such_gpu_is_left_alone(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "amd-smi").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (tmp_path / "amd-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus.Library.__init__, "__defaults__", ("libnone.so",))
    assert gpus.find([0]) is None


def test_a_sample_holds_the_gpus_of_amd(taken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(AMD["list"])
    (tmp_path / "amd-smi").write_text('#!/bin/sh\nexec /bin/cat "${0%/*}/answer"\n')
    (tmp_path / "amd-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus.Library.__init__, "__defaults__", ("libnone.so",))
    sampler = Sampler(taken.intake, (0,), 1.0, os.getpid())
    sampler._gpus = gpus.find((0,))
    sampler.run_once(sampler._at + 1)
    assert {metric for metric in taken.metrics if "gpu" in metric} == {
        f"system/gpu.0.{name}" for name in ("utilization", "memory", "power", "temperature")
    }
    assert [value for _, value in taken.points("system/gpu.0.power")] == [412.0]


def test_nothing_is_looked_for_where_no_gpu_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "Library", None)
    assert gpus.find([]) is None


def test_memory_is_measured_against_the_limit_of_the_cgroup(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\n")
    assert host.memory_percent(tmp_path, tmp_path / "none") == 75.0
    for name, text in (
        ("memory.max", "400\n"),
        ("memory.current", "300\n"),
        ("memory.stat", "anon 90\ninactive_file 100\n"),
    ):
        (tmp_path / name).write_text(text)
    assert host.memory_percent(tmp_path, tmp_path) == 50.0
    (tmp_path / "memory.max").write_text("max\n")
    assert host.memory_percent(tmp_path, tmp_path) == 75.0
    assert host.memory_percent(tmp_path / "none", tmp_path / "none") is None


def test_the_network_is_counted_without_loopback(tmp_path: Path) -> None:
    (tmp_path / "7" / "net").mkdir(parents=True)
    row = "{}: {} 1 0 0 0 0 0 0 {} 1 0 0 0 0 0 0\n"
    lines = row.format("    lo", 999, 999) + row.format("  eth0", 10, 20) + row.format("  eth1", 1, 2)
    (tmp_path / "7" / "net" / "dev").write_text(f"head\nhead\n{lines}")
    assert host.network_bytes(7, tmp_path) == (11, 22)
    assert host.network_bytes(8, tmp_path) is None


def test_the_usage_of_a_tree_is_that_of_all_its_processes_past_ones_too() -> None:
    inner = "import os; [os.times() for _ in range(10**9) if os.times().user < 0.3 or exit()]"
    code = f"""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", {inner!r}])
held = bytearray(64 << 20)
print("ready", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -c "$CODE"; :'],
        env={**os.environ, "CODE": code},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    used = tree.usage(os.getpid())
    assert process.pid in tree.descendants(os.getpid())
    assert used.cpu_seconds >= 0.3, "of the inner process, which has ended"
    assert used.memory_bytes >= 64 << 20
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_system_metrics_are_no_progress_and_take_no_place_of_others() -> None:
    notices = Notices(lambda *_: None)
    curve = Curve(notices)
    for index in range(MAX_METRICS + 1):
        taken = curve.take_recorded("the supervisor", f"system/{index}", 1, 1.0)
        assert (taken is None) == (index == MAX_METRICS)
    assert curve.is_empty
    values = [(f"m{index}", 1.0) for index in range(MAX_METRICS + 1)]
    assert len(curve.take(Reading(1, values), "")[1]) == MAX_METRICS
    assert not curve.is_empty
    assert curve.take(Reading(None, [("m0", 1.0)]), "")[0] == 2, "steps are counted without those of the system"


def test_a_sample_has_rates_since_the_last_one(taken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 1 << 20
    totals = iter([tree.Usage(2.0, 1 << 30, 10 * mib, 0), tree.Usage(5.0, 2 << 30, 10 * mib, 3 * mib), tree.Usage()])
    networks = iter([(0, 0), (6 * mib, 0), None])
    monkeypatch.setattr(tree, "usage", lambda root: next(totals))
    monkeypatch.setattr(host, "network_bytes", lambda pid: next(networks))
    monkeypatch.setattr(host, "memory_percent", lambda: 12.5)
    sampler = Sampler(taken.intake, (), 1.0, os.getpid())
    began = sampler._at
    for seconds in (2.0, 5.0, 8.0):
        sampler.run_once(began + seconds)
    assert [value for _, value in taken.points("system/cpu")] == pytest.approx([1.0, 1.0, 0.0])
    assert [value for _, value in taken.points("system/disk_read")] == pytest.approx([5.0, 0.0, 0.0])
    assert [value for _, value in taken.points("system/disk_write")] == pytest.approx([0.0, 1.0, 0.0])
    assert [value for _, value in taken.points("system/network_receive")] == pytest.approx([2.0])
    assert taken.points("system/memory")[0] == (int(began + 2), 1.0)
    assert taken.metrics >= {"system/memory_percent"}


def test_a_run_is_sampled_until_its_end(service: Any, supervise: Any) -> None:
    started = supervise("import time\nwhile True: time.sleep(0.01)", systemMetricsSeconds=0.2)
    service.wait(lambda: len({step for step, _ in service.points("system/cpu")}) >= 2)
    service.verdict = "STOP"
    assert started.wait() == 0
    assert {step for step, _ in service.points("system/memory")} == {step for step, _ in service.points("system/cpu")}
    assert service.notices == {}
    assert "exit" in service.stored[-1]


def test_a_short_run_and_one_without_an_interval_have_no_samples(service: Any, supervise: Any) -> None:
    assert supervise("import time; time.sleep(1)").wait() == 0
    assert not [name for batch in service.stored for name in batch.get("points", {})]
