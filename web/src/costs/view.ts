/** What is added up, and how: all of it in the address bar, so that a view can be kept and sent. */
import type { Budget, Row } from './documents';

export const GROUPS = { project: 'Project', user: 'User', machine: 'Machine', name: 'Name', tag: 'Tag' } as const;
export const TIMES = { day: 'Day', week: 'Week', month: 'Month' } as const;
/** Days back from now; 0: ever. */
export const SINCE = { 7: 'Last 7 days', 30: 'Last 30 days', 90: 'Last 90 days', 365: 'Last 365 days', 0: 'Ever' } as const;

export type Group = keyof typeof GROUPS;
export type Time = keyof typeof TIMES;

export interface View {
  group: Group;
  /** Null: not divided. */
  time: Time | null;
  days: number;
}

/** How often a budget begins anew. */
export const PERIODS = { DAY: 'each day', WEEK: 'each week', MONTH: 'each month', TOTAL: 'in total' } as const;
export type Period = keyof typeof PERIODS;

/** Who spends a budget. */
export function ownerOf(budget: Pick<Budget, 'project'>): string {
  return budget.project?.name ?? 'the whole installation';
}

const DAY_MS = 86_400_000;

export function readView(params: URLSearchParams): View {
  const group = params.get('by') ?? '';
  const time = params.get('every') ?? '';
  const days = Number(params.get('days') ?? 30);
  return {
    group: Object.hasOwn(GROUPS, group) ? (group as Group) : 'project',
    time: Object.hasOwn(TIMES, time) ? (time as Time) : null,
    days: Object.hasOwn(SINCE, days) ? days : 30,
  };
}

/** now: Unix time in ms. */
export function fromOf(view: View, now: number): string | null {
  return view.days ? new Date(now - view.days * DAY_MS).toISOString() : null;
}

/** What a row is about; the name of a group may be empty, for what has no tag. */
export function keyOf(row: Row, group: Group): string {
  return row[group] ?? '';
}

/** The part of the dearest row in its currency, 0 to 1. */
export function partsOf(rows: readonly Row[]): number[] {
  const most = new Map<string, number>();
  for (const { sum } of rows) most.set(sum.currency, Math.max(most.get(sum.currency) ?? 0, Number(sum.amount)));
  return rows.map(({ sum }) => (most.get(sum.currency) ? Number(sum.amount) / most.get(sum.currency)! : 0));
}
