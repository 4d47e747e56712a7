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

/**
 * A number that was typed, as JSON sends it: an integer by its digits, whatever its size; what has a point or an exponent
 * as a double. A large double keeps an exponent: as digits it would be an integer, which the service takes up to 64 bits.
 * Raises `RangeError` where this browser can't keep the digits, and for what is no double.
 */
export function numberOf(text: string): unknown {
  const value = Number(text);
  if (!Number.isFinite(value)) throw new RangeError('A number is too big for JSON as browsers read it: give it as text.');
  if (!Number.isInteger(value) || Number.isSafeInteger(value)) return value;
  if (!/^[+-]?\d+$/.test(text)) return raw.rawJSON?.(value.toExponential()) ?? value;
  const digits = text.replace(/^\+/, '').replace(/^(-?)0+(?=\d)/, '$1');
  if (digits === String(value)) return value;
  if (!raw.rawJSON) throw new RangeError('A whole number beyond 2^53 would be rounded here: give it as text.');
  return raw.rawJSON(digits);
}

/** JSON that was typed, its numbers as `numberOf` has them. Raises `SyntaxError` and `RangeError`. */
export function typedJson(text: string): unknown {
  const value = raw.parse(text, (_key, each, context) => (typeof each === 'number' ? numberOf(context?.source ?? String(each)) : each));
  // A browser without rawJSON has no source either: numbers outside of texts are looked at here.
  if (!raw.rawJSON) text.replace(/"(?:[^"\\]|\\.)*"/g, '').match(new RegExp(LONG, 'g'))?.forEach(numberOf);
  return value;
}

/** JSON where it is JSON, else the text, as on the command line. Raises `RangeError` as `numberOf` does. */
export function jsonOrText(text: string): unknown {
  try {
    return typedJson(text);
  } catch (error) {
    if (error instanceof RangeError) throw error;
    return text;
  }
}

/** JSON that `typedJson` reads as the same: large doubles with exponents. */
export function written(value: unknown): string | undefined {
  const isLarge = (each: unknown): each is number => typeof each === 'number' && Math.abs(each) >= 2 ** 64;
  return JSON.stringify(value, (_key, each: unknown) => (isLarge(each) ? (raw.rawJSON?.(each.toExponential()) ?? each) : each));
}

function keep(_key: string, value: unknown, context?: Source): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || source === undefined || !/^-?\d+$/.test(source) || String(value) === source) return value;
  return raw.rawJSON?.(source) ?? value;
}
