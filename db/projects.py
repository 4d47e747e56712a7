"""Projects: what simulations are grouped by. `default` exists from the first migration on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.errors import NotFound
from db.models import Project
from db.pages import Order, Page, page

DEFAULT = "default"


async def get(session: AsyncSession, project_id: int) -> Project:
    project = await session.get(Project, project_id)
    if project is None:
        raise NotFound("There is no such project.", field="project")
    return project


async def find(session: AsyncSession, project_id: int) -> Project | None:
    return await session.get(Project, project_id)


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[Project]:
    return (await session.scalars(select(Project).where(Project.id.in_(ids)))).all()


async def named(session: AsyncSession, name: str) -> Project:
    """Get the project of this name, made now if there was none."""
    found = await session.scalar(select(Project).where(Project.name == name))
    if found is not None:
        return found
    await session.execute(insert(Project).values(name=name).on_conflict_do_nothing())
    return (await session.scalars(select(Project).where(Project.name == name))).one()


async def page_all(session: AsyncSession, *, first: int, after: str | None) -> Page[Project]:
    return await page(session, select(Project), Order((Project.name, Project.id)), first=first, after=after)
