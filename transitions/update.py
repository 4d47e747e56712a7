"""Changes of a simulation on request, also while it runs: name, tags, notes, priority, objective, stop rules, limits.

Its state and its intent stay as they are. A supervisor receives changed limits and the shorter heartbeat of a judged
run with the reply to its next report: they are kept on the attempt, because the statement of a report reads no other
row. The same change again changes nothing and records nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import update as sql_update
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, metrics, newest_plan, sweeps
from db.errors import WrongState
from db.events import Actor
from db.models import THIS_TRANSACTION, Simulation
from db.notifications import Channel, notify
from db.states import SimulationState
from policy.rule_documents import SINCE, counting_after
from transitions import journal
from transitions.begin import time_limits

# May be changed after the end, too. The objective of a run that has ended is what lists show and sort by.
ALWAYS = frozenset({"name", "tags", "notes", "objective_metric", "objective_mode"})
JUDGED_BY = frozenset({"objective_metric", "objective_mode", "stopping", "max_steps"})
PLANNED_BY = frozenset({"priority", "preemptible", "name", "max_steps", "max_runtime"})  # what its place depends on
ORDERED = frozenset({"stopping", "max_runtime", "max_cost"})  # what a supervisor's order depends on


@dataclass(frozen=True, slots=True)
class Amendment:
    """Parts of an attempt's order as changed since its hello, as JSON values; times count from its hello."""

    is_judged: bool
    max_runtime_seconds: float | None
    max_cost_seconds: float | None


async def update(
    session: AsyncSession, simulation: Simulation, asked: Mapping[str, Any], actor: Actor, *, stop_grace: timedelta
) -> Simulation:
    """Write the columns that differ, with one event; return the row as it is then.

    simulation: locked and read in this transaction. Raises `WrongState` for a change that its end rules out.
    """
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    changes = {name: value for name, value in values.items() if _face(value) != _face(getattr(simulation, name))}
    if not changes:
        return simulation
    if simulation.state.is_final and not changes.keys() <= ALWAYS:
        raise WrongState(
            f"It has ended ({simulation.state.value}): only its name, tags, notes and objective can change.",
            field="id",
        )
    if "max_cost" in changes and await sweeps.has_budget(session, simulation.sweep_id):
        raise WrongState("Its limit is its share of the budget of its sweep.", field="limits.maxCost")
    written: dict[str, Any] = dict(changes)
    if changes.keys() & JUDGED_BY:
        written["stopping_revision"] = simulation.stopping_revision + 1
    if changes.keys() & JUDGED_BY and not simulation.state.is_final:
        written["would_stop"] = None  # what the older rules would have stopped
        rules: Mapping[str, Any] | None = written.get("stopping", simulation.stopping)
        if rules is not None:
            summaries = (await metrics.of_simulations(session, [simulation.id])).get(simulation.id, ())
            last_steps = {each.metric: each.last_step for each in summaries}
            written["stopping"] = counting_after(rules, last_steps, simulation.attempt)
    if changes.keys() & PLANNED_BY and simulation.state is SimulationState.QUEUED:
        written["queued_xid"] = THIS_TRANSACTION  # the planner looks at it again
    await session.execute(
        sql_update(Simulation)
        .where(Simulation.id == simulation.id)
        .values(**written)
        .execution_options(synchronize_session=False)
    )
    await session.refresh(simulation)
    if changes.keys() & ORDERED:
        await _amend(session, simulation, stop_grace)
    detail = {name: _as_json(written[name]) for name in changes}
    await events.record(
        session, "UPDATED", actor, "Simulation", simulation.id, project_id=simulation.project_id, detail=detail
    )
    await notify(session, Channel.SIMULATIONS, str(simulation.id))
    if changes.keys() & PLANNED_BY and simulation.state in (SimulationState.STARTING, SimulationState.RUNNING):
        await newest_plan.ask_for_another(session)
    journal.write(session, "simulation_updated", simulation_id=simulation.id, by=actor.name, changed=sorted(changes))
    return simulation


async def _amend(session: AsyncSession, simulation: Simulation, stop_grace: timedelta) -> None:
    """Change the order of the current attempt, if its supervisor has one; before its hello it has none."""
    attempt = await attempts.find_current(session, simulation.id)
    if attempt is None or attempt.started_at is None:
        return
    limits = await time_limits(
        session, simulation.id, attempt.id, stop_grace,
        max_runtime=simulation.max_runtime, attained=simulation.attained, max_cost=simulation.max_cost,
    )  # fmt: skip
    amendment = Amendment(simulation.stopping is not None, seconds_of(limits.max_runtime), seconds_of(limits.max_cost))
    await attempts.amend(session, attempt.id, asdict(amendment))


def seconds_of(time: timedelta | None) -> float | None:
    """Return the seconds of a limit, None without one."""
    return time.total_seconds() if time is not None else None


def _face(value: object) -> object:
    """Return a value to compare by: rules are the same, whichever step they begin to count after."""
    if not isinstance(value, dict):
        return value
    return [{name: each for name, each in rule.items() if name not in SINCE} for rule in value["rules"]]


def _as_json(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, Decimal) else value
