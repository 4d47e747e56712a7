/** What is used of a simulation's limits. */
import type { Simulation } from '../simulation/query';

export interface Used {
  kind: 'time' | 'money' | 'steps';
  name: string;
  /** Seconds, an amount of money, or a step. */
  used: number;
  most: number;
}

type Limited = Pick<Simulation, 'limits' | 'cost'> & { attempts: readonly Pick<Simulation['attempts'][number], 'startedAt' | 'endedAt'>[] };

/** step: the newest one of the objective. now, at: Unix times in ms; the cost was read at `at`. */
export function limitsOf({ limits, cost, attempts }: Limited, step: number | undefined, now: number, at: number): Used[] {
  const found: Used[] = [];
  if (limits.maxRuntimeSeconds !== null) {
    const last = attempts.at(-1);
    const seconds = last?.startedAt ? ((last.endedAt ? Date.parse(last.endedAt) : now) - Date.parse(last.startedAt)) / 1_000 : 0;
    found.push({ kind: 'time', name: attempts.length > 1 ? 'Runtime of this attempt' : 'Runtime', used: Math.max(0, seconds), most: limits.maxRuntimeSeconds });
  }
  if (limits.maxCost !== null) {
    const used = Number(cost.amount) + (Number(cost.perHour) * Math.max(0, now - at)) / 3_600_000;
    found.push({ kind: 'money', name: 'Cost', used, most: Number(limits.maxCost) });
  }
  if (limits.maxSteps !== null) found.push({ kind: 'steps', name: 'Planned steps', used: step ?? 0, most: limits.maxSteps });
  return found;
}

/** Whether there is any price: without one, money is not shown. */
export function isPriced({ cost, attempts, limits }: Pick<Simulation, 'cost' | 'limits'> & { attempts: readonly { pricePerHour: string }[] }): boolean {
  return Number(cost.amount) > 0 || attempts.some(({ pricePerHour }) => Number(pricePerHour) > 0) || limits.maxCost !== null;
}
