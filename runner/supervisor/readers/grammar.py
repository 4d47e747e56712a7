"""Grammar of text: numbers and what may follow them, names of steps, names that are metrics or never are."""

from __future__ import annotations

import re
from functools import lru_cache

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
VALUE = rf"(?:{NUMBER}|[-+]?(?i:nan|inf(?:inity)?)\b)"
# What a rate is per: a time, or a round.
PER = (
    r"(?i:[mun\u00b5]?s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|d|days?|it|its|iters?|iterations?|steps?|epochs?"
    r"|batch(?:es)?|samples?|examples?|tok|tokens?|img|imgs|images?|frames?|episodes?|trials?|updates?|gpus?)"
)
# Behind a value: the end, a separator, or a bracket; neither a unit, a version's next part, a clock, a thousand nor a
# decimal comma.
END = (
    r"(?=\s|$|[,;)\]}|%]|\.(?:\s|$))"
    r"(?!,\d)"
    r"(?!\s?(?:[KMGTP]i?B|[kMG]?[Bb]ytes?|[num\u00b5]?s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|days?)\b)"
    # images/s, ms/step; neither train/acc, the next name, nor train/step=3, the next pair
    rf"(?!\s?[A-Za-z]+/{PER}\b(?![\w/@.'-]*[\"']?[ \t]*[:=]))"
    r"(?!\s?[kMG]?B/s)"
)
WORD = r"[A-Za-z_][\w/@.'-]*"

MAX_NAME = 64

_SPLIT = re.compile(r"[^A-Za-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MEASURE = re.compile(r"[a-z](?:Secs?|Seconds?|Ms|Millis|Time|Elapsed|Duration|Bytes|Mem|Memory|Size|Count)$")

# Words of a name that make it a metric.
METRIC_WORDS = frozenset(
    [
        "loss",
        "losses",
        "acc",
        "accuracy",
        "err",
        "error",
        "residual",
        "residuals",
        "norm",
        "mse",
        "mae",
        "rmse",
        "mape",
        "rmsle",
        "auc",
        "auroc",
        "auprc",
        "f1",
        "fbeta",
        "precision",
        "recall",
        "perplexity",
        "ppl",
        "reward",
        "rewards",
        "return",
        "returns",
        "score",
        "objective",
        "cost",
        "bleu",
        "rouge",
        "wer",
        "cer",
        "iou",
        "miou",
        "map",
        "dice",
        "psnr",
        "ssim",
        "fid",
        "kl",
        "nll",
        "elbo",
        "likelihood",
        "loglikelihood",
        "logloss",
        "logprob",
        "inertia",
        "r2",
        "top1",
        "top5",
        "acc1",
        "acc5",
        "bpb",
        "bpc",
        "entropy",
        "crossentropy",
        "hinge",
        "mcc",
        "kappa",
        "ndcg",
        "mrr",
        "energy",
        "fitness",
        "metric",
        "change",
        "chi2",
    ]
)
SPLITS = frozenset({"val", "valid", "validation", "train", "training", "eval", "test", "dev"})
# Words of a name that make it a setting, a size or a moment instead.
SETTING_WORDS = frozenset(
    [
        "size",
        "sizes",
        "split",
        "samples",
        "sample",
        "batches",
        "examples",
        "ratio",
        "frac",
        "fraction",
        "file",
        "files",
        "dir",
        "path",
        "steps",
        "epochs",
        "iterations",
        "workers",
        "num",
        "n",
        "max",
        "count",
        "total",
        "seed",
        "version",
        "port",
        "id",
        "rank",
        "scale",
        "scaler",
        "weight",
        "weights",
        "coef",
        "coeff",
        "coefficient",
        "threshold",
        "tol",
        "tolerance",
        "decay",
        "smoothing",
        "clip",
        "clipping",
        "limit",
        "interval",
        "freq",
        "frequency",
        "every",
        "patience",
        "delta",
        "code",
        "line",
        "lines",
        "level",
        "status",
        "errno",
        "errors",
        "type",
        "function",
        "fn",
        "name",
        "names",
        "mode",
        "points",
        "tokens",
        "params",
        "parameters",
        "set",
        "images",
        "rows",
        "shape",
        "dim",
        "warmup",
        "budget",
        "length",
        "len",
    ]
)
# Never a metric, also in a line that has one.
NEVER = frozenset(
    [
        "time",
        "times",
        "eta",
        "etc",
        "elapsed",
        "duration",
        "seconds",
        "second",
        "secs",
        "sec",
        "ms",
        "us",
        "ns",
        "minutes",
        "min",
        "hours",
        "hour",
        "remaining",
        "took",
        "date",
        "timestamp",
        "runtime",
        "seed",
        "port",
        "pid",
        "uid",
        "gid",
        "ppid",
        "version",
        "rank",
        "worker",
        "id",
        "device",
        "gpu",
        "gpus",
        "cuda",
        "code",
        "line",
        "lineno",
        "status",
        "errno",
        "exit",
        "level",
        "size",
        "bytes",
        "kb",
        "mb",
        "gb",
        "mem",
        "memory",
        "attempt",
        "retry",
        "retries",
        "retrying",
        "retried",
        "samples",
        "iterations",
        "year",
        "month",
        "day",
        "total",
        "v_num",
        "num",
        "of",
        "at",
        "in",
        "http",
        "port",
        "python",
        "numpy",
        "torch",
        "layer",
        "file",
        "files",
        "row",
        "rows",
        "records",
        "thread",
        "process",
        "host",
        "node",
        "job",
    ]
)
# Behind these a whole number is a code or a count, if nothing but a blank separates them: "Error 2", "return 0".
PROSE = frozenset(
    {"err", "error", "return", "returns", "change", "map", "cost", "test", "train", "val", "valid", "eval", "metric"}
)
# A name that ends in one of these is a metric: `loss`, `val_loss`, `decoder.loss`.
LOSSES = frozenset({"loss", "losses", "accuracy", "acc", "reward", "return", "auc", "f1", "mse", "mae", "rmse"})
# In front of the number of a line: `solver.cpp:239`.
SOURCE_FILES = (
    ".py",
    ".c",
    ".cc",
    ".cpp",
    ".cu",
    ".h",
    ".hpp",
    ".go",
    ".rs",
    ".java",
    ".kt",
    ".scala",
    ".js",
    ".ts",
    ".jl",
)
MOMENTS = frozenset({"time", "times", "wall", "elapsed", "runtime"})  # "Time cost" is none either
# Words that may stand before another one as a part of its name: "train loss", "Average loss".
QUALIFIERS = SPLITS | frozenset(
    [
        "avg",
        "average",
        "mean",
        "best",
        "final",
        "current",
        "running",
        "batch",
        "epoch",
        "gradient",
        "grad",
        "residual",
        "max",
        "min",
        "minimum",
        "maximum",
        "std",
        "median",
        "cross",
        "policy",
        "value",
        "actor",
        "critic",
        "episode",
        "episodic",
        "smoothed",
        "top",
        "policy_gradient",
        "generator",
        "discriminator",
        "g",
        "d",
        "kl",
        "mean",
        "learning",
        "objective",
        "function",
        "absolute",
        "squared",
        "relative",
        "log",
        "reconstruction",
        "total",
        "weighted",
        "balanced",
        "macro",
        "micro",
        "ewa",
        "lower",
        "inertia",
        "cv",
        "error",
    ]
)
STEP_KINDS = {
    "step": "step",
    "steps": "step",
    "iteration": "step",
    "iter": "step",
    "it": "step",
    "update": "step",
    "updates": "step",
    "timestep": "step",
    "timesteps": "step",
    "batch": "batch",
    "minibatch": "batch",
    "epoch": "epoch",
    "ep": "epoch",
    "episode": "round",
    "round": "round",
    "generation": "round",
    "gen": "round",
    "trial": "round",
}
_STEP_WORDS = "|".join(sorted(set(STEP_KINDS) - {"updates", "timesteps", "steps"}, key=len, reverse=True))
# A word before it belongs to it ("global step 7"), but not the value before it ("loss: nan step 7").
STEP = re.compile(
    rf"(?<![A-Za-z0-9.'?&])(?:(?!(?:nan|inf|infinity)\b)[A-Za-z]+[_/ ])?"
    rf"(?P<word>{_STEP_WORDS}|(?<=num_)(?:updates|timesteps)|(?<![A-Za-z0-9_][_/ -])(?<![A-Za-z0-9_])steps)(?![A-Za-z])"
    r"[ \t]*[:=#]?[ \t]*[\[(]?[ \t]*(?P<number>\d{1,16})(?![\d.]*\.\d)(?![A-Za-z_%]|[:-]\d)"
    r"(?:[ \t]*(?:/|of)[ \t]*(?P<total>\d{1,16}))?",
    re.IGNORECASE,
)


def words_of(name: str) -> list[str]:
    """Split a name into lower-case words: val_loss, train/acc, Avg. loss."""
    return [word for word in _SPLIT.split(name.lower()) if word]


@lru_cache(maxsize=4_096)
def is_never(name: str) -> bool:
    """True for a time, a size, a device, an identifier, a source file; not for a loss of one: total_loss, rank_loss."""
    words = words_of(name)
    if len(words) > 1 and words[-1] in LOSSES:
        return False
    return (
        name in NEVER or not NEVER.isdisjoint(words) or name.endswith(SOURCE_FILES) or _MEASURE.search(name) is not None
    )


@lru_cache(maxsize=4_096)
def is_metric(name: str) -> bool:
    """True if a name is that of a metric: loss, val_accuracy, train/f1."""
    words = words_of(name)
    if not words or is_never(name):
        return False
    if _HUMP.search(name):  # valLoss
        words += words_of(_HUMP.sub(" ", name))
    if not SETTING_WORDS.isdisjoint(words) and (len(words) == 1 or words[-1] not in LOSSES):
        return False
    return not METRIC_WORDS.isdisjoint(words) or (len(words) > 1 and words[0] in SPLITS)
