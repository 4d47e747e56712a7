/** Comparisons of parameters as they are typed, as on the command line: lr<1e-3, optimizer=adam, layers!=2. */
import { exact, isRaw } from '../api/json';
import type { graphql } from '../api/graphql';

type Comparison = ReturnType<typeof graphql.scalar<'Comparison'>>;

export interface Condition {
  name: string;
  comparison: Comparison;
  value: unknown;
}

const WRITTEN = /^\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)\s*(?![<>=!])(.*?)\s*$/s;
const COMPARISONS: Readonly<Record<string, Comparison>> = { '<': 'LT', '<=': 'LE', '>': 'GT', '>=': 'GE', '=': 'EQ', '==': 'EQ', '!=': 'NE' };

/** Several, divided by commas that are not within quotes: each as it is typed, and what is none. */
export function conditionsIn(text: string): { conditions: string[]; others: string[] } {
  const parts = text.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/).map((each) => each.trim()).filter(Boolean);
  return { conditions: parts.filter(isCondition), others: parts.filter((each) => !isCondition(each)) };
}

export function isCondition(text: string): boolean {
  return conditionOf(text) !== null;
}

/** Null: it is none. */
export function conditionOf(text: string): Condition | null {
  const [, name, sign, written] = WRITTEN.exec(text) ?? [];
  if (!name || !written || name.length > 200) return null;
  const value = valueOf(written);
  if (typeof value === 'number' && !Number.isFinite(value)) return null;
  return { name, comparison: COMPARISONS[sign!]!, value };
}

/** JSON where it is JSON, else a word. */
function valueOf(written: string): unknown {
  try {
    const value = exact(written);
    return typeof value === 'object' && !isRaw(value) ? written : value;
  } catch {
    return written;
  }
}
