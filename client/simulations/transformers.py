"""Callback for Hugging Face's Trainer: `Trainer(callbacks=[simulations.transformers.Callback()])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._hooks import Rising, harmless, with_base


class _Hooks:
    """Reports what the trainer logs, at its global step."""

    def __init__(self) -> None:
        super().__init__()
        self._rising = Rising()

    @harmless
    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **named: Any) -> None:
        if state.is_world_process_zero:
            numbers = {name: value for name, value in (logs or {}).items() if not isinstance(value, str)}
            self._rising.report(int(state.global_step), numbers)


def __getattr__(name: str) -> Any:
    """Make `Callback` on its first use, when Transformers is imported."""
    if name != "Callback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = with_base(_Hooks, __name__, ("transformers",))
    return made
