/**
 * The rows of one section: pages from the server, then kept true by what it says has changed.
 *
 * A change is taken into the stretch that has been read; what would stand behind it comes with its page. Whatever the
 * section can't know it asks again, at most once in a while: how many there are in all after a change, and the whole
 * stretch where only the server can say what belongs to it and in which place.
 */
import { SvelteMap } from 'svelte/reactivity';

import { passes, request, Unreachable } from '../api/client';
import { clock } from '../api/clock.svelte';
import type { ResultOf } from '../api/graphql';
import { conditionOf } from './conditions';
import { belongs, type Column, createdFrom, createdTo, type Section, type View } from './filter';
import { list, mostRows, type Row, valueOfColumn, withColumns } from './query';

const PAGE = 50;
const NEXT = 100; // rows of a page behind the first one
const RECOUNT_MS = 1_000;
const READ_AGAIN_MS = 3_000;
const MOST_READ_AGAIN = 500;

type Page = ResultOf<typeof list>['simulations'];

export interface Held extends Row {
  /** When the server said so, by `clock.now`: money ticks from there. */
  at: number;
  /** The values of the view's columns. */
  cells: readonly unknown[];
}

export class Rows {
  readonly section: Section;
  readonly #view: View;
  readonly #held = new SvelteMap<string, Held>();
  readonly #complain: (problem: unknown) => void;
  readonly #atFirst: number;
  readonly #document: typeof list;
  readonly #most: number;
  #places = new Map<string, number>(); // of a sorted list, by the order of its pages
  #end: string | null = null; // the cursor of the last page
  #edge: string | undefined; // when the last row of it was created
  #recount: ReturnType<typeof setTimeout> | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  #round = 0;
  #wanted = 0; // rows, once the page that is on its way has come
  #changed = new Set<string>(); // since it was last read anew

  total = $state<number | null>(null);
  /** It has been read as far as it was wanted. */
  read = $state(false);
  /** Why nothing of it could be read. */
  problem = $state('');
  more = $state(false);
  busy = $state(false);

  /** atFirst: so many rows are read to begin with. */
  constructor(section: Section, view: View, complain: (problem: unknown) => void, atFirst = PAGE) {
    this.section = section;
    this.#atFirst = atFirst;
    this.#view = view;
    this.#complain = complain;
    this.#document = withColumns(list, view.columns);
    this.#most = mostRows(view.columns);
  }

  /** How many rows have been read. */
  get held(): number {
    return this.#held.size;
  }

  readonly sorted = $derived.by(() => {
    const rows = [...this.#held.values()];
    if (this.#view.sort) {
      const place = ({ id }: Held): number => this.#places.get(id) ?? Infinity;
      return rows.sort((a, b) => place(a) - place(b));
    }
    const sign = this.section.oldestFirst ? 1 : -1;
    return rows.sort((a, b) => (a.createdAt < b.createdAt ? -sign : a.createdAt > b.createdAt ? sign : 0));
  });

  get(id: string): Held | undefined {
    return this.#held.get(id);
  }

  /** Read it anew, as far as it was read. */
  async load(): Promise<void> {
    clearTimeout(this.#again);
    this.#again = undefined;
    const round = ++this.#round;
    const fresh = new Map<string, Held>();
    const changed = (this.#changed = new Set<string>());
    await this.#read(async () => {
      const wanted = Math.max(PAGE, this.#wanted, this.read ? this.#held.size : this.#atFirst);
      let after: string | null = null;
      do {
        const page: Page = await this.#page(Math.min(wanted - fresh.size, this.#most), after);
        if (round !== this.#round) return; // another view has begun meanwhile
        for (const row of page.nodes) fresh.set(row.id, this.#heldOf(row));
        after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
        this.#note(page);
      } while (after !== null && fresh.size < wanted);
      this.#places = new Map([...fresh.keys()].map((id, place) => [id, place]));
      // Changes announced meanwhile are newer than the rows that were read.
      for (const id of this.#held.keys()) if (!fresh.has(id) && !changed.has(id)) this.#held.delete(id);
      for (const [id, row] of fresh) if (!changed.has(id)) this.#held.set(id, row);
      this.#wanted = 0;
      this.read = true;
    });
  }

  /** Read on, as far as `most` rows are held; until something fails. */
  async readUpTo(most: number): Promise<void> {
    for (let before = -1; this.more && this.held < most && this.held > before; ) {
      before = this.held;
      await this.next(most - before);
    }
  }

  async next(rows = NEXT): Promise<void> {
    if (this.busy) return;
    const round = this.#round;
    const count = Math.min(rows, this.#most);
    this.#wanted = this.#held.size + count; // of a list that is read anew meanwhile, too
    await this.#read(async () => {
      const page = await this.#page(count, this.#end);
      if (round !== this.#round) return;
      for (const row of page.nodes) {
        if (!this.#places.has(row.id)) this.#places.set(row.id, this.#places.size);
        this.#held.set(row.id, this.#heldOf(row));
      }
      this.#note(page);
    });
    if (round === this.#round) this.#wanted = 0;
  }

  /** Take in what has changed. */
  take(row: Row): void {
    const known = this.#held.get(row.id);
    const own = belongs(row, this.section, this.#view.filter, clock.now);
    if (own === false || known) this.#changed.add(row.id); // else what is being read may have it
    if (own === false) {
      if (known) this.#held.delete(row.id);
    } else if (known) {
      this.#held.set(row.id, { ...row, at: clock.now, cells: known.cells });
      if (this.#view.sort) this.#readAgain();
    } else if (own === null || this.#view.sort) this.#readAgain();
    else if (this.#isWithin(row)) {
      this.#changed.add(row.id);
      this.#held.set(row.id, { ...row, at: clock.now, cells: [] });
      if (this.#view.columns.length) this.#readAgain();
    }
    this.#countSoon();
  }

  close(): void {
    clearTimeout(this.#recount);
    clearTimeout(this.#again);
    this.#round++;
  }

  #heldOf(row: Page['nodes'][number]): Held {
    const cells = this.#view.columns.map((column: Column, at) => valueOfColumn(row, column, at));
    return { ...row, at: clock.now, cells };
  }

  #isWithin(row: Row): boolean {
    if (!this.more || this.#edge === undefined) return true;
    return this.section.oldestFirst ? row.createdAt <= this.#edge : row.createdAt >= this.#edge;
  }

  /** Only the server has the answer. A list that was read very far keeps its order until it is opened again. */
  #readAgain(): void {
    if (this.#held.size > MOST_READ_AGAIN) return;
    this.#again ??= setTimeout(() => {
      this.#again = undefined;
      void this.load();
    }, READ_AGAIN_MS);
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
    const { sort } = this.#view;
    const direction = this.section.oldestFirst ? ('ASC' as const) : ('DESC' as const);
    const orderBy = sort
      ? { field: sort.field, ...(sort.name === undefined ? {} : { name: sort.name }), ...(sort.descending === undefined ? {} : { direction: sort.descending ? ('DESC' as const) : ('ASC' as const) }) }
      : { field: 'CREATED_AT' as const, direction };
    return { ...scopeOf(this.#view, this.section.states), orderBy };
  }

  async #page(first: number, after: string | null): Promise<Page> {
    return (await request(this.#document, { ...this.#variables, first, after })).simulations;
  }

  #note({ nodes, pageInfo, totalCount }: Page): void {
    this.#edge = nodes.at(-1)?.createdAt ?? this.#edge;
    this.#end = pageInfo.endCursor;
    this.more = pageInfo.hasNextPage;
    this.total = totalCount;
    this.problem = '';
  }

  async #read(read: () => Promise<void>): Promise<void> {
    this.busy = true;
    try {
      await read();
    } catch (problem) {
      if (!this.read && passes(problem)) this.#readAgain();
      // The banner shows the lost connection; the rows are read again after a reconnect.
      if (problem instanceof Unreachable) return;
      if (this.total === null) this.problem = (problem as Error).message;
      else this.#complain(problem);
    } finally {
      this.busy = false;
    }
  }
}

/** What a view asks the server for, besides its order. */
export function scopeOf({ filter }: View, states: Section['states']) {
  const { project, machine, text, tags, user, where } = filter;
  const [from, to] = [createdFrom(filter, clock.now), createdTo(filter)];
  const given = {
    ...(text ? { text } : {}),
    ...(tags.length ? { tags: [...tags] } : {}),
    ...(user ? { createdBy: user } : {}),
    ...(from === null ? {} : { createdFrom: new Date(from).toISOString() }),
    ...(to === null ? {} : { createdTo: new Date(to).toISOString() }),
    ...(where.length ? { parameters: where.map((each) => conditionOf(each)!) } : {}),
  };
  return { states, project, machine, filter: Object.keys(given).length ? given : null };
}
