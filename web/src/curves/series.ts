/**
 * The points of one metric as columns that only grow at their end, and of all metrics of a simulation.
 *
 * An event costs as much as it brings. A later attempt cuts off what older ones said from its first step on; a point
 * that is there already is never taken twice. Values that are not finite are null on the wire, and NaN here unless it is
 * named what they are.
 */
export interface SeriesEvent {
  metric: string;
  steps: readonly number[];
  values: readonly (number | null)[];
  /** What the nulls stand for, in their order: NaN, Infinity or -Infinity. */
  notFinite?: readonly string[] | undefined;
  /** Left out: not asked for, NaN in the column. */
  elapsed?: readonly number[] | undefined;
  supersedesFrom: number | null;
}

export interface ConvergenceEvent {
  attempt: number;
  series: readonly SeriesEvent[];
}

/** Where the points of an attempt begin. */
export interface Beginning {
  attempt: number;
  index: number;
}

const FIRST_ROOM = 1_024;

export class Series {
  readonly metric: string;
  length = 0;
  /** Rising; the first `length` of each column count. */
  steps = new Float64Array(FIRST_ROOM);
  values = new Float64Array(FIRST_ROOM);
  /** Seconds since the start of the point's attempt; NaN where they were not asked for. */
  elapsed = new Float64Array(FIRST_ROOM);
  /** One for each attempt that has points, first to last. */
  beginnings: Beginning[] = [];
  /** How often something was cut off: what was derived from the columns is void then. */
  cuts = 0;
  /** Points that came twice, and were left out. */
  repeated = 0;
  /** How many values are not finite. */
  unbounded = 0;
  /** Where the least and the greatest finite value were reached first; -1: there is none. */
  least = -1;
  greatest = -1;

  constructor(metric: string) {
    this.metric = metric;
  }

  get lastStep(): number | undefined {
    return this.length ? this.steps[this.length - 1] : undefined;
  }

  /** Undefined: there is none. NaN: it is not finite. */
  get lastValue(): number | undefined {
    return this.length ? this.values[this.length - 1] : undefined;
  }

  /** Where the best value is; -1: nowhere, also where no direction is better. */
  best(mode: 'MIN' | 'MAX' | null): number {
    if (mode === null) return -1;
    return mode === 'MAX' ? this.greatest : this.least;
  }

  /** The attempt that a point is from. */
  attemptAt(index: number): number {
    let found = 0;
    for (const beginning of this.beginnings) if (beginning.index <= index) found = beginning.attempt;
    return found;
  }

  /** Where the first point with this step, or a higher one, is. */
  indexOf(step: number): number {
    return lowerBound(this.steps, this.length, step);
  }

  append(attempt: number, points: SeriesEvent): void {
    const newest = this.beginnings.at(-1)?.attempt ?? 0;
    if (attempt < newest || points.steps.length === 0) return; // the log goes from attempt to attempt, never back
    if (attempt > newest) {
      this.#cut(points.supersedesFrom ?? points.steps[0]!);
      this.beginnings.push({ attempt, index: this.length });
    }
    this.#grow(this.length + points.steps.length);
    let nulls = 0;
    for (let at = 0; at < points.steps.length; at++) {
      const step = points.steps[at]!;
      const value = points.values[at] ?? Number(points.notFinite?.[nulls++]);
      if (this.length && step <= this.steps[this.length - 1]!) {
        this.repeated++;
        continue;
      }
      this.steps[this.length] = step;
      this.elapsed[this.length] = points.elapsed?.[at] ?? NaN;
      this.values[this.length] = value;
      this.#note(this.length++);
    }
  }

  /** Let go of all points. */
  clear(): void {
    this.#cut(-Infinity);
  }

  #note(index: number): void {
    const value = this.values[index]!;
    if (!Number.isFinite(value)) {
      this.unbounded++;
      return;
    }
    if (this.least < 0 || value < this.values[this.least]!) this.least = index;
    if (this.greatest < 0 || value > this.values[this.greatest]!) this.greatest = index;
  }

  #cut(from: number): void {
    const length = this.indexOf(from);
    if (length === this.length) return;
    this.length = length;
    this.cuts++;
    this.beginnings = this.beginnings.filter((beginning) => beginning.index < length);
    this.unbounded = 0;
    this.least = this.greatest = -1;
    for (let index = 0; index < length; index++) this.#note(index);
  }

  #grow(needed: number): void {
    if (needed <= this.steps.length) return;
    const room = Math.max(needed, 2 * this.steps.length);
    this.steps = wider(this.steps, room);
    this.values = wider(this.values, room);
    this.elapsed = wider(this.elapsed, room);
  }
}

/** Columns that were read at once: attempts stand one behind the other, without what a later one superseded. */
export interface Part {
  steps: readonly number[];
  values: readonly (number | null)[];
  elapsed?: readonly number[] | undefined;
  attempts: readonly number[];
}

/** Append what is behind the last point of a series. */
export function appendPart(series: Series, { steps, values, elapsed, attempts }: Part): void {
  for (let begin = 0; begin < steps.length; ) {
    let end = begin;
    while (end < steps.length && attempts[end] === attempts[begin]) end++;
    series.append(attempts[begin]!, {
      metric: series.metric, steps: steps.slice(begin, end), values: values.slice(begin, end), elapsed: elapsed?.slice(begin, end), supersedesFrom: null,
    });
    begin = end;
  }
}

/** Append the points of another one from one index to another, excluded. */
export function appendFrom(series: Series, other: Series, from: number, to: number): void {
  for (const [number, { attempt, index }] of other.beginnings.entries()) {
    const begin = Math.max(from, index);
    const end = Math.min(to, other.beginnings[number + 1]?.index ?? other.length);
    if (begin >= end) continue;
    const [steps, values, elapsed] = [other.steps, other.values, other.elapsed].map((column) => column.subarray(begin, end) as unknown as number[]);
    series.append(attempt, { metric: series.metric, steps: steps!, values: values!, elapsed: elapsed!, supersedesFrom: null });
  }
}

/** All metrics of one simulation. */
export class Curves {
  readonly byMetric = new Map<string, Series>();

  add(event: ConvergenceEvent): void {
    for (const points of event.series) {
      let series = this.byMetric.get(points.metric);
      if (!series) this.byMetric.set(points.metric, (series = new Series(points.metric)));
      series.append(event.attempt, points);
    }
  }
}

export function wider(column: Float64Array<ArrayBuffer>, room: number): Float64Array<ArrayBuffer> {
  const copy = new Float64Array(room);
  copy.set(column);
  return copy;
}

/** The first place in `column[0 .. length)`, which rises, whose number is not below `sought`. */
export function lowerBound(column: Float64Array, length: number, sought: number): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (column[middle]! < sought) low = middle + 1;
    else high = middle;
  }
  return low;
}
