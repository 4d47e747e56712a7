/**
 * The machines of one page of the list, kept true: what the server says has changed is a hint to ask again, at most so
 * often. Heartbeats, silence and deletions are not announced: they are found by polling.
 */
import { request, subscribe, Unreachable } from '../api/client';
import { connection } from '../api/connection.svelte';
import { MachineChanged, Machines, SimulationChanged, type MachineRow } from './documents';
import type { View } from './view';

const PAGE = 25;
const AT_MOST_MS = 1_000;
const AT_LEAST_MS = 10_000;

export class Rows {
  list = $state.raw<MachineRow[] | null>(null);
  total = $state(0);
  /** The cursor of the next page; null: this is the last one. */
  next = $state<string | null>(null);
  /** The server's refusal. */
  problem = $state('');
  #view: View;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking = false;
  #again = false;
  #closed = false;
  #askedAt = -AT_MOST_MS;
  readonly #leave: (() => void)[];

  constructor(view: View) {
    this.#view = view;
    const hint = {
      variables: () => ({}),
      begun: () => this.refresh(),
      next: () => this.refresh(),
      failed: (problem: Error) => void (this.problem = problem.message),
    };
    this.#leave = [subscribe(MachineChanged, hint), subscribe(SimulationChanged, hint)];
  }

  show(view: View): void {
    this.#view = view;
    this.#askedAt = -AT_MOST_MS;
    this.refresh();
  }

  /** Ask again soon: now, unless it was asked just now. */
  refresh(): void {
    this.#again = true;
    if (!this.#asking) this.#in(Math.max(0, this.#askedAt + AT_MOST_MS - performance.now()));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const leave of this.#leave) leave();
  }

  #in(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(), milliseconds);
  }

  async #ask(): Promise<void> {
    if (!connection.live && this.list !== null) return; // `begun` asks when it is back
    this.#asking = true;
    this.#again = false;
    this.#askedAt = performance.now();
    const view = this.#view;
    try {
      const { machines } = await request(Machines, {
        first: PAGE,
        after: view.after,
        states: view.state === null ? null : [view.state],
        engine: view.engine,
        name: view.name || null,
        direction: view.descending ? 'DESC' : 'ASC',
      });
      if (view === this.#view) {
        this.list = machines.nodes;
        this.total = machines.totalCount;
        this.next = machines.pageInfo.hasNextPage ? machines.pageInfo.endCursor : null;
        this.problem = '';
      }
    } catch (problem) {
      if (view === this.#view && !(problem instanceof Unreachable)) this.problem = (problem as Error).message;
    }
    this.#asking = false;
    if (this.#closed) return;
    if (this.#again || view !== this.#view) this.refresh();
    else this.#in(document.hidden ? 6 * AT_LEAST_MS : AT_LEAST_MS);
  }
}
