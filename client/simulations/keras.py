"""Callback for Keras: `model.fit(..., callbacks=[simulations.keras.Callback()])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._hooks import Rising, harmless, with_base


class _Hooks:
    """Reports the metrics of each epoch, counted from 1; with `every_n_batches` also in between, at the batch's count.

    Epochs are counted as Keras prints them, so that a resumed training (`initial_epoch`) goes on with its steps.
    """

    def __init__(self, every_n_batches: int | None = None) -> None:
        super().__init__()
        self._rising = Rising()
        self._every = every_n_batches
        self._batches = 0
        if every_n_batches:  # an attribute of the instance: Keras waits for each batch where a class defines this hook
            self.on_train_batch_end = self._batch_ended

    @harmless
    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._rising.report(self._batches if self._every else int(epoch) + 1, logs or {})

    @harmless
    def _batch_ended(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batches += 1
        if self._every and self._batches % self._every == 0:
            self._rising.report(self._batches, logs or {})


def __getattr__(name: str) -> Any:
    """Make `Callback` on its first use, when Keras is imported."""
    if name != "Callback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = with_base(
        _Hooks, __name__, ("keras.callbacks", "tensorflow.keras.callbacks", "tf_keras.callbacks")
    )
    return made
