/** What the page of the plan asks of the server. */
import { graphql, type ResultOf } from '../api/graphql';

export const Plan = graphql(`
  query Plan($first: Int!, $after: String) {
    plan {
      now
      queued
      machines(first: $first, after: $after) {
        totalCount
        nodes {
          id name state
          resources { cpus gpus }
          holds {
            kind share preemptible begin expectedEnd latestEnd
            simulation { id name project { name } }
          }
        }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
`);

export type Planned = ResultOf<typeof Plan>['plan'];
export type PlannedMachine = Planned['machines']['nodes'][number];
export type Hold = PlannedMachine['holds'][number];
