/**
 * Curves on a canvas. uPlot brings axes, scales and the pointer; which points are drawn is chosen here (sampling.ts), so
 * that a frame costs what can be seen, and what part of the x axis is shown belongs to the reader (view.ts).
 */
import uPlot from 'uplot';

import { agoAxis, digitsOf, moneyAxis, wallAxis } from './axes';
import { Places, type Span, type XKind } from './places';
import { Line, sample } from './sampling';
import { lowerBound, type Series } from './series';
import { Shape } from './shape';
import { Smoothed } from './smoothing';
import { touch } from './touch';
import { type Range, View } from './view';

export interface Curve {
  key: string;
  label: string;
  /** Curves with the same one share a y axis. */
  scale: string;
  /** 0, 1, 2...: which of the curves' colours. */
  colour: number;
  mode: 'MIN' | 'MAX';
  series: Series;
  spans: readonly Span[];
}

export interface Settings {
  x: XKind;
  log: boolean;
  /** 0: none, to below 1. */
  smoothing: number;
  currency: string;
  /** Attempts have names here, as all curves are of one simulation. */
  attempts: boolean;
}

/** What a curve says at one place. */
export interface Reading {
  curve: Curve;
  x: number;
  step: number;
  value: number;
  smoothed: number | null;
  attempt: number;
}

/** What the page is told. */
export interface Listener {
  /** Another part of the x axis is shown. */
  moved: () => void;
  /** The pointer is at x, or away. */
  pointed: (x: number | null) => void;
}

interface Trace {
  curve: Curve;
  places: Places;
  smoothed: Smoothed | null;
  raw: Line;
  smooth: Line;
}

const COLOURS = 8;
const DASHES = [undefined, [7, 4], [2, 3]];
const TWO_AXES_FROM = 560; // pixels of width
const FAINT = 0.35;
const DENSE = 1.5; // points to a pixel column, from which on a line is drawn as the area that it covers
const DOTS_UP_TO = 80; // points in sight: more of them are a line anyway

export class Plot {
  readonly view = new View();
  /** From the first point of all curves to the newest one. */
  all: Range = [0, 1];
  /** Values that a logarithmic scale has no place for, of what is in sight. */
  unplaced = 0;
  /** Whether something in sight is not finite. */
  gaps = false;
  #host: HTMLElement;
  #listener: Listener;
  #settings: Settings | null = null;
  #traces: Trace[] = [];
  #limits = new Map<string, Range>();
  #uplot: uPlot | null = null;
  #shape = '';
  #size = { width: 0, height: 0 };
  #colours = new Map<string, string>();
  #hatching: CanvasPattern | null = null;
  #dots: HTMLElement[] = [];
  #panning: AbortController | null = null;

  constructor(host: HTMLElement, listener: Listener) {
    this.#host = host;
    this.#listener = listener;
    this.#readColours();
  }

  /** The part of the x axis that is shown. */
  get range(): Range {
    return this.view.range(this.all);
  }

  /** Draw these curves like this from now on. */
  show(curves: readonly Curve[], settings: Settings): void {
    if (this.#settings && this.#settings.x !== settings.x) this.view.showAll();
    this.#settings = settings;
    this.#traces = curves.map((curve) => {
      const old = this.#traces.find((trace) => trace.curve.series === curve.series);
      const smoothed = old?.smoothed?.weight === settings.smoothing ? old.smoothed : new Smoothed(settings.smoothing);
      return {
        curve,
        places: old?.places.kind === settings.x ? old.places : new Places(settings.x),
        smoothed: settings.smoothing > 0 ? smoothed : null,
        raw: new Line(),
        smooth: new Line(),
      };
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
    this.#readColours();
    this.draw();
  }

  destroy(): void {
    this.#panning?.abort();
    this.#uplot?.destroy();
    this.#uplot = null;
  }

  /** Draw what there is now. */
  draw(): void {
    const uplot = this.#uplot;
    const settings = this.#settings;
    if (!uplot || !settings) return;
    for (const { curve, places } of this.#traces) places.follow(curve.series, curve.spans);
    this.all = extentOf(this.#traces);
    const range = this.range;
    const columns = uplot.bbox.width || this.#size.width * devicePixelRatio;
    const found = new Map<string, Range>();
    this.unplaced = 0;
    this.gaps = false;
    for (const { curve, places, smoothed, raw, smooth } of this.#traces) {
      sample(raw, places.xs, curve.series.values, places.length, range, columns, settings.log);
      if (smoothed) sample(smooth, places.xs, smoothed.follow(curve.series), places.length, range, columns, settings.log);
      this.unplaced += raw.unplaced;
      this.gaps ||= raw.gaps.length > 0;
      const [least, greatest] = found.get(curve.scale) ?? [Infinity, -Infinity];
      const drawn = smoothed ? [raw, smooth] : [raw];
      const limits: Range = [Math.min(least, ...drawn.map((line) => line.least)), Math.max(greatest, ...drawn.map((line) => line.greatest))];
      found.set(curve.scale, limits);
    }
    this.#limits = new Map([...found].map(([scale, limits]) => [scale, limitsOf(limits, settings.log)]));
    // uPlot is given the corners only: scales take their limits, and lines their points, from here.
    const corners = this.#fromBelow.flatMap(([{ curve }]) => {
      const limits = [...this.#limits.get(curve.scale)!];
      return [limits, limits];
    });
    uplot.batch(() => uplot.setData([[...range], ...corners]));
  }

  /** What all curves say where one of them has its point nearest to x. */
  readAt(x: number): Reading[] {
    const nearest = this.#traces
      .map((trace) => nearestTo(trace.places, x))
      .filter((found) => found !== null)
      .sort((one, other) => Math.abs(one.x - x) - Math.abs(other.x - x))[0];
    if (!nearest) return [];
    return this.#traces.flatMap(({ curve, places, smoothed }) => {
      const found = nearestTo(places, nearest.x);
      if (!found) return [];
      const { index } = found;
      return {
        curve,
        x: found.x,
        step: curve.series.steps[index]!,
        value: curve.series.values[index]!,
        smoothed: smoothed ? smoothed.follow(curve.series)[index]! : null,
        attempt: curve.series.attemptAt(index),
      };
    });
  }

  /** The x of the next point of the first curve, at least a pixel away; jump: so many pixels. */
  neighbourOf(x: number, direction: 1 | -1, jump = 1): number {
    const [min, max] = this.range;
    const width = ((max - min) / Math.max(1, this.#uplot?.over.clientWidth ?? 1)) * jump;
    const places = this.#traces.find((trace) => trace.places.length)?.places;
    if (!places) return x;
    const at = lowerBound(places.xs, places.length, direction > 0 ? x + width : x - width);
    const index = direction > 0 ? at : places.xs[at]! > x - width ? at - 1 : at;
    const found = places.xs[Math.max(0, Math.min(places.length - 1, index))]!;
    return Math.max(min, Math.min(max, found));
  }

  /** Mark what is read at x; null: nothing. */
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
      dot.style.background = this.#colourOf(reading.curve);
    }
    this.#line!.hidden = x === undefined;
    if (x !== undefined) this.#line!.style.transform = `translateX(${uplot.valToPos(x, 'x')}px)`;
  }

  #line: HTMLElement | null = null;

  /** In the order in which they are drawn: the first one lies on top of the others. */
  get #fromBelow(): [Trace, number][] {
    return this.#traces.map((trace, at): [Trace, number] => [trace, at]).reverse();
  }

  get #axesThatFit(): number {
    return this.#size.width >= TWO_AXES_FROM ? 2 : 1;
  }

  #build(): void {
    const settings = this.#settings;
    if (!settings || !this.#size.width) return;
    const scales = [...new Set(this.#traces.map((trace) => trace.curve.scale))];
    const keys = this.#traces.map(({ curve }) => [curve.key, curve.scale, curve.colour]);
    const shape = JSON.stringify([keys, settings.x, settings.log, settings.currency, this.#axesThatFit]);
    if (this.#uplot && shape === this.#shape) return;
    this.#shape = shape;
    this.#uplot?.destroy();
    this.#limits = new Map(scales.map((scale) => [scale, limitsOf([Infinity, -Infinity], settings.log)]));
    const options: uPlot.Options = {
      ...this.#size,
      legend: { show: false },
      padding: [14, 10, 0, 8],
      scales: {
        x: { time: settings.x === 'wall', range: () => [...this.range] },
        ...Object.fromEntries(
          scales.map((scale) => [
            scale,
            { distr: settings.log ? 3 : 1, range: (): [number, number] => [...this.#limits.get(scale)!] },
          ]),
        ),
      },
      axes: [this.#xAxis(settings), ...scales.map((scale, number) => this.#yAxis(scale, number, scales.length > 1))],
      series: [
        {},
        ...this.#fromBelow.flatMap(([{ curve }, at]) => {
          const dash = DASHES[Math.floor(curve.colour / COLOURS) % DASHES.length];
          const common: uPlot.Series = {
            scale: curve.scale,
            stroke: () => this.#colourOf(curve),
            fill: () => this.#colourOf(curve),
            points: { show: false },
            ...(dash ? { dash } : {}),
          };
          return [
            { ...common, width: 1.5, paths: (u: uPlot, number: number) => this.#path(u, number, at, 'raw') },
            { ...common, width: 2, paths: (u: uPlot, number: number) => this.#path(u, number, at, 'smooth') },
          ];
        }),
      ],
      cursor: {
        x: false,
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false },
        bind: {
          dblclick: () => () => {
            this.view.showAll();
            this.#moved();
            return null;
          },
          mousedown: (_self, _target, handler) => (event) => {
            if (!event.shiftKey) return handler(event);
            this.#pan(event);
            return null;
          },
        },
      },
      hooks: {
        drawClear: [(u) => this.#ground(u)],
        draw: [(u) => this.#marks(u)],
        setCursor: [(u) => this.#pointed(u)],
        setSelect: [(u) => this.#selected(u)],
      },
    };
    this.#uplot = new uPlot(options, [[...this.all], ...this.#traces.flatMap(() => [[null, null], [null, null]])], this.#host);
    const { over } = this.#uplot;
    over.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    over.addEventListener('mouseleave', () => this.#listener.pointed(null));
    touch(over, {
      moved: (before, now) => {
        this.view.panBy((before - now) / over.clientWidth, this.all);
        this.#moved();
      },
      spread: (times, at) => {
        this.view.zoomBy(1 / times, this.#uplot!.posToVal(at, 'x'), this.all);
        this.#moved();
      },
    });
    this.#line = over.appendChild(Object.assign(document.createElement('div'), { className: 'plot-line', hidden: true }));
    this.#dots = this.#traces.map(() =>
      over.appendChild(Object.assign(document.createElement('div'), { className: 'plot-dot', hidden: true })),
    );
  }

  #xAxis({ x, currency }: Settings): uPlot.Axis {
    const axis: uPlot.Axis = { ...this.#axis(), size: 32, space: 80 };
    if (x === 'elapsed') return { ...axis, ...agoAxis };
    if (x === 'cost') return { ...axis, values: (_u, splits) => moneyAxis(splits, currency) };
    if (x === 'step') {
      const incrs = [1, 2, 5].flatMap((digit) => Array.from({ length: 16 }, (_, power) => digit * 10 ** power));
      const values: uPlot.Axis.Values = (_u, splits) => splits.map((split) => split.toLocaleString());
      const space = (_u: uPlot, _axis: number, _min: number, max: number): number => 40 + 7 * Math.round(max).toLocaleString().length;
      return { ...axis, space, incrs: incrs.sort((one, other) => one - other), values };
    }
    return { ...axis, size: 46, space: 110, values: (_u, splits, _axis, _space, increment) => wallAxis(splits, increment) };
  }

  #yAxis(scale: string, number: number, coloured: boolean): uPlot.Axis {
    const curve = this.#traces.find((trace) => trace.curve.scale === scale)!.curve;
    const axis = this.#axis();
    return {
      ...axis,
      scale,
      show: number < this.#axesThatFit,
      side: number === 0 ? 3 : 1,
      grid: { ...axis.grid, show: number === 0 },
      stroke: () => (coloured ? this.#colourOf(curve) : this.#token('soft')),
      values: (_u, splits, _axis, _space, increment) => digitsOf(splits, increment, this.#settings!.log),
      size: (_u, values) => 18 + 7 * Math.max(3, ...(values ?? []).map((value) => String(value ?? '').length)),
    };
  }

  #axis(): uPlot.Axis {
    const line = { stroke: () => this.#token('line'), width: 1 };
    return { stroke: () => this.#token('soft'), font: `12px ${this.#token('font')}`, grid: line, ticks: line };
  }

  #path(u: uPlot, number: number, at: number, kind: 'raw' | 'smooth'): uPlot.Series.Paths {
    const trace = this.#traces[at]!;
    const line = trace[kind];
    const { xs, ys } = line;
    const path = new Path2D();
    u.series[number]!.alpha = kind === 'raw' && trace.smoothed ? FAINT : 1;
    if (kind === 'smooth' && !trace.smoothed) return { stroke: path };
    const [min, max] = this.range;
    const perX = u.bbox.width / (max - min);
    const dotted = xs.length <= DOTS_UP_TO && !trace.smoothed;
    const radius = 1.25 * devicePixelRatio;
    // Between two attempts there is time and money, but no line.
    const { beginnings } = trace.curve.series;
    const breaks = trace.places.kind === 'step' ? [] : beginnings.slice(1).map((each) => trace.places.xs[each.index]!);
    const shape = xs.length > DENSE * u.bbox.width ? new Shape((u.series[number]!.width ?? 1) * devicePixelRatio) : null;
    let open = false;
    for (let index = 0; index < xs.length; index++) {
      const value = ys[index]!;
      while (breaks.length && breaks[0]! <= xs[index]!) {
        if (index && breaks[0]! > xs[index - 1]!) open = false;
        breaks.shift();
      }
      if (Number.isNaN(value)) {
        open = false;
        continue;
      }
      const x = u.bbox.left + (xs[index]! - min) * perX;
      const y = u.valToPos(value, trace.curve.scale, true);
      const begins = !open;
      open = true;
      if (shape) {
        if (begins) shape.interrupt();
        shape.add(x, y);
        continue;
      }
      if (begins) path.moveTo(x, y);
      else path.lineTo(x, y);
      const alone = begins && (index + 1 === xs.length || Number.isNaN(ys[index + 1]!));
      if (!dotted && !alone) continue;
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
      path.moveTo(x, y);
    }
    shape?.interrupt();
    return shape ? { stroke: shape.stroke, fill: shape.fill } : { stroke: path };
  }

  /** Behind the lines: stretches that are not finite, and attempts. */
  #ground(u: uPlot): void {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const begins = this.#settings?.attempts ? this.#attempts() : [];
    ctx.fillStyle = this.#token('raised');
    for (const [number, { attempt, x }] of begins.entries()) {
      if (attempt % 2) continue;
      const from = u.valToPos(x, 'x', true);
      const next = begins[number + 1];
      const to = next ? u.valToPos(next.x, 'x', true) : bbox.left + bbox.width;
      ctx.fillRect(from, bbox.top, to - from, bbox.height);
    }
    const strip = 4 * devicePixelRatio; // for each curve its own, upon the x axis
    let bottom = bbox.top + bbox.height;
    for (const { curve, raw } of this.#traces) {
      if (!raw.gaps.length) continue;
      bottom -= strip;
      for (const [from, to] of raw.gaps) {
        const left = u.valToPos(from, 'x', true);
        const width = Math.max(2 * devicePixelRatio, u.valToPos(to, 'x', true) - left);
        if (this.#settings?.attempts && this.#hatching) {
          ctx.fillStyle = this.#hatching;
          ctx.fillRect(left, bbox.top, width, bbox.height);
        }
        ctx.fillStyle = this.#colourOf(curve);
        ctx.fillRect(left, bottom, width, strip - devicePixelRatio);
      }
    }
    ctx.restore();
  }

  /** Before the lines: where attempts begin, and the best values. */
  #marks(u: uPlot): void {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left - 6 * ratio, 0, bbox.width + 12 * ratio, bbox.top + bbox.height + 6 * ratio); // rings, whole ones
    ctx.clip();
    ctx.lineWidth = ratio;
    ctx.font = `${11 * ratio}px ${this.#token('font')}`;
    ctx.textBaseline = 'bottom';
    for (const { attempt, x, curve } of this.#attempts()) {
      const left = Math.round(u.valToPos(x, 'x', true)) + 0.5;
      if (left < bbox.left || left > bbox.left + bbox.width) continue;
      ctx.strokeStyle = this.#settings?.attempts ? this.#token('line-strong') : this.#colourOf(curve);
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bbox.top + bbox.height);
      ctx.stroke();
      if (!this.#settings?.attempts) continue;
      ctx.fillStyle = this.#token('soft');
      const right = left + 70 * ratio > bbox.left + bbox.width;
      ctx.textAlign = right ? 'right' : 'left';
      ctx.fillText(`attempt ${attempt}`, left, bbox.top - 2 * ratio);
    }
    ctx.setLineDash([]);
    for (const { curve, places } of this.#traces) {
      const best = curve.series.best(curve.mode);
      const y = curve.series.values[best];
      if (best < 0 || best >= places.length || y === undefined || (this.#settings?.log && y <= 0)) continue;
      const left = u.valToPos(places.xs[best]!, 'x', true);
      if (left < bbox.left - 1 || left > bbox.left + bbox.width + 1) continue;
      ctx.beginPath();
      ctx.arc(left, u.valToPos(y, curve.scale, true), 4.5 * ratio, 0, 2 * Math.PI);
      ctx.fillStyle = this.#token('panel');
      ctx.fill();
      // A rim in the ground's colour first: the ring stands out from a dense curve of its own colour.
      for (const [width, colour] of [[5, this.#token('panel')], [2, this.#colourOf(curve)]] as const) {
        ctx.lineWidth = width * ratio;
        ctx.strokeStyle = colour;
        ctx.stroke();
      }
    }
    ctx.restore();
  }

  /** Where each attempt but the first one begins, by its first point. */
  #attempts(): { attempt: number; x: number; curve: Curve }[] {
    const found = new Map<string, { attempt: number; x: number; curve: Curve }>();
    for (const { curve, places } of this.#traces) {
      for (const { attempt, index } of curve.series.beginnings) {
        if (attempt === 1 || index >= places.length) continue;
        const key = this.#settings?.attempts ? String(attempt) : `${curve.key} ${attempt}`;
        const x = places.xs[index]!;
        const old = found.get(key);
        if (!old || x < old.x) found.set(key, { attempt, x, curve });
      }
    }
    return [...found.values()].sort((one, other) => one.x - other.x);
  }

  #moved(): void {
    this.#listener.moved();
  }

  #pointed(u: uPlot): void {
    const left = u.cursor.left ?? -1;
    if (left >= 0) this.#listener.pointed(u.posToVal(left, 'x'));
  }

  #selected(u: uPlot): void {
    const { left, width } = u.select;
    if (width < 4) return;
    this.view.zoomTo(u.posToVal(left, 'x'), u.posToVal(left + width, 'x'));
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#moved();
  }

  /** Sideways it pans; with Ctrl or Cmd, as a pinch on a touchpad comes, it zooms; else it scrolls the page. */
  #wheel(event: WheelEvent): void {
    const over = event.currentTarget as HTMLElement;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      const at = this.#uplot!.posToVal(event.clientX - over.getBoundingClientRect().left, 'x');
      this.view.zoomBy(Math.exp(Math.max(-50, Math.min(50, event.deltaY)) / 150), at, this.all);
    } else if (!this.view.whole && Math.abs(sideways) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
      this.view.panBy(sideways / over.clientWidth, this.all);
    } else return;
    event.preventDefault();
    this.#moved();
  }

  #pan(begin: MouseEvent): void {
    let x = begin.clientX;
    this.#panning = new AbortController();
    const { signal } = this.#panning;
    const width = this.#uplot!.over.clientWidth;
    addEventListener('mouseup', () => this.#panning?.abort(), { signal });
    addEventListener(
      'mousemove',
      (event) => {
        this.view.panBy((x - event.clientX) / width, this.all);
        x = event.clientX;
        this.#moved();
      },
      { signal },
    );
  }

  #readColours(): void {
    const style = getComputedStyle(this.#host);
    const names = ['soft', 'line', 'line-strong', 'raised', 'panel', 'bad', 'font'];
    for (let number = 1; number <= COLOURS; number++) names.push(`curve-${number}`);
    this.#colours = new Map(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.#hatching = hatched(this.#token('bad'));
  }

  #token(name: string): string {
    return this.#colours.get(name)!;
  }

  #colourOf(curve: Curve): string {
    return this.#token(`curve-${(curve.colour % COLOURS) + 1}`);
  }
}

function extentOf(traces: readonly Trace[]): Range {
  let min = Infinity;
  let max = -Infinity;
  for (const { places } of traces) {
    if (!places.length) continue;
    min = Math.min(min, places.xs[0]!);
    max = Math.max(max, places.xs[places.length - 1]!);
  }
  if (min > max) return [0, 1];
  if (min < max) return [min, max];
  return [min - (Math.abs(min) / 10 || 1), max + (Math.abs(max) / 10 || 1)];
}

function limitsOf([least, greatest]: Range, log: boolean): Range {
  if (least > greatest) return log ? [1, 10] : [0, 1];
  const [min, max] = log ? uPlot.rangeLog(least, greatest, 10, false) : uPlot.rangeNum(least, greatest, 0.08, true);
  return min !== null && max !== null && min < max ? [min, max] : [least - 1, greatest + 1];
}

function nearestTo(places: Places, x: number): { index: number; x: number } | null {
  if (!places.length) return null;
  const after = Math.min(places.length - 1, lowerBound(places.xs, places.length, x));
  const before = Math.max(0, after - 1);
  const index = Math.abs(places.xs[before]! - x) < Math.abs(places.xs[after]! - x) ? before : after;
  return { index, x: places.xs[index]! };
}

function hatched(colour: string): CanvasPattern | null {
  const size = 8 * devicePixelRatio;
  const canvas = Object.assign(document.createElement('canvas'), { width: size, height: size });
  const context = canvas.getContext('2d');
  if (!context) return null;
  context.globalAlpha = 0.4;
  context.strokeStyle = colour;
  context.lineWidth = 1.25 * devicePixelRatio;
  context.beginPath();
  for (const shift of [-size, 0, size]) {
    context.moveTo(shift - 1, size + 1);
    context.lineTo(shift + size + 1, -1);
  }
  context.stroke();
  return context.createPattern(canvas, 'repeat');
}
