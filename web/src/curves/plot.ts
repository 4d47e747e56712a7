/**
 * Curves on a canvas: when uPlot is built, drawn and read. Which points are drawn is chosen in sampling.ts, so that a
 * frame costs what can be seen; what part of the x axis is shown belongs to the reader (view.ts, interaction.ts);
 * options.ts has scales and axes, layers.ts what is drawn.
 */
import uPlot from 'uplot';

import { Interaction, type Listener } from './interaction';
import { alphaOf, drawGround, drawMarks } from './layers';
import { fromBelow, optionsOf, type Scene, scalesOf } from './options';
import { withoutOutliers } from './outliers';
import { bandLimits, NOTHING_AHEAD, type Outlook } from './outlook';
import { Palette } from './palette';
import { lowerBound } from './series';
import { type Curve, extentOf, limitsOf, type Settings, Trace } from './trace';
import { type Range, View } from './view';

/** The value of a curve at one x. */
export interface Reading {
  curve: Curve;
  x: number;
  step: number;
  value: number;
  smoothed: number | null;
  attempt: number;
}

const TWO_AXES_FROM = 560; // pixels of width
const NEAR = 30; // pixels from a curve, within which the pointer is at it

export class Plot {
  readonly view = new View();
  /** From the first point of all curves to the newest one. */
  all: Range = [0, 1];
  /** Values that a logarithmic scale has no place for, of what is in sight. */
  unplaced = 0;
  /** Whether something in sight is not finite. */
  gaps = false;
  /** How many curves would ruin the scale of the others, or are cut off by `clip` so that they don't. */
  outliers = 0;
  readonly #host: HTMLElement;
  readonly #palette: Palette;
  readonly #interaction: Interaction;
  #settings: Settings | null = null;
  #outlook: Outlook = NOTHING_AHEAD;
  #traces: Trace[] = [];
  #limits = new Map<string, Range>();
  #uplot: uPlot | null = null;
  #shape = '';
  #highlighted: string | null = null;
  #size = { width: 0, height: 0 };
  #pointer: HTMLElement | null = null;
  #dots: HTMLElement[] = [];

  constructor(host: HTMLElement, listener: Listener) {
    this.#host = host;
    this.#palette = new Palette(host);
    this.#interaction = new Interaction(this.view, () => this.all, listener);
  }

  /** The part of the x axis that is shown. */
  get range(): Range {
    return this.view.range(this.all);
  }

  /** Draw these curves like this from now on. */
  show(curves: readonly Curve[], settings: Settings, outlook: Outlook = NOTHING_AHEAD): void {
    if (this.#settings && this.#settings.x !== settings.x) this.view.showAll();
    this.#settings = settings;
    // A forecast is of steps, and time and money are not promised for each of them.
    const has = (key: string): boolean => curves.some((curve) => curve.key === key);
    const band = outlook.band && settings.x === 'step' && has(outlook.band.curve) ? outlook.band : null;
    this.#outlook = { band, marks: outlook.marks.filter(({ curve }) => has(curve)) };
    this.view.ahead = band?.steps.at(-1) ?? -Infinity;
    this.#traces = curves.map((curve) => {
      const old = this.#traces.find((trace) => trace.curve.series === curve.series);
      return new Trace(curve, settings, old);
    });
    this.#build();
    this.draw();
  }

  resize(width: number, height: number): void {
    if (width === this.#size.width && height === this.#size.height) return;
    const axes = this.#axesThatFit;
    this.#size = { width, height };
    if (!this.#uplot || axes !== this.#axesThatFit) this.#build();
    else this.#uplot.setSize(this.#size);
    this.draw();
  }

  /** The theme has changed. */
  repaint(): void {
    this.#palette.read();
    this.draw();
  }

  destroy(): void {
    this.#interaction.destroy();
    this.#uplot?.destroy();
    this.#uplot = null;
  }

  /** Draw what there is now. */
  draw(): void {
    const uplot = this.#uplot;
    const settings = this.#settings;
    if (!uplot || !settings) return;
    for (const trace of this.#traces) trace.follow();
    this.all = extentOf(this.#traces);
    const range = this.range;
    const columns = uplot.bbox.width || this.#size.width * devicePixelRatio;
    const found = new Map<string, Range>();
    const ranges: Range[] = [];
    for (const trace of this.#traces) {
      const { scale } = trace.curve;
      const [low, high] = trace.sample(range, columns, settings.log);
      ranges.push([low, high]);
      const [least, greatest] = found.get(scale) ?? [Infinity, -Infinity];
      found.set(scale, [Math.min(least, low), Math.max(greatest, high)]);
    }
    const clipped = settings.many ? withoutOutliers(ranges, settings.log) : null;
    this.outliers = clipped?.beyond ?? 0;
    if (clipped && settings.clip) found.set(this.#traces[0]!.curve.scale, clipped.limits);
    const { band } = this.#outlook;
    const scale = this.#traces.find(({ curve }) => curve.key === band?.curve)?.curve.scale;
    if (band && scale !== undefined) {
      const [low, high] = bandLimits(band, range, settings.log);
      const [least, greatest] = found.get(scale)!;
      found.set(scale, [Math.min(least, low), Math.max(greatest, high)]);
    }
    this.unplaced = this.#traces.reduce((sum, { raw }) => sum + raw.unplaced, 0);
    this.gaps = this.#traces.some(({ raw }) => raw.gaps.length > 0);
    this.#limits = new Map([...found].map(([scale, limits]) => [scale, limitsOf(limits, settings.log)]));
    // uPlot is given the corners only: scales take their limits, and lines their points, from here.
    const corners = fromBelow(this.#traces).flatMap(([, { curve }]) => {
      const limits = [...this.#limits.get(curve.scale)!];
      return [limits, limits];
    });
    uplot.batch(() => uplot.setData([[...range], ...corners]));
  }

  /** What is drawn now; null: nothing. */
  get drawn(): { uplot: uPlot; scene: Scene } | null {
    return this.#uplot && { uplot: this.#uplot, scene: this.#scene };
  }

  /** The curve that stands out from the others from now on; null: none. */
  highlight(key: string | null): void {
    if (key === this.#highlighted) return;
    this.#highlighted = key;
    const uplot = this.#uplot;
    if (!uplot) return;
    const scene = this.#scene;
    for (const [at, trace] of fromBelow(this.#traces)) {
      const first = uplot.series.length - 2 * at - 2;
      uplot.series[first]!.alpha = alphaOf(scene, trace, 'raw');
      uplot.series[first + 1]!.alpha = alphaOf(scene, trace, 'smooth');
    }
    uplot.redraw(false); // the paths are the same
  }

  /** The curve that is nearest to a place: x, and pixels below the top; null: none is near. */
  nearestTo(x: number, top: number): string | null {
    const uplot = this.#uplot;
    if (!uplot) return null;
    const left = uplot.valToPos(x, 'x');
    let found: string | null = null;
    let least = NEAR;
    for (const trace of this.#traces) {
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
  readAt(x: number): Reading[] {
    const nearest = this.#traces
      .map((trace) => trace.nearest(x))
      .filter((found) => found !== null)
      .sort((one, other) => Math.abs(one.x - x) - Math.abs(other.x - x))[0];
    if (!nearest) return [];
    return this.#traces.flatMap((trace) => {
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

  /** The x of the next point of the first curve, at least a pixel away; jump: so many pixels. */
  neighbourOf(x: number, direction: 1 | -1, jump = 1): number {
    const [min, max] = this.range;
    const width = ((max - min) / Math.max(1, this.#uplot?.over.clientWidth ?? 1)) * jump;
    const column = this.#traces.find((trace) => trace.x.length)?.x;
    if (!column) return x;
    const at = lowerBound(column.xs, column.length, direction > 0 ? x + width : x - width);
    const index = direction > 0 ? at : column.xs[at]! > x - width ? at - 1 : at;
    const found = column.xs[Math.max(0, Math.min(column.length - 1, index))]!;
    return Math.max(min, Math.min(max, found));
  }

  /** Where a reading lies in the chart, in pixels; null: nowhere in sight. */
  placeOf({ curve, x, value, smoothed }: Reading): { left: number; top: number; width: number; height: number } | null {
    const uplot = this.#uplot;
    const y = smoothed ?? value;
    if (!uplot || !Number.isFinite(y) || (this.#settings?.log && y <= 0)) return null;
    const { left, top } = { left: uplot.over.offsetLeft, top: uplot.over.offsetTop };
    const [right, below] = [uplot.valToPos(x, 'x'), uplot.valToPos(y, curve.scale)];
    if (right < 0 || right > uplot.over.clientWidth) return null;
    return { left: left + right, top: top + Math.max(0, Math.min(uplot.over.clientHeight, below)), ...this.#size };
  }

  /** Mark what is read at x; none: nothing is marked. */
  point(readings: readonly Reading[]): void {
    const uplot = this.#uplot;
    if (!uplot) return;
    const x = readings[0]?.x;
    for (const [at, dot] of this.#dots.entries()) {
      const reading = readings.find((each) => each.curve === this.#traces[at]?.curve);
      const y = reading ? (reading.smoothed ?? reading.value) : NaN;
      const placed = Number.isFinite(y) && (!this.#settings?.log || y > 0);
      dot.hidden = !reading || !placed;
      if (!reading || !placed) continue;
      const left = uplot.valToPos(reading.x, 'x');
      const top = uplot.valToPos(y, reading.curve.scale);
      dot.style.transform = `translate(${left}px, ${top}px)`;
      dot.style.background = this.#palette.of(reading.curve);
    }
    this.#pointer!.hidden = x === undefined;
    if (x !== undefined) this.#pointer!.style.transform = `translateX(${uplot.valToPos(x, 'x')}px)`;
  }

  get #axesThatFit(): number {
    return this.#size.width >= TWO_AXES_FROM ? 2 : 1;
  }

  /** Make uPlot anew, if other curves, scales or axes are to be shown than those that it was made for. */
  #build(): void {
    const settings = this.#settings;
    if (!settings || !this.#size.width) return;
    const keys = this.#traces.map(({ curve }) => [curve.key, curve.scale, curve.shade === undefined ? curve.colour : 'shade', curve.spread !== undefined]);
    const shape = JSON.stringify([keys, settings.x, settings.log, settings.currency, this.#axesThatFit, settings.many]);
    if (this.#uplot && shape === this.#shape) return;
    this.#shape = shape;
    this.#uplot?.destroy();
    this.#limits = new Map(scalesOf(this.#traces).map((scale) => [scale, limitsOf([Infinity, -Infinity], settings.log)]));
    const scene = this.#scene;
    const { cursor, hooks } = this.#interaction.options;
    const options: uPlot.Options = {
      ...this.#size,
      ...optionsOf(scene, this.#axesThatFit),
      legend: { show: false },
      padding: [14, 22, 0, 8], // the number at the very end of the x axis has room
      cursor: cursor!,
      hooks: {
        ...hooks,
        drawClear: [(u) => drawGround(u, scene)],
        draw: [(u) => drawMarks(u, scene)],
      },
    };
    this.#uplot = new uPlot(options, [[...this.all], ...this.#traces.flatMap(() => [[null, null], [null, null]])], this.#host);
    this.#interaction.attach(this.#uplot);
    const { over } = this.#uplot;
    this.#pointer = over.appendChild(Object.assign(document.createElement('div'), { className: 'plot-line', hidden: true }));
    this.#dots = this.#traces.map(() =>
      over.appendChild(Object.assign(document.createElement('div'), { className: 'plot-dot', hidden: true })),
    );
  }

  /** What options and layers read: always of now, as curves and settings are replaced while uPlot stays. */
  get #scene(): Scene {
    const plot = this;
    return {
      palette: this.#palette,
      get traces() {
        return plot.#traces;
      },
      get settings() {
        return plot.#settings!;
      },
      get outlook() {
        return plot.#outlook;
      },
      get highlighted() {
        return plot.#highlighted;
      },
      range: () => this.range,
      limits: (scale) => this.#limits.get(scale)!,
    };
  }
}
