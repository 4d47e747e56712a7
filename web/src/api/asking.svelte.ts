/**
 * What a page shows, asked for again and again: at intervals, soon after a hint that something has changed, a few
 * seconds after a failure that passes (the database is away), and at once when a lost connection is back. One question
 * is on its way at a time.
 */
import { connected, passes, Unreachable } from './client';

const FAILED_MS = 3_000;
const HIDDEN_TIMES = 6; // a page that is not in sight asks so much less often

interface Pace {
  /** Milliseconds to the next question after an answer; null: only a hint leads to one. */
  every: () => number | null;
  /** Between two questions that hints lead to. */
  atLeast?: number;
}

export class Asking {
  /** The server's refusal of the last question; of a lost connection the banner tells. */
  problem = $state('');
  readonly #ask: () => Promise<void>;
  readonly #pace: Pace;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #askedAt = -Infinity;
  #busy = false;
  #again: 'no' | 'soon' | 'now' = 'no'; // when the question that is on its way has its answer
  #closed = false;

  /** ask: sends the question and takes the answer; raises as `request` does. */
  constructor(ask: () => Promise<void>, pace: Pace) {
    this.#ask = ask;
    this.#pace = pace;
  }

  /** Ask at once, or as soon as the question that is on its way has its answer: that may be an old one. */
  now(): void {
    if (this.#closed) return;
    if (this.#busy) this.#again = 'now';
    else void this.#run();
  }

  /** Something has changed. */
  soon(): void {
    if (this.#closed) return;
    if (!this.#busy) this.#in(Math.max(0, this.#askedAt + (this.#pace.atLeast ?? 0) - performance.now()));
    else if (this.#again === 'no') this.#again = 'soon';
  }

  /** Ask no more. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #in(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.now(), milliseconds);
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer);
    this.#busy = true;
    this.#again = 'no';
    this.#askedAt = performance.now();
    const next = await this.#asked();
    this.#busy = false;
    this.#goOn(next);
  }

  #goOn(next: number | null): void {
    if (this.#closed) return;
    if (this.#again === 'now') this.now();
    else if (this.#again === 'soon') this.soon();
    else if (next !== null) this.#in(next);
  }

  /** Ask once. Returns the milliseconds to the next question; null: none is due. */
  async #asked(): Promise<number | null> {
    try {
      await this.#ask();
      this.problem = '';
    } catch (failure) {
      if (!(failure instanceof Unreachable)) this.problem = (failure as Error).message;
      if (passes(failure)) return FAILED_MS;
      if (failure instanceof Unreachable) {
        await connected();
        return 0;
      }
    }
    const every = this.#pace.every();
    return every !== null && document.hidden ? HIDDEN_TIMES * every : every;
  }
}
