"""GPUs by their index on the host: NVIDIA's by libnvidia-ml through ctypes, else by `nvidia-smi`; AMD's by `amd-smi`.

None is looked for unless the attempt may use GPUs; both commands are processes with a time limit. The functions and
structures of the library are those of NVML's reference, "Device Queries".
"""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

from runner.supervisor.complaints import complain

LIBRARY = "libnvidia-ml.so.1"
SMI_SECONDS = 10.0
GIB = 1 << 30
TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t
Reading = Mapping[str, float]  # by the name of a metric: utilization, memory, power, temperature


class Gpus(Protocol):
    """A way to read GPUs."""

    def read(self) -> Mapping[int, Reading]:
        """Read each GPU; values that it does not have are left out. Raises OSError if none can be read any more."""


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Library:
    """NVIDIA's management library. Raises OSError if there is none, or no driver."""

    def __init__(self, indices: Sequence[int], name: str = LIBRARY) -> None:
        self._library = ctypes.CDLL(name)
        status = self._call("nvmlInit_v2")
        if status:
            raise OSError(f"nvmlInit_v2: {status}")
        self._devices: dict[int, ctypes.c_void_p] = {}
        for index in indices:
            device = ctypes.c_void_p()
            if not self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device)):
                self._devices[index] = device
        if not self._devices:
            raise OSError("no such GPU")

    def read(self) -> Mapping[int, Reading]:
        return {index: self._read(device) for index, device in self._devices.items()}

    def _read(self, device: ctypes.c_void_p) -> Reading:
        found: dict[str, float] = {}
        rates, memory, number = _Utilization(), _Memory(), ctypes.c_uint()
        if not self._call("nvmlDeviceGetUtilizationRates", device, ctypes.byref(rates)):
            found["utilization"] = rates.gpu
        if not self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory)):
            found["memory"] = memory.used / GIB
        if not self._call("nvmlDeviceGetPowerUsage", device, ctypes.byref(number)):
            found["power"] = number.value / 1000
        if not self._call("nvmlDeviceGetTemperature", device, ctypes.c_int(TEMPERATURE_GPU), ctypes.byref(number)):
            found["temperature"] = number.value
        return found

    def _call(self, function: str, *arguments: object) -> int:
        """Call a function; its status, 0 for success."""
        try:
            return int(getattr(self._library, function)(*arguments))
        except AttributeError:  # an older library
            return -1


class NvidiaSmi:
    """The command `nvidia-smi`, which takes some tenths of a second."""

    FIELDS = ("index", "utilization.gpu", "memory.used", "power.draw", "temperature.gpu")

    def __init__(self, indices: Sequence[int]) -> None:
        """Raises OSError if it does not answer."""
        self._indices = indices
        self.read()

    def read(self) -> Mapping[int, Reading]:
        command = [
            "nvidia-smi", f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits",
            f"--id={','.join(map(str, self._indices))}",
        ]  # fmt: skip
        found = dict(map(_row, _output(command).splitlines()))
        found.pop(-1, None)
        if not found:
            raise OSError("nvidia-smi names no GPU")
        return found


def _row(line: str) -> tuple[int, Reading]:
    """Read a line of `nvidia-smi`; -1 where it is none. `[N/A]` is left out, and memory is in MiB."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(NvidiaSmi.FIELDS) or not words[0].isdecimal():
        return -1, {}
    found: dict[str, float] = {}
    for name, word, factor in zip(("utilization", "memory", "power", "temperature"), words[1:], (1, 1 / 1024, 1, 1)):
        try:
            found[name] = float(word) * factor
        except ValueError:
            continue
    return int(words[0]), found


class AmdSmi:
    """The command `amd-smi`, in the forms of ROCm 5.7 to 7: a list of GPUs, or an object with `gpu_data`."""

    def __init__(self, indices: Sequence[int]) -> None:
        """Raises OSError if it does not answer."""
        self._indices = indices
        self.read()

    def read(self) -> Mapping[int, Reading]:
        gpus = [str(index) for index in self._indices]
        output = _output(
            ["amd-smi", "metric", "--gpu", *gpus, "--usage", "--power", "--temperature", "--mem-usage", "--json"]
        )
        starts = [at for at in map(output.find, "[{") if at >= 0]  # behind warnings
        try:
            answer, _ = json.JSONDecoder().raw_decode(output, min(starts, default=0))
        except (ValueError, RecursionError) as error:
            raise OSError(f"amd-smi: {error}") from None
        listed = answer.get("gpu_data") if isinstance(answer, dict) else answer
        found = {
            each["gpu"]: _amd_reading(each)
            for each in (listed if isinstance(listed, list) else ())
            if isinstance(each, dict) and each.get("gpu") in self._indices
        }
        if not found:
            raise OSError("amd-smi names no such GPU")
        return found


def _amd_reading(gpu: Mapping[str, object]) -> Reading:
    """Read a GPU of `amd-smi`. `N/A` is left out, and its MB are MiB. Instinct GPUs have no sensor at the edge."""
    found: dict[str, float] = {}
    for name, section, keys, factor in (
        ("utilization", "usage", ("gfx_activity",), 1.0),
        ("memory", "mem_usage", ("used_vram",), 1 / 1024),
        ("power", "power", ("socket_power", "current_socket_power", "average_socket_power"), 1.0),
        ("temperature", "temperature", ("edge", "hotspot"), 1.0),
    ):
        values = gpu.get(section)
        for key in keys:
            number = _number(values.get(key)) if isinstance(values, dict) else None
            if number is not None:
                found[name] = number * factor
                break
    return found


def _number(value: object) -> float | None:
    """The number of `{"value": 40, "unit": "W"}`, `"40 W"` or `40`."""
    raw = value.get("value") if isinstance(value, dict) else value
    words = str(raw).split()
    try:
        return float(words[0])
    except (ValueError, IndexError):
        return None


def _output(command: Sequence[str]) -> str:
    """Standard output of a command. Raises OSError if it can't be run, or takes too long."""
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SMI_SECONDS)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from None
    return ended.stdout.decode("utf-8", "replace")


def find(indices: Sequence[int]) -> Gpus | None:
    """The way to read these GPUs; None if there are none, or none can be read."""
    ways: tuple[type[Library | NvidiaSmi | AmdSmi], ...] = (Library, NvidiaSmi, AmdSmi)
    for way in ways if indices else ():
        try:
            return way(indices)
        except OSError as error:
            complain(f"gpus: not by {way.__name__}: {error}")
    return None
