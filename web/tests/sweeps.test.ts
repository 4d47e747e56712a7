import { expect, test } from 'vitest';

import { shortOf } from '../src/curves/parameters';
import { axisOf, labelOf, moved, passes, placeOn, textAt, ticksOf } from '../src/sweeps/axes';
import { conditionOf } from '../src/now/conditions';
import { kindOf, searchOf } from '../src/sweeps/search';
import { bestSoFar, endedOf, parametersOf, ranked, trialStateOf } from '../src/sweeps/view';

test('axes hold numbers by their logarithm, names, and nothing that is neither', () => {
  const lr = axisOf('lr', ['0.001', undefined, '0.1'], { low: 1e-4, high: 1, log: true });
  expect([lr.least, lr.greatest, lr.log]).toEqual([1e-4, 1, true]);
  expect(['1e-2', '1', 1e-4].map((value) => placeOn(lr, value)!.toFixed(6))).toEqual(['0.500000', '1.000000', '0.000000']);
  expect([NaN, Infinity, 'NaN', null, undefined, '', 0, -1].map((value) => placeOn(lr, value))).toEqual(Array(8).fill(null));
  expect(ticksOf(lr, 7).map(({ text }) => Number(text))).toEqual([1e-4, 1e-3, 1e-2, 0.1, 1]);
  expect(ticksOf(axisOf('lr', [], { low: 1e-8, high: 1e-5, log: true }), 7).map(({ text }) => text)).toEqual(['1e-8', '1e-7', '1e-6', '1e-5']);
  const names = axisOf('optimizer', ['sgd', 'adam', 'sgd', 'true']);
  expect(names.names).toEqual(['adam', 'sgd', 'true']);
  expect([placeOn(names, 'sgd'), placeOn(names, 'lion'), textAt(names, 0.49)]).toEqual([0.5, null, 'sgd']);
  const one = axisOf('batch', ['64', '64']);
  expect([placeOn(one, '64'), ticksOf(one, 5).length]).toEqual([0.5, 1]);
  expect(axisOf('batch', ['64'], { choices: ['256', '64', '128'] }).names).toEqual(['64', '128', '256']);
  expect(axisOf('none', [undefined])).toMatchObject({ names: null, least: 0, greatest: 1 });
});

test('a label has room beside the first axis, whatever its letters', () => {
  const within = (letters: number) => (text: string): boolean => text.length <= letters;
  expect(labelOf('9223372036854775807', within(11))).toBe('922337…5807');
  expect(labelOf('9223372036854775807', within(10))).toBe('92233…807');
  expect(labelOf('WWWWWWWWWWW', within(7))).toBe('WWWW…WW');
  expect(labelOf('0.1', within(11))).toBe('0.1');
});

test('a brush leaves out what lies beyond, and what has no place there', () => {
  expect(passes([0.2, null, 0.9], [[0.1, 0.3], null, null])).toBe(true);
  expect(passes([0.2, null, 0.9], [[0.1, 0.3], [0, 0.99], null])).toBe(false);
  expect(passes([0.2], [[0.3, 1]])).toBe(false);
  expect(moved(null, 'low', 0.4)).toEqual([0.4, 1]);
  expect(moved([0.4, 0.6], 'low', 0.9)).toEqual([0.6, 0.6]);
  expect(moved([0.4, 0.6], 'high', 0.1)).toEqual([0.4, 0.4]);
  expect(moved([0.02, 1], 'low', -1)).toBeNull();
});

const trial = (number: number, state: 'COMPLETE' | 'PRUNED' | 'OPEN' | 'FAILED' | 'CANCELLED', value: number | null) =>
  ({ number, state, value, spread: null, step: null, parameters: {}, begunAt: '', endedAt: null, finalCost: null, simulations: [] }) as never;

test('the best so far is of complete trials', () => {
  const trials = [trial(0, 'PRUNED', 0.01), trial(1, 'COMPLETE', 3), trial(2, 'COMPLETE', 5), trial(3, 'OPEN', null), trial(4, 'COMPLETE', 2)];
  expect(bestSoFar(trials, 'MIN')).toEqual([NaN, 3, 3, 3, 2]);
  expect(bestSoFar(trials, 'MAX')).toEqual([NaN, 3, 5, 5, 5]);
  expect(ranked(trials, 'MIN').map(({ number }) => number)).toEqual([4, 1, 2, 0, 3]);
  expect(ranked(trials, 'MAX').map(({ number }) => number)).toEqual([2, 1, 4, 0, 3]);
  expect(ranked(trials, 'MAX', true)).toEqual(ranked(trials, 'MAX')); // falling values
  expect(ranked(trials, 'MAX', false).map(({ number }) => number)).toEqual([4, 1, 2, 0, 3]);
  expect(ranked(trials, 'MIN', true).map(({ number }) => number)).toEqual([2, 1, 4, 0, 3]);
});

test('what was cancelled has ended, and did not fail', () => {
  expect(trialStateOf(trial(0, 'CANCELLED', null))).toEqual({ name: 'Cancelled', tone: 'off' });
  expect(trialStateOf(trial(0, 'FAILED', null))).toEqual({ name: 'Failed', tone: 'bad' });
  expect(endedOf({ planned: 9, queued: 1, running: 1, complete: 1, pruned: 1, failed: 1, cancelled: 2 })).toBe(5);
});

test('parameters are short in a line', () => {
  expect(parametersOf({ lr: 0.00123456789012, batch: 64, optimizer: { name: 'adam' } })).toBe('lr 0.0012346, batch 64, optimizer.name adam');
  expect([shortOf('9007199254740993'), shortOf('0.1'), shortOf('v1.2.345678')]).toEqual(['9007199254740993', '0.1', 'v1.2.345678']);
});

test('what is searched is typed as on the command line', () => {
  expect(searchOf('log:1e-4..1e-1')).toEqual({ low: 1e-4, high: 0.1, log: true });
  expect(searchOf('2..8')).toEqual({ low: 2, high: 8, integer: true });
  expect(searchOf('float:2..8')).toEqual({ low: 2, high: 8 });
  expect(searchOf('0..1:0.25')).toEqual({ low: 0, high: 1, step: 0.25 });
  expect(searchOf('log:int:16..1024')).toEqual({ low: 16, high: 1024, log: true, integer: true });
  expect(searchOf('64, 128')).toEqual({ choices: [64, 128] });
  expect(searchOf('adam,sgd')).toEqual({ choices: ['adam', 'sgd'] });
  expect(searchOf('[1, "a"]')).toEqual({ choices: [1, 'a'] });
  expect(searchOf('20')).toEqual({ value: 20 });
  expect(searchOf('../data')).toEqual({ value: '../data' });
  expect(searchOf('"a..b"')).toEqual({ value: 'a..b' });
  expect(searchOf('Wait...')).toEqual({ value: 'Wait...' });
  const words = ['a..b', 'low..high', 'v1 .. v2', 'uniform:0..1', 'Log:1e-4..1e-1', '0..1,0.1', '1,2..8'];
  for (const wrong of ['log:5', 'log:a..b', '1,,2', '', ...words]) expect(typeof searchOf(wrong)).toBe('string');
});

test('a number that would arrive as another one is refused', () => {
  for (const text of ['1,1e400', '1e400', '[1, -1e999]', '0..9007199254740993', '-9007199254740993..1']) expect(searchOf(text)).toMatch(/too big|end at 2\^53/);
  expect(searchOf('0..9007199254740992')).toEqual({ low: 0, high: 2 ** 53, integer: true });
  expect(conditionOf('lr<1e400')).toBeNull();
});

test('a kind that is chosen is what a text is read as', () => {
  expect(searchOf('2..8', 'range')).toEqual({ low: 2, high: 8 });
  expect(searchOf('1e-4..1e-1', 'log')).toEqual({ low: 1e-4, high: 0.1, log: true });
  expect(searchOf('log:1e-4..1e-1', 'range')).toEqual({ low: 1e-4, high: 0.1 });
  expect(searchOf('16..1024', 'logWhole')).toEqual({ low: 16, high: 1024, log: true, integer: true });
  expect(searchOf('2..8:2', 'whole')).toEqual({ low: 2, high: 8, step: 2, integer: true });
  expect(searchOf('adam', 'choices')).toEqual({ choices: ['adam'] });
  expect(searchOf('a,b', 'value')).toEqual({ value: 'a,b' });
  expect(searchOf('[64, 128]', 'choices')).toEqual({ choices: [64, 128] });
  for (const [text, kind] of [['adam', 'range'], ['2..8', 'choices'], ['', 'value'], ['1,2', 'log']] as const) expect(typeof searchOf(text, kind)).toBe('string');
  expect(['0..0.5', 'log:1..2', '2..8', 'log:int:1..9', 'a,b', '20', 'log:x'].map(kindOf)).toEqual(['range', 'logWhole', 'whole', 'logWhole', 'choices', 'value', null]);
});
