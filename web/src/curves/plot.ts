/**
 * Curves on a canvas: when uPlot is built and drawn. Which points are drawn is chosen in sampling.ts, so that a frame
 * costs what can be seen; what part of the x axis is shown belongs to the reader (view.ts, interaction.ts); options.ts
 * has scales and axes, limits.ts the limits of the latter, layers.ts what is drawn, reading.ts and pointer.ts what is
 * read and how that is marked.
 */
import uPlot from 'uplot';

import { Interaction, type Listener } from './interaction';
import { alphaOf, drawGround, drawMarks } from './layers';
import { limitsIn } from './limits';
import { fromBelow, optionsOf, roomAtEnd, type Scene, scalesOf } from './options';
import { NOTHING_AHEAD, type Outlook } from './outlook';
import { Palette } from './palette';
import { Pointer } from './pointer';
import { nearestTo, neighbourOf, readAt, type Reading } from './reading';
import { type Curve, extentOf, limitsOf, type Settings, Trace } from './trace';
import { type Range, View } from './view';

const AXES_FROM = [0, 560, 840, 1_100]; // pixels of width, for so many y axes

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
  #pointer: Pointer | null = null;

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
    this.#uplot = this.#pointer = null;
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
    const { scales, outliers } = limitsIn(range, columns, this.#traces, settings, this.#outlook.band);
    this.#limits = scales;
    this.outliers = outliers;
    this.unplaced = this.#traces.reduce((sum, { raw }) => sum + raw.unplaced, 0);
    this.gaps = this.#traces.some(({ raw }) => raw.gaps.length > 0);
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
    return this.#uplot && nearestTo(this.#uplot, this.#traces, x, top);
  }

  /** The values of all curves at the point that is nearest to x. */
  readAt(x: number): Reading[] {
    return readAt(this.#traces, x);
  }

  /** The x of the next point of the first curve, at least a pixel away; jump: so many pixels. */
  neighbourOf(x: number, direction: 1 | -1, jump = 1): number {
    const [min, max] = this.range;
    const width = ((max - min) / Math.max(1, this.#uplot?.over.clientWidth ?? 1)) * jump;
    return neighbourOf(this.#traces, [min, max], x, direction, width);
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
    this.#pointer?.show(readings, this.#traces, this.#settings?.log ?? false);
  }

  get #axesThatFit(): number {
    return AXES_FROM.filter((width) => this.#size.width >= width).length;
  }

  /** The limits of a scale that no axis shows, as there is no room for it; null: one does. */
  withoutAxis(scale: string): Range | null {
    return scalesOf(this.#traces).indexOf(scale) < this.#axesThatFit ? null : (this.#limits.get(scale) ?? null);
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
      padding: [14, () => roomAtEnd(scene), 0, 8],
      cursor: cursor!,
      hooks: {
        ...hooks,
        drawClear: [(u) => drawGround(u, scene)],
        draw: [(u) => drawMarks(u, scene)],
      },
    };
    this.#uplot = new uPlot(options, [[...this.all], ...this.#traces.flatMap(() => [[null, null], [null, null]])], this.#host);
    this.#interaction.attach(this.#uplot);
    this.#pointer = new Pointer(this.#uplot, this.#palette, this.#traces.length);
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
