/** System metrics, which the supervisor measures: their names in words, their axes, and which are drawn at first. */

export const PREFIX = 'system/';

/** Metrics of one unit share a y axis. */
const UNITS: readonly (readonly [RegExp, string])[] = [
  [/^cpu$/, 'cpus'],
  [/_percent$|\.utilization$/, '%'],
  [/^memory$|\.memory$/, 'GiB'],
  [/^(disk|network)_/, 'MiB/s'],
  [/\.power$/, 'W'],
  [/\.temperature$/, '°C'],
];
const DRAWN_AT_FIRST = 4;

export interface SystemMetric {
  name: string;
  /** `gpu.0.memory` as "gpu 0 memory, GiB". */
  label: string;
  unit: string;
}

/** In the order in which they are drawn: GPUs, if there are any, then cpu, memory, and the rest by name. */
export function systemMetricsOf(names: readonly string[]): SystemMetric[] {
  return names
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => {
      const short = name.slice(PREFIX.length);
      const unit = UNITS.find(([form]) => form.test(short))?.[1] ?? '';
      const words = short.replace(/_percent$/, ' of all').replaceAll(/[._]/g, ' ');
      return { name, label: unit ? `${words}, ${unit}` : words, unit };
    })
    .sort((one, other) => rankOf(one.name) - rankOf(other.name) || one.name.localeCompare(other.name, 'en', { numeric: true }));
}

/** Whether a metric is drawn before anything was chosen; at: its place in the order. */
export function isDrawn({ name }: SystemMetric, at: number): boolean {
  return at < DRAWN_AT_FIRST && rankOf(name) < 3;
}

function rankOf(name: string): number {
  if (name.endsWith('.utilization')) return 0;
  return name === `${PREFIX}cpu` ? 1 : name === `${PREFIX}memory` ? 2 : 3;
}
