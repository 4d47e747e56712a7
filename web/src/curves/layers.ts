/** What is drawn on the canvas: behind the lines, the lines, and the marks over the ground. */
import type uPlot from 'uplot';

import type { Scene } from './options';
import { lowerBound } from './series';
import { Shape } from './shape';
import type { Curve, Trace } from './trace';
import type { Range } from './view';

const FAINT = 0.35;
const BESIDE = 0.3; // of all curves beside one that stands out
const DENSE = 1.5; // points to a pixel column, from which on a line is drawn as the area that it covers
const DOTS_UP_TO = 80; // points in sight: more of them are a line anyway

/** The path of a trace's corners, with dots where few points are in sight. */
export function linePath(u: uPlot, number: number, trace: Trace, kind: 'raw' | 'smooth', [min, max]: Range, many = false): uPlot.Series.Paths {
  const { xs, ys } = trace[kind];
  const path = new Path2D();
  if (kind === 'smooth' ? !trace.smoothed : many && trace.smoothed) return { stroke: path };
  const perX = u.bbox.width / (max - min);
  const dotted = xs.length <= DOTS_UP_TO && !trace.smoothed && !many;
  const radius = 1.25 * devicePixelRatio;
  // Between two attempts there is time and money, but no line.
  const { beginnings } = trace.curve.series.points;
  const breaks = trace.x.kind === 'step' ? [] : beginnings.slice(1).map((each) => trace.x.xs[each.index]!);
  const shape = xs.length > DENSE * u.bbox.width ? new Shape((u.series[number]!.width ?? 1) * devicePixelRatio) : null;
  let open = false;
  for (let index = 0; index < xs.length; index++) {
    const value = ys[index]!;
    while (breaks.length && breaks[0]! <= xs[index]!) {
      if (index && breaks[0]! > xs[index - 1]!) open = false;
      breaks.shift();
    }
    if (Number.isNaN(value)) {
      open = false;
      continue;
    }
    const x = u.bbox.left + (xs[index]! - min) * perX;
    const y = u.valToPos(value, trace.curve.scale, true);
    const begins = !open;
    open = true;
    if (shape) {
      if (begins) shape.interrupt();
      shape.add(x, y);
      continue;
    }
    if (begins) path.moveTo(x, y);
    else path.lineTo(x, y);
    const alone = begins && (index + 1 === xs.length || Number.isNaN(ys[index + 1]!));
    if (!dotted && !alone) continue;
    path.moveTo(x + radius, y);
    path.arc(x, y, radius, 0, 2 * Math.PI);
    path.moveTo(x, y);
  }
  shape?.interrupt();
  return shape ? { stroke: shape.stroke, fill: shape.fill } : { stroke: path };
}

/** How much a line covers: beside one that stands out, little. */
export function alphaOf({ highlighted, settings }: Scene, { curve, smoothed }: Trace, kind: 'raw' | 'smooth'): number {
  if (highlighted !== null && highlighted !== curve.key) return BESIDE;
  return kind === 'raw' && smoothed && !settings.many ? FAINT : 1;
}

/** Behind the lines: stretches that are not finite, attempts, and the forecast. */
export function drawGround(u: uPlot, scene: Scene): void {
  const { traces, settings, palette } = scene;
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  const begins = settings.attempts ? attemptsOf(traces, true) : [];
  ctx.fillStyle = palette.token('raised');
  for (const [number, { attempt, x }] of begins.entries()) {
    if (attempt % 2) continue;
    const from = u.valToPos(x, 'x', true);
    const next = begins[number + 1];
    const to = next ? u.valToPos(next.x, 'x', true) : bbox.left + bbox.width;
    ctx.fillRect(from, bbox.top, to - from, bbox.height);
  }
  const strip = 4 * devicePixelRatio; // for each curve its own, upon the x axis
  let bottom = bbox.top + bbox.height;
  for (const { curve, raw } of traces) {
    if (!raw.gaps.length) continue;
    bottom -= strip;
    if (settings.many) continue; // for so many there is no room: the page names them
    for (const [from, to] of raw.gaps) {
      const left = u.valToPos(from, 'x', true);
      const width = Math.max(2 * devicePixelRatio, u.valToPos(to, 'x', true) - left);
      if (settings.attempts && palette.hatching) {
        ctx.fillStyle = palette.hatching;
        ctx.fillRect(left, bbox.top, width, bbox.height);
      }
      ctx.fillStyle = palette.of(curve);
      ctx.fillRect(left, bottom, width, strip - devicePixelRatio);
    }
  }
  for (const trace of traces) drawSpread(u, scene, trace);
  drawBand(u, scene);
  ctx.restore();
}

/** How far the curves of a group spread about their mean. */
function drawSpread(u: uPlot, { palette, settings, highlighted }: Scene, { curve, x: { xs, length } }: Trace): void {
  const { spread } = curve;
  if (!spread) return;
  const { ctx, bbox } = u;
  const bottom = bbox.top + bbox.height;
  const y = (value: number): number => (settings.log && value <= 0 ? bottom : u.valToPos(value, curve.scale, true));
  ctx.globalAlpha = highlighted === null ? 0.18 : highlighted === curve.key ? 0.32 : 0.06;
  ctx.fillStyle = palette.of(curve);
  for (let begin = 0; begin < length; ) {
    if (!Number.isFinite(spread.lows[begin]!)) {
      begin++;
      continue;
    }
    let end = begin;
    while (end < length && Number.isFinite(spread.lows[end]!)) end++;
    ctx.beginPath();
    for (let at = begin; at < end; at++) ctx.lineTo(u.valToPos(xs[at]!, 'x', true), y(spread.highs[at]!));
    for (let at = end - 1; at >= begin; at--) ctx.lineTo(u.valToPos(xs[at]!, 'x', true), y(spread.lows[at]!));
    ctx.fill();
    begin = end;
  }
  ctx.globalAlpha = 1;
}

/** The forecast: what the interval covers, and its middle as a dashed line. */
function drawBand(u: uPlot, { traces, settings, palette, outlook: { band } }: Scene): void {
  const curve = traces.find((trace) => trace.curve.key === band?.curve)?.curve;
  if (!band || !curve) return;
  const { ctx, bbox } = u;
  const bottom = bbox.top + bbox.height;
  const x = (at: number): number => u.valToPos(band.steps[at]!, 'x', true);
  const y = (value: number): number => (settings.log && value <= 0 ? bottom : u.valToPos(value, curve.scale, true));
  ctx.beginPath();
  for (const at of band.steps.keys()) ctx.lineTo(x(at), y(band.highs[at]!));
  for (const at of [...band.steps.keys()].reverse()) ctx.lineTo(x(at), y(band.lows[at]!));
  ctx.closePath();
  ctx.globalAlpha = 0.16;
  ctx.fillStyle = palette.of(curve);
  ctx.fill();
  ctx.globalAlpha = 1;
  ctx.beginPath();
  for (const at of band.steps.keys()) ctx.lineTo(x(at), y(band.values[at]!));
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.strokeStyle = palette.of(curve);
  ctx.stroke();
  ctx.setLineDash([]);
}

/** Where attempts begin, where stop rules decided, and the best values. */
export function drawMarks(u: uPlot, scene: Scene): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left - 6 * ratio, 0, bbox.width + 12 * ratio, bbox.top + bbox.height + 6 * ratio); // rings, whole ones
  ctx.clip();
  if (!scene.settings.many) {
    drawAttempts(u, scene);
    drawDecisions(u, scene);
    drawBest(u, scene);
  }
  drawHighlighted(u, scene);
  ctx.restore();
}

/** The curve that stands out, once more: above all others, and thick. */
function drawHighlighted(u: uPlot, { traces, palette, highlighted, settings, range }: Scene): void {
  const at = traces.findIndex(({ curve }) => curve.key === highlighted);
  const trace = traces[at];
  if (!trace) return;
  const { ctx, bbox } = u;
  const number = u.series.length - 2 * at - (trace.smoothed ? 1 : 2); // from below: the first trace has the last series
  const { stroke, fill } = linePath(u, number, trace, trace.smoothed ? 'smooth' : 'raw', range(), settings.many);
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineJoin = 'round';
  for (const [width, colour] of [[6, palette.token('panel')], [3, palette.of(trace.curve)]] as const) {
    ctx.lineWidth = width * devicePixelRatio;
    ctx.strokeStyle = ctx.fillStyle = colour;
    if (fill) ctx.fill(fill as Path2D);
    ctx.stroke(stroke as Path2D);
  }
}

/** Where an upright line at x is sharp; null: x is not in sight. A run that was stopped has its mark at the very end. */
export function columnOf({ bbox, valToPos }: Pick<uPlot, 'bbox' | 'valToPos'>, x: number): number | null {
  const left = Math.round(valToPos(x, 'x', true));
  return left < Math.floor(bbox.left) || left > Math.ceil(bbox.left + bbox.width) ? null : left + 0.5;
}

function drawAttempts(u: uPlot, { traces, settings, palette }: Scene): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  ctx.lineWidth = ratio;
  ctx.font = `${11 * ratio}px ${palette.token('font')}`;
  ctx.textBaseline = 'bottom';
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  for (const { attempt, x, curve } of attemptsOf(traces, settings.attempts)) {
    const left = columnOf(u, x);
    if (left === null) continue;
    ctx.strokeStyle = settings.attempts ? palette.token('line-strong') : palette.of(curve);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    if (!settings.attempts) continue;
    ctx.fillStyle = palette.token('soft');
    const right = left + 70 * ratio > bbox.left + bbox.width;
    ctx.textAlign = right ? 'right' : 'left';
    ctx.fillText(`attempt ${attempt}`, left, bbox.top - 2 * ratio);
  }
  ctx.setLineDash([]);
}

/** A line through the point that decided, with a word; of a dry run a dashed one. */
function drawDecisions(u: uPlot, { traces, settings, palette, outlook: { marks } }: Scene): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  ctx.font = `600 ${11 * ratio}px ${palette.token('font')}`;
  ctx.textBaseline = 'top';
  for (const [number, { curve: key, step, word, dry }] of marks.entries()) {
    const trace = traces.find(({ curve }) => curve.key === key)!;
    const { points } = trace.curve.series;
    const index = lowerBound(points.steps, points.length, step);
    if (index >= trace.x.length) continue;
    const left = columnOf(u, trace.x.xs[index]!);
    if (left === null) continue;
    const colour = palette.token(dry ? 'soft' : 'text');
    ctx.strokeStyle = colour;
    ctx.fillStyle = colour;
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash(dry ? [2 * ratio, 3 * ratio] : []);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    ctx.setLineDash([]);
    const value = points.values[index]!;
    if (Number.isFinite(value) && !(settings.log && value <= 0)) {
      const y = u.valToPos(value, trace.curve.scale, true);
      ctx.fillRect(left - 4 * ratio, y - 4 * ratio, 8 * ratio, 8 * ratio);
    }
    // On the side with more room; marks at one place are written below each other.
    const before = left > bbox.left + bbox.width / 2;
    ctx.textAlign = before ? 'right' : 'left';
    ctx.lineWidth = 3 * ratio;
    ctx.strokeStyle = palette.token('panel');
    const [x, y] = [left + (before ? -6 : 6) * ratio, bbox.top + (6 + 15 * number) * ratio];
    ctx.strokeText(word, x, y);
    ctx.fillText(word, x, y);
  }
}

function drawBest(u: uPlot, { traces, settings, palette }: Scene): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  for (const { curve, x } of traces) {
    const { points } = curve.series;
    const best = points.best(curve.mode);
    const y = points.values[best];
    if (best < 0 || best >= x.length || y === undefined || (settings.log && y <= 0)) continue;
    const left = u.valToPos(x.xs[best]!, 'x', true);
    if (left < bbox.left - 1 || left > bbox.left + bbox.width + 1) continue;
    ctx.beginPath();
    ctx.arc(left, u.valToPos(y, curve.scale, true), 4.5 * ratio, 0, 2 * Math.PI);
    ctx.fillStyle = palette.token('panel');
    ctx.fill();
    // A rim in the ground's colour first: the ring stands out from a dense curve of its own colour.
    for (const [width, colour] of [[5, palette.token('panel')], [2, palette.of(curve)]] as const) {
      ctx.lineWidth = width * ratio;
      ctx.strokeStyle = colour;
      ctx.stroke();
    }
  }
}

/** Where each attempt but the first one begins, by its first point; together: the curves are of one simulation. */
export function attemptsOf(traces: readonly Trace[], together: boolean): { attempt: number; x: number; curve: Curve }[] {
  const found = new Map<string, { attempt: number; x: number; curve: Curve }>();
  for (const { curve, x: column } of traces) {
    for (const { attempt, index } of curve.series.points.beginnings) {
      if (attempt === 1 || index >= column.length) continue;
      const key = together ? String(attempt) : `${curve.key} ${attempt}`;
      const x = column.xs[index]!;
      const old = found.get(key);
      if (!old || x < old.x) found.set(key, { attempt, x, curve });
    }
  }
  return [...found.values()].sort((one, other) => one.x - other.x);
}
