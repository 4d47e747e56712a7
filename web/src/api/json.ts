/**
 * JSON with whole numbers beyond 2^53 as the digits they were: JavaScript's numbers would round them. They are kept as
 * `JSON.rawJSON` (ECMAScript's JSON.parse source text access), which `JSON.stringify` writes as it was read. A browser
 * without it rounds, as `JSON.parse` does.
 */
interface Source {
  source?: string;
}

interface RawJson {
  parse(text: string, reviver?: (key: string, value: unknown, context?: Source) => unknown): unknown;
  rawJSON?(text: string): object;
  isRawJSON?(value: unknown): boolean;
}

const raw = JSON as RawJson;
/** Digits that may be a whole number beyond 2^53: neither within a fraction nor before one. */
const LONG = /(?<![.\d])\d{16,}(?![.\deE])/;

/** Parse JSON. Raises `SyntaxError`. */
export function exact(text: string): unknown {
  return LONG.test(text) ? raw.parse(text, keep) : JSON.parse(text);
}

/** Whether a text may hold a number that `JSON.parse` rounds. */
export function isLong(text: string): boolean {
  return LONG.test(text);
}

/** Whether a value is a number that was kept as its digits. */
export function isRaw(value: unknown): boolean {
  return raw.isRawJSON?.(value) ?? false;
}

/** A whole number of any size by its digits; undefined where this browser can't keep it. */
export function whole(digits: string): unknown {
  const written = digits.replace(/^\+/, '').replace(/^(-?)0+(?=\d)/, '$1');
  return raw.rawJSON?.(written);
}

function keep(_key: string, value: unknown, context?: Source): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || source === undefined || !/^-?\d+$/.test(source) || String(value) === source) return value;
  return raw.rawJSON?.(source) ?? value;
}
