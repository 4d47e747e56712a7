"""Alert targets through the API: created, refused, masked, used by simulations, tested, deleted."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import tokens
from db.events import Actor
from db.states import Role

Api = Any  # the fixtures of conftest.py
World = Any
Sessions = async_sessionmaker[AsyncSession]

FIELDS = """
  id name transport url kinds isDefault pending lastError createdBy deliveredAt projects { name }
"""
CREATE = f"""
mutation Create($input: CreateAlertTargetInput!) {{
  createAlertTarget(input: $input) {{ alertTarget {{ {FIELDS} }} secret userErrors {{ code message field }} }}
}}
"""
LIST = f"query List {{ alertTargets {{ nodes {{ {FIELDS} }} }} }}"
WITH_DELIVERIES = """
query List { alertTargets { nodes { deliveries { nodes { id type state error attempts messageId } } } } }
"""
TEST = """
mutation Test($input: AlertTargetInput!) {
  testAlertTarget(input: $input) { delivery { id type state attempts } userErrors { code message field } }
}
"""
UPDATE = f"""
mutation Update($input: UpdateAlertTargetInput!) {{
  updateAlertTarget(input: $input) {{ alertTarget {{ {FIELDS} }} userErrors {{ code message field }} }}
}}
"""
DELETE = """
mutation Delete($input: AlertTargetInput!) {
  deleteAlertTarget(input: $input) { deletedId userErrors { code message field } }
}
"""
SUBMIT = """
mutation Submit($input: CreateSimulationInput!) {
  createSimulation(input: $input) {
    simulation { id alertTargets { name } alerts { type state } } userErrors { code message field }
  }
}
"""
RETRY = """
mutation Retry($input: SimulationInput!) {
  retrySimulation(input: $input) { simulation { alertTargets { name } } userErrors { message } }
}
"""
HOOK = "https://hooks.example.org/simulations"
Create = Callable[..., Awaitable[Any]]


async def create(api: Api, token: str | None = None, **given: Any) -> Any:
    wanted = {"name": "ops", "transport": "WEBHOOK", "url": HOOK, **given}
    return await api.data(CREATE, {"input": wanted}, token=token)


async def submit(api: Api, token: str | None = None, **given: Any) -> Any:
    return await api.data(SUBMIT, {"input": {"entrypoint": ["true"], **given}}, token=token)


async def token_of(sessions: Sessions, role: Role, *, projects: list[int] | None = None) -> str:
    async with sessions.begin() as session:
        scope = frozenset(projects) if projects is not None else None
        _, secret = await tokens.create(session, f"{role} {projects}", role, Actor("test"), scope=scope)
    return secret


async def test_a_webhook_gets_a_secret_that_is_shown_once(api: Api, sessions: Sessions) -> None:
    made = await create(api)
    assert made["userErrors"] == []
    assert made["secret"].startswith("whsec_")
    target = made["alertTarget"]
    assert (target["name"], target["transport"], target["url"]) == ("ops", "WEBHOOK", HOOK)
    assert len(target["kinds"]) == 8
    assert (target["isDefault"], target["projects"], target["pending"]) == (False, None, 0)
    [listed] = (await api.data(LIST))["nodes"]
    assert listed == target
    async with sessions() as session:
        recorded = (
            await session.scalars(text("SELECT detail::text FROM events WHERE object_type = 'AlertTarget'"))
        ).all()
    assert len(recorded) == 1
    assert made["secret"] not in recorded[0]
    assert HOOK not in recorded[0]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("hooks.example.org", "expected an address like"),
        ("ftp://hooks.example.org/", "expected an address like"),
        ("https:///path", "expected an address like"),
        ("https://hooks.example.org:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://user:secret@hooks.example.org/", "no user and password"),
        ("https://hooks.example.org/#part", "no #fragment"),
        ("https://bücher.example/", "must be ASCII"),
        ("http://127.0.0.1/x", "127.0.0.1 is not a public address"),
        ("http://[::ffff:10.0.0.1]/x", "is not a public address"),
        ("http://169.254.169.254/latest", "is not a public address"),
        ("https://hooks.example.org/\n", "control characters"),
    ],
)
async def test_a_bad_url_of_a_webhook_is_a_user_error(api: Api, url: str, why: str) -> None:
    made = await create(api, url=url)
    assert made["alertTarget"] is None
    assert made["secret"] is None
    [error] = made["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["url"])
    assert why in error["message"]


async def test_a_setting_allows_private_networks(serve: Any) -> None:
    api = await serve(alert_private_networks=("10.2.0.0/16",))
    assert (await create(api, url="http://10.2.3.4/x"))["userErrors"] == []
    assert (await create(api, url="http://10.3.3.4/x", name="other"))["userErrors"] != []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense://hidden-secret", "is not a URL of Apprise"),
        ("slack://hidden-secret", "is not a URL of Apprise"),
        ("syslog://", "on the machine of the service itself"),
        ("dbus://", "on the machine of the service itself"),
    ],
)
async def test_a_bad_url_of_apprise_is_a_user_error_and_is_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], url: str, why: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = await create(api, transport="APPRISE", url=url)
    [error] = made["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["url"])
    assert why in error["message"]
    shown = capfd.readouterr()
    assert "hidden-secret" not in caplog.text + shown.out + shown.err + error["message"]


async def test_an_apprise_url_is_kept_without_a_secret(api: Api) -> None:
    made = await create(api, transport="APPRISE", url="json://user:pass@hooks.example.org/x", kinds=["FAILED"])
    assert made["userErrors"] == []
    assert made["secret"] is None
    assert made["alertTarget"]["kinds"] == ["FAILED"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "none"}, "name"),
        ({"name": " "}, "name"),
        ({"kinds": []}, "kinds"),
        ({"projects": []}, "projects"),
        ({"projects": ["UHJvamVjdDo5OTk="]}, "projects"),
        ({"projects": ["nonsense"]}, "projects"),
    ],
)
async def test_other_mistakes_are_user_errors(api: Api, given: dict[str, Any], field: str) -> None:
    made = await create(api, **given)
    assert [error["field"][0] for error in made["userErrors"]] == [field]
    assert (await api.data(LIST))["nodes"] == []


async def test_a_name_is_taken_once(api: Api) -> None:
    await create(api)
    [error] = (await create(api))["userErrors"]
    assert (error["code"], error["field"]) == ("TAKEN", ["name"])


async def update(api: Api, target: Any, token: str | None = None, **given: Any) -> Any:
    return await api.data(UPDATE, {"input": {"id": target["id"], **given}}, token=token)


async def test_a_target_is_changed_and_what_is_left_out_stays(api: Api, sessions: Sessions) -> None:
    await submit(api, project="other")
    projects = (await api.data("query P { projects { nodes { id name } } }"))["nodes"]
    other = next(each["id"] for each in projects if each["name"] == "other")
    made = await create(api, kinds=["FAILED"], isDefault=True)
    target = made["alertTarget"]

    assert (await update(api, target))["alertTarget"] == target
    changed = await update(api, target, name="watch", projects=[other], kinds=["ENDED", "BUDGET"])
    assert changed == {
        "alertTarget": {**target, "name": "watch", "projects": [{"name": "other"}], "kinds": ["ENDED", "BUDGET"]},
        "userErrors": [],
    }
    back = await update(api, target, projects=None, kinds=None, isDefault=False, name=None, url=None)
    assert (back["alertTarget"]["name"], back["alertTarget"]["url"]) == ("watch", HOOK)
    assert (back["alertTarget"]["projects"], len(back["alertTarget"]["kinds"])) == (None, 8)
    assert back["alertTarget"]["isDefault"] is False
    async with sessions() as session:
        kept = (await session.execute(text("SELECT secret FROM alert_targets"))).scalar_one()
        details = (
            await session.scalars(text("SELECT detail FROM events WHERE object_type = 'AlertTarget' ORDER BY id"))
        ).all()
    assert kept == made["secret"]
    assert details[2]["formerName"] == "ops"
    assert details[2]["projects"] == [int(details[2]["projects"][0])]
    assert all("url" not in each for each in details), "it was not changed"


async def test_what_waits_is_sent_to_the_new_url_at_once(api: Api, sessions: Sessions) -> None:
    made = await create(api)
    await api.data(TEST, {"input": {"id": made["alertTarget"]["id"]}})
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE alert_deliveries SET attempts = 3, error = 'no answer', next_at = now() + interval '1 h'")
        )
    waiting = text("SELECT count(*) FROM alert_deliveries WHERE next_at > now()")
    await update(api, made["alertTarget"], url=HOOK, kinds=["FAILED"])
    async with sessions() as session:
        assert await session.scalar(waiting) == 1
    moved = await update(api, made["alertTarget"], url=f"{HOOK}/new?key=hidden")
    assert moved["alertTarget"]["url"] == f"{HOOK}/new?key=hidden"
    async with sessions() as session:
        assert await session.scalar(waiting) == 0
        recorded = await session.scalar(text("SELECT detail FROM events ORDER BY id DESC LIMIT 1"))
    assert recorded["url"] == "changed"
    assert "hidden" not in str(recorded)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "none"}, "name"),
        ({"name": " "}, "name"),
        ({"name": "taken"}, "name"),
        ({"url": "slack://a/b/c"}, "url"),
        ({"url": "http://127.0.0.1/x"}, "url"),
        ({"kinds": []}, "kinds"),
        ({"projects": []}, "projects"),
        ({"projects": ["UHJvamVjdDo5OTk="]}, "projects"),
        ({"id": "QWxlcnRUYXJnZXQ6OTk="}, "id"),
        ({"id": "nonsense"}, "id"),
    ],
)
async def test_mistakes_in_a_change_change_nothing(api: Api, given: dict[str, Any], field: str) -> None:
    target = (await create(api))["alertTarget"]
    await create(api, name="taken")
    before = (await api.data(LIST))["nodes"]
    refused = await update(api, {"id": target["id"]}, **{"isDefault": True, **given})
    assert refused["alertTarget"] is None
    assert [error["field"][0] for error in refused["userErrors"]] == [field]
    assert (await api.data(LIST))["nodes"] == before


async def test_the_transport_of_a_target_decides_about_its_new_url(api: Api, sessions: Sessions) -> None:
    target = (await create(api, transport="APPRISE", url="json://hooks.example.org/x"))["alertTarget"]
    [error] = (await update(api, target, url="nonsense://x"))["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["url"])
    changed = await update(api, target, url="json://hooks.example.org/y")
    assert changed["alertTarget"]["url"] == "json://hooks.example.org/y"
    for role in (Role.VIEWER, Role.OPERATOR):
        token = await token_of(sessions, role)
        refused = await api.error(UPDATE, {"input": {"id": target["id"], "isDefault": True}}, token=token)
        assert refused["extensions"]["code"] == "FORBIDDEN"


async def test_only_administrators_see_urls_and_errors(api: Api, sessions: Sessions) -> None:
    await create(api, transport="APPRISE", url="json://user:pass@hooks.example.org/x")
    async with sessions.begin() as session:
        await session.execute(text("UPDATE alert_targets SET last_error = 'No connection could be made.'"))
    for role in (Role.VIEWER, Role.OPERATOR):
        token = await token_of(sessions, role)
        [target] = (await api.data(LIST, token=token))["nodes"]
        assert (target["name"], target["url"], target["lastError"]) == ("ops", None, None)
        error = await api.error(WITH_DELIVERIES, token=token)
        assert error["extensions"]["code"] == "FORBIDDEN"
        refused = await api.error(CREATE, {"input": {"name": "x", "transport": "WEBHOOK", "url": HOOK}}, token=token)
        assert refused["extensions"]["code"] == "FORBIDDEN"
    [target] = (await api.data(LIST, token=await token_of(sessions, Role.ADMIN)))["nodes"]
    assert (target["url"], target["lastError"]) == (
        "json://user:pass@hooks.example.org/x", "No connection could be made.",
    )  # fmt: skip


async def test_a_simulation_names_targets_of_its_project(api: Api, sessions: Sessions) -> None:
    other = await submit(api, project="other")
    assert other["simulation"]["alertTargets"] is None
    projects = (await api.data("query P { projects { nodes { id name } } }"))["nodes"]
    ids = {each["name"]: each["id"] for each in projects}
    await create(api, name="everywhere")
    await create(api, name="elsewhere", projects=[ids["other"]])

    named = await submit(api, alerts=["everywhere"])
    assert named["simulation"]["alertTargets"] == [{"name": "everywhere"}]
    assert (await submit(api, alerts=[]))["simulation"]["alertTargets"] == []
    in_other = await submit(api, project="other", alerts=["everywhere", "elsewhere"])
    assert {each["name"] for each in in_other["simulation"]["alertTargets"]} == {"everywhere", "elsewhere"}
    for name in ("elsewhere", "unknown"):
        [error] = (await submit(api, alerts=[name]))["userErrors"]
        assert (error["code"], error["field"]) == ("NOT_FOUND", ["alerts"])
        assert name in error["message"]

    scoped = await token_of(sessions, Role.OPERATOR, projects=[1])
    listed = (await api.data(LIST, token=scoped))["nodes"]
    assert [each["name"] for each in listed] == ["everywhere"], "targets of other projects are hidden"


async def test_a_repetition_keeps_the_targets(api: Api) -> None:
    await create(api)
    made = await submit(api, alerts=["ops"])
    simulation = {"id": made["simulation"]["id"]}
    await api.data(
        "mutation C($input: SimulationInput!) { cancelSimulation(input: $input) { userErrors { message } } }",
        {"input": simulation},
    )
    again = await api.data(RETRY, {"input": simulation})
    assert again["simulation"]["alertTargets"] == [{"name": "ops"}]


async def test_the_same_client_key_with_other_targets_is_other_content(api: Api) -> None:
    await create(api)
    await submit(api, clientKey="k")
    assert (await submit(api, clientKey="k"))["userErrors"] == []
    [error] = (await submit(api, clientKey="k", alerts=["ops"]))["userErrors"]
    assert error["code"] == "TAKEN"


async def test_a_test_message_waits_to_be_sent_and_a_deleted_target_takes_it_along(
    api: Api, sessions: Sessions
) -> None:
    made = await create(api)
    target = {"id": made["alertTarget"]["id"]}
    tested = (await api.data(TEST, {"input": target}))["delivery"]
    assert (tested["type"], tested["state"], tested["attempts"]) == ("alert.test", "PENDING", 0)
    [[delivery]] = [each["deliveries"]["nodes"] for each in (await api.data(WITH_DELIVERIES))["nodes"]]
    assert delivery["id"] == tested["id"]
    assert delivery["messageId"].startswith("msg_")
    assert [each["pending"] for each in (await api.data(LIST))["nodes"]] == [1]
    node = "query N($id: ID!) { node(id: $id) { ... on AlertDelivery { state target { name } } } }"
    assert await api.data(node, {"id": tested["id"]}) == {"state": "PENDING", "target": {"name": "ops"}}
    viewer = await token_of(sessions, Role.VIEWER)
    assert await api.data(node, {"id": tested["id"]}, token=viewer) is None

    assert (await api.data(DELETE, {"input": target}))["deletedId"] == target["id"]
    assert await api.data(node, {"id": tested["id"]}) is None
    for document in (TEST, DELETE):
        [error] = (await api.data(document, {"input": target}))["userErrors"]
        assert error["code"] == "NOT_FOUND"
