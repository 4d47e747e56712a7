/** The rows of a list: what is announced while they are read. */
import { expect, test, vi } from 'vitest';

const { request } = vi.hoisted(() => ({ request: vi.fn() }));
vi.mock('../src/api/client', () => ({ request, passes: () => false, Unreachable: Error }));

import { readView, sectionsOf } from '../src/now/filter';
import type { Row } from '../src/now/query';
import { Rows } from '../src/now/rows.svelte';

test('a sorted list has a row that is announced while it is read for the first time', async () => {
  vi.useFakeTimers();
  const view = readView(new URLSearchParams('sort=+name'));
  const rows = new Rows(sectionsOf(view)[0]!, view, (problem) => { throw problem; });
  const nodes = ['1', '2', '3'].map((id) => ({ id, name: id, state: 'FINISHED', createdAt: '2026-11-01T00:00:00Z', tags: [] }) as unknown as Row);
  let answer: (page: unknown) => void = () => {};
  request.mockReturnValueOnce(new Promise((resolve) => (answer = resolve)));
  const loading = rows.load();
  rows.take(nodes[1]!);
  answer({ simulations: { nodes, totalCount: 3, pageInfo: { hasNextPage: false, endCursor: null } } });
  await loading;
  expect(rows.sorted.map(({ id }) => id)).toEqual(['1', '2', '3']);
  rows.close();
  vi.useRealTimers();
});
