/**
 * How long a chart takes to redraw when points come, for benchmarks/chart.py: the page's chart, with all that stands
 * round it, and uPlot alone with the same points, in turns. Reading a pixel back makes the browser finish drawing.
 */
import '../src/app.css';

import { flushSync, mount, unmount } from 'svelte';
import uPlot from 'uplot';

import Chart from '../src/curves/Chart.svelte';
import { LiveSeries } from '../src/curves/live.svelte';
import { Series } from '../src/curves/series';
import type { Curve, Settings } from '../src/curves/trace';

interface Asked {
  points: number;
  metrics: number;
  smoothing: number;
  /** How often each is redrawn. */
  frames: number;
  /** New points a frame. */
  fresh: number;
}

/** Milliseconds of each redraw. */
interface Measured {
  chart: number[];
  floor: number[];
}

const WIDTH = 1_200;
const HEIGHT = 400;
const UNCOUNTED = 5; // until the code is warm

function valueAt(step: number, metric: number): number {
  return (metric + 1) * (2.3 * Math.exp(-step / 40_000) + 0.05 * Math.sin(step * 1.7 + metric) + 0.04 * Math.sin(step * 0.37));
}

const frame = (): Promise<void> => new Promise((resolve) => requestAnimationFrame(() => resolve()));

function finish(host: HTMLElement): void {
  host.querySelector('canvas')!.getContext('2d')!.getImageData(0, 0, 1, 1);
}

async function measure({ points, metrics, smoothing, frames, fresh }: Asked): Promise<Measured> {
  const hosts = { chart: document.getElementById('chart')!, floor: document.getElementById('floor')! };
  hosts.chart.style.width = `${WIDTH}px`;
  const series = Array.from({ length: metrics }, (_, metric) => new Series(`metric ${metric}`));
  const xs: number[] = [];
  const columns: number[][] = series.map(() => []);

  function grow(count: number): void {
    const begin = xs.length;
    const steps = Array.from({ length: count }, (_, at) => begin + at);
    xs.push(...steps);
    for (const [metric, each] of series.entries()) {
      const values = steps.map((step) => valueAt(step, metric));
      each.append(1, { metric: each.metric, steps, values, elapsed: steps, supersedesFrom: null });
      columns[metric]!.push(...values);
    }
  }
  while (xs.length < points) grow(Math.min(10_000, points - xs.length));

  const settings: Settings = { x: 'step', log: false, smoothing, currency: 'USD', attempts: true };
  let version = $state(0);
  const curves = series.map((each, colour): Curve => ({
    key: each.metric, label: each.metric, scale: each.metric, colour, mode: 'MIN', series: new LiveSeries(each, () => version), spans: [],
  }));
  const props = { curves, settings, kinds: { step: 'Step' }, label: 'Benchmark', change: () => {} };
  const chart = mount(Chart, { target: hosts.chart, props });
  const scales = Object.fromEntries(series.map(({ metric }) => [metric, {}]));
  const lines = series.map(({ metric }): uPlot.Series => ({ scale: metric, stroke: 'steelblue', width: 1.5, points: { show: false } }));
  const axes = [{}, ...series.slice(0, 2).map(({ metric }) => ({ scale: metric }))];
  const options: uPlot.Options = { width: WIDTH, height: HEIGHT, scales: { x: { time: false }, ...scales }, axes, series: [{}, ...lines], legend: { show: false } };
  const floor = new uPlot(options, [xs, ...columns], hosts.floor);
  await frame();
  await frame();

  const found: Measured = { chart: [], floor: [] };
  for (let turn = -UNCOUNTED; turn < frames; turn++) {
    grow(fresh);
    await frame();
    let begun = performance.now();
    version++;
    flushSync();
    finish(hosts.chart);
    if (turn >= 0) found.chart.push(performance.now() - begun);
    await frame();
    begun = performance.now();
    floor.batch(() => floor.setData([xs, ...columns]));
    finish(hosts.floor);
    if (turn >= 0) found.floor.push(performance.now() - begun);
  }
  floor.destroy();
  await unmount(chart);
  return found;
}

/** What a chart of many runs is redrawn for; `floor`: uPlot alone, with as many new points. */
type Kind = 'grown' | 'highlighted' | 'zoomed' | 'floor';

/** Milliseconds of each of so many redraws. */
let redraw: (kind: Kind, frames: number) => Promise<number[]> = async () => [];

/** Open the chart of many runs, each with points as the service thins them, and uPlot alone with the same points. */
async function openMany({ runs, points }: { runs: number; points: number }): Promise<void> {
  const hosts = { chart: document.getElementById('chart')!, floor: document.getElementById('floor')! };
  hosts.chart.style.width = `${WIDTH}px`;
  const series = Array.from({ length: runs }, () => new Series('loss'));
  const valueOf = (step: number, run: number): number => valueAt(step * 10, 0) * (1 + run / 50);
  const grow = (steps: number[]): void => {
    for (const [run, each] of series.entries()) each.append(1, { metric: 'loss', steps, values: steps.map((step) => valueOf(step, run)), elapsed: steps, supersedesFrom: null });
  };
  const begun = Array.from({ length: points }, (_, at) => at * 17);
  grow(begun);
  let version = $state(0);
  let highlighted = $state<string | null>(null);
  const settings: Settings = { x: 'step', log: false, smoothing: 0, currency: 'USD', attempts: false, many: true };
  const curves = series.map((each, run): Curve => ({
    key: `run ${run}`, label: `run ${run}`, scale: 'y', colour: 0, shade: run / runs, mode: 'MIN', series: new LiveSeries(each, () => version), spans: [],
  }));
  const props = {
    curves, settings, kinds: { step: 'Step' }, label: 'Benchmark', change: () => {},
    get highlighted() { return highlighted; },
  };
  mount(Chart, { target: hosts.chart, props });
  const xs = [...begun];
  const columns = series.map((_, run) => begun.map((step) => valueOf(step, run)));
  const lines = series.map((): uPlot.Series => ({ scale: 'y', stroke: 'steelblue', width: 1.5, points: { show: false } }));
  const options: uPlot.Options = { width: WIDTH, height: HEIGHT, scales: { x: { time: false }, y: {} }, axes: [{}, { scale: 'y' }], series: [{}, ...lines], legend: { show: false } };
  const floor = new uPlot(options, [xs, ...columns], hosts.floor);
  const reader = hosts.chart.querySelector<HTMLElement>('.reader')!;
  await frame();
  await frame();

  let turn = 0;
  const acts: Record<Kind, () => void> = {
    grown: () => {
      grow([(points + turn) * 17]);
      version++;
      flushSync();
    },
    highlighted: () => {
      highlighted = `run ${turn % runs}`;
      flushSync();
    },
    // A zoom is drawn with the next frame: that is waited for within what is measured, so it is redrawn here by hand.
    zoomed: () => {
      version++;
      flushSync();
    },
    floor: () => {
      const step = (points + turn) * 17;
      xs.push(step);
      for (const [run, column] of columns.entries()) column.push(valueOf(step, run));
      floor.batch(() => floor.setData([xs, ...columns]));
    },
  };
  redraw = async (kind, frames) => {
    const found: number[] = [];
    for (const end = turn + frames; turn < end; turn++) {
      if (kind === 'zoomed') reader.dispatchEvent(new KeyboardEvent('keydown', { key: turn % 2 ? '+' : '0', bubbles: true }));
      await frame();
      const began = performance.now();
      acts[kind]();
      await null; // uPlot draws what was asked for in a microtask
      finish(kind === 'floor' ? hosts.floor : hosts.chart);
      found.push(performance.now() - began);
    }
    return found;
  };
  for (const kind of Object.keys(acts) as Kind[]) await redraw(kind, UNCOUNTED);
}

Object.assign(window, { measure, openMany, redrawMany: ({ kind, frames }: { kind: Kind; frames: number }) => redraw(kind, frames) });
