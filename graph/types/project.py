"""Projects in GraphQL: the type and its list."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry
from strawberry import relay

from db import models, projects
from graph.context import Info
from graph.errors import refusals_told
from graph.types import pages


@strawberry.type(description="A group of simulations. A new name in createSimulation creates a project.")
class Project(relay.Node):
    id: relay.NodeID[int]
    name: str
    created_at: datetime

    @classmethod
    def of(cls, row: models.Project) -> Self:
        return cls(id=row.id, name=row.name, created_at=row.created_at)


@strawberry.type(description="Projects, by name.")
class ProjectConnection:
    edges: list[pages.Edge[Project]]
    nodes: list[Project]
    page_info: relay.PageInfo


async def page(info: Info, first: int, after: str | None) -> ProjectConnection:
    with refusals_told():
        async with info.context.sessions() as session:
            found = await projects.page_all(session, first=pages.size(first), after=after, scope=info.context.scope)
    edges, nodes, page_info = pages.edges(found, Project.of)
    return ProjectConnection(edges=edges, nodes=nodes, page_info=page_info)


async def find(info: Info, number: int) -> Project | None:
    row = await info.context.loaders.project.load(number)
    return Project.of(row) if row is not None else None
