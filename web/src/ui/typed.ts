/**
 * What was typed, as values. What is left empty is undefined; what can't be read becomes a fault at its field. Whether
 * a value makes sense is for the server to say.
 */
import type { Fault } from './faults';
import type { Pair } from './pairs';

const MOST_INT = 2 ** 31 - 1; // GraphQL's Int

export class Typed {
  readonly faults: Fault[] = [];

  refuse(path: string, message: string): undefined {
    this.faults.push({ path, message });
  }

  number(path: string, text: string): number | undefined {
    const typed = text.trim();
    if (!typed || isNumber(typed)) return typed ? Number(typed) : undefined;
    return this.refuse(path, `Expected a number, got “${typed}”.`);
  }

  whole(path: string, text: string): number | undefined {
    const typed = text.trim();
    if (!typed) return undefined;
    if (/^[+-]?\d+$/.test(typed) && Math.abs(Number(typed)) <= MOST_INT) return Number(typed);
    return this.refuse(path, `Expected a whole number, got “${typed}”.`);
  }

  /** A step: a whole number that JSON carries exactly. */
  step(path: string, text: string): number | undefined {
    const typed = text.trim();
    if (!typed) return undefined;
    if (/^\+?\d+$/.test(typed) && Number.isSafeInteger(Number(typed))) return Number(typed);
    return this.refuse(path, `Expected a number of steps, got “${typed}”.`);
  }

  price(path: string, text: string): string | undefined {
    const typed = text.trim();
    if (!typed || /^\d+(\.\d+)?$/.test(typed)) return typed || undefined;
    return this.refuse(path, `Expected a price like 2.50, without a currency, got “${typed}”.`);
  }

  /** Names with their texts; a row with neither is none. */
  pairs(path: string, pairs: readonly Pair[], { secret = false } = {}): Record<string, string> {
    const values = new Map<string, string>();
    for (const { key, value } of pairs) {
      if (key.trim() || value) this.name(path, key.trim(), secret ? 'A value' : `“${value}”`, values) && values.set(key.trim(), value);
    }
    return Object.fromEntries(values);
  }

  /** Whether something has a name that no other one has. */
  name(path: string, key: string, shown: string, values: ReadonlyMap<string, unknown>): boolean {
    if (!key) this.refuse(path, `${shown} has no name.`);
    else if (values.has(key)) this.refuse(path, `${key} is given twice.`);
    else return true;
    return false;
  }
}

export function isNumber(text: string): boolean {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
}
