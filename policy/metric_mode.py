"""Default metric mode (MIN or MAX), derived from the metric's name, the default objective among several metrics, and
the value that a metric can't pass.

A name is split into words: `val_accuracy`, `valAccuracy` and `val/accuracy` give the same two. A word of the MIN list
decides first (`accuracy_loss`), then a word of the MAX list; any other name is MIN, as for the residuals of solvers,
where a mode must be assumed (`goes_up`), and has no direction where it need not (`direction`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MIN = "MIN"  # the values of `db.states.MetricMode`, which this package doesn't import
MAX = "MAX"

_WORDS = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*|\d+")
_DOWN = frozenset({
    "loss", "error", "err", "mse", "rmse", "mae", "mape", "brier", "kl",
    "wer", "cer", "fid", "perplexity", "ppl", "nll",
    "regret", "distance", "residual", "neg", "negative", "latency",
})  # fmt: skip
_UP = frozenset({
    "accuracy", "acc", "auc", "auroc", "auprc", "f1", "precision", "recall", "specificity", "sensitivity", "kappa",
    "mcc", "top1", "top5",  # classification
    "map", "ap", "ndcg", "mrr", "hits",  # retrieval, detection
    "iou", "miou", "dice", "psnr", "ssim",  # images
    "bleu", "rouge", "meteor", "cider",  # text
    "reward", "return", "returns", "score", "success",  # reinforcement learning
    "r2", "likelihood", "elbo", "throughput",
})  # fmt: skip
_SIGNED = frozenset({"nll", "neg", "negative", "regret"})  # to minimise, and below zero as often as not
_SHARES = frozenset({
    "accuracy", "acc", "auc", "auroc", "auprc", "f1", "precision", "recall", "specificity", "sensitivity", "kappa",
    "mcc", "top1", "top5", "map", "ap", "ndcg", "mrr", "hits", "iou", "miou", "dice", "ssim", "success", "r2",
})  # fmt: skip  # of _UP: at most 1, or 100 in percent
_VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev", "test"})
_SYSTEM = "system/"  # prefix of measurements of the machine


def is_system(metric: str) -> bool:
    """Whether it is a measurement of the machine: no objective, and no sign of progress."""
    return metric.startswith(_SYSTEM)


def goes_up(metric: str) -> bool:
    """Whether higher values are better, judged by the name."""
    return direction(metric) == "MAX"


def direction(metric: str) -> str | None:
    """Return MIN or MAX if the name implies one."""
    words = _words(metric)
    if words & _DOWN:
        return "MIN"
    return "MAX" if words & _UP else None


def bound(metric: str, mode: str, best: float) -> float | None:
    """Return the value that a metric can't pass, judged by name, mode and best value so far; None: not known.

    0 for a metric to minimise that has not been negative; 1, or 100 in percent, for one that is a share, such as an
    accuracy.
    """
    words = _words(metric)
    if mode == MIN:
        return 0.0 if best >= 0 and not words & _SIGNED else None
    if not words & _SHARES or words & _DOWN:
        return None
    return next((most for most in (1.0, 100.0) if best <= most), None)


def default_objective(metrics: Iterable[str]) -> str | None:
    """Choose the objective of a run that declares none; None without a metric outside `system/`.

    A metric whose name has a direction comes before one without, then validation before training, then a loss before a
    score.
    """
    names = [name for name in metrics if not is_system(name)]
    return min(names, key=_rank, default=None)


def _rank(metric: str) -> tuple[bool, bool, bool, str]:
    mode = direction(metric)
    return mode is None, not _words(metric) & _VALIDATION, mode != "MIN", metric


def _words(metric: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(metric[:200])}
