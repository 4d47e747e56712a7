/**
 * The curves of one metric of many simulations: their past in one request, downsampled; behind it, of those that have
 * not ended, each point as it comes.
 */
import { Asking } from '../api/asking.svelte';
import { request } from '../api/client';
import { Finer, type Source, type Steps } from '../curves/finer.svelte';
import { LiveSeries } from '../curves/live.svelte';
import { CURVES, type FetchedCurve } from '../curves/parts';
import { appendPart, Curves, Series } from '../curves/series';
import { follow } from '../curves/stream';

const UPDATE_MS = 16;
const SLOW_MS = 500;
const MOST_POINTS = 60_000; // of all curves together: what a frame has room for
const FEWEST = 400; // of each
const MOST = 10_000;
const AT_ONCE = 500; // ids in a request

export class Runs implements Source {
  readonly metric: string;
  /** Of the part that a reader has zoomed to. */
  readonly finer = new Finer(this);
  readonly #most: number | null;
  readonly #changed: (id: string) => void;
  readonly #curves = new Map<string, Curves>();
  readonly #series = new Map<string, LiveSeries>();
  readonly #cursors = new Map<string, string | null>();
  readonly #following = new Map<string, () => void>();
  readonly #ended = new Set<string>();
  readonly #thinned = new Set<string>();
  readonly #asking = new Asking(() => this.#ask(), { every: () => null });
  #asked = new Set<string>();
  #shown: readonly string[] = [];
  #running: ReadonlySet<string> = new Set();
  #timed = false;
  #version = $state(0);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #slowly: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  /** Rises at most twice a second: for what is read, not drawn. */
  slow = $state(0);
  /** Whether the past of all of them is here, and was drawn. In a page that is not in sight it may wait. */
  loaded = $state(false);
  /** Points that a curve has at most. */
  thinnedTo = $state(0);

  /** changed: what a simulation is, not only its curve, has changed. most: points of each curve. */
  constructor(metric: string, changed: (id: string) => void = () => {}, most: number | null = null) {
    this.metric = metric;
    this.#changed = changed;
    this.#most = most;
  }

  /** Why their curves could not be read. */
  get problem(): string {
    return this.#asking.problem;
  }

  /** Have the curves of these simulations, and follow those that run. timed: with the times of their points. */
  show(ids: readonly string[], running: ReadonlySet<string>, timed: boolean): void {
    this.#shown = ids;
    this.#running = running;
    for (const id of [...this.#following.keys()]) if (!ids.includes(id)) this.#leave(id);
    for (const id of this.#asked) if (!ids.includes(id)) this.#forget(id);
    if (timed && !this.#timed) {
      // Those that are here have no times: they are asked for anew, and followed from where that answer ends.
      this.#timed = true;
      for (const id of [...this.#following.keys()]) this.#leave(id);
      this.#asked.clear();
    }
    this.#asking.now();
  }

  /** Ask anew for the curves of these: of runs that go on and are not followed. */
  again(ids: readonly string[]): void {
    for (const id of ids) this.#asked.delete(id);
    this.#asking.now();
  }

  /** So many points of each curve, where there are so many. */
  most(curves: number): number {
    return Math.max(FEWEST, Math.min(MOST, Math.floor(MOST_POINTS / Math.max(1, curves))));
  }

  /** Of these simulations those that have more points than are held. */
  thinned(ids: readonly string[]): string[] {
    return ids.filter((id) => this.#thinned.has(id));
  }

  /** A part of their curves, with at most so many points of each. */
  async part(ids: readonly string[], [fromStep, toStep]: Steps, maxPoints: number): Promise<Map<string, FetchedCurve['curve']>> {
    const { curves } = await request(CURVES, { ids: [...ids], metric: this.metric, fromStep, toStep, maxPoints, timed: this.#timed });
    return new Map(curves.map(({ simulationId, curve }) => [simulationId, curve]));
  }

  /** Ask for those that are missing. */
  async #ask(): Promise<void> {
    const missing = this.#shown.filter((id) => !this.#asked.has(id));
    const maxPoints = this.#most ?? this.most(this.#shown.length);
    const timed = this.#timed;
    this.thinnedTo = maxPoints;
    for (let begin = 0; begin < missing.length; begin += AT_ONCE) {
      const ids = missing.slice(begin, begin + AT_ONCE);
      const { curves } = await request(CURVES, { ids, metric: this.metric, fromStep: null, toStep: null, maxPoints, timed });
      if (this.#closed) return;
      if (timed !== this.#timed) return; // it is asked again
      for (const id of ids) if (this.#shown.includes(id)) this.#asked.add(id);
      for (const each of curves) if (this.#asked.has(each.simulationId)) this.#take(each, maxPoints);
      this.#show(); // at once: a timer would run behind the layout of all that is below the chart
    }
    requestAnimationFrame(() => setTimeout(() => (this.loaded = true))); // behind the frame
    this.#followAll();
  }

  /** The same object for as long as the simulation is shown; without points until some come. */
  series(id: string): LiveSeries {
    let live = this.#series.get(id);
    if (!live) {
      live = new LiveSeries(this.#curvesOf(id).byMetric.get(this.metric)!, () => this.#version);
      this.#series.set(id, live);
    }
    return live;
  }

  close(): void {
    this.#closed = true;
    this.#asking.close();
    this.finer.close();
    clearTimeout(this.#timer);
    clearTimeout(this.#slowly);
    for (const id of [...this.#following.keys()]) this.#leave(id);
  }

  #curvesOf(id: string): Curves {
    let curves = this.#curves.get(id);
    if (!curves) {
      this.#curves.set(id, (curves = new Curves()));
      curves.byMetric.set(this.metric, new Series(this.metric));
    }
    return curves;
  }

  #take({ simulationId, cursor, curve }: FetchedCurve, maxPoints: number): void {
    const series = this.#curvesOf(simulationId).byMetric.get(this.metric)!;
    series.clear(); // if it was asked for anew
    appendPart(series, curve);
    // What is chosen may be fewer points than asked for.
    if (2 * curve.steps.length >= maxPoints) this.#thinned.add(simulationId);
    else this.#thinned.delete(simulationId);
    this.#cursors.set(simulationId, cursor);
  }

  #followAll(): void {
    for (const id of this.#running) {
      if (!this.#cursors.has(id) || this.#following.has(id) || this.#ended.has(id)) continue;
      const curves = this.#curvesOf(id);
      const sink = {
        add: (event: Parameters<Curves['add']>[0]) => {
          curves.add(event);
          if (event.series.length) this.#grow();
        },
      };
      const stop = follow({ id, metrics: [this.metric], after: this.#cursors.get(id)! }, sink, {
        next: (event) => event.live && !event.series.length && this.#changed(id),
        failed: () => this.#leave(id),
        complete: () => {
          this.#ended.add(id);
          this.#leave(id);
          this.#changed(id);
        },
      });
      this.#following.set(id, stop);
    }
  }

  #leave(id: string): void {
    this.#following.get(id)?.();
    this.#following.delete(id);
  }

  #forget(id: string): void {
    for (const kept of [this.#curves, this.#series, this.#cursors, this.#thinned, this.#asked, this.#ended]) kept.delete(id);
  }

  /** Let what came be drawn. */
  #show(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#version += 1;
    this.#slowly ??= setTimeout(() => {
      this.#slowly = undefined;
      this.slow += 1;
    }, SLOW_MS);
  }

  #grow(): void {
    this.#timer ??= setTimeout(() => this.#show(), UPDATE_MS);
  }
}
