/** Where the points of a curve lie on the x axis: by step, by step since its first one, by time or by money. */
import { type Series, wider } from './series';

export type XKind = 'step' | 'since' | 'elapsed' | 'wall' | 'cost';

/** Whether points lie by the seconds since their attempt's start. */
export function isTimed(kind: XKind): boolean {
  return kind !== 'step' && kind !== 'since';
}

/** Of the schema's `Attempt`, what time and money are reckoned from. Times in milliseconds since 1970. */
export interface Span {
  number: number;
  assignedAt: number;
  startedAt: number | null;
  endedAt: number | null;
  /** What is billed: the machine's price times the share of it. */
  perHour: number;
}

/** x = begin + seconds since the attempt's start * slope */
interface Placing {
  begin: number;
  slope: number;
}

const HOUR_MS = 3_600_000;

/** How elapsed seconds become x, by attempt. Step needs none. Attempts that have not started yet are not in it. */
export function placing(kind: XKind, spans: readonly Span[]): Map<number, Placing> {
  const places = new Map<number, Placing>();
  let seconds = 0; // on machines, in the attempts before
  let money = 0;
  for (const span of spans) {
    if (span.startedAt !== null) {
      if (kind === 'elapsed') places.set(span.number, { begin: seconds, slope: 1 });
      else if (kind === 'wall') places.set(span.number, { begin: span.startedAt / 1_000, slope: 1 });
      else if (kind === 'cost') {
        const begin = money + (span.perHour * (span.startedAt - span.assignedAt)) / HOUR_MS;
        places.set(span.number, { begin, slope: span.perHour / 3_600 });
      }
    }
    if (span.endedAt === null) continue;
    if (span.startedAt !== null) seconds += (span.endedAt - span.startedAt) / 1_000;
    money += (span.perHour * (span.endedAt - span.assignedAt)) / HOUR_MS;
  }
  return places;
}

/** The x column of a series; like the series itself, it only grows at its end. */
export class XColumn {
  xs: Float64Array = new Float64Array(0);
  /** As many as can be placed: points of an attempt that is not known yet wait for it, and those whose time was not asked for. */
  length = 0;
  readonly kind: XKind;
  #placing = new Map<number, Placing>();
  #known = '';
  #cuts = 0;
  #room = new Float64Array(1_024);

  constructor(kind: XKind) {
    this.kind = kind;
  }

  /** Bring it up to the series' end. */
  follow(series: Series, spans: readonly Span[]): void {
    if (this.kind === 'step') {
      this.xs = series.steps;
      this.length = series.length;
      return;
    }
    const places = placing(this.kind, spans);
    const known = JSON.stringify([...places]);
    if (known !== this.#known || series.cuts !== this.#cuts) {
      this.#placing = places;
      this.#known = known;
      this.#cuts = series.cuts;
      this.length = 0;
    }
    if (this.length === series.length) return;
    if (this.#room.length < series.length) this.#room = wider(this.#room, series.steps.length);
    if (this.kind === 'since') {
      for (; this.length < series.length; this.length++) this.#room[this.length] = series.steps[this.length]! - series.steps[0]!;
      this.xs = this.#room;
      return;
    }
    const ends = series.beginnings.map((_, number) => series.beginnings[number + 1]?.index ?? series.length);
    for (const [number, { attempt }] of series.beginnings.entries()) {
      const end = ends[number]!;
      if (end <= this.length) continue;
      const place = this.#placing.get(attempt);
      if (!place) break;
      for (; this.length < end; this.length++) {
        const x = place.begin + series.elapsed[this.length]! * place.slope;
        if (Number.isNaN(x)) break;
        // Clocks of two machines may differ: x never falls.
        this.#room[this.length] = this.length ? Math.max(x, this.#room[this.length - 1]!) : x;
      }
      if (this.length < end) break;
    }
    this.xs = this.#room;
  }
}
