"""Which way a metric is to go that nobody spoke of: by what its name says to everybody in the field.

A name is read as words: `val_accuracy`, `valAccuracy` and `val/accuracy` are the same two. What is known to go down
decides (`accuracy_loss`), then what is known to go up; everything else goes down, as what solvers report does.
"""

from __future__ import annotations

import re

_WORDS = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*|\d+")
_DOWN = frozenset(
    ["loss", "error", "err", "regret", "distance", "perplexity", "ppl", "nll", "residual", "neg", "negative", "latency"]
)
_UP = frozenset(
    # Classification and retrieval, segmentation, images, text, reinforcement learning, regression, speed.
    [
        "accuracy",
        "acc",
        "auc",
        "auroc",
        "auprc",
        "f1",
        "precision",
        "recall",
        "specificity",
        "sensitivity",
        "map",
        "ap",
        "ndcg",
        "mrr",
        "kappa",
        "mcc",
        "top1",
        "top5",
        "hits",
        "iou",
        "miou",
        "dice",
        "psnr",
        "ssim",
        "bleu",
        "rouge",
        "meteor",
        "cider",
        "reward",
        "return",
        "returns",
        "score",
        "success",
        "r2",
        "likelihood",
        "elbo",
        "throughput",
    ]
)


def goes_up(metric: str) -> bool:
    """Whether more of it is better, as far as its name tells."""
    words = {word.lower() for word in _WORDS.findall(metric[:200])}
    return not words & _DOWN and bool(words & _UP)
