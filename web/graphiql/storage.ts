/**
 * GraphiQL's storage: localStorage, but its history keeps no headers. GraphiQL stores the headers of each request in it,
 * and so the token, even while "Persist headers" is off in its settings.
 */
const PREFIX = 'graphiql:';
const HISTORY = [`${PREFIX}queries`, `${PREFIX}favorites`];

type Kept = Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'clear' | 'length'>;

/** What GraphiQL stores is kept in `storage`; headers that an earlier version left in the history are removed. */
export function withoutHeaders(storage: Storage): Storage {
  const own = (): string[] => Object.keys(storage).filter((name) => name.startsWith(PREFIX));
  const kept: Kept = {
    getItem: (name) => storage.getItem(name),
    setItem: (name, value) => storage.setItem(name, HISTORY.includes(name) ? strip(value) : value),
    removeItem: (name) => storage.removeItem(name),
    clear: () => own().forEach((name) => storage.removeItem(name)),
    get length() {
      return own().length;
    },
  };
  for (const name of HISTORY) {
    const left = storage.getItem(name);
    if (left?.includes('"headers"')) kept.setItem(name, left);
  }
  return kept as Storage;
}

function strip(history: string): string {
  return JSON.stringify(JSON.parse(history, (name, value: unknown) => (name === 'headers' ? undefined : value)));
}
