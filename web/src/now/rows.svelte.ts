/**
 * The rows of one section: pages from the server, then kept true by what it says has changed.
 *
 * A change is taken into the stretch that has been read; what would stand behind it comes with its page. Whatever the
 * section can't know (how many there are in all after a change) it asks again, at most once in a while.
 */
import { SvelteMap } from 'svelte/reactivity';

import { request, Unreachable } from '../api/client';
import { clock } from '../api/clock.svelte';
import { belongs, type Filter, type Section } from './filter';
import { list, type Row } from './query';

const PAGE = 50;
const RECOUNT_MS = 1_000;

export interface Held extends Row {
  /** When the server said so, by `clock.now`: money ticks from there. */
  at: number;
}

export class Rows {
  readonly section: Section;
  readonly #filter: Filter;
  readonly #held = new SvelteMap<string, Held>();
  readonly #complain: (problem: unknown) => void;
  #end: string | null = null;
  #recount: ReturnType<typeof setTimeout> | undefined;
  #round = 0;

  total = $state<number | null>(null);
  more = $state(false);
  busy = $state(false);

  constructor(section: Section, filter: Filter, complain: (problem: unknown) => void) {
    this.section = section;
    this.#filter = filter;
    this.#complain = complain;
  }

  readonly sorted = $derived.by(() => {
    const rows = [...this.#held.values()];
    const sign = this.section.oldestFirst ? 1 : -1;
    return rows.sort((a, b) => (a.createdAt < b.createdAt ? -sign : a.createdAt > b.createdAt ? sign : 0));
  });

  /** Read it anew, as far as it was read. */
  async load(): Promise<void> {
    const round = ++this.#round;
    const wanted = Math.max(PAGE, Math.min(this.#held.size, 500));
    await this.#page(wanted, null, (rows) => {
      if (round !== this.#round) return false; // another view has begun meanwhile
      const fresh = new Set(rows.map((row) => row.id));
      for (const id of this.#held.keys()) if (!fresh.has(id)) this.#held.delete(id);
      return true;
    });
  }

  async next(): Promise<void> {
    const round = this.#round;
    await this.#page(PAGE, this.#end, () => round === this.#round);
  }

  /** Take in what has changed. */
  take(row: Row): void {
    const known = this.#held.has(row.id);
    if (!belongs(row, this.section, this.#filter)) {
      if (known) this.#held.delete(row.id);
    } else if (known || this.#isWithin(row)) {
      this.#held.set(row.id, { ...row, at: clock.now });
    }
    this.#countSoon();
  }

  close(): void {
    clearTimeout(this.#recount);
    this.#round++;
  }

  #isWithin(row: Row): boolean {
    const last = this.sorted.at(-1);
    if (!this.more || last === undefined) return true;
    return this.section.oldestFirst ? row.createdAt <= last.createdAt : row.createdAt >= last.createdAt;
  }

  #countSoon(): void {
    this.#recount ??= setTimeout(() => {
      this.#recount = undefined;
      const round = this.#round;
      request(list, { ...this.#variables, first: 1 }).then(
        ({ simulations }) => round === this.#round && (this.total = simulations.totalCount),
        () => {}, // the banner says that the connection is lost; `load` follows when it is back
      );
    }, RECOUNT_MS);
  }

  get #variables() {
    const { project, machine, name } = this.#filter;
    const direction = this.section.oldestFirst ? ('ASC' as const) : ('DESC' as const);
    return { states: this.section.states, project, machine, name: name || null, direction };
  }

  async #page(first: number, after: string | null, isWanted: (rows: Row[]) => boolean): Promise<void> {
    this.busy = true;
    try {
      const { simulations } = await request(list, { ...this.#variables, first, after });
      if (!isWanted(simulations.nodes)) return;
      for (const row of simulations.nodes) this.#held.set(row.id, { ...row, at: clock.now });
      this.#end = simulations.pageInfo.endCursor;
      this.more = simulations.pageInfo.hasNextPage;
      this.total = simulations.totalCount;
    } catch (problem) {
      if (!(problem instanceof Unreachable)) this.#complain(problem); // the banner says so, and it is read anew after that
    } finally {
      this.busy = false;
    }
  }
}
