/** Which runs belong together: those that differ in nothing but the seed, or those of one value of a parameter. */
import { shortOf } from '../curves/parameters';

const SEED = /(^|[._/-])(random_?|rng_?|data_?)?seed$/i;

export function isSeed(name: string): boolean {
  return SEED.test(name);
}

export interface Grouped {
  key: string;
  label: string;
  /** Places of its runs. */
  members: number[];
}

/**
 * parameters: by run, its values by name. by: `seeds` or `param:NAME`. names: those that differ between the runs, which
 * name a group.
 */
export function groupsOf(parameters: readonly ReadonlyMap<string, string>[], by: string, names: readonly string[]): Grouped[] {
  const found = new Map<string, Grouped>();
  const own = by.startsWith('param:') ? [by.slice('param:'.length)] : null;
  for (const [at, values] of parameters.entries()) {
    const telling = own ?? [...values.keys()].filter((name) => !isSeed(name)).sort();
    const key = JSON.stringify(telling.map((name) => [name, values.get(name) ?? null]));
    const group = found.get(key);
    if (group) {
      group.members.push(at);
      continue;
    }
    const shown = own ?? names.filter((name) => !isSeed(name));
    const label = shown.map((name) => `${name} ${shortOf(values.get(name) ?? 'not given')}`).join(', ') || 'all runs';
    found.set(key, { key, label, members: [at] });
  }
  return [...found.values()];
}
