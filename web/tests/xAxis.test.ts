import { expect, test } from 'vitest';

import { XColumn, type Span, type XKind } from '../src/curves/xAxis';
import { Series } from '../src/curves/series';
import { View } from '../src/curves/view';

const HOUR = 3_600_000;
const SPANS: Span[] = [
  { number: 1, assignedAt: 0, startedAt: 10_000, endedAt: 110_000, perHour: 36 },
  { number: 2, assignedAt: HOUR, startedAt: HOUR + 5_000, endedAt: null, perHour: 72 },
];

function seriesOf(): Series {
  const series = new Series('loss');
  series.append(1, { metric: 'loss', steps: [0, 1], values: [1, 2], elapsed: [1, 2], supersedesFrom: null });
  series.append(2, { metric: 'loss', steps: [2, 3], values: [3, 4], elapsed: [1, 2], supersedesFrom: 2 });
  return series;
}

function xsOf(kind: XKind, spans: readonly Span[] = SPANS): number[] {
  const places = new XColumn(kind);
  places.follow(seriesOf(), spans);
  return [...places.xs.subarray(0, places.length)];
}

test('running time goes on over attempts, without the wait between them', () => {
  expect(xsOf('elapsed')).toEqual([1, 2, 101, 102]);
});

test('clock time is that of the attempt', () => {
  expect(xsOf('wall')).toEqual([11, 12, 3_606, 3_607]);
});

test('money runs from assignment to the end of each attempt, at its price', () => {
  const found = xsOf('cost');
  const expected = [0.11, 0.12, 1.1 + 0.12, 1.1 + 0.14]; // 36 an hour is 0.01 a second
  expected.forEach((money, at) => expect(found[at]).toBeCloseTo(money, 10));
});

test('points whose time was not asked for are placed by step alone, also where a later one has a time', () => {
  const series = new Series('loss');
  series.append(1, { metric: 'loss', steps: [5, 6], values: [1, 2], supersedesFrom: null });
  series.append(1, { metric: 'loss', steps: [7], values: [3], elapsed: [3], supersedesFrom: null });
  series.append(2, { metric: 'loss', steps: [8], values: [4], elapsed: [1], supersedesFrom: 8 });
  const placed = (['step', 'since', 'elapsed', 'wall', 'cost'] as const).map((kind) => {
    const places = new XColumn(kind);
    places.follow(series, SPANS);
    return [...places.xs.subarray(0, places.length)];
  });
  expect(placed).toEqual([[5, 6, 7, 8], [0, 1, 2, 3], [], [], []]);
  series.clear();
  series.append(1, { metric: 'loss', steps: [5, 6], values: [1, 2], elapsed: [1, 2], supersedesFrom: null });
  const places = new XColumn('elapsed');
  places.follow(series, SPANS);
  expect([...places.xs.subarray(0, places.length)]).toEqual([1, 2]);
});

test('points of an attempt that is not known yet wait for it', () => {
  expect(xsOf('elapsed', SPANS.slice(0, 1))).toEqual([1, 2]);
});

test('a zoom stays while points come, and what follows goes along', () => {
  const view = new View();
  expect(view.range([0, 10])).toEqual([0, 10]);
  expect(view.range([0, 20])).toEqual([0, 20]);
  view.zoomTo(5, 8);
  expect([view.range([0, 30]), view.following]).toEqual([[5, 8], false]);
  view.follow([0, 30]);
  expect([view.range([0, 30]), view.range([0, 40]), view.following]).toEqual([[27, 30], [37, 40], true]);
  view.showAll();
  expect([view.range([0, 40]), view.whole]).toEqual([[0, 40], true]);
});

test('panning ends at the first and at the newest point', () => {
  const view = new View();
  view.zoomTo(4, 6);
  view.panBy(-10, [0, 10]);
  expect(view.range([0, 10])).toEqual([0, 2]);
  view.panBy(10, [0, 10]);
  expect(view.range([0, 10])).toEqual([8, 10]);
});
