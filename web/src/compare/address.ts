/** What is compared, and how: all of it in the address bar. */
import type { XKind } from '../curves/xAxis';
import { type Filter, FILTERS, isFiltered, readView, type Sort } from '../now/filter';

export const MOST = 100;

export interface Address {
  ids: string[];
  /** Without ids: the simulations of this sweep, by its number, id or name. */
  sweep: string | null;
  /** Without either: those that match, in the order of `sort`, or the newest. Null: nothing is filtered. */
  filter: Filter | null;
  sort: Sort | null;
  /** Null: the objective, or the first common one. */
  metric: string | null;
  x: XKind;
  log: boolean;
  smoothing: number;
  clip: boolean;
  /** `run`, `best`, `state`, `param:NAME`; null: what tells them apart best. */
  colour: string | null;
  /** `seeds`, `param:NAME`; null: none. */
  group: string | null;
}

/** Whether it is an id as the service gives them out; else a number, a name or the beginning of one. */
export function isId(text: string): boolean {
  try {
    return atob(text).startsWith('Simulation:');
  } catch {
    return false;
  }
}

const KINDS: readonly string[] = ['step', 'since', 'elapsed', 'wall', 'cost'];

/** What is not understood is left out. */
export function read(query: URLSearchParams): Address {
  const ids = (query.get('ids') ?? '').split(',').filter(Boolean);
  const x = query.get('x') ?? '';
  const smoothing = Number(query.get('smooth'));
  const { filter, sort } = readView(query);
  return {
    ids: [...new Set(ids)].slice(0, MOST),
    sweep: query.get('sweep') || null,
    filter: isFiltered(filter) ? filter : null,
    sort,
    metric: query.get('metric'),
    x: KINDS.includes(x) ? (x as XKind) : 'step',
    log: query.get('log') === '1',
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
    clip: query.get('clip') === '1',
    colour: /^(run|best|state|param:.+)$/s.test(query.get('colour') ?? '') ? query.get('colour') : null,
    group: /^(seeds|param:.+)$/s.test(query.get('group') ?? '') ? query.get('group') : null,
  };
}

/** Names in the address that say how runs are compared; those of `chosen` say which. */
export type Look = Pick<Address, 'metric' | 'x' | 'log' | 'smoothing' | 'clip' | 'colour' | 'group'>;

/** By name, what stands in the address; null: nothing. */
export function write({ metric, x, log, smoothing, clip, colour, group }: Look): Record<string, string | null> {
  return {
    metric,
    x: x === 'step' ? null : x,
    log: log ? '1' : null,
    smooth: smoothing ? String(smoothing) : null,
    clip: clip ? '1' : null,
    colour,
    group,
  };
}

/** The same for a choice by ids: it replaces every other choice. */
export function choosing(ids: readonly string[]): Record<string, string | null> {
  return { ...Object.fromEntries([...FILTERS, 'sort', 'sweep'].map((name) => [name, null])), ids: ids.join(',') || null };
}
