/** What a simulation printed that was no point, from the beginning on, then live, to the end. */
import { subscribe } from '../api/client';
import { graphql } from '../api/graphql';
import type { Chunk } from './lines';

export const LOGS = graphql(`
  subscription Logs($id: ID!, $after: String) {
    logs(simulationId: $id, after: $after) {
      cursor
      attempt
      stream
      text
      receivedAt
    }
  }
`);

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
