import { expect, test } from 'vitest';

import type { Hold } from '../src/plan/documents';
import { labelled, lanesOf, rangeOf, ticksOf } from '../src/plan/timeline';

test('labels of the axis never overlap and never leave it, however narrow it is', () => {
  for (const hours of [1, 6, 24, 168]) {
    for (let minute = 0; minute < 60; minute += 7) {
      const ticks = ticksOf(rangeOf(Date.UTC(2026, 10, 30, 9, minute), hours));
      for (const pixels of [0, 200, 364, 700, 1_200]) {
        const places = labelled(ticks, pixels).map(({ left }) => left * pixels);
        for (const [at, place] of places.entries()) expect((places[at + 1] ?? pixels) - place).toBeGreaterThanOrEqual(68);
        if (pixels > 300) expect(places.length).toBeGreaterThan(1);
      }
    }
  }
});

test('where there is room each mark has its label', () => {
  const ticks = [0, 0.25, 0.5, 0.75].map((left) => ({ left }));
  expect(labelled(ticks, 4 * 68)).toEqual(ticks);
  expect(labelled(ticks, 4 * 68 - 4)).toEqual([ticks[0], ticks[2]]);
});

test('each bar has a key of its own, also of runs that may not be seen and began together', () => {
  const hidden: Hold = { kind: 'HELD', share: '0.2', preemptible: false, begin: '2026-11-30T09:00:00Z', expectedEnd: null, latestEnd: null, simulation: null };
  const known: Hold = { ...hidden, simulation: { id: 'U2ltdWxhdGlvbjox', name: 'train', project: { name: 'default' } } };
  const range = rangeOf(Date.UTC(2026, 10, 30, 9, 30), 6);
  const { bars } = lanesOf([hidden, hidden, known, { ...hidden, kind: 'LEAVING' }, known], range);
  expect(new Set(bars.map(({ key }) => key)).size).toBe(5);
  const left = lanesOf([known, hidden], range).bars.map(({ key }) => key);
  expect(left).toEqual([bars[2]!.key, bars[0]!.key]);
});
