"""Dependencies: a simulation that runs after others, on a condition about their end.

An end is a success (FINISHED) or a failure (FAILED, CANCELLED). So each condition is met or can never be met once the
other simulation has ended, and what can never run fails those that wait for its success in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from policy import phrasing


class DependencyCondition(StrEnum):
    """The end of another simulation that a simulation waits for."""

    SUCCESS = "SUCCESS"  # it has finished
    FAILURE = "FAILURE"  # it has failed or was cancelled
    ANY = "ANY"  # it has ended


_NOUNS = {
    DependencyCondition.SUCCESS: "success",
    DependencyCondition.FAILURE: "failure",
    DependencyCondition.ANY: "end",
}


@dataclass(frozen=True, slots=True)
class Edge:
    """`simulation_id` waits for the end of `after_id`."""

    simulation_id: int
    after_id: int
    condition: DependencyCondition


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows an end. met: how many conditions of each simulation; failed: those that can never run, in order."""

    met: Mapping[int, int] = field(default_factory=dict)
    failed: Sequence[Edge] = ()


class Cycle(ValueError):
    """Each of `path` waits for the next, and the last for the first."""

    def __init__(self, path: Sequence[int]) -> None:
        super().__init__(f"cycle of {len(path)}")
        self.path = path


def is_met(condition: DependencyCondition, *, succeeded: bool) -> bool:
    """Whether an end meets a condition; if not, nothing ever will."""
    return condition is DependencyCondition.ANY or succeeded is (condition is DependencyCondition.SUCCESS)


def consequences(ended: int, edges: Iterable[Edge], *, succeeded: bool) -> Consequences:
    """Work out what follows the end of a simulation.

    edges: at least those to `ended`, and to those of them that fail, and so on. A simulation has a higher id than those
    it waits for, so the order of ids has each of them behind its reasons.
    """
    ends = {ended: succeeded}
    met: dict[int, int] = {}
    failed: list[Edge] = []
    for edge in sorted(edges, key=lambda each: (each.simulation_id, each.after_id)):
        if edge.after_id not in ends or edge.simulation_id in ends:
            continue
        if is_met(edge.condition, succeeded=ends[edge.after_id]):
            met[edge.simulation_id] = met.get(edge.simulation_id, 0) + 1
        else:
            failed.append(edge)
            ends[edge.simulation_id] = False
            met.pop(edge.simulation_id, None)
    return Consequences(met, failed)


def order(after: Sequence[Sequence[int]]) -> Sequence[int]:
    """Order things, given as the places of those that each comes after, so that none comes before one of those.

    What is free to come next comes in the order given. Raises `Cycle`.
    """
    placed: list[int] = []
    state = [0] * len(after)  # 1: on the way to it, 2: placed
    for root in range(len(after)):
        way = [(root, iter(after[root]))] if not state[root] else []
        state[root] = state[root] or 1
        while way:
            here, rest = way[-1]
            following = next((each for each in rest if state[each] != 2), None)
            if following is None:
                state[here] = 2
                placed.append(here)
                way.pop()
            elif state[following] == 1:
                path = [each for each, _ in way]
                raise Cycle(path[path.index(following) :])
            else:
                state[following] = 1
                way.append((following, iter(after[following])))
    return placed


# --- sentences -------------------------------------------------------------------------------------------------


def waits_for(name: str, state: str, condition: DependencyCondition, *, others: int) -> str:
    """Explain what a simulation waits for. name, state: of the first of those. others: how many more there are."""
    more = f", and for {others:,} other{'s' if others > 1 else ''}" if others else ""
    return f"It waits for the {_NOUNS[condition]} of {phrasing.name(name)}, which is {state}{more}."


def never(name: str, state: str, reason: str | None, condition: DependencyCondition) -> str:
    """Explain why a simulation can never run. name, state, reason: of the one that it was to run after."""
    ended = f"{state} ({reason})" if reason is not None else state
    return f"It was to run after the {_NOUNS[condition]} of {phrasing.name(name)}, which ended {ended}."
