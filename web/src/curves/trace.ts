/** A curve with what is derived from it for drawing: its x column, its smoothed values, the corners to draw. */
import uPlot from 'uplot';

import type { LiveSeries } from './live.svelte';
import { Line, sample } from './sampling';
import { lowerBound } from './series';
import { Smoothed } from './smoothing';
import type { Range } from './view';
import { type Span, XColumn, type XKind } from './xAxis';

export interface Curve {
  key: string;
  label: string;
  /** Curves with the same one share a y axis. */
  scale: string;
  /** 0, 1, 2...: which of the curves' colours. */
  colour: number;
  /** In place of one of these colours: 0 to 1, a place on the ramp; null: it has none, and is grey. */
  shade?: number | null;
  /** Null: neither direction is better. */
  mode: 'MIN' | 'MAX' | null;
  series: LiveSeries;
  spans: readonly Span[];
  /** It is the mean of several curves: how far they spread about it. Its steps are places on the x axis. */
  spread?: Spread;
}

/** Limits of a band about a curve, for each of its points. */
export interface Spread {
  lows: Float64Array;
  highs: Float64Array;
}

export interface Settings {
  x: XKind;
  log: boolean;
  /** 0: none, to below 1. */
  smoothing: number;
  currency: string;
  /** Attempts have names here, as all curves are of one simulation. */
  attempts: boolean;
  /** Steps are moments, in seconds since 1970: they are shown as times. */
  moments?: boolean;
  /** Curves of many simulations: thin lines without marks, of which smoothed ones stand for the others. */
  many?: boolean;
  /** The y axis leaves out what would ruin its scale for the others. */
  clip?: boolean;
}

export class Trace {
  readonly curve: Curve;
  readonly x: XColumn;
  readonly smoothed: Smoothed | null;
  readonly raw = new Line();
  readonly smooth = new Line();

  /** old: the trace of the same series in the settings before, whose columns are kept where they still hold. */
  constructor(curve: Curve, settings: Settings, old: Trace | undefined) {
    const smoothed = old?.smoothed?.weight === settings.smoothing ? old.smoothed : new Smoothed(settings.smoothing);
    this.curve = curve;
    const kind = curve.spread ? 'step' : settings.x;
    this.x = old?.x.kind === kind ? old.x : new XColumn(kind);
    this.smoothed = settings.smoothing > 0 ? smoothed : null;
  }

  /** Bring the x column up to the series' end. */
  follow(): void {
    this.x.follow(this.curve.series.points, this.curve.spans);
  }

  /** Choose the corners to draw in a range of x; columns: its width in pixels. Returns the limits of their values. */
  sample(range: Range, columns: number, log: boolean): Range {
    const { points } = this.curve.series;
    sample(this.raw, this.x.xs, points.values, this.x.length, range, columns, log);
    let limits: Range = [this.raw.least, this.raw.greatest];
    if (this.smoothed) {
      sample(this.smooth, this.x.xs, this.smoothed.follow(points), this.x.length, range, columns, log);
      limits = [Math.min(limits[0], this.smooth.least), Math.max(limits[1], this.smooth.greatest)];
    }
    const { spread } = this.curve;
    return spread ? spreadLimits(spread, this.x, range, log, limits) : limits;
  }

  /** The value at x, on the straight line between two points; NaN beyond them. */
  valueAt(x: number): number {
    const { xs, length } = this.x;
    const after = lowerBound(xs, length, x);
    if (after === length) return NaN;
    const values = this.smoothed ? this.smoothed.follow(this.curve.series.points) : this.curve.series.points.values;
    if (after === 0) return xs[0] === x ? values[0]! : NaN;
    const share = (x - xs[after - 1]!) / (xs[after]! - xs[after - 1]!);
    return values[after - 1]! + share * (values[after]! - values[after - 1]!);
  }

  /** The point nearest to x. */
  nearest(x: number): { index: number; x: number } | null {
    const { xs, length } = this.x;
    if (!length) return null;
    const after = Math.min(length - 1, lowerBound(xs, length, x));
    const before = Math.max(0, after - 1);
    const index = Math.abs(xs[before]! - x) < Math.abs(xs[after]! - x) ? before : after;
    return { index, x: xs[index]! };
  }
}

function spreadLimits({ lows, highs }: Spread, { xs, length }: XColumn, [min, max]: Range, log: boolean, [low, high]: Range): Range {
  let [least, greatest] = [low, high];
  for (let at = Math.max(0, lowerBound(xs, length, min) - 1); at < length && (at === 0 || xs[at - 1]! <= max); at++) {
    if (!log || lows[at]! > 0) least = Math.min(least, finiteOr(lows[at]!, least));
    greatest = Math.max(greatest, finiteOr(highs[at]!, greatest));
  }
  return [least, greatest];
}

function finiteOr(value: number, other: number): number {
  return Number.isFinite(value) ? value : other;
}

/** From the first to the last x of all traces, never of width 0. */
export function extentOf(traces: readonly Trace[]): Range {
  let min = Infinity;
  let max = -Infinity;
  for (const { x } of traces) {
    if (!x.length) continue;
    min = Math.min(min, x.xs[0]!);
    max = Math.max(max, x.xs[x.length - 1]!);
  }
  if (min > max) return [0, 1];
  if (min < max) return [min, max];
  return [min - (Math.abs(min) / 10 || 1), max + (Math.abs(max) / 10 || 1)];
}

/** Limits of a y axis that shows values from `least` to `greatest`. */
export function limitsOf([least, greatest]: Range, log: boolean): Range {
  if (least > greatest) return log ? [1, 10] : [0, 1];
  if (log) return logLimitsOf(least, greatest);
  // The whole of a range must be a double, too; what is beyond it is drawn up to the edge.
  const [low, high] = [least, greatest].map((each) => Math.max(-MOST, Math.min(MOST, each))) as [number, number];
  const [min, max] = uPlot.rangeNum(low, high, 0.08, true);
  const size = Math.max(Math.abs(low), Math.abs(high));
  // uPlot takes what is below 1e-24 for zero, and gives it a range of 100.
  if (min !== null && max !== null && min < max && (size === 0 || max - min <= 4 * size)) return [min, max];
  if (low === high) return [Math.min(0, 2 * low), Math.max(0, 2 * high)];
  const margin = 0.08 * (high - low);
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high <= 0 ? Math.min(0, high + margin) : high + margin];
}

const MOST = Number.MAX_VALUE / 4;

/** uPlot's rounding, where doubles are exact enough for it: near the ends of their range it gives 0, NaN or Infinity. */
function logLimitsOf(least: number, greatest: number): Range {
  const [min, max] = uPlot.rangeLog(least, greatest, 10, false);
  if (min !== null && max !== null && min > 0 && min < max && Number.isFinite(max)) return [min, max];
  return least < greatest ? [least, greatest] : [Math.max(Number.MIN_VALUE, least / 10), Math.min(Number.MAX_VALUE, greatest * 10)];
}
