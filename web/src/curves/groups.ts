/**
 * Curves of a group as one: their mean, and the standard deviation about it as a band. Where all have the same places on
 * the x axis these are kept; else the curves are read at places that lie evenly, each between its first and last point.
 */
import { LiveSeries } from './live.svelte';
import { lowerBound, Series } from './series';
import type { Spread } from './trace';
import { type Span, XColumn, type XKind } from './xAxis';

const PLACES = 400; // at which curves with different steps are read

export interface Member {
  series: LiveSeries;
  spans: readonly Span[];
}

/** Points of a curve along x; xs rises. */
export interface Line {
  xs: Float64Array;
  values: Float64Array;
  length: number;
}

export interface Group {
  series: LiveSeries;
  spread: Spread;
}

/** The group of these members, which grows as they do. */
export function groupOf(members: readonly Member[], kind: XKind): Group {
  const columns = members.map(() => new XColumn(kind));
  const points = new Series('');
  const spread: Spread = { lows: new Float64Array(0), highs: new Float64Array(0) };
  let known = '';
  const grown = (): void => {
    const lines = members.map(({ series, spans }, at): Line => {
      const { current } = series;
      columns[at]!.follow(current, spans);
      return { xs: columns[at]!.xs, values: current.values, length: columns[at]!.length };
    });
    const now = JSON.stringify(members.map(({ series: { points: each } }, at) => [each.cuts, columns[at]!.length, columns[at]!.xs[0]]));
    if (now === known) return;
    known = now;
    const { xs, means, lows, highs } = meanOf(lines);
    points.clear();
    points.append(points.beginnings.length + 1, { metric: '', steps: xs, values: means, elapsed: xs, supersedesFrom: null });
    [spread.lows, spread.highs] = [Float64Array.from(lows), Float64Array.from(highs)];
  };
  return { series: new LiveSeries(points, grown), spread };
}

/** Mean and standard deviation of lines at each place; NaN where none has a finite value. One alone has no spread. */
export function meanOf(lines: readonly Line[]): { xs: number[]; means: number[]; lows: number[]; highs: number[] } {
  const xs = placesOf(lines);
  const found = { xs, means: [] as number[], lows: [] as number[], highs: [] as number[] };
  for (const x of xs) {
    const values = lines.map((line) => valueAt(line, x)).filter(Number.isFinite);
    const mean = values.reduce((sum, value) => sum + value / values.length, 0);
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
    const deviation = Math.sqrt(variance);
    found.means.push(values.length ? mean : NaN);
    found.lows.push(values.length ? mean - deviation : NaN);
    found.highs.push(values.length ? mean + deviation : NaN);
  }
  return found;
}

function placesOf(lines: readonly Line[]): number[] {
  const all = lines.filter(({ length }) => length > 0);
  if (!all.length) return [];
  const longest = all.reduce((one, other) => (other.length > one.length ? other : one));
  const places = longest.xs.subarray(0, longest.length);
  if (all.every(({ xs, length }) => xs.subarray(0, length).every((x, at) => x === places[at]))) return [...places];
  const first = Math.min(...all.map(({ xs }) => xs[0]!));
  const last = Math.max(...all.map(({ xs, length }) => xs[length - 1]!));
  if (first === last) return [first];
  return Array.from({ length: PLACES }, (_, at) => first + (at / (PLACES - 1)) * (last - first));
}

/** On the straight line between two points; NaN beyond both ends. */
function valueAt({ xs, values, length }: Line, x: number): number {
  const after = lowerBound(xs, length, x);
  if (after === length) return NaN;
  if (xs[after] === x) return values[after]!;
  if (after === 0) return NaN;
  const share = (x - xs[after - 1]!) / (xs[after]! - xs[after - 1]!);
  return values[after - 1]! + share * (values[after]! - values[after - 1]!);
}
