import { expect, test } from 'vitest';

import { Series } from '../src/curves/series';
import { Smoothed } from '../src/curves/smoothing';

/** By the definition, from the beginning: sum of w^(n-i) x_i over sum of w^(n-i). */
function directly(values: readonly (number | null)[], weight: number): number[] {
  const seen: number[] = [];
  return values.map((value) => {
    if (value === null) return NaN;
    seen.push(value);
    const weights = seen.map((_, at) => weight ** (seen.length - 1 - at));
    return seen.reduce((sum, each, at) => sum + each * weights[at]!, 0) / weights.reduce((sum, each) => sum + each, 0);
  });
}

function seriesOf(values: readonly (number | null)[], attempt = 1, from = 0, series = new Series('loss')): Series {
  const steps = values.map((_, at) => from + at);
  series.append(attempt, { metric: 'loss', steps, values, elapsed: steps, supersedesFrom: attempt > 1 ? from : null });
  return series;
}

function expectClose(column: Float64Array, expected: readonly number[]): void {
  for (const [at, value] of expected.entries()) {
    if (Number.isNaN(value)) expect(column[at]).toBeNaN();
    else expect(column[at]).toBeCloseTo(value, 10);
  }
}

test('it is the weighted mean, unbiased from the first point on', () => {
  const values = [4, 2, 8, 1, 1, 3];
  expectClose(new Smoothed(0.6).follow(seriesOf(values)), directly(values, 0.6));
});

test('what is not finite stays a gap and does not touch it', () => {
  const values = [4, null, 8, null, null, 3];
  expectClose(new Smoothed(0.9).follow(seriesOf(values)), directly(values, 0.9));
});

test('it goes on where it was, and is the same as if all had come at once', () => {
  const values = Array.from({ length: 3_000 }, (_, at) => Math.sin(at) + at / 100);
  const series = new Series('loss');
  const smoothed = new Smoothed(0.95);
  for (let at = 0; at < values.length; at += 7) {
    seriesOf(values.slice(at, at + 7), 1, at, series);
    smoothed.follow(series);
  }
  expectClose(smoothed.follow(series), [...new Smoothed(0.95).follow(seriesOf(values)).subarray(0, 3_000)]);
});

test('it begins anew when a later attempt cut something off', () => {
  const series = seriesOf([5, 4, 3, 2]);
  const smoothed = new Smoothed(0.5);
  smoothed.follow(series);
  seriesOf([9, 9], 2, 2, series);
  expectClose(smoothed.follow(series), directly([5, 4, 9, 9], 0.5));
});
