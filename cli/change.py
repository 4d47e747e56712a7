"""What changes several things at once: each on its own, so that one that can't be changed keeps no other from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cli.answers import Machine, Simulation
from cli.errors import ExitCode, ServerRefused
from cli.requests import cancel, delete_machine, drain_machine, machine_id, resolve_id, resume_machine
from cli.server import Server
from cli.terminal import clean, print_line, say


def cancel_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Cancel each simulation, and say of each what happened; NOT_DONE if any was refused."""

    def change(simulation_id: str) -> str:
        simulation: Simulation = cancel(server, simulation_id)
        told = f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}"
        return told if simulation.is_final else f"{told}, its end is on the way"

    # `last` is looked up before anything is changed.
    return _each([(each, resolve_id(server, each)) for each in given], change)


def drain_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Give these machines nothing new."""
    return _each(_machines(server, given), lambda found: _stands(drain_machine(server, found)))


def resume_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Give these machines work again."""
    return _each(_machines(server, given), lambda found: _stands(resume_machine(server, found)))


def delete_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Delete these machines."""

    def change(found: str) -> str:
        delete_machine(server, found)
        return f"{found} is deleted"

    return _each(_machines(server, given), change)


def _machines(server: Server, given: Sequence[str]) -> list[tuple[str, str]]:
    # All names are looked up before anything is changed.
    return [(each, machine_id(server, each)) for each in given]


def _stands(machine: Machine) -> str:
    return f"{clean(machine.id)}  {clean(machine.name)}: {clean(machine.state)}"


def _each(found: Sequence[tuple[str, str]], change: Callable[[str], str]) -> ExitCode:
    """Change each, given by its name and id. Raises `ServerUnreachable` and `Interrupted`: what comes after is left."""
    worst = ExitCode.OK
    for name, each in found:
        try:
            print_line(change(each))
        except ServerRefused as refused:
            for line in str(refused).splitlines():
                say(f"{clean(name)}: {line}", style="red")
            worst = ExitCode.NOT_DONE
    return worst
