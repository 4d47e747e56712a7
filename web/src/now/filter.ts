/** What the list is narrowed to and how it is laid out: all of it in the address, so that a view can be kept and sent. */
import { FINAL, type SimulationState } from '../ui/states';
import { isCondition } from './conditions';
import type { Row } from './query';

export interface Filter {
  /** Null: all of them, by what they do. */
  state: SimulationState | null;
  /** Ids. */
  project: string | null;
  machine: string | null;
  /** In the name, the command or the notes, in any case; or a number or an id. */
  text: string;
  /** All of them. */
  tags: readonly string[];
  user: string | null;
  /** Created in so much time until now: 7d; null: ever. */
  since: string | null;
  /** Created on this day or later, and before the other one: 2026-11-29. */
  from: string | null;
  to: string | null;
  /** Comparisons of parameters: lr<1e-3. */
  where: readonly string[];
}

export type SortField = 'CREATED_AT' | 'NAME' | 'PRIORITY' | 'STARTED_AT' | 'FINISHED_AT' | 'COST' | 'BEST' | 'LAST' | 'PARAMETER';

export interface Sort {
  field: SortField;
  /** The metric or the parameter. */
  name?: string;
  /** Undefined: as the server has it, the best first. */
  descending?: boolean | undefined;
}

/** A column of a metric or a parameter. */
export interface Column {
  kind: 'last' | 'best' | 'param';
  name: string;
}

export const KINDS = { last: 'last', best: 'best', param: 'parameter' } as const;

export interface View {
  filter: Filter;
  /** Null: in sections, by what simulations do. */
  sort: Sort | null;
  columns: readonly Column[];
}

export interface Section {
  title: string;
  states: SimulationState[] | null;
  /** Those that wait stand as they came; all others newest first. */
  oldestFirst: boolean;
  empty: string;
}

export const ON_MACHINES: Section = {
  title: 'On machines',
  states: ['STARTING', 'RUNNING'],
  oldestFirst: false,
  empty: 'Nothing runs.',
};
export const WAITING: Section = { title: 'Waiting', states: ['QUEUED'], oldestFirst: true, empty: 'Nothing waits.' };
export const ENDED: Section = {
  title: 'Ended',
  states: ['FINISHED', 'FAILED', 'CANCELLED'],
  oldestFirst: false,
  empty: 'Nothing has ended yet.',
};
export const SORTED: Section = { title: 'Simulations', states: null, oldestFirst: false, empty: 'No simulations.' };

const STATES: readonly SimulationState[] = ['QUEUED', 'STARTING', 'RUNNING', 'FINISHED', 'FAILED', 'CANCELLED'];
const MOST_COLUMNS = 12;
export const PERIODS: Readonly<Record<string, string>> = { '1h': 'Last hour', '24h': 'Last 24 hours', '7d': 'Last 7 days', '30d': 'Last 30 days' };
const PERIOD_MS: Readonly<Record<string, number>> = { h: 3_600_000, d: 86_400_000 };
const SORT_WORDS: Readonly<Record<string, SortField>> = {
  created: 'CREATED_AT', name: 'NAME', priority: 'PRIORITY', started: 'STARTED_AT', finished: 'FINISHED_AT', cost: 'COST',
  best: 'BEST', last: 'LAST', param: 'PARAMETER',
}; // prettier-ignore

export function readView(params: URLSearchParams): View {
  const text = (name: string): string | null => params.get(name) || null;
  const all = (name: string): string[] => [...new Set(params.getAll(name).flatMap(listOf))];
  const day = (name: string): string | null => (/^\d{4}-\d\d-\d\d$/.test(params.get(name) ?? '') && !Number.isNaN(Date.parse(params.get(name)!)) ? params.get(name) : null);
  const state = text('state') as SimulationState | null;
  const since = text('since');
  return {
    filter: {
      state: state !== null && STATES.includes(state) ? state : null,
      project: text('project'),
      machine: text('machine'),
      text: text('text') ?? text('name') ?? '', // `name` in addresses that were kept before
      tags: all('tag').slice(0, 20),
      user: text('user'),
      since: since !== null && since in PERIODS ? since : null,
      from: day('from'),
      to: day('to'),
      where: all('where').filter(isCondition).slice(0, 20),
    },
    sort: sortOf(params.get('sort') ?? ''),
    columns: all('col').flatMap((each) => columnOf(each) ?? []).slice(0, MOST_COLUMNS),
  };
}

/** What an address asks for that is not understood or is too much, as it has it: where=lr. */
export function ignoredOf(params: URLSearchParams, { filter, sort, columns }: View): string[] {
  const lists = { where: filter.where, tag: filter.tags, col: columns.map(writtenColumn) };
  const single = { state: filter.state, since: filter.since, from: filter.from, to: filter.to, sort };
  return [
    ...Object.entries(lists).flatMap(([name, read]) => params.getAll(name).flatMap(listOf).filter((each) => !read.includes(each)).map((each) => `${name}=${each}`)),
    ...Object.entries(single).flatMap(([name, read]) => (params.get(name) && read === null ? [`${name}=${params.get(name)}`] : [])),
  ];
}

/**
 * Several values of one name in the address, divided by commas. Not as several parameters: of these the router keeps
 * the last on the way back.
 */
export function writtenList(values: readonly string[]): string {
  return values.map((each) => each.replaceAll('%', '%25').replaceAll(',', '%2C')).join(',');
}

function listOf(written: string): string[] {
  return written.split(',').filter(Boolean).map((each) => each.replaceAll('%2C', ',').replaceAll('%25', '%'));
}

/** Names in the address that narrow the list. */
export const FILTERS = ['state', 'project', 'machine', 'text', 'name', 'tag', 'user', 'since', 'from', 'to', 'where'] as const;

export function isFiltered({ state, project, machine, text, tags, user, since, from, to, where }: Filter): boolean {
  return Boolean(state ?? project ?? machine ?? user ?? since ?? from ?? to) || text !== '' || tags.length + where.length > 0;
}

/** `best:val/loss`, `-cost`, `+name`: a sign gives the direction. A + that was typed into an address is read as a space. */
export function sortOf(text: string): Sort | null {
  const [, sign, word = '', name] = /^([+ -]?)(\w+)(?::(.+))?$/s.exec(text) ?? [];
  const field = SORT_WORDS[word];
  if (!field || (name !== undefined) !== ['BEST', 'LAST', 'PARAMETER'].includes(field)) return null;
  return { field, ...(name === undefined ? {} : { name }), ...(sign ? { descending: sign === '-' } : {}) };
}

export function writtenSort({ field, name, descending }: Sort): string {
  const word = Object.keys(SORT_WORDS).find((each) => SORT_WORDS[each] === field)!;
  const sign = descending === undefined ? '' : descending ? '-' : '+';
  return `${sign}${word}${name === undefined ? '' : `:${name}`}`;
}

export function columnOf(text: string): Column | null {
  const [, kind, name] = /^(last|best|param):(.{1,200})$/s.exec(text) ?? [];
  return kind ? { kind: kind as Column['kind'], name: name! } : null;
}

export function writtenColumn({ kind, name }: Column): string {
  return `${kind}:${name}`;
}

/** How a column is sorted by. */
export function sortBy({ kind, name }: Column): Sort {
  return { field: kind === 'best' ? 'BEST' : kind === 'last' ? 'LAST' : 'PARAMETER', name };
}

/**
 * A click on a head: first in that direction, then in the other one, then not at all any more. first: undefined where
 * the best is first; both directions follow.
 */
export function nextSort(now: Sort | null, wanted: Sort, first: boolean | undefined): Sort | null {
  const cycle = first === undefined ? [undefined, true, false] : [first, !first];
  const isNow = now !== null && now.field === wanted.field && now.name === wanted.name;
  const place = isNow ? cycle.indexOf(now.descending) + 1 : 0;
  if (place >= cycle.length) return null;
  return cycle[place] === undefined ? wanted : { ...wanted, descending: cycle[place] };
}

export function isSortedBy(sort: Sort | null, { field, name }: Sort): boolean {
  return sort !== null && sort.field === field && sort.name === name;
}

/** What stands at the head of a column that is sorted by. */
export function arrowOf(sort: Sort | null, wanted: Sort): string {
  if (!isSortedBy(sort, wanted)) return '';
  return sort!.descending === undefined ? '★' : sort!.descending ? '▼' : '▲';
}

/** The sections that a view has. */
export function sectionsOf({ filter, sort }: View): Section[] {
  if (sort) return [{ ...SORTED, states: filter.state === null ? null : [filter.state] }];
  if (filter.state === null) return [ON_MACHINES, WAITING, ENDED];
  const whole = filter.state === 'QUEUED' ? WAITING : FINAL.has(filter.state) ? ENDED : ON_MACHINES;
  return [{ ...whole, states: [filter.state], empty: 'Nothing matches.' }];
}

/** The first moment of creation that a filter takes; null: any. */
export function createdFrom({ since, from }: Filter, now: number): number | null {
  const begins = [
    ...(since ? [now - Number.parseInt(since, 10) * PERIOD_MS[since.at(-1)!]!] : []),
    ...(from ? [startOf(from)] : []),
  ];
  return begins.length ? Math.max(...begins) : null;
}

/** The moment from which on it takes nothing: the end of the last day, in the reader's zone. */
export function createdTo({ to }: Filter): number | null {
  if (!to) return null;
  const day = new Date(startOf(to));
  day.setDate(day.getDate() + 1);
  return day.getTime();
}

function startOf(day: string): number {
  return Date.parse(`${day}T00:00:00`);
}

/**
 * Whether a simulation belongs to a section of a filtered view: the same rule as the server's filter; null: only the
 * server can answer, for the command, the notes and the parameters are not in a row.
 */
export function belongs(row: Row, section: Section, filter: Filter, now: number): boolean | null {
  const created = Date.parse(row.createdAt);
  const text = filter.text.toLowerCase();
  const known =
    (section.states?.includes(row.state) ?? true) &&
    (filter.project === null || row.project.id === filter.project) &&
    (filter.machine === null || row.machine?.id === filter.machine) &&
    filter.tags.every((tag) => row.tags.includes(tag)) &&
    (filter.user === null || row.createdBy === filter.user || row.createdBy === `${filter.user} (unverified)`) &&
    created >= (createdFrom(filter, now) ?? -Infinity) &&
    created < (createdTo(filter) ?? Infinity);
  if (!known) return false;
  return filter.where.length || !row.name.toLowerCase().includes(text) ? null : true;
}
