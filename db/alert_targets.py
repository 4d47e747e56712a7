"""Receivers of alerts: create, change, list, delete, and what became of their deliveries.

A target has an owner in no project: an administrator creates it for all projects or for some. The URL and the secret of
a webhook are stored as they are, since every delivery needs them; `graph` shows the URL to administrators only, and the
secret once.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, cast, delete, or_, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.errors import NotFound, Taken
from db.events import Actor
from db.models import AlertTarget
from db.pages import Ordering, Page, page
from db.projects import Scope

SECRET_BYTES = 32  # Standard Webhooks: 24 to 64
SECRET_PREFIX = "whsec_"  # as Standard Webhooks has it


class Transport(StrEnum):
    WEBHOOK = "WEBHOOK"
    APPRISE = "APPRISE"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target to be created."""

    name: str
    transport: Transport
    url: str
    kinds: Sequence[str]
    project_ids: Sequence[int] | None = None  # None: all
    is_default: bool = False


async def create(session: AsyncSession, wanted: Wanted, actor: Actor) -> AlertTarget:
    """Create a target; a webhook gets a new secret. Raises `Taken` for a name in use."""
    secret = None
    if wanted.transport is Transport.WEBHOOK:
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    target: AlertTarget | None = await session.scalar(
        insert(AlertTarget)
        .values(
            name=wanted.name,
            transport=wanted.transport.value,
            url=wanted.url,
            secret=secret,
            kinds=list(wanted.kinds),
            project_ids=sorted(wanted.project_ids) if wanted.project_ids is not None else None,
            is_default=wanted.is_default,
            created_by=actor.name,
        )
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(AlertTarget)
    )
    if target is None:
        raise Taken(f"Another alert target is called {wanted.name!r}: choose another name.", field="name")
    await events.record(session, "CREATED", actor, "AlertTarget", target.id, detail=_facts(target))
    return target


async def change(session: AsyncSession, target: AlertTarget, changes: Mapping[str, Any], actor: Actor) -> AlertTarget:
    """Change a target that is locked. changes: by the names of columns. Raises `Taken` for a name in use.

    The secret stays, and so do messages that wait: they are sent to the new URL.
    """
    name = target.name
    has_url = changes.get("url", target.url) != target.url
    try:
        async with session.begin_nested():
            for column, value in changes.items():
                setattr(target, column, sorted(value) if column == "project_ids" and value is not None else value)
            await session.flush()
    except IntegrityError as error:
        raise Taken(
            f"Another alert target is called {changes['name']!r}: choose another name.", field="name"
        ) from error
    await session.refresh(target)
    detail = {**_facts(target), "formerName": name} if target.name != name else _facts(target)
    if has_url:
        detail["url"] = "changed"  # which may hold a secret
    await events.record(session, "UPDATED", actor, "AlertTarget", target.id, detail=detail)
    return target


def _facts(target: AlertTarget) -> dict[str, Any]:
    """What events keep of a target."""
    return {
        "name": target.name, "transport": target.transport, "kinds": target.kinds, "projects": target.project_ids,
        "isDefault": target.is_default,
    }  # fmt: skip


async def get(session: AsyncSession, target_id: int, *, lock: bool = False) -> AlertTarget:
    """Get a target. Raises `NotFound`."""
    target = await session.get(AlertTarget, target_id, populate_existing=True, with_for_update=lock or None)
    if target is None:
        raise NotFound("There is no such alert target.", field="id")
    return target


async def by_ids(session: AsyncSession, ids: Collection[int], *, scope: Scope = None) -> Sequence[AlertTarget]:
    return (await session.scalars(select(AlertTarget).where(AlertTarget.id.in_(ids), _within(scope)))).all()


async def every(session: AsyncSession) -> Sequence[AlertTarget]:
    return (await session.scalars(select(AlertTarget).order_by(AlertTarget.id))).all()


async def named(session: AsyncSession, names: Collection[str], project_id: int) -> Sequence[int]:
    """Return the ids of the targets of these names. Raises `NotFound` for one that this project may not use."""
    found = await session.scalars(
        select(AlertTarget).where(AlertTarget.name.in_(names), _within(frozenset({project_id})))
    )
    ids = {each.name: each.id for each in found}
    for name in names:
        if name not in ids:
            raise NotFound(f"There is no alert target {name!r} for this project.", field="alerts")
    return sorted(ids.values())


async def page_all(session: AsyncSession, *, first: int, after: str | None, scope: Scope = None) -> Page[AlertTarget]:
    """One page of the targets that these projects may use, by name."""
    statement = select(AlertTarget).where(_within(scope))
    return await page(session, statement, Ordering((AlertTarget.name, AlertTarget.id)), first=first, after=after)


async def remove(session: AsyncSession, target_id: int, actor: Actor) -> None:
    """Delete a target with its deliveries, also those that were not sent yet. Raises `NotFound`."""
    name = await session.scalar(delete(AlertTarget).where(AlertTarget.id == target_id).returning(AlertTarget.name))
    if name is None:
        raise NotFound("There is no such alert target.", field="id")
    await events.record(session, "DELETED", actor, "AlertTarget", target_id, detail={"name": name})


def _within(scope: Scope) -> ColumnElement[bool]:
    if scope is None:
        return true()
    return or_(
        AlertTarget.project_ids.is_(None),
        AlertTarget.project_ids.overlap(cast(sorted(scope), ARRAY(BigInteger))),
    )
