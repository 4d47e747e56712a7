"""Parts of every callback: hooks that never raise, metrics whose steps rise, the class with its framework's base."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Callable, TypeVar

from ._reporting import is_reporting, report, warn

Hook = TypeVar("Hook", bound=Callable[..., Any])


def harmless(hook: Hook) -> Hook:
    """Make a hook that reports on rank 0 of a simulation only, and never raises."""

    @functools.wraps(hook)
    def guarded(*args: Any, **named: Any) -> None:
        if not is_reporting():
            return
        try:
            hook(*args, **named)
        except Exception as error:  # a training must not end for its curve
            warn(hook.__qualname__, f"{hook.__name__} reports nothing: {type(error).__name__}: {error}")

    return guarded  # type: ignore[return-value]  # it is called as the hook is


class Rising:
    """Reports metrics whose step is above their last: hooks overlap, at the end of an epoch for one."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def report(self, step: int, metrics: Mapping[str, object]) -> None:
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, -1)}
        self._last.update(dict.fromkeys(new, step))
        report(step=step, **new)


def with_base(hooks: type, module: str, frameworks: Iterable[str]) -> type:
    """Return the class `Callback` of a module: these hooks, and the base of the framework that the script uses.

    frameworks: modules with `Callback` or `TrainerCallback`; one that is imported already comes first.
    """
    found = sorted(frameworks, key=lambda each: each.partition(".")[0] not in sys.modules)
    for name in found:
        try:
            framework = importlib.import_module(name)
        except ImportError:
            continue
        base = getattr(framework, "TrainerCallback", None) or framework.Callback
        return type("Callback", (hooks, base), {"__module__": module, "__doc__": hooks.__doc__})
    raise ImportError(f"{module}.Callback needs one of these modules: {', '.join(found)}")
