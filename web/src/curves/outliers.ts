/** Limits of a y axis without what would ruin its scale: one run that diverged makes a flat line of all others. */
import type { Range } from './view';

const TIMES = 4; // as wide as without the outliers: below that, leaving them out gains little
const SHARE = 0.1; // of the curves may lie beyond, on either side

export interface Clipped {
  limits: Range;
  /** How many curves go beyond. */
  beyond: number;
}

/**
 * What of the curves' ranges is shown if outliers are left out; null: there are none.
 *
 * ranges: of each curve its least and its greatest value; [Infinity, -Infinity] has none. log: the scale is logarithmic.
 */
export function withoutOutliers(ranges: readonly Range[], log: boolean): Clipped | null {
  const known = ranges.filter(([least, greatest]) => least <= greatest);
  if (known.length < 2) return null;
  const lows = known.map(([least]) => least).sort((one, other) => one - other);
  const highs = known.map(([, greatest]) => greatest).sort((one, other) => one - other);
  const last = known.length - 1;
  const limits: Range = [lows[Math.ceil(last * SHARE)]!, highs[Math.floor(last * (1 - SHARE))]!];
  const place = (value: number): number => (log ? Math.log10(value) : value);
  const inside = place(limits[1]) - place(limits[0]);
  if (!(inside > 0) || place(highs[last]!) - place(lows[0]!) < TIMES * inside) return null;
  // What goes no further beyond than the others reach is left in, and the side that ruins nothing is not cut.
  const least = lows.find((value) => place(limits[0]) - place(value) <= inside)!;
  const greatest = highs.findLast((value) => place(value) - place(limits[1]) <= inside)!;
  const shown: Range = [least, greatest];
  return { limits: shown, beyond: known.filter(([least, greatest]) => least < shown[0] || greatest > shown[1]).length };
}
