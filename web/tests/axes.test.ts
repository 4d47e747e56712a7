import { expect, test } from 'vitest';

import { logSplits } from '../src/curves/axes';
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

test('a range within one decade has a tick at each digit', () => {
  expect(logSplits(0.3, 0.5)).toEqual([0.3, 0.4, 0.5]);
});
