/** The trials of a sweep, by number. Read anew, only those from the first one on that has not ended are asked for. */
import { request } from '../api/client';
import { type Trial, TRIALS } from './documents';

const PAGE = 500; // what the server lets one page have

export class Trials {
  readonly #id: string;
  #cursors: string[] = [];
  #busy = false;
  #again = false;

  list = $state.raw<readonly Trial[]>([]);
  /** All of them have been read once. */
  loaded = $state(false);

  constructor(id: string) {
    this.#id = id;
  }

  /** Read them anew, once at a time. Raises as `request` does. */
  async load(): Promise<void> {
    this.#again = true;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#again) {
        this.#again = false;
        await this.#read();
      }
    } finally {
      this.#busy = false;
    }
  }

  async #read(): Promise<void> {
    const open = this.list.findIndex(({ state }) => state === 'OPEN');
    let kept = open < 0 ? this.list.length : open;
    for (;;) {
      const after = kept ? this.#cursors[kept - 1]! : null;
      const trials = (await request(TRIALS, { id: this.#id, first: PAGE, after })).sweep?.trials;
      if (!trials) return;
      this.#cursors = [...this.#cursors.slice(0, kept), ...trials.edges.map(({ cursor }) => cursor)];
      this.list = [...this.list.slice(0, kept), ...trials.edges.map(({ node }) => node)];
      kept = this.list.length;
      if (!trials.pageInfo.hasNextPage) break;
    }
    this.loaded = true;
  }
}
