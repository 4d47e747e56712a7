"""Projects: groups of simulations, their weights and quotas, and the `Scope` of a token.

`default` exists from the first migration on. Objects outside a scope are not found, so their existence stays hidden.

A transaction that assigns GPUs locks the rows of the projects with a quota before it reads what they use
(`lock_quotas`), so that starts that come together see each other: after the machines and before the budgets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import ColumnElement, select, text, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db import events, newest_plan
from db.errors import NotFound
from db.events import Actor
from db.models import Project
from db.pages import Ordering, Page, page

DEFAULT = "default"

Scope: TypeAlias = frozenset[int] | None  # the ids of the projects that a caller may see; None: all of them


def within(column: InstrumentedAttribute[int], scope: Scope) -> ColumnElement[bool]:
    """Whether a row is of a project in the scope. column: the project's id."""
    return true() if scope is None else column.in_(scope)


async def get(session: AsyncSession, project_id: int, *, scope: Scope = None) -> Project:
    project = await find(session, project_id, scope=scope)
    if project is None:
        raise NotFound("There is no such project.", field="project")
    return project


async def find(session: AsyncSession, project_id: int, *, scope: Scope = None) -> Project | None:
    return await session.scalar(select(Project).where(Project.id == project_id, within(Project.id, scope)))


async def by_ids(session: AsyncSession, ids: Collection[int], *, scope: Scope = None) -> Sequence[Project]:
    return (await session.scalars(select(Project).where(Project.id.in_(ids), within(Project.id, scope)))).all()


async def find_named(session: AsyncSession, name: str, *, scope: Scope = None) -> Project | None:
    return await session.scalar(select(Project).where(Project.name == name, within(Project.id, scope)))


async def named(session: AsyncSession, name: str, actor: Actor, *, scope: Scope = None) -> Project:
    """Get the project of this name, made now if there was none.

    A caller with a limited scope can't make one. Raises `NotFound` for a name outside the scope.
    """
    found = await find_named(session, name, scope=scope)
    if found is not None:
        return found
    if scope is not None:
        raise NotFound("There is no such project, or it is none of yours.", field="project")
    made: Project | None = await session.scalar(
        insert(Project).values(name=name).on_conflict_do_nothing().returning(Project)
    )
    if made is None:  # another transaction has just made it
        return (await session.scalars(select(Project).where(Project.name == name))).one()
    await events.record(session, "CREATED", actor, "Project", made.id, project_id=made.id, detail={"name": made.name})
    return made


async def change(
    session: AsyncSession, project_id: int, values: Mapping[str, object], actor: Actor, *, scope: Scope = None
) -> Project:
    """Set columns of a project; the same values again change and record nothing. Raises `NotFound`."""
    found = await session.scalar(
        select(Project)
        .where(Project.id == project_id, within(Project.id, scope))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("There is no such project.", field="id")
    changes = {name: value for name, value in values.items() if getattr(found, name) != value}
    for name, value in changes.items():
        setattr(found, name, value)
    if changes:
        await session.flush()
        detail = {name: None if value is None else str(value) for name, value in changes.items()}
        await events.record(session, "UPDATED", actor, "Project", found.id, project_id=found.id, detail=detail)
    if "weight" in changes:
        await newest_plan.ask_for_another(session)
    return found


async def weights(session: AsyncSession) -> Mapping[int, float]:
    """Read the weights of projects that have another one than 1, by id."""
    found = await session.execute(select(Project.id, Project.weight).where(Project.weight != 1))
    return {row[0]: float(row[1]) for row in found}


@dataclass(frozen=True, slots=True)
class Use:
    """A project with a quota, and the GPUs that its current attempts hold."""

    name: str
    quota: int
    used: int


# What is held is found by the members of current attempts, with one look-up each: however much has ended.
_USES = text(
    """
    WITH held AS (
        SELECT owner.project_id, sum(m.gpus) AS gpus FROM members AS m CROSS JOIN LATERAL (
            SELECT s.project_id FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id
            WHERE a.id = m.attempt_id LIMIT 1
        ) AS owner
        WHERE m.ended_at IS NULL AND m.gpus > 0 AND EXISTS (SELECT FROM projects WHERE gpu_quota IS NOT NULL)
        GROUP BY owner.project_id
    )
    SELECT p.id, p.name, p.gpu_quota, coalesce(held.gpus, 0)
    FROM projects AS p LEFT JOIN held ON held.project_id = p.id
    WHERE p.gpu_quota IS NOT NULL
    """
)


async def uses(session: AsyncSession) -> Mapping[int, Use]:
    """Read what the projects with a quota use, by id. Nothing is locked."""
    return {row[0]: Use(row[1], row[2], int(row[3])) for row in await session.execute(_USES)}


async def lock_quotas(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Use]:
    """Lock those of these projects that have a quota, then read what they use, by id."""
    locked = await session.scalars(
        select(Project.id)
        .where(Project.id.in_(ids), Project.gpu_quota.is_not(None))
        .order_by(Project.id)
        .with_for_update(key_share=True)
    )
    if not (held := frozenset(locked)):
        return {}
    return {project_id: use for project_id, use in (await uses(session)).items() if project_id in held}


async def page_all(session: AsyncSession, *, first: int, after: str | None, scope: Scope = None) -> Page[Project]:
    statement = select(Project).where(within(Project.id, scope))
    return await page(session, statement, Ordering((Project.name, Project.id)), first=first, after=after)
