import { expect, test } from 'vitest';

import { Curves, Series, type SeriesEvent } from '../src/curves/series';

function points(steps: number[], values: (number | null)[] = steps, supersedesFrom: number | null = null): SeriesEvent {
  return { metric: 'loss', steps, values, elapsed: steps.map((step) => step / 10), supersedesFrom };
}

const stepsOf = (series: Series): number[] => [...series.steps.subarray(0, series.length)];

test('points are appended in order, however many', () => {
  const series = new Series('loss');
  for (let step = 0; step < 5_000; step += 10) series.append(1, points(Array.from({ length: 10 }, (_, at) => step + at)));
  expect(stepsOf(series)).toEqual(Array.from({ length: 5_000 }, (_, step) => step));
  expect(series.elapsed[4_999]).toBeCloseTo(499.9);
});

test('a point that comes twice is taken once', () => {
  const series = new Series('loss');
  series.append(1, points([0, 1, 2]));
  series.append(1, points([1, 2, 3]));
  expect(stepsOf(series)).toEqual([0, 1, 2, 3]);
  expect(series.repeated).toBe(2);
});

test('a later attempt cuts off what older ones said from its first step on', () => {
  const series = new Series('loss');
  series.append(1, points([0, 1, 2, 3], [4, 3, 2, 1]));
  series.append(2, points([2, 3, 4], [20, 30, 40], 2));
  expect(stepsOf(series)).toEqual([0, 1, 2, 3, 4]);
  expect([...series.values.subarray(0, 5)]).toEqual([4, 3, 20, 30, 40]);
  expect(series.beginnings).toEqual([{ attempt: 1, index: 0 }, { attempt: 2, index: 2 }]);
  expect([0, 1, 2, 4].map((index) => series.attemptAt(index))).toEqual([1, 1, 2, 2]);
  expect(series.values[series.best('MIN')]).toBe(3);
  expect(series.cuts).toBe(1);
});

test('an attempt that begins anew leaves nothing of the older ones', () => {
  const series = new Series('loss');
  series.append(1, points([0, 1, 2]));
  series.append(2, points([1, 2], [1, 2], 1));
  series.append(3, points([0], [7], 0));
  expect(stepsOf(series)).toEqual([0]);
  expect(series.beginnings).toEqual([{ attempt: 3, index: 0 }]);
});

test('what an older attempt says afterwards is void', () => {
  const series = new Series('loss');
  series.append(2, points([5], [1], 5));
  series.append(1, points([6], [9]));
  expect(stepsOf(series)).toEqual([5]);
});

test('an attempt cuts a metric with its first points only', () => {
  const series = new Series('loss');
  series.append(1, points([0, 1, 2, 3]));
  series.append(2, points([2], [2], 2));
  series.append(2, points([3, 4]));
  expect(stepsOf(series)).toEqual([0, 1, 2, 3, 4]);
  expect(series.cuts).toBe(1);
});

test('the best value is the first of the least or greatest, without what is not finite', () => {
  const series = new Series('loss');
  series.append(1, points([0, 1, 2, 3, 4], [null, 2, 1, 1, 3]));
  expect(series.best('MIN')).toBe(2);
  expect(series.best('MAX')).toBe(4);
  expect(series.unbounded).toBe(1);
  expect(series.values[0]).toBeNaN();
});

test('metrics are cut each by itself', () => {
  const curves = new Curves();
  curves.add({ attempt: 1, series: [points([0, 1, 2]), { ...points([0, 1, 2]), metric: 'accuracy' }] });
  curves.add({ attempt: 2, series: [points([1], [1], 1)] });
  expect(stepsOf(curves.byMetric.get('loss')!)).toEqual([0, 1]);
  expect(stepsOf(curves.byMetric.get('accuracy')!)).toEqual([0, 1, 2]);
});
