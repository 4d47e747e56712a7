"""Callback for Lightning (or PyTorch Lightning): `Trainer(callbacks=[simulations.lightning.Callback()])`."""

from __future__ import annotations

from typing import Any

from ._hooks import Rising, harmless, with_base


class _Hooks:
    """Reports what `self.log` was given, at the global step: each `every_n_steps`, after a validation and an epoch.

    every_n_steps: as the trainer's `log_every_n_steps`, unless given.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        super().__init__()
        self._rising = Rising()
        self._every = every_n_steps
        self._trained: set[str] = set()
        self._validated: set[str] = set()  # reported after a validation only: in between they would be repeated

    @harmless
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any, **named: Any) -> None:
        step, every = int(trainer.global_step), self._every or int(getattr(trainer, "log_every_n_steps", 0) or 50)
        if step % every == 0:
            self._report_trained(trainer)

    @harmless
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._report_trained(trainer)

    @harmless
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        metrics = {name: value for name, value in trainer.callback_metrics.items() if name not in self._trained}
        self._validated.update(metrics)
        self._report(trainer, metrics)

    def _report_trained(self, trainer: Any) -> None:
        metrics = {name: value for name, value in trainer.callback_metrics.items() if name not in self._validated}
        self._trained.update(metrics)
        self._report(trainer, metrics)

    def _report(self, trainer: Any, metrics: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self._rising.report(int(trainer.global_step), metrics)


def __getattr__(name: str) -> Any:
    """Make `Callback` on its first use, when Lightning is imported."""
    if name != "Callback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = with_base(_Hooks, __name__, ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"))
    return made
