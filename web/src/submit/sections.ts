/** What the form asks for, by the API's paths: what each is called, and under which heading it is folded away. */
import { countOf } from '../ui/format';
import type { Draft, Source } from './draft.svelte';
import { linesOf, tagsOf } from './order';

export const FIELDS = {
  entrypoint: 'Command',
  name: 'Name',
  'resources.cpus': 'CPUs',
  'resources.memoryGib': 'Memory',
  'resources.gpus': 'GPUs',
  parameters: 'Parameters',
  environment: 'Environment',
  workingDirectory: 'Working directory',
  package: 'Code',
  runtimeEnv: 'Runtime environment',
  project: 'Project',
  tags: 'Tags',
  priority: 'Priority',
  after: 'Run after',
  notes: 'Notes',
  machines: 'Machines',
  'resources.gpuModel': 'GPU model',
  'resources.labels': 'Labels',
  'resources.machine': 'Machine',
  'resources.maxPricePerHour': 'Maximum price per hour',
  'limits.maxRuntimeSeconds': 'Maximum runtime',
  'limits.maxCost': 'Maximum cost',
  'limits.maxSteps': 'Planned steps',
  'limits.maxRetries': 'Retries',
  'limits.retryOn': 'Retry after',
  metricsFrom: 'Read points from',
  metricsPatterns: 'Patterns',
  tensorboard: 'TensorBoard directories',
  systemMetricsSeconds: 'System metrics',
  objective: 'Objective',
  stopping: 'Stop rules',
  metrics: 'Metrics',
  attended: 'Attended',
  attendedGraceSeconds: 'Grace',
  preemptible: 'Preemptible',
} as const;

export type Path = keyof typeof FIELDS;

export interface Section {
  key: string;
  title: string;
  paths: readonly Path[];
  /** What stands in it, in a few words; empty: nothing. */
  says: (draft: Draft) => string;
}

/** Which lines of the output are points; the default goes without saying. */
export const SOURCES: Record<Source, { name: string; says: string }> = {
  AUTO: { name: 'JSON lines, known forms of text, and trackers', says: '' },
  JSON: { name: 'JSON lines and trackers', says: 'JSON lines' },
  NONE: { name: 'nothing but the patterns', says: 'no lines by themselves' },
};

export const SECTIONS: readonly Section[] = [
  { key: 'parameters', title: 'Parameters', paths: ['parameters'], says: saysParameters },
  {
    key: 'environment',
    title: 'Environment and working directory',
    paths: ['environment', 'workingDirectory', 'package', 'runtimeEnv'],
    says: (draft) => list([counted(draft.environment.length, 'variable'), draft.workingDirectory.trim() || (draft.package?.name ?? '')]),
  },
  {
    key: 'place',
    title: 'Project, tags and priority',
    paths: ['project', 'tags', 'priority', 'preemptible'],
    says: (draft) =>
      list([draft.project.trim(), ...tagsOf(draft), draft.priority.trim() && `priority ${draft.priority.trim()}`, draft.preemptible && 'preemptible']),
  },
  {
    key: 'after',
    title: 'Run after, notes',
    paths: ['after', 'notes'],
    says: (draft) => list([counted(draft.after.split(/[\s,]+/).filter(Boolean).length, 'simulation'), draft.notes.trim() && 'notes']),
  },
  {
    key: 'machine',
    title: 'Which machine',
    paths: ['machines', 'resources.gpuModel', 'resources.labels', 'resources.machine', 'resources.maxPricePerHour'],
    says: (draft) =>
      list([
        draft.machines.trim() && `${draft.machines.trim()} at once`,
        draft.gpuModel.trim(),
        counted(draft.labels.length, 'label'),
        draft.machine.trim(),
        draft.maxPricePerHour.trim() && `at most ${draft.maxPricePerHour.trim()} per hour`,
      ]),
  },
  {
    key: 'limits',
    title: 'Limits and retries',
    paths: ['limits.maxRuntimeSeconds', 'limits.maxCost', 'limits.maxSteps', 'limits.maxRetries', 'limits.retryOn'],
    says: (draft) =>
      list([
        draft.maxRuntime.trim(),
        draft.maxCost.trim() && `at most ${draft.maxCost.trim()}`,
        draft.maxSteps.trim() && `${draft.maxSteps.trim()} ${draft.maxSteps.trim() === '1' ? 'step' : 'steps'}`,
        draft.maxRetries.trim() && `${draft.maxRetries.trim()} ${draft.maxRetries.trim() === '1' ? 'retry' : 'retries'}`,
        draft.retryOn.length > 1 && 'more to retry after',
      ]),
  },
  {
    key: 'stopping',
    title: 'Objective and stop rules',
    paths: ['objective', 'stopping'],
    says: (draft) => list([draft.objective.metric.trim(), counted(draft.rules.length, 'stop rule')]),
  },
  {
    key: 'points',
    title: 'Points and trackers',
    paths: ['metricsFrom', 'metricsPatterns', 'tensorboard', 'systemMetricsSeconds'],
    says: (draft) =>
      list([
        SOURCES[draft.metricsFrom].says,
        counted(linesOf(draft.metricsPatterns).length, 'pattern'),
        linesOf(draft.tensorboard).length > 0 && `TensorBoard in ${linesOf(draft.tensorboard).join(', ')}`,
        Boolean(draft.systemMetrics.trim()) && `system metrics ${Number(draft.systemMetrics) === 0 ? 'off' : `every ${draft.systemMetrics.trim()}`}`,
      ]),
  },
  {
    key: 'curve',
    title: 'Metrics and watching',
    paths: ['metrics', 'attended', 'attendedGraceSeconds'],
    says: (draft) => list([counted(draft.metrics.length, 'metric'), draft.attended && 'attended']),
  },
];

/** Those of a sweep's trials: parameters and objective are the sweep's, and none runs after another or is attended. */
export const ofTrials: readonly Section[] = SECTIONS.flatMap((section) => {
  if (section.key === 'parameters' || section.key === 'curve') return [];
  if (section.key === 'after') return { ...section, title: 'Notes', paths: ['notes'], says: (draft) => (draft.notes.trim() ? 'notes' : '') };
  if (section.key === 'limits') return { ...section, says: (draft) => section.says({ ...draft, maxSteps: '' }) };
  if (section.key === 'stopping') return { ...section, title: 'Stop rules', paths: ['stopping'], says: (draft) => counted(draft.rules.length, 'stop rule') };
  return section;
});

/** The heading that a field is folded away under; undefined: it is always there. */
export function sectionOf(path: string): string | undefined {
  return SECTIONS.find(({ paths }) => paths.some((each) => path === each || path.startsWith(`${each}.`)))?.key;
}

function saysParameters(draft: Draft): string {
  if (draft.parametersAs === 'rows') return counted(draft.parameters.length, 'parameter');
  return /^\s*(\{\s*\})?\s*$/.test(draft.parametersJson) ? '' : 'JSON';
}

function counted(count: number, what: string): string {
  return count ? `${countOf(count)} ${what}${count === 1 ? '' : 's'}` : '';
}

function list(parts: readonly (string | false)[]): string {
  return parts.filter(Boolean).join(' · ');
}
