/**
 * The curves of one metric of many simulations: their past in one request, downsampled; behind it, of those that have
 * not ended, each point as it comes.
 */
import { request, Unreachable } from '../api/client';
import { LiveSeries } from '../curves/live.svelte';
import { Curves, Series } from '../curves/series';
import { follow } from '../curves/stream';
import { CURVES, type FetchedCurve } from './query';

const UPDATE_MS = 16;
const SLOW_MS = 500;
const MOST_POINTS = 60_000; // of all curves together: what a frame has room for
const FEWEST = 400; // of each
const MOST = 10_000;
const AT_ONCE = 500; // ids in a request

export class Runs {
  readonly metric: string;
  readonly #most: number | null;
  readonly #changed: (id: string) => void;
  readonly #curves = new Map<string, Curves>();
  readonly #series = new Map<string, LiveSeries>();
  readonly #cursors = new Map<string, string | null>();
  readonly #following = new Map<string, () => void>();
  readonly #ended = new Set<string>();
  #asked = new Set<string>();
  #running: ReadonlySet<string> = new Set();
  #version = $state(0);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #slowly: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  /** Rises at most twice a second: for what is read, not drawn. */
  slow = $state(0);
  /** Whether the past of all of them is here. */
  loaded = $state(false);
  problem = $state('');
  /** Points that a curve has at most. */
  thinnedTo = $state(0);

  /** changed: what a simulation is, not only its curve, has changed. most: points of each curve. */
  constructor(metric: string, changed: (id: string) => void = () => {}, most: number | null = null) {
    this.metric = metric;
    this.#changed = changed;
    this.#most = most;
  }

  /** Have the curves of these simulations, and follow those that run. */
  async show(ids: readonly string[], running: ReadonlySet<string>): Promise<void> {
    this.#running = running;
    for (const id of [...this.#following.keys()]) if (!ids.includes(id)) this.#leave(id);
    for (const id of this.#asked) if (!ids.includes(id)) this.#forget(id);
    const missing = ids.filter((id) => !this.#asked.has(id));
    for (const id of missing) this.#asked.add(id);
    try {
      const maxPoints = this.#most ?? Math.max(FEWEST, Math.min(MOST, Math.floor(MOST_POINTS / Math.max(1, ids.length))));
      this.thinnedTo = maxPoints;
      for (let begin = 0; begin < missing.length; begin += AT_ONCE) {
        const { curves } = await request(CURVES, { ids: missing.slice(begin, begin + AT_ONCE), metric: this.metric, maxPoints });
        if (this.#closed) return;
        for (const each of curves) if (this.#asked.has(each.simulationId)) this.#take(each);
      }
      this.problem = '';
      this.loaded = true;
    } catch (failure) {
      for (const id of missing) this.#asked.delete(id);
      if (!(failure instanceof Unreachable)) this.problem = (failure as Error).message;
    }
    if (!this.#closed) this.#followAll();
  }

  /** Ask anew for the curves of these: of runs that go on and are not followed. */
  async again(ids: readonly string[]): Promise<void> {
    const shown = [...this.#asked];
    for (const id of ids) this.#asked.delete(id);
    await this.show(shown, this.#running);
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

  #take({ simulationId, cursor, curve: { metric, steps, values, elapsed, attempts } }: FetchedCurve): void {
    const curves = this.#curvesOf(simulationId);
    curves.byMetric.get(metric)!.clear(); // if it was asked for anew
    // Attempts stand one behind the other: what a later one superseded is not among the points.
    for (let begin = 0; begin < steps.length; ) {
      let end = begin;
      while (end < steps.length && attempts[end] === attempts[begin]) end++;
      const part = { metric, steps: steps.slice(begin, end), values: values.slice(begin, end), elapsed: elapsed.slice(begin, end), supersedesFrom: null };
      curves.add({ attempt: attempts[begin]!, series: [part] });
      begin = end;
    }
    this.#cursors.set(simulationId, cursor);
    this.#grow();
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
    for (const kept of [this.#curves, this.#series, this.#cursors, this.#asked, this.#ended]) kept.delete(id);
  }

  #grow(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#version += 1;
    }, UPDATE_MS);
    this.#slowly ??= setTimeout(() => {
      this.#slowly = undefined;
      this.slow += 1;
    }, SLOW_MS);
  }
}
