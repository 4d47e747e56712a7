import { expect, test } from 'vitest';

import { Line, sample } from '../src/curves/sampling';

/** Pseudo-random, the same in every run (Park & Miller 1988). */
function noise(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
}

const xsOf = (length: number): Float64Array => Float64Array.from({ length }, (_, at) => at);

test('each pixel column keeps its first, least, greatest and last point', () => {
  const random = noise(7);
  const xs = xsOf(100_000);
  const ys = Float64Array.from(xs, () => random());
  const line = new Line();
  sample(line, xs, ys, xs.length, [0, 99_999], 500, false);
  expect(line.xs.length).toBeLessThanOrEqual(4 * 501);
  const kept = new Map(line.xs.map((x, at) => [x, line.ys[at]]));
  const width = 99_999 / 500;
  for (let column = 0; column < 500; column++) {
    const from = Math.ceil(column * width);
    const to = Math.ceil((column + 1) * width);
    const inside = ys.subarray(from, to);
    for (const at of [from, to - 1, from + inside.indexOf(Math.min(...inside)), from + inside.indexOf(Math.max(...inside))])
      expect(kept.get(at)).toBe(ys[at]);
  }
});

test('points are in order, and none is there twice', () => {
  const random = noise(11);
  const xs = xsOf(10_000);
  const line = new Line();
  sample(line, xs, Float64Array.from(xs, () => random()), xs.length, [1_000, 7_000], 100, false);
  for (let at = 1; at < line.xs.length; at++) expect(line.xs[at]).toBeGreaterThan(line.xs[at - 1]!);
});

test('few points are all kept, with a neighbour on each side of what is shown', () => {
  const xs = xsOf(10);
  const line = new Line();
  sample(line, xs, xs, 10, [2.5, 6.5], 800, false);
  expect(line.xs).toEqual([2, 3, 4, 5, 6, 7]);
});

test('a stretch that is not finite interrupts the line and is told', () => {
  const line = new Line();
  sample(line, xsOf(6), Float64Array.of(1, 2, NaN, NaN, 5, 6), 6, [0, 5], 100, false);
  expect(line.ys).toEqual([1, 2, NaN, 5, 6]);
  expect(line.gaps).toEqual([[2, 4]]);
});

test('a stretch that is not finite at the end is told too', () => {
  const line = new Line();
  sample(line, xsOf(4), Float64Array.of(1, 2, NaN, NaN), 4, [0, 3], 100, false);
  expect(line.ys).toEqual([1, 2]);
  expect(line.gaps).toEqual([[2, 3]]);
});

test('however often values are not finite, a column costs no more', () => {
  const xs = xsOf(100_000);
  const line = new Line();
  sample(line, xs, Float64Array.from(xs, (x) => (x % 2 ? NaN : x)), xs.length, [0, 99_999], 300, false);
  expect(line.xs.length).toBeLessThanOrEqual(6 * 301);
  expect(line.gaps.length).toBeLessThanOrEqual(301);
});

test('a logarithmic scale leaves out what is not above zero, and counts it', () => {
  const line = new Line();
  sample(line, xsOf(5), Float64Array.of(1, 0, -1, 2, 3), 5, [0, 4], 100, true);
  expect(line.ys).toEqual([1, NaN, 2, 3]);
  expect([line.unplaced, line.gaps.length, line.least]).toEqual([2, 0, 1]);
});
