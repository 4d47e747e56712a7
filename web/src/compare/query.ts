/** What the comparison asks of each simulation, and how one finds others. */
import { graphql, type ResultOf } from '../api/graphql';

export const COMPARED = graphql(`
  query Compared($ids: [ID!]!) {
    nodes(ids: $ids) {
      ... on Simulation {
        id
        name
        state
        parameters
        startedAt
        finishedAt
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
          mode
          count
          lastValue
          bestValue
          bestStep
        }
      }
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
  subscription ComparedChanged($id: ID!) {
    simulationChanged(id: $id) {
      id
      state
    }
  }
`);

type Node = NonNullable<ResultOf<typeof COMPARED>['nodes'][number]>;
export type Compared = Extract<Node, { name: string }>;
export type Found = ResultOf<typeof FOUND>['simulations']['nodes'][number];
