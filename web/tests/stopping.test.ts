import { expect, test } from 'vitest';

import { bandLimits } from '../src/curves/outlook';
import { View } from '../src/curves/view';
import { decisionOf, eventOf } from '../src/simulation/sentences';
import { draftOfChange, inputOfChange } from '../src/stopping/change';
import { isPriced, limitsOf } from '../src/stopping/limits';
import { draftOfRule, hasField, inputsOf, newRule, optionOf, type Rule, wordsOf } from '../src/stopping/rules';
import { shortReasonOf } from '../src/ui/states';
import { Typed } from '../src/ui/typed';

const RULE: Rule = {
  metric: 'val/loss', mode: 'MIN', minDelta: 0, patience: null, gracePeriod: 0, stoppingThreshold: null,
  divergenceThreshold: null, checkFinite: true, smoothing: 0, plateau: true, rising: true, aggressive: false, dryRun: false,
}; // prettier-ignore
const FULL: Rule = {
  ...RULE, minDelta: 0.01, patience: 10, gracePeriod: 5_000_000_000, stoppingThreshold: 0.05, divergenceThreshold: 10, smoothing: 0.5,
  checkFinite: false, plateau: false, rising: false, aggressive: true, dryRun: true,
}; // prettier-ignore
const LIMITS = { maxRuntimeSeconds: 3_600, maxCost: '12.500000', maxSteps: 1_000, maxRetries: 3, retryOn: [] };

test('the default rule has no options, and a rule that is read is written again', () => {
  expect(inputsOf([newRule()], { metric: 'val/loss', mode: '' }, new Typed())).toEqual([{}]);
  expect(inputsOf([draftOfRule(RULE, 'val/loss')], { metric: 'val/loss', mode: 'MIN' }, new Typed())).toEqual([{}]);
  const { metric, mode, ...options } = FULL;
  expect(inputsOf([draftOfRule(FULL, 'val/loss')], { metric, mode }, new Typed())).toEqual([options]);
  expect(inputsOf([draftOfRule({ ...FULL, metric: 'other' }, 'val/loss')], { metric, mode }, new Typed())[0]).toMatchObject({ metric: 'other', mode: 'MIN' });
});

test('a rule without a metric and a number that is none are refused at their fields', () => {
  const typed = new Typed();
  inputsOf([{ ...newRule(), patience: '1.5' }, { ...newRule('a'), smoothing: 'x', gracePeriod: '-1' }], { metric: ' ', mode: '' }, typed);
  expect(typed.faults.map(({ path }) => path)).toEqual(['objective', 'stopping.0.patience', 'stopping.1.gracePeriod', 'stopping.1.smoothing']);
});

test('what is wrong where there is no field is told apart', () => {
  expect(['objective', 'objective.mode', 'stopping.0.patience', 'stopping.0.dryRun'].every((path) => hasField(path, 1))).toBe(true);
  expect(['', 'id', 'stopping', 'stopping.0', 'stopping.0.metric', 'stopping.1.patience'].some((path) => hasField(path, 1))).toBe(false);
  expect(hasField('stopping.1.metric', 2)).toBe(true);
});

test('rules are put into words', () => {
  expect(wordsOf(RULE, false)).toBe('plateau, not finite');
  expect(wordsOf(RULE, true)).toBe('plateau, getting worse, not finite');
  expect(wordsOf({ ...RULE, stoppingThreshold: 0.05 }, true)).toBe('plateau, 0.05 reached, not finite');
  expect(wordsOf({ ...FULL, gracePeriod: 100 }, true)).toBe(
    'no improvement for 10 evaluations, slow progress, 0.05 reached, above 10; not before step 100; improvements below 0.01 do not count; smoothed by 0.5',
  );
  expect(wordsOf({ ...RULE, plateau: false, rising: false, checkFinite: false }, true)).toBe('never');
  expect(wordsOf({ ...RULE, patience: 1, checkFinite: false }, true)).toBe('no improvement for 1 evaluation');
});

test('rules are written for the command line', () => {
  expect(optionOf({}, 'val/loss')).toBe('metric=val/loss');
  expect(optionOf({ metric: 'acc', mode: 'MAX', patience: 3, stoppingThreshold: 0.9, rising: false, dryRun: true }, '')).toBe(
    'metric=acc,mode=max,patience=3,target=0.9,no-rising,dry-run',
  );
});

test('a change holds what differs, null for a limit that goes', () => {
  const simulation = { objective: { metric: 'val/loss', mode: 'MIN' as const }, stopping: { rules: [RULE] }, limits: LIMITS };
  const before = draftOfChange(simulation);
  expect(inputOfChange('id', before, draftOfChange(simulation)).any).toBe(false);
  const after = { ...draftOfChange(simulation), maxRuntime: '', maxCost: '20', maxSteps: '2000' };
  expect(inputOfChange('id', before, after).input).toEqual({ id: 'id', limits: { maxRuntimeSeconds: null, maxCost: '20', maxSteps: 2000 } });
  expect(inputOfChange('id', before, { ...before, rules: [] }).input).toEqual({ id: 'id', stopping: [] });
  expect(inputOfChange('id', before, { ...before, rules: [{ ...newRule(), patience: '3' }] }).input).toEqual({
    id: 'id',
    objective: { metric: 'val/loss', mode: 'MIN' },
    stopping: [{ patience: 3 }],
  });
  expect(inputOfChange('id', before, { ...before, objective: { metric: 'acc', mode: '' } }).input).toEqual({ id: 'id', objective: { metric: 'acc' }, stopping: [{}] });
  expect(inputOfChange('id', before, { ...before, objective: { metric: ' ', mode: 'MIN' }, rules: [] }).input).toEqual({ id: 'id', objective: null, stopping: [] });
  const none = { ...before, objective: { metric: '', mode: '' as const } };
  expect(inputOfChange('id', none, { ...none, objective: { metric: '', mode: 'MAX' }, rules: [] }).input).toEqual({ id: 'id', stopping: [] });
  expect(inputOfChange('id', before, { ...before, maxRuntime: 'soon', maxSteps: '1.5' }).typed.faults.map(({ path }) => path)).toEqual([
    'limits.maxRuntimeSeconds', 'limits.maxSteps',
  ]); // prettier-ignore
});

test('what is used of limits grows with the clock; without limits there is nothing to show', () => {
  const cost = { amount: '1', currency: 'USD', perHour: '2' };
  const attempts = [{ startedAt: '2026-01-01T00:00:00Z', endedAt: '2026-01-01T01:00:00Z' }, { startedAt: '2026-01-01T02:00:00Z', endedAt: null }];
  const at = Date.parse('2026-01-01T02:30:00Z');
  expect(limitsOf({ limits: LIMITS, cost, attempts }, 400, at + 1_800_000, at)).toEqual([
    { kind: 'time', name: 'Runtime of this attempt', used: 3_600, most: 3_600 },
    { kind: 'money', name: 'Cost', used: 2, most: 12.5 },
    { kind: 'steps', name: 'Planned steps', used: 400, most: 1_000 },
  ]);
  const none = { ...LIMITS, maxRuntimeSeconds: null, maxCost: null, maxSteps: null };
  expect(limitsOf({ limits: none, cost, attempts: [] }, undefined, at, at)).toEqual([]);
  const free = { cost: { ...cost, amount: '0.000000', perHour: '0' }, attempts: [{ pricePerHour: '0.000000' }], limits: none };
  expect(isPriced(free)).toBe(false);
  expect(isPriced({ ...free, attempts: [{ pricePerHour: '2' }] })).toBe(true);
});

test('a band takes room where it is in sight, and the view ends with it', () => {
  const band = { curve: 'a', steps: [10, 20, 30], values: [5, 4, 3], lows: [5, 2, -1], highs: [5, 4.5, 4] };
  expect(bandLimits(band, [0, 30], false)).toEqual([-1, 5]);
  expect(bandLimits(band, [0, 30], true)).toEqual([2, 5]);
  expect(bandLimits(band, [0, 5], false)).toEqual([Infinity, -Infinity]);
  expect(bandLimits(band, [12, 14], false)).toEqual([2, 5]);
  const view = new View();
  view.ahead = 30;
  expect(view.range([0, 10])).toEqual([0, 30]);
  view.zoomTo(0, 4);
  view.follow([0, 10]);
  expect(view.range([0, 12])).toEqual([8, 12]); // the newest point, not the end of the forecast
  view.zoomTo(10, 20);
  view.panBy(5, [0, 10]);
  expect(view.range([0, 10])).toEqual([20, 30]);
});

test('lists show the rule that stopped a run in a few words', () => {
  expect(shortReasonOf('PATIENCE_EXHAUSTED', 'val/loss has not improved on 0.2 for 18 evaluations.')).toBe('Stopped: plateau.');
  expect(shortReasonOf('EXIT_CODE', 'It exited with 3.')).toBe('It exited with 3.');
  expect(decisionOf({ rule: 'NON_FINITE', step: 4_200, metric: 'loss', reason: 'NON_FINITE_METRIC', sentence: '' })).toBe('non finite at step 4,200');
});

test('a stop is told by what decided it: a rule at its step, a budget or a machine in a sentence', () => {
  const event = (kind: string, detail: object): string => eventOf({ id: '1', at: '2026-11-30T12:00:00+00:00', kind, actor: 'scheduler', detail });
  const rule = { rule: 'PLATEAU', step: 4_200, sentence: 'loss has not improved.' };
  const budget = { rule: 'budget', reason: 'BUDGET_EXHAUSTED', sentence: 'The budget of vision is used up.' };
  expect(event('STOP_WANTED', { reason: 'PATIENCE_EXHAUSTED', evidence: rule })).toBe('Stop requested by a rule: plateau at step 4,200.');
  expect(event('WOULD_STOP', { evidence: rule })).toBe('Dry run: a rule would have stopped it, plateau at step 4,200.');
  expect(event('STOP_WANTED', { reason: 'BUDGET_EXHAUSTED', evidence: budget })).toBe('Stop requested. The budget of vision is used up.');
  expect(event('STOP_WANTED', { reason: 'PREEMPTED', evidence: { rule: 'priority', sentence: 'It makes room for #7.' } })).toBe('Preemption requested. It makes room for #7.');
  expect(event('STOP_WANTED', { reason: 'CANCELLED' })).toBe('Stop requested by scheduler.');
});
