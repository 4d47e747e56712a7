/** What stands at the axes. */
import type uPlot from 'uplot';

import { moneyOf, powerOf } from '../ui/format';

const SECONDS = [1, 2, 5, 10, 15, 30];
const MINUTE = 60;
const HOUR = 3_600;
const DAY = 86_400;

/** Time since the start: steps as clocks have them. */
export const agoAxis: Pick<uPlot.Axis, 'incrs' | 'values'> = {
  incrs: [
    ...[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
    ...SECONDS,
    ...SECONDS.map((each) => each * MINUTE),
    ...[1, 2, 3, 6, 12].map((each) => each * HOUR),
    ...[1, 2, 5, 10, 20, 50, 100].map((each) => each * DAY),
  ],
  values: (_u, splits) => splits.map(clockOf),
};

const SECOND_MS = 1_000;

/** The reader's clock: seconds where neighbours differ in them, and the day where it begins or is the first. */
export function wallAxis(splits: readonly number[], increment: number): string[] {
  const finest: Intl.DateTimeFormatOptions =
    increment < 1 ? { second: '2-digit', fractionalSecondDigits: 3 } : increment < MINUTE ? { second: '2-digit' } : {};
  const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', ...finest });
  const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
  let last = '';
  return splits.map((split) => {
    const date = new Date(split * SECOND_MS);
    const today = day.format(date);
    const isNew = today !== last;
    last = today;
    if (increment >= DAY) return today;
    return isNew ? `${today}\n${time.format(date)}` : time.format(date);
  });
}

function clockOf(seconds: number): string {
  if (seconds < MINUTE) return `${Number(seconds.toFixed(3))} s`;
  const [days, hours] = [Math.floor(seconds / DAY), Math.floor((seconds % DAY) / HOUR)];
  const [minutes, rest] = [Math.floor((seconds % HOUR) / MINUTE), Math.floor(seconds % MINUTE)];
  const named: [number, string][] = [[days, 'd'], [hours, 'h'], [minutes, 'min'], [rest, 's']];
  return named.filter(([count]) => count).slice(0, 2).map(([count, name]) => `${count} ${name}`).join(' ');
}

/** Money at an axis: neighbours always differ. */
export function moneyAxis(splits: readonly number[], currency: string): string[] {
  const step = splits.length > 1 ? splits[1]! - splits[0]! : 0;
  if (!(step > 0) || step >= 0.01) return splits.map((split) => moneyOf(split, currency));
  const digits = decimalsOf(step);
  return splits.map((split) => `${split.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${currency}`);
}

const MOST_DECADES = 8;
const MOST_SPLITS = 100; // far more than any chart has room for

/**
 * Ticks of a logarithmic axis: powers of ten, with 2 and 5 between them where there is room, every digit within a
 * decade. uPlot's own ticks add up increments and never end where these are lost in rounding (1e-23 to 1).
 */
export function logSplits(min: number, max: number): number[] {
  const from = Math.floor(Math.log10(min));
  const to = Math.ceil(Math.log10(max));
  const decades = Math.log10(max) - Math.log10(min);
  const digits = decades <= 1.2 ? [1, 2, 3, 4, 5, 6, 7, 8, 9] : decades <= 3 ? [1, 2, 5] : [1];
  const stride = Math.max(1, Math.ceil(decades / MOST_DECADES));
  const splits: number[] = [];
  for (let power = Math.ceil(from / stride) * stride; power <= to; power += stride) {
    for (const digit of digits) splits.push(Number(`${digit}e${power}`));
  }
  const shown = splits.filter((split) => split > 0 && split >= min && split <= max);
  return shown.length > 1 ? shown : [min, max];
}

/**
 * A logarithmic axis of any doubles. As at a linear one, an increment of Infinity has room: uPlot's own end at 1e32, and
 * it draws no axis beyond them.
 */
export const logAxis: Required<Pick<uPlot.Axis, 'incrs' | 'splits' | 'values' | 'filter'>> = {
  incrs: [Infinity],
  splits: (_u, _axis, min, max) => logSplits(min, max),
  values: (_u, splits, _axis, _space, increment) => digitsOf(splits, increment, true),
  filter: (_u, splits) => splits,
};

const LETTER_PX = 7;
const BETWEEN_PX = 8;

/**
 * Labels of an x axis, without those that would touch another one: powers of ten stay first. places: their middles in
 * pixels.
 */
export function withoutTouching(labels: readonly string[], splits: readonly number[], places: readonly number[]): string[] {
  const isPower = (at: number): boolean => Number.isInteger(Math.log10(splits[at]!));
  const shown: number[] = [];
  for (const at of [...labels.keys()].sort((one, other) => Number(isPower(other)) - Number(isPower(one)) || one - other)) {
    const room = (other: number): number => (LETTER_PX * (labels[at]!.length + labels[other]!.length)) / 2 + BETWEEN_PX;
    if (shown.every((other) => Math.abs(places[at]! - places[other]!) >= room(other))) shown.push(at);
  }
  return labels.map((label, at) => (shown.includes(at) ? label : ''));
}

/**
 * A linear axis of any doubles. uPlot's own increments end at 1e-16 and 1e32: outside of these it has no numbers. It
 * takes an increment of Infinity for one that has room, and leaves the places to `splits`.
 */
export function linearAxis(): Required<Pick<uPlot.Axis, 'incrs' | 'splits' | 'values'>> {
  let increment = 1;
  return {
    incrs: (_u, _axis, min, max, pixels, space) => {
      increment = incrementOf((max - min) * (space / pixels));
      return [Infinity];
    },
    splits: (_u, _axis, min, max) => linearSplits(min, max, increment),
    values: (_u, splits) => digitsOf(splits, increment, false),
  };
}

/** The least of 1, 2, 2.5 and 5 times a power of ten that is not below `least`, as far as doubles go. */
export function incrementOf(least: number): number {
  const power = Math.floor(Math.log10(Math.max(least, Number.MIN_VALUE)));
  const found = [1, 2, 2.5, 5, 10].map((digit) => Number(`${digit}e${power}`)).find((each) => each >= least && each > 0);
  return found ?? Number.MAX_VALUE;
}

/** The multiples of an increment between two limits. */
export function linearSplits(min: number, max: number, increment: number): number[] {
  const [from, to] = [Math.ceil(min / increment), Math.floor(max / increment)];
  const splits = Array.from({ length: Math.max(0, Math.min(MOST_SPLITS, to - from + 1)) }, (_, at) => Number(((from + at) * increment).toPrecision(15)) + 0);
  return [...new Set(splits)].filter((split) => split >= min && split <= max);
}

/** Labels of an axis, with as many digits as distinguish neighbours. */
export function digitsOf(splits: readonly (number | null)[], increment: number, log: boolean): string[] {
  const digits = decimalsOf(increment);
  const isPlain = (size: number): boolean => size >= 1e-4 && size < 1e6;
  const isAllPlain = isPlain(Math.max(...splits.map((split) => Math.abs(split ?? 0)))); // one form for a linear axis
  return splits.map((split) => {
    if (split === null || split === undefined) return '';
    if (split === 0) return '0';
    if (!(log ? isPlain(Math.abs(split)) : isAllPlain)) return powerOf(rounded(split, log ? split : increment));
    if (log) return split.toLocaleString(undefined, { maximumSignificantDigits: 3, useGrouping: false });
    return split.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  });
}

/** A place at an axis without what adding up increments has left behind the digits that tell it from its neighbours. */
function rounded(split: number, increment: number): number {
  const digits = 3 + Math.floor(Math.log10(Math.abs(split))) - Math.floor(Math.log10(increment));
  return Number(split.toPrecision(Math.min(17, Math.max(3, digits || 3))));
}

/** How many decimals a number has that is meant to be short: 2 for 0.25. */
function decimalsOf(number: number): number {
  for (let digits = 0; digits < 12; digits++) {
    const shifted = number * 10 ** digits;
    if (Math.abs(shifted - Math.round(shifted)) < 1e-6 * shifted) return digits;
  }
  return 12;
}
