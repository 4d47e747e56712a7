import { expect, test } from 'vitest';

import { digitsOf, incrementOf, linearSplits, logSplits, withoutTouching } from '../src/curves/axes';
import { columnOf } from '../src/curves/layers';
import { limitsOf } from '../src/curves/trace';

const ENDS = [Number.MIN_VALUE, 1e-300, 1e-23, 1e-5, 0.37, 1, 42, 1e16, 1e22, 1e300, Number.MAX_VALUE];
const PAIRS = ENDS.flatMap((least) => ENDS.filter((greatest) => greatest >= least).map((greatest) => [least, greatest] as const));

test.each(PAIRS)('a logarithmic axis from %d to %d has a few rising ticks within its limits', (least, greatest) => {
  const [min, max] = limitsOf([least, greatest], true);
  expect(min).toBeGreaterThan(0);
  expect(min).toBeLessThanOrEqual(least);
  expect(max).toBeGreaterThanOrEqual(greatest);
  expect(max).toBeLessThan(Infinity);
  expect(min).toBeLessThan(max);
  const splits = logSplits(min, max);
  expect(splits.length).toBeGreaterThan(1);
  expect(splits.length).toBeLessThan(25);
  expect(splits).toEqual([...splits].sort((one, other) => one - other));
  expect(splits.every((split) => split >= min && split <= max)).toBe(true);
});

test('labels that would touch others are left out, powers of ten last', () => {
  const splits = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
  const labels = splits.map(String);
  const along = (width: number): number[] => splits.map((split) => (width * (Math.log10(split) + 3)) / 2);
  expect(withoutTouching(labels, splits, along(1_000))).toEqual(labels);
  expect(withoutTouching(labels, splits, along(250))).toEqual(['0.001', '', '', '0.01', '0.02', '0.05', '0.1']);
  expect(withoutTouching(labels, splits, along(100))).toEqual(['0.001', '', '', '0.01', '', '', '0.1']);
});

test('a range within one decade has a tick at each digit', () => {
  expect(logSplits(0.3, 0.5)).toEqual([0.3, 0.4, 0.5]);
});

test.each([
  [[0, 1e29, 2.9999999999999996e29, 4.9999999999999990e29, 1.0999999999999999e30], 1e29, ['0', '1e29', '3e29', '5e29', '1.1e30']],
  [[1e6, 1.25e6, 1.5e6], 250_000, ['1e6', '1.25e6', '1.5e6']],
  [[900_000, 1_000_000, 1_100_000], 100_000, ['9e5', '1e6', '1.1e6']],
  [[50_000, 100_000, 950_000], 50_000, ['50,000', '100,000', '950,000']],
  [[5e-5, 1e-4, 1.5e-4], 5e-5, ['0.00005', '0.00010', '0.00015']],
  [[1_000_000, 1_000_001], 1, ['1e6', '1.000001e6']],
  [[1e-5, 1.5000000000000002e-5], 5e-6, ['1e-5', '1.5e-5']],
])('places that are sums of increments are labelled without what rounding has left: %j', (splits, increment, labels) => {
  expect(digitsOf(splits, increment, false)).toEqual(labels);
});

const FAR = [-Number.MAX_VALUE, -1e308, -1, 0, Number.MIN_VALUE, 1e-320, 1e-300, 1, 1e308, Number.MAX_VALUE];
const SPANS = FAR.flatMap((least) => FAR.filter((greatest) => greatest >= least).map((greatest) => [least, greatest] as const));

test.each(SPANS)('a linear axis from %d to %d has a range that is a double', (least, greatest) => {
  const [min, max] = limitsOf([least, greatest], false);
  expect(max - min).toBeGreaterThan(0);
  expect(max - min).toBeLessThan(Infinity);
  const size = Math.max(Math.abs(least), Math.abs(greatest));
  if (size) expect((max - min) / size).toBeLessThanOrEqual(4);
});

const WIDE = [-1e308, -1, 0, 1e-320, 1e-300, 1e-40, 1e-18, 0.37, 1, 1e16, 1e33, 1e100, 1e308];
const SCALES = WIDE.flatMap((least) => WIDE.filter((greatest) => greatest > least).map((greatest) => [least, greatest] as const));

test.each(SCALES)('a linear axis from %d to %d has a few numbers, all different', (least, greatest) => {
  const [min, max] = limitsOf([least, greatest], false);
  const increment = incrementOf((max - min) / 8);
  const splits = linearSplits(min, max, increment);
  expect(splits.length).toBeGreaterThan(1);
  expect(splits.length).toBeLessThan(12);
  expect(new Set(digitsOf(splits, increment, false)).size).toBe(splits.length);
  expect(splits.every((split) => split >= min && split <= max)).toBe(true);
});

test('increments are short, and their multiples have no rest of rounding', () => {
  expect([0.11, 0.2, 2.1, 26, 5e-20].map(incrementOf)).toEqual([0.2, 0.2, 2.5, 50, 5e-20]);
  expect(linearSplits(-0.31, 0.72, 0.1)).toEqual([-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]);
});

test.each([[1, 14.9], [1.5, 1120.33], [2, 0.0044]])('a mark at either end of an axis is in sight at %f device pixels', (ratio, last) => {
  const bbox = { left: 47 * ratio, top: 0, width: 1073.4 * ratio, height: 300 };
  const at = (x: number): number | null => columnOf({ bbox, valToPos: (value: number) => bbox.left + (value / last) * bbox.width }, x);
  for (const x of [0, last / 3, last]) expect(at(x)).not.toBeNull();
  for (const x of [-0.01 * last, 1.01 * last]) expect(at(x)).toBeNull();
});
