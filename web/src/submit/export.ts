/** The same order, for those who go on elsewhere: as a command line and as a mutation. Secrets are left out of both. */
import { isRaw } from '../api/json';
import { shellOf } from '../ui/format';
import { optionOf, type RuleInput } from '../stopping/rules';
import type { CreateSimulationInput } from './documents';
import { writtenAfter, type Draft } from './draft.svelte';

export const MUTATION = `mutation Submit($input: CreateSimulationInput!) {
  createSimulation(input: $input) {
    simulation { id name state }
    userErrors { code message field }
  }
}`;

type Given = Record<string, unknown>;

/** Options of cli/submit.py, and what has none. */
export interface CommandLine {
  text: string;
  /** Fields that it can't express, by their names in the API. */
  missing: string[];
}

/** `origin`: of the server, which is named where it is not the command line's own default. */
export function commandLineOf(input: CreateSimulationInput, draft: Draft, origin: string): CommandLine {
  const resources = (input.resources ?? {}) as Given;
  const limits = (input.limits ?? {}) as Given;
  const options: string[] = [];
  const missing: string[] = [];

  function option(name: string, value: unknown): void {
    if (value !== undefined) options.push(`${name} ${shellOf([String(value)])}`);
  }

  function pairs(name: string, values: unknown, write: (key: string, value: unknown) => string): void {
    for (const [key, value] of Object.entries((values ?? {}) as Given)) {
      if (key.includes('=')) missing.push(`“${key}”, for = ends a name there`);
      else options.push(`${name} ${write(key, value)}`);
    }
  }

  if (origin !== 'http://localhost:8000') option('--url', origin);
  option('--name', input.name);
  option('--project', input.project);
  for (const tag of input.tags ?? []) option('--tag', tag);
  option('--cpus', resources['cpus']);
  option('--memory-gib', resources['memoryGib']);
  option('--gpus', resources['gpus']);
  option('--machines', input.machines);
  option('--gpu-model', resources['gpuModel']);
  pairs('--label', resources['labels'], (key, value) => shellOf([`${key}=${String(value)}`]));
  option('--machine', draft.machine.trim() || undefined);
  option('--max-price-per-hour', resources['maxPricePerHour']);
  pairs('--parameter', input.parameters, (key, value) => shellOf([`${key}=${parameterText(value)}`]));
  pairs('--env', input.environment, (key) => `${shellOf([`${key}=`])}"$${/^\w+$/.test(key) ? key : 'VALUE'}"`);
  option('--working-directory', input.workingDirectory);
  option('--workdir', input.package ? '.' : undefined);
  option('--runtime-env', input.runtimeEnv === undefined ? undefined : JSON.stringify(input.runtimeEnv));
  option('--priority', input.priority);
  for (const { simulation, condition } of input.after ?? []) option('--after', writtenAfter(simulation ?? '', condition ?? 'SUCCESS'));
  option('--notes', input.notes ?? undefined);
  option('--max-runtime', limits['maxRuntimeSeconds'] === undefined ? undefined : draft.maxRuntime.trim().replaceAll(' ', ''));
  option('--max-cost', limits['maxCost']);
  option('--max-steps', limits['maxSteps']);
  option('--max-retries', limits['maxRetries']);
  option('--objective', input.objective ? [input.objective.metric, input.objective.mode?.toLowerCase()].filter(Boolean).join(':') : undefined);
  for (const rule of (input.stopping ?? []) as RuleInput[]) option('--stop', optionOf(rule, input.objective?.metric ?? ''));
  if (input.attended) options.push('--attended');
  option('--attended-grace', input.attendedGraceSeconds === undefined ? undefined : draft.attendedGrace.trim().replaceAll(' ', ''));
  if (input.preemptible) options.push('--preemptible');
  const retryOn = limits['retryOn'] as readonly string[] | undefined;
  for (const reason of retryOn ?? []) option('--retry-on', reason.toLowerCase());
  if (retryOn?.length === 0) missing.push('limits.retryOn, if empty');
  option('--metrics', input.metricsFrom?.toLowerCase());
  for (const pattern of input.metricsPatterns ?? []) option('--metrics-pattern', pattern);
  for (const directory of input.tensorboard ?? []) option('--tensorboard', directory);
  option('--system-metrics', input.systemMetricsSeconds);
  const modes = Object.fromEntries((input.metrics ?? []).map(({ name, mode }) => [name, mode]));
  pairs('--metric-mode', modes, (key, value) => shellOf([`${key}=${String(value).toLowerCase()}`]));

  const command = shellOf(input.entrypoint);
  const line = ['simulations submit', ...options, `-- ${command}`];
  return { text: line.join(line.join(' ').length > 72 ? ' \\\n  ' : ' '), missing };
}

/** The input as variables in JSON; `machineId`: null while it is not known. */
export function variablesOf(input: CreateSimulationInput, draft: Draft, machineId: string | null): string {
  const shown: Given = { ...input };
  if (input.environment) shown['environment'] = Object.fromEntries(Object.keys(input.environment as Given).map((key) => [key, '…']));
  if (draft.machine.trim()) {
    shown['resources'] = { ...input.resources, machine: machineId ?? `the id of ${draft.machine.trim()}` };
  }
  return pretty({ input: shown }, '');
}

/** The mutation, opened in GraphiQL: behind the #, where no server and no log gets to see it. */
export function graphiqlOf(variables: string): string {
  return `/graphql#${new URLSearchParams({ query: MUTATION, variables }).toString()}`;
}

/** JSON to be read: objects over several lines, lists of words on one. */
function pretty(value: unknown, indent: string): string {
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    const parts = value.map((each) => pretty(each, deeper));
    const nested = value.some((each) => each !== null && typeof each === 'object');
    return nested ? `[\n${parts.map((part) => deeper + part).join(',\n')}\n${indent}]` : `[${parts.join(', ')}]`;
  }
  if (value === null || typeof value !== 'object' || isRaw(value)) return JSON.stringify(value);
  const entries = Object.entries(value).map(([key, each]) => `${deeper}${JSON.stringify(key)}: ${pretty(each, deeper)}`);
  return entries.length ? `{\n${entries.join(',\n')}\n${indent}}` : '{}';
}

/** JSON; a text as it stands, unless it would be read as JSON: "42". */
function parameterText(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value);
  try {
    JSON.parse(value);
    return JSON.stringify(value);
  } catch {
    return value;
  }
}
