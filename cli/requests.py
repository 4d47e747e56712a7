"""Queries and mutations, one function each. Errors: see `cli.server`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from cli import documents
from cli.answers import (
    AlertDelivery,
    AlertTarget,
    AlertTargetMade,
    Answer,
    Budget,
    Costs,
    Details,
    File,
    Forked,
    LogChunk,
    Machine,
    MachineDetails,
    MachineMade,
    Plan,
    Project,
    Simulation,
    Sweep,
    SweepTrial,
    UserError,
    Words,
)
from cli.arguments import is_node_id
from cli.errors import Interrupted, ServerRefused
from cli.listing import Filters, Sorting
from cli.server import Server, as_object, ask, read_answer, unknown_simulation
from cli.terminal import clean

PAGE_SIZE = 100
NEWEST = "last"  # instead of an id

Asked = TypeVar("Asked", bound=Answer)


# --- simulations -----------------------------------------------------------------------------------------------


def create(server: Server, wanted: Mapping[str, object]) -> Simulation:
    """Queue a simulation. `wanted` is the API's CreateSimulationInput."""
    payload = _mutate(server, documents.CREATE, "createSimulation", wanted)
    return read_answer(Simulation, payload.get("simulation"))


def create_all(server: Server, wanted: Mapping[str, object]) -> list[Simulation]:
    """Queue simulations together, all or none. `wanted` is the API's CreateSimulationsInput."""
    made = _mutate(server, documents.CREATE_ALL, "createSimulations", wanted).get("simulations")
    return [read_answer(Simulation, each) for each in made] if isinstance(made, list) else []


def pause(server: Server, simulation_id: str) -> Simulation:
    """Pause a simulation that waits."""
    payload = _mutate(server, documents.PAUSE, "pauseSimulation", {"id": simulation_id})
    return read_answer(Simulation, payload.get("simulation"))


def resume(server: Server, simulation_id: str) -> Simulation:
    """Resume a paused simulation."""
    payload = _mutate(server, documents.RESUME, "resumeSimulation", {"id": simulation_id})
    return read_answer(Simulation, payload.get("simulation"))


def cancel(server: Server, simulation_id: str) -> Simulation:
    """Cancel a simulation; a running one is stopped on its machine first."""
    payload = _mutate(server, documents.CANCEL, "cancelSimulation", {"id": simulation_id})
    return read_answer(Simulation, payload.get("simulation"))


def update(server: Server, wanted: Mapping[str, object]) -> Simulation:
    """Change a simulation. `wanted` is the API's UpdateSimulationInput."""
    payload = _mutate(server, documents.UPDATE, "updateSimulation", wanted)
    return read_answer(Simulation, payload.get("simulation"))


def delete(server: Server, simulation_id: str) -> None:
    """Delete an ended simulation with its curve, log and files."""
    _mutate(server, documents.DELETE, "deleteSimulation", {"id": simulation_id})


def retry(server: Server, simulation_id: str) -> Simulation:
    """Queue a copy of an ended simulation."""
    payload = _mutate(server, documents.RETRY, "retrySimulation", {"id": simulation_id})
    return read_answer(Simulation, payload.get("simulation"))


def fork(server: Server, simulation_id: str, changes: Mapping[str, object]) -> Forked:
    """Queue a copy of a simulation with changes: fields of the API's ForkSimulationInput."""
    payload = _mutate(server, documents.FORK, "forkSimulation", {"id": simulation_id, **changes})
    return read_answer(Forked, payload.get("simulation"))


def get(server: Server, simulation_id: str) -> Details:
    """Get the details of a simulation. Raises `ServerRefused` if it does not exist."""
    found = ask(server, documents.DETAILS, {"id": simulation_id}).get("simulation")
    if found is None:
        raise unknown_simulation(simulation_id)
    return read_answer(Details, found)


def newest_first(
    server: Server,
    *,
    states: Sequence[str] = (),
    project: str | None = None,
    limit: int | None = None,
    filters: Mapping[str, object] | None = None,
    sorting: Sorting | None = None,
) -> list[Simulation]:
    """List simulations, at most `limit` of them, newest first unless sorted. filters: the API's SimulationFilter."""
    wanted: dict[str, object] = {"states": list(states) or None, "filter": filters}
    if sorting is not None:
        wanted |= {
            "orderBy": sorting.as_order(),
            "metric": sorting.metric or "",
            "hasMetric": sorting.metric is not None,
            "parameter": sorting.parameter or "",
            "hasParameter": sorting.parameter is not None,
            "hasCost": sorting.field == "COST",
        }
    if project is not None:
        wanted["project"] = project_id(server, project)
    limit = min(limit, sys.maxsize) if limit is not None else None  # the maximum of islice()
    first = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit)
    return list(islice(_walk(server, documents.LIST, "simulations", Simulation, wanted, first), limit))


def matching(
    server: Server,
    filters: Filters,
    *,
    states: Sequence[str] = (),
    limit: int | None = None,
    sorting: Sorting | None = None,
) -> list[Simulation]:
    """List simulations that match, newest first unless sorted. states: in the place of the filters' own."""
    wanted = filters.as_filter(datetime.now(UTC))
    states = states or filters.as_states()
    if wanted is not None and filters.sweep is not None:
        wanted["sweep"] = resolve_sweep(server, filters.sweep)
    return newest_first(server, states=states, project=filters.project, limit=limit, filters=wanted, sorting=sorting)


# --- sweeps ----------------------------------------------------------------------------------------------------


def create_sweep(server: Server, wanted: Mapping[str, object]) -> Sweep:
    """Create a sweep. `wanted` is the API's CreateSweepInput."""
    return read_answer(Sweep, _mutate(server, documents.CREATE_SWEEP, "createSweep", wanted).get("sweep"))


def update_sweep(server: Server, wanted: Mapping[str, object]) -> Sweep:
    """Change a sweep. `wanted` is the API's UpdateSweepInput."""
    return read_answer(Sweep, _mutate(server, documents.UPDATE_SWEEP, "updateSweep", wanted).get("sweep"))


def cancel_sweep(server: Server, sweep: str) -> Sweep:
    """Cancel a sweep with its trials."""
    return read_answer(Sweep, _mutate(server, documents.CANCEL_SWEEP, "cancelSweep", {"id": sweep}).get("sweep"))


def sweeps(server: Server, *, project: str | None, active: bool | None, limit: int | None) -> list[Sweep]:
    """List sweeps, newest first, at most `limit` of them."""
    wanted: dict[str, object] = {"active": active}
    if project is not None:
        wanted["project"] = project_id(server, project)
    first = min(PAGE_SIZE, limit) if limit is not None else PAGE_SIZE
    return list(islice(_walk(server, documents.SWEEPS, "sweeps", Sweep, wanted, first), limit))


def sweep(server: Server, reference: str, *, importances: bool = False) -> Sweep:
    """Get a sweep by its id, number or name; `last`: the newest one. Raises `ServerRefused` if there is none."""
    wanted = {"id": resolve_sweep(server, reference), "importances": importances}
    found = ask(server, documents.SWEEP, wanted).get("sweep")
    if found is None:
        raise ServerRefused(f"There is no sweep {clean(reference)}. List them: simulations sweeps")
    return read_answer(Sweep, found)


def resolve_sweep(server: Server, given: str) -> str:
    """Return the newest sweep's id for `last`; anything else is resolved by the server."""
    if given != NEWEST:
        return given
    newest = sweeps(server, project=None, active=None, limit=1)
    if not newest:
        raise ServerRefused("There is no sweep yet.")
    return newest[0].id


def trials(server: Server, sweep_id: str) -> Iterator[SweepTrial]:
    """Yield the trials of a sweep, by number."""
    after: str | None = None
    while True:
        found = ask(server, documents.SWEEP_TRIALS, {"id": sweep_id, "first": PAGE_SIZE, "after": after}).get("sweep")
        nodes, after = _page(as_object(found).get("trials"))
        for node in nodes:
            yield read_answer(SweepTrial, node)
        if after is None:
            return


def words(server: Server, most: int) -> Sequence[Words]:
    """Get the tags and metrics of the newest simulations."""
    nodes, _ = _page(ask(server, documents.WORDS, {"first": most}).get("simulations"))
    return [read_answer(Words, node) for node in nodes]


def resolve_id(server: Server, given: str) -> str:
    """Return the newest simulation's id for `last`; anything else is resolved by the server."""
    if given != NEWEST:
        return given
    newest = newest_first(server, limit=1)
    if not newest:
        raise ServerRefused("There is no simulation yet.")
    return newest[0].id


def log(
    server: Server,
    simulation_id: str,
    after: str | None = None,
    *,
    ansi: bool = False,
    contains: str | None = None,
    rank: int = 0,
) -> Iterator[LogChunk]:
    """Yield the existing log of a rank after a cursor, page by page; with its colours if `ansi`.

    contains: only the lines that contain this text, found by the service.
    """
    wanted = {"id": simulation_id, "first": PAGE_SIZE, "ansi": ansi, "contains": contains, "rank": rank}
    while True:
        variables = {**wanted, "after": after}
        found = ask(server, documents.LOG_PAGE, variables).get("simulation")
        if found is None:
            raise unknown_simulation(simulation_id)
        nodes, end = _page(as_object(found).get("logs"))
        for node in nodes:
            yield read_answer(LogChunk, node)
        if end is None:
            return
        after = end


def files(server: Server, simulation_id: str, *, kind: str | None = None) -> Iterator[File]:
    """Yield the stored files of a simulation, by kind, rank and path."""
    after: str | None = None
    while True:
        variables = {"id": simulation_id, "first": PAGE_SIZE, "after": after, "kind": kind}
        found = ask(server, documents.FILES, variables).get("simulation")
        if found is None:
            raise unknown_simulation(simulation_id)
        nodes, after = _page(as_object(found).get("files"))
        for node in nodes:
            yield read_answer(File, node)
        if after is None:
            return


def projects(server: Server) -> Iterator[Project]:
    """Yield all projects, by name."""
    return _walk(server, documents.PROJECTS, "projects", Project, {})


def project_id(server: Server, name: str) -> str:
    """Return a project's id for its name. Raises `ServerRefused` if it does not exist."""
    named = next((each for each in projects(server) if each.name == name), None)
    if named is None:
        raise ServerRefused(f"There is no project named {clean(name)}. `simulations projects` lists them.")
    return named.id


def update_project(server: Server, wanted: Mapping[str, object]) -> Project:
    """Change a project. `wanted` is the API's UpdateProjectInput."""
    return read_answer(Project, _mutate(server, documents.UPDATE_PROJECT, "updateProject", wanted).get("project"))


# --- budgets and costs -----------------------------------------------------------------------------------------


def budgets(server: Server, *, project: str | None = None) -> Iterator[Budget]:
    """Yield budgets, oldest first. project: an id."""
    return _walk(server, documents.BUDGETS, "budgets", Budget, {"project": project})


def create_budget(server: Server, wanted: Mapping[str, object]) -> Budget:
    """Create a budget. `wanted` is the API's CreateBudgetInput."""
    return read_answer(Budget, _mutate(server, documents.CREATE_BUDGET, "createBudget", wanted).get("budget"))


def update_budget(server: Server, wanted: Mapping[str, object]) -> Budget:
    """Change a budget. `wanted` is the API's UpdateBudgetInput."""
    return read_answer(Budget, _mutate(server, documents.UPDATE_BUDGET, "updateBudget", wanted).get("budget"))


def delete_budget(server: Server, budget_id: str) -> None:
    """Delete a budget."""
    _mutate(server, documents.DELETE_BUDGET, "deleteBudget", {"id": budget_id})


def costs(
    server: Server, groups: Sequence[str], *, since: str | None, to: str | None, project: str | None = None
) -> Costs:
    """Ask where the money went. groups: the API's CostGroup."""
    variables: dict[str, object] = {"groupBy": list(groups), "from": since, "to": to}
    if project is not None:
        variables["project"] = project_id(server, project)
    return read_answer(Costs, ask(server, documents.COSTS, variables).get("costs"))


# --- machines --------------------------------------------------------------------------------------------------


def machines(server: Server, *, states: Sequence[str] = (), name: str | None = None) -> Iterator[Machine]:
    """Yield machines by name; `name` is a part of it."""
    wanted: dict[str, object] = {"states": list(states) or None, "name": name}
    return _walk(server, documents.MACHINES, "machines", Machine, wanted)


def plan(server: Server) -> Plan:
    """Ask for the newest plan, with the pages of all machines."""
    machines: list[object] = []
    after: str | None = None
    while True:
        found = as_object(ask(server, documents.PLAN, {"first": PAGE_SIZE, "after": after}).get("plan"))
        nodes, after = _page(found.get("machines"))
        machines += nodes
        if after is None:
            return read_answer(Plan, {**found, "machines": machines})


def get_machine(server: Server, machine_id: str) -> MachineDetails:
    """Get the details of a machine. Raises `ServerRefused` if it does not exist."""
    found = ask(server, documents.MACHINE, {"id": machine_id}).get("machine")
    if found is None:
        raise ServerRefused(f"There is no machine with the id {clean(machine_id)}.")
    return read_answer(MachineDetails, found)


def create_machine(server: Server, wanted: Mapping[str, object]) -> MachineMade:
    """Create a machine. `wanted` is the API's CreateMachineInput."""
    return read_answer(MachineMade, _mutate(server, documents.CREATE_MACHINE, "createMachine", wanted))


def update_machine(server: Server, wanted: Mapping[str, object]) -> MachineMade:
    """Change a machine. `wanted` is the API's UpdateMachineInput."""
    return read_answer(MachineMade, _mutate(server, documents.UPDATE_MACHINE, "updateMachine", wanted))


def drain_machine(server: Server, machine_id: str, deadline: str | None = None) -> Machine:
    """Drain a machine. deadline: in ISO 8601; None: what runs there goes on to its end."""
    given = {"id": machine_id, "deadline": deadline}
    payload = _mutate(server, documents.DRAIN_MACHINE, "drainMachine", given)
    return read_answer(Machine, payload.get("machine"))


def resume_machine(server: Server, machine_id: str) -> Machine:
    """Resume a drained machine."""
    payload = _mutate(server, documents.RESUME_MACHINE, "resumeMachine", {"id": machine_id})
    return read_answer(Machine, payload.get("machine"))


def delete_machine(server: Server, machine_id: str) -> None:
    """Delete a machine on which nothing runs."""
    _mutate(server, documents.DELETE_MACHINE, "deleteMachine", {"id": machine_id})


def machine_id(server: Server, given: str) -> str:
    """Return a machine's id for its exact name; an id is returned unchanged."""
    if is_node_id(given, "Machine"):
        return given
    found = list(machines(server, name=given))
    matching = [machine.id for machine in found if machine.name == given]
    if not matching:
        names = ", ".join(clean(machine.name) for machine in found[:5])
        raise ServerRefused(f"There is no machine named {clean(given)}." + (f" Similar: {names}." if names else ""))
    return matching[0]  # names are unique


# --- alerts ----------------------------------------------------------------------------------------------------


def alert_targets(server: Server) -> Iterator[AlertTarget]:
    """Yield alert targets, by name."""
    return _walk(server, documents.ALERT_TARGETS, "alertTargets", AlertTarget, {})


def create_alert_target(server: Server, wanted: Mapping[str, object]) -> AlertTargetMade:
    """Create an alert target. `wanted` is the API's CreateAlertTargetInput."""
    payload = _mutate(server, documents.CREATE_ALERT_TARGET, "createAlertTarget", wanted)
    return read_answer(AlertTargetMade, payload)


def update_alert_target(server: Server, wanted: Mapping[str, object]) -> AlertTarget:
    """Change an alert target. `wanted` is the API's UpdateAlertTargetInput."""
    payload = _mutate(server, documents.UPDATE_ALERT_TARGET, "updateAlertTarget", wanted)
    return read_answer(AlertTarget, payload.get("alertTarget"))


def test_alert_target(server: Server, target_id: str) -> AlertDelivery:
    """Send a test message."""
    payload = _mutate(server, documents.TEST_ALERT_TARGET, "testAlertTarget", {"id": target_id})
    return read_answer(AlertDelivery, payload.get("delivery"))


def alert_delivery(server: Server, delivery_id: str) -> AlertDelivery:
    """Get a message. Raises `ServerRefused` if it does not exist."""
    found = ask(server, documents.ALERT_DELIVERY, {"id": delivery_id}).get("node")
    if found is None:
        raise ServerRefused("The message does not exist any longer: its target was deleted.")
    return read_answer(AlertDelivery, found)


def delete_alert_target(server: Server, target_id: str) -> None:
    """Delete an alert target with its messages."""
    _mutate(server, documents.DELETE_ALERT_TARGET, "deleteAlertTarget", {"id": target_id})


def alert_target_id(server: Server, given: str) -> str:
    """Return an alert target's id for its name; an id is returned unchanged."""
    if is_node_id(given, "AlertTarget"):
        return given
    for target in alert_targets(server):
        if target.name == given:
            return target.id
    raise ServerRefused(f"There is no alert target named {clean(given)}. `simulations alert list` lists them.")


# --- how -------------------------------------------------------------------------------------------------------


def _walk(
    server: Server,
    document: str,
    name: str,
    model: type[Asked],
    variables: Mapping[str, object],
    first: int = PAGE_SIZE,
) -> Iterator[Asked]:
    """Yield a connection's nodes, fetching pages on demand."""
    after: str | None = None
    while True:
        nodes, after = _page(ask(server, document, {**variables, "first": first, "after": after}).get(name))
        for node in nodes:
            yield read_answer(model, node)
        if after is None:
            return


def _page(connection: object) -> tuple[list[object], str | None]:
    """Return a page's nodes and the cursor of the next page; None at the end."""
    page = as_object(connection)
    nodes, turn = page.get("nodes"), as_object(page.get("pageInfo"))
    end = turn.get("endCursor") if turn.get("hasNextPage") else None
    return nodes if isinstance(nodes, list) else [], end if isinstance(end, str) else None


def _mutate(server: Server, document: str, name: str, given: Mapping[str, object]) -> Mapping[str, object]:
    try:
        payload = as_object(ask(server, document, {"input": given}).get(name))
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted before the server answered: the request may have succeeded. Check before you retry."
        ) from None
    errors = payload.get("userErrors")
    if isinstance(errors, list) and errors:
        raise ServerRefused("\n".join(clean(read_answer(UserError, error).sentence()) for error in errors))
    return payload
