"""What happens to a sweep: a trial begins, trials end, no more of them begin, all have ended; cancel and extend.

The scheduler asks the sampler between transactions and comes back with the parameters of a trial: `begin` adds it if it
still is the next one, so a trial has one set of parameters, however often its scheduler was killed. A sweep is locked
before its simulations; what ends a simulation (`settle`) never locks a sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, lifecycle, packages, sweeps
from db.errors import Refusal, WrongState
from db.events import Actor
from db.models import Sweep
from db.notifications import Channel, notify
from db.projects import Scope
from db.simulations import Wanted
from policy.budget import needed
from policy.rule_documents import with_pruning
from policy.sampling import Asked, Outcome
from policy.search_space import MOST_AT_ONCE, MOST_TRIALS, Sampler, decode, fill, grid_size
from policy.sweep import UNKNOWN_END, Halving, Median, Pruning
from policy.sweep_progress import (
    SUCCEEDED,
    Ending,
    Limits,
    Run,
    Standing,
    SweepReason,
    Told,
    allotment,
    ending,
    told,
    unreported,
    why_no_more,
    without_result,
)
from transitions import journal
from transitions.cancel import cancel as cancel_simulation
from transitions.submit import Submission, submit

SEED = "seed"  # the parameter that tells the simulations of a trial with several seeds apart


def limits_of(sweep: Sweep) -> Limits:
    """Return what a sweep may do."""
    return Limits(
        mode=sweep.objective_mode, trials=sweep.trials, parallel=sweep.parallel, seeds=sweep.seeds,
        max_cost=sweep.max_cost, patience=sweep.patience, target=sweep.target, metric=sweep.objective_metric,
    )  # fmt: skip


async def standing_of(session: AsyncSession, sweep: Sweep, stop_grace: timedelta = timedelta(0)) -> Standing:
    """Read what a sweep has done. stop_grace: for `allotment`, which pays it too."""
    ended = [(Told(Outcome(each.outcome), each.value), each.cost) for each in await sweeps.ended(session, sweep.id)]
    open_ = len(await sweeps.open_numbers(session, sweep.id))
    runs = await sweeps.open_runs(session, sweep.id) if sweep.max_cost is not None else ()
    allotted = sum(
        ((each.final_cost if each.final_cost is not None else each.max_cost) or Decimal(0) for each in runs), Decimal(0)
    )
    if sweep.max_cost is None or not stop_grace:
        return Standing(len(ended) + open_, open_, ended, allotted)
    rate = known = await sweeps.dearest_rate(session, sweep.id)
    if rate is None:
        rate = await sweeps.dearest_price(session) * sweeps.template_of(sweep).machines
    grace = needed(rate, stop_grace)
    return Standing(len(ended) + open_, open_, ended, allotted, grace, is_priced=known is not None)


# --- by the scheduler ------------------------------------------------------------------------------------------


async def begin(
    session: AsyncSession, sweep: Sweep, number: int, asked: Asked, actor: Actor, *, stop_grace: timedelta
) -> bool:
    """Begin a trial: one simulation, or one for each seed; False if it is not the next one any longer.

    sweep: locked in this transaction.
    """
    limits, standing = limits_of(sweep), await standing_of(session, sweep, stop_grace)
    if sweep.reason is not None or standing.begun != number or standing.open >= limits.parallel:
        return False
    money = None
    if limits.max_cost is not None and (money := allotment(limits, standing)) is None:
        return False
    if not await sweeps.begin_trial(session, sweep.id, number, asked.parameters, asked.notes):
        return False
    template = sweeps.template_of(sweep)
    for seed in range(sweep.seeds):
        own: dict[str, Any] = {SEED: seed} if sweep.seeds > 1 else {}
        wanted = trial_of(template, sweep, number, {**asked.parameters, **own}, money)
        await submit(session, [Submission(wanted)], actor)
    journal.write(session, "trial_begun", sweep_id=sweep.id, trial=number)
    verdict = ending(limits, replace(standing, begun=number + 1, open=standing.open + 1))
    if verdict is not None:  # it was the last one
        await _conclude(session, sweep, verdict, actor)
    return True


def trial_of(
    template: Wanted, sweep: Sweep, number: int, parameters: Mapping[str, Any], money: Decimal | None
) -> Wanted:
    """Return the simulation of a trial. money: what it may cost, None: as much as the template says."""
    limits = [each for each in (money, template.max_cost) if each is not None]
    seed = f"-seed{parameters[SEED]}" if sweep.seeds > 1 else ""
    given = {**template.parameters, **parameters}
    filled = fill(template.entrypoint, given)
    return replace(
        template,
        name=f"{template.name[:180]}-{number}{seed}",
        entrypoint=filled,
        entrypoint_template=template.entrypoint if filled != template.entrypoint else None,
        parameters=given,
        max_cost=min(limits, default=None),
        stopping=_stopping(template, sweep),
        sweep_id=sweep.id,
        trial=number,
    )


def pruning_of(sweep: Sweep) -> Pruning | None:
    """Return the rule that prunes trials; None: none does."""
    if sweep.grace_period is None:
        return None
    most = sweeps.template_of(sweep).max_steps or UNKNOWN_END
    if sweep.reduction_factor is None:
        return Median(most, sweep.objective_mode, sweep.grace_period)
    return Halving(most, sweep.objective_mode, sweep.grace_period, sweep.reduction_factor)


def _stopping(template: Wanted, sweep: Sweep) -> dict[str, Any] | None:
    """Return the stop rules of a trial: those of the template, and the sweep's own."""
    stopping = template.stopping
    pruning = pruning_of(sweep)
    if pruning is None:
        return dict(stopping) if stopping is not None else None
    return with_pruning(stopping, sweep.objective_metric, pruning)


async def end_trials(session: AsyncSession, sweep: Sweep) -> int:
    """Write the ends of trials whose simulations have all ended; return how many. sweep: locked."""
    count = 0
    runs = await sweeps.open_runs(session, sweep.id)
    by_trial = {number: list(each) for number, each in groupby(runs, key=lambda run: run.trial)}
    for number in await sweeps.open_numbers(session, sweep.id):
        of = by_trial.get(number, [])
        if not all(each.is_final for each in of):
            continue
        found = told([_run(each) for each in of])
        await sweeps.end_trial(
            session, sweep.id, number,
            {
                "outcome": found.outcome.value, "value": found.value, "spread": found.spread, "step": found.step,
                "cost": sum((each.final_cost or Decimal(0) for each in of), Decimal(0)),
            },
        )  # fmt: skip
        journal.write(session, "trial_ended", sweep_id=sweep.id, trial=number, outcome=found.outcome.value)
        count += 1
    return count


def _run(run: sweeps.TrialRun) -> Run:
    is_pruned = run.step is not None
    return Run(run.reason or "", run.value if is_pruned else run.best, run.step)


async def judge(session: AsyncSession, sweep: Sweep, actor: Actor, currency: str, *, stop_grace: timedelta) -> Sweep:
    """End a sweep as far as its limits and its trials say; return its row. sweep: locked."""
    standing = await standing_of(session, sweep, stop_grace)
    if sweep.reason is None and (verdict := ending(limits_of(sweep), standing, currency)) is not None:
        sweep = await _conclude(session, sweep, verdict, actor)
    if sweep.reason is not None and not standing.open and sweep.ended_at is None:
        change: dict[str, Any] = {"ended_at": func.now()}
        concluded = Ending(SweepReason(sweep.reason), sweep.reason_detail or "")
        if (verdict := without_result(concluded, standing)) is not None:
            sentences = (verdict.sentence, await _unreported(session, sweep))
            change |= {"reason": verdict.reason.value, "reason_detail": " ".join(filter(None, sentences)) or None}
        sweep = await sweeps.change(session, sweep.id, change)
        await events.record(
            session, "ENDED", actor, "Sweep", sweep.id, project_id=sweep.project_id,
            detail={"reason": sweep.reason, "detail": sweep.reason_detail},
        )  # fmt: skip
        journal.write(session, "sweep_ended", sweep_id=sweep.id, reason=sweep.reason)
    return sweep


async def _unreported(session: AsyncSession, sweep: Sweep) -> str | None:
    """Say it if trials succeeded without the objective."""
    names = await sweeps.reported(session, sweep.id, SUCCEEDED)
    return None if names is None or sweep.objective_metric in names else unreported(sweep.objective_metric, names)


async def give_up(session: AsyncSession, sweep: Sweep, sentence: str, actor: Actor) -> None:
    """Begin no more trials, because the next one can't be submitted. sweep: locked."""
    if sweep.reason is None:
        verdict = Ending(SweepReason.TRIALS_FAILED, f"The next trial can't be submitted: {sentence}")
        await _conclude(session, sweep, verdict, actor)


async def _conclude(session: AsyncSession, sweep: Sweep, verdict: Ending, actor: Actor) -> Sweep:
    """Begin no more trials. Those that are open go on."""
    journal.write(session, "sweep_concluded", sweep_id=sweep.id, reason=verdict.reason.value, by=actor.name)
    return await sweeps.change(session, sweep.id, {"reason": verdict.reason.value, "reason_detail": verdict.sentence})


# --- on request ------------------------------------------------------------------------------------------------


async def cancel(session: AsyncSession, sweep_id: int, actor: Actor, *, scope: Scope = None) -> Sweep:
    """Begin no more trials, and cancel those that are open; idempotent.

    Raises `NotFound`, and `WrongState` for a sweep that has ended for another reason.
    """
    sweep = await sweeps.lock(session, sweep_id, scope=scope)
    if sweep.ended_at is not None:
        if sweep.reason != SweepReason.CANCELLED:
            raise WrongState(f"It has ended already: {sweep.reason}.", field="id")
        return sweep
    if sweep.reason != SweepReason.CANCELLED:
        sweep = await _conclude(session, sweep, Ending(SweepReason.CANCELLED, f"Cancelled by {actor.name}."), actor)
        await events.record(session, "CANCEL_REQUESTED", actor, "Sweep", sweep.id, project_id=sweep.project_id)
    for simulation_id in await sweeps.not_ended(session, sweep_id):
        simulation = await lifecycle.lock(session, simulation_id)
        if simulation is not None and not simulation.state.is_final:
            await cancel_simulation(session, simulation_id, actor)
    await notify(session, Channel.SWEEPS, "")
    return sweep


async def extend(
    session: AsyncSession, sweep_id: int, asked: Mapping[str, Any], actor: Actor, *, scope: Scope = None
) -> Sweep:
    """Change how many trials there are, how many at once, what they may cost, and when they are enough; idempotent.

    A sweep that had ended goes on if that leaves something to do. Raises `NotFound`, `WrongState` for a cancelled one,
    and `Refusal` for less than what has begun or was spent, and for trials that would not begin.
    """
    sweep = await sweeps.lock(session, sweep_id, scope=scope)
    changes = {name: value for name, value in asked.items() if getattr(sweep, name) != value}
    if not changes:
        return sweep
    if sweep.reason == SweepReason.CANCELLED:
        raise WrongState("It was cancelled: create a new one.", field="id")
    standing = await standing_of(session, sweep)
    if changes.get("trials", standing.begun) < standing.begun:
        raise Refusal(f"trials: {standing.begun:,} have begun already.", field="trials")
    if changes.get("trials", 0) > MOST_TRIALS:
        raise Refusal(f"trials: at most {MOST_TRIALS:,}.", field="trials")
    if (
        sweep.sampler == Sampler.GRID
        and "trials" in changes
        and changes["trials"] > (most := grid_size(decode(sweep.space)))
    ):
        raise Refusal(f"trials: its grid has {most:,}.", field="trials")
    if changes.get("parallel", 1) * sweep.seeds > MOST_AT_ONCE:
        raise Refusal(
            f"parallel: with its seeds, there would be more than {MOST_AT_ONCE:,} simulations at once.",
            field="parallel",
        )
    if "max_cost" in changes:
        if sweep.max_cost is None:
            raise WrongState("It has no budget: what runs has no limit to keep to.", field="maxCost")
        most = changes["max_cost"]
        if most is not None and most < standing.spent + standing.allotted:
            raise Refusal(
                f"maxCost: {standing.spent + standing.allotted:f} are spent or allotted to what runs.", field="maxCost"
            )
    why_none = why_no_more(replace(limits_of(sweep), **changes), standing)
    if "trials" in changes and why_none is not None:
        raise Refusal(f"trials: no more would begin. {why_none}", field="trials")
    template_package = sweeps.template_of(sweep).package_id
    if template_package is not None and not (
        sweep.package_id is not None and await packages.note_used(session, template_package)
    ):
        raise WrongState("The package of its code was deleted: create a new one.", field="id")
    if changes.keys() & {"trials", "max_cost", "patience", "target"}:
        changes |= {"reason": None, "reason_detail": None, "ended_at": None}  # judged anew
    sweep = await sweeps.change(session, sweep_id, changes)
    detail = {name: str(value) if isinstance(value, Decimal) else value for name, value in asked.items()}
    await events.record(session, "UPDATED", actor, "Sweep", sweep.id, project_id=sweep.project_id, detail=detail)
    await notify(session, Channel.SWEEPS, "")
    journal.write(session, "sweep_updated", sweep_id=sweep.id, by=actor.name, changed=sorted(asked))
    return sweep
