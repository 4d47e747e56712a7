"""`simulations cancel`: each on its own, so that one that can't be cancelled keeps nobody else running."""

from __future__ import annotations

from collections.abc import Sequence

from cli.errors import ExitCode, ServerRefused
from cli.server import Server, cancel, resolve_id
from cli.terminal import clean, print_line, say


def cancel_all(server: Server, given: Sequence[str]) -> ExitCode:
    """Cancel each, and say of each what happened; NOT_DONE if any was refused. Raises `ServerUnreachable`."""
    worst = ExitCode.OK
    # `last` is looked up before anything is changed.
    for simulation_id in [resolve_id(server, each) for each in given]:
        try:
            simulation = cancel(server, simulation_id)
        except ServerRefused as refused:
            for line in str(refused).splitlines():
                say(f"{clean(simulation_id)}: {line}", style="red")
            worst = ExitCode.NOT_DONE
            continue
        told = f"{clean(simulation.id)}  {clean(simulation.name)}: {clean(simulation.state)}"
        print_line(told if simulation.is_final else f"{told}, its end is on the way")
    return worst
