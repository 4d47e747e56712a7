/** Where on the axis of time what holds a machine begins and ends, and the words for it. */
import { countOf, durationOf, timeOf } from '../ui/format';
import type { Hold } from './documents';

/** What lies ahead, in hours. */
export const AHEAD = { 1: 'Next hour', 6: 'Next 6 hours', 24: 'Next day', 168: 'Next week' } as const;

const HOUR_MS = 3_600_000;
const PAST = 0.25; // of what is shown
const MOST_LANES = 12; // of one machine; what has no lane is counted
const LEAST = 0.004; // of the width: a bar that ends at once can still be seen
const LABEL = 0.12; // likewise: what a narrower bar's name takes, which then stands behind it
const LABEL_PX = 68; // of a mark: 10:00 AM
const NICE_MINUTES = [5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440];

/** A stretch of time, in ms since 1970. */
export interface Range {
  from: number;
  now: number;
  to: number;
}

export interface Bar {
  /** One of a kind on its machine: what may not be seen has no id, and several can begin together. */
  key: string;
  hold: Hold;
  lane: number;
  /** Parts of the width, 0 to 1. */
  left: number;
  width: number;
  /** Where the limit ends it, if that is later; null without a limit. */
  limit: number | null;
  /** Its name has no room in it, but behind it. */
  narrow: boolean;
  /** Nothing says when it ends. */
  open: boolean;
}

export interface Lanes {
  bars: Bar[];
  lanes: number;
  /** Holds that found no lane. */
  more: number;
}

export function rangeOf(now: number, hours: number): Range {
  const ahead = hours * HOUR_MS;
  return { from: now - (ahead * PAST) / (1 - PAST), now, to: now + ahead };
}

/** Bars that don't overlap share a lane, the first that is free. */
export function lanesOf(holds: readonly Hold[], range: Range): Lanes {
  const width = range.to - range.from;
  const place = (at: number): number => Math.min(1, Math.max(0, (at - range.from) / width));
  const ends: number[] = [];
  const bars: Bar[] = [];
  const alike = new Map<string, number>();
  let more = 0;
  for (const hold of holds) {
    const begin = Date.parse(hold.begin);
    const end = endOf(hold, range.now);
    if (begin > range.to) continue;
    const left = place(begin);
    const right = Math.max(place(end ?? range.to), Math.min(1, left + LEAST));
    let lane = ends.findIndex((busy) => busy <= left);
    if (lane < 0) lane = ends.length;
    if (lane >= MOST_LANES) {
      more += 1;
      continue;
    }
    const narrow = right - left < LABEL && left + LABEL < 1;
    ends[lane] = narrow ? Math.max(right, left + LABEL) : right;
    const latest = hold.latestEnd === null ? null : Date.parse(hold.latestEnd);
    const limit = latest !== null && end !== null && latest > end && latest <= range.to ? place(latest) : null;
    if (limit !== null) ends[lane] = Math.max(ends[lane]!, limit);
    const what = `${hold.simulation?.id ?? hold.begin} ${hold.kind}`;
    const number = alike.get(what) ?? 0;
    alike.set(what, number + 1);
    bars.push({ key: `${what} ${number}`, hold, lane, left, width: right - left, limit, narrow, open: end === null });
  }
  return { bars, lanes: Math.max(1, ends.length), more };
}

/** When it will probably end; null: nothing says so. What should have ended ends now. */
function endOf({ expectedEnd, latestEnd }: Hold, now: number): number | null {
  const known = [expectedEnd, latestEnd].filter((each) => each !== null).map((each) => Date.parse(each));
  return known.length ? Math.max(Math.min(...known), now) : null;
}

/** Of the marks of an axis so many pixels wide those that have room for their label, which stands behind each. */
export function labelled<Tick extends { left: number }>(ticks: readonly Tick[], pixels: number): Tick[] {
  let end = -Infinity;
  return ticks.filter(({ left }) => {
    const begin = left * pixels;
    if (begin < end || begin + LABEL_PX > pixels) return false;
    end = begin + LABEL_PX;
    return true;
  });
}

/** Marks of the axis: round times of the reader's zone, at most eight. */
export function ticksOf(range: Range): { at: number; left: number; label: string }[] {
  const width = range.to - range.from;
  const step = 60_000 * (NICE_MINUTES.find((minutes) => width / (minutes * 60_000) <= 7) ?? 1_440);
  const offset = new Date(range.from).getTimezoneOffset() * 60_000;
  const first = Math.ceil((range.from - offset) / step) * step + offset;
  const ticks = [];
  for (let at = first; at <= range.to; at += step) {
    ticks.push({ at, left: (at - range.from) / width, label: labelOf(at, width) });
  }
  return ticks;
}

function labelOf(at: number, width: number): string {
  const date = new Date(at);
  if (width > 48 * HOUR_MS) return date.toLocaleDateString(undefined, { weekday: 'short', day: 'numeric' });
  return date.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' });
}

/** What a bar means, as a sentence. */
export function sentenceOf(hold: Hold, now: number): string {
  const name = hold.simulation?.name ?? 'A simulation of another project';
  if (hold.kind === 'RESERVED') return `${name}: reserved from ${timeOf(hold.begin)}, in ${durationOf((Date.parse(hold.begin) - now) / 1_000)}.`;
  const parts = [`since ${timeOf(hold.begin)}`];
  if (hold.kind === 'LEAVING') parts.push('being stopped');
  if (hold.expectedEnd !== null) parts.push(`expected to end ${timeOf(hold.expectedEnd)}`);
  if (hold.latestEnd !== null) parts.push(`at the latest ${timeOf(hold.latestEnd)}`);
  if (hold.expectedEnd === null && hold.latestEnd === null) parts.push('end unknown');
  if (hold.share !== null) parts.push(`${countOf(Math.round(Number(hold.share) * 100))} % of the machine`);
  if (hold.preemptible) parts.push('preemptible');
  return `${name}: ${parts.join(', ')}.`;
}
