/** Costs as CSV (RFC 4180), with exact amounts. */
import { fieldOf } from '../curves/csv';
import type { Row } from './documents';
import { keyOf, type View } from './view';

export function csvOfCosts(rows: readonly Row[], view: View): string {
  const head = [...(view.time ? [view.time] : []), view.group, 'currency', 'amount', 'wasted', 'saved', 'attempts', 'simulations'];
  const lines = rows.map((row) => {
    const { currency, amount, wasted, saved, attempts, simulations } = row.sum;
    const keys = [...(view.time ? [row.begin?.slice(0, 10) ?? ''] : []), keyOf(row, view.group)];
    return [...keys.map(fieldOf), currency, amount, wasted, saved, attempts, simulations].join(',');
  });
  return [head.join(','), ...lines].join('\r\n') + '\r\n';
}
