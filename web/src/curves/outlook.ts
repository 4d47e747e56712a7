/** What is drawn beside a curve's points: its forecast as a band, and the steps at which stop rules decided. */
import type { Range } from './view';

/** Forecasts as columns of equal length; the first is of the newest step, where low, value and high are the same. */
export interface Band {
  /** Key of the curve. */
  curve: string;
  steps: readonly number[];
  values: readonly number[];
  lows: readonly number[];
  highs: readonly number[];
}

export interface Mark {
  /** Key of the curve. */
  curve: string;
  step: number;
  /** A word at the line. */
  word: string;
  /** A sentence for the legend. */
  sentence: string;
  /** It stopped nothing. */
  dry: boolean;
}

export interface Outlook {
  band: Band | null;
  marks: readonly Mark[];
}

export const NOTHING_AHEAD: Outlook = { band: null, marks: [] };

/** The least low and the greatest high of a band in a range of steps; [Infinity, -Infinity]: nothing of it is there. */
export function bandLimits({ steps, lows, highs }: Band, [min, max]: Range, log: boolean): Range {
  let least = Infinity;
  let greatest = -Infinity;
  for (const [at, step] of steps.entries()) {
    // The neighbours beyond both ends count: lines lead to them.
    if ((steps[at + 1] ?? step) < min || (steps[at - 1] ?? step) > max) continue;
    for (const value of [lows[at]!, highs[at]!]) {
      if (log && value <= 0) continue;
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
    }
  }
  return [least, greatest];
}
