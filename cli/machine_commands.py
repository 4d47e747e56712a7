"""`simulations machines ...`: its commands and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, terminal
from cli.group import ListsByDefault
from cli.options import AsJson, Token, TokenFile, Url

app = typer.Typer(
    help="Show, add, change, drain and delete machines.",
    cls=ListsByDefault,
    rich_markup_mode=None,
)

MachineName = Annotated[
    str, typer.Argument(metavar="MACHINE", help="Its name or id.", autocompletion=completion.machines)
]
MachineNames = Annotated[
    list[str], typer.Argument(metavar="MACHINE...", help="Names or ids.", autocompletion=completion.machines)
]
GpuModel = Annotated[str | None, typer.Option("--gpu-model", metavar="MODEL", help="What its GPUs are: A100.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="For requirements to match; repeat it for several."),
]
Price = Annotated[
    str | None,
    typer.Option("--price-per-hour", metavar="PRICE", help="Of the whole machine, in the installation's currency."),
]


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", metavar="STATE", help="Only these: online, draining, offline.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """List machines by name, with what is free on them."""
    from cli import machines
    from cli.arguments import MACHINE_STATES, parse_states
    from cli.requests import machines as every
    from cli.server import parse_server

    wanted = parse_states(state or (), MACHINE_STATES)
    found = list(every(parse_server(url, token, token_file), states=wanted))
    if as_json:
        terminal.print_json([each.as_json() for each in found])
    elif not found:
        terminal.say("No machines." if wanted else "No machines. The scheduler of a host makes its own: simulations up")
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
    """Show everything about a machine, and what is on it."""
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    cpus: Annotated[float, typer.Option(help="Processors it has.")],
    memory_gib: Annotated[float, typer.Option(help="Memory it has, in GiB.")],
    gpus: Annotated[int | None, typer.Option(help="GPUs it has.  [none]")] = None,
    gpu_model: GpuModel = None,
    label: Labels = None,
    price_per_hour: Price = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Of which host it is a part: id or name.  [the only one]")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Make a part of a scheduler's host a machine of its own, with the resources and the price you declare."""
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
    cpus: Annotated[float | None, typer.Option(help="Processors it has.")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Memory it has, in GiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs it has.")] = None,
    gpu_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What its GPUs are; an empty one: not known.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="All of its labels: those not given are gone."),
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Take all labels away.")] = False,
    price_per_hour: Price = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Change a machine that was added. What runs on it is billed as it was when it was assigned."""
    from cli.machines import Declaration, change_input
    from cli.requests import machine_id, update_machine
    from cli.server import parse_server

    declared = Declaration(cpus, memory_gib, gpus, gpu_model, label, price_per_hour, name)
    change_input("", declared, no_labels=no_labels)  # what makes no sense is said before anybody is asked
    server = parse_server(url, token, token_file)
    changed = update_machine(server, change_input(machine_id(server, machine), declared, no_labels=no_labels))
    if as_json:
        terminal.print_json(changed.machine.as_json())
    else:
        terminal.print_line(f"{terminal.clean(changed.machine.id)}  {terminal.clean(changed.machine.name)}: changed")
    for notice in changed.notices:
        terminal.say(terminal.clean(notice))


@app.command()
def drain(machines: MachineNames, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """Give machines nothing new; what runs on them goes on."""
    from cli.change import drain_all
    from cli.server import parse_server

    raise typer.Exit(drain_all(parse_server(url, token, token_file), machines))


@app.command()
def resume(machines: MachineNames, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """Give drained machines work again."""
    from cli.change import resume_all
    from cli.server import parse_server

    raise typer.Exit(resume_all(parse_server(url, token, token_file), machines))


@app.command()
def delete(machines: MachineNames, url: Url = None, token: Token = None, token_file: TokenFile = None) -> None:
    """Delete machines on which nothing runs. One that its engine finds comes back: drain it instead."""
    from cli.change import delete_all
    from cli.server import parse_server

    raise typer.Exit(delete_all(parse_server(url, token, token_file), machines))
