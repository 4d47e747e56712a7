"""API tokens and the viewer in GraphQL: the types, the list of tokens, and their mutations."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

import strawberry
from strawberry import relay

from db import errors, models, tokens
from graph.context import Info
from graph.errors import refusals_told
from graph.operation import permissions
from graph.types import pages
from graph.types.enums import Role
from graph.types.ids import number_of
from graph.types.inputs import Invalid, TokenAsked, check
from graph.types.project import Project
from graph.types.user_errors import UserError, user_error


async def _projects(info: Info, ids: list[int] | None) -> list[Project] | None:
    if ids is None:
        return None
    rows = await info.context.loaders.project.load_many(ids)
    return sorted((Project.of(row) for row in rows if row is not None), key=lambda project: project.name)


@strawberry.type(description="The author of a request.")
class Viewer:
    scope: strawberry.Private[list[int] | None]
    name: str = strawberry.field(
        description="The token's name; `anonymous` without one, whatever name events show (`Event.actor`)."
    )
    role: Role = strawberry.field(description="Their permissions.")
    operations: list[str] = strawberry.field(description="The queries, mutations and subscriptions they may use.")
    expires_at: datetime | None = strawberry.field(description="When their token expires; null: never.")

    @strawberry.field(description="The projects that they may see; null: all.", metadata={"size": 3})
    async def projects(self, info: Info) -> list[Project] | None:
        return await _projects(info, self.scope)


@strawberry.type(description="An API token. Its secret is shown once, when it is created.")
class Token(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.Token]
    name: str = strawberry.field(description="The actor that the history shows.")
    role: Role = strawberry.field(description="Its permissions.")
    created_by: str = strawberry.field(description="The user who created it, named as in the events of simulations.")
    created_at: datetime
    expires_at: datetime | None = strawberry.field(description="When it expires; null: never.")
    revoked_at: datetime | None = strawberry.field(description="When it was revoked; null if it is not.")
    last_used_at: datetime | None = strawberry.field(
        description="Its last use, to the minute; null if it was never used."
    )

    @strawberry.field(description="The projects that it is limited to; null: all.", metadata={"size": 3})
    async def projects(self, info: Info) -> list[Project] | None:
        return await _projects(info, self.row.project_ids)

    @classmethod
    def of(cls, row: models.Token) -> Self:
        return cls(
            id=row.id, row=row, name=row.name, role=row.role, created_by=row.created_by, created_at=row.created_at,
            expires_at=row.expires_at, revoked_at=row.revoked_at, last_used_at=row.last_used_at,
        )  # fmt: skip


@strawberry.type(description="Tokens, newest first.")
class TokenConnection:
    edges: list[pages.Edge[Token]]
    nodes: list[Token]
    page_info: relay.PageInfo


# --- queries ---------------------------------------------------------------------------------------------------


def viewer(info: Info) -> Viewer:
    asking = info.context.viewer
    assert asking.role is not None, "who has no role is not let through to here"
    return Viewer(
        name=info.context.actor.name,
        role=asking.role,
        operations=permissions.operations_of(asking),
        expires_at=asking.expires_at,
        scope=sorted(asking.projects) if asking.projects is not None else None,
    )


async def find(info: Info, number: int) -> Token | None:
    """Find one for `node`, which everybody may use: only those who may list tokens see one."""
    if not permissions.may(info.context.viewer, "Query.tokens"):
        return None
    row = await info.context.loaders.token.load(number)
    return Token.of(row) if row is not None else None


async def page(info: Info, first: int, after: str | None) -> TokenConnection:
    with refusals_told():
        async with info.context.sessions() as session:
            found = await tokens.page_all(session, first=pages.size(first), after=after)
    edges, nodes, page_info = pages.edges(found, Token.of)
    return TokenConnection(edges=edges, nodes=nodes, page_info=page_info)


# --- mutations -------------------------------------------------------------------------------------------------


@strawberry.input(description="A token to create.")
class CreateTokenInput:
    name: str = strawberry.field(
        description="The actor that the history shows. A name is unique among tokens that are not revoked."
    )
    role: Role = strawberry.field(description="Its permissions.")
    projects: list[strawberry.ID] | None = strawberry.field(
        default=None, description="The projects that it is limited to. Default: all, including later ones."
    )
    expires_in_seconds: int | None = strawberry.field(
        default=None, description="Seconds from now until it expires. Default: never."
    )


@strawberry.input(description="The token to revoke.")
class TokenInput:
    id: strawberry.ID


@strawberry.type(description="The new token, or errors.")
class CreateTokenPayload:
    token: Token | None = strawberry.field(default=None, description="The new token, without its secret.")
    secret: str | None = strawberry.field(
        default=None, description="The secret, sent as `Authorization: Bearer ...`. It can't be read again."
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The token, or errors.")
class TokenPayload:
    token: Token | None = strawberry.field(default=None, description="Its new state.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def create(info: Info, given: CreateTokenInput) -> CreateTokenPayload:
    try:
        asked = check(TokenAsked, given)
        scope = None
        if asked.projects is not None:
            scope = frozenset(number_of(each, "Project", field="projects") for each in asked.projects)
        seconds = asked.expires_in_seconds
        async with info.context.sessions() as session, session.begin():
            row, secret = await tokens.create(
                session,
                asked.name,
                asked.role,
                info.context.actor,
                scope=scope,
                lifetime=timedelta(seconds=seconds) if seconds is not None else None,
            )
            return CreateTokenPayload(token=Token.of(row), secret=secret)
    except Invalid as invalid:
        return CreateTokenPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return CreateTokenPayload(user_errors=[user_error(refusal)])


async def revoke(info: Info, public_id: str) -> TokenPayload:
    try:
        number = number_of(public_id, "Token")
        async with info.context.sessions() as session, session.begin():
            return TokenPayload(token=Token.of(await tokens.revoke(session, number, info.context.actor)))
    except errors.Refusal as refusal:
        return TokenPayload(user_errors=[user_error(refusal)])
