/**
 * The machines of one page of the list, kept true: what the server says has changed is a hint to ask again, at most so
 * often. Heartbeats, silence and deletions are not announced: they are found by polling.
 */
import { Asking } from '../api/asking.svelte';
import { request, subscribe } from '../api/client';
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
  #view: View;
  readonly #asking = new Asking(() => this.#ask(), { every: () => AT_LEAST_MS, atLeast: AT_MOST_MS });
  readonly #leave: (() => void)[];

  constructor(view: View) {
    this.#view = view;
    const hint = {
      variables: () => ({}),
      begun: () => this.refresh(),
      next: () => this.refresh(),
      failed: () => this.refresh(), // its refusal is the sentence that is shown
    };
    this.#leave = [subscribe(MachineChanged, hint), subscribe(SimulationChanged, hint)];
  }

  /** The server's refusal. */
  get problem(): string {
    return this.#asking.problem;
  }

  show(view: View): void {
    this.#view = view;
    this.#asking.now();
  }

  /** Ask again soon: now, unless it was asked just now. */
  refresh(): void {
    this.#asking.soon();
  }

  close(): void {
    this.#asking.close();
    for (const leave of this.#leave) leave();
  }

  async #ask(): Promise<void> {
    const view = this.#view;
    const { machines } = await request(Machines, {
      first: PAGE,
      after: view.after,
      states: view.state === null ? null : [view.state],
      engine: view.engine,
      name: view.name || null,
      direction: view.descending ? 'DESC' : 'ASC',
    });
    if (view !== this.#view) return;
    this.list = machines.nodes;
    this.total = machines.totalCount;
    this.next = machines.pageInfo.hasNextPage ? machines.pageInfo.endCursor : null;
  }
}
