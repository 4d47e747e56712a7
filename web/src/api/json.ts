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

/** Bidirectional embeddings, overrides and isolates (UAX #9, 2): a name or a line with one reads as another one. */
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

/** A text of other users and their programs, without what changes the direction of the text around it. */
export function straight(text: string): string {
  return text.replace(TURNING, '');
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

/** Refuse numbers that would arrive as another one: where the browser can't keep their digits. Raises `RangeError`. */
export function checked(value: unknown): unknown {
  if (value !== null && typeof value === 'object' && !isRaw(value)) Object.values(value).forEach(checked);
  if (typeof value !== 'number') return value;
  if (!Number.isFinite(value)) throw new RangeError('A number is too big for JSON as browsers read it: give it as text.');
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new RangeError('A whole number beyond 2^53 would be rounded here: give it as text.');
  }
  return value;
}

/** JSON where it is JSON, else the text, as on the command line. Raises `RangeError` as `checked` does. */
export function jsonOrText(text: string): unknown {
  let value: unknown;
  try {
    value = exact(text);
  } catch {
    return text;
  }
  return checked(value);
}

function keep(_key: string, value: unknown, context?: Source): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || source === undefined || !/^-?\d+$/.test(source) || String(value) === source) return value;
  return raw.rawJSON?.(source) ?? value;
}
