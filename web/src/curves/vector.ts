/**
 * A chart as an SVG file: axes, curves, forecast and marks as they are in sight, as lines and text and not as pixels.
 * uPlot draws on a canvas only; its scales and the numbers at its axes are read, and layers.ts' marks written again.
 */
import type uPlot from 'uplot';

import { toasts } from '../ui/toasts.svelte';
import { fileNameOf } from './csv';
import { attemptsOf } from './layers';
import { fromBelow, type Scene } from './options';
import { MARGIN, NAME, rowsOf, saveAs, TITLE } from './picture';
import { dashOf, type Paint } from './ramp';
import { lowerBound } from './series';
import type { Curve, Trace } from './trace';
import type { XColumn } from './xAxis';

const SPREAD = 0.18;
const FAINT = 0.35; // of a curve under its smoothed one
const TICK = 12;
const BEST = 4.5;

/** What uPlot keeps of an axis that it has drawn. */
type Axis = uPlot.Axis & { _splits?: readonly number[] | null; _values?: readonly (string | number | null)[] | null; _pos?: number; _lpos?: number };

export interface Drawn {
  uplot: uPlot;
  scene: Scene;
}

export function saveVector(drawn: Drawn, title: string): void {
  try {
    saveAs(new Blob([svgOf(drawn, title)], { type: 'image/svg+xml' }), fileNameOf(title, 'svg'));
  } catch (problem) {
    toasts.complain(problem);
  }
}

export function svgOf({ uplot, scene }: Drawn, title: string): string {
  const { palette, traces, settings, outlook } = scene;
  const ratio = devicePixelRatio;
  const top = MARGIN + TITLE * 1.8;
  const box = { left: MARGIN + uplot.bbox.left / ratio, top: top + uplot.bbox.top / ratio, width: uplot.bbox.width / ratio, height: uplot.bbox.height / ratio };
  const [right, bottom] = [box.left + box.width, box.top + box.height];
  const width = uplot.width + 2 * MARGIN;
  const x = (value: number): number => box.left + uplot.valToPos(value, 'x');
  const y = (value: number, scale: string): number => (settings.log && value <= 0 ? bottom : box.top + uplot.valToPos(value, scale));
  const text = (words: string, at: number, of: number, attributes = ''): string => `<text x="${round(at)}" y="${round(of)}" ${attributes}>${escaped(words)}</text>`;
  const upright = (at: number, attributes: string): string => `<path d="M${round(at)} ${round(box.top)}V${round(bottom)}" ${attributes}/>`;

  const axes = (uplot.axes as Axis[]).flatMap((axis, number) => {
    if (!axis.show || !axis._splits || !axis._values) return [];
    const colour = attribute(typeof axis.stroke === 'function' ? String(axis.stroke(uplot, number)) : palette.token('soft'));
    const isRight = axis.side === 1;
    const along = MARGIN + (axis._lpos ?? 0) + (isRight ? 2 : -2);
    const name = typeof axis.label === 'string' ? [text(axis.label, 0, 0, `fill="${colour}" text-anchor="middle" transform="translate(${round(along)} ${round((box.top + bottom) / 2)}) rotate(${isRight ? 90 : -90})"`)] : [];
    return [...name, ...axis._splits.flatMap((split, at) => {
      const words = axis._values![at];
      const place = number ? y(split, axis.scale!) : x(split);
      if (number ? place < box.top - 1 || place > bottom + 1 : place < box.left - 1 || place > right + 1) return [];
      const line = number ? `M${round(box.left)} ${round(place)}H${round(right)}` : `M${round(place)} ${round(box.top)}V${round(bottom)}`;
      const grid = axis.grid?.show === false ? '' : `<path d="${line}" stroke="${attribute(palette.token('line'))}" fill="none"/>`;
      if (words === null || words === undefined || words === '') return [grid];
      if (!number) return [grid, ...String(words).split('\n').map((each, row) => text(each, place, bottom + 8 + TICK * (0.8 + row * 1.3), `fill="${colour}" text-anchor="middle"`))];
      const beside = MARGIN + (axis._pos ?? 0) + (isRight ? 8 : -8);
      return [grid, text(String(words), beside, place + TICK / 3, `fill="${colour}"${isRight ? '' : ' text-anchor="end"'}`)];
    })];
  });

  const band = outlook.band;
  const foreseen = traces.find(({ curve }) => curve.key === band?.curve)?.curve;
  const forecast: string[] = [];
  if (band && foreseen) {
    const along = (column: readonly number[]): string[] => band.steps.map((step, at) => `${round(x(step))} ${round(y(column[at]!, foreseen.scale))}`);
    const colour = attribute(palette.colour(foreseen.colour));
    forecast.push(
      `<path d="M${[...along(band.highs), ...along(band.lows).reverse()].join('L')}Z" fill="${colour}" fill-opacity="0.16"/>`,
      `<path d="M${along(band.values).join('L')}" fill="none" stroke="${colour}" stroke-width="1.5" stroke-dasharray="5 4"/>`,
    );
  }

  const spreads = fromBelow(traces).flatMap(([, { curve, x: column }]) =>
    spreadOf(curve, column, x, (value) => y(value, curve.scale)).map((path) => `<path d="${path}" fill="${attribute(palette.of(curve))}" fill-opacity="${SPREAD}"/>`),
  );
  const curves = fromBelow(traces).flatMap(([, trace]) => {
    const colour = attribute(palette.of(trace.curve));
    return (trace.smoothed ? (['raw', 'smooth'] as const) : (['raw'] as const)).map((kind) => {
      const faint = kind === 'raw' && trace.smoothed ? ` stroke-opacity="${FAINT}"` : '';
      return `<path d="${pathOf(trace, kind, x, (value) => y(value, trace.curve.scale))}" fill="none" stroke="${colour}" stroke-width="${kind === 'raw' ? 1.5 : 2}" stroke-linejoin="round" stroke-linecap="round"${dashed(trace.curve)}${faint}/>`;
    });
  });

  const marked = settings.many ? [] : traces; // as on the page: of so many, no single one is marked
  const attempts = attemptsOf(marked, settings.attempts).flatMap(({ attempt, x: at, curve }) => {
    const colour = attribute(settings.attempts ? palette.token('line-strong') : palette.of(curve));
    const words = settings.attempts ? text(`attempt ${attempt}`, x(at), box.top + 10, `fill="${attribute(palette.token('soft'))}" font-size="11"`) : '';
    return [upright(x(at), `stroke="${colour}" stroke-dasharray="3 3" fill="none"`), words];
  });
  const marks = (settings.many ? [] : outlook.marks).flatMap(({ curve: key, step, word, dry }, number) => {
    const trace = traces.find(({ curve }) => curve.key === key)!;
    const { points } = trace.curve.series;
    const index = lowerBound(points.steps, points.length, step);
    if (index >= trace.x.length) return [];
    const at = x(trace.x.xs[index]!);
    const colour = attribute(palette.token(dry ? 'soft' : 'text'));
    const before = at > box.left + box.width / 2;
    return [
      upright(at, `stroke="${colour}" stroke-width="1.5" fill="none"${dry ? ' stroke-dasharray="2 3"' : ''}`),
      text(word, at + (before ? -6 : 6), box.top + 16 + 15 * number, `fill="${colour}" font-size="11" font-weight="600" text-anchor="${before ? 'end' : 'start'}"`),
    ];
  });
  const rings = marked.flatMap(({ curve, x: column }) => {
    const { points } = curve.series;
    const best = points.best(curve.mode);
    const value = points.values[best];
    if (best < 0 || best >= column.length || value === undefined || (settings.log && value <= 0)) return [];
    return [`<circle cx="${round(x(column.xs[best]!))}" cy="${round(y(value, curve.scale))}" r="${BEST}" fill="${attribute(palette.token('panel'))}" stroke="${attribute(palette.of(curve))}" stroke-width="2"/>`];
  });

  const pen = document.createElement('canvas').getContext('2d')!;
  pen.font = `${NAME}px ${palette.token('font')}`;
  const rows = rowsOf(traces.map(({ curve }) => curve), width - 2 * MARGIN, (words) => pen.measureText(words).width);
  const names = rows.flatMap((row, number) => {
    const at = top + uplot.height + (number + 0.8) * NAME * 1.6;
    return row.flatMap(({ curve, x: left }) => [
      `<path d="M${round(MARGIN + left)} ${round(at)}h18" fill="none" stroke="${attribute(palette.of(curve))}" stroke-width="3"${dashed(curve)}/>`,
      text(curve.label, MARGIN + left + 24, at + NAME / 3, `fill="${attribute(palette.token('text'))}" font-size="${NAME}"`),
    ]);
  });
  const height = top + uplot.height + rows.length * NAME * 1.6 + MARGIN;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${round(width)}" height="${round(height)}" viewBox="0 0 ${round(width)} ${round(height)}" font-family="${attribute(palette.token('font'))}" font-size="${TICK}">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="100%" height="100%" fill="${attribute(palette.token('panel'))}"/>`,
    text(title, MARGIN, MARGIN + TITLE * 0.85, `fill="${attribute(palette.token('text'))}" font-size="${TITLE}" font-weight="650"`),
    `<clipPath id="plot"><rect x="${round(box.left - 6)}" y="${round(top)}" width="${round(box.width + 12)}" height="${round(bottom - top + 6)}"/></clipPath>`,
    ...axes,
    '<g clip-path="url(#plot)">', ...spreads, ...forecast, ...curves, ...attempts, ...marks, ...rings, '</g>',
    ...names,
    '</svg>',
  ].join('\n');
}

/** How far the curves of a group spread about their mean: an area for each stretch in which that is known. */
function spreadOf({ spread }: Curve, { xs, length }: XColumn, x: (value: number) => number, y: (value: number) => number): string[] {
  if (!spread) return [];
  const { lows, highs } = spread;
  const areas: string[] = [];
  for (let begin = 0, end = 0; begin < length; begin = end + 1) {
    end = begin;
    while (end < length && Number.isFinite(lows[end]!)) end++;
    const along = (column: Float64Array): string[] => Array.from({ length: end - begin }, (_, at) => `${round(x(xs[begin + at]!))} ${round(y(column[begin + at]!))}`);
    if (end > begin) areas.push(`M${[...along(highs), ...along(lows).reverse()].join('L')}Z`);
  }
  return areas;
}

/** The corners that are drawn, interrupted where a value is not finite and, along time and money, between attempts. */
function pathOf(trace: Trace, kind: 'raw' | 'smooth', x: (value: number) => number, y: (value: number) => number): string {
  const { xs, ys } = trace[kind];
  const { beginnings } = trace.curve.series.points;
  const breaks = trace.x.kind === 'step' ? [] : beginnings.slice(1).map((each) => trace.x.xs[each.index]!);
  const parts: string[] = [];
  let open = false;
  for (let index = 0; index < xs.length; index++) {
    while (breaks.length && breaks[0]! <= xs[index]!) {
      if (index && breaks[0]! > xs[index - 1]!) open = false;
      breaks.shift();
    }
    if (Number.isNaN(ys[index]!)) {
      open = false;
      continue;
    }
    parts.push(`${open ? 'L' : 'M'}${round(x(xs[index]!))} ${round(y(ys[index]!))}`);
    // One point alone is a dot: a line of no length with round ends.
    if (!open && (index + 1 === xs.length || Number.isNaN(ys[index + 1]!))) parts.push('h0');
    open = true;
  }
  return parts.join('');
}

/** The curve's dashes, as an attribute. */
function dashed(curve: Paint): string {
  const dash = dashOf(curve);
  return dash ? ` stroke-dasharray="${dash.join(' ')}"` : '';
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** Text of an element. Control characters have no place in XML. */
function escaped(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd').replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function attribute(text: string): string {
  return escaped(text).replaceAll('"', '&quot;');
}
