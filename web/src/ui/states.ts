/** The words of the schema's enums, as people read them. */
import type { graphql } from '../api/graphql';

export type SimulationState = ReturnType<typeof graphql.scalar<'SimulationState'>>;
export type Reason = ReturnType<typeof graphql.scalar<'Reason'>>;

/** The class of a badge. */
export type Tone = 'run' | 'wait' | 'good' | 'bad' | 'off';

export const TONES: Record<SimulationState, Tone> = {
  QUEUED: 'wait',
  STARTING: 'run',
  RUNNING: 'run',
  FINISHED: 'good',
  FAILED: 'bad',
  CANCELLED: 'off',
};

export const STATE_NAMES: Record<SimulationState, string> = {
  QUEUED: 'Waiting',
  STARTING: 'Starting',
  RUNNING: 'Running',
  FINISHED: 'Finished',
  FAILED: 'Failed',
  CANCELLED: 'Cancelled',
};

export const FINAL: ReadonlySet<SimulationState> = new Set(['FINISHED', 'FAILED', 'CANCELLED']);

const REASON_NAMES: Record<Reason, string> = {
  COMPLETED: 'Finished successfully.',
  CANCELLED: 'Cancelled by a user.',
  EXIT_CODE: 'Exited with an error.',
  LAUNCH_ERROR: 'Could not be started.',
  MACHINE_LOST: 'Its machine was lost.',
  MAX_RUNTIME: 'Reached its time limit.',
  MAX_COST: 'Reached its cost limit.',
  STOPPING_THRESHOLD: 'Stopped: target reached.',
  PATIENCE_EXHAUSTED: 'Stopped: plateau.',
  PRUNED: 'Stopped: other trials were better.',
  DIVERGENCE_THRESHOLD: 'Stopped: diverged.',
  NON_FINITE_METRIC: 'Stopped: not finite.',
  BUDGET_EXHAUSTED: 'Stopped: its budget was nearly used up.',
  DEPENDENCY_FAILED: 'Cancelled: what it was to run after ended otherwise.',
  UNWATCHED: 'Stopped: no viewer was watching.',
  PREEMPTED: 'Stopped to make room for another run.',
};

const BY_RULE: ReadonlySet<Reason> = new Set(['STOPPING_THRESHOLD', 'PATIENCE_EXHAUSTED', 'DIVERGENCE_THRESHOLD', 'NON_FINITE_METRIC']);

/** Why something ended, where there is room for a few words: of a stop rule without its evidence. */
export function shortReasonOf(reason: Reason | null, detail?: string | null): string {
  return reasonOf(reason, reason !== null && BY_RULE.has(reason) ? null : detail);
}

/** Why something ended, in words; a reason that this page does not know yet, as the server names it. */
export function reasonOf(reason: Reason | null, detail?: string | null): string {
  if (detail) return detail;
  return reason === null ? '' : (REASON_NAMES[reason] ?? reason);
}

/** Why it waits; where that ends by itself (`until`), with what is left of it now. */
export function waitingOf({ detail, until }: { detail: string; until: string | null }, now: number): string {
  if (until === null) return detail;
  const seconds = Math.ceil((Date.parse(until) - now) / 1_000);
  const left = seconds < 120 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
  return detail.replace(/ begins in [^;]*\.$/, seconds > 0 ? ` begins in ${left}.` : ' is about to begin.');
}
