/** What a simulation printed that was no point, from the beginning on, then live, to the end. */
import { request, subscribe } from '../api/client';
import { graphql, type ResultOf } from '../api/graphql';
import { PlainText, type Chunk } from './lines';

const PAGE = 200;

export const LOGS = graphql(`
  subscription Logs($id: ID!, $after: String) {
    logs(simulationId: $id, after: $after) {
      cursor
      attempt
      stream
      text(ansi: true)
      receivedAt
    }
  }
`);

const LOG_PAGE = graphql(`
  query LogPage($id: ID!, $first: Int!, $after: String) {
    simulation(id: $id) {
      logs(first: $first, after: $after) { nodes { attempt stream text } pageInfo { hasNextPage endCursor } }
    }
  }
`);

/** Read the whole log as text, page by page. */
export async function wholeLog(id: string): Promise<Blob> {
  const text = new PlainText();
  const parts: string[] = [];
  let after: string | null = null;
  do {
    const page = await pageOf(id, after);
    for (const chunk of page.nodes) parts.push(text.add(chunk));
    after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
  } while (after !== null);
  return new Blob([...parts, text.rest()], { type: 'text/plain' });
}

type Page = NonNullable<ResultOf<typeof LOG_PAGE>['simulation']>['logs'];

async function pageOf(id: string, after: string | null): Promise<Page> {
  const { simulation } = await request(LOG_PAGE, { id, first: PAGE, after });
  if (simulation === null) throw new Error('There is no simulation at this address.');
  return simulation.logs;
}

/** Follow the log; after a lost connection behind the last chunk that came. Returns how to leave. */
export function followLog(id: string, next: (chunk: Chunk) => void, failed: (problem: Error) => void, complete: () => void): () => void {
  let after: string | null = null;
  return subscribe(LOGS, {
    variables: () => ({ id, after }),
    next: ({ logs }) => {
      after = logs.cursor;
      next(logs);
    },
    failed,
    complete,
  });
}
