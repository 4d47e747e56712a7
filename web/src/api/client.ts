/**
 * The one way to the server: a WebSocket (graphql-transport-ws) for queries, mutations and subscriptions.
 *
 * graphql-ws's own retry would repeat a subscription with its old variables; it is off. Here one loop brings the
 * connection back, and each subscription begins anew with the variables of that moment: its cursor.
 */
import { print } from '@0no-co/graphql.web';
import type { TadaDocumentNode } from 'gql.tada';
import { createClient, type ExecutionResult, type SubscribePayload } from 'graphql-ws';

import { connection } from './connection.svelte';
import { ExactSocket } from './exactSocket';

const PING_MS = 10_000;
const PONG_MS = 10_000; // a laptop that was asleep, a cable that was pulled: silence is the only sign
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
const FORBIDDEN = 4403;

type Document<Data, Variables> = TadaDocumentNode<Data, Variables>;

/** The server did not answer: what was asked may or may not have been done. */
export class Unreachable extends Error {
  constructor() {
    super('The server cannot be reached. Nothing is known of what became of it; the page goes on trying.');
  }
}

/** The server answered with errors: the message is theirs. */
export class Refused extends Error {
  readonly code: string | undefined;

  constructor(errors: readonly { message: string; extensions?: Record<string, unknown> | undefined }[]) {
    super(errors.map((error) => error.message).join(' '));
    this.code = errors[0]?.extensions?.['code'] as string | undefined;
  }
}

/** Whether what was asked can be answered a moment later: over a connection that is lost, it is asked again anyway. */
export function passes(problem: unknown): boolean {
  return problem instanceof Unreachable ? connection.live : problem instanceof Refused && problem.code === 'UNAVAILABLE';
}

let silence: ReturnType<typeof setTimeout> | undefined;
let recovering = false;
const waiting = new Set<() => void>();

const client = createClient({
  url: `${location.origin.replace(/^http/, 'ws')}/graphql`,
  webSocketImpl: ExactSocket,
  lazyCloseTimeout: 3_600_000,
  retryAttempts: 0,
  keepAlive: PING_MS,
  connectionAckWaitTimeout: 10_000,
  on: {
    connected: () => {
      connection.enter('connected');
      for (const resolve of waiting) resolve();
      waiting.clear();
    },
    ping: (received) => {
      if (!received) silence = setTimeout(() => client.terminate(), PONG_MS);
    },
    pong: (received) => {
      if (received) clearTimeout(silence);
    },
    closed: (event) => {
      clearTimeout(silence);
      if (event instanceof CloseEvent && event.code === FORBIDDEN) {
        connection.enter('signed-out');
      } else {
        if (connection.status !== 'connecting') connection.enter('lost');
        void recover();
      }
    },
  },
});

/** Bring the connection back, however long it takes. */
async function recover(): Promise<void> {
  if (recovering) return;
  recovering = true;
  for (let pause = FIRST_PAUSE_MS; !connection.live; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    await until(pause * (0.5 + Math.random()));
    if (connection.status === 'connecting') connection.enter('lost');
    try {
      await execute({ query: '{ __typename }' });
    } catch {
      // `closed` has reported the error
    }
    if (connection.status === 'signed-out') break;
  }
  recovering = false;
}

/** Wait so long, or until the network or the page comes back. */
async function until(milliseconds: number): Promise<void> {
  const over = new AbortController();
  await new Promise<void>((resolve) => {
    setTimeout(resolve, milliseconds);
    addEventListener('online', () => resolve(), { signal: over.signal });
    document.addEventListener('visibilitychange', () => resolve(), { signal: over.signal });
  });
  over.abort();
}

/** After signing in or out: leave the socket that the old identity opened, and come back with the new one. */
export function reconnect(): void {
  client.terminate();
  connection.enter('connecting');
  void recover();
}

/** Wait until the connection is there. */
export function connected(): Promise<void> {
  return connection.live ? Promise.resolve() : new Promise((resolve) => waiting.add(resolve));
}

function execute(payload: SubscribePayload): Promise<ExecutionResult> {
  return new Promise((resolve, reject) => {
    let result: ExecutionResult | undefined;
    client.subscribe(payload, {
      next: (value) => (result = value as ExecutionResult),
      error: reject,
      complete: () => (result ? resolve(result) : reject(new Unreachable())),
    });
  });
}

function payloadOf<Data, Variables>(document: Document<Data, Variables>, variables: Variables): SubscribePayload {
  return { query: print(document as never), variables: variables as Record<string, unknown> };
}

function problemOf(failure: unknown): Error {
  if (Array.isArray(failure)) return new Refused(failure);
  return failure instanceof Error ? failure : new Unreachable();
}

/** Ask once. Throws `Refused`, or `Unreachable` where the connection is, or gets, lost. */
export async function request<Data, Variables>(
  document: Document<Data, Variables>,
  variables: NoInfer<Variables>,
): Promise<Data> {
  let result: ExecutionResult;
  try {
    result = await execute(payloadOf(document, variables));
  } catch (failure) {
    throw problemOf(failure);
  }
  if (result.errors?.length) throw new Refused(result.errors);
  return result.data as Data;
}

export interface Subscriber<Data, Variables> {
  /** The variables to begin with, and after a lost connection to go on with: the cursor of the last event in them. */
  variables: () => Variables;
  next: (data: Data) => void;
  /** It has come to its end. */
  complete?: () => void;
  /** The server refused it; it does not go on. */
  failed?: (problem: Error) => void;
  /** It begins, for the first time or once more: what was missed in between has to be asked for, or is in its past. */
  begun?: () => void;
}

/** Subscribe, and go on through lost connections until the end, a refusal, or until the returned function is called. */
export function subscribe<Data, Variables>(
  document: Document<Data, Variables>,
  subscriber: Subscriber<Data, Variables>,
): () => void {
  let stopped = false;
  let leave = (): void => {};

  function attempt(): Promise<'over' | 'lost'> {
    return new Promise((resolve) => {
      leave = client.subscribe(payloadOf(document, subscriber.variables()), {
        next: (result) => {
          if (stopped) return;
          if (result.errors?.length) {
            subscriber.failed?.(new Refused(result.errors as never));
            stopped = true;
            leave();
          } else {
            subscriber.next(result.data as Data);
          }
        },
        error: (failure) => {
          if (stopped || !Array.isArray(failure)) return resolve(stopped ? 'over' : 'lost');
          subscriber.failed?.(new Refused(failure));
          resolve('over');
        },
        complete: () => {
          if (!stopped) subscriber.complete?.();
          resolve('over');
        },
      });
      subscriber.begun?.();
    });
  }

  async function run(): Promise<void> {
    while (!stopped && (await attempt()) === 'lost' && !stopped) await connected();
  }

  // Not at once: what a subscriber reads when it begins is no dependency of the effect that subscribes.
  queueMicrotask(() => void run());
  return () => {
    stopped = true;
    leave();
  };
}
