"""`simulations alert`, and `submit --alert`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from cli.alerts import NewTarget, TargetChange, change_input, create_input
from cli.errors import UsageError
from cli.submit import parse_alerts

Run = Callable[..., Result]
ID = "QWxlcnRUYXJnZXQ6MQ=="


def target(**given: Any) -> dict[str, Any]:
    return {
        "id": ID, "name": "ops", "transport": "WEBHOOK", "url": None, "kinds": ["FAILED", "WAITS_TOO_LONG"],
        "isDefault": True, "createdBy": "ada", "createdAt": "2026-11-29T12:00:00Z", "deliveredAt": None,
        "failedAt": None, "lastError": "No connection could be made.", "pending": 3, "projects": None, **given,
    }  # fmt: skip


@pytest.fixture
def known(server: Any) -> Any:
    page = {"alertTargets": {"nodes": [target()], "pageInfo": {"hasNextPage": False, "endCursor": None}}}
    server.answers["AlertTargets"] = lambda _: page
    return server


@pytest.mark.parametrize("command", [["alert"], ["alert", "list"]])
def test_targets_are_listed_with_their_last_error(known: Any, run: Run, command: list[str]) -> None:
    shown = run(*command).stdout
    for expected in ("ops", "failed, waits-too-long", "all", "yes", "3", "never", "No connection could be made."):
        assert expected in shown, expected
    assert [each["name"] for each in json.loads(run(*command, "--json").stdout)] == ["ops"]


def test_an_http_url_is_a_webhook_whose_secret_alone_is_on_standard_output(server: Any, run: Run) -> None:
    server.answers["CreateAlertTarget"] = lambda _: {
        "createAlertTarget": {"alertTarget": target(), "secret": "whsec_c2VjcmV0", "userErrors": []}
    }
    made = run("alert", "create", "ops", "https://hooks.example.org/x", "--on", "failed,target_reached", "--default")
    assert made.stdout.split() == ["whsec_c2VjcmV0"]
    assert "simulations alert test ops" in made.stderr
    [sent] = server.variables("CreateAlertTarget")
    assert sent["input"] == {
        "name": "ops", "transport": "WEBHOOK", "url": "https://hooks.example.org/x", "isDefault": True,
        "kinds": ["FAILED", "TARGET_REACHED"],
    }  # fmt: skip


def test_another_url_is_one_of_apprise_and_may_come_from_standard_input(
    server: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["CreateAlertTarget"] = lambda _: {
        "createAlertTarget": {"alertTarget": target(transport="APPRISE"), "secret": None, "userErrors": []}
    }
    monkeypatch.setattr("cli.alerts.sys.stdin", io.StringIO("slack://a/b/c\n"))
    wanted = create_input(NewTarget("ops", "-"))
    assert (wanted["transport"], wanted["url"]) == ("APPRISE", "slack://a/b/c")
    run("alert", "create", "ops", "https://hooks.slack.com/services/a/b/c", "--apprise")
    sent = [each["input"] for each in server.variables("CreateAlertTarget")]
    assert [(each["transport"], each["url"]) for each in sent] == [
        ("APPRISE", "https://hooks.slack.com/services/a/b/c")
    ]


def test_an_unknown_kind_is_a_mistake(server: Any, run: Run) -> None:
    refused = run("alert", "create", "ops", "https://hooks.example.org/x", "--on", "success")
    assert refused.exit_code == 2
    assert "--on: expected one of ended, failed" in refused.stderr


def test_a_target_is_changed_by_what_is_given_and_nothing_else(known: Any, run: Run) -> None:
    known.answers["UpdateAlertTarget"] = lambda _: {"updateAlertTarget": {"alertTarget": target(), "userErrors": []}}
    project = {
        "id": "UHJvamVjdDoy",
        "name": "vision",
        "createdAt": "2026-01-01T00:00:00Z",
        "weight": "1",
        "gpuQuota": None,
    }
    pages = {"hasNextPage": False, "endCursor": None}
    known.answers["Projects"] = lambda _: {"projects": {"nodes": [project], "pageInfo": pages}}
    changed = run("alert", "update", "ops", "--on", "failed,ended", "--project", "vision", "--no-default")
    assert "ops: changed" in changed.stdout, changed.stderr
    run("alert", "update", "ops", "--all-kinds", "--all-projects", "--name", "watch", "--default")
    assert [each["input"] for each in known.variables("UpdateAlertTarget")] == [
        {"id": ID, "kinds": ["FAILED", "ENDED"], "projects": ["UHJvamVjdDoy"], "isDefault": False},
        {"id": ID, "name": "watch", "kinds": None, "projects": None, "isDefault": True},
    ]


def test_a_new_url_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.alerts.sys.stdin", io.StringIO("slack://a/b/c\n"))
    assert change_input(TargetChange(url="-")) == {"url": "slack://a/b/c"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "Nothing to change"),
        (["--on", "success"], "--on: expected one of ended"),
        (["--on", "failed", "--all-kinds"], "leave out --on"),
        (["--project", "vision", "--all-projects"], "leave out --project"),
    ],
)
def test_a_wrong_change_is_refused_before_any_request(server: Any, run: Run, given: list[str], why: str) -> None:
    refused = run("alert", "update", "ops", *given)
    assert refused.exit_code == 2
    assert why in refused.stderr


@pytest.mark.parametrize(
    ("state", "error", "code", "shown"),
    [("DELIVERED", None, 0, "ops accepted the message."), ("PENDING", "HTTP status 500.", 6, "HTTP status 500.")],
)
def test_a_test_waits_for_the_first_attempt(
    known: Any, run: Run, state: str, error: str | None, code: int, shown: str
) -> None:
    waiting = {"id": "d", "state": "PENDING", "error": None}
    known.answers["TestAlertTarget"] = lambda _: {"testAlertTarget": {"delivery": waiting, "userErrors": []}}
    known.answers["Delivery"] = lambda _: {"node": {**waiting, "state": state, "error": error}}
    tested = run("alert", "test", "ops")
    assert tested.exit_code == code
    assert shown in tested.stdout + tested.stderr
    assert known.variables("TestAlertTarget") == [{"input": {"id": ID}}]


def test_targets_are_deleted_by_name(known: Any, run: Run) -> None:
    known.answers["DeleteAlertTarget"] = lambda _: {"deleteAlertTarget": {"deletedId": ID, "userErrors": []}}
    run("alert", "delete", "ops")
    assert known.variables("DeleteAlertTarget") == [{"input": {"id": ID}}]
    refused = run("alert", "delete", "other")
    assert refused.exit_code == 6
    assert "no alert target named other" in refused.stderr


def test_none_is_the_word_for_no_target() -> None:
    assert parse_alerts([]) is None
    assert parse_alerts(["ops", "vision"]) == ["ops", "vision"]
    assert parse_alerts(["none"]) == []
    with pytest.raises(UsageError, match="can't be combined"):
        parse_alerts(["none", "ops"])
