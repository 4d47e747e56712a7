/** What the page of API tokens asks of the server. */
import { graphql, type FragmentOf } from '../api/graphql';

const Token = graphql(`
  fragment TokenLine on Token @_unmask {
    id name role createdBy createdAt expiresAt revokedAt lastUsedAt
    projects { id name }
  }
`);

export type Token = FragmentOf<typeof Token>;

export const Tokens = graphql(
  `
    query Tokens($after: String) {
      tokens(first: 100, after: $after) { nodes { ...TokenLine } pageInfo { hasNextPage endCursor } }
    }
  `,
  [Token],
);

export const CreateToken = graphql(`
  mutation AddToken($input: CreateTokenInput!) {
    createToken(input: $input) { token { id name } secret userErrors { code message field } }
  }
`);

export const RevokeToken = graphql(`
  mutation RevokeToken($input: TokenInput!) {
    revokeToken(input: $input) { token { id } userErrors { message } }
  }
`);
