/** Machines in words and bars. */
import type { graphql } from '../api/graphql';
import type { Tone } from './states';

export type MachineState = ReturnType<typeof graphql.scalar<'MachineState'>>;

export const MACHINE_TONES: Record<MachineState, Tone> = { ONLINE: 'good', DRAINING: 'wait', OFFLINE: 'bad' };
export const MACHINE_NAMES: Record<MachineState, string> = { ONLINE: 'Online', DRAINING: 'Draining', OFFLINE: 'Offline' };

export interface Room {
  resources: { cpus: number; memoryGib: number; gpus: number; gpuModel: string | null };
  free: { cpus: number; memoryGib: number; gpus: number };
}

export interface Part {
  name: string;
  free: number;
  all: number;
  unit: string;
  /** Which kind of them. */
  model?: string | null;
}

/** What a machine has any of. */
export function partsOf({ resources, free }: Room): Part[] {
  return [
    { name: 'CPUs', free: free.cpus, all: resources.cpus, unit: '' },
    { name: 'Memory', free: free.memoryGib, all: resources.memoryGib, unit: ' GiB' },
    { name: 'GPUs', free: free.gpus, all: resources.gpus, unit: '', model: resources.gpuModel },
  ].filter(({ all }) => all > 0);
}

/** 3.5; 128. */
export function amountOf(value: number): string {
  return String(Number(value.toFixed(value < 10 ? 1 : 0)));
}
