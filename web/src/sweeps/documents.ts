/** What the pages of sweeps ask and do. */
import { graphql, type ResultOf } from '../api/graphql';

const ROW = graphql(`
  fragment SweepRow on Sweep @_unmask {
    id
    number
    name
    state
    reason
    reasonDetail
    sampler
    objective { metric mode }
    maxCost
    createdBy
    createdAt
    endedAt
    estimatedEnd
    project { id name }
    counts { planned queued running complete pruned failed cancelled }
    best { number value spread parameters simulations { id } }
    cost { amount currency perHour }
  }
`);

export const SWEEPS = graphql(
  `
    query Sweeps($first: Int!, $after: String, $active: Boolean) {
      sweeps(first: $first, after: $after, active: $active) {
        nodes { ...SweepRow }
        pageInfo { hasNextPage endCursor }
      }
    }
  `,
  [ROW],
);

export const SWEEP = graphql(
  `
    query Sweep($id: ID!) {
      sweep(id: $id) {
        ...SweepRow
        seed
        parallel
        seeds
        patience
        stoppingThreshold
        maxSteps
        entrypoint
        pruning { gracePeriod reductionFactor }
        parameters { name choices low high step log integer }
      }
    }
  `,
  [ROW],
);

/** Asked for on its own: it is computed. */
export const IMPORTANCES = graphql(`
  query Importances($id: ID!) {
    sweep(id: $id) { importances { name importance } }
  }
`);

export const TRIALS = graphql(`
  query Trials($id: ID!, $first: Int!, $after: String) {
    sweep(id: $id) {
      trials(first: $first, after: $after) {
        edges {
          cursor
          node {
            number
            state
            parameters
            value
            spread
            step
            begunAt
            endedAt
            finalCost
            simulations { id number state }
          }
        }
        pageInfo { hasNextPage }
      }
    }
  }
`);

export const CHANGED = graphql(`
  subscription TrialChanged {
    simulationChanged { id state }
  }
`);

export const CANCEL = graphql(`
  mutation CancelSweep($id: ID!) {
    cancelSweep(input: { id: $id }) { userErrors { message } }
  }
`);

export const UPDATE = graphql(`
  mutation UpdateSweep($input: UpdateSweepInput!) {
    updateSweep(input: $input) { userErrors { message field } }
  }
`);

export const CREATE = graphql(`
  mutation CreateSweep($input: CreateSweepInput!) {
    createSweep(input: $input) { sweep { number } userErrors { message field } }
  }
`);

export const RETRY = graphql(`
  mutation RetryWinner($id: ID!) {
    retrySimulation(input: { id: $id }) { simulation { id } userErrors { message } }
  }
`);

export const PROJECTS = graphql(`
  query ProjectsOfSweeps {
    projects(first: 500) { nodes { name } }
  }
`);

export type SweepRow = ResultOf<typeof SWEEPS>['sweeps']['nodes'][number];
export type Sweep = NonNullable<ResultOf<typeof SWEEP>['sweep']>;
export type Trial = NonNullable<ResultOf<typeof TRIALS>['sweep']>['trials']['edges'][number]['node'];
export type Importances = NonNullable<ResultOf<typeof IMPORTANCES>['sweep']>['importances'];
