/** What an alert target may listen to, in words. */
import type { AlertKind } from './documents';

export const KINDS: Readonly<Record<AlertKind, string>> = {
  ENDED: 'Ended: finished, failed or cancelled',
  FAILED: 'Failed',
  DIVERGED: 'Stopped by a rule: diverged or not finite',
  TARGET_REACHED: 'Stopped by a rule: target reached',
  PLATEAU: 'Stopped by a rule: no longer improving',
  MACHINE_LOST: 'Its machine was lost',
  WAITS_TOO_LONG: 'Waits too long',
  BUDGET: 'A budget is spent to 80 %, or used up',
};

const SHORT: Readonly<Record<AlertKind, string>> = {
  ENDED: 'ended', FAILED: 'failed', DIVERGED: 'diverged', TARGET_REACHED: 'target reached', PLATEAU: 'plateau',
  MACHINE_LOST: 'machine lost', WAITS_TOO_LONG: 'waits too long', BUDGET: 'budget',
}; // prettier-ignore

export const ALL = Object.keys(KINDS) as AlertKind[];

export function kindsOf(kinds: readonly AlertKind[]): string {
  return ALL.every((kind) => kinds.includes(kind)) ? 'everything' : kinds.map((kind) => SHORT[kind]).join(', ');
}

/** A URL as the server tells them apart: http(s) is a webhook unless it is said to be one of Apprise. */
export function transportOf(url: string, apprise: boolean): 'WEBHOOK' | 'APPRISE' {
  return !apprise && isHttp(url) ? 'WEBHOOK' : 'APPRISE';
}

export function isHttp(url: string): boolean {
  return /^https?:\/\//i.test(url.trim());
}
