/** Parameters of several simulations side by side. */
import { mainFirst } from '../curves/mainMetric';
import { entriesOf } from '../curves/parameters';

export interface Row {
  name: string;
  /** By simulation; undefined: it has none of this name. */
  values: (string | undefined)[];
  differs: boolean;
}

/** Those that differ come first; within both, in the order in which they appear. */
export function rowsOf(parameters: readonly unknown[]): Row[] {
  const maps = parameters.map((each) => new Map(entriesOf(each)));
  const names = [...new Set(maps.flatMap((each) => [...each.keys()]))];
  const rows = names.map((name) => {
    const values = maps.map((each) => each.get(name));
    return { name, values, differs: new Set(values).size > 1 };
  });
  return [...rows.filter(({ differs }) => differs), ...rows.filter(({ differs }) => !differs)];
}

/** Metrics to choose from: those of all come first, then those of some, the more the earlier. */
export function metricsOf(simulations: readonly { metrics: readonly { name: string }[] }[]): { name: string; common: boolean }[] {
  const counts = new Map<string, number>();
  for (const { metrics } of simulations) for (const { name } of metrics) counts.set(name, (counts.get(name) ?? 0) + 1);
  const sorted = [...counts].sort(([one, few], [other, many]) => many - few || mainFirst(one, other));
  return sorted.map(([name, count]) => ({ name, common: count === simulations.length }));
}
