"""report() and parameters(): which process reports, which values are numbers, and the pipe to the supervisor.

Points travel as JSON lines through the named pipe in `SIMULATION_REPORT`: standard output may be redirected, captured
or in the middle of a progress bar. A write of up to `PIPE_BUF` bytes is atomic, so threads and forked processes may
report at once. Where there is no pipe (an older supervisor, a container of the script's own), lines go to standard
output. As with a print, a report waits while the supervisor has nowhere to keep output.
"""

from __future__ import annotations

import json
import math
import operator
import os
import sys
import threading
from collections.abc import Iterator, Mapping

PIPE_VARIABLE = "SIMULATION_REPORT"
ID_VARIABLE = "SIMULATION_ID"
PARAMETERS_VARIABLE = "SIMULATION_PARAMETERS"
# Of the gang, torchrun, Slurm, Open MPI, MPICH, PMIx: each counts from 0, and one that is not 0 is enough.
RANK_VARIABLES = ("SIMULATION_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
PIPE_BUF = 4096  # bytes, on Linux
MAX_STEP = 2**53  # the largest integer that every JSON reader keeps exact
MAX_NAME = 256  # characters of a metric's name


def report(*, step: int | None = None, **metrics: object) -> None:
    """Report metrics at a step; without one, at the next whole number. Never raises.

    Values are numbers, or what `float()` makes one, as NumPy's and PyTorch's scalars; NaN and infinities count. Names
    with other characters than Python's: `report(step=1, **{"val/loss": 0.5})`.
    """
    try:
        _report(step, metrics)
    except Exception as error:  # a training must not end for its curve
        warn("report", f"metrics are not reported: {type(error).__name__}: {error}")


def parameters() -> dict[str, object]:
    """Return the parameters of this simulation; outside a simulation an empty dict. Never raises."""
    text = os.environ.get(PARAMETERS_VARIABLE)
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        warn("parameters", f"{PARAMETERS_VARIABLE} is not JSON: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def is_reporting() -> bool:
    """True in a simulation, in the process of rank 0."""
    return (ID_VARIABLE in os.environ or PIPE_VARIABLE in os.environ) and not any(map(_is_higher, RANK_VARIABLES))


def warn(topic: str, sentence: str) -> None:
    """Print a warning on standard error, once for each topic."""
    if topic in _warned or len(_warned) >= _MAX_WARNINGS:
        return
    _warned.add(topic)
    try:
        print(f"simulations: {sentence}", file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):  # closed, or there is none
        return


_warned: set[str] = set()
_MAX_WARNINGS = 20


def _report(step: object, metrics: Mapping[str, object]) -> None:
    if not is_reporting():
        return
    whole = None if step is None else _step(step)
    if step is not None and whole is None:
        warn("step", f"step must be a whole number from 0 to 2^53, not {_shown(step)}: it is not reported")
        return
    values = dict(_numbers(metrics))
    if values:
        for line in _lines(whole, values):
            _channel.write(line)


def _is_higher(variable: str) -> bool:
    rank = os.environ.get(variable, "")
    return rank.isdecimal() and int(rank) > 0


def _step(given: object) -> int | None:
    try:
        whole = int(given) if isinstance(given, float) and given.is_integer() else operator.index(given)  # type: ignore[arg-type]  # a TypeError is an answer
    except (TypeError, ValueError):
        return None
    return whole if 0 <= whole <= MAX_STEP and not isinstance(given, bool) else None


def _numbers(metrics: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        number = _number(value)
        if number is None:
            warn(f"value of {name}", f"{name!r} is not reported: {_shown(value)} is no number")
        elif not 0 < len(name) <= MAX_NAME or name == "step":
            warn(f"name {name[:40]}", f"a metric's name has 1 to {MAX_NAME} characters and is not 'step'")
        else:
            yield name, number


def _number(value: object) -> float | None:
    if isinstance(value, (bool, str, bytes)) or value is None:
        return None
    try:
        item = getattr(value, "item", None)  # of arrays and tensors with one element
        return float(item() if callable(item) else value)  # type: ignore[arg-type]  # a TypeError is an answer
    except Exception:  # of any library's own type
        return None


def _shown(value: object) -> str:
    return f"a value of type {type(value).__name__}"


def _lines(step: int | None, values: Mapping[str, float]) -> Iterator[bytes]:
    """Yield a record as lines that are written in one piece each; one line where the step is still to be counted."""
    line = _line(step, values)
    if len(line) <= PIPE_BUF or step is None or len(values) == 1:
        yield line
        return
    names = list(values)
    middle = math.ceil(len(names) / 2)
    for part in (names[:middle], names[middle:]):
        yield from _lines(step, {name: values[name] for name in part})


def _line(step: int | None, values: Mapping[str, float]) -> bytes:
    return json.dumps(values if step is None else {"step": step, **values}).encode() + b"\n"


class _Channel:
    """The pipe to the supervisor, else standard output. The pipe is opened once, and again if its path changes."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        path = os.environ.get(PIPE_VARIABLE)
        if path != self._path:
            with self._lock:
                if path != self._path:
                    self._descriptor = _opened(path) if path else None
                    self._path = path
        if self._descriptor is None:
            print(line.decode(), end="", file=sys.__stdout__, flush=True)
            return
        while line:
            line = line[os.write(self._descriptor, line) :]


def _opened(path: str) -> int | None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # without a reader: an error, no wait
    except OSError:
        return None
    os.set_blocking(descriptor, True)
    return descriptor


_channel = _Channel()
os.register_at_fork(after_in_child=lambda: setattr(_channel, "_lock", threading.Lock()))
