"""The committed schema equals the served one, and everything in it has a description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from graphql import GraphQLEnumType, GraphQLNamedType, GraphQLSchema
from graphql import build_schema as parse_schema

from graph.schema import build_schema

SNAPSHOT = Path(__file__).parents[2] / "graph" / "schema.graphql"
ROOTS = ("Query", "Mutation", "Subscription")

# Names that say it all, wherever they stand. Any other field, and every type, root field and enum value, says what
# it means.
PLAIN = frozenset({
    "id", "name", "edges", "nodes", "node", "pageInfo", "userErrors", "createdAt", "project", "machine", "simulation",
    "currency", "cpus", "memoryGib", "gpus", "gpuModel", "attempt", "metric", "state", "tags", "resources", "limits",
    "exitCode", "signal", "verdict", "stream", "direction", "series",
})  # fmt: skip


def _described(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """What must have a description, with the one it has."""
    for name, kind in schema.type_map.items():
        if name.startswith("__"):
            continue
        yield name, kind.description
        yield from _parts(name, kind)


def _parts(name: str, kind: GraphQLNamedType) -> Iterator[tuple[str, str | None]]:
    if isinstance(kind, GraphQLEnumType):
        for value, meaning in kind.values.items():
            yield f"{name}.{value}", meaning.description
    for field, definition in getattr(kind, "fields", {}).items():
        if name in ROOTS or field not in PLAIN:
            yield f"{name}.{field}", definition.description


def test_the_committed_schema_is_the_one_that_is_served() -> None:
    served = build_schema().as_str() + "\n"
    assert served == SNAPSHOT.read_text(), "the schema has changed: if that is meant, run `make schema` and commit it"


def test_types_root_fields_enum_values_and_fields_that_need_it_have_a_description() -> None:
    mute = [name for name, description in _described(parse_schema(SNAPSHOT.read_text())) if not description]
    assert mute == []


def test_the_schema_promises_what_clients_were_written_against() -> None:
    schema = parse_schema(SNAPSHOT.read_text())
    fields = {root: set(getattr(schema.type_map[root], "fields")) for root in ROOTS}  # noqa: B009  # not on every type
    assert fields["Query"] >= {
        "node", "nodes", "simulation", "simulations", "machine", "machines", "project", "projects", "viewer",
    }  # fmt: skip
    assert fields["Mutation"] >= {
        "createSimulation", "cancelSimulation", "retrySimulation", "deleteSimulation", "createMachine",
        "updateMachine", "drainMachine", "resumeMachine", "deleteMachine", "helloAttempt", "reportAttempt",
    }  # fmt: skip
    assert fields["Subscription"] >= {"convergence", "logs", "simulationChanged", "machineChanged"}
