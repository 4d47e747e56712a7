import { isRaw } from '../api/json';
import { parameterOf, valueOf } from '../ui/format';

/** Parameters, which are any JSON object, as names and text; what is nested has a name with points in it. */
export function entriesOf(parameters: unknown, prefix = ''): [name: string, text: string][] {
  if (typeof parameters !== 'object' || parameters === null) return [];
  return Object.entries(parameters).flatMap(([key, value]): [string, string][] => {
    const name = prefix + key;
    const nested = typeof value === 'object' && value !== null && !Array.isArray(value) && !isRaw(value) && Object.keys(value as object).length > 0;
    return nested ? entriesOf(value, `${name}.`) : [[name, parameterOf(value)]];
  });
}

/** A number with as many digits as one reads, all else as it is. */
export function shortOf(text: string): string {
  const value = Number(text);
  return text.length > 8 && /^[-+\d.]+(e[-+]?\d+)?$/i.test(text) && /[.e]/i.test(text) && Number.isFinite(value) ? valueOf(value) : text;
}
