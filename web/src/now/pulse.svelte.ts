/**
 * The small curves of the list, and the newest values: asked for now and then, for what is on the screen. A subscription
 * each would be quicker, but it counts as watching, and watching starts simulations that wait to be watched.
 */
import { SvelteMap } from 'svelte/reactivity';

import { request } from '../api/client';
import { connection } from '../api/connection.svelte';
import type { ResultOf } from '../api/graphql';
import type { Column } from './filter';
import { mostRows, pulses, type Row, valueOfColumn, withColumns } from './query';

const EVERY_MS = 5_000;
const AT_ONCE = 20;
const PULSE_COST = 15; // of a row, in the server's units: its points count

type Node = NonNullable<ResultOf<typeof pulses>['nodes'][number]>;
export type Pulse = Extract<Node, { id: string }> & { cells: readonly unknown[] };

export class Pulses {
  readonly #pulses = new SvelteMap<string, Pulse>();
  readonly #shown = new Map<string, { metric: string | null; live: boolean }>();
  readonly #settled = new Set<string>(); // asked for since they left their machine: nothing changes any more
  #columns: readonly Column[] = [];
  #document = pulses;
  #timer: ReturnType<typeof setTimeout> | undefined;

  get(id: string): Pulse | undefined {
    return this.#pulses.get(id);
  }

  /** The columns whose values are read, too. */
  show(columns: readonly Column[]): void {
    if (JSON.stringify(columns) === JSON.stringify(this.#columns)) return;
    this.#columns = columns;
    this.#document = withColumns(pulses, columns);
    this.#pulses.clear();
    this.#settled.clear();
    if (this.#wanted.length) this.#soon(50);
  }

  /** A row has come onto the screen, or what it shows has changed. */
  enter(row: Row, live: boolean): void {
    const metric = (this.#pulses.get(row.id) ?? row).objective?.metric ?? null;
    const before = this.#shown.get(row.id);
    this.#shown.set(row.id, { metric, live });
    if (live) this.#settled.delete(row.id);
    if (before?.metric === metric && before.live === live) return;
    if (this.#wanted.length) this.#soon(50);
  }

  leave(id: string): void {
    this.#shown.delete(id);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#shown.clear();
  }

  #soon(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(), milliseconds);
  }

  /** Of what is on the screen: what grows, and what has ended since it was asked for. */
  get #wanted(): string[] {
    return [...this.#shown].flatMap(([id, { metric, live }]) => (live || (metric !== null && !this.#settled.has(id)) ? [id] : []));
  }

  async #ask(): Promise<void> {
    if (connection.live && !document.hidden) {
      const groups = new Map<string, string[]>();
      for (const id of this.#wanted) {
        // One that reported nothing yet is asked for, too: under a name that it may come to use.
        const metric = this.#shown.get(id)!.metric ?? 'loss';
        groups.set(metric, [...(groups.get(metric) ?? []), id]);
      }
      const most = Math.min(AT_ONCE, mostRows(this.#columns, PULSE_COST));
      for (const [metric, ids] of groups) {
        for (let from = 0; from < ids.length; from += most) await this.#askFor(metric, ids.slice(from, from + most));
      }
    }
    if (this.#wanted.length) this.#soon(EVERY_MS);
  }

  async #askFor(metric: string, ids: string[]): Promise<void> {
    const ended = ids.filter((id) => this.#shown.get(id)?.live === false);
    const columns = this.#columns;
    try {
      const { nodes } = await request(this.#document, { ids, metric });
      if (columns !== this.#columns) return;
      for (const id of ended) this.#settled.add(id);
      for (const node of nodes) {
        if (node !== null && 'id' in node) {
          this.#pulses.set(node.id, { ...node, cells: columns.map((column, at) => valueOfColumn(node, column, at)) });
          const shown = this.#shown.get(node.id);
          if (shown === undefined) continue;
          shown.metric = node.objective?.metric ?? null;
          if (shown.metric !== metric) this.#settled.delete(node.id); // the curve of another one came with it
        }
      }
    } catch {
      // It is a decoration: the next round tries again.
    }
  }
}
