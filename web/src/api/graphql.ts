/** Documents typed by graph/schema.graphql. `npm run types` writes schema.d.ts out of it. */
import { initGraphQLTada } from 'gql.tada';

import type { introspection } from './schema';

export const graphql = initGraphQLTada<{
  introspection: introspection;
  scalars: {
    DateTime: string; // ISO 8601, UTC
    Decimal: string; // exact; never a JavaScript number until it is shown
    Step: number; // 0 to 2^53
    JSON: unknown;
  };
}>();

export { readFragment } from 'gql.tada';
export type { FragmentOf, ResultOf, VariablesOf } from 'gql.tada';
