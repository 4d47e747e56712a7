import { expect, test } from 'vitest';

import { read, write } from '../src/compare/address';
import { metricsOf, rowsOf } from '../src/compare/differences';
import { digitsOf, moneyAxis } from '../src/curves/axes';
import { rowsBefore } from '../src/curves/rows';
import { Series } from '../src/curves/series';
import { Lines, MOST_LINES } from '../src/simulation/lines';

test('an address is read as it was written, and what is not understood is left out', () => {
  const address = { ids: ['a=', 'b='], metric: 'loss, 1', x: 'cost' as const, log: true, smoothing: 0.6 };
  expect(read(new URLSearchParams(write(address).toString()))).toEqual(address);
  expect(read(new URLSearchParams('ids=a,,a&x=moon&smooth=7'))).toEqual({ ids: ['a'], metric: null, x: 'step', log: false, smoothing: 0 });
  expect(read(new URLSearchParams(`ids=${Array.from({ length: 40 }, (_, at) => at).join(',')}`)).ids).toHaveLength(12);
});

test('parameters that differ come first, nested ones by their way', () => {
  const rows = rowsOf([{ batch: 1, lr: 0.1, optimizer: { name: 'sgd' } }, { batch: 1, lr: 0.2, optimizer: { name: 'sgd' }, extra: null }]);
  expect(rows.map(({ name, values, differs }) => [name, values, differs])).toEqual([
    ['lr', ['0.1', '0.2'], true],
    ['extra', [undefined, 'null'], true],
    ['batch', ['1', '1'], false],
    ['optimizer.name', ['sgd', 'sgd'], false],
  ]);
});

test('metrics that all have come first', () => {
  expect(metricsOf([{ metrics: [{ name: 'a' }, { name: 'z' }] }, { metrics: [{ name: 'z' }] }])).toEqual([
    { name: 'z', common: true },
    { name: 'a', common: false },
  ]);
});

test('neighbours at an axis always differ', () => {
  expect(digitsOf([0, 0.25, 0.5, 0.75], 0.25, false)).toEqual(['0', '0.25', '0.50', '0.75']);
  expect(digitsOf([0, 0.00001, 0.00002], 0.00001, false)).toEqual(['0', '1e-5', '2e-5']);
  expect(digitsOf([0.001, null, 1, 1e9], 1, true)).toEqual(['0.001', '', '1', '1e9']);
  expect(new Set(moneyAxis([0, 0.0001, 0.0002], 'USD')).size).toBe(3);
});

test('a table has the newest rows first, by step over all series', () => {
  const one = new Series('one');
  const other = new Series('other');
  one.append(1, { metric: 'one', steps: [0, 2, 4], values: [1, 2, 3], elapsed: [0, 0, 0], supersedesFrom: null });
  other.append(1, { metric: 'other', steps: [1, 2], values: [7, null], elapsed: [0, 0], supersedesFrom: null });
  expect(rowsBefore([one, other], null, 2)).toEqual([{ step: 4, values: [3, undefined] }, { step: 2, values: [2, NaN] }]);
  expect(rowsBefore([one, other], 2, 9)).toEqual([{ step: 1, values: [undefined, 7] }, { step: 0, values: [1, undefined] }]);
});

test('a log holds so many lines, without a terminal colour, and counts them all', () => {
  const lines = new Lines();
  for (let at = 0; at < 3 * MOST_LINES; at++) lines.add({ attempt: 1, stream: 'STDOUT', text: `\x1b[31mline ${at}\x1b[0m\n` });
  expect(lines.shown).toHaveLength(MOST_LINES);
  expect(lines.shown.at(-1)).toEqual({ number: 3 * MOST_LINES, attempt: 1, stream: 'STDOUT', text: `line ${3 * MOST_LINES - 1}` });
  expect(lines.count).toBe(3 * MOST_LINES);
});
