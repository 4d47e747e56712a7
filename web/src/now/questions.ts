/** What is asked only once columns are chosen or simulations are selected: loaded with what asks it. */
import { graphql } from '../api/graphql';
import { row } from './query';

/** Rows by their ids; null where there is none any more. */
export const selected = graphql(
  `
    query Selected($ids: [ID!]!) {
      nodes(ids: $ids) { ...Row }
    }
  `,
  [row],
);

/** Names that columns may have: of the first simulations of a view, and of all that there are. */
export const columnNames = graphql(`
  query ColumnNames($states: [SimulationState!], $project: ID, $machine: ID, $filter: SimulationFilter) {
    simulations(first: 50, states: $states, project: $project, machine: $machine, filter: $filter) {
      nodes { parameters metrics { name direction } }
    }
  }
`);

export const allNames = graphql(`
  query AllNames($contains: String!) {
    names(contains: $contains) {
      metrics { name direction }
      parameters
    }
  }
`);

export const cancelSimulation = graphql(`
  mutation CancelSelected($id: ID!) {
    cancelSimulation(input: { id: $id }) { userErrors { message } }
  }
`);

export const deleteSimulation = graphql(`
  mutation DeleteSelected($id: ID!) {
    deleteSimulation(input: { id: $id }) { userErrors { message } }
  }
`);

export const tagSimulation = graphql(`
  mutation TagSelected($id: ID!, $added: [String!], $removed: [String!]) {
    updateSimulation(input: { id: $id, addTags: $added, removeTags: $removed }) { userErrors { message } }
  }
`);

export const forkSimulation = graphql(`
  mutation ForkSelected($input: ForkSimulationInput!) {
    forkSimulation(input: $input) { simulation { id } userErrors { message } }
  }
`);
