"""Alerts in GraphQL: targets, deliveries, their lists and mutations.

A target's URL and the errors of its deliveries may hold secrets and names of internal hosts: administrators alone read
them. The secret of a webhook is in the answer to its creation and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry import relay

from db import alert_deliveries, alert_targets, errors, models, projects
from db.alert_deliveries import Message
from db.alert_targets import Transport
from graph.context import Info
from graph.errors import refusals_told
from graph.operation import permissions
from graph.types import pages
from graph.types.enums import AlertDeliveryState, AlertKind, AlertTransport
from graph.types.ids import number_of
from graph.types.inputs import AlertTargetAsked, AlertTargetChanged, Invalid, check
from graph.types.project import Project
from graph.types.user_errors import UserError, UserErrorCode, user_error
from policy.addresses import Network, refusal
from policy.alert_text import payload, test_sentence, test_title
from policy.alerts import TEST_TYPE

# Services of Apprise that notify on the machine on which they run: here that is the scheduler's.
LOCAL_SERVICES = frozenset(
    {"blink1", "dbus", "glib", "gnome", "kde", "macosx", "notification", "qt", "syslog", "windows"}
)


def _administers(info: Info) -> bool:
    return permissions.may(info.context.viewer, "Mutation.createAlertTarget")


@strawberry.type(description="A message to one alert target. It is sent until it is accepted or given up.")
class AlertDelivery(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.AlertDelivery]
    type: str = strawberry.field(description="The type of the message: simulation.failed, budget.warning, alert.test.")
    state: AlertDeliveryState
    message_id: str = strawberry.field(description="The `webhook-id`, the same in every attempt.")
    attempts: int = strawberry.field(description="How often it was sent.")
    created_at: datetime
    delivered_at: datetime | None = strawberry.field(description="When it was accepted; null if it was not.")
    next_attempt_at: datetime | None = strawberry.field(description="When it is sent next; null if it is not.")

    @strawberry.field(description="Why the newest attempt failed; null if it did not. Administrators alone read it.")
    async def error(self, info: Info) -> str | None:
        return self.row.error if _administers(info) else None

    @strawberry.field(description="Where it is sent to; null if it was deleted meanwhile.")
    async def target(self, info: Info) -> Annotated[AlertTarget, strawberry.lazy("graph.types.alert")] | None:
        return await find(info, self.row.target_id)

    @classmethod
    def of(cls, row: models.AlertDelivery) -> Self:
        state = AlertDeliveryState.PENDING
        if row.delivered_at is not None:
            state = AlertDeliveryState.DELIVERED
        elif row.given_up_at is not None:
            state = AlertDeliveryState.GIVEN_UP
        return cls(
            id=row.id, row=row, type=row.type, state=state, message_id=f"msg_{row.message_id}", attempts=row.attempts,
            created_at=row.created_at, delivered_at=row.delivered_at,
            next_attempt_at=row.next_at if state is AlertDeliveryState.PENDING else None,
        )  # fmt: skip


@strawberry.type(description="Deliveries, newest first.")
class AlertDeliveryConnection:
    edges: list[pages.Edge[AlertDelivery]]
    nodes: list[AlertDelivery]
    page_info: relay.PageInfo


@strawberry.type(description="A receiver of alerts, under a name that simulations are submitted with.")
class AlertTarget(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.AlertTarget]
    name: str
    transport: AlertTransport = strawberry.field(description="How messages are sent.")
    kinds: list[AlertKind] = strawberry.field(description="What it listens to.")
    is_default: bool = strawberry.field(
        description="Whether it gets the alerts of its projects' budgets, and of simulations that name no target."
    )
    created_at: datetime
    created_by: str = strawberry.field(description="The user who created it.")
    delivered_at: datetime | None = strawberry.field(description="When a message was last accepted.")
    failed_at: datetime | None = strawberry.field(description="When an attempt last failed.")

    @strawberry.field(description="Where messages are sent to. Null for all but administrators: it may hold secrets.")
    async def url(self, info: Info) -> str | None:
        return self.row.url if _administers(info) else None

    @strawberry.field(description="Why the newest attempt failed; null if it did not. Administrators alone read it.")
    async def last_error(self, info: Info) -> str | None:
        return self.row.last_error if _administers(info) else None

    @strawberry.field(description="The projects that may use it; null: all.", metadata={"size": 3})
    async def projects(self, info: Info) -> list[Project] | None:
        if self.row.project_ids is None:
            return None
        rows = await info.context.loaders.project.load_many(self.row.project_ids)
        return sorted((Project.of(row) for row in rows if row is not None), key=lambda project: project.name)

    @strawberry.field(description="How many messages are neither accepted nor given up.")
    async def pending(self, info: Info) -> int:
        return await info.context.loaders.open_deliveries.load(self.row.id)

    @strawberry.field(description="Its messages of the last 30 days, for administrators.")
    async def deliveries(self, info: Info, first: int = 50, after: str | None = None) -> AlertDeliveryConnection:
        permissions.require(info.context.viewer, permissions.ADMINISTER)
        with refusals_told():
            async with info.context.sessions() as session:
                found = await alert_deliveries.page_of_target(
                    session, self.row.id, first=pages.size(first), after=after
                )
        edges, nodes, page_info = pages.edges(found, AlertDelivery.of)
        return AlertDeliveryConnection(edges=edges, nodes=nodes, page_info=page_info)

    @classmethod
    def of(cls, row: models.AlertTarget) -> Self:
        return cls(
            id=row.id, row=row, name=row.name, transport=AlertTransport(row.transport),
            kinds=[AlertKind(each) for each in row.kinds if each in AlertKind.__members__], is_default=row.is_default,
            created_at=row.created_at, created_by=row.created_by, delivered_at=row.delivered_at,
            failed_at=row.failed_at,
        )  # fmt: skip


@strawberry.type(description="Alert targets, by name.")
class AlertTargetConnection:
    edges: list[pages.Edge[AlertTarget]]
    nodes: list[AlertTarget]
    page_info: relay.PageInfo


# --- queries ---------------------------------------------------------------------------------------------------


async def find(info: Info, number: int) -> AlertTarget | None:
    row = await info.context.loaders.alert_target.load(number)
    return AlertTarget.of(row) if row is not None else None


async def find_delivery(info: Info, number: int) -> AlertDelivery | None:
    """Find one for `node`: for those who may test targets."""
    if not _administers(info):
        return None
    async with info.context.sessions() as session:
        rows = await alert_deliveries.by_ids(session, [number])
    return AlertDelivery.of(rows[0]) if rows else None


async def page(info: Info, first: int, after: str | None) -> AlertTargetConnection:
    with refusals_told():
        async with info.context.sessions() as session:
            found = await alert_targets.page_all(
                session, first=pages.size(first), after=after, scope=info.context.scope
            )
    edges, nodes, page_info = pages.edges(found, AlertTarget.of)
    return AlertTargetConnection(edges=edges, nodes=nodes, page_info=page_info)


async def of_simulation(info: Info, simulation_id: int) -> list[AlertDelivery]:
    async with info.context.sessions() as session:
        return [AlertDelivery.of(row) for row in await alert_deliveries.of_simulation(session, simulation_id)]


# --- mutations -------------------------------------------------------------------------------------------------


@strawberry.input(description="An alert target to create.")
class CreateAlertTargetInput:
    name: str = strawberry.field(description="The name that simulations are submitted with.")
    transport: AlertTransport = strawberry.field(description="How messages are sent.")
    url: str = strawberry.field(
        description="Of a webhook: http:// or https://. Else a URL of Apprise: mailto://..., slack://..., ntfy://..."
    )
    kinds: list[AlertKind] | None = strawberry.field(default=None, description="What it listens to. Default: all.")
    projects: list[strawberry.ID] | None = strawberry.field(
        default=None, description="The projects that may use it. Default: all, including later ones."
    )
    is_default: bool = strawberry.field(
        default=False,
        description="Whether it gets the alerts of its projects' budgets, and of simulations that name no target.",
    )


@strawberry.input(description="The alert target to change, and what of it. What is left out stays as it is.")
class UpdateAlertTargetInput:
    id: strawberry.ID
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its new name.")
    url: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Its new URL, of the same transport. Messages that wait are sent there, a webhook's with the same "
        "secret.",
    )
    kinds: list[AlertKind] | None = strawberry.field(
        default=strawberry.UNSET, description="All that it listens to; null: all kinds."
    )
    projects: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="All projects that may use it; null: all, including later ones."
    )
    is_default: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether it gets the alerts of its projects' budgets, and of simulations that name no target.",
    )


@strawberry.input(description="The alert target to test or delete.")
class AlertTargetInput:
    id: strawberry.ID


@strawberry.type(description="The new alert target, or errors.")
class CreateAlertTargetPayload:
    alert_target: AlertTarget | None = strawberry.field(default=None, description="The new target.")
    secret: str | None = strawberry.field(
        default=None,
        description="Of a webhook: the secret that verifies its signatures, by Standard Webhooks. It can't be read "
        "again.",
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The changed alert target, or errors.")
class UpdateAlertTargetPayload:
    alert_target: AlertTarget | None = strawberry.field(default=None, description="Null if nothing was changed.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The test message, or errors.")
class TestAlertTargetPayload:
    delivery: AlertDelivery | None = strawberry.field(
        default=None, description="The message; query it by its id until it is not PENDING."
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The id of the deleted object, or errors.")
class DeleteAlertTargetPayload:
    deleted_id: strawberry.ID | None = strawberry.field(default=None, description="Null if it was not deleted.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def create(info: Info, given: CreateAlertTargetInput) -> CreateAlertTargetPayload:
    try:
        asked = check(AlertTargetAsked, given)
        await _check_url(info, asked.transport, asked.url)
        async with info.context.sessions() as session, session.begin():
            project_ids = await _projects(info, session, asked.projects)
            wanted = alert_targets.Wanted(
                name=asked.name, transport=asked.transport, url=asked.url, kinds=_kinds(asked.kinds),
                project_ids=project_ids, is_default=asked.is_default,
            )  # fmt: skip
            row = await alert_targets.create(session, wanted, info.context.actor)
            return CreateAlertTargetPayload(alert_target=AlertTarget.of(row), secret=row.secret)
    except Invalid as invalid:
        return CreateAlertTargetPayload(user_errors=invalid.errors)
    except errors.Refusal as refused:
        return CreateAlertTargetPayload(user_errors=[user_error(refused)])


async def update(info: Info, given: UpdateAlertTargetInput) -> UpdateAlertTargetPayload:
    try:
        asked = check(AlertTargetChanged, given)
        number = number_of(asked["id"], "AlertTarget")
        async with info.context.sessions() as session:
            before = await alert_targets.get(session, number)
        if "url" in asked:  # outside the transaction: Apprise takes a moment
            await _check_url(info, Transport(before.transport), asked["url"])
        changes: dict[str, Any] = {name: asked[name] for name in ("name", "url", "is_default") if name in asked}
        if "kinds" in asked:
            changes["kinds"] = _kinds(asked["kinds"])
        async with info.context.sessions() as session, session.begin():
            if "projects" in asked:
                changes["project_ids"] = await _projects(info, session, asked["projects"])
            target = await alert_targets.get(session, number, lock=True)
            moved = changes.get("url", target.url) != target.url
            row = await alert_targets.change(session, target, changes, info.context.actor)
            if moved:
                await alert_deliveries.hasten(session, number)
            return UpdateAlertTargetPayload(alert_target=AlertTarget.of(row))
    except Invalid as invalid:
        return UpdateAlertTargetPayload(user_errors=invalid.errors)
    except errors.Refusal as refused:
        return UpdateAlertTargetPayload(user_errors=[user_error(refused)])


async def _check_url(info: Info, transport: Transport, url: str) -> None:
    """Raise `Invalid` if messages can't be sent there."""
    if transport is Transport.WEBHOOK:
        why = webhook_mistake(url, info.context.settings.alert_networks)
    else:
        why = await asyncio.to_thread(apprise_mistake, url)
    if why is not None:
        raise Invalid([UserError(code=UserErrorCode.INVALID, message=f"url: {why}", field=["url"])])


async def _projects(info: Info, session: AsyncSession, asked: Sequence[str] | None) -> Sequence[int] | None:
    """Return the numbers of these projects; None for all. Raises `NotFound`."""
    if asked is None:
        return None
    numbers = [number_of(each, "Project", field="projects") for each in asked]
    for number in numbers:
        if await projects.find(session, number, scope=info.context.scope) is None:
            raise errors.NotFound("There is no such project.", field="projects")
    return numbers


def _kinds(asked: Sequence[AlertKind] | None) -> list[str]:
    return [each.value for each in AlertKind if asked is None or each in asked]


async def test(info: Info, public_id: str) -> TestAlertTargetPayload:
    try:
        number = number_of(public_id, "AlertTarget")
        async with info.context.sessions() as session, session.begin():
            target = await alert_targets.get(session, number)
            told = test_sentence(target.name, info.context.actor.name)
            body = payload(TEST_TYPE, datetime.now(UTC), {"sentence": told})
            message = Message(number, TEST_TYPE, body, test_title(), told)
            row = await alert_deliveries.write_test(session, message, info.context.actor)
            return TestAlertTargetPayload(delivery=AlertDelivery.of(row))
    except errors.Refusal as refused:
        return TestAlertTargetPayload(user_errors=[user_error(refused)])


async def delete(info: Info, public_id: str) -> DeleteAlertTargetPayload:
    try:
        number = number_of(public_id, "AlertTarget")
        async with info.context.sessions() as session, session.begin():
            await alert_targets.remove(session, number, info.context.actor)
        return DeleteAlertTargetPayload(deleted_id=strawberry.ID(public_id))
    except errors.Refusal as refused:
        return DeleteAlertTargetPayload(user_errors=[user_error(refused)])


def webhook_mistake(url: str, allowed: Sequence[Network]) -> str | None:
    """Return why this can't be the URL of a webhook; None if it can. The name is resolved when a message is sent."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not host:
        return "expected an address like https://hooks.example.org/simulations"
    if not url.isascii() or " " in url:
        return "must be ASCII without spaces: write the host's name in its xn-- form, and the rest percent-encoded"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and password: the signature proves who sends the message"
    if parts.fragment:
        return "must have no #fragment, which is never sent"
    try:
        address = str(ip_address(host))
    except ValueError:
        return None
    why = refusal(address, allowed)
    return f"{why} SIMULATIONS_ALERT_PRIVATE_NETWORKS lists the networks that are allowed." if why else None


def apprise_mistake(url: str) -> str | None:
    """Return why Apprise does not accept this URL; None if it does. Takes a moment at first: it imports the library."""
    if url.partition(":")[0].lower() in LOCAL_SERVICES:
        return "this service notifies on the machine of the service itself"
    import apprise

    logging.getLogger("apprise").disabled = True  # it would log the URL
    if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
        return "is not a URL of Apprise: https://appriseit.com/services/ lists the services and their URLs"
    return None
