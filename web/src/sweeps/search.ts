/** What a parameter of a sweep may be, as one types it: the same words as `simulations sweep -p` (cli/search.py). */
import { jsonOrText } from '../api/json';
import { pairOf, type Pair } from '../ui/pairs';
import { isNumber } from '../ui/typed';

export type Searched =
  | { low: number; high: number; step?: number; log?: boolean; integer?: boolean }
  | { choices: unknown[] }
  | { value: unknown };

/** What a parameter may be, in words. */
export const KINDS = {
  range: 'Any number in a range',
  log: 'Any number, logarithmic',
  whole: 'Whole numbers',
  logWhole: 'Whole numbers, logarithmic',
  choices: 'Choices',
  value: 'The same for all',
} as const;
export type Kind = keyof typeof KINDS;

export const EXAMPLES: Record<Kind | 'auto', string> = {
  auto: 'range, choices or value', range: '0..0.5', log: '1e-4..1e-1', whole: '2..8', logWhole: '16..1024', choices: '64,128', value: '20',
};

/** A parameter that is being typed. */
export interface SearchedRow extends Pair {
  kind: Kind | 'auto';
}

export function searchedRow(): SearchedRow {
  return { ...pairOf(), kind: 'auto' };
}

const PREFIXES = { range: 'float:', log: 'log:float:', whole: 'int:', logWhole: 'log:int:' };

const EXPECTED = 'Expected LOW..HIGH, log:LOW..HIGH, LOW..HIGH:STEP, or choices like 64,128';
const RANGE = /^((?:(?:log|int|float):)*)([^:,]*?)\.\.([^:,]*)(?::(.*))?$/;
// Two words with two dots between them are meant as a range, even if no numbers. Paths and quoted texts are not.
const LIKE_RANGE = /^[^/\\"']*[^/\\"'.\s]\s*\.\.\s*[^/\\"'.\s][^/\\"']*$/;

/** What a text is read as, if its kind is not chosen; null: as nothing. */
export function kindOf(text: string): Kind | null {
  const found = searchOf(text);
  if (typeof found === 'string') return null;
  if ('choices' in found) return 'choices';
  if ('value' in found) return 'value';
  return found.integer ? (found.log ? 'logWhole' : 'whole') : found.log ? 'log' : 'range';
}

/** A range, choices, or a single value, which is the same for all; a sentence for what is none of them. */
export function searchOf(text: string, kind: Kind | 'auto' = 'auto'): Searched | string {
  try {
    return read(text, kind);
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}

function read(text: string, kind: Kind | 'auto'): Searched | string {
  const typed = text.trim();
  if (kind === 'value') return typed ? { value: jsonOrText(typed) } : 'Enter a value.';
  if (kind === 'choices') {
    const found = read(typed, 'auto');
    if (typeof found === 'string') return found;
    return 'choices' in found ? found : 'value' in found ? { choices: [found.value] } : `Expected choices like 64,128, got “${typed}”.`;
  }
  if (kind !== 'auto') return read(PREFIXES[kind] + typed.replace(/^(?:(?:log|int|float):)+/, ''), 'auto');
  const range = RANGE.exec(typed);
  if (range && (range[1] || isNumber(range[2]!.trim()))) return rangeOf(range, typed);
  if (/^(log|int|float):/.test(typed)) return `${EXPECTED}, got “${typed}”.`;
  if (/^[[{]/.test(typed)) {
    const value = jsonOrText(typed);
    return Array.isArray(value) ? { choices: value } : { value };
  }
  const words = typed.split(',').map((word) => word.trim());
  if (words.some((word) => LIKE_RANGE.test(word))) return `${EXPECTED}, got “${typed}”. A text with two dots is quoted: "a..b".`;
  if (!words.every(Boolean)) return typed ? 'A choice is empty.' : 'Enter a range, choices or a value.';
  return words.length === 1 ? { value: jsonOrText(words[0]!) } : { choices: words.map(jsonOrText) };
}

function rangeOf([, kinds = '', ...words]: RegExpExecArray, typed: string): Searched | string {
  const given = words.filter((word) => word !== undefined).map((word) => word.trim());
  if (!given.every(isNumber)) return `${EXPECTED}, got “${typed}”.`;
  if (given.some((word) => /^[-+]?\d+$/.test(word) && Math.abs(Number(word)) >= 2 ** 53 && BigInt(word.replace(/^[-+]/, '')) > 2n ** 53n)) {
    return 'Whole numbers of a range end at 2^53, as samplers compute in doubles: give larger ones as choices.';
  }
  const [low, high, step] = given.map(Number);
  const whole = kinds.includes('int') || (!kinds.includes('float') && given.every((word) => /^[-+]?\d+$/.test(word)));
  return {
    low: low!, high: high!, ...(step === undefined ? {} : { step }), ...(kinds.includes('log') ? { log: true } : {}), ...(whole ? { integer: true } : {}),
  };
}
