"""Commands that change several objects, each in its own request: a refused one does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cli.answers import Machine, Simulation
from cli.errors import ExitCode, ServerRefused
from cli.requests import (
    alert_target_id,
    cancel,
    delete_alert_target,
    delete_budget,
    delete_machine,
    drain_machine,
    machine_id,
    pause,
    resolve_id,
    resume,
    resume_machine,
    update,
)
from cli.server import Server
from cli.terminal import clean, print_line, say


def cancel_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Cancel each simulation and print its result; NOT_DONE if any was refused."""

    def change(simulation_id: str) -> str:
        simulation: Simulation = cancel(server, simulation_id)
        told = f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}"
        return told if simulation.is_final else f"{told}, its end is on the way"

    # `last` is resolved before any change.
    return _each([(each, resolve_id(server, each)) for each in given], change)


def pause_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Pause each simulation."""
    return _each([(each, resolve_id(server, each)) for each in given], lambda found: _waits(pause(server, found)))


def resume_paused(server: Server, given: Sequence[str]) -> ExitCode:
    """Resume each paused simulation."""
    return _each([(each, resolve_id(server, each)) for each in given], lambda found: _waits(resume(server, found)))


def update_all(server: Server, given: Sequence[str], wanted: Mapping[str, object]) -> ExitCode:
    """Change each simulation. wanted: an UpdateSimulationInput without the id."""

    def change(simulation_id: str) -> str:
        simulation = update(server, {**wanted, "id": simulation_id})
        return f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}, updated"

    return _each([(each, resolve_id(server, each)) for each in given], change)


def drain_all(server: Server, given: Sequence[str], deadline: str | None = None) -> ExitCode:
    """Drain these machines: no new attempts. deadline: when what runs there returns to the queue, in ISO 8601."""
    return _each(_machines(server, given), lambda found: _stands(drain_machine(server, found, deadline)))


def resume_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Resume these machines after a drain."""
    return _each(_machines(server, given), lambda found: _stands(resume_machine(server, found)))


def delete_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these machines."""

    def change(found: str) -> str:
        delete_machine(server, found)
        return f"{found} is deleted"

    return _each(_machines(server, given), change)


def delete_budgets(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these budgets."""

    def change(budget_id: str) -> str:
        delete_budget(server, budget_id)
        return f"{clean(budget_id)} is deleted"

    return _each([(each, each) for each in given], change)


def delete_alert_targets(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these alert targets."""

    def change(found: str) -> str:
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


def _each(found: Sequence[tuple[str, str]], change: Callable[[str], str]) -> ExitCode:
    """Change each, given as (name, id). `ServerUnreachable` and `Interrupted` propagate and skip the rest."""
    worst = ExitCode.OK
    for name, each in found:
        try:
            print_line(change(each))
        except ServerRefused as refused:
            for line in str(refused).splitlines():
                say(f"{clean(name)}: {line}", style="red")
            worst = ExitCode.NOT_DONE
    return worst
