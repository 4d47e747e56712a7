"""Default metric mode from a metric's name."""

from __future__ import annotations

import pytest

from policy.metric_mode import default_objective, direction, goes_up


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


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("val/loss", "MIN"),
        ("accuracy", "MAX"),
        ("accuracy_loss", "MIN"),
        ("val_mae", "MIN"),
        ("lr", None),
        ("alpha", None),
    ],
)
def test_a_direction_is_known_only_where_the_name_implies_one(metric: str, expected: str | None) -> None:
    assert direction(metric) == expected


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ([], None),
        (["system/gpu_loss"], None),
        (["train/loss", "val/loss", "val/accuracy"], "val/loss"),
        (["train/loss", "val_accuracy"], "val_accuracy"),
        (["loss", "accuracy"], "loss"),
        (["val/alpha", "loss"], "loss"),
        (["b", "a"], "a"),
    ],
)
def test_the_default_objective_is_a_known_direction_then_validation_then_a_loss(
    metrics: list[str], expected: str | None
) -> None:
    assert default_objective(metrics) == expected
    assert default_objective(reversed(metrics)) == expected
