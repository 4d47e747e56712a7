"""The GraphQL documents this client sends; `tests/cli` checks them against the exported schema."""

from __future__ import annotations

from gql import gql

_SUMMARY = """
fragment Summary on Simulation {
  id name state reason reasonDetail attended createdAt startedAt finishedAt
  waiting { reason detail }
  stopWanted { reason by }
  project { id name }
  machine { id name }
}
"""

CREATE = gql(
    _SUMMARY
    + """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

CANCEL = gql(
    _SUMMARY
    + """
mutation Cancel($input: SimulationInput!) {
  cancelSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

RETRY = gql(
    _SUMMARY
    + """
mutation Retry($input: SimulationInput!) {
  retrySimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

LIST = gql(
    _SUMMARY
    + """
query List($first: Int!, $after: String, $states: [SimulationState!], $project: ID) {
  simulations(first: $first, after: $after, states: $states, project: $project) {
    nodes { ...Summary }
    pageInfo { hasNextPage endCursor }
  }
}
"""
)

SIMULATION = gql(
    _SUMMARY
    + """
query Simulation($id: ID!) { simulation(id: $id) { ...Summary } }
"""
)

DETAILS = gql(
    _SUMMARY
    + """
query Details($id: ID!) {
  simulation(id: $id) {
    ...Summary
    entrypoint parameters environment workingDirectory tags priority createdBy
    resources { cpus memoryGib gpus gpuModel labels machine { id name } maxPricePerHour }
    limits { maxRuntimeSeconds maxRetries retryOn }
    attempts {
      number machineName assignedAt startedAt endedAt reason reasonDetail exitCode signal gpuIndices
    }
    events { at kind actor }
    retryOf { id name }
  }
}
"""
)

PROJECTS = gql(
    """
query Projects($first: Int!, $after: String) {
  projects(first: $first, after: $after) { nodes { id name } pageInfo { hasNextPage endCursor } }
}
"""
)

MACHINES = gql(
    """
query Machines($first: Int!, $after: String, $name: String!) {
  machines(first: $first, after: $after, nameContains: $name) { nodes { id name } pageInfo { hasNextPage endCursor } }
}
"""
)

CONVERGENCE = gql(
    """
subscription Convergence($id: ID!, $metrics: [String!], $after: String) {
  convergence(simulationId: $id, metrics: $metrics, after: $after) {
    cursor attempt live state reason
    series { metric steps values elapsed supersedesFrom }
  }
}
"""
)

CHANGES = gql(
    _SUMMARY
    + """
subscription Changes($id: ID!) { simulationChanged(id: $id) { ...Summary } }
"""
)
