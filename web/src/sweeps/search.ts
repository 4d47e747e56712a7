/** What a parameter of a sweep may be, as one types it: the same words as `simulations sweep -p` (cli/search.py). */
import { exact } from '../api/json';
import { isNumber } from '../ui/typed';

export type Searched =
  | { low: number; high: number; step?: number; log?: boolean; integer?: boolean }
  | { choices: unknown[] }
  | { value: unknown };

const EXPECTED = 'Expected LOW..HIGH, log:LOW..HIGH, LOW..HIGH:STEP, or choices like 64,128';
const RANGE = /^((?:(?:log|int|float):)*)([^:,]*?)\.\.([^:,]*)(?::(.*))?$/;

/** A range, choices, or a single value, which is the same for all; a sentence for what is none of them. */
export function searchOf(text: string): Searched | string {
  const typed = text.trim();
  const range = RANGE.exec(typed);
  if (range && (range[1] || isNumber(range[2]!.trim()))) return rangeOf(range, typed);
  if (/^(log|int|float):/.test(typed)) return `${EXPECTED}, got “${typed}”.`;
  if (/^[[{]/.test(typed)) {
    const value = valueOf(typed);
    return Array.isArray(value) ? { choices: value } : { value };
  }
  const words = typed.split(',').map((word) => word.trim());
  if (!words.every(Boolean)) return typed ? 'A choice is empty.' : 'Enter a range, choices or a value.';
  return words.length === 1 ? { value: valueOf(words[0]!) } : { choices: words.map(valueOf) };
}

function rangeOf([, kinds = '', ...words]: RegExpExecArray, typed: string): Searched | string {
  const given = words.filter((word) => word !== undefined).map((word) => word.trim());
  if (!given.every(isNumber)) return `${EXPECTED}, got “${typed}”.`;
  const [low, high, step] = given.map(Number);
  const whole = kinds.includes('int') || (!kinds.includes('float') && given.every((word) => /^[-+]?\d+$/.test(word)));
  return {
    low: low!, high: high!, ...(step === undefined ? {} : { step }), ...(kinds.includes('log') ? { log: true } : {}), ...(whole ? { integer: true } : {}),
  };
}

/** JSON where it is JSON, else a word. */
function valueOf(text: string): unknown {
  try {
    return exact(text);
  } catch {
    return text;
  }
}
