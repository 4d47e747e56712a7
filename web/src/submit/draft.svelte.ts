/**
 * What was typed into the form, as it was typed: nothing is lost that can't be read yet. It lives as long as the page
 * is open, through other views, a lost connection and signing in once more; it is never written to this browser's
 * disk, for it holds secrets.
 */
import type { ResultOf } from '../api/graphql';
import { isRaw, written } from '../api/json';
import { session } from '../api/session.svelte';
import type { SimulationToRepeat } from './documents';
import { typedDuration } from './duration';
import { shellOf } from '../ui/format';
import { pairOf, type Pair } from '../ui/pairs';
import { draftOfRule, type ObjectiveDraft, type RuleDraft } from '../stopping/rules';

export type Kind = 'auto' | 'text' | 'number' | 'boolean' | 'json';
export type Mode = 'MIN' | 'MAX';
export type Source = 'AUTO' | 'JSON' | 'NONE';
export type Retryable = (typeof RETRYABLE)[number];

export interface Parameter extends Pair {
  kind: Kind;
}

export type Code = NonNullable<NonNullable<ResultOf<typeof SimulationToRepeat>['simulation']>['package']>;

export interface Draft {
  command: string;
  name: string;
  cpus: string;
  memoryGib: string;
  gpus: string;
  machines: string;
  parametersAs: 'rows' | 'json';
  parameters: Parameter[];
  parametersJson: string;
  environment: Pair[];
  workingDirectory: string;
  /** Code that was packed for the simulation that this one repeats. */
  package: Code | null;
  runtimeEnv: unknown;
  project: string;
  tags: string[];
  /** One that is being typed. */
  tag: string;
  priority: string;
  /** Ids, or addresses of pages, each with a condition behind a colon or without. */
  after: string;
  notes: string;
  gpuModel: string;
  labels: Pair[];
  /** Its name. */
  machine: string;
  maxPricePerHour: string;
  maxRuntime: string;
  maxRetries: string;
  maxCost: string;
  maxSteps: string;
  retryOn: Retryable[];
  metricsFrom: Source;
  /** One per line. */
  metricsPatterns: string;
  /** Directories, one per line. */
  tensorboard: string;
  /** An interval; 0: none; empty: the installation's. */
  systemMetrics: string;
  objective: ObjectiveDraft;
  rules: RuleDraft[];
  metrics: { row: number; name: string; mode: Mode }[];
  attended: boolean;
  attendedGrace: string;
  preemptible: boolean;
}

/** As policy.retry.RETRYABLE: a test compares them. */
export const RETRYABLE = ['MACHINE_LOST', 'EXIT_CODE', 'LAUNCH_ERROR'] as const;

const MOST_METRICS = 100; // as the API takes

export function parameterOf(key = '', value: unknown = ''): Parameter {
  if (typeof value === 'string') return { ...pairOf(key, value), kind: value === '' || isReadAsJson(value) ? 'text' : 'auto' };
  return { ...pairOf(key, written(value)), kind: value !== null && typeof value === 'object' && !isRaw(value) ? 'json' : 'auto' };
}

/** A row to be filled in. */
export function emptyParameter(): Parameter {
  return { ...pairOf(), kind: 'auto' };
}

function isReadAsJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

export function blank(): Draft {
  return {
    command: '', name: '', cpus: '', memoryGib: '', gpus: '',
    parametersAs: 'rows', parameters: [], parametersJson: '{}', environment: [], workingDirectory: '', package: null, runtimeEnv: null,
    project: '', tags: [], tag: '', priority: '', after: '', notes: '',
    machines: '', gpuModel: '', labels: [], machine: '', maxPricePerHour: '',
    maxRuntime: '', maxRetries: '', maxCost: '', maxSteps: '', retryOn: ['MACHINE_LOST'],
    metricsFrom: 'AUTO', metricsPatterns: '', tensorboard: '', systemMetrics: '', objective: { metric: '', mode: '' }, rules: [],
    metrics: [], attended: false, attendedGrace: '', preemptible: false,
  }; // prettier-ignore
}

/** The built-in simulation, as `simulations demo` submits it. */
export function demo(): Draft {
  return { ...blank(), command: 'python -m runner.demo --steps 200 --interval 0.1', name: 'demo', tags: ['demo'] };
}

/** The same once more. What is left at the server's default stays empty. */
export function draftOf(simulation: NonNullable<ResultOf<typeof SimulationToRepeat>['simulation']>): Draft {
  const { resources, limits, stopping } = simulation;
  // One that was only guessed is guessed again.
  const objective = stopping.rules.length ? simulation.objective?.metric : undefined;
  const values = Object.entries(simulation.parameters as Record<string, unknown>);
  return {
    ...blank(),
    command: shellOf(simulation.entrypointTemplate ?? simulation.entrypoint),
    name: simulation.name,
    cpus: other(resources.cpus, 1),
    memoryGib: other(resources.memoryGib, 0),
    gpus: other(resources.gpus, 0),
    parameters: values.map(([key, value]) => parameterOf(key, value)),
    environment: Object.keys(simulation.environment as Record<string, null>).map((key) => pairOf(key)),
    workingDirectory: simulation.workingDirectory ?? '',
    package: simulation.package,
    runtimeEnv: simulation.runtimeEnv,
    project: simulation.project.name === 'default' ? '' : simulation.project.name,
    tags: simulation.tags,
    priority: other(simulation.priority, 0),
    after: simulation.after.flatMap(({ condition, simulation: other }) => (other ? [writtenAfter(other.id, condition)] : [])).join(' '),
    notes: simulation.notes ?? '',
    machines: other(simulation.machines, 1),
    gpuModel: resources.gpuModel ?? '',
    labels: Object.entries(resources.labels as Record<string, string>).map(([key, value]) => pairOf(key, value)),
    machine: resources.machineName ?? '',
    maxPricePerHour: resources.maxPricePerHour ?? '',
    maxRuntime: limits.maxRuntimeSeconds === null ? '' : typedDuration(limits.maxRuntimeSeconds),
    maxRetries: other(limits.maxRetries, 3),
    maxCost: limits.maxCost ?? '',
    maxSteps: limits.maxSteps === null ? '' : String(limits.maxSteps),
    retryOn: RETRYABLE.filter((reason) => limits.retryOn.includes(reason)),
    metricsFrom: simulation.metricsFrom,
    metricsPatterns: simulation.metricsPatterns.join('\n'),
    tensorboard: simulation.tensorboard.join('\n'),
    systemMetrics: intervalOf(simulation.systemMetricsSeconds),
    objective: objective === undefined ? { metric: '', mode: '' } : { metric: objective, mode: simulation.objective?.mode ?? '' },
    rules: stopping.rules.map((rule) => draftOfRule(rule, objective ?? '')),
    metrics: simulation.metrics.flatMap(({ name, direction }) => (direction ? [{ row: pairOf().row, name, mode: direction }] : [])).slice(0, MOST_METRICS),
    attended: simulation.attended,
    attendedGrace: simulation.attendedGraceSeconds === null ? '' : typedDuration(simulation.attendedGraceSeconds),
    preemptible: simulation.preemptible,
  };
}

/** Half a second has no duration in whole units. */
function intervalOf(seconds: number | null): string {
  if (seconds === null) return '';
  return Number.isInteger(seconds) && seconds > 0 ? typedDuration(seconds) : `${seconds}`;
}

/** As it is typed: the success of another one goes without saying. */
export function writtenAfter(id: string, condition: 'SUCCESS' | 'FAILURE' | 'ANY'): string {
  return condition === 'SUCCESS' ? id : `${id}:${condition.toLowerCase()}`;
}

function other(value: number, byDefault: number): string {
  return value === byDefault ? '' : String(value);
}

/** However often it is sent, one form makes one simulation. (`crypto.randomUUID` is missing over plain HTTP.) */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `web-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

class Form {
  draft = $state<Draft>(blank());
  clientKey = $state(newKey());
  /** The id of the simulation that it was filled in from. */
  from = $state<string | null>(null);
  /** Names of variables whose values have to be given once more. */
  secrets = $state<string[]>([]);
  sending = $state(false);
  #filledIn = $state(textOf(blank()));

  /** Whether something was typed that is nowhere else. */
  get unsent(): boolean {
    return textOf(this.draft) !== this.#filledIn;
  }

  fill(draft: Draft, from: string | null = null): void {
    this.draft = draft;
    this.from = from;
    this.secrets = from === null ? [] : draft.environment.map(({ key }) => key);
    this.#filledIn = textOf(draft);
    this.renew();
  }

  /** From here on it is another simulation. */
  renew(): void {
    this.clientKey = newKey();
  }
}

function textOf(draft: Draft): string {
  return JSON.stringify(draft, (key, value: unknown) => (key === 'row' ? undefined : value));
}

export const form = new Form();

session.atParting(() => form.fill(blank()));
