"""Default metric mode from a metric's name."""

from __future__ import annotations

import pytest

from policy.metric_mode import bound, default_objective, direction, goes_up


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


@pytest.mark.parametrize(
    ("metric", "mode", "best", "expected"),
    [
        ("val/loss", "MIN", 0.2, 0.0),
        ("anything", "MIN", 0.0, 0.0),
        ("loss", "MIN", -0.1, None),
        ("nll", "MIN", 0.2, None),
        ("accuracy", "MAX", 0.97, 1.0),
        ("accuracy", "MAX", 97.0, 100.0),
        ("accuracy", "MAX", 970.0, None),
        ("mean_reward", "MAX", 0.5, None),
        ("neg_accuracy", "MAX", 0.5, None),
    ],
)
def test_the_value_that_a_metric_can_t_pass(metric: str, mode: str, best: float, expected: float | None) -> None:
    assert bound(metric, mode, best) == expected
