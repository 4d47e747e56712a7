import { expect, test } from 'vitest';

import { choosing, read, write } from '../src/compare/address';
import { metricsOf, rowsOf } from '../src/compare/differences';
import { digitsOf, moneyAxis, wallAxis } from '../src/curves/axes';
import { mainMetric } from '../src/curves/mainMetric';
import { rowsBefore } from '../src/curves/rows';
import { Series } from '../src/curves/series';
import { Lines, MOST_LINES } from '../src/simulation/lines';
import { isDrawn, systemMetricsOf } from '../src/simulation/system';
import { ALL, kindsOf, transportOf } from '../src/alerts/kinds';
import { agoOf, durationOf, moneyOf, priceOf, valueOf } from '../src/ui/format';
import { tagsOf, writtenTags } from '../src/ui/tags';
import cases from '../../tests/support/money.json';

test('an address is read as it was written, and what is not understood is left out', () => {
  const look = { metric: 'loss, 1', x: 'cost' as const, log: true, smoothing: 0.6, clip: true, colour: 'param:lr', group: 'seeds' };
  const written = Object.entries({ ...choosing(['a=', 'b=']), ...write(look) }).flatMap(([name, value]) => (value === null ? [] : [[name, value]]));
  expect(read(new URLSearchParams(new URLSearchParams(written).toString()))).toEqual({ ids: ['a=', 'b='], sweep: null, filter: null, sort: null, ...look });
  const nothing = { metric: null, x: 'step', log: false, smoothing: 0, clip: false, colour: null, group: null };
  expect(read(new URLSearchParams('ids=a,,a&x=moon&smooth=7&colour=param:&group=all&clip=yes'))).toEqual({ ids: ['a'], sweep: null, filter: null, sort: null, ...nothing });
  expect(read(new URLSearchParams(`ids=${Array.from({ length: 140 }, (_, at) => at).join(',')}`)).ids).toHaveLength(100);
  const filtered = read(new URLSearchParams('tag=a,b&where=lr<1e-3&sort=best:val/loss'));
  expect([filtered.filter?.tags, filtered.filter?.where, filtered.sort]).toEqual([['a', 'b'], ['lr<1e-3'], { field: 'BEST', name: 'val/loss' }]);
  expect(read(new URLSearchParams('sweep=3')).sweep).toBe('3');
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
  expect(moneyAxis([0, 0.0025, 0.005], 'USD')).toEqual(['0.0000 USD', '0.0025 USD', '0.0050 USD']);
});

test('a clock at an axis says the whole time, and the day where it begins', () => {
  const midnight = new Date(2026, 10, 26).getTime() / 1_000;
  const [first, ...others] = wallAxis([midnight - 60, midnight - 30, midnight, midnight + 30], 30);
  expect(first).toMatch(/25.*\n.*11:59:00|25.*\n.*23:59:00/);
  expect(others[0]).toMatch(/^(11|23):59:30/);
  expect(others[1]).toMatch(/26.*\n/);
  expect(others[2]).toMatch(/^(12|00):00:30/);
  expect(wallAxis([midnight, midnight + 86_400], 86_400).join()).not.toContain(':');
});

test('system metrics have units, GPUs come first in their order, and few are drawn at first', () => {
  const gpus = [10, 2].flatMap((index) => ['memory', 'power', 'utilization'].map((name) => `system/gpu.${index}.${name}`));
  const metrics = systemMetricsOf(['loss', 'system/disk_read', 'system/memory', 'system/memory_percent', 'system/cpu', ...gpus]);
  expect(metrics.map(({ label }) => label)).toEqual([
    'gpu 2 utilization, %', 'gpu 10 utilization, %', 'cpu, cpus', 'memory, GiB', 'disk read, MiB/s',
    'gpu 2 memory, GiB', 'gpu 2 power, W', 'gpu 10 memory, GiB', 'gpu 10 power, W', 'memory of all, %',
  ]);
  expect(metrics.filter(isDrawn).map(({ name }) => name)).toEqual([
    'system/gpu.2.utilization', 'system/gpu.10.utilization', 'system/cpu', 'system/memory',
  ]);
});

test('a series without a direction has no best value', () => {
  const series = new Series('system/cpu');
  series.append(1, { metric: 'system/cpu', steps: [1, 2], values: [3, 1], elapsed: [0, 1], supersedesFrom: null });
  expect([series.best(null), series.best('MIN'), series.best('MAX')]).toEqual([-1, 1, 0]);
});

test('what sounds like a loss is looked at first', () => {
  expect(mainMetric(['accuracy', 'gpu_temperature', 'validation/loss', 'loss'].map((name) => ({ name })))).toBe('loss');
  expect(mainMetric([{ name: 'b' }, { name: 'a' }])).toBe('a');
  expect(mainMetric([])).toBeNull();
});

test('an amount is never shown as nothing if it is not', () => {
  for (const [amount, currency, text] of cases.money as string[][]) expect(moneyOf(Number(amount), currency!)).toBe(text);
  for (const [amount, currency, text] of cases.price as string[][]) expect(priceOf(amount!, currency!)).toBe(text);
});

test('an alert target is a webhook unless its address is one of Apprise', () => {
  expect(kindsOf(ALL)).toBe('everything');
  expect(kindsOf(['FAILED', 'TARGET_REACHED'])).toBe('failed, target reached');
  expect([transportOf('https://hooks.example.org/x', false), transportOf(' HTTP://a', false)]).toEqual(['WEBHOOK', 'WEBHOOK']);
  expect([transportOf('https://hooks.example.org/x', true), transportOf('slack://a/b/c', false)]).toEqual(['APPRISE', 'APPRISE']);
});

test('what grows is told in whole seconds, and numbers in few digits', () => {
  expect([agoOf(1.2), agoOf(5.7), agoOf(3_725)]).toEqual(['just now', '5 s ago', '1 h ago']);
  expect([durationOf(2.44), durationOf(59.6), durationOf(125)]).toEqual(['2.4 s', '1 min', '2 min 5 s']);
  expect([1e-7, 123_456.7, 1e9, 0, -0.25, null].map(valueOf)).toEqual(['1e-7', '123456.7', '1e9', '0', '-0.25', 'not finite']);
  expect([5e-324, 1e-5, -1.23456e-7, 1.00001e-7, 1.5e6, Number.MAX_VALUE].map(valueOf)).toEqual(['5e-324', '1e-5', '-1.235e-7', '1e-7', '1.5e6', '1.798e308']);
  expect([0.999998, -1.0000004, 1, 2.9999999999999996, 0.99996].map(valueOf)).toEqual(['0.999998', '-1.0000004', '1', '3', '0.99996']);
});

test('a table has the newest rows first, by step over all series', () => {
  const one = new Series('one');
  const other = new Series('other');
  one.append(1, { metric: 'one', steps: [0, 2, 4], values: [1, 2, 3], elapsed: [0, 0, 0], supersedesFrom: null });
  other.append(1, { metric: 'other', steps: [1, 2], values: [7, null], elapsed: [0, 0], supersedesFrom: null });
  expect(rowsBefore([one, other], null, 2)).toEqual([{ step: 4, values: [3, undefined] }, { step: 2, values: [2, NaN] }]);
  expect(rowsBefore([one, other], 2, 9)).toEqual([{ step: 1, values: [undefined, 7] }, { step: 0, values: [1, undefined] }]);
});

test('a chunk is whole lines, the last one without its own end', () => {
  const lines = new Lines();
  for (const text of ['a\nb', 'c\n', '', 'd']) lines.add({ attempt: 1, stream: 'STDOUT', text });
  expect(lines.shown.map((line) => line.text)).toEqual(['a', 'b', 'c', '', '', 'd']);
});

test('a log holds so many lines, their colours apart from their text, and counts them all', () => {
  const lines = new Lines();
  for (let at = 0; at < 3 * MOST_LINES; at++) lines.add({ attempt: 1, stream: 'STDOUT', text: `\x1b[31mline ${at}\x1b[0m` });
  expect(lines.shown).toHaveLength(MOST_LINES);
  expect(lines.shown.at(-1)).toEqual({ number: 3 * MOST_LINES, attempt: 1, stream: 'STDOUT', text: `line ${3 * MOST_LINES - 1}`, runs: [{ text: `line ${3 * MOST_LINES - 1}`, look: 'red' }] });
  expect(lines.count).toBe(3 * MOST_LINES);
});

test('a line that begins with a carriage return replaces the last one of its stream', () => {
  const lines = new Lines();
  lines.add({ attempt: 1, stream: 'STDOUT', text: 'begin\nloading ' });
  lines.add({ attempt: 1, stream: 'STDOUT', text: '\rloading done\n10%\n\r20%' });
  lines.add({ attempt: 1, stream: 'STDERR', text: '\roh' });
  expect(lines.shown.map(({ number, text }) => [number, text])).toEqual([[1, 'begin'], [2, 'loading done'], [3, '20%'], [4, 'oh']]);
  expect(lines.count).toBe(4);
});

test.each([[['a', 'b c']], [['with, a comma', 'and "quotes"', '"']], [[' ends ', ',']], [[]]])('tags are read from a text as they were written: %j', (tags) => {
  expect(tagsOf(writtenTags(tags))).toEqual(tags);
});

test('tags that were typed are told apart by commas, each once', () => {
  expect(tagsOf(' a,b , a,, "c, d" ,"e')).toEqual(['a', 'b', 'c, d', '"e']);
});
