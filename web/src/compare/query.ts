/** What the comparison asks of simulations, how they are found, and their curves. */
import { graphql, type ResultOf } from '../api/graphql';

export const COMPARED = graphql(`
  query Compared($ids: [ID!]!) {
    nodes(ids: $ids) {
      ... on Simulation {
        id
        number
        name
        state
        tags
        trial
        parameters
        startedAt
        finishedAt
        objective {
          metric
          mode
        }
        cost {
          amount
          currency
          perHour
        }
        attempts {
          number
          machineName
          assignedAt
          startedAt
          endedAt
          pricePerHour
          share
        }
        metrics {
          name
          direction
        }
      }
    }
  }
`);

export const MATCHING = graphql(`
  query Matching($first: Int!, $states: [SimulationState!], $project: ID, $machine: ID, $filter: SimulationFilter, $orderBy: SimulationOrder!) {
    simulations(first: $first, states: $states, project: $project, machine: $machine, filter: $filter, orderBy: $orderBy) {
      nodes {
        id
      }
      totalCount
    }
  }
`);

export const OF_SWEEP = graphql(`
  query OfSweep($id: ID!, $first: Int!) {
    sweep(id: $id) {
      number
      name
      objective {
        metric
      }
      parameters {
        name
        low
        log
      }
      counts {
        planned
        queued
        running
        complete
        pruned
        failed
      }
      trials(first: $first) {
        nodes {
          simulations {
            id
          }
        }
      }
    }
  }
`);

export const NAMED = graphql(`
  query Named($id: ID!) {
    simulation(id: $id) {
      id
    }
  }
`);

export const FOUND = graphql(`
  query Found($name: String) {
    simulations(first: 10, nameContains: $name) {
      nodes {
        id
        name
        state
        createdAt
        metrics {
          name
        }
      }
    }
  }
`);

export const STATE = graphql(`
  subscription ComparedChanged {
    simulationChanged {
      id
      state
    }
  }
`);

type Node = NonNullable<ResultOf<typeof COMPARED>['nodes'][number]>;
export type Compared = Extract<Node, { name: string }>;
export type Found = ResultOf<typeof FOUND>['simulations']['nodes'][number];
