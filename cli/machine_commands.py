"""Commands of `simulations machines` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.group import ListsByDefault
from cli.options import AsJson, Token, TokenFile, Url

app = typer.Typer(
    help="List, show, add, change, drain and delete machines.",
    cls=ListsByDefault,
    rich_markup_mode=None,
)

MachineName = Annotated[
    str, typer.Argument(metavar="MACHINE", help="Name or id of the machine.", autocompletion=completion.machines)
]
MachineNames = Annotated[
    list[str],
    typer.Argument(metavar="MACHINE", help="Names or ids of machines.", autocompletion=completion.machines),
]
GpuModel = Annotated[str | None, typer.Option("--gpu-model", metavar="MODEL", help="Model of its GPUs: A100.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Label that requirements can match; repeatable."),
]
Price = Annotated[
    str | None,
    typer.Option(
        "--price-per-hour", metavar="PRICE", help="Price per hour of the whole machine, in the installation's currency."
    ),
]


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="Filter by state: online, draining, offline."),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List machines by name, with their free resources."""
    from cli import machines
    from cli.arguments import MACHINE_STATES, parse_states
    from cli.requests import machines as every
    from cli.server import parse_server

    wanted = parse_states(state or (), MACHINE_STATES)
    found = list(every(parse_server(url, token, token_file), states=wanted))
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    elif not found:
        terminal.say("No machines." if wanted else "No machines. The scheduler of a host creates one: simulations up")
    else:
        machines.print_list(found)


@app.command()
def show(
    machine: MachineName,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Show the details of a machine and its current simulations."""
    from cli import machines
    from cli.requests import get_machine, machine_id
    from cli.server import parse_server

    server = parse_server(url, token, token_file)
    details = get_machine(server, machine_id(server, machine))
    if as_json:
        terminal.print_json(details.as_json())
    else:
        machines.print_details(details)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the machine.")],
    cpus: Annotated[float, typer.Option(help="CPUs of the machine.")],
    memory_gib: Annotated[float, typer.Option(help="Memory of the machine in GiB.")],
    gpus: Annotated[int | None, typer.Option(help="GPUs of the machine.  [none]")] = None,
    gpu_model: GpuModel = None,
    label: Labels = None,
    price_per_hour: Price = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Host that the machine is a part of: id or name.  [the only one]")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Add a machine: a part of a scheduler's host, with the declared resources and price."""
    from cli.machines import Declaration, create_input
    from cli.requests import create_machine
    from cli.server import parse_server

    declared = Declaration(cpus, memory_gib, gpus, gpu_model, label, price_per_hour, name, host)
    made = create_machine(parse_server(url, token, token_file), create_input(declared))
    if as_json:
        terminal.print_json(made.machine.as_json())
    else:
        terminal.print_line(terminal.clean(made.machine.id))
        terminal.say(f"{terminal.clean(made.machine.name)} is {made.machine.state}.")
    for notice in made.notices:
        terminal.say(terminal.clean(notice))


@app.command()
def update(
    machine: MachineName,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A new name.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of the machine.")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Memory of the machine in GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of the machine.")] = None,
    gpu_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Model of its GPUs; empty: unknown.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="New set of labels; replaces all; repeatable."),
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Remove all labels.")] = False,
    price_per_hour: Price = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Change an added machine. Running attempts keep the price of their assignment."""
    from cli.machines import Declaration, change_input
    from cli.requests import machine_id, update_machine
    from cli.server import parse_server

    declared = Declaration(cpus, memory_gib, gpus, gpu_model, label, price_per_hour, name)
    change_input("", declared, no_labels=no_labels)  # wrong usage is reported before any request
    server = parse_server(url, token, token_file)
    changed = update_machine(server, change_input(machine_id(server, machine), declared, no_labels=no_labels))
    if as_json:
        terminal.print_json(changed.machine.as_json())
    else:
        terminal.print_line(f"{terminal.clean(changed.machine.id)}  {terminal.clean(changed.machine.name)}: changed")
    for notice in changed.notices:
        terminal.say(terminal.clean(notice))


@app.command()
def drain(
    machines: MachineNames,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="When what still runs there returns to the queue: 30m, 2h, now, 2026-11-30T08:00.  [it may end]",
        ),
    ] = None,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Drain machines: no new attempts; running ones continue, until the deadline if there is one.

    What is stopped at the deadline has the usual grace for a checkpoint, and starts again elsewhere without using up a
    retry. Draining a machine again changes the deadline, or removes it.
    """
    from cli.arguments import parse_deadline
    from cli.change import drain_all
    from cli.server import parse_server

    until = parse_deadline(deadline) if deadline is not None else None
    raise typer.Exit(drain_all(parse_server(url, token, token_file), machines, until))


@app.command()
def resume(machines: MachineNames, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """Resume drained machines."""
    from cli.change import resume_all
    from cli.server import parse_server

    raise typer.Exit(resume_all(parse_server(url, token, token_file), machines))


@app.command()
def delete(machines: MachineNames, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """Delete idle machines. A machine that its engine detects comes back: drain it instead."""
    from cli.change import delete_all
    from cli.server import parse_server

    raise typer.Exit(delete_all(parse_server(url, token, token_file), machines))
