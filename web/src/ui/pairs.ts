/** A name and a value that are being typed, in a row of their own. */
export interface Pair {
  /** What tells rows apart, whatever stands in them. */
  row: number;
  key: string;
  value: string;
}

let rows = 0;

export function pairOf(key = '', value = ''): Pair {
  rows += 1;
  return { row: rows, key, value };
}
