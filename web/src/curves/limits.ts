/** Limits of the y axes: of what is in sight, forecasts among it, and without outliers where the page asks for that. */
import { withoutOutliers } from './outliers';
import { type Band, bandLimits } from './outlook';
import { limitsOf, type Settings, type Trace } from './trace';
import type { Range } from './view';

export interface Limits {
  /** By scale. */
  scales: Map<string, Range>;
  /** How many curves would ruin the scale of the others, or are cut off by `clip` so that they don't. */
  outliers: number;
}

/** Choose the corners of these traces in a range of x, and the limits of their scales; columns: its width in pixels. */
export function limitsIn(range: Range, columns: number, traces: readonly Trace[], settings: Settings, band: Band | null): Limits {
  const found = new Map<string, Range>();
  const ranges: Range[] = [];
  for (const trace of traces) {
    const { scale } = trace.curve;
    const [low, high] = trace.sample(range, columns, settings.log);
    ranges.push([low, high]);
    const [least, greatest] = found.get(scale) ?? [Infinity, -Infinity];
    found.set(scale, [Math.min(least, low), Math.max(greatest, high)]);
  }
  const clipped = settings.many ? withoutOutliers(ranges, settings.log) : null;
  if (clipped && settings.clip) found.set(traces[0]!.curve.scale, clipped.limits);
  const scale = traces.find(({ curve }) => curve.key === band?.curve)?.curve.scale;
  if (band && scale !== undefined) {
    const [low, high] = bandLimits(band, range, settings.log);
    const [least, greatest] = found.get(scale)!;
    found.set(scale, [Math.min(least, low), Math.max(greatest, high)]);
  }
  const scales = new Map([...found].map(([name, limits]) => [name, limitsOf(limits, settings.log)]));
  return { scales, outliers: clipped?.beyond ?? 0 };
}
