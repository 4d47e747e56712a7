/** What happened, where a simulation stands and what it asked for, as sentences. */
import { countOf, timeOf } from '../ui/format';
import { type Reason, reasonOf, shortReasonOf, type SimulationState, waitingOf } from '../ui/states';
import type { Decision, Simulation } from './query';

type Attempt = Simulation['attempts'][number];
type Event = Simulation['events'][number];

interface Detail {
  attempt?: number;
  machine?: string;
  reason?: Reason;
  detail?: string;
  exitCode?: number;
  signal?: number;
  /** Of a rule; of a budget and of what makes room without a step. */
  evidence?: Partial<Decision>;
  member?: { detail?: string };
}

/** What decided, in few words: plateau at step 4,200. */
export function decisionOf({ rule, step }: Partial<Decision> & Pick<Decision, 'rule' | 'step'>): string {
  return `${ruleOf(rule)} at step ${countOf(step)}`;
}

/** A rule's name as a word of a sentence: NON_FINITE is non finite. */
export function ruleOf(rule: string): string {
  return rule.replaceAll('_', ' ').toLowerCase();
}

/** Why it stands where it stands. */
export function standingOf({ state, reason, reasonDetail, waiting, queuePosition, estimatedStart, stopWanted, attempts, stopping }: Simulation, now: number): string {
  if (stopWanted && stopping.evidence && (state === 'STARTING' || state === 'RUNNING')) return `Stopping: ${decisionOf(stopping.evidence)}.`;
  if (stopWanted?.reason === 'PREEMPTED' && (state === 'STARTING' || state === 'RUNNING')) return `Stopping to make room. ${stopWanted.detail ?? ''}`.trim();
  if (stopWanted && (state === 'STARTING' || state === 'RUNNING')) return `Stopping, requested by ${whoOf(stopWanted.by)}.`;
  const place = queuePosition === null || waiting?.until ? '' : ` Place ${queuePosition.toLocaleString('en')} in the queue.`;
  const start = estimatedStart === null ? '' : ` Expected to start at ${timeOf(estimatedStart)} at the latest.`;
  if (waiting) return waitingOf(waiting, now) + place + start;
  if (state === 'QUEUED') return attempts.length ? 'Back in the queue for another attempt.' : 'In the queue; the next planning round is about to begin.';
  if (state === 'STARTING') return `Starting on ${attempts.at(-1)?.machineName ?? 'its machine'}.`;
  if (state === 'RUNNING') return `On ${attempts.at(-1)?.machineName ?? 'its machine'}${attempts.length > 1 ? `, attempt ${attempts.length}` : ''}.`;
  // The evidence stands below it.
  return stopping.evidence?.reason === reason ? shortReasonOf(reason, reasonDetail) : reasonOf(reason, reasonDetail);
}

export function whoOf(actor: string): string {
  return actor === 'anonymous' ? 'an anonymous user' : actor;
}

/** How an attempt ended. */
export function endOf({ endedAt, reason, reasonDetail, exitCode, signal }: Attempt): string {
  if (endedAt === null) return '';
  const status = signal !== null ? ` (signal ${signal})` : exitCode ? ` (exit code ${exitCode})` : '';
  const sentence = reasonOf(reason, reasonDetail);
  return reasonDetail && status && sentence.includes(String(signal ?? exitCode)) ? sentence : sentence + status;
}

export function eventOf(event: Event): string {
  const detail = (event.detail ?? {}) as Detail;
  const attempt = detail.attempt === undefined ? 'It' : `Attempt ${detail.attempt}`;
  const { rule, step, sentence } = detail.evidence ?? {};
  const decision = rule !== undefined && step !== undefined ? decisionOf({ rule, step }) : null;
  switch (event.kind as SimulationState | 'STOP_WANTED' | 'MEMBER_ENDED' | 'WOULD_STOP' | 'UPDATED' | 'PAUSED' | 'RESUMED' | 'DELETED') {
    case 'QUEUED':
      if (detail.reason === undefined) return `Submitted by ${whoOf(event.actor)}.`;
      if (detail.reason === 'PREEMPTED') return `${attempt} was preempted. ${detail.detail ?? ''} Back in the queue.`.replace('  ', ' ');
      return `${attempt} ended: ${lower(whyOf(detail))} Back in the queue.`;
    case 'STARTING':
      return `${attempt} was assigned to ${detail.machine ?? 'a machine'}.`;
    case 'RUNNING':
      return `${attempt} started.`;
    case 'FINISHED':
      return `Finished: ${lower(whyOf(detail))}`;
    case 'FAILED':
      return `Failed: ${lower(whyOf(detail))}`;
    case 'CANCELLED':
      if (detail.detail) return `Cancelled. ${detail.detail}`;
      return detail.reason === undefined ? `Cancelled by ${whoOf(event.actor)}.` : 'Cancelled.';
    case 'PAUSED':
      return `Paused by ${whoOf(event.actor)}.`;
    case 'RESUMED':
      return `Resumed by ${whoOf(event.actor)}.`;
    case 'STOP_WANTED':
      if (decision) return `Stop requested by a rule: ${decision}.`;
      if (detail.reason === 'PREEMPTED') return `Preemption requested. ${sentence ?? 'Its machine is needed for another run.'}`;
      if (sentence) return `Stop requested. ${sentence}`;
      return detail.reason === 'UNWATCHED' ? 'Stop requested: no viewer was watching.' : `Stop requested by ${whoOf(event.actor)}.`;
    case 'MEMBER_ENDED':
      return `${detail.member?.detail ?? 'A member ended.'} The others were stopped.`;
    case 'WOULD_STOP':
      return `Dry run: a rule would have stopped it${decision ? `, ${decision}` : ''}.`;
    case 'UPDATED':
      return `Changed by ${whoOf(event.actor)}: ${changedOf(event.detail)}.`;
    default:
      return `${event.kind} by ${whoOf(event.actor)}.`;
  }
}

/** What was changed, in words: stop rules, max cost. */
function changedOf(detail: unknown): string {
  const names = Object.keys((detail ?? {}) as object).map((name) => (name === 'stopping' ? 'stop rules' : name.replaceAll('_', ' ')));
  return names.join(', ') || 'nothing';
}

function whyOf({ reason, detail, exitCode, signal }: Detail): string {
  const sentence = reasonOf(reason ?? null, detail);
  if (detail) return sentence.endsWith('.') ? sentence : `${sentence}.`;
  if (signal !== undefined && signal !== null) return `${sentence.replace(/\.$/, '')}, by signal ${signal}.`;
  return exitCode ? `${sentence.replace(/\.$/, '')}, exit code ${exitCode}.` : sentence;
}

function lower(sentence: string): string {
  return /^(It|Its|Cancelled|Stopped|Exited|Reached|Could|Finished) /.test(sentence) ? sentence[0]!.toLowerCase() + sentence.slice(1) : sentence;
}

/** What it needs of a machine. */
export function needsOf({ cpus, memoryGib, gpus, gpuModel, labels, machineName, maxPricePerHour }: Simulation['resources'], money: (amount: number) => string): string {
  const parts = [`${cpus} ${cpus === 1 ? 'cpu' : 'cpus'}`];
  if (memoryGib) parts.push(`${memoryGib} GiB of memory`);
  if (gpus) parts.push(`${gpus} ${gpuModel ?? ''} ${gpus === 1 ? 'GPU' : 'GPUs'}`.replace('  ', ' '));
  const asked = Object.entries((labels ?? {}) as Record<string, string>).map(([name, value]) => `${name}=${value}`);
  if (asked.length) parts.push(asked.join(', '));
  if (machineName) parts.push(`only on ${machineName}`);
  if (maxPricePerHour !== null) parts.push(`at most ${money(Number(maxPricePerHour))} per hour`);
  return parts.join(', ');
}
