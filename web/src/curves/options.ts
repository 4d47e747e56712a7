/** uPlot's options for a set of traces: scales, axes, and lines whose corners are chosen here (layers.ts). */
import type uPlot from 'uplot';

import { agoAxis, linearAxis, logAxis, moneyAxis, wallAxis } from './axes';
import { alphaOf, linePath } from './layers';
import type { Outlook } from './outlook';
import type { Palette } from './palette';
import { dashOf } from './ramp';
import type { Curve, Settings, Trace } from './trace';
import type { Range } from './view';

const HAIRLINES_FROM = 24; // curves

/** What the options read at each drawing. */
export interface Scene {
  readonly traces: readonly Trace[];
  readonly settings: Settings;
  readonly palette: Palette;
  readonly outlook: Outlook;
  /** Key of the curve that stands out; null: none does. */
  readonly highlighted: string | null;
  /** The part of the x axis that is shown. */
  range(): Range;
  /** Limits of a y scale. */
  limits(scale: string): Range;
}

/** Numbers and traces in the order in which they are drawn: the first one lies on top of the others. */
export function fromBelow(traces: readonly Trace[]): [number, Trace][] {
  return [...traces.entries()].reverse();
}

/** The names of the y scales, first to last. */
export function scalesOf(traces: readonly Trace[]): string[] {
  return [...new Set(traces.map(({ curve }) => curve.scale))];
}

/** Scales, axes and series; axes: how many y axes have room. */
export function optionsOf(scene: Scene, axes: number): Pick<uPlot.Options, 'scales' | 'axes' | 'series'> {
  const { traces, settings } = scene;
  const scales = scalesOf(traces);
  const distr = settings.log ? 3 : 1;
  return {
    scales: {
      x: { time: settings.x === 'wall', range: () => [...scene.range()] },
      ...Object.fromEntries(scales.map((scale) => [scale, { distr, range: () => [...scene.limits(scale)] as [number, number] }])),
    },
    axes: [
      xAxis(scene),
      ...scales.map((scale, number) => {
        const own = traces.flatMap(({ curve }) => (curve.scale === scale ? [curve] : []));
        return yAxis(scene, own[0]!, number, axes, scales.length > 1 ? shortOf(own.map(({ label }) => label).join(', ')) : null);
      }),
    ],
    series: [{}, ...fromBelow(traces).flatMap(([at, { curve }]) => lines(scene, at, curve))],
  };
}

/** The two lines of the trace with this number. The trace is looked up at each drawing: it may have been replaced. */
function lines(scene: Scene, at: number, curve: Curve): uPlot.Series[] {
  const dash = dashOf(curve);
  const colour = (): string => scene.palette.of(scene.traces[at]!.curve);
  const thin = scene.settings.many && !curve.spread;
  const common: uPlot.Series = { scale: curve.scale, stroke: colour, fill: colour, points: { show: false }, ...(dash ? { dash } : {}) };
  return [
    { ...common, width: thin ? thinOf(scene) : 1.5, paths: (u, number) => pathOf(u, number, scene, at, 'raw') },
    { ...common, width: thin ? thinOf(scene) : 2, paths: (u, number) => pathOf(u, number, scene, at, 'smooth') },
  ];
}

function pathOf(u: uPlot, number: number, scene: Scene, at: number, kind: 'raw' | 'smooth'): uPlot.Series.Paths {
  const trace = scene.traces[at]!;
  u.series[number]!.alpha = alphaOf(scene, trace, kind);
  return linePath(u, number, trace, kind, scene.range(), scene.settings.many);
}

const MOST_LETTERS = 30; // of the name along an axis

function shortOf(name: string): string {
  const half = MOST_LETTERS / 2;
  return name.length > MOST_LETTERS ? `${name.slice(0, half - 1)}…${name.slice(-half)}` : name;
}

/** Pixels that half of the number at the very end of the x axis needs beside the chart. */
export function roomAtEnd(scene: Scene): number {
  const { x } = scene.settings;
  const steps = x === 'step' || x === 'since';
  return Math.max(22, steps ? Math.ceil(3.7 * Math.round(scene.range()[1]).toLocaleString().length) : 0);
}

/** The more lines, the thinner: a hairline is what a browser draws fastest, too. */
function thinOf({ traces }: Scene): number {
  return traces.length > HAIRLINES_FROM ? 1 : 1.5;
}

function xAxis({ settings: { x, currency }, palette }: Scene): uPlot.Axis {
  const axis: uPlot.Axis = { ...axisOf(palette), size: 32, space: 80 };
  if (x === 'elapsed') return { ...axis, ...agoAxis };
  if (x === 'cost') return { ...axis, values: (_u, splits) => moneyAxis(splits, currency) };
  if (x === 'step' || x === 'since') {
    const incrs = [1, 2, 5].flatMap((digit) => Array.from({ length: 16 }, (_, power) => digit * 10 ** power));
    const values: uPlot.Axis.Values = (_u, splits) => splits.map((split) => split.toLocaleString());
    const space = (_u: uPlot, _axis: number, _min: number, max: number): number => 40 + 7 * Math.round(max).toLocaleString().length;
    return { ...axis, space, incrs: incrs.sort((one, other) => one - other), values };
  }
  return { ...axis, size: 46, space: 110, values: (_u, splits, _axis, _space, increment) => wallAxis(splits, increment) };
}

/** name: of what it is the axis, where there are several; null: there is one. */
function yAxis({ settings: { log }, palette }: Scene, { scale, colour }: Curve, number: number, axes: number, name: string | null): uPlot.Axis {
  const axis = axisOf(palette);
  return {
    ...axis,
    scale,
    show: number < axes,
    side: number === 0 ? 3 : 1,
    grid: { ...axis.grid, show: number === 0 },
    ...(name === null ? {} : { label: name, labelSize: 18, labelGap: 2, labelFont: axis.font! }),
    stroke: () => (name !== null ? palette.colour(colour) : palette.token('soft')),
    ...(log ? logAxis : linearAxis()),
    size: (_u, values) => 18 + 7 * Math.max(3, ...(values ?? []).map((value) => String(value ?? '').length)),
  };
}

function axisOf(palette: Palette): uPlot.Axis {
  const line = { stroke: () => palette.token('line'), width: 1 };
  return { stroke: () => palette.token('soft'), font: `12px ${palette.token('font')}`, grid: line, ticks: line };
}
