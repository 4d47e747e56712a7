import { afterEach, beforeEach, expect, test, vi } from 'vitest';

const server = vi.hoisted(() => ({ live: true, back: () => {} }));
vi.mock('../src/api/client', () => {
  class Unreachable extends Error {}
  return {
    Unreachable,
    passes: (failure: Error) => (failure instanceof Unreachable ? server.live : failure.message === 'away'),
    connected: () => new Promise<void>((resolve) => (server.back = resolve)),
  };
});
const { Asking } = await import('../src/api/asking.svelte');
const { Unreachable } = await import('../src/api/client');

beforeEach(() => {
  server.live = true;
  vi.useFakeTimers();
  vi.stubGlobal('document', { hidden: false });
});
afterEach(() => vi.useRealTimers());

const after = (milliseconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(milliseconds);

test('it asks at once and at intervals, less often out of sight, and no more once it is closed', async () => {
  const ask = vi.fn(async () => {});
  const asking = new Asking(ask, { every: () => 10_000 });
  asking.now();
  await after(0);
  expect(ask).toHaveBeenCalledTimes(1);
  await after(10_000);
  expect(ask).toHaveBeenCalledTimes(2);
  vi.stubGlobal('document', { hidden: true });
  await after(10_000);
  await after(59_000);
  expect(ask).toHaveBeenCalledTimes(3);
  await after(1_000);
  expect(ask).toHaveBeenCalledTimes(4);
  asking.close();
  asking.now();
  await after(600_000);
  expect(ask).toHaveBeenCalledTimes(4);
});

test('what fails while the database is away is asked again in seconds, even where nothing else would ask', async () => {
  const ask = vi.fn(async () => {}).mockRejectedValueOnce(new Error('away'));
  const asking = new Asking(ask, { every: () => null });
  asking.now();
  await after(0);
  expect(asking.problem).toBe('away');
  await after(3_000);
  expect(ask).toHaveBeenCalledTimes(2);
  expect(asking.problem).toBe('');
  await after(600_000);
  expect(ask).toHaveBeenCalledTimes(2);
});

test('a refusal stands and is asked again at the interval only', async () => {
  const ask = vi.fn(async () => {}).mockRejectedValue(new Error('Forbidden.'));
  const asking = new Asking(ask, { every: () => 30_000 });
  asking.now();
  await after(29_000);
  expect(ask).toHaveBeenCalledTimes(1);
  expect(asking.problem).toBe('Forbidden.');
  await after(1_000);
  expect(ask).toHaveBeenCalledTimes(2);
  asking.close();
});

test('over a lost connection it is asked again as soon as that is back, without a sentence of its own', async () => {
  server.live = false;
  const ask = vi.fn(async () => {}).mockRejectedValueOnce(new Unreachable());
  const asking = new Asking(ask, { every: () => null });
  asking.now();
  await after(60_000);
  expect(ask).toHaveBeenCalledTimes(1);
  expect(asking.problem).toBe('');
  server.back();
  await after(0);
  expect(ask).toHaveBeenCalledTimes(2);
});

test('hints lead to a question at most so often, and none is lost while an answer is on its way', async () => {
  let answer = (): void => {};
  const ask = vi.fn(() => new Promise<void>((resolve) => (answer = resolve)));
  const asking = new Asking(ask, { every: () => null, atLeast: 2_000 });
  asking.now();
  for (let hints = 0; hints < 50; hints++) asking.soon();
  await after(500);
  answer();
  await after(1_499);
  expect(ask).toHaveBeenCalledTimes(1);
  for (let hints = 0; hints < 50; hints++) asking.soon();
  await after(1);
  expect(ask).toHaveBeenCalledTimes(2);
  answer();
  await after(600_000);
  expect(ask).toHaveBeenCalledTimes(2);
});
