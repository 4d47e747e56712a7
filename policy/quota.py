"""Quotas: how many GPUs a project may use at once, and what it waits for beyond that.

A quota limits starts. Lowering it below what runs stops nothing; nothing that needs GPUs starts until enough has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from policy import phrasing


@dataclass(frozen=True, slots=True)
class Quota:
    """The quota of a project, and the GPUs that it uses."""

    project: str  # its name
    gpus: int
    used: int

    def admits(self, gpus: int) -> bool:
        """Whether something that needs so many GPUs may start; what needs none always may."""
        return gpus <= 0 or self.used + gpus <= self.gpus

    def refusal(self, gpus: int) -> str:
        """Explain why something that needs so many GPUs waits."""
        name, quota = phrasing.name(self.project), phrasing.count(self.gpus, "GPU")
        if gpus > self.gpus:
            return f"It needs {phrasing.count(gpus, 'GPU')}: the quota of the project {name} is {quota} at once."
        return f"The project {name} uses {self.used} of its quota of {quota}, and this needs {gpus}."


def admitted(starts: Sequence[tuple[int, int]], quotas: Mapping[int, Quota]) -> Sequence[bool]:
    """Judge starts, as (project, GPUs), in their order: each one that is admitted counts for those behind it."""
    answers = []
    for start in starts:
        project_id, gpus = start
        answers.append(project_id not in quotas or quotas[project_id].admits(gpus))
        if answers[-1]:
            quotas = used_after([start], quotas)
    return answers


def used_after(starts: Sequence[tuple[int, int]], quotas: Mapping[int, Quota]) -> Mapping[int, Quota]:
    """Return the quotas with the GPUs of these starts, as (project, GPUs), counted as used."""
    after = dict(quotas)
    for project_id, gpus in starts:
        if project_id in after:
            after[project_id] = replace(after[project_id], used=after[project_id].used + max(gpus, 0))
    return after
