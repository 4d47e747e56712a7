/** What the page of what runs now asks for. */
import { graphql, type FragmentOf, type ResultOf } from '../api/graphql';
import { mainMetric } from '../curves/mainMetric';

export const row = graphql(`
  fragment Row on Simulation @_unmask {
    id
    name
    state
    reason
    reasonDetail
    tags
    createdAt
    startedAt
    finishedAt
    waiting { reason detail until }
    stopWanted { reason by detail }
    project { id name }
    machine { id name }
    cost { amount currency perHour }
    objective { metric mode }
    metrics { name mode lastStep lastValue bestValue }
  }
`);

export type Row = FragmentOf<typeof row>;

/** The metric whose value and curve stand in a row: the objective; null while nothing was reported. */
export function chiefOf({ objective, metrics }: Pick<Row, 'objective' | 'metrics'>): string | null {
  return metrics.find(({ name }) => name === objective?.metric)?.name ?? mainMetric(metrics);
}

export const list = graphql(
  `
    query Simulations($first: Int!, $after: String, $states: [SimulationState!], $project: ID, $machine: ID, $name: String, $direction: OrderDirection!) {
      simulations(
        first: $first
        after: $after
        states: $states
        project: $project
        machine: $machine
        nameContains: $name
        orderBy: { field: CREATED_AT, direction: $direction }
      ) {
        nodes { ...Row }
        pageInfo { hasNextPage endCursor }
        totalCount
      }
    }
  `,
  [row],
);

export const changed = graphql(
  `
    subscription Changed($project: ID) {
      simulationChanged(project: $project) { ...Row }
    }
  `,
  [row],
);

export const glance = graphql(`
  query Glance {
    overview { queued starting running cost { amount currency perHour } }
  }
`);

export type Glance = ResultOf<typeof glance>['overview'];

export const choices = graphql(`
  query Choices {
    projects(first: 500) { nodes { id name } }
  }
`);

export const machineParts = graphql(`
  fragment MachineParts on Machine @_unmask {
    id
    name
    state
    pricePerHour
    currency
    resources { cpus memoryGib gpus gpuModel }
    free { cpus memoryGib gpus }
  }
`);

export type MachineParts = FragmentOf<typeof machineParts>;

export const machines = graphql(
  `
    query MachinesNow {
      machines(first: 100) {
        nodes { ...MachineParts }
        pageInfo { hasNextPage }
      }
    }
  `,
  [machineParts],
);

export const machineChanged = graphql(
  `
    subscription MachinesChanged {
      machineChanged { ...MachineParts }
    }
  `,
  [machineParts],
);

export const demo = graphql(`
  mutation Demo($input: CreateSimulationInput!) {
    createSimulation(input: $input) {
      simulation { id }
      userErrors { message }
    }
  }
`);

/** Of rows whose first metric is the same: what has become of them since. */
export const pulses = graphql(`
  query Pulses($ids: [ID!]!, $metric: String!) {
    nodes(ids: $ids) {
      ... on Simulation {
        id
        objective { metric mode }
        metrics { name mode lastStep lastValue bestValue }
        convergence(metric: $metric, maxPoints: 60) { steps values }
      }
    }
  }
`);

export const cancel = graphql(`
  mutation Cancel($id: ID!) {
    cancelSimulation(input: { id: $id }) {
      simulation { id state }
      userErrors { message }
    }
  }
`);
