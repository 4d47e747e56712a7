/** Several series side by side, as rows by step. */
import type { Series } from './series';

export interface Row {
  step: number;
  /** By series; undefined: it has no point there. */
  values: (number | undefined)[];
}

/** The newest rows before a step (null: of all), newest first. Costs what it gives. */
export function rowsBefore(series: readonly Series[], step: number | null, count: number): Row[] {
  const places = series.map((each) => (step === null ? each.length : each.indexOf(step)) - 1);
  const rows: Row[] = [];
  while (rows.length < count) {
    const newest = Math.max(-1, ...series.map((each, at) => (places[at]! < 0 ? -1 : each.steps[places[at]!]!)));
    if (newest < 0) break;
    const values = series.map((each, at) =>
      places[at]! >= 0 && each.steps[places[at]!] === newest ? each.values[places[at]!--] : undefined,
    );
    rows.push({ step: newest, values });
  }
  return rows;
}
