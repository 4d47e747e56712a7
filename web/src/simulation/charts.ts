/** How the small charts of a simulation are grouped, searched and laid out in rows. */

export interface Group<Item> {
  /** Empty: it needs none. */
  title: string;
  items: readonly Item[];
}

const FIRST = ['val', 'valid', 'validation', 'eval', 'test', 'train', 'training'];

/** `train` of train/loss; empty: it has no prefix. */
export function prefixOf(name: string): string {
  const end = name.indexOf('/');
  return end > 0 ? name.slice(0, end) : '';
}

/**
 * Names by their prefix: what is pinned, then the objective's group, validation before training, then by name. Within a
 * group the objective comes first.
 */
export function groupsOf(names: readonly string[], pinned: ReadonlySet<string>, objective: string | undefined): Group<string>[] {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const prefix = prefixOf(name);
    groups.set(prefix, [...(groups.get(prefix) ?? []), name]);
  }
  const own = objective === undefined ? null : prefixOf(objective);
  const rank = (prefix: string): number => (prefix === own ? -2 : prefix === '' ? -1 : (FIRST.indexOf(prefix) + 1 || FIRST.length + 1));
  const byName = (one: string, other: string): number => Number(other === objective) - Number(one === objective) || (one < other ? -1 : Number(one > other));
  const rest = [...groups]
    .sort(([one], [other]) => rank(one) - rank(other) || (one < other ? -1 : 1))
    .map(([prefix, items]) => ({ title: prefix ? `${prefix}/` : 'Without a prefix', items: items.sort(byName) }));
  const first = names.filter((name) => pinned.has(name)).sort(byName);
  return first.length ? [{ title: 'Pinned', items: first }, ...rest] : rest;
}

/** Groups that fit into one row together are one. */
export function together<Item>(groups: readonly Group<Item>[], columns: number): readonly Group<Item>[] {
  const items = groups.flatMap((group) => group.items);
  const each = new Set(items).size === items.length; // what is pinned is in two groups
  return each && items.length <= columns ? [{ title: '', items }] : groups;
}

/** Whether a name has all words of a search, in any case. */
export function isFound(name: string, search: string): boolean {
  const text = name.toLowerCase();
  return search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

export interface Line<Item> {
  key: string;
  top: number;
  height: number;
  /** A head, or a row of charts. */
  title?: string;
  count?: number;
  items: readonly Item[];
}

/** Heads and rows of charts with their places, from above; columns: charts in a row. */
export function linesOf<Item>(groups: readonly Group<Item>[], columns: number, heights: { head: number; chart: number }): { lines: Line<Item>[]; height: number } {
  const lines: Line<Item>[] = [];
  let top = 0;
  for (const { title, items } of groups) {
    if (title) {
      lines.push({ key: title, top, height: heights.head, title, count: items.length, items: [] });
      top += heights.head;
    }
    for (let from = 0; from < items.length; from += columns) {
      lines.push({ key: `${title} ${from}`, top, height: heights.chart, items: items.slice(from, from + columns) });
      top += heights.chart;
    }
  }
  return { lines, height: top };
}
