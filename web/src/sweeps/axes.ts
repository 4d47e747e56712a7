/** Axes of parallel coordinates, places on them, and brushes. A value that has no place is left out, not drawn at an end. */
import { byNumberOrName, numberOf, placeOf, valueAt } from '../compare/colours';
import { powerOf, valueOf } from '../ui/format';

export interface Axis {
  name: string;
  /** Numbers from `least` to `greatest`; or names, evenly. */
  names: readonly string[] | null;
  least: number;
  greatest: number;
  log: boolean;
}

/** What a parameter may be, as far as that is declared. */
export interface Declared {
  low?: number | null;
  high?: number | null;
  log?: boolean;
  /** As texts. */
  choices?: readonly string[] | null;
}

/** What of an axis is chosen, from 0 to 1. */
export type Brush = readonly [low: number, high: number];

const NAMES_UP_TO = 24; // more different texts than that are as good as none

/** values: by run; undefined: it has none. */
export function axisOf(name: string, values: readonly (string | undefined)[], { low, high, log, choices }: Declared = {}): Axis {
  if (choices) return namesAxis(name, [...choices].sort(byNumberOrName));
  const given = values.filter((value) => value !== undefined);
  const numbers = given.map(numberOf);
  if (given.length && numbers.some((value) => value === null)) {
    return namesAxis(name, [...new Set(given)].sort(byNumberOrName).slice(0, NAMES_UP_TO));
  }
  const known = [...numbers.filter((value) => value !== null), ...[low, high].filter((value) => typeof value === 'number')];
  const [least, greatest] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  return { name, names: null, least, greatest, log: least > 0 && (log ?? greatest / least >= 100) };
}

function namesAxis(name: string, names: readonly string[]): Axis {
  return { name, names, least: 0, greatest: Math.max(1, names.length - 1), log: false };
}

/** From 0 at the bottom to 1 at the top; null: nowhere. */
export function placeOn(axis: Axis, value: string | number | null | undefined): number | null {
  if (value === null || value === undefined) return null;
  if (axis.names) {
    const at = axis.names.indexOf(String(value));
    return at < 0 ? null : axis.names.length === 1 ? 0.5 : at / (axis.names.length - 1);
  }
  const number = typeof value === 'number' ? value : numberOf(value);
  if (number === null || !Number.isFinite(number) || (axis.log && number <= 0)) return null;
  return placeOf(number, axis.least, axis.greatest, axis.log);
}

/** What stands at a place, as text. */
export function textAt(axis: Axis, place: number): string {
  if (axis.names) return axis.names[Math.round(place * (axis.names.length - 1))] ?? '';
  return valueOf(Number(valueAt(place, axis).toPrecision(4)));
}

/** Places with a label; of names all, as far as there is room for them. */
export function ticksOf(axis: Axis, room: number): { place: number; text: string }[] {
  if (axis.names) {
    const stride = Math.max(1, Math.ceil(axis.names.length / room));
    return axis.names.flatMap((text, at) => (at % stride ? [] : { place: placeOn(axis, text)!, text }));
  }
  if (axis.least === axis.greatest) return [{ place: 0.5, text: valueOf(axis.least) }];
  if (axis.log) {
    const [from, to] = [Math.ceil(Math.log10(axis.least) - 1e-9), Math.floor(Math.log10(axis.greatest) + 1e-9)];
    const stride = Math.max(1, Math.ceil((to - from + 1) / room));
    const powers = Array.from({ length: Math.max(0, Math.floor((to - from) / stride) + 1) }, (_, at) => Number(`1e${from + at * stride}`));
    if (powers.length > 1) return powers.map((value) => ({ place: placeOn(axis, value)!, text: value >= 1e-4 && value < 1e6 ? valueOf(value) : powerOf(value) }));
  }
  const count = Math.min(5, room);
  return Array.from({ length: count }, (_, at) => at / (count - 1)).map((place) => ({ place, text: textAt(axis, place) }));
}

const MOST_LETTERS = 11;

/** A label that fits beside its axis: of a long one its beginning and its end. */
export function labelOf(text: string, fits: (label: string) => boolean): string {
  if (text.length <= MOST_LETTERS && fits(text)) return text;
  const cuts = [4, 3, 2, 1].map((end) => `${text.slice(0, end + 2)}…${text.slice(-end)}`);
  return cuts.find(fits) ?? cuts.at(-1)!;
}

/** Whether a run lies within all brushes. What has no place on a brushed axis does not. */
export function passes(places: readonly (number | null)[], brushes: readonly (Brush | null)[]): boolean {
  return brushes.every((brush, at) => {
    if (brush === null) return true;
    const place = places[at] ?? null;
    return place !== null && place >= brush[0] - 1e-9 && place <= brush[1] + 1e-9;
  });
}

/** A brush with one end moved; null: all of the axis. The ends never cross. */
export function moved(brush: Brush | null, end: 'low' | 'high', to: number): Brush | null {
  const [low, high] = brush ?? [0, 1];
  const place = Math.max(0, Math.min(1, to));
  const next: Brush = end === 'low' ? [Math.min(place, high), high] : [low, Math.max(place, low)];
  return next[0] <= 0 && next[1] >= 1 ? null : next;
}
