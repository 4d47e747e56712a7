/**
 * The rows of one section: pages from the server, then kept true by what it says has changed.
 *
 * A change is taken into the stretch that has been read; what would stand behind it comes with its page. Whatever the
 * section can't know (how many there are in all after a change) it asks again, at most once in a while.
 */
import { SvelteMap } from 'svelte/reactivity';

import { request, Unreachable } from '../api/client';
import { clock } from '../api/clock.svelte';
import type { ResultOf } from '../api/graphql';
import { belongs, type Filter, type Section } from './filter';
import { list, type Row } from './query';

const PAGE = 50;
const MOST_AT_ONCE = 500; // what the server lets one page have
const RECOUNT_MS = 1_000;

type Page = ResultOf<typeof list>['simulations'];

export interface Held extends Row {
  /** When the server said so, by `clock.now`: money ticks from there. */
  at: number;
}

export class Rows {
  readonly section: Section;
  readonly #filter: Filter;
  readonly #held = new SvelteMap<string, Held>();
  readonly #complain: (problem: unknown) => void;
  readonly #atFirst: number;
  #end: string | null = null; // the cursor of the last page
  #edge: string | undefined; // when the last row of it was created
  #recount: ReturnType<typeof setTimeout> | undefined;
  #round = 0;
  #changed = new Set<string>(); // since it was last read anew

  total = $state<number | null>(null);
  /** It has been read as far as it was wanted. */
  read = $state(false);
  /** Why nothing of it could be read. */
  problem = $state('');
  more = $state(false);
  busy = $state(false);

  /** atFirst: so many rows are read to begin with. */
  constructor(section: Section, filter: Filter, complain: (problem: unknown) => void, atFirst = PAGE) {
    this.section = section;
    this.#atFirst = atFirst;
    this.#filter = filter;
    this.#complain = complain;
  }

  /** How many rows have been read. */
  get held(): number {
    return this.#held.size;
  }

  readonly sorted = $derived.by(() => {
    const rows = [...this.#held.values()];
    const sign = this.section.oldestFirst ? 1 : -1;
    return rows.sort((a, b) => (a.createdAt < b.createdAt ? -sign : a.createdAt > b.createdAt ? sign : 0));
  });

  /** Read it anew, as far as it was read. */
  async load(): Promise<void> {
    const round = ++this.#round;
    const fresh = new Map<string, Held>();
    const changed = (this.#changed = new Set<string>());
    await this.#read(async () => {
      const wanted = this.read ? this.#held.size : this.#atFirst;
      let after: string | null = null;
      do {
        const left = Math.max(PAGE, wanted) - fresh.size;
        const page: Page = await this.#page(Math.min(left, MOST_AT_ONCE), after);
        if (round !== this.#round) return; // another view has begun meanwhile
        for (const row of page.nodes) fresh.set(row.id, { ...row, at: clock.now });
        after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
        this.#note(page);
      } while (after !== null && fresh.size < wanted);
      // Changes announced meanwhile are newer than the rows that were read.
      for (const id of this.#held.keys()) if (!fresh.has(id) && !changed.has(id)) this.#held.delete(id);
      for (const [id, row] of fresh) if (!changed.has(id)) this.#held.set(id, row);
      this.read = true;
    });
  }

  async next(): Promise<void> {
    const round = this.#round;
    await this.#read(async () => {
      const page = await this.#page(PAGE, this.#end);
      if (round !== this.#round) return;
      for (const row of page.nodes) this.#held.set(row.id, { ...row, at: clock.now });
      this.#note(page);
    });
  }

  /** Take in what has changed. */
  take(row: Row): void {
    const known = this.#held.has(row.id);
    this.#changed.add(row.id);
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
    if (!this.more || this.#edge === undefined) return true;
    return this.section.oldestFirst ? row.createdAt <= this.#edge : row.createdAt >= this.#edge;
  }

  #countSoon(): void {
    this.#recount ??= setTimeout(() => {
      this.#recount = undefined;
      const round = this.#round;
      request(list, { ...this.#variables, first: 1 }).then(
        ({ simulations: { totalCount } }) => {
          if (round !== this.#round) return;
          this.total = totalCount;
          if (this.read && !this.more && totalCount !== this.#held.size) void this.load(); // deletions are not announced
        },
        () => {}, // the banner shows the lost connection; `load` follows after a reconnect
      );
    }, RECOUNT_MS);
  }

  get #variables() {
    const { project, machine, name } = this.#filter;
    const direction = this.section.oldestFirst ? ('ASC' as const) : ('DESC' as const);
    return { states: this.section.states, project, machine, name: name || null, direction };
  }

  async #page(first: number, after: string | null): Promise<Page> {
    return (await request(list, { ...this.#variables, first, after })).simulations;
  }

  #note({ nodes, pageInfo, totalCount }: Page): void {
    this.#edge = nodes.at(-1)?.createdAt ?? this.#edge;
    this.#end = pageInfo.endCursor;
    this.more = pageInfo.hasNextPage;
    this.total = totalCount;
  }

  async #read(read: () => Promise<void>): Promise<void> {
    this.busy = true;
    try {
      await read();
    } catch (problem) {
      // The banner shows the lost connection; the rows are read again after a reconnect.
      if (problem instanceof Unreachable) return;
      if (this.total === null) this.problem = (problem as Error).message;
      else this.#complain(problem);
    } finally {
      this.busy = false;
    }
  }
}
