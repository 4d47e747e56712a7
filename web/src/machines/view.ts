/** Which machines are shown, and in which order: all of it in the address bar, so that a view can be kept and sent. */
import type { MachineState } from '../ui/machines';

export interface View {
  /** Null: all of them. */
  state: MachineState | null;
  engine: string | null;
  /** Name contains, in any case. */
  name: string;
  /** Z to A. */
  descending: boolean;
  /** The cursor that the page begins behind; null: the first page. */
  after: string | null;
}

export const STATES: readonly MachineState[] = ['ONLINE', 'DRAINING', 'OFFLINE'];

export function readView(params: URLSearchParams): View {
  const text = (name: string): string | null => params.get(name) || null;
  const state = text('state') as MachineState | null;
  return {
    state: state !== null && STATES.includes(state) ? state : null,
    engine: text('engine'),
    name: text('name') ?? '',
    descending: text('order') === 'desc',
    after: text('after'),
  };
}
