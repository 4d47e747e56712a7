/** Numbers, money and times as readers see them: their zone, their digits. */
import { written } from '../api/json';

const UNITS: readonly [number, string][] = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
];

const DECIMAL = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const WHOLE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0, useGrouping: false });
const FIVE_DIGITS = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5, useGrouping: false });
const MOST_DECIMALS = 16; // of a double's factor of a power of ten
const MOST_DIGITS = 12; // beyond are errors of rounding, as in 0.1 + 0.2

/** 12:04:31, or 12:04 without seconds; with the day and the zone where it is not today. */
export function timeOf(when: string | number, seconds = true): string {
  const date = new Date(when);
  const digits: Intl.DateTimeFormatOptions = { hour: '2-digit', minute: '2-digit', ...(seconds ? { second: '2-digit' } : {}) };
  if (date.toDateString() === new Date().toDateString()) return date.toLocaleTimeString(undefined, digits);
  const time = date.toLocaleTimeString(undefined, { ...digits, timeZoneName: 'short' });
  return `${date.toLocaleDateString(undefined, { day: 'numeric', month: 'short', year: 'numeric' })}, ${time}`;
}

/** The exact UTC, as the server said it. */
export function utcOf(when: string | number): string {
  return new Date(when).toISOString().replace('T', ' ').replace('Z', ' UTC');
}

/** 43 s; 2.4 s; 12 min 5 s; 3 h 20 min; 4 d 2 h. What still grows is given in whole seconds. */
export function durationOf(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  for (const [index, [size, name]] of UNITS.entries()) {
    if (whole < size) continue;
    const [smallerSize, smallerName] = UNITS[index + 1] ?? [1, 's'];
    const rest = Math.floor((whole % size) / smallerSize);
    return rest ? `${Math.floor(whole / size)} ${name} ${rest} ${smallerName}` : `${Math.floor(whole / size)} ${name}`;
  }
  return seconds < 10 && seconds > 0 && !Number.isInteger(seconds) ? `${DECIMAL.format(seconds)} s` : `${whole} s`;
}

/** From when to when, or till now: of what still grows in whole seconds. `now`: Unix time in ms. */
export function lengthOf(begun: string, ended: string | null | undefined, now: number): string {
  const from = Date.parse(begun);
  return durationOf(ended ? (Date.parse(ended) - from) / 1_000 : Math.floor((now - from) / 1_000));
}

/** 5 min ago; just now. `seconds`: how long ago. */
export function agoOf(seconds: number): string {
  return seconds < 5 ? 'just now' : `${durationOf(Math.floor(seconds)).split(' ').slice(0, 2).join(' ')} ago`;
}

const LEAST_MONEY = 0.000001; // the server counts in these

/**
 * 41.24 USD: to the cent, less than a cent to two significant digits, so that what is not nothing is never shown as
 * nothing. The service's sentences (policy/phrasing.py) and the command line (cli/money.py) format in the same way, but
 * for the reader's digits: tests/support/money.json has the cases of all three.
 */
export function moneyOf(amount: number, currency: string): string {
  const size = Math.abs(amount);
  if (size > 0 && size < LEAST_MONEY) return `< ${decimalsOf(LEAST_MONEY, 6)} ${currency}`;
  const power = Number(size.toExponential().split('e')[1]);
  return `${decimalsOf(amount, size === 0 || size >= 0.01 ? 2 : Math.min(6, 1 - power))} ${currency}`;
}

/** What a user has set, exactly, with two decimals or more: 2.50 USD, 0.0625 USD. */
export function priceOf(amount: string, currency: string): string {
  return `${decimalsOf(Number(amount), 6)} ${currency}`;
}

function decimalsOf(amount: number, most: number): string {
  return amount.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: most });
}

/**
 * A metric's value: five significant digits, or all of a whole number's; four where it has a power of ten. As few as it
 * needs: 1e-5; more where it would read as a whole number that it is not: 0.999998. Null and NaN: not finite. The command
 * line's: `say_number`; the service's sentences': policy/phrasing.py.
 */
export function valueOf(value: number | null | undefined): string {
  if (value === undefined) return '';
  if (value === null || !Number.isFinite(value)) return 'not finite';
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4)) return powerOf(value, 3);
  if (Number.isInteger(value)) return WHOLE.format(value);
  let digits = 5;
  while (digits < MOST_DIGITS && Number.isInteger(Number(value.toPrecision(digits)))) digits += 1;
  return digits === 5 || digits === MOST_DIGITS ? FIVE_DIGITS.format(value) : value.toLocaleString(undefined, { maximumSignificantDigits: digits, useGrouping: false });
}

/** 1.23e-7, with the reader's decimal sign. digits: behind it at most; left out: as many as there are. */
export function powerOf(value: number, digits?: number): string {
  const [whole, rounded] = [value.toExponential(), value.toExponential(digits)]; // of 5e-324, 5e-324 and 4.941e-324
  const [factor, power] = (rounded.length < whole.length ? rounded : whole).split('e') as [string, string];
  return `${Number(factor).toLocaleString(undefined, { maximumFractionDigits: MOST_DECIMALS })}e${power.replace('+', '')}`;
}

/** A whole number with the reader's separators. */
export function countOf(value: number): string {
  return value.toLocaleString();
}

/** How many there are: 1 trial, 1,200 trials. several: the plural, if it has no -s. */
export function manyOf(count: number, one: string, several = `${one}s`): string {
  return `${countOf(count)} ${count === 1 ? one : several}`;
}

/** An argv as one would type it. */
export function shellOf(argv: readonly string[]): string {
  return argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ');
}

/** A parameter as text: words as they are, all else as JSON, with all of a number's digits. */
export function parameterOf(value: unknown): string {
  return typeof value === 'string' ? value : (written(value) ?? '');
}
