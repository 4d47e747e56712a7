/**
 * Finer points of the part of the x axis that is in sight. A long curve is held thinned: once a reader has zoomed in and
 * stays there, the points of that part are asked for at the chart's resolution, and stand in place of the thinned ones
 * from its first to its last. Nothing changes where the points that are held are all there are, or dense enough.
 */
import { LiveSeries } from './live.svelte';
import { appendFrom, appendPart, lowerBound, type Part, Series } from './series';
import type { Curve } from './trace';
import type { Range } from './view';
import { XColumn, type XKind } from './xAxis';

const REST_MS = 250; // without a move
const AGAIN_MS = 3_000; // after a failure
const PER_PIXEL = 2; // points: the least and the greatest of a column

/** From a step to a step, both included. */
export type Steps = readonly [from: number, to: number];

/** What is in sight. */
export interface Sight {
  curves: readonly Curve[];
  x: XKind;
  /** Null: the whole, for which the thinned points are. */
  range: Range | null;
  /** Pixels. */
  width: number;
}

/** Where finer points come from. */
export interface Source {
  /** Of these curves, by key, those that have more points than are held. */
  thinned: (keys: readonly string[]) => readonly string[];
  /** Points of each at most. */
  most: (curves: number) => number;
  part: (keys: readonly string[], steps: Steps, most: number) => Promise<ReadonlyMap<string, Part>>;
}

interface Fine {
  /** The thinned series that it is a copy of, with more points. */
  coarse: LiveSeries;
  live: LiveSeries;
  steps: Steps;
  /** There are no more points between these steps: far fewer came than were asked for. */
  complete: boolean;
}

export class Finer {
  /** How many curves have finer points. */
  count = $state(0);
  readonly #source: Source;
  #fine = new Map<string, Fine>();
  #version = $state(0);
  #sight: Sight | null = null;
  #seen = '';
  #timer: ReturnType<typeof setTimeout> | undefined;
  #round = 0;

  constructor(source: Source) {
    this.#source = source;
  }

  /** The curve with the finer points that are there. */
  of(curve: Curve): Curve {
    void this.#version;
    const fine = this.#fine.get(curve.key);
    return fine && fine.coarse === curve.series ? { ...curve, series: fine.live } : curve;
  }

  /** Another part may be in sight. Costs nothing while it is the same. */
  look(sight: Sight): void {
    this.#sight = sight;
    const seen = JSON.stringify([sight.range, sight.x, sight.width, sight.curves.map(({ key }) => key)]);
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#in(REST_MS);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#round++;
  }

  #in(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(), milliseconds);
  }

  async #ask(): Promise<void> {
    const round = ++this.#round; // an answer to a question before it is of no use any more
    const { curves, x, range, width } = this.#sight!;
    if (range === null) {
      this.#keep(new Map());
      return;
    }
    const thinned = new Set(this.#source.thinned(curves.map(({ key }) => key)));
    const most = Math.min(PER_PIXEL * width, this.#source.most(curves.length));
    const missing: Curve[] = [];
    let [from, to] = [Infinity, -Infinity];
    for (const curve of curves) {
      if (!thinned.has(curve.key)) continue;
      const within = stepsWithin(curve, x, range);
      if (within === null || this.#holds(curve, within.steps) || within.points >= most) continue;
      missing.push(curve);
      [from, to] = [Math.min(from, within.steps[0]), Math.max(to, within.steps[1])];
    }
    if (!missing.length) return;
    try {
      const parts = await this.#source.part(missing.map(({ key }) => key), [from, to], most);
      if (round !== this.#round) return;
      const fine = new Map(this.#fine);
      for (const { key, series } of missing) {
        const part = parts.get(key);
        if (part) fine.set(key, { coarse: series, live: merged(series, part, [from, to]), steps: [from, to], complete: 2 * part.steps.length < most });
      }
      this.#keep(fine);
    } catch {
      if (round === this.#round) this.#in(AGAIN_MS); // the thinned points are drawn; the banner shows a lost connection
    }
  }

  #keep(fine: Map<string, Fine>): void {
    if (!fine.size && !this.#fine.size) return;
    this.#fine = fine;
    this.#version++;
    this.count = fine.size;
  }

  #holds({ key, series }: Curve, [from, to]: Steps): boolean {
    const fine = this.#fine.get(key);
    if (!fine || fine.coarse !== series) return false;
    return fine.complete ? fine.steps[0] <= from && to <= fine.steps[1] : fine.steps[0] === from && fine.steps[1] === to;
  }
}

/** From the last point before a range to the first one behind it, and how many points there are; null: none in sight. */
export function stepsWithin({ series: { points }, spans }: Curve, x: XKind, [min, max]: Range): { steps: Steps; points: number } | null {
  const column = new XColumn(x);
  column.follow(points, spans);
  if (!column.length) return null;
  const first = Math.max(0, lowerBound(column.xs, column.length, min) - 1);
  const last = Math.min(column.length - 1, lowerBound(column.xs, column.length, max));
  if (column.xs[first]! > max || column.xs[last]! < min) return null;
  return { steps: [points.steps[first]!, points.steps[last]!], points: last - first + 1 };
}

/** A series with a part of its points replaced, that goes on growing as the one it is made from. */
function merged(coarse: LiveSeries, part: Part, [from, to]: Steps): LiveSeries {
  const { points } = coarse;
  const fine = new Series(points.metric);
  let { cuts } = points;
  appendFrom(fine, points, 0, points.indexOf(from));
  appendPart(fine, part);
  let next = points.indexOf(to);
  while (next < points.length && points.steps[next]! <= to) next++;
  const follow = (): void => {
    void coarse.current;
    if (points.cuts !== cuts) {
      // An attempt has begun that superseded points: the part may be out of date.
      fine.clear();
      [next, cuts] = [0, points.cuts];
    }
    appendFrom(fine, points, next, points.length);
    next = points.length;
  };
  follow();
  return new LiveSeries(fine, follow);
}
