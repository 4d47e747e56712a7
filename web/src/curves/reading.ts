/** Values read off curves: at a place on the x axis, near the pointer, and from point to point by the keyboard. */
import type uPlot from 'uplot';

import { lowerBound } from './series';
import type { Curve, Trace } from './trace';
import type { Range } from './view';

/** The value of a curve at one x. */
export interface Reading {
  curve: Curve;
  x: number;
  step: number;
  value: number;
  smoothed: number | null;
  attempt: number;
}

const NEAR = 30; // pixels from a curve, within which the pointer is at it

/** The curve that is nearest to a place: x, and pixels below the top; null: none is near. */
export function nearestTo(uplot: uPlot, traces: readonly Trace[], x: number, top: number): string | null {
  const left = uplot.valToPos(x, 'x');
  let found: string | null = null;
  let least = NEAR;
  for (const trace of traces) {
    const apart = (at: number, value: number): number => Math.hypot(uplot.valToPos(at, 'x') - left, uplot.valToPos(value, trace.curve.scale) - top);
    const nearest = trace.nearest(x);
    const distances = [apart(x, trace.valueAt(x)), ...(nearest ? [apart(nearest.x, trace.curve.series.points.values[nearest.index]!)] : [])];
    for (const distance of distances) {
      if (distance < least) [found, least] = [trace.curve.key, distance];
    }
  }
  return found;
}

/** The values of all curves at the point that is nearest to x. */
export function readAt(traces: readonly Trace[], x: number): Reading[] {
  const nearest = traces
    .map((trace) => trace.nearest(x))
    .filter((found) => found !== null)
    .sort((one, other) => Math.abs(one.x - x) - Math.abs(other.x - x))[0];
  if (!nearest) return [];
  return traces.flatMap((trace) => {
    const { curve, smoothed } = trace;
    const { points } = curve.series;
    const found = trace.nearest(nearest.x);
    if (!found) return [];
    const { index } = found;
    return {
      curve,
      x: found.x,
      step: points.steps[index]!,
      value: points.values[index]!,
      smoothed: smoothed ? smoothed.follow(points)[index]! : null,
      attempt: points.attemptAt(index),
    };
  });
}

/** The x of the next point of the first curve, at least `width` away, within a range. */
export function neighbourOf(traces: readonly Trace[], [min, max]: Range, x: number, direction: 1 | -1, width: number): number {
  const column = traces.find((trace) => trace.x.length)?.x;
  if (!column) return x;
  const at = lowerBound(column.xs, column.length, direction > 0 ? x + width : x - width);
  const index = direction > 0 ? at : column.xs[at]! > x - width ? at - 1 : at;
  const found = column.xs[Math.max(0, Math.min(column.length - 1, index))]!;
  return Math.max(min, Math.min(max, found));
}
