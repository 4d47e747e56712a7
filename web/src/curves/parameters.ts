import { isRaw } from '../api/json';
import { parameterOf } from '../ui/format';

/** Parameters, which are any JSON object, as names and text; what is nested has a name with points in it. */
export function entriesOf(parameters: unknown, prefix = ''): [name: string, text: string][] {
  if (typeof parameters !== 'object' || parameters === null) return [];
  return Object.entries(parameters).flatMap(([key, value]): [string, string][] => {
    const name = prefix + key;
    const nested = typeof value === 'object' && value !== null && !Array.isArray(value) && !isRaw(value) && Object.keys(value as object).length > 0;
    return nested ? entriesOf(value, `${name}.`) : [[name, parameterOf(value)]];
  });
}
