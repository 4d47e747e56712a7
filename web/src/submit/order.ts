/** The form's texts as the API's CreateSimulationInput. What is left empty is left out: defaults have one place. */
import { exact, isRaw, numberOf, typedJson } from '../api/json';
import type { Fault } from '../ui/faults';
import { inputsOf } from '../stopping/rules';
import { isNumber, Typed } from '../ui/typed';
import type { CreateSimulationInput } from './documents';
import type { Draft, Kind, Parameter } from './draft.svelte';
import { secondsOf } from './duration';
import { parse } from './argv';

export interface Order {
  /** Without the machine, whose id has to be looked up, and without the client key. */
  input: CreateSimulationInput;
  /** What can't be put into the API's words at all. Everything else is the server's to judge. */
  faults: Fault[];
}

type Json = Record<string, unknown>;

export function orderOf(draft: Draft): Order {
  const typed = new Typed();

  function duration(path: string, text: string): number | undefined {
    if (!text.trim()) return undefined;
    return secondsOf(text) ?? typed.refuse(path, `Expected a duration like 90s, 15m, 1h30m or 2d, got “${text.trim()}”.`);
  }

  /** A duration, a number of seconds, or 0 for none. */
  function interval(path: string, text: string): number | undefined {
    if (!text.trim()) return undefined;
    if (/^\d+(\.\d+)?$/.test(text.trim())) return Number(text);
    return secondsOf(text) ?? typed.refuse(path, `Expected a duration like 10s or 1m, or 0 for none, got “${text.trim()}”.`);
  }

  const words = parse(draft.command);
  if (words.fault) typed.refuse('entrypoint', words.fault);
  else if (!words.argv.length) typed.refuse('entrypoint', 'Enter a command: the program and its arguments.');

  const resources = given({
    cpus: typed.number('resources.cpus', draft.cpus),
    memoryGib: typed.number('resources.memoryGib', draft.memoryGib),
    gpus: typed.whole('resources.gpus', draft.gpus),
    gpuModel: draft.gpuModel.trim() || undefined,
    labels: anyOf(typed.pairs('resources.labels', draft.labels)),
    maxPricePerHour: typed.price('resources.maxPricePerHour', draft.maxPricePerHour),
  });
  const limits = given({
    maxRuntimeSeconds: duration('limits.maxRuntimeSeconds', draft.maxRuntime),
    maxCost: typed.price('limits.maxCost', draft.maxCost),
    maxSteps: typed.step('limits.maxSteps', draft.maxSteps),
    maxRetries: typed.whole('limits.maxRetries', draft.maxRetries),
    retryOn: draft.retryOn.length === 1 && draft.retryOn[0] === 'MACHINE_LOST' ? undefined : draft.retryOn,
  });
  const input = given({
    entrypoint: words.argv,
    name: draft.name.trim() || undefined,
    project: draft.project.trim() || undefined,
    parameters: parametersOf(draft, typed),
    environment: anyOf(typed.pairs('environment', draft.environment, { secret: true })),
    workingDirectory: draft.workingDirectory.trim() || undefined,
    package: (!draft.workingDirectory.trim() && draft.package) || undefined,
    runtimeEnv: draft.runtimeEnv ?? undefined,
    tags: filled(tagsOf(draft)),
    resources: anyOf(resources),
    machines: typed.whole('machines', draft.machines),
    priority: typed.whole('priority', draft.priority),
    after: filled(afterOf(draft, typed)),
    notes: draft.notes.trim() || undefined,
    limits: anyOf(limits),
    metricsFrom: draft.metricsFrom === 'AUTO' ? undefined : draft.metricsFrom,
    metricsPatterns: filled(linesOf(draft.metricsPatterns)),
    tensorboard: filled(linesOf(draft.tensorboard)),
    systemMetricsSeconds: interval('systemMetricsSeconds', draft.systemMetrics),
    objective: objectiveOf(draft),
    stopping: filled(inputsOf(draft.rules, draft.objective, typed)),
    metrics: metricsOf(draft, typed),
    attended: draft.attended || undefined,
    attendedGraceSeconds: draft.attended ? duration('attendedGraceSeconds', draft.attendedGrace) : undefined,
    preemptible: draft.preemptible || undefined,
  });
  return { input: input as CreateSimulationInput, faults: typed.faults };
}

/** What a parameter is read as: with `auto`, JSON where it is JSON, else text, as on the command line. */
export function kindOf({ kind, value }: { kind: Kind; value: string }): Exclude<Kind, 'auto'> {
  if (kind !== 'auto') return kind;
  try {
    const read = exact(value);
    return isRaw(read) ? 'number' : typeof read === 'number' || typeof read === 'boolean' ? (typeof read as 'number' | 'boolean') : 'json';
  } catch {
    return 'text';
  }
}

/** The rows as an object in JSON, to go on with by hand; null where they can't be. */
export function jsonOf(rows: readonly Parameter[]): string | null {
  const typed = new Typed();
  const values = rowsOf(rows, typed);
  return typed.faults.length ? null : JSON.stringify(values, null, 2);
}

/** A JSON object that was typed. Throws an `Error` with a sentence. */
export function objectOf(text: string): Json {
  let value: unknown;
  try {
    value = typedJson(text.trim() || '{}');
  } catch (error) {
    throw new Error(error instanceof RangeError ? error.message : `This is no JSON: ${(error as Error).message}.`);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value) || isRaw(value)) {
    throw new Error('Expected an object: {"name": value, …}.');
  }
  return value as Json;
}

export function tagsOf(draft: Draft): string[] {
  return [...draft.tags, ...draft.tag.split(',')].map((tag) => tag.trim()).filter((tag, index, all) => tag && all.indexOf(tag) === index);
}

/** What it runs after: ids, or addresses of pages, divided by blanks or commas. */
export function afterOf(draft: Draft, typed: Typed): { simulation: string; condition?: 'FAILURE' | 'ANY' }[] {
  const found = draft.after.split(/[\s,]+/).filter(Boolean);
  return found.flatMap((text) => {
    const [, id, word = 'success'] = /^(?:\S*\/simulations\/)?([\w%=+-]+?)(?::(\w+))?$/.exec(text) ?? [];
    const condition = word.toUpperCase();
    if (!id || !['SUCCESS', 'FAILURE', 'ANY'].includes(condition)) {
      typed.refuse('after', `Expected an id, or ID:any or ID:failure, got “${text}”.`);
      return [];
    }
    const simulation = id.replaceAll(/%3D/gi, '=');
    return [condition === 'SUCCESS' ? { simulation } : { simulation, condition: condition as 'FAILURE' | 'ANY' }];
  });
}

/** One pattern or directory per line; blanks within belong to it, also at its ends. */
export function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line.trim());
}

function parametersOf(draft: Draft, typed: Typed): Json | undefined {
  if (draft.parametersAs === 'rows') return anyOf(rowsOf(draft.parameters, typed));
  try {
    return anyOf(objectOf(draft.parametersJson));
  } catch (error) {
    return typed.refuse('parameters', (error as Error).message);
  }
}

function rowsOf(rows: readonly Parameter[], typed: Typed): Json {
  const values = new Map<string, unknown>();
  for (const row of rows) {
    const key = row.key.trim();
    if (!key && !row.value.trim()) continue;
    if (!typed.name('parameters', key, `“${row.value}”`, values)) continue;
    values.set(key, null); // its name is taken, whatever becomes of its value
    try {
      values.set(key, valueOf(row));
    } catch (error) {
      typed.refuse(`parameters.${key}`, (error as Error).message);
    }
  }
  return Object.fromEntries(values);
}

function valueOf(row: Parameter): unknown {
  const kind = kindOf(row);
  const typed = row.value.trim();
  if (kind === 'text') return row.value;
  if (kind === 'number') {
    if (!isNumber(typed)) throw new Error(`Expected a number, got “${typed}”.`);
    return numberOf(typed);
  }
  if (kind === 'boolean') {
    if (typed !== 'true' && typed !== 'false') throw new Error(`Expected true or false, got “${typed}”.`);
    return typed === 'true';
  }
  try {
    return typedJson(typed);
  } catch (error) {
    throw new Error(error instanceof RangeError ? error.message : `This is no JSON: ${(error as Error).message}.`);
  }
}

function objectiveOf({ objective: { metric, mode } }: Draft): { metric: string; mode?: 'MIN' | 'MAX' } | undefined {
  if (!metric.trim()) return undefined;
  return mode ? { metric: metric.trim(), mode } : { metric: metric.trim() };
}

function metricsOf(draft: Draft, typed: Typed): { name: string; mode: 'MIN' | 'MAX' }[] | undefined {
  const metrics = draft.metrics.filter(({ name }) => name.trim()).map(({ name, mode }) => ({ name: name.trim(), mode }));
  const twice = metrics.find(({ name }, index) => metrics.findIndex((other) => other.name === name) < index);
  if (twice) typed.refuse('metrics', `${twice.name} is given twice.`);
  return filled(metrics);
}

function given<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}

function anyOf<T extends object>(values: T): T | undefined {
  return Object.keys(values).length ? values : undefined;
}

function filled<T>(values: T[]): T[] | undefined {
  return values.length ? values : undefined;
}
