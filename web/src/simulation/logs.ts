/** What a simulation printed that was no point, from the beginning on, then live, to the end. */
import { request, subscribe } from '../api/client';
import { graphql, type ResultOf } from '../api/graphql';
import { PlainText, type Chunk } from './lines';

const PAGE = 200;
const MOST_FOUND = 500; // lines of a search that are shown

export const LOGS = graphql(`
  subscription Logs($id: ID!, $after: String, $rank: Int!) {
    logs(simulationId: $id, after: $after, rank: $rank) {
      cursor
      attempt
      stream
      text(ansi: true)
      receivedAt
    }
  }
`);

const LOG_PAGE = graphql(`
  query LogPage($id: ID!, $first: Int!, $after: String, $rank: Int!) {
    simulation(id: $id) {
      logs(first: $first, after: $after, rank: $rank) { nodes { attempt stream text } pageInfo { hasNextPage endCursor } }
    }
  }
`);

/** Read the whole log of a rank as text, page by page. */
export async function wholeLog(id: string, rank: number): Promise<Blob> {
  const text = new PlainText();
  const parts: string[] = [];
  let after: string | null = null;
  do {
    const page = await pageOf(id, rank, after);
    for (const chunk of page.nodes) parts.push(text.add(chunk));
    after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
  } while (after !== null);
  return new Blob([...parts, text.rest()], { type: 'text/plain' });
}

type Page = NonNullable<ResultOf<typeof LOG_PAGE>['simulation']>['logs'];

async function pageOf(id: string, rank: number, after: string | null): Promise<Page> {
  const { simulation } = await request(LOG_PAGE, { id, first: PAGE, after, rank });
  if (simulation === null) throw new Error('There is no simulation at this address.');
  return simulation.logs;
}

const LOG_SEARCH = graphql(`
  query LogSearch($id: ID!, $first: Int!, $contains: String!, $rank: Int!) {
    simulation(id: $id) {
      logs(first: $first, contains: $contains, rank: $rank) { nodes { cursor attempt stream text } pageInfo { hasNextPage } }
    }
  }
`);

/** Lines of the whole log of a rank that contain a text, oldest first; `more`: there are further ones. */
export async function searchLog(id: string, rank: number, contains: string): Promise<{ lines: Found[]; more: boolean }> {
  const { simulation } = await request(LOG_SEARCH, { id, first: PAGE, contains, rank });
  const lines = (simulation?.logs.nodes ?? []).flatMap(({ cursor, attempt, stream, text }) =>
    text.split('\n').map((line, at) => ({ key: `${cursor} ${at}`, attempt, stream, text: line })),
  );
  return { lines: lines.slice(0, MOST_FOUND), more: lines.length > MOST_FOUND || (simulation?.logs.pageInfo.hasNextPage ?? false) };
}

export interface Found {
  key: string;
  attempt: number;
  stream: Chunk['stream'];
  text: string;
}

/** Follow the log of a rank; after a lost connection behind the last chunk that came. Returns how to leave. */
export function followLog(id: string, rank: number, next: (chunk: Chunk) => void, failed: (problem: Error) => void, complete: () => void): () => void {
  let after: string | null = null;
  return subscribe(LOGS, {
    variables: () => ({ id, after, rank }),
    next: ({ logs }) => {
      after = logs.cursor;
      next(logs);
    },
    failed,
    complete,
  });
}
