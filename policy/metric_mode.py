"""Default metric mode (MIN or MAX), derived from the metric's name.

A name is split into words: `val_accuracy`, `valAccuracy` and `val/accuracy` give the same two. A word of the MIN list
decides first (`accuracy_loss`), then a word of the MAX list; any other name is MIN, as for the residuals of solvers.
"""

from __future__ import annotations

import re

MIN = "MIN"  # the values of `db.states.MetricMode`, which this package doesn't import
MAX = "MAX"

_WORDS = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*|\d+")
_DOWN = frozenset({
    "loss", "error", "err", "regret", "distance", "perplexity", "ppl", "nll", "residual", "neg", "negative", "latency",
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


def goes_up(metric: str) -> bool:
    """Whether higher values are better, judged by the name."""
    words = {word.lower() for word in _WORDS.findall(metric[:200])}
    return not words & _DOWN and bool(words & _UP)
