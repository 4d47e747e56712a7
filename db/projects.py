"""Projects: groups of simulations, and the `Scope` of a token.

`default` exists from the first migration on. Objects outside a scope are not found, so their existence stays hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db import events
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


async def named(session: AsyncSession, name: str, actor: Actor, *, scope: Scope = None) -> Project:
    """Get the project of this name, made now if there was none.

    A caller with a limited scope can't make one. Raises `NotFound` for a name outside the scope.
    """
    found = await session.scalar(select(Project).where(Project.name == name, within(Project.id, scope)))
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


async def page_all(session: AsyncSession, *, first: int, after: str | None, scope: Scope = None) -> Page[Project]:
    statement = select(Project).where(within(Project.id, scope))
    return await page(session, statement, Ordering((Project.name, Project.id)), first=first, after=after)
