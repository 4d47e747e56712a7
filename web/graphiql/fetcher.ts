/**
 * How GraphiQL asks: queries and mutations by POST, subscriptions over a WebSocket of their own (graphql-transport-ws).
 *
 * The header editor counts for both: on a socket, a browser can send no header, so the token goes into connection_init.
 * Nothing is retried: a repeated subscription would deliver its past twice. Signed-in users are authenticated by cookie.
 */
import type { Fetcher, FetcherOpts, FetcherParams, Observable } from '@graphiql/toolkit';
import { Kind, type OperationDefinitionNode, OperationTypeNode, parse } from 'graphql';
import { createClient, type SubscribePayload } from 'graphql-ws';

type Headers = Record<string, string>;

const SOCKET = `${location.origin.replace(/^http/, 'ws')}/graphql`;

export const fetcher = (({ query, operationName, ...rest }: FetcherParams, options?: FetcherOpts) => {
  const headers = (options?.headers ?? {}) as Headers;
  const operations = operationsIn(query);
  // What GraphiQL knows of the text lags behind for a moment when the tab was changed: it may name one of another tab.
  const named = operations.find((each) => each.name?.value === operationName);
  const params = { ...rest, query, ...(named && { operationName }) };
  const operation = named ?? operations[0];
  return operation?.operation === OperationTypeNode.SUBSCRIPTION ? follow(params, headers) : ask(params, headers);
}) as Fetcher;

function operationsIn(query: string): OperationDefinitionNode[] {
  try {
    return parse(query).definitions.filter((each) => each.kind === Kind.OPERATION_DEFINITION);
  } catch {
    return []; // the server will say what is wrong with it
  }
}

async function ask(params: FetcherParams, headers: Headers): Promise<unknown> {
  const response = await fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json', ...headers },
    body: JSON.stringify(params),
  }).catch(() => {
    throw new Error('The server cannot be reached. Whether it did something is not known.');
  });
  return response.json().catch(() => {
    throw new Error(`The server answered with ${response.status}, and not in JSON.`);
  });
}

function follow(params: FetcherParams, headers: Headers): Observable<unknown> {
  // GraphiQL subscribes with an object of all three functions; its type allows for more.
  const subscribe = (observer: { next(result: unknown): void; error(problem: unknown): void; complete(): void }) => {
    const client = createClient({ url: SOCKET, retryAttempts: 0, connectionParams: { ...tokenIn(headers) } });
    const end = (): void => void client.dispose();
    client.subscribe(params as SubscribePayload, {
      next: (result) => observer.next(result),
      error: (failure) => {
        observer.error(problemOf(failure));
        end();
      },
      complete: () => {
        observer.complete();
        end();
      },
    });
    return { unsubscribe: end };
  };
  return { subscribe } as Observable<unknown>;
}

/** Case says nothing in a header's name; in connection_init it does. */
function tokenIn(headers: Headers): { authorization?: string } {
  const found = Object.entries(headers).find(([name]) => name.toLowerCase() === 'authorization');
  return found ? { authorization: found[1] } : {};
}

function problemOf(failure: unknown): unknown {
  if (!(failure instanceof CloseEvent)) return failure;
  const reason = failure.reason ? `: ${failure.reason}` : '.';
  return new Error(`The connection was closed (${failure.code})${reason} To go on, run it with the last cursor as \`after\`.`);
}
