"""Messages of alerts: from events and rows to the JSON that webhooks receive, and to a title and a text.

A message is made once, when its delivery is written, and never changes: a receiver that gets it twice gets the same
content under the same id.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from sqlalchemy.ext.asyncio import AsyncSession

from db import alert_deliveries, billing, metrics, models, projects, public_ids, simulations
from db.alert_deliveries import Message
from db.billing import Holding
from db.metrics import Summary
from db.models import AlertTarget, Event
from policy.alert_text import (
    LONGEST_DETAIL,
    Result,
    Subject,
    budget_sentence,
    budget_title,
    payload,
    result_sentence,
    sentence,
    title,
)
from policy.alerts import AlertKind, kind_for, kinds_of
from policy.cost import cost_so_far
from policy.metric_mode import default_objective, direction
from settings import Settings


@dataclass(frozen=True, slots=True)
class _Content:
    """Parts of a message that are the same for all targets of an event, of all kinds."""

    kinds: Sequence[AlertKind]
    data: Mapping[str, Any]
    title: str
    body: str
    chosen: Collection[int] | None = None  # ids of targets


@dataclass(frozen=True, slots=True)
class _Known:
    """Rows that the events of one round are about, by id."""

    names: Mapping[int, str]
    chosen: Mapping[int, Collection[int] | None]
    projects: Mapping[int, str]
    holdings: Mapping[int, Sequence[Holding]]
    results: Mapping[int, Result]


async def compose(
    session: AsyncSession, events: Sequence[Event], targets: Sequence[AlertTarget], settings: Settings
) -> Sequence[Message]:
    """Return the messages of these events, for the targets that listen to them."""
    known = await _read(session, events)
    messages = []
    for event in events:
        content = _of_budget(event, known) if event.object_type == "Budget" else _of_simulation(event, known, settings)
        if content is None:
            continue
        for target in targets:
            kind = kind_for(target, content.kinds, event.project_id, content.chosen)
            if kind is not None:
                told = payload(kind.type, event.at, content.data)
                about = event.object_id if event.object_type == "Simulation" else None
                messages.append(Message(target.id, kind.type, told, content.title, content.body, event.id, about))
    return messages


async def _read(session: AsyncSession, events: Sequence[Event]) -> _Known:
    wanted = {event.object_id for event in events if event.object_type == "Simulation" and event.object_id is not None}
    rows = await simulations.by_ids(session, wanted)
    names: dict[int, str] = {row.id: row.name for row in rows}
    chosen: dict[int, Collection[int] | None] = {row.id: row.alert_target_ids for row in rows}
    gone = wanted - names.keys()
    if gone:
        for simulation_id, detail in (await alert_deliveries.last_words(session, gone)).items():
            names[simulation_id] = str(detail.get("name", ""))
            chosen[simulation_id] = detail.get("alertTargetIds")
    found = await projects.by_ids(session, {event.project_id for event in events if event.project_id is not None})
    holdings = await billing.of_simulations(session, wanted)
    summaries = await metrics.of_simulations(session, names) if names else {}
    results = {row.id: result for row in rows if (result := _result(row, summaries.get(row.id, ()))) is not None}
    return _Known(names, chosen, {row.id: row.name for row in found}, holdings, results)


def _result(row: models.Simulation, summaries: Sequence[Summary]) -> Result | None:
    metric = row.objective_metric or default_objective(each.metric for each in summaries)
    found = next((each for each in summaries if each.metric == metric), None)
    if metric is None or found is None:
        return None
    given = row.objective_mode if metric == row.objective_metric else None
    mode = given or row.metric_modes.get(metric) or direction(metric)
    best, step = {"MAX": (found.max_value, found.max_step), "MIN": (found.min_value, found.min_step)}.get(
        str(mode), (None, None)
    )
    value = found.last_value if math.isfinite(found.last_value) else None
    return Result(metric, value, best, step)


def _of_simulation(event: Event, known: _Known, settings: Settings) -> _Content | None:
    facts = event.detail
    number, reason = event.object_id, facts.get("reason")
    kinds = kinds_of(event.kind, reason=reason)
    if not kinds or number is None or event.project_id is None:
        return None
    waits = kinds[0] is AlertKind.WAITS_TOO_LONG
    state = "QUEUED" if waits else event.kind
    subject = Subject(known.names.get(number, ""), number, known.projects.get(event.project_id, ""))
    detail = facts.get("detail")
    waited, waiting = facts.get("waitedSeconds", 0), facts.get("waiting", 1)
    told = sentence(kinds, subject, state, detail, waited_seconds=waited, waiting=waiting)
    public_id = public_ids.encode("Simulation", number)
    holdings = known.holdings.get(number, ())
    amount, currency = cost_so_far(holdings), holdings[-1].currency if holdings else settings.currency
    link = f"{settings.public_url}/simulations/{quote(public_id, safe='')}" if settings.public_url else None
    data: dict[str, Any] = {
        "sentence": told,
        "simulation": {
            "id": public_id, "number": number, "name": subject.name, "state": state,
            "reason": None if waits else reason, "reasonDetail": None if waits else _cut(detail),
            "attempt": facts.get("attempt"),
        },
        "project": {"id": public_ids.encode("Project", event.project_id), "name": subject.project},
        "cost": {"amount": str(amount), "currency": currency},
        "link": link,
    }  # fmt: skip
    result = known.results.get(number)
    if result is not None:
        data["objective"] = {
            "metric": result.metric, "value": result.value, "bestValue": result.best_value,
            "bestStep": result.best_step,
        }  # fmt: skip
    if waits:
        data["waiting"] = {"reason": reason, "detail": detail, "seconds": waited, "simulations": waiting}
    lines = [
        told,
        *([result_sentence(result)] if result is not None else []),
        *([f"Cost so far: {amount:.2f} {currency}."] if amount else []),
        *([link] if link else []),
    ]
    return _Content(kinds, data, title(kinds, subject, state, waited), "\n".join(lines), known.chosen.get(number))


def _of_budget(event: Event, known: _Known) -> _Content | None:
    facts = event.detail
    kinds = kinds_of(event.kind, percent=facts.get("percent"))
    if not kinds or event.object_id is None:
        return None
    project = known.projects.get(event.project_id) if event.project_id is not None else None
    percent, currency = int(facts["percent"]), str(facts["currency"])
    told = budget_sentence(project, percent, Decimal(facts["spent"]), Decimal(facts["amount"]), currency)
    owner = None
    if event.project_id is not None:
        owner = {"id": public_ids.encode("Project", event.project_id), "name": project}
    data = {
        "sentence": told,
        "budget": {"id": public_ids.encode("Budget", event.object_id), **facts},
        "project": owner,
    }
    return _Content(kinds, data, budget_title(project, percent), told)


def _cut(detail: str | None) -> str | None:
    return detail[:LONGEST_DETAIL] if detail else None
