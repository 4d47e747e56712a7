/**
 * Series that grow while they are shown. What is read here inside a derived or an effect is read again after points
 * have come: at most once per UPDATE_MS, in a hidden tab too (timers go on there, animation frames do not).
 */
import { type ConvergenceEvent, Curves, Series } from './series';

const UPDATE_MS = 16;

/** The value at one step. */
export interface Point {
  step: number;
  value: number;
}

/** One metric's series. `grown` is read by each property, so that readers depend on it. */
export class LiveSeries {
  /** The columns themselves, for drawing. Reading them creates no dependency. */
  readonly points: Series;
  readonly #grown: () => unknown;

  constructor(points: Series, grown: () => unknown = () => undefined) {
    this.points = points;
    this.#grown = grown;
  }

  /** The same columns; the reader runs again when they have grown. */
  get current(): Series {
    this.#grown();
    return this.points;
  }

  get length(): number {
    return this.current.length;
  }

  /** Null: no points yet. The value is NaN where it is not finite. */
  get last(): Point | null {
    const { length, steps, values } = this.current;
    return length ? { step: steps[length - 1]!, value: values[length - 1]! } : null;
  }

  /** Null: no finite value yet, or no direction. */
  best(mode: 'MIN' | 'MAX' | null): Point | null {
    const series = this.current;
    const at = series.best(mode);
    return at < 0 ? null : { step: series.steps[at]!, value: series.values[at]! };
  }
}

/** All metrics of one simulation. */
export class LiveCurves {
  readonly #curves = new Curves();
  readonly #series = new Map<string, LiveSeries>();
  #version = $state(0);
  #timer: ReturnType<typeof setTimeout> | undefined;

  add(event: ConvergenceEvent): void {
    this.#curves.add(event);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#version += 1;
    }, UPDATE_MS);
  }

  /** Names of the metrics that have points. */
  get metrics(): string[] {
    void this.#version;
    return [...this.#curves.byMetric.keys()];
  }

  /** Undefined: the metric has no points yet. The same object for as long as these curves live. */
  series(metric: string): LiveSeries | undefined {
    const points = this.#curves.byMetric.get(metric);
    if (!points) {
      void this.#version; // it may come
      return undefined;
    }
    let live = this.#series.get(metric);
    if (!live) this.#series.set(metric, (live = new LiveSeries(points, () => this.#version)));
    return live;
  }

  close(): void {
    clearTimeout(this.#timer);
  }
}
