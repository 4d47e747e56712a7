"""`simulations alert`: inputs, tables, and the wait for a test message."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cli.answers import AlertTarget, AlertTargetMade
from cli.errors import ExitCode, UsageError
from cli.requests import alert_delivery, test_alert_target
from cli.server import Server
from cli.tables import Column, print_table
from cli.terminal import clean, print_line, say, say_age, stdout

KINDS = (
    "ended", "failed", "diverged", "target-reached", "plateau", "machine-lost", "waits-too-long", "budget",
)  # fmt: skip
COLUMNS = (
    Column("NAME", folds=True),
    Column("LISTENS TO", from_width=60, folds=True),
    Column("PROJECTS", from_width=80, folds=True),
    Column("DEFAULT", from_width=90),
    Column("PENDING", from_width=50),
    Column("DELIVERED", from_width=70),
    Column("LAST ERROR", folds=True),
)
LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class NewTarget:
    """Arguments of `alert create`."""

    name: str
    url: str  # `-`: from standard input
    kinds: Sequence[str] = ()
    is_default: bool = False
    is_apprise: bool = False


def create_input(new: NewTarget) -> dict[str, object]:
    """Build a CreateAlertTargetInput, except the projects. Raises `UsageError`."""
    kinds, url = _kinds(new.kinds), _url(new.url)
    is_webhook = not new.is_apprise and url.lower().startswith(("http://", "https://"))
    given: dict[str, object] = {
        "name": new.name,
        "transport": "WEBHOOK" if is_webhook else "APPRISE",
        "url": url,
        "isDefault": new.is_default,
    }
    if kinds:
        given["kinds"] = kinds
    return given


@dataclass(frozen=True, slots=True)
class TargetChange:
    """Options of `alert update`. None: unchanged; of kinds and projects, all of the new ones."""

    name: str | None = None
    url: str | None = None  # `-`: from standard input
    kinds: Sequence[str] | None = None
    all_kinds: bool = False
    projects: Sequence[str] | None = None  # names
    all_projects: bool = False
    is_default: bool | None = None


def change_input(change: TargetChange) -> dict[str, object]:
    """Build an UpdateAlertTargetInput, except the id and the ids of projects. Raises `UsageError`."""
    given: dict[str, object] = {}
    if change.name is not None:
        given["name"] = change.name
    if change.url is not None:
        given["url"] = _url(change.url)
    if change.kinds and change.all_kinds:
        raise UsageError("--all-kinds listens to everything: leave out --on.")
    if change.kinds or change.all_kinds:
        given["kinds"] = _kinds(change.kinds) if change.kinds else None
    if change.projects and change.all_projects:
        raise UsageError("--all-projects is for every project: leave out --project.")
    if change.all_projects:
        given["projects"] = None
    if change.is_default is not None:
        given["isDefault"] = change.is_default
    if not given and not change.projects:
        raise UsageError("Nothing to change. Give at least one option: simulations alert update --help")
    return given


def _kinds(given: Sequence[str]) -> list[str]:
    wanted = [word.strip().lower().replace("_", "-") for each in given for word in each.split(",") if word.strip()]
    for word in wanted:
        if word not in KINDS:
            raise UsageError(f"--on: expected one of {', '.join(KINDS)}, got {clean(word)}.")
    return [word.upper().replace("-", "_") for word in dict.fromkeys(wanted)]


def _url(given: str) -> str:
    return sys.stdin.readline().strip() if given == "-" else given


def tell_created(made: AlertTargetMade) -> None:
    """Print a webhook's secret on standard output, and the next commands on standard error."""
    target = made.alert_target
    if made.secret is not None:
        print_line(clean(made.secret))
        say("This secret verifies the signatures of its messages, by Standard Webhooks. It can't be shown again.")
    name = clean(target.name)
    use = "It is the default" if target.is_default else f"Use it: simulations submit --alert {name} ..."
    say(f"{use}{_of(target)}. Test it: simulations alert test {name}")


def _of(target: AlertTarget) -> str:
    if not target.is_default:
        return ""
    return " of all projects" if target.projects is None else f" of {_projects(target)}"


def print_list(targets: Sequence[AlertTarget]) -> None:
    """Print a table of alert targets."""
    now = datetime.now(UTC)
    print_table(stdout(), COLUMNS, [_row(each, now) for each in targets])


def _row(target: AlertTarget, now: datetime) -> tuple[str, ...]:
    kinds = [each.lower().replace("_", "-") for each in target.kinds]
    return (
        clean(target.name),
        "everything" if set(kinds) >= set(KINDS) else clean(", ".join(kinds)),
        _projects(target),
        "yes" if target.is_default else "",
        f"{target.pending:,}" if target.pending else "",
        say_age(target.delivered_at, now) if target.delivered_at is not None else "never",
        clean(target.last_error or ""),
    )


def _projects(target: AlertTarget) -> str:
    return "all" if target.projects is None else clean(", ".join(each.name for each in target.projects))


def test(server: Server, name: str, target_id: str) -> ExitCode:
    """Send a test message and wait for its first attempt; NOT_DONE if that failed."""
    delivery = test_alert_target(server, target_id)
    end = time.monotonic() + PATIENCE_SECONDS
    while delivery.state == "PENDING" and delivery.error is None:
        if time.monotonic() >= end:
            say("Not sent yet: is a scheduler running? `simulations alert list` shows what becomes of it.")
            return ExitCode.NOT_DONE
        time.sleep(LOOK_SECONDS)
        delivery = alert_delivery(server, delivery.id)
    if delivery.state == "DELIVERED":
        print_line(f"{clean(name)} accepted the message.")
        return ExitCode.OK
    say(f"{clean(name)}: {clean(delivery.error or delivery.state)}", style="red")
    return ExitCode.NOT_DONE
