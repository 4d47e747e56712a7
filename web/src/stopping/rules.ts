/** Stop rules: as they are typed, as the API takes them, and in words. */
import { pairOf } from '../ui/pairs';
import type { Typed } from '../ui/typed';
import { countOf, manyOf, valueOf } from '../ui/format';

type Mode = 'MIN' | 'MAX';

/** A rule as the API gives it. */
export interface Rule {
  metric: string;
  mode: Mode;
  minDelta: number;
  patience: number | null;
  gracePeriod: number;
  stoppingThreshold: number | null;
  divergenceThreshold: number | null;
  checkFinite: boolean;
  smoothing: number;
  plateau: boolean;
  rising: boolean;
  aggressive: boolean;
  dryRun: boolean;
}

/** A rule as it is typed. */
export interface RuleDraft {
  row: number;
  /** Empty: the objective's. */
  metric: string;
  mode: '' | Mode;
  patience: string;
  minDelta: string;
  gracePeriod: string;
  stoppingThreshold: string;
  divergenceThreshold: string;
  smoothing: string;
  checkFinite: boolean;
  plateau: boolean;
  rising: boolean;
  aggressive: boolean;
  dryRun: boolean;
}

/** The objective as it is typed. */
export interface ObjectiveDraft {
  metric: string;
  mode: '' | Mode;
}

export type RuleInput = Partial<Omit<Rule, 'patience' | 'stoppingThreshold' | 'divergenceThreshold'>> & {
  patience?: number;
  stoppingThreshold?: number;
  divergenceThreshold?: number;
};

/** The options with a number: their name in the API, their label and a hint. */
export const NUMBERS = [
  ['patience', 'Patience', 'Evaluations without improvement. Empty: adapts to the length of the run.'],
  ['minDelta', 'Smallest improvement', 'A smaller one counts as none.'],
  ['gracePeriod', 'Not before step', 'No stop before this step.'],
  ['stoppingThreshold', 'Target', 'Stop once the metric reaches this value.'],
  ['divergenceThreshold', 'Diverged at', 'Stop once the metric is worse than this value.'],
  ['smoothing', 'Smoothing', 'Weight of the past, 0 to below 1.'],
] as const;

/** The options that are on or off. */
export const SWITCHES = [
  ['plateau', 'Stop at a plateau'],
  ['rising', 'Stop when it gets worse, if the planned steps are known'],
  ['checkFinite', 'Stop at NaN and infinite values of the objective'],
  ['aggressive', 'Also stop slow progress (stops some runs too early)'],
  ['dryRun', 'Dry run: record what it would stop, stop nothing'],
] as const;

/** Whether the form has a field for this path: what is wrong elsewhere has to be shown above it. */
export function hasField(path: string, rules: number): boolean {
  const [root, place, name] = path.split('.');
  if (root !== 'stopping') return root === 'objective';
  const names = [...NUMBERS, ...SWITCHES].map(([each]) => each as string);
  return Number(place) < rules && name !== undefined && (names.includes(name) || (rules > 1 && ['metric', 'mode'].includes(name)));
}

/** The default rule: a plateau of the objective. */
export function newRule(metric = ''): RuleDraft {
  return {
    row: pairOf().row, metric, mode: '', patience: '', minDelta: '', gracePeriod: '', stoppingThreshold: '',
    divergenceThreshold: '', smoothing: '', checkFinite: true, plateau: true, rising: true, aggressive: false, dryRun: false,
  }; // prettier-ignore
}

/** An existing rule, to be changed. `objective`: the metric that a rule need not name. */
export function draftOfRule(rule: Rule, objective: string): RuleDraft {
  const text = (value: number | null): string => (value === null ? '' : String(value));
  const own = rule.metric !== objective;
  return {
    ...newRule(),
    metric: own ? rule.metric : '',
    mode: own ? rule.mode : '',
    patience: text(rule.patience),
    minDelta: text(rule.minDelta || null),
    gracePeriod: text(rule.gracePeriod || null),
    stoppingThreshold: text(rule.stoppingThreshold),
    divergenceThreshold: text(rule.divergenceThreshold),
    smoothing: text(rule.smoothing || null),
    checkFinite: own || rule.checkFinite, // of other metrics it is never a stop: nothing was chosen
    plateau: rule.plateau,
    rising: rule.rising,
    aggressive: rule.aggressive,
    dryRun: rule.dryRun,
  };
}

/** The rules as the API takes them; what is left at its default is left out. */
export function inputsOf(rules: readonly RuleDraft[], objective: ObjectiveDraft, typed: Typed): RuleInput[] {
  return rules.map((rule, place) => {
    const path = `stopping.${place}`;
    if (!rule.metric.trim() && !objective.metric.trim()) {
      typed.refuse('objective', 'Name the metric that the stop rules are about.');
    }
    const numbers = {
      patience: typed.whole(`${path}.patience`, rule.patience),
      minDelta: typed.number(`${path}.minDelta`, rule.minDelta),
      gracePeriod: typed.step(`${path}.gracePeriod`, rule.gracePeriod),
      stoppingThreshold: typed.number(`${path}.stoppingThreshold`, rule.stoppingThreshold),
      divergenceThreshold: typed.number(`${path}.divergenceThreshold`, rule.divergenceThreshold),
      smoothing: typed.number(`${path}.smoothing`, rule.smoothing),
    };
    const given: Record<string, unknown> = { metric: rule.metric.trim() || undefined, mode: rule.mode || undefined, ...numbers };
    const usual = newRule();
    for (const [name] of SWITCHES) given[name] = rule[name] === usual[name] ? undefined : rule[name];
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as RuleInput;
  });
}

/**
 * When a rule stops: "no improvement for 10 evaluations, 0.05 reached; not before step 100". planned: the number of
 * steps is known, without which nothing is said to get worse.
 */
export function wordsOf(rule: Rule, planned: boolean): string {
  const when: string[] = [];
  if (rule.patience !== null) when.push(`no improvement for ${manyOf(rule.patience, 'evaluation')}`);
  else if (rule.plateau) when.push('plateau');
  if (rule.patience === null && rule.rising && planned && rule.stoppingThreshold === null) when.push('getting worse');
  if (rule.aggressive) when.push('slow progress');
  if (rule.stoppingThreshold !== null) when.push(`${valueOf(rule.stoppingThreshold)} reached`);
  if (rule.divergenceThreshold !== null) when.push(`${rule.mode === 'MIN' ? 'above' : 'below'} ${valueOf(rule.divergenceThreshold)}`);
  if (rule.checkFinite) when.push('not finite');
  const how: string[] = [];
  if (rule.gracePeriod) how.push(`not before step ${countOf(rule.gracePeriod)}`);
  if (rule.minDelta) how.push(`improvements below ${valueOf(rule.minDelta)} do not count`);
  if (rule.smoothing) how.push(`smoothed by ${rule.smoothing}`);
  return [when.join(', ') || 'never', ...how].join('; ');
}

/** `--stop` of the command line: plateau,metric=val/loss. */
export function optionOf(rule: RuleInput, objective: string): string {
  const names: Record<string, string> = {
    patience: 'patience', minDelta: 'min-delta', gracePeriod: 'grace-period', stoppingThreshold: 'target',
    divergenceThreshold: 'divergence-threshold', smoothing: 'smoothing',
  }; // prettier-ignore
  const words = [`metric=${rule.metric ?? objective}`];
  if (rule.mode) words.push(`mode=${rule.mode.toLowerCase()}`);
  for (const [name, word] of Object.entries(names)) {
    const value = rule[name as keyof RuleInput];
    if (value !== undefined) words.push(`${word}=${String(value)}`);
  }
  const switches: Record<string, string> = { plateau: 'plateau', rising: 'rising', checkFinite: 'check-finite', aggressive: 'aggressive', dryRun: 'dry-run' };
  for (const [name, word] of Object.entries(switches)) {
    const value = rule[name as keyof RuleInput];
    if (value !== undefined) words.push(value ? word : `no-${word}`);
  }
  return words.join(',');
}
