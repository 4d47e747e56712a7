/** A name and a value that are being typed, in a row of their own. */
export interface Pair {
  /** The identity of a row, independent of its content. */
  row: number;
  key: string;
  value: string;
}

let rows = 0;

export function pairOf(key = '', value = ''): Pair {
  rows += 1;
  return { row: rows, key, value };
}
