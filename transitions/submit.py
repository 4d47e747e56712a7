"""Submission of simulations, one or many in one transaction, each after others if it was asked for; and repetition.

A simulation that runs after others waits, held, until `transitions.release` counts their ends. Those that exist already
are locked first (they can't end meanwhile), then the new ones are created in the order of dependencies,
so that the ids rise along them. A request that could never run is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncSession

from db import checkpoints, dependencies, files, lifecycle, machines, simulations, sweeps
from db.dependencies import Edge, Predecessor
from db.errors import NotFound, Refusal, WrongState
from db.events import Actor
from db.models import Simulation
from db.projects import Scope
from db.simulations import Asked, Wanted
from db.states import SimulationState
from policy.dependencies import Cycle, DependencyCondition, is_met, never, order


@dataclass(frozen=True, slots=True)
class After:
    """A simulation to run after: by its id, its client key, or its place in the same submission."""

    condition: DependencyCondition = DependencyCondition.SUCCESS
    simulation_id: int | None = None
    client_key: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A simulation to submit. path: of its input, before the names of fields: `simulations.3.`."""

    wanted: Wanted
    client_key: str | None = None
    after: Sequence[After] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class _Link:
    """An `After` that was looked up: the id of a simulation, or the place of a submission."""

    condition: DependencyCondition
    simulation_id: int | None = None
    index: int | None = None

    @property
    def content(self) -> list[object]:
        """What a client key stands for."""
        return [self.condition.value, self.simulation_id if self.simulation_id is not None else f"#{self.index}"]


async def submit(
    session: AsyncSession, submissions: Sequence[Submission], actor: Actor, *, scope: Scope = None
) -> Sequence[Simulation]:
    """Queue simulations; several of them need client keys. The same keys with the same content return what exists.

    Raises a `Refusal` of the first that can't be queued, whose field begins with its path.
    """
    links = await _look_up(session, submissions)
    held = await _hold(session, submissions, links, scope)
    places = _ordered(submissions, links)
    created = await simulations.create_all(
        session,
        [
            Asked(each.wanted, each.client_key, [link.content for link in links[place]], each.path)
            for place in places
            for each in [submissions[place]]
        ],
        actor,
    )
    of = dict(zip(places, created, strict=True))
    # What the submission refers to by its place may have been created long ago, by the same client key.
    old = {each.index for place in places if of[place].is_new for each in links[place] if each.index is not None}
    old_ids = {of[place].row.id for place in old if not of[place].is_new}
    held = {**held, **(await dependencies.hold(session, old_ids) if old_ids else {})}
    edges: list[Edge] = []
    left: dict[int, int] = {}
    for place in places:
        if not (of[place].is_new and links[place]):
            continue
        row = of[place].row
        for number, link in enumerate(links[place]):
            after_id = link.simulation_id if link.index is None else of[link.index].row.id
            assert after_id is not None
            edges.append(Edge(row.id, after_id, link.condition.value))
            if after_id in held and held[after_id].state.is_final:
                _require_met(held[after_id], link.condition, f"{submissions[place].path}after.{number}")
                left[row.id] = left.get(row.id, len(links[place])) - 1
    await dependencies.link(session, edges)
    await dependencies.set_left(session, left)
    for place in places:
        if of[place].row.id in left:
            await session.refresh(of[place].row)
    return [of[place].row for place in range(len(submissions))]


async def repeat(session: AsyncSession, simulation_id: int, actor: Actor, *, scope: Scope = None) -> Simulation:
    """Queue an ended simulation once more, as a new one; final is final.

    It runs after what the old one ran after, or after the newest repeats of those.

    Raises `NotFound`; `WrongState` while it has not ended, and if it could never run.
    """
    old = await to_repeat(session, simulation_id, scope=scope)
    if not old.state.is_final:
        raise WrongState(f"It is {old.state.value}: only an ended simulation can be repeated.", field="id")
    return await repeat_as(session, old, await repetition_of(session, old), actor, scope=scope)


async def to_repeat(session: AsyncSession, simulation_id: int, *, scope: Scope = None) -> Simulation:
    """Read a simulation, locked: it is not deleted before a new one refers to it. Raises `NotFound`."""
    return simulations.seen(await lifecycle.lock(session, simulation_id), scope)


async def repeat_as(
    session: AsyncSession, old: Simulation, wanted: Wanted, actor: Actor, *, scope: Scope = None
) -> Simulation:
    """Queue a repetition of `old` as it is wanted now, after what the old one ran after. Raises `WrongState`."""
    edges = (await dependencies.of_simulations(session, [old.id])).get(old.id, ())
    newest = await dependencies.newest_repeats(session, [each.after_id for each in edges]) if edges else {}
    after = {newest[each.after_id]: DependencyCondition(each.condition) for each in edges}
    links = [After(condition, simulation_id=after_id) for after_id, condition in after.items()]
    try:
        [row] = await submit(session, [Submission(wanted, after=links)], actor, scope=scope)
    except WrongState as refusal:
        raise WrongState(f"{refusal.message} Retry that one first.", field="id") from refusal
    return row


async def repetition_of(session: AsyncSession, old: Simulation) -> Wanted:
    """Return what is requested to repeat a simulation: of a trial, without what its sweep had set for it."""
    wanted = simulations.repetition(old)
    if old.sweep_id is None:
        return wanted
    template = sweeps.template_of(await sweeps.get(session, old.sweep_id))
    return replace(wanted, sweep_id=None, trial=None, max_cost=template.max_cost, stopping=template.stopping)


async def at_checkpoint(session: AsyncSession, old: Simulation, wanted: Wanted) -> Wanted:
    """Return a repetition that begins with a copy of the old one's checkpoint: anywhere, if its last attempt has stored
    one, else on the machine that has it.

    Raises `WrongState` where there is none to be copied.
    """
    stored = await files.checkpoint_attempt(session, old.id)
    if stored is not None and stored == old.attempt:
        return replace(wanted, from_checkpoint=True)
    if old.machines > 1 or wanted.machines > 1:
        raise WrongState("It runs on several machines, each with a checkpoint of its own.", field="fromCheckpoint")
    if not old.attempt:
        raise WrongState("It has not run yet, so it has no checkpoint.", field="fromCheckpoint")
    if stored is None and old.id not in await checkpoints.of_simulations(session, [old.id]):
        raise WrongState(
            "It has no checkpoint, as no file was seen in SIMULATION_CHECKPOINT_DIR: run it again from the beginning.",
            field="fromCheckpoint",
        )
    found = await machines.of_simulations(session, [old.id])
    machine = next(iter(await machines.by_ids(session, list(found.values()))), None)
    if stored is not None and (machine is None or machine.engine != machines.LOCAL):
        return replace(wanted, from_checkpoint=True)  # older than what was lost with its machine
    if machine is None:
        raise WrongState("The machine that it ran on was deleted, and its checkpoint with it.", field="fromCheckpoint")
    if machine.engine != machines.LOCAL:
        raise WrongState(
            f"Its checkpoint is on {machine.name}, a node of a cluster, where none is copied.", field="fromCheckpoint"
        )
    return replace(wanted, from_checkpoint=True, machine_id=machine.id, machine_name=machine.name)


# --- what a simulation is to run after --------------------------------------------------------------------------


async def _look_up(session: AsyncSession, submissions: Sequence[Submission]) -> Sequence[Sequence[_Link]]:
    """Find the simulation or the place of each reference. Raises `NotFound`, and `Refusal` for one that is repeated."""
    own: dict[tuple[int, str | None], int] = {}
    for place, each in enumerate(submissions):
        if each.client_key is None:
            continue
        if own.setdefault((each.wanted.project_id, each.client_key), place) != place:
            raise Refusal("Another simulation of this submission has this key.", field=f"{each.path}clientKey")
    asked: dict[int, set[str]] = {}
    for each in submissions:
        keys = {one.client_key for one in each.after if one.client_key is not None}
        asked.setdefault(each.wanted.project_id, set()).update(
            key for key in keys if (each.wanted.project_id, key) not in own
        )
    known: dict[tuple[int, str], int] = {}
    for project_id, keys in asked.items():
        if keys:
            found = await dependencies.find_keyed(session, project_id, keys)
            known |= {(project_id, key): simulation_id for key, simulation_id in found.items()}
    return [[*_links(each, own, known, len(submissions))] for each in submissions]


def _links(
    submission: Submission,
    own: Mapping[tuple[int, str | None], int],
    known: Mapping[tuple[int, str], int],
    count: int,
) -> Iterator[_Link]:
    seen: set[_Link] = set()
    for number, each in enumerate(submission.after):
        path = f"{submission.path}after.{number}"
        link = _Link(each.condition, each.simulation_id, each.index)
        if each.index is not None and each.index >= count:
            raise NotFound(f"There is no simulation {each.index} in this submission.", field=f"{path}.index")
        if each.client_key is not None:
            key = (submission.wanted.project_id, each.client_key)
            if key not in own and key not in known:
                raise NotFound("No simulation of this project has this client key.", field=f"{path}.clientKey")
            link = replace(link, index=own.get(key), simulation_id=known.get(key))
        same = replace(link, condition=DependencyCondition.ANY)
        if same in seen:
            raise Refusal("This simulation is named twice.", field=path)
        seen.add(same)
        yield link


async def _hold(
    session: AsyncSession, submissions: Sequence[Submission], links: Sequence[Sequence[_Link]], scope: Scope
) -> Mapping[int, Predecessor]:
    """Lock what exists of those. Raises `NotFound`, and `Refusal` for one of another project."""
    ids = {each.simulation_id for of in links for each in of if each.simulation_id is not None}
    held = await dependencies.hold(session, ids) if ids else {}
    for submission, of in zip(submissions, links, strict=True):
        project_id = submission.wanted.project_id
        for number, link in enumerate(of):
            path = f"{submission.path}after.{number}"
            if link.index is not None:
                other = submissions[link.index].wanted.project_id
            elif (found := held.get(link.simulation_id or 0)) and (scope is None or found.project_id in scope):
                other = found.project_id
            else:
                raise NotFound("There is no such simulation.", field=f"{path}.simulation")
            if other != project_id:
                raise Refusal("It is of another project: a simulation runs after others of its own.", field=path)
    return held


def _ordered(submissions: Sequence[Submission], links: Sequence[Sequence[_Link]]) -> Sequence[int]:
    """Order the places so that each comes behind those it runs after. Raises `Refusal` for a cycle."""
    try:
        return order([[each.index for each in of if each.index is not None] for of in links])
    except Cycle as cycle:
        first, *others = cycle.path
        by_way_of = f", by way of {len(others):,} other{'s' if len(others) > 1 else ''}" if others else ""
        raise Refusal(f"It would run after itself{by_way_of}.", field=f"{submissions[first].path}after") from None


def _require_met(other: Predecessor, condition: DependencyCondition, path: str) -> None:
    if not is_met(condition, succeeded=other.state is SimulationState.FINISHED):
        reason = other.reason.value if other.reason is not None else None
        raise WrongState(f"It could never run. {never(other.name, other.state.value, reason, condition)}", field=path)
