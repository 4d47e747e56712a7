/** What the page of alerts asks of the server. */
import { graphql, type FragmentOf } from '../api/graphql';

const Target = graphql(`
  fragment Target on AlertTarget @_unmask {
    id name transport url kinds isDefault pending deliveredAt failedAt lastError
    projects { id name }
  }
`);

export type Target = FragmentOf<typeof Target>;
export type AlertKind = Target['kinds'][number];

export const Targets = graphql(
  `
    query Targets($after: String) {
      alertTargets(first: 100, after: $after) { nodes { ...Target } pageInfo { hasNextPage endCursor } }
    }
  `,
  [Target],
);

export const ProjectNames = graphql(`
  query ProjectNames { projects(first: 500) { nodes { id name } } }
`);

export const CreateTarget = graphql(`
  mutation AddTarget($input: CreateAlertTargetInput!) {
    createAlertTarget(input: $input) { alertTarget { id name } secret userErrors { code message field } }
  }
`);

export const UpdateTarget = graphql(`
  mutation ChangeTarget($input: UpdateAlertTargetInput!) {
    updateAlertTarget(input: $input) { alertTarget { id name } userErrors { code message field } }
  }
`);

export const TestTarget = graphql(`
  mutation TestTarget($input: AlertTargetInput!) {
    testAlertTarget(input: $input) { delivery { id state error } userErrors { message } }
  }
`);

export const Delivery = graphql(`
  query TestDelivery($id: ID!) { node(id: $id) { ... on AlertDelivery { id state error } } }
`);

export const DeleteTarget = graphql(`
  mutation DeleteTarget($input: AlertTargetInput!) {
    deleteAlertTarget(input: $input) { deletedId userErrors { message } }
  }
`);
