"""Projects in GraphQL: the type, its list, its mutation."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Self

import strawberry
from strawberry import relay

from db import errors, models, projects
from graph.context import Info
from graph.errors import refusals_told
from graph.types import pages
from graph.types.ids import number_of
from graph.types.inputs import Invalid, ProjectChanged, check
from graph.types.user_errors import UserError, user_error


@strawberry.type(description="A group of simulations. A new name in createSimulation creates a project.")
class Project(relay.Node):
    id: relay.NodeID[int]
    name: str
    created_at: datetime
    weight: Decimal = strawberry.field(
        description="Its part of the machines when projects compete, beside others' weights."
    )
    gpu_quota: int | None = strawberry.field(
        description="How many GPUs it may use at once; null: as many as there are."
    )

    @classmethod
    def of(cls, row: models.Project) -> Self:
        return cls(id=row.id, name=row.name, created_at=row.created_at, weight=row.weight, gpu_quota=row.gpu_quota)


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


# --- mutations -------------------------------------------------------------------------------------------------


@strawberry.input(description="Changes of a project. What is left out stays as it is.")
class UpdateProjectInput:
    id: strawberry.ID
    weight: Decimal | None = strawberry.field(
        default=strawberry.UNSET,
        description="Its part of the machines when projects compete: above 0, at most 1,000,000, up to 6 decimals.",
    )
    gpu_quota: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="How many GPUs it may use at once; null removes the quota. What runs is not stopped for it.",
    )


@strawberry.type(description="The project, or errors.")
class ProjectPayload:
    project: Project | None = strawberry.field(default=None, description="Its new state.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def update(info: Info, given: UpdateProjectInput) -> ProjectPayload:
    try:
        number = number_of(given.id, "Project")
        asked = check(ProjectChanged, given)
        values = {name: getattr(asked, name) for name in asked.model_fields_set}
        async with info.context.sessions() as session, session.begin():
            row = await projects.change(session, number, values, info.context.actor, scope=info.context.scope)
            return ProjectPayload(project=Project.of(row))
    except Invalid as invalid:
        return ProjectPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return ProjectPayload(user_errors=[user_error(refusal)])
