import { flushSync } from 'svelte';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Finer, type Source, type Steps, stepsWithin } from '../src/curves/finer.svelte';
import { LiveSeries } from '../src/curves/live.svelte';
import { Series } from '../src/curves/series';
import type { Curve } from '../src/curves/trace';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** A curve of so many steps, of which every tenth is held. */
function curveOf(key: string, steps = 1_000, attempt = 1): Curve & { points: Series } {
  const points = new Series('loss');
  const held = Array.from({ length: steps / 10 }, (_, at) => 10 * at);
  points.append(attempt, { metric: 'loss', steps: held, values: held.map((step) => 1 / (1 + step)), elapsed: held.map((step) => step / 2), supersedesFrom: null });
  return { key, label: key, scale: 'y', colour: 0, mode: 'MIN', series: new LiveSeries(points), spans: [], points };
}

function source(most = 100): Source & { asked: [readonly string[], Steps, number][] } {
  const asked: [readonly string[], Steps, number][] = [];
  return {
    asked,
    thinned: (keys) => keys.filter((key) => key !== 'short'),
    most: () => most,
    part: async (keys, steps, fewest) => {
      asked.push([keys, steps, fewest]);
      const found = Array.from({ length: steps[1] - steps[0] + 1 }, (_, at) => steps[0] + at).slice(0, fewest);
      return new Map(keys.map((key) => [key, { steps: found, values: found.map((step) => (step === 105 ? null : step)), elapsed: found, attempts: found.map(() => 1) }]));
    },
  };
}

const stepsOf = (curve: Curve): number[] => [...curve.series.current.steps.subarray(0, curve.series.current.length)];

test('a part that is in sight for a moment is asked for once, and stands between the thinned points', async () => {
  const from = source();
  const finer = new Finer(from);
  const [curve, short] = [curveOf('a'), curveOf('short')];
  for (let move = 0; move < 20; move++) finer.look({ curves: [curve, short], x: 'step', range: [move, 130], width: 800 });
  finer.look({ curves: [curve, short], x: 'step', range: [104, 126], width: 800 });
  await vi.runAllTimersAsync();
  expect(from.asked).toEqual([[['a'], [100, 130], 100]]);
  expect(finer.count).toBe(1);
  expect(stepsOf(finer.of(curve)).slice(9, 42)).toEqual([90, ...Array.from({ length: 31 }, (_, at) => 100 + at), 140]);
  expect(finer.of(curve).series.current.values[15]).toBeNaN();
  expect(finer.of(short)).toBe(short);
  expect(curve.points.length).toBe(100);
});

test('within a part that is complete nothing is asked for, nor for what is dense enough, nor for the whole', async () => {
  const from = source();
  const finer = new Finer(from);
  const curves = [curveOf('a')];
  for (const range of [[104, 126], [110, 120], [0, 990], [112, 118]] as const) {
    finer.look({ curves, x: 'step', range, width: 800 });
    await vi.runAllTimersAsync();
  }
  expect(from.asked).toHaveLength(1);
  finer.look({ curves, x: 'step', range: null, width: 800 });
  await vi.runAllTimersAsync();
  expect(finer.of(curves[0]!)).toBe(curves[0]);
});

test('it asks at the resolution of the chart, and again where that was not enough', async () => {
  const from = source(10_000);
  const finer = new Finer(from);
  const curves = [curveOf('a', 100_000)];
  finer.look({ curves, x: 'step', range: [1_000, 5_000], width: 250 });
  await vi.runAllTimersAsync();
  finer.look({ curves, x: 'step', range: [2_000, 2_100], width: 250 });
  await vi.runAllTimersAsync();
  expect(from.asked.map(([, steps, most]) => [steps, most])).toEqual([[[990, 5_000], 500], [[1_990, 2_100], 500]]);
});

test('points that come later are behind it, and an attempt that supersedes points ends it', async () => {
  const finer = new Finer(source());
  const curve = curveOf('a');
  finer.look({ curves: [curve], x: 'step', range: [104, 126], width: 800 });
  await vi.runAllTimersAsync();
  curve.points.append(1, { metric: 'loss', steps: [1_000], values: [5], elapsed: [500], supersedesFrom: null });
  expect(stepsOf(finer.of(curve)).at(-1)).toBe(1_000);
  curve.points.append(2, { metric: 'loss', steps: [110], values: [7], elapsed: [0], supersedesFrom: 110 });
  expect(stepsOf(finer.of(curve))).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]);
  curve.points.append(2, { metric: 'loss', steps: [111], values: [7], elapsed: [1], supersedesFrom: null });
  expect(stepsOf(finer.of(curve)).at(-1)).toBe(111);
  expect(finer.of(curve).series.current.attemptAt(11)).toBe(2);
});

test('an answer that comes too late is dropped, and a failure is asked again', async () => {
  const answers: ((failure?: Error) => void)[] = [];
  const from = { ...source(), part: vi.fn(() => new Promise<Awaited<ReturnType<Source['part']>>>((resolve, reject) => answers.push((failure) => (failure ? reject(failure) : resolve(new Map()))))) };
  const finer = new Finer(from);
  const curves = [curveOf('a')];
  finer.look({ curves, x: 'step', range: [104, 126], width: 800 });
  await vi.advanceTimersByTimeAsync(300);
  answers[0]!(new Error('away'));
  await vi.advanceTimersByTimeAsync(2_900);
  expect(from.part).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(200);
  expect(from.part).toHaveBeenCalledTimes(2);
  finer.close();
  answers[1]!(new Error('away'));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(from.part).toHaveBeenCalledTimes(2);
});

test('what is drawn is drawn anew once finer points are there', async () => {
  const finer = new Finer(source());
  const curve = curveOf('a');
  const seen: number[] = [];
  const stop = $effect.root(() => {
    $effect(() => void seen.push(finer.of(curve).series.current.length));
  });
  flushSync();
  finer.look({ curves: [curve], x: 'step', range: [104, 126], width: 800 });
  await vi.runAllTimersAsync();
  flushSync();
  stop();
  expect(seen).toEqual([100, 127]);
});

test('along time the steps are those of the points about the range', () => {
  const curve = { ...curveOf('a'), spans: [{ number: 1, assignedAt: 0, startedAt: 0, endedAt: null, perHour: 1 }] };
  expect(stepsWithin(curve, 'elapsed', [52, 63])).toEqual({ steps: [100, 130], points: 4 });
  expect(stepsWithin(curve, 'elapsed', [10_000, 20_000])).toBeNull();
  expect(stepsWithin(curve, 'step', [0, 5])).toEqual({ steps: [0, 10], points: 2 });
});
