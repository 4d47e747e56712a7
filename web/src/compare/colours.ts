import type { Paint } from '../curves/ramp';
import { isSeed } from './groups';

/** What curves are coloured by: a number along a ramp, or names with a colour each. */
export interface Ramp {
  kind: 'ramp';
  least: number;
  greatest: number;
  log: boolean;
  /** By run, 0 to 1; null: it has no such number. */
  places: (number | null)[];
}

export interface Named {
  kind: 'named';
  /** In the order of their colours. */
  names: string[];
  /** By run, the number of its colour; null: it has none. */
  colours: (number | null)[];
}

export type Scale = Ramp | Named;

const LOG_FROM = 30; // greatest to least, of what is above zero
const RAMP_FROM = 3; // different numbers

/** A choice of colours that several pictures share, of runs that are more than those compared. */
export interface Colouring {
  /** As in the address. */
  colour: string;
  /** If none is chosen. */
  usual: string;
  /** Parameters to choose from. */
  names: readonly string[];
  /** What the best value is of. */
  metric: string;
  scale: Scale | null;
  /** The place of a simulation in the scale. */
  placeOf: (id: string) => number;
}

export const MOST_NAMED = 10; // values of a parameter that have a colour each
const COLOURED_FROM = 9; // runs: so many have no colour of their own any more

/** What tells `count` runs apart best: a parameter that is a size, or has few values; or the runs themselves. */
export function usualColour(parameters: readonly { name: string; values: readonly (string | undefined)[] }[], count: number): string {
  if (count < COLOURED_FROM) return 'run';
  // Whole numbers that doubles can't tell apart are numbers of something, not sizes.
  const isSize = (text: string | undefined): boolean => text === undefined || !/^\d{16,}$/.test(text);
  const ramped = parameters.find(({ name, values }) => !isSeed(name) && values.every(isSize) && scaleOf(values).kind === 'ramp');
  const told = ramped ?? parameters.find(({ name, values }) => !isSeed(name) && new Set(values).size <= MOST_NAMED);
  return told ? `param:${told.name}` : 'run';
}

/** The colour of the run at this place; scale: null: each has its own. */
export function paintAt(scale: Scale | null, at: number): Paint {
  if (scale === null) return { colour: at };
  if (scale.kind === 'ramp') return { colour: 0, shade: scale.places[at] ?? null };
  const number = scale.colours[at] ?? null;
  return number === null ? { colour: 0, shade: null } : { colour: number };
}

/** By group the colour that all of its members share; null: in one of them they differ. */
export function sharedOf(groups: readonly (readonly Paint[])[]): Paint[] | null {
  const isOne = groups.every(([first, ...others]) => others.every(({ colour, shade }) => colour === first!.colour && shade === first!.shade));
  return isOne ? groups.map(([first]) => first!) : null;
}

/** values: by run; undefined: it has none. log: whether it is searched by its logarithm; left out: as it looks. */
export function scaleOf(values: readonly (string | undefined)[], log?: boolean): Scale {
  const numbers = values.map(numberOf);
  const distinct = [...new Set(numbers.filter((value) => value !== null))];
  const isNumeric = values.every((value, at) => value === undefined || numbers[at] !== null);
  if (!isNumeric || distinct.length < RAMP_FROM) return named(values);
  const [least, greatest] = [Math.min(...distinct), Math.max(...distinct)];
  const isLog = least > 0 && (log ?? greatest / least >= LOG_FROM);
  return { kind: 'ramp', least, greatest, log: isLog, places: numbers.map((value) => (value === null ? null : placeOf(value, least, greatest, isLog))) };
}

/** From 0 to 1. */
export function placeOf(value: number, least: number, greatest: number, log: boolean): number {
  const on = log ? Math.log : (each: number): number => each;
  return greatest > least ? (on(value) - on(least)) / (on(greatest) - on(least)) : 0.5;
}

/** What stands at a place, the inverse. */
export function valueAt(place: number, { least, greatest, log }: Pick<Ramp, 'least' | 'greatest' | 'log'>): number {
  return log ? Math.exp(Math.log(least) + place * (Math.log(greatest) - Math.log(least))) : least + place * (greatest - least);
}

/** A parameter's text as a number; null: it is none, or not finite. */
export function numberOf(text: string | undefined): number | null {
  if (text === undefined || text.trim() === '') return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}

function named(values: readonly (string | undefined)[]): Named {
  const names = [...new Set(values.filter((value) => value !== undefined))].sort(byNumberOrName);
  return { kind: 'named', names, colours: values.map((value) => (value === undefined ? null : names.indexOf(value))) };
}

/** Numbers by their size, then all else as text. */
export function byNumberOrName(one: string, other: string): number {
  const [a, b] = [numberOf(one), numberOf(other)];
  if (a !== null && b !== null) return a - b || orderOf(wholeOf(one, a), wholeOf(other, b));
  return Number(a === null) - Number(b === null) || orderOf(one, other);
}

/** Of one column, numbers or texts: the lesser one first. */
export function bySize(one: number | string, other: number | string): number {
  return typeof one === 'string' && typeof other === 'string' ? byNumberOrName(one, other) : orderOf(one, other);
}

function orderOf<Value extends number | bigint | string>(one: Value, other: Value): number {
  return one < other ? -1 : Number(one > other);
}

/** A whole number with all its digits: doubles beyond 2^53 leave some out. */
function wholeOf(text: string, value: number): bigint | number {
  if (!Number.isInteger(value)) return value;
  return BigInt(/^\s*-?\d+\s*$/.test(text) ? text : value);
}
