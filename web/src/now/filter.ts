/** What the list is narrowed to: all of it in the address bar, so that a view can be kept and sent. */
import { FINAL, type SimulationState } from '../ui/states';
import type { Row } from './query';

export interface Filter {
  /** Null: all of them, by what they do. */
  state: SimulationState | null;
  /** Ids. */
  project: string | null;
  machine: string | null;
  /** Name contains, in any case. */
  name: string;
}

export interface Section {
  title: string;
  states: SimulationState[];
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

const STATES: readonly SimulationState[] = ['QUEUED', 'STARTING', 'RUNNING', 'FINISHED', 'FAILED', 'CANCELLED'];

export function readFilter(params: URLSearchParams): Filter {
  const text = (name: string): string | null => params.get(name) || null;
  const state = text('state') as SimulationState | null;
  return {
    state: state !== null && STATES.includes(state) ? state : null,
    project: text('project'),
    machine: text('machine'),
    name: text('name') ?? '',
  };
}

/** The sections that a filter leaves. */
export function sectionsOf(filter: Filter): Section[] {
  if (filter.state === null) return [ON_MACHINES, WAITING, ENDED];
  const whole = filter.state === 'QUEUED' ? WAITING : FINAL.has(filter.state) ? ENDED : ON_MACHINES;
  return [{ ...whole, states: [filter.state], empty: 'Nothing matches.' }];
}

/** Whether a simulation belongs to a section of a filtered view: the same rule as the server's filter. */
export function belongs(row: Row, section: Section, filter: Filter): boolean {
  return (
    section.states.includes(row.state) &&
    (filter.project === null || row.project.id === filter.project) &&
    (filter.machine === null || row.machine?.id === filter.machine) &&
    row.name.toLowerCase().includes(filter.name.toLowerCase())
  );
}
