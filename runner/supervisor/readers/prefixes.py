"""Prefixes that launchers and loggers put before a line: rank labels, time stamps, levels, names of loggers."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANK = re.compile(
    r"\[(?:default|rank)?(?P<torch>\d{1,6})\]:\s?"  # torchrun --tee, PyTorch's own label
    r"|\[(?:[\w.-]{1,80}@)?\d+,(?P<mpi>\d{1,6})\](?:<std(?:out|err)>)?:?\s?"  # mpirun --tag-output, of Open MPI 4 and 5
    r"|\(?(?:rank|RANK|Rank)[ _:=]?(?P<named>\d{1,6})\)?\s?[:|>]\s?"
    r"|\[(?:rank|RANK|Rank)[ _:=](?P<bracketed>\d{1,6})\]:?\s?"
    r"|(?P<srun>\d{1,5}): "  # srun --label
)
_RAY = re.compile(r"\([\w.:-]{1,80} pid=\d{1,10}(?:, ip=[\w.:]{1,45})?\)\s")  # Ray's label of a worker's output
_RANK_BEGINS = tuple("[(rR0123456789")
_PLAIN_RANK = re.compile(r"\[(\d{1,6})\]$")  # mpiexec -l of MPICH and Intel MPI
_LEVEL = r"(?:TRACE|DEBUG|INFO|SUCCESS|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL|I|D|W|E)"
_STAMP = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[ ]?[-+]\d\d:?\d\d)?"
_LOGGER = re.compile(
    rf"(?:"
    rf"[IWEF]\d{{4}} \d\d:\d\d:\d\d\.\d+\s+\d+ [\w./-]{{1,80}}:\d+\]"  # glog, absl, klog
    rf"|[\[(]?{_STAMP}[\])]?"
    rf"|[\[(]?\d\d:\d\d:\d\d(?:[.,]\d+)?[\])]?"
    rf"|{_LEVEL}(?=[:\] |-])|\[{_LEVEL}\s*\]"
    rf")"
    rf"(?:[\s|:,-]*(?:\[?{_LEVEL}\]?(?=[:\s|-]))|)"
    rf"(?:\s*[|:-]?\s*[\w.<>/-]{{1,80}}(?::[\w.<>]{{1,60}})*(?::\d+)?(?:\s-\s|:\s(?!\s*[-+.]?\d)|\s\|\s|:(?=[{{])))?"
    rf"[\s|:-]*"
)
# Fields of a logger in any order, of which one is a time or a level, up to an object. A word right before the object is
# a part of the message instead, but for a container runtime's F.
_FIELD = r"(?:\[[^\[\]{}\"']{1,80}\]:?[ \t]*|[\w.<>/@+,:-]{1,80}(?:\[\d+\]:?)?[ \t]+)(?:[-:|][ \t]+)?"
_FIELDS = re.compile(
    rf"(?=.*(?:\d\d:\d\d:\d\d|\b{_LEVEL}\b))(?:{_FIELD}){{1,9}}(?<=[-:|\]] )$"
    rf"|{_STAMP}\sstd(?:out|err)\sF\s$"
)
MAX_FIELDS = 200  # characters
_CONTAINER = re.compile(r"[\w.-]{1,60}\s+\|\s")  # docker compose


class Line(NamedTuple):
    """A line without its prefix. `rank` is None without a rank's label."""

    text: str
    rank: int | None
    is_logged: bool  # a logger's prefix was taken off


def cut(text: str) -> Line:
    """Take the prefixes off a line: those of a container, of ranks, of a logger; a rank's label behind a time, too."""
    text, rank = cut_rank(text)
    logger = _LOGGER.match(text)
    if logger is None or not logger.end():
        return Line(text, rank, False)
    text = text[logger.end() :]
    if rank is None and text.startswith(("[", "(")):
        text, rank = cut_rank(text)
    return Line(text, rank, True)


def plain_rank(text: str) -> int | None:
    """The rank of a label that is one only in front of an object with a step: `[3] `. Elsewhere it is the step."""
    found = _PLAIN_RANK.match(text)
    return int(found[1]) if found is not None else None


def are_fields(text: str) -> bool:
    """True if the text in front of an object is a logger's: `2026-11-29 06:49:59,838 - train - INFO - `."""
    return len(text) <= MAX_FIELDS and _FIELDS.match(text) is not None


def cut_rank(text: str) -> tuple[str, int | None]:
    """Take the labels of launchers off, of which the innermost has the rank; it is None without a rank's label."""
    if " | " in text[:64]:
        container = _CONTAINER.match(text)
        if container is not None:
            text = text[container.end() :]
    rank = None
    begins: tuple[str, ...] = _RANK_BEGINS
    while text.startswith(begins):
        label = _RANK.match(text)
        if label is not None:
            rank = int(next(group for group in label.groups() if group is not None))
        elif rank is None:
            label = _RAY.match(text)
        if label is None:
            break
        text, begins = text[label.end() :], ("[",)  # torchrun's label in front of the program's own
    return text, rank
