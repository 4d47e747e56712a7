/** What is compared, and how: all of it in the address bar. */
import type { XKind } from '../curves/xAxis';

export const MOST = 12;

export interface Address {
  ids: string[];
  /** Null: the first common one. */
  metric: string | null;
  x: XKind;
  log: boolean;
  smoothing: number;
}

const KINDS: readonly string[] = ['step', 'elapsed', 'cost'];

/** What is not understood is left out. */
export function read(query: URLSearchParams): Address {
  const ids = (query.get('ids') ?? '').split(',').filter(Boolean);
  const x = query.get('x') ?? '';
  const smoothing = Number(query.get('smooth'));
  return {
    ids: [...new Set(ids)].slice(0, MOST),
    metric: query.get('metric'),
    x: KINDS.includes(x) ? (x as XKind) : 'step',
    log: query.get('log') === '1',
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
  };
}

export function write({ ids, metric, x, log, smoothing }: Address): URLSearchParams {
  const query = new URLSearchParams();
  if (ids.length) query.set('ids', ids.join(','));
  if (metric !== null) query.set('metric', metric);
  if (x !== 'step') query.set('x', x);
  if (log) query.set('log', '1');
  if (smoothing) query.set('smooth', String(smoothing));
  return query;
}
