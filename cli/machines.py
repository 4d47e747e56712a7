"""`simulations machines`: tables of machines, and the inputs of their mutations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from cli.answers import Machine, MachineDetails
from cli.arguments import parse_pairs
from cli.errors import UsageError
from cli.money import is_set, price
from cli.tables import Column, print_table
from cli.terminal import clean, say_age, state_text, stdout

COLUMNS = (
    Column("NAME", folds=True),
    Column("STATE"),
    Column("CPUS FREE", from_width=50),
    Column("MEMORY FREE", from_width=70),
    Column("GPUS FREE", from_width=80),
    Column("PRICE/H", from_width=60),
    Column("LABELS", from_width=100, folds=True),
    Column("HEARD OF", from_width=90),
)
HOW_TO_SET_A_PRICE = "not set (SIMULATIONS_MACHINE_PRICE_PER_HOUR, or: machines update NAME --price-per-hour PRICE)"


@dataclass(frozen=True, slots=True)
class Declaration:
    """Options of a machine. None: the server's default, or unchanged in an update."""

    cpus: float | None = None
    memory_gib: float | None = None
    gpus: int | None = None
    gpu_model: str | None = None
    labels: Sequence[str] | None = None
    price_per_hour: str | None = None
    name: str | None = None
    host: str | None = None


def create_input(declared: Declaration) -> dict[str, object]:
    """Build a CreateMachineInput. Raises `UsageError`."""
    given: dict[str, object] = {
        "name": declared.name,
        "cpus": declared.cpus,
        "memoryGib": declared.memory_gib,
        "gpus": declared.gpus,
        "gpuModel": declared.gpu_model,
        "labels": parse_pairs(declared.labels, "--label") if declared.labels else None,
        "pricePerHour": declared.price_per_hour,
        "host": declared.host,
    }
    return {name: value for name, value in given.items() if value is not None}


def change_input(machine_id: str, declared: Declaration, *, no_labels: bool) -> dict[str, object]:
    """Build an UpdateMachineInput; an empty model removes it. Raises `UsageError` if nothing changes."""
    given = create_input(declared)
    if no_labels and "labels" in given:
        raise UsageError("--no-labels removes all labels: leave out --label.")
    if no_labels:
        given["labels"] = {}
    if given.get("gpuModel") == "":
        given["gpuModel"] = None
    if not given:
        raise UsageError("Nothing to change. Give at least one option: simulations machines update --help")
    return {"id": machine_id, **given}


def print_list(machines: Sequence[Machine]) -> None:
    """Print a table, sorted by name."""
    now = datetime.now(UTC)
    rows = [
        (
            clean(each.name),
            state_text(each.state),
            f"{each.free.cpus:g} of {each.resources.cpus:g}",
            f"{each.free.memory_gib:.4g} of {each.resources.memory_gib:.4g} GiB",
            _gpus(each),
            _price(each),
            _labels(each),
            say_age(each.heartbeat_at, now) if each.heartbeat_at is not None else "never",
        )
        for each in machines
    ]
    print_table(stdout(), COLUMNS, rows)


def print_details(machine: MachineDetails) -> None:
    """Print the details of one machine."""
    now = datetime.now(UTC)
    has, free = machine.resources, machine.free
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    gpus = f"{free.gpus} of {has.gpus} free" + (f" ({clean(has.gpu_model)})" if has.gpu_model else "")
    for title, value in (
        ("id", clean(machine.id)),
        ("cpus", f"{free.cpus:g} of {has.cpus:g} free"),
        ("memory", f"{free.memory_gib:.4g} of {has.memory_gib:.4g} GiB free"),
        ("gpus", gpus if has.gpus else ""),
        ("price", f"{_price(machine)} an hour" if _price(machine) else HOW_TO_SET_A_PRICE),
        ("labels", _labels(machine)),
        ("engine", clean(machine.engine)),
        ("host", clean(machine.host or "")),
        ("created by", "createMachine" if machine.declared else "detected by its engine"),
        ("made", say_age(machine.created_at, now)),
        ("drained until", f"{machine.drain_deadline.astimezone():%Y-%m-%d %H:%M}" if machine.drain_deadline else ""),
        ("last seen", say_age(machine.heartbeat_at, now) if machine.heartbeat_at is not None else "never"),
        ("simulations", ", ".join(f"{clean(each.name)} ({clean(each.id)})" for each in machine.simulations)),
    ):
        if value:
            facts.add_row(title, value)
    console = stdout()
    console.print(Text.assemble((clean(machine.name), "bold"), "  ", state_text(machine.state)))
    console.print(facts)


def _gpus(machine: Machine) -> str:
    has = machine.resources
    model = f" {clean(has.gpu_model, limit=40)}" if has.gpu_model else ""
    return f"{machine.free.gpus} of {has.gpus}{model}" if has.gpus else ""


def _price(machine: Machine) -> str:
    return price(machine.price_per_hour, machine.currency) if is_set(machine.price_per_hour) else ""


def _labels(machine: Machine) -> str:
    return ", ".join(f"{clean(name)}={clean(str(value))}" for name, value in machine.labels.items())
