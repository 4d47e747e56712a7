import { expect, test } from 'vitest';

import { byNumberOrName, bySize, paintAt, scaleOf, sharedOf, valueAt } from '../src/compare/colours';
import { groupsOf, isSeed } from '../src/compare/groups';
import { groupOf, meanOf } from '../src/curves/groups';
import { LiveSeries } from '../src/curves/live.svelte';
import { withoutOutliers } from '../src/curves/outliers';
import { coloursOf, dashOf, shadeOf, stopsOf } from '../src/curves/ramp';
import { Series } from '../src/curves/series';

const line = (xs: number[], values: number[]) => ({ xs: Float64Array.from(xs), values: Float64Array.from(values), length: xs.length });

test('numbers lie along a ramp, by their logarithm where they span decades, and what has none has no place', () => {
  const found = scaleOf(['1e-4', '1e-2', undefined, '1']);
  expect(found).toMatchObject({ kind: 'ramp', least: 1e-4, greatest: 1, log: true });
  expect(found.kind === 'ramp' && found.places.map((place) => place && Number(place.toFixed(6)))).toEqual([0, 0.5, null, 1]);
  expect(found.kind === 'ramp' && valueAt(0.5, found)).toBeCloseTo(1e-2, 12);
  expect(scaleOf(['1', '2', '3'])).toMatchObject({ kind: 'ramp', log: false, places: [0, 0.5, 1] });
  expect(scaleOf(['0', '2', '300'])).toMatchObject({ log: false });
  expect(scaleOf(['1', '2', '300'], false)).toMatchObject({ log: false });
});

test('two numbers, and texts, have a colour each in their own order', () => {
  expect(scaleOf(['128', '64', '128', undefined])).toEqual({ kind: 'named', names: ['64', '128'], colours: [1, 0, 1, null] });
  expect(scaleOf(['sgd', 'adam', 'NaN'])).toEqual({ kind: 'named', names: ['NaN', 'adam', 'sgd'], colours: [2, 1, 0] });
});

test('whole numbers are sorted by all their digits, and numbers before names', () => {
  const sorted = ['-9007199254740993', '-9007199254740992', '0.5', '9', '10', '9007199254740992', '9007199254740993', '9007199254740994.0', '9223372036854775806', '9223372036854775807', '1e300', '10a', 'adam'];
  expect([...sorted].reverse().sort(byNumberOrName)).toEqual(sorted);
  expect([...sorted].reverse().sort(bySize)).toEqual(sorted);
  expect([3, 20, 1].sort(bySize)).toEqual([1, 3, 20]);
});

test('groups have the colour of their members where these share it, else each its own', () => {
  const paints = (values: string[], ...groups: number[][]) => groups.map((members) => members.map((at) => paintAt(scaleOf(values), at)));
  expect(sharedOf(paints(['1', '2', '1', '4'], [0, 2], [1], [3]))).toEqual([{ colour: 0, shade: 0 }, { colour: 0, shade: 1 / 3 }, { colour: 0, shade: 1 }]);
  expect(sharedOf(paints(['1', '2', '1', '4'], [0, 1], [2], [3]))).toBeNull();
  expect(sharedOf(paints(['adam', 'sgd', 'adam'], [1], [0, 2]))).toEqual([{ colour: 1 }, { colour: 0 }]);
  expect(sharedOf([[paintAt(null, 0), paintAt(null, 1)], [paintAt(null, 2)]])).toBeNull();
});

test('curves of one chart have different colours as far as there are some, and dashes beyond', () => {
  const of = (...numbers: number[]): number[] => {
    const colours = coloursOf(Array.from({ length: 40 }, (_, at) => numbers.includes(at)));
    return numbers.map((number) => colours[number]!);
  };
  expect(of(0, 1, 2, 3)).toEqual([0, 1, 2, 3]);
  expect(of(0, 8, 16)).toEqual([0, 7, 6]);
  expect(of(1, 8, 9)).toEqual([1, 0, 7]);
  for (const numbers of [[0, 8, 16, 24, 32, 1, 9, 17], [7, 15, 23, 31, 39], [3, 11, 4, 12]]) {
    const found = of(...numbers.sort((one, other) => one - other));
    expect(new Set(found).size).toBe(numbers.length);
    expect(found.map((colour) => dashOf({ colour }))).toEqual(found.map(() => undefined));
  }
  const many = of(...Array.from({ length: 20 }, (_, at) => 2 * at));
  expect(new Set(many.map((colour) => `${colour % 8} ${dashOf({ colour })}`)).size).toBe(20);
  expect(coloursOf([true, false, true])).toEqual([0, 1, 2]);
  expect(dashOf({ colour: 9, shade: 0.5 })).toBeUndefined();
});

test('a ramp begins and ends with its stops and goes on beyond them no further', () => {
  for (const dark of [true, false]) {
    const stops = stopsOf(dark);
    expect([shadeOf(0, dark), shadeOf(1, dark), shadeOf(7, dark), shadeOf(0.5, dark)]).toEqual([stops[0], stops.at(-1), stops.at(-1), stops[4]]);
  }
});

test('one run that diverged is an outlier, and what all have is none', () => {
  const usual = Array.from({ length: 11 }, (_, at): [number, number] => [0.1 + at / 100, 2.3 + at / 100]);
  expect(withoutOutliers(usual, false)).toBeNull();
  const found = withoutOutliers([...usual, [0.2, 1e6]], false);
  expect(found?.beyond).toBe(1);
  expect(found!.limits[0]).toBe(0.1); // only the side that ruins it is cut
  expect(found!.limits[1]).toBeLessThan(3);
  expect(withoutOutliers([[0, 1], [0, 1e9]], false)).toMatchObject({ beyond: 1, limits: [0, 1] });
  expect(withoutOutliers([[-1e9, 1], [0, 1], [0, 1]], false)).toMatchObject({ beyond: 1, limits: [0, 1] });
  expect(withoutOutliers([[1, 1e6]], false)).toBeNull();
  expect(withoutOutliers([[Infinity, -Infinity], [1, 1], [1, 1]], false)).toBeNull();
  expect(withoutOutliers([[1e-3, 1], [1e-3, 1], [1e-3, 10]], true)).toBeNull();
  expect(withoutOutliers([[1e-3, 1], [1e-3, 1], [1e-3, 1e300]], true)).toMatchObject({ beyond: 1, limits: [1e-3, 1] });
});

test('runs that differ in nothing but the seed are a group', () => {
  for (const name of ['seed', 'SEED', 'random_seed', 'data.seed', 'train/rng_seed']) expect(isSeed(name)).toBe(true);
  for (const name of ['seeds_per_run', 'proceed', 'seedling']) expect(isSeed(name)).toBe(false);
  const runs = [['0.1', '0'], ['0.2', '0'], ['0.1', '1']].map(([lr, seed]) => new Map([['lr', lr!], ['seed', seed!], ['batch', '64']]));
  expect(groupsOf(runs, 'seeds', ['lr', 'seed']).map(({ label, members }) => [label, members])).toEqual([['lr 0.1', [0, 2]], ['lr 0.2', [1]]]);
  expect(groupsOf(runs, 'param:seed', ['lr', 'seed']).map(({ label, members }) => [label, members])).toEqual([['seed 0', [0, 1]], ['seed 1', [2]]]);
  expect(groupsOf(runs, 'param:none', []).map(({ label }) => label)).toEqual(['none not given']);
});

test('a mean is of what there is at a place: equal places are kept, others are read between the points', () => {
  const same = meanOf([line([0, 1, 2], [1, 2, 3]), line([0, 1], [3, NaN])]);
  expect(same.xs).toEqual([0, 1, 2]);
  expect(same.means).toEqual([2, 2, 3]);
  expect(same.highs[0]! - same.means[0]!).toBeCloseTo(Math.SQRT2, 12); // the sample's standard deviation
  expect([same.lows[2], same.highs[2]]).toEqual([3, 3]);
  const apart = meanOf([line([0, 10], [0, 10]), line([5, 15], [5, 15])]);
  expect([apart.xs[0], apart.xs.at(-1)]).toEqual([0, 15]);
  apart.xs.forEach((x, at) => expect(apart.means[at]).toBeCloseTo(x, 9));
  expect(meanOf([line([], [])])).toEqual({ xs: [], means: [], lows: [], highs: [] });
});

test('a group grows with its members', () => {
  const members = [1, 3].map((factor) => {
    const series = new Series('loss');
    series.append(1, { metric: 'loss', steps: [0, 1], values: [factor, 2 * factor], elapsed: [1, 2], supersedesFrom: null });
    return series;
  });
  const { series, spread } = groupOf(members.map((each) => ({ series: new LiveSeries(each), spans: [] })), 'since');
  expect([...series.current.values.subarray(0, series.length)]).toEqual([2, 4]);
  members.forEach((each) => each.append(1, { metric: 'loss', steps: [5], values: [7], elapsed: [3], supersedesFrom: null }));
  expect([...series.current.steps.subarray(0, 3)]).toEqual([0, 1, 5]);
  expect(series.last).toEqual({ step: 5, value: 7 });
  expect([...spread.lows].map((low) => Number(low.toFixed(3)))).toEqual([0.586, 1.172, 7]);
});
