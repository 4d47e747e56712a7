/**
 * Links to an operation: `/graphql#query=...&variables=...`. What is behind the # stays in the browser: no server and
 * no log sees it. (`?query=` would be executed.) Headers are never in a link.
 */
import { ToolbarButton, useGraphiQL } from '@graphiql/react';
import { useState } from 'react';

export interface Shared {
  query: string;
  variables?: string;
}

/** What a link brings; null if it brings nothing. */
export function sharedIn(hash: string): Shared | null {
  const given = new URLSearchParams(hash.slice(1));
  const query = given.get('query');
  const variables = given.get('variables');
  return query ? { query, ...(variables && { variables }) } : null;
}

export function linkTo({ query, variables }: Shared): string {
  return `/graphql#${new URLSearchParams({ query, ...(variables && { variables }) }).toString()}`;
}

const OFFER = 'Copy a link to this operation';

export function ShareButton(): React.JSX.Element {
  const { queryEditor, variableEditor } = useGraphiQL(({ queryEditor, variableEditor }) => ({ queryEditor, variableEditor }));
  const [said, say] = useState(OFFER);

  async function share(): Promise<void> {
    const link = linkTo({ query: queryEditor?.getValue() ?? '', variables: variableEditor?.getValue() ?? '' });
    history.replaceState(null, '', link); // where there is no clipboard (plain HTTP from another host), it is in the address bar
    try {
      await navigator.clipboard.writeText(location.href);
      say('The link is copied');
    } catch {
      say('The link is in the address bar');
    }
  }

  return (
    <ToolbarButton label={said} onClick={() => void share()} onPointerEnter={() => say(OFFER)}>
      <svg className="graphiql-toolbar-icon" viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.4" aria-hidden="true">
        <path d="M6.5 9.5l3-3M7 4.5l1.2-1.2a3.1 3.1 0 0 1 4.5 4.5L11.5 9M9 11.5l-1.2 1.2a3.1 3.1 0 0 1-4.5-4.5L4.5 7" />
      </svg>
    </ToolbarButton>
  );
}
