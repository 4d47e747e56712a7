"""Transcripts of real programs give the right points, and everything stays in the log.

A transcript's header says how it was made. For each metric: how many points, the first and the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
Point = tuple[int, float | str]

RIGHT: dict[str, dict[str, tuple[int, Point, Point]]] = {
    "catboost": {
        "learn": (2, (0, 0.6931), (1, 0.6831)),
        "test": (2, (0, 0.68), (1, 0.67)),
        "best": (2, (0, 0.68), (1, 0.67)),
    },
    "fairseq-json": {
        "loss": (1, (100, 9.5), (100, 9.5)),
        "ppl": (1, (100, 720.0), (100, 720.0)),
        "lr": (1, (100, 1e-05), (100, 1e-05)),
        "valid_loss": (1, (100, 9.1), (100, 9.1)),
    },
    "fairseq-text": {
        "loss": (1, (10, 9.5), (10, 9.5)),
        "ppl": (1, (10, 720.0), (10, 720.0)),
        "lr": (1, (10, 1e-05), (10, 1e-05)),
        "train/loss": (1, (100, 9.5), (100, 9.5)),
        "train/ppl": (1, (100, 720.0), (100, 720.0)),
        "train/lr": (1, (100, 1e-05), (100, 1e-05)),
        "valid/loss": (1, (100, 9.0), (100, 9.0)),
        "valid/ppl": (1, (100, 512.0), (100, 512.0)),
    },
    "fastai": {
        "train_loss": (4, (0, 2.013948), (3, 0.901899)),
        "valid_loss": (4, (0, 1.932034), (3, 0.316618)),
        "_rmse": (4, (0, 1.389976), (3, 0.562688)),
        "mae": (4, (0, 1.149925), (3, 0.451722)),
    },
    "huggingface": {
        "loss": (2, (0, 11.91), (1, 1.0)),
        "grad_norm": (1, (0, 14.73), (0, 14.73)),
        "learning_rate": (1, (0, 4.844e-05), (0, 4.844e-05)),
        "epoch": (3, (0, 0.125), (2, 1.0)),
        "train_runtime": (1, (2, 12.3), (2, 12.3)),
        "train_samples_per_second": (1, (2, 8.1), (2, 8.1)),
        "train_loss": (1, (2, 0.5), (2, 0.5)),
    },
    "huggingface-5": {
        "loss": (4, (0, 5.23), (4, 2.848)),
        "grad_norm": (4, (0, 2.121), (4, 4.775)),
        "learning_rate": (4, (0, 0.04063), (4, 0.003125)),
        "epoch": (7, (0, 0.5), (6, 2.0)),
        "eval_loss": (2, (2, 3.489), (5, 2.816)),
        "eval_runtime": (2, (2, 0.0519), (5, 0.0442)),
        "eval_samples_per_second": (2, (2, 308.6), (5, 361.6)),
        "eval_steps_per_second": (2, (2, 38.57), (5, 45.2)),
        "train_runtime": (1, (6, 0.8054), (6, 0.8054)),
        "train_samples_per_second": (1, (6, 158.9), (6, 158.9)),
        "train_steps_per_second": (1, (6, 19.87), (6, 19.87)),
        "train_loss": (1, (6, 3.787), (6, 3.787)),
    },
    "keras-bar": {
        "loss": (3, (1, 10.8463), (3, 10.4315)),
        "mae": (3, (1, 2.5343), (3, 2.4834)),
        "val_loss": (3, (1, 11.1701), (3, 10.6785)),
        "val_mae": (3, (1, 2.6443), (3, 2.5852)),
    },
    "keras-lines": {
        "loss": (3, (1, 8.9419), (3, 8.4387)),
        "mae": (3, (1, 2.3737), (3, 2.3078)),
        "val_loss": (3, (1, 3.9781), (3, 3.791)),
        "val_mae": (3, (1, 1.5987), (3, 1.5625)),
    },
    "lightgbm": {
        "training's l2": (30, (1, 1.50172), (30, 0.0419019)),
        "training's l1": (30, (1, 0.952932), (30, 0.092054)),
        "valid_0's l2": (30, (1, 2.59667), (30, 0.415808)),
        "valid_0's l1": (30, (1, 1.19066), (30, 0.298909)),
    },
    "lightning-pipe": {
        "train_loss": (1, (8, 0.044), (8, 0.044)),
        "val_loss": (1, (8, 0.033), (8, 0.033)),
    },
    "lightning-rich": {
        "train_loss": (1, (16, 0.3), (16, 0.3)),
    },
    "lightning-tqdm": {
        "train_loss": (2, (16, 0.3), (32, 0.2)),
    },
    "lightning-validation": {  # a bar has the newest value of each, in a pipe the one before the epoch's validation
        "train_loss": (3, (8, 1.45), (24, 0.0819)),
        "val_loss": (2, (16, 1.2), (24, 0.271)),
    },
    "openfoam": {
        "Ux": (2, (1, 0.01), (2, 0.005)),
        "Time": (2, (1, 0.5), (2, 1.0)),
        "p": (1, (1, 0.1), (1, 0.1)),
    },
    "optuna": {
        "value": (6, (0, 0.009531032662651796), (5, 0.08514036891002495)),
    },
    "petsc": {
        "KSP Residual norm": (3, (0, 1.0), (2, 0.5)),
        "SNES Function norm": (1, (0, 3.4e-06), (0, 3.4e-06)),
        "KSP unpreconditioned resid norm": (1, (0, 2.0), (0, 2.0)),
        "KSP true resid norm": (1, (0, 3.0), (0, 3.0)),
    },
    "pytorch-imagenet": {
        "Loss": (2, (1, 6.9), (5015, 5.9)),
        "Acc@1": (2, (1, 0.0), (5015, 1.0)),
        "Acc@5": (2, (1, 0.39), (5015, 0.39)),
    },
    "pytorch-mnist": {
        "Loss": (3, (0, 2.3), (60640, 0.2)),
        "Average loss": (1, (60000, 0.05), (60000, 0.05)),
        "Accuracy": (1, (60000, 98.0), (60000, 98.0)),
    },
    "sb3": {
        "rollout/ep_len_mean": (6, (128, 30.0), (768, 25.2)),
        "rollout/ep_rew_mean": (6, (128, 30.0), (768, 25.2)),
        "train/approx_kl": (5, (256, 0.0013010507), (768, 0.0007319548)),
        "train/clip_fraction": (5, (256, 0.0), (768, 0.0)),
        "train/clip_range": (5, (256, 0.2), (768, 0.2)),
        "train/entropy_loss": (5, (256, -0.693), (768, -0.682)),
        "train/explained_variance": (5, (256, -0.0219), (768, -0.122)),
        "train/learning_rate": (5, (256, 0.0003), (768, 0.0003)),
        "train/loss": (5, (256, 56.2), (768, 31.9)),
        "train/policy_gradient_loss": (5, (256, -0.00785), (768, -0.00169)),
        "train/value_loss": (5, (256, 110.0), (768, 67.0)),
    },
    "sklearn-gbm": {
        "Train Loss": (12, (1, 1.7354), (30, 0.0484)),
        "OOB Improve": (12, (1, 0.1828), (30, -0.0138)),
    },
    "sklearn-hist": {
        "train loss": (5, (1, 0.83702), (5, 0.51493)),
        "val loss": (5, (1, 0.70577), (5, 0.46439)),
    },
    "sklearn-mlp": {
        "loss": (8, (1, 1.75933731), (8, 1.69312917)),
    },
    "sklearn-others": {
        "inertia": (7, (0, 950.7467331633864), (6, 554.5221848590134)),
        "mean batch inertia": (3, (1, 6.023773271360315), (3, 3.6897693806580105)),
        "ewa inertia": (2, (2, 3.7930486673792188), (3, 3.6897693806580105)),
        "ll change": (6, (1, "Infinity"), (6, 0.00063)),
        "error": (6, (50, 51.4126816), (300, 0.7352532)),
        "gradient norm": (6, (50, 0.339424), (300, 0.0094829)),
        "perplexity": (2, (1, 7.7529), (2, 7.7025)),
        "change": (15, (1, 1.0), (15, 0.00011880249)),
    },
    "sklearn-sgd": {
        "Norm": (5, (1, 0.26), (5, 0.58)),
        "Avg. loss": (5, (1, 1.099772), (5, 0.736048)),
        "Objective": (5, (1, 1.099773), (5, 0.736064)),
    },
    "spacy": {
        "LOSS TEXTCAT": (7, (0, 0.25), (120, 3.06)),
        "CATS_SCORE": (7, (0, 100.0), (120, 100.0)),
        "SCORE": (7, (0, 1.0), (120, 1.0)),
    },
    "tqdm": {
        "loss": (2, (32, 0.0312), (64, 0.0156)),
    },
    "xgboost": {
        "train-logloss": (12, (0, 0.46617), (11, 0.06156)),
        "train-auc": (12, (0, 0.99531), (11, 1.0)),
        "valid-logloss": (12, (0, 0.49938), (11, 0.2324)),
        "valid-auc": (12, (0, 0.92042), (11, 0.97333)),
        "test-logloss": (4, (0, 0.50892), (3, 0.29997)),
    },
    "yolo": {
        "box_loss": (3, (1, 0.5338), (3, 0.4488)),
        "cls_loss": (3, (1, 0.5733), (3, 0.5423)),
        "dfl_loss": (3, (1, 0.32), (3, 0.2697)),
        "Box/P": (3, (1, 0.0), (3, 0.0)),
        "Box/R": (3, (1, 0.0), (3, 0.0)),
        "Box/mAP50": (3, (1, 0.0), (3, 0.0)),
        "Box/mAP50-95": (3, (1, 0.0), (3, 0.0)),
    },
}


def transcript(name: str) -> bytes:
    """The recorded bytes, without the header."""
    return (TRANSCRIPTS / f"{name}.txt").read_bytes().split(b"#---\n", 1)[1]


def test_every_transcript_has_its_right_points() -> None:
    assert {path.stem for path in TRANSCRIPTS.glob("*.txt")} == set(RIGHT)


@pytest.mark.parametrize("name", RIGHT)
def test_a_transcript_gives_its_points_and_stays_in_the_log(name: str, read: Any) -> None:
    result = read(transcript(name))
    found = {metric: (len(points), points[0], points[-1]) for metric, points in result.points.items()}
    assert found == RIGHT[name]
    assert result.supervisor[0].startswith("reading ")
    # xgboost.cv after xgboost.train begins at round 0 again: its steps do not rise, which is said.
    assert set(result.notices) == ({"NOT_RISING"} if name == "xgboost" else set())
    assert not any(line.startswith("\r") for line in result.log)


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_of_a_transcript_is_read_with_none_and_text_is_not_with_json(name: str, read: Any) -> None:
    assert read(transcript(name), mode="NONE").points == {}
    assert read(transcript(name), mode="NONE").looked_at == 0
    from_json = read(transcript(name), mode="JSON").points
    assert set(from_json) <= (
        {"loss", "ppl", "lr", "valid_loss", "epoch", "update", "wps", "valid_num_updates"}
        if name == "fairseq-json"
        else set()
    )


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("prefix", ["0: ", "[rank0]: ", "[default0]:", "[1,0]<stdout>:"])
def test_a_label_of_rank_0_changes_nothing(name: str, prefix: str, read: Any) -> None:
    lines = transcript(name).decode().replace("\r\n", "\n").split("\n")
    last = [line.rstrip("\r\b").rsplit("\r", 1)[-1] for line in lines]
    result = read("".join(f"{prefix}{line}\n" for line in last))
    found = {metric: (len(points), points[0], points[-1]) for metric, points in result.points.items()}
    assert found == RIGHT[name]
