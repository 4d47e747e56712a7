import { flushSync } from 'svelte';
import { afterEach, expect, test, vi } from 'vitest';

import { LiveCurves } from '../src/curves/live.svelte';

afterEach(() => vi.useRealTimers());

function eventOf(step: number, ...metrics: string[]): Parameters<LiveCurves['add']>[0] {
  return {
    attempt: 1,
    series: metrics.map((metric) => ({ metric, steps: [step], values: [step], elapsed: [step], supersedesFrom: null })),
  };
}

test('what is read is read again once, however many events came', () => {
  vi.useFakeTimers();
  const curves = new LiveCurves();
  const seen: (number | undefined)[] = [];
  const stop = $effect.root(() => {
    $effect(() => void seen.push(curves.series('loss')?.length));
  });
  flushSync();
  for (let step = 0; step < 100; step++) curves.add(eventOf(step, 'loss'));
  vi.runAllTimers();
  flushSync();
  stop();
  expect(seen).toEqual([undefined, 100]);
});

test('a metric has one series for as long as the curves live', () => {
  const curves = new LiveCurves();
  curves.add(eventOf(1, 'loss'));
  const series = curves.series('loss');
  curves.add(eventOf(2, 'loss', 'accuracy'));
  expect(curves.series('loss')).toBe(series);
  expect(curves.metrics).toEqual(['loss', 'accuracy']);
  expect(series?.last).toEqual({ step: 2, value: 2 });
  expect(series?.best('MIN')).toEqual({ step: 1, value: 1 });
  curves.close();
});
