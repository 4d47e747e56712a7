import { beforeEach, expect, test } from 'vitest';

import { withoutHeaders } from '../graphiql/storage';

const HISTORY = 'graphiql:queries';
const entry = { query: '{ a }', variables: '{}', headers: '{"authorization": "Bearer secret"}', operationName: 'A' };

/** As a browser's: names are enumerable properties, methods are not. */
function memory(): Storage {
  const storage = Object.create({
    getItem: (name: string) => storage[name] ?? null,
    setItem: (name: string, value: string) => void (storage[name] = value),
    removeItem: (name: string) => void delete storage[name],
  }) as Record<string, string>;
  return storage as unknown as Storage;
}

let storage: Storage;

beforeEach(() => {
  storage = memory();
});

test('the history is kept without its headers', () => {
  const kept = withoutHeaders(storage);
  for (const name of ['queries', 'favorites']) {
    kept.setItem(`graphiql:${name}`, JSON.stringify({ [name]: [entry, entry] }));
    const { query, variables, operationName } = entry;
    expect(JSON.parse(kept.getItem(`graphiql:${name}`)!)).toEqual({ [name]: [{ query, variables, operationName }, { query, variables, operationName }] });
  }
  kept.setItem('graphiql:query', '{ headers }');
  expect(storage.getItem('graphiql:query')).toBe('{ headers }');
});

test('headers that an earlier version left are removed', () => {
  storage.setItem(HISTORY, JSON.stringify({ queries: [entry] }));
  withoutHeaders(storage);
  expect(storage.getItem(HISTORY)).not.toContain('secret');
  expect(storage.getItem(HISTORY)).toContain('{ a }');
});

test('only what is GraphiQL’s is counted and cleared', () => {
  storage.setItem('theme', 'dark');
  const kept = withoutHeaders(storage);
  kept.setItem('graphiql:query', '{ a }');
  expect(kept.length).toBe(1);
  kept.clear();
  expect([kept.length, storage.getItem('theme'), storage.getItem('graphiql:query')]).toEqual([0, 'dark', null]);
});
