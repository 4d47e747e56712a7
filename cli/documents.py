"""The GraphQL documents this client sends, as text: a command parses those it sends, which takes longer than sending.

`tests/cli` checks them against the exported schema.
"""

from __future__ import annotations

_SUMMARY = """
fragment Summary on Simulation {
  id number name state reason reasonDetail attended createdAt startedAt finishedAt
  objective { metric mode value bestValue bestStep }
  waiting { reason detail }
  stopWanted { reason by detail }
  project { id name }
  machine { id name }
}
"""

CREATE = (
    _SUMMARY
    + """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

CREATE_ALL = (
    _SUMMARY
    + """
mutation CreateAll($input: CreateSimulationsInput!) {
  createSimulations(input: $input) { simulations { ...Summary } userErrors { message field } }
}
"""
)

PAUSE = (
    _SUMMARY
    + """
mutation Pause($input: SimulationInput!) {
  pauseSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

RESUME = (
    _SUMMARY
    + """
mutation Resume($input: SimulationInput!) {
  resumeSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

CANCEL = (
    _SUMMARY
    + """
mutation Cancel($input: SimulationInput!) {
  cancelSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

UPDATE = (
    _SUMMARY
    + """
mutation Update($input: UpdateSimulationInput!) {
  updateSimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

DELETE = """
mutation Delete($input: SimulationInput!) {
  deleteSimulation(input: $input) { userErrors { message field } }
}
"""

RETRY = (
    _SUMMARY
    + """
mutation Retry($input: SimulationInput!) {
  retrySimulation(input: $input) { simulation { ...Summary } userErrors { message field } }
}
"""
)

FORK = (
    _SUMMARY
    + """
mutation Fork($input: ForkSimulationInput!) {
  forkSimulation(input: $input) {
    simulation { ...Summary entrypoint parameters } userErrors { message field }
  }
}
"""
)

LIST = (
    _SUMMARY
    + """
query List(
  $first: Int!, $after: String, $states: [SimulationState!], $project: ID, $filter: SimulationFilter,
  $orderBy: SimulationOrder, $metric: String! = "", $hasMetric: Boolean! = false, $parameter: String! = "",
  $hasParameter: Boolean! = false, $hasCost: Boolean! = false
) {
  simulations(
    first: $first, after: $after, states: $states, project: $project, filter: $filter, orderBy: $orderBy
  ) {
    nodes {
      ...Summary
      metric(name: $metric) @include(if: $hasMetric) { name lastValue bestValue minValue maxValue }
      parameter(name: $parameter) @include(if: $hasParameter)
      cost @include(if: $hasCost) { amount currency }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
)

SIMULATION = (
    _SUMMARY
    + """
query Simulation($id: ID!) { simulation(id: $id) { ...Summary } }
"""
)

WORDS = """
query Words($first: Int!) {
  simulations(first: $first) { nodes { tags metrics { name } } pageInfo { hasNextPage endCursor } }
}
"""

DETAILS = (
    _SUMMARY
    + """
query Details($id: ID!) {
  simulation(id: $id) {
    ...Summary
    entrypoint parameters environment workingDirectory tags notes machines priority preemptible queuePosition
    estimatedStart ahead { rule detail } createdBy
    after { condition simulation { ...Summary } }
    dependents { condition simulation { ...Summary } }
    resources { cpus memoryGib gpus gpuModel labels machine { id name } maxPricePerHour }
    metricsFrom metricsPatterns
    notices { kind count example advice }
    source { commit dirty remote host python packages }
    package { digest sizeBytes name commit dirty url }
    runtimeEnv
    checkpoint { at machineName }
    limits { maxRuntimeSeconds maxCost maxSteps maxRetries retryOn }
    cost { amount currency }
    alerts { type state target { id name } }
    stopping {
      rules {
        metric mode minDelta patience gracePeriod stoppingThreshold divergenceThreshold checkFinite smoothing plateau
        rising aggressive dryRun
      }
      evidence { reason sentence saved { seconds amount currency by endStep } }
      wouldHaveStopped { reason sentence saved { seconds amount currency by endStep } }
      notices
    }
    forecast { sentence }
    attempts {
      number machineName assignedAt startedAt endedAt reason reasonDetail exitCode signal gpuIndices
      members { rank machineName exitCode signal }
    }
    events { at kind actor }
    retryOf { id name }
  }
}
"""
)

_TRIAL = """
fragment TrialFields on SweepTrial {
  number state parameters value spread step begunAt endedAt finalCost simulations { id number name state reason }
}
"""

_SWEEP = (
    _TRIAL
    + """
fragment SweepFields on Sweep {
  id number name state reason reasonDetail sampler seed
  parameters { name choices low high step log integer }
  objective { metric mode }
  parallel seeds maxCost patience
  project { id name }
  counts { planned queued running complete pruned failed cancelled }
  cost { amount currency perHour }
  best { ...TrialFields }
  estimatedEnd entrypoint createdBy createdAt endedAt
}
"""
)

CREATE_SWEEP = (
    _SWEEP
    + """
mutation CreateSweep($input: CreateSweepInput!) {
  createSweep(input: $input) { sweep { ...SweepFields } userErrors { message field } }
}
"""
)

UPDATE_SWEEP = (
    _SWEEP
    + """
mutation UpdateSweep($input: UpdateSweepInput!) {
  updateSweep(input: $input) { sweep { ...SweepFields } userErrors { message field } }
}
"""
)

CANCEL_SWEEP = (
    _SWEEP
    + """
mutation CancelSweep($input: SweepInput!) {
  cancelSweep(input: $input) { sweep { ...SweepFields } userErrors { message field } }
}
"""
)

SWEEPS = (
    _SWEEP
    + """
query Sweeps($first: Int!, $after: String, $project: ID, $active: Boolean) {
  sweeps(first: $first, after: $after, project: $project, active: $active) {
    nodes { ...SweepFields }
    pageInfo { hasNextPage endCursor }
  }
}
"""
)

SWEEP = (
    _SWEEP
    + """
query Sweep($id: ID!, $importances: Boolean! = false) {
  sweep(id: $id) { ...SweepFields importances @include(if: $importances) { name importance } }
}
"""
)

SWEEP_TRIALS = (
    _TRIAL
    + """
query SweepTrials($id: ID!, $first: Int!, $after: String) {
  sweep(id: $id) {
    trials(first: $first, after: $after) { nodes { ...TrialFields } pageInfo { hasNextPage endCursor } }
  }
}
"""
)

_ALERT_TARGET = """
fragment Target on AlertTarget {
  id name transport url kinds isDefault createdBy createdAt deliveredAt failedAt lastError pending
  projects { id name }
}
"""

ALERT_TARGETS = (
    _ALERT_TARGET
    + """
query AlertTargets($first: Int!, $after: String) {
  alertTargets(first: $first, after: $after) { nodes { ...Target } pageInfo { hasNextPage endCursor } }
}
"""
)

CREATE_ALERT_TARGET = (
    _ALERT_TARGET
    + """
mutation CreateAlertTarget($input: CreateAlertTargetInput!) {
  createAlertTarget(input: $input) { alertTarget { ...Target } secret userErrors { message field } }
}
"""
)

UPDATE_ALERT_TARGET = (
    _ALERT_TARGET
    + """
mutation UpdateAlertTarget($input: UpdateAlertTargetInput!) {
  updateAlertTarget(input: $input) { alertTarget { ...Target } userErrors { message field } }
}
"""
)

TEST_ALERT_TARGET = """
mutation TestAlertTarget($input: AlertTargetInput!) {
  testAlertTarget(input: $input) { delivery { id state error } userErrors { message field } }
}
"""

ALERT_DELIVERY = """
query Delivery($id: ID!) { node(id: $id) { ... on AlertDelivery { id state error } } }
"""

DELETE_ALERT_TARGET = """
mutation DeleteAlertTarget($input: AlertTargetInput!) {
  deleteAlertTarget(input: $input) { deletedId userErrors { message field } }
}
"""

PROJECTS = """
query Projects($first: Int!, $after: String) {
  projects(first: $first, after: $after) {
    nodes { id name createdAt weight gpuQuota }
    pageInfo { hasNextPage endCursor }
  }
}
"""

UPDATE_PROJECT = """
mutation UpdateProject($input: UpdateProjectInput!) {
  updateProject(input: $input) { project { id name createdAt weight gpuQuota } userErrors { message field } }
}
"""

_MACHINE = """
fragment Parts on Machine {
  id name engine host declared labels pricePerHour currency draining drainDeadline heartbeatAt createdAt state
  resources { cpus memoryGib gpus gpuModel }
  free { cpus memoryGib gpus }
}
"""

MACHINES = (
    _MACHINE
    + """
query Machines($first: Int!, $after: String, $name: String, $states: [MachineState!]) {
  machines(first: $first, after: $after, nameContains: $name, states: $states) {
    nodes { ...Parts }
    pageInfo { hasNextPage endCursor }
  }
}
"""
)

PLAN = """
query Plan($first: Int!, $after: String) {
  plan {
    now queued
    machines(first: $first, after: $after) {
      nodes {
        id name state
        holds { kind share preemptible begin expectedEnd latestEnd simulation { id number name } }
      }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""
MACHINE = (
    _MACHINE
    + """
query Machine($id: ID!) { machine(id: $id) { ...Parts simulations { id name } } }
"""
)

CREATE_MACHINE = (
    _MACHINE
    + """
mutation CreateMachine($input: CreateMachineInput!) {
  createMachine(input: $input) { machine { ...Parts } notices userErrors { message field } }
}
"""
)

UPDATE_MACHINE = (
    _MACHINE
    + """
mutation UpdateMachine($input: UpdateMachineInput!) {
  updateMachine(input: $input) { machine { ...Parts } notices userErrors { message field } }
}
"""
)

DRAIN_MACHINE = (
    _MACHINE
    + """
mutation DrainMachine($input: DrainMachineInput!) {
  drainMachine(input: $input) { machine { ...Parts } userErrors { message field } }
}
"""
)

RESUME_MACHINE = (
    _MACHINE
    + """
mutation ResumeMachine($input: MachineInput!) {
  resumeMachine(input: $input) { machine { ...Parts } userErrors { message field } }
}
"""
)

DELETE_MACHINE = """
mutation DeleteMachine($input: MachineInput!) {
  deleteMachine(input: $input) { deletedId userErrors { message field } }
}
"""

_BUDGET = """
fragment Account on Budget {
  id period amount currency
  project { id name }
  account { spent remaining percent perHour isUsedUp lastsUntil periodBegin periodEnd }
}
"""

FILES = """
query Files($id: ID!, $first: Int!, $after: String, $kind: FileKind) {
  simulation(id: $id) {
    files(first: $first, after: $after, kind: $kind) {
      nodes { kind rank path sizeBytes modifiedAt digest link url }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""

BUDGETS = (
    _BUDGET
    + """
query Budgets($first: Int!, $after: String, $project: ID) {
  budgets(first: $first, after: $after, project: $project) {
    nodes { ...Account }
    pageInfo { hasNextPage endCursor }
  }
}
"""
)

CREATE_BUDGET = (
    _BUDGET
    + """
mutation CreateBudget($input: CreateBudgetInput!) {
  createBudget(input: $input) { budget { ...Account } userErrors { message field } }
}
"""
)

UPDATE_BUDGET = (
    _BUDGET
    + """
mutation UpdateBudget($input: UpdateBudgetInput!) {
  updateBudget(input: $input) { budget { ...Account } userErrors { message field } }
}
"""
)

DELETE_BUDGET = """
mutation DeleteBudget($input: BudgetInput!) {
  deleteBudget(input: $input) { deletedId userErrors { message field } }
}
"""

COSTS = """
query Costs($groupBy: [CostGroup!], $from: DateTime, $to: DateTime, $project: ID) {
  costs(groupBy: $groupBy, from: $from, to: $to, project: $project) {
    rows { project user machine name tag begin sum { ...Sum } }
    totals { ...Sum }
    to hasPrices
  }
}
fragment Sum on CostSum { currency amount wasted saved attempts simulations }
"""

_CHUNK = """
fragment Chunk on LogChunk { cursor attempt stream text(ansi: $ansi) receivedAt }
"""

LOG_PAGE = (
    _CHUNK
    + """
query LogPage($id: ID!, $first: Int!, $after: String, $contains: String, $ansi: Boolean! = false, $rank: Int! = 0) {
  simulation(id: $id) {
    logs(first: $first, after: $after, contains: $contains, rank: $rank) {
      nodes { ...Chunk } pageInfo { hasNextPage endCursor }
    }
  }
}
"""
)

LOGS = (
    _CHUNK
    + """
subscription Logs($id: ID!, $after: String, $ansi: Boolean! = false, $rank: Int! = 0) {
  logs(simulationId: $id, after: $after, rank: $rank) { ...Chunk }
}
"""
)

CONVERGENCE = """
subscription Convergence($id: ID!, $metrics: [String!], $after: String) {
  convergence(simulationId: $id, metrics: $metrics, after: $after) {
    cursor attempt live state reason
    series { metric steps values elapsed supersedesFrom }
  }
}
"""

POINTS = """
subscription Points($id: ID!, $metrics: [String!], $after: String, $maxPoints: Int) {
  convergence(simulationId: $id, metrics: $metrics, after: $after, maxPoints: $maxPoints) {
    cursor attempt live state reason
    series { metric steps values notFinite elapsed supersedesFrom }
  }
}
"""

CHANGES = (
    _SUMMARY
    + """
subscription Changes($id: ID!) { simulationChanged(id: $id) { ...Summary } }
"""
)
