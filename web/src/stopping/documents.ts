/** What the dialog asks of the server. */
import { graphql, type VariablesOf } from '../api/graphql';

export const UpdateSimulation = graphql(`
  mutation Update($input: UpdateSimulationInput!) {
    updateSimulation(input: $input) {
      simulation { id }
      userErrors { code message field }
    }
  }
`);

export type UpdateSimulationInput = VariablesOf<typeof UpdateSimulation>['input'];
