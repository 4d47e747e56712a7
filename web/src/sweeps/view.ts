/** Sweeps and trials in words, and what follows from the trials so far. */
import { entriesOf, shortOf } from '../curves/parameters';
import { valueOf } from '../ui/format';
import type { Tone } from '../ui/states';
import type { Sweep, SweepRow, Trial } from './documents';

export const SWEEP_NAMES: Record<SweepRow['state'], string> = { RUNNING: 'Running', FINISHED: 'Finished', FAILED: 'Failed', CANCELLED: 'Cancelled' };
export const SWEEP_TONES: Record<SweepRow['state'], Tone> = { RUNNING: 'run', FINISHED: 'good', FAILED: 'bad', CANCELLED: 'off' };
export const TRIAL_NAMES: Record<Trial['state'], string> = { OPEN: 'Running', COMPLETE: 'Complete', PRUNED: 'Pruned', FAILED: 'Failed', CANCELLED: 'Cancelled' };
export const TRIAL_TONES: Record<Trial['state'], Tone> = { OPEN: 'run', COMPLETE: 'good', PRUNED: 'off', FAILED: 'bad', CANCELLED: 'off' };
export const SAMPLERS: Record<SweepRow['sampler'], string> = { TPE: 'TPE', RANDOM: 'random', GRID: 'grid', QUASI_RANDOM: 'quasi-random', CMA_ES: 'CMA-ES' };

const REASONS: Record<NonNullable<SweepRow['reason']>, string> = {
  COMPLETED: 'All trials have begun.',
  STOPPING_THRESHOLD: 'A trial has reached the target.',
  PATIENCE_EXHAUSTED: 'The last trials were not better than the best one.',
  MAX_COST: 'The budget does not pay for another trial.',
  TRIALS_FAILED: 'Its trials failed.',
  CANCELLED: 'Cancelled by a user.',
};

/** Why no more trials begin. */
export function reasonOf({ reason, reasonDetail }: Pick<SweepRow, 'reason' | 'reasonDetail'>): string {
  return reasonDetail ?? (reason === null ? '' : (REASONS[reason] ?? reason));
}

/** A trial that has no simulation on a machine yet waits. */
export function trialStateOf({ state, simulations }: Trial): { name: string; tone: Tone } {
  if (state === 'OPEN' && !simulations.some((each) => each.state === 'RUNNING' || each.state === 'STARTING')) return { name: 'Waiting', tone: 'wait' };
  return { name: TRIAL_NAMES[state], tone: TRIAL_TONES[state] };
}

export function endedOf({ complete, pruned, failed, cancelled }: SweepRow['counts']): number {
  return complete + pruned + failed + cancelled;
}

/** lr 0.001, batch 64 */
export function parametersOf(parameters: unknown): string {
  return entriesOf(parameters).map(([name, text]) => `${name} ${shortOf(text)}`).join(', ');
}

/** 0.2143 ± 0.003 */
export function resultOf({ value, spread }: Pick<Trial, 'value' | 'spread'>): string {
  if (value === null) return '–';
  return spread === null ? valueOf(value) : `${valueOf(value)} ± ${valueOf(spread)}`;
}

/** After each trial the best value of those until then, by number; NaN before the first. Only complete ones count. */
export function bestSoFar(trials: readonly Trial[], mode: Sweep['objective']['mode']): number[] {
  let best = NaN;
  return trials.map(({ state, value }) => {
    if (state === 'COMPLETE' && value !== null && (Number.isNaN(best) || (mode === 'MAX' ? value > best : value < best))) best = value;
    return best;
  });
}

/** Complete ones first, by value: the best of them first, unless asked otherwise; then the others by number. */
export function ranked(trials: readonly Trial[], mode: Sweep['objective']['mode'], descending = mode === 'MAX'): Trial[] {
  const sign = descending ? -1 : 1;
  const isResult = ({ state, value }: Trial): boolean => state === 'COMPLETE' && value !== null;
  return [...trials].sort((one, other) => {
    if (isResult(one) !== isResult(other)) return Number(isResult(other)) - Number(isResult(one));
    return (isResult(one) ? sign * (one.value! - other.value!) : 0) || one.number - other.number;
  });
}
