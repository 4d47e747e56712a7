/**
 * The small curves of the list, and the newest values: asked for now and then, for what is on the screen. A subscription
 * each would be quicker, but it counts as watching, and watching starts simulations that wait to be watched.
 */
import { SvelteMap } from 'svelte/reactivity';

import { request } from '../api/client';
import { connection } from '../api/connection.svelte';
import type { ResultOf } from '../api/graphql';
import { chiefOf, pulses, type Row } from './query';

const EVERY_MS = 5_000;
const AT_ONCE = 20; // what the server lets one query cost

type Node = NonNullable<ResultOf<typeof pulses>['nodes'][number]>;
export type Pulse = Extract<Node, { id: string }>;

export class Pulses {
  readonly #pulses = new SvelteMap<string, Pulse>();
  readonly #shown = new Map<string, { metric: string | null; live: boolean }>();
  readonly #settled = new Set<string>(); // asked for since they left their machine: nothing changes any more
  #timer: ReturnType<typeof setTimeout> | undefined;

  get(id: string): Pulse | undefined {
    return this.#pulses.get(id);
  }

  /** A row has come onto the screen, or what it shows has changed. */
  show(row: Row, live: boolean): void {
    const metric = chiefOf(this.#pulses.get(row.id) ?? row);
    const before = this.#shown.get(row.id);
    this.#shown.set(row.id, { metric, live });
    if (live) this.#settled.delete(row.id);
    if (before?.metric === metric && before.live === live) return;
    this.#soon(50);
  }

  hide(id: string): void {
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
      for (const [metric, ids] of groups) {
        for (let from = 0; from < ids.length; from += AT_ONCE) {
          await this.#askFor(metric, ids.slice(from, from + AT_ONCE));
        }
      }
    }
    if (this.#wanted.length) this.#soon(EVERY_MS);
  }

  async #askFor(metric: string, ids: string[]): Promise<void> {
    const ended = ids.filter((id) => this.#shown.get(id)?.live === false);
    try {
      const { nodes } = await request(pulses, { ids, metric });
      for (const id of ended) this.#settled.add(id);
      for (const node of nodes) {
        if (node !== null && 'id' in node) {
          this.#pulses.set(node.id, node);
          const shown = this.#shown.get(node.id);
          if (shown === undefined) continue;
          shown.metric = chiefOf(node);
          if (shown.metric !== metric) this.#settled.delete(node.id); // the curve of another one came with it
        }
      }
    } catch {
      // It is a decoration: the next round tries again.
    }
  }
}
