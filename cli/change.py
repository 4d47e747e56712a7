"""Commands that change several objects, each in its own request: a refused one does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cli.answers import Machine, Simulation
from cli.arguments import STATES
from cli.errors import ExitCode, NotConfirmed, ServerRefused, UsageError
from cli.listing import Filters
from cli.requests import (
    alert_target_id,
    cancel,
    delete,
    delete_alert_target,
    delete_budget,
    delete_machine,
    drain_machine,
    get,
    machine_id,
    matching,
    pause,
    resolve_id,
    resume,
    resume_machine,
    sweep,
    update,
)
from cli.server import Server
from cli.terminal import can_ask, clean, confirm, print_line, say, say_count

MOST_SHOWN = 10  # simulations before a question


@dataclass(frozen=True, slots=True)
class Verb:
    """What is done to simulations, given by their names or chosen by a filter.

    among: the states in which it can be done. change: takes an id and a name, and returns the line that is printed.
    is_final: it can't be undone, and is asked about even if simulations are named. first: what to do in other states.
    """

    word: str
    done: str
    among: Sequence[str]
    change: Callable[[Server, str, str], str]
    is_final: bool = False
    details: str = ""
    first: str = ""


def _cancel(server: Server, simulation_id: str, _: str) -> str:
    simulation = cancel(server, simulation_id)
    told = f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}"
    return told if simulation.is_final else f"{told}, its end is on the way"


def _delete(server: Server, simulation_id: str, name: str) -> str:
    delete(server, simulation_id)
    return f"{clean(name)} is deleted"


CANCEL = Verb("cancel", "cancelled", ("QUEUED", "STARTING", "RUNNING"), _cancel)
PAUSE = Verb("pause", "paused", ("QUEUED",), lambda server, found, _: _waits(pause(server, found)))
RESUME = Verb("resume", "resumed", ("QUEUED",), lambda server, found, _: _waits(resume(server, found)))
DELETE = Verb(
    "delete", "deleted", ("FINISHED", "FAILED", "CANCELLED"), _delete, is_final=True,
    details=" with curves, logs and files", first="cancel it first, then delete it",
)  # fmt: skip


def tagging(add: Sequence[str], remove: Sequence[str]) -> Verb:
    """Return what adds and removes tags. Raises `UsageError`."""
    if not add and not remove:
        raise UsageError("Nothing to change. Give --add TAG or --remove TAG, both repeatable.")

    def change(server: Server, simulation_id: str, _: str) -> str:
        simulation = update(server, {"id": simulation_id, "addTags": [*add], "removeTags": [*remove]})
        return f"{clean(simulation.id)}  {clean(simulation.name)}: tagged"

    return Verb("tag", "tagged", STATES, change)


def change_chosen(server: Server, verb: Verb, given: Sequence[str], filters: Filters, *, yes: bool) -> ExitCode:
    """Change the simulations that are named, or those that a filter chooses, after a question."""
    if given and filters != Filters():
        raise UsageError(f"Give the simulations to {verb.word}, or a filter that chooses them, not both.")
    if given:
        # `last` is resolved before any change.
        named = [(each, resolve_id(server, each)) for each in given]
        kept = _asked_about(server, verb, named) if verb.is_final and not yes else named
        worst = _each(kept, lambda found, name: verb.change(server, found, name))
        return worst if len(kept) == len(named) else ExitCode.NOT_DONE
    chosen = _chosen(server, verb, filters)
    if not chosen:
        say(f"There is no simulation to {verb.word} among those that match.")
        return ExitCode.OK
    note = _sweep_goes_on(server, filters.sweep) if verb is CANCEL and filters.sweep is not None else None
    if not yes:
        _require_yes(verb, chosen, note)
    found = [(f"#{each.number} {each.name}", each.id) for each in chosen]
    worst = _each(found, lambda each, name: verb.change(server, each, name))
    if note is not None:
        say(note, style="yellow")
    return worst


def _sweep_goes_on(server: Server, given: str) -> str | None:
    """Say that a sweep begins other trials than those that are cancelled; None: it begins no more."""
    found = sweep(server, given)
    if found.reason is not None:
        return None
    return (
        f"Sweep {found.number} goes on: it may begin other trials. "
        f"Cancel it and its trials: simulations sweep cancel {found.number}"
    )


def _asked_about(server: Server, verb: Verb, named: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name the simulations whose state excludes it, ask about the others, and return these."""
    kept, chosen = [], []
    for name, found in named:
        simulation = get(server, found)
        if simulation.state in verb.among:
            kept.append((name, found))
            chosen.append(simulation)
        else:
            say(f"{clean(name)}: It is {clean(simulation.state)}: {verb.first}.", style="red")
    if chosen:
        _require_yes(verb, chosen)
    return kept


def _chosen(server: Server, verb: Verb, filters: Filters) -> list[Simulation]:
    if filters == Filters():
        raise UsageError(
            f"Give the simulations to {verb.word}, or choose them as `simulations list` does: "
            f"simulations {verb.word} --project NAME --state {verb.among[0].lower()}"
        )
    asked = filters.as_states()
    states = [each for each in asked or verb.among if each in verb.among]
    if not states:
        raise UsageError(f"--state: {verb.word} is for simulations that are {', '.join(verb.among).lower()}")
    found = matching(server, filters, states=states)
    if verb is RESUME:
        found = [each for each in found if each.waiting is not None and each.waiting.reason == "PAUSED"]
    # What waits comes first: it would start on the machine of what is cancelled before it.
    return sorted(found, key=lambda each: each.state != "QUEUED")


def _require_yes(verb: Verb, chosen: Sequence[Simulation], note: str | None = None) -> None:
    """Ask whether these are meant. Raises `UsageError` where nothing can be asked, `NotConfirmed`."""
    count = say_count(len(chosen), "simulation")
    if not can_ask():
        raise UsageError(f"{count} to {verb.word}{verb.details}. Add --yes to do it without a question.")
    for each in chosen[:MOST_SHOWN]:
        say(f"#{each.number}  {clean(each.name)}: {each.state}")
    if len(chosen) > MOST_SHOWN:
        say(f"and {len(chosen) - MOST_SHOWN:,} more")
    if note is not None:
        say(note, style="yellow")
    if not confirm(f"{verb.word.capitalize()} {count}{verb.details}?"):
        raise NotConfirmed(f"Nothing was {verb.done}.")


def update_all(server: Server, given: Sequence[str], wanted: Mapping[str, object]) -> ExitCode:
    """Change each simulation. wanted: an UpdateSimulationInput without the id."""

    def change(simulation_id: str) -> str:
        simulation = update(server, {**wanted, "id": simulation_id})
        return f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}, updated"

    return _each([(each, resolve_id(server, each)) for each in given], lambda found, _: change(found))


def drain_all(server: Server, given: Sequence[str], deadline: str | None = None) -> ExitCode:
    """Drain these machines: no new attempts. deadline: when what runs there returns to the queue, in ISO 8601."""
    return _each(_machines(server, given), lambda found, _: _stands(drain_machine(server, found, deadline)))


def resume_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Resume these machines after a drain."""
    return _each(_machines(server, given), lambda found, _: _stands(resume_machine(server, found)))


def delete_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these machines."""

    def change(found: str, _: str) -> str:
        delete_machine(server, found)
        return f"{found} is deleted"

    return _each(_machines(server, given), change)


def delete_budgets(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these budgets."""

    def change(budget_id: str, _: str) -> str:
        delete_budget(server, budget_id)
        return f"{clean(budget_id)} is deleted"

    return _each([(each, each) for each in given], change)


def delete_alert_targets(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these alert targets."""

    def change(found: str, _: str) -> str:
        delete_alert_target(server, found)
        return f"{found} is deleted"

    # All names are resolved before any change.
    return _each([(each, alert_target_id(server, each)) for each in given], change)


def _machines(server: Server, given: Sequence[str]) -> list[tuple[str, str]]:
    # All names are resolved before any change.
    return [(each, machine_id(server, each)) for each in given]


def _waits(simulation: Simulation) -> str:
    why = f" ({clean(simulation.why)})" if simulation.why else ""
    return f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}{why}"


def _stands(machine: Machine) -> str:
    return f"{clean(machine.id)}  {clean(machine.name)}: {clean(machine.state)}"


def _each(found: Sequence[tuple[str, str]], change: Callable[[str, str], str]) -> ExitCode:
    """Change each, given as (name, id); `change` takes an id and a name.

    `ServerUnreachable` and `Interrupted` propagate and skip the rest.
    """
    worst = ExitCode.OK
    for name, each in found:
        try:
            print_line(change(each, name))
        except ServerRefused as refused:
            for line in str(refused).splitlines():
                say(f"{clean(name)}: {line}", style="red")
            worst = ExitCode.NOT_DONE
    return worst
