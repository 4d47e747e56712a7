"""Which way a metric is to go that nobody spoke of: by what its name says to everybody in the field.

A name is read as words: `val_accuracy`, `valAccuracy` and `val/accuracy` are the same two. What is known to go down
decides (`accuracy_loss`), then what is known to go up; everything else goes down, as what solvers report does.
"""

from __future__ import annotations

import re

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
    """Whether more of it is better, as far as its name tells."""
    words = {word.lower() for word in _WORDS.findall(metric[:200])}
    return not words & _DOWN and bool(words & _UP)
