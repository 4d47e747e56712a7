"""Default metric mode from a metric's name."""

from __future__ import annotations

import pytest

from policy.metric_mode import goes_up


@pytest.mark.parametrize(
    "name", ["accuracy", "val_acc", "valAccuracy", "eval/F1", "mAP", "test.AUROC", "mean_reward", "top5", "BLEU", "R2"]
)
def test_names_of_metrics_to_maximise(name: str) -> None:
    assert goes_up(name)


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "accuracy_loss",
        "neg_log_likelihood",
        "score_error",
        "residual",
        "wer",
        "map2d",
        "accelerate",
        "",
        "1",
        "é",
    ],
)
def test_any_other_name_is_minimised(name: str) -> None:
    assert not goes_up(name)
