/** Changes to a simulation that runs: what was typed, as UpdateSimulationInput with what differs only. */
import { secondsOf, typedDuration } from '../submit/duration';
import type { Simulation } from '../simulation/query';
import { Typed } from '../ui/typed';
import type { UpdateSimulationInput } from './documents';
import { draftOfRule, inputsOf, type ObjectiveDraft, type RuleDraft } from './rules';

export interface ChangeDraft {
  objective: ObjectiveDraft;
  rules: RuleDraft[];
  maxRuntime: string;
  maxCost: string;
  maxSteps: string;
}

type Changed = Pick<Simulation, 'limits'> & {
  objective: { metric: string; mode: 'MIN' | 'MAX' | null } | null;
  stopping: { rules: Simulation['stopping']['rules'] };
};

/** What stands, to be changed. */
export function draftOfChange({ objective, stopping, limits }: Changed): ChangeDraft {
  return {
    objective: { metric: objective?.metric ?? '', mode: objective?.mode ?? '' },
    rules: stopping.rules.map((rule) => draftOfRule(rule, objective?.metric ?? '')),
    maxRuntime: limits.maxRuntimeSeconds === null ? '' : typedDuration(limits.maxRuntimeSeconds),
    maxCost: limits.maxCost ?? '',
    maxSteps: limits.maxSteps === null ? '' : String(limits.maxSteps),
  };
}

/** The parts that differ from before; no part: nothing was changed. */
export function inputOfChange(id: string, before: ChangeDraft, after: ChangeDraft): { input: UpdateSimulationInput; typed: Typed; any: boolean } {
  const typed = new Typed();
  const input: Record<string, unknown> = {};
  const limits: Record<string, unknown> = {};
  if (differ(before.maxRuntime, after.maxRuntime)) limits['maxRuntimeSeconds'] = durationOf(typed, after.maxRuntime);
  if (differ(before.maxCost, after.maxCost)) limits['maxCost'] = typed.price('limits.maxCost', after.maxCost) ?? null;
  if (differ(before.maxSteps, after.maxSteps)) limits['maxSteps'] = typed.step('limits.maxSteps', after.maxSteps) ?? null;
  if (Object.keys(limits).length) input['limits'] = limits;
  const { metric, mode } = after.objective;
  const judged = differ(before.objective, after.objective);
  if (differ(before.rules, after.rules) || (after.rules.length && judged)) {
    input['stopping'] = inputsOf(after.rules, after.objective, typed);
  }
  // With rules also if it was only guessed so far: they are about it.
  if ((judged || (input['stopping'] && after.rules.length)) && metric.trim()) {
    input['objective'] = { metric: metric.trim(), ...(mode ? { mode } : {}) };
  } else if (judged && before.objective.metric && !metric.trim()) {
    input['objective'] = null; // to be chosen anew
  }
  return { input: { id, ...input } as UpdateSimulationInput, typed, any: Object.keys(input).length > 0 };
}

function durationOf(typed: Typed, text: string): number | null {
  if (!text.trim()) return null;
  return secondsOf(text) ?? typed.refuse('limits.maxRuntimeSeconds', `Expected a duration like 90s, 15m, 1h30m or 2d, got “${text.trim()}”.`) ?? null;
}

function differ(one: unknown, other: unknown): boolean {
  const text = (value: unknown): string => JSON.stringify(value, (key, each: unknown) => (key === 'row' ? undefined : each));
  return text(one) !== text(other);
}
