"""Residuals of solvers: PETSc's monitors (KSP, SNES, TAO) and OpenFOAM's time steps.

PETSc counts each solve from 0: each metric gets a count of its own. OpenFOAM solves an equation several times in a time
step: its first initial residual counts, and the step is the ordinal of the `Time =` line.
"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import NUMBER, VALUE

_PETSC = re.compile(rf"\s*\d+ ((?:KSP|SNES|TAO)[\w ]*? norm) ({VALUE})(?:\s+(true resid norm) ({VALUE}))?")
_TAO = re.compile(rf"\s*\d+ TAO,\s+(Function value): ({VALUE}),\s+(Residual): ({VALUE})")
_TIME = re.compile(rf"Time = ({NUMBER})s?\s*$")
_SOLVE = re.compile(
    rf"[\w:<>]+:  ?Solving for ([\w.]+), Initial residual = ({VALUE}), Final residual = {VALUE}, No Iterations \d+"
)


class Solvers:
    """Reader of residuals."""

    def __init__(self) -> None:
        self._ordinal = 0
        self._time: float | None = None
        self._has_time = False  # whether the time step's own point was read
        self._solved: set[str] = set()

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        found = _PETSC.match(text)
        if found is not None:
            values = [(found[1], float(found[2]))]
            if found[4] is not None:
                values.append((f"{found[1].split()[0]} {found[3]}", float(found[4])))
            return [Reading(None, values, counts_alone=True)]
        found = _TAO.match(text)
        if found is not None:
            values = [(f"TAO {found[1]}", float(found[2])), (f"TAO {found[3]}", float(found[4]))]
            return [Reading(None, values, counts_alone=True)]
        found = _TIME.match(text)
        if found is not None:
            self._ordinal += 1
            self._time, self._has_time = float(found[1]), False
            self._solved.clear()
            return []
        found = _SOLVE.match(text)
        if found is None:
            return None
        if self._time is None or found[1] in self._solved or len(self._solved) > 1_000:
            return []
        self._solved.add(found[1])
        values = [(found[1], float(found[2]))]
        if not self._has_time:
            self._has_time = True
            values.append(("Time", self._time))
        return [Reading(self._ordinal, values)]
