/** A chart as a PNG file: its canvas as it is drawn, with a title and the names of its curves. */
import { toasts } from '../ui/toasts.svelte';
import { fileNameOf } from './csv';
import { Palette } from './palette';
import { dashOf } from './ramp';
import type { Curve } from './trace';

export const MARGIN = 16;
export const TITLE = 16; // pixels of the letters
export const NAME = 13;
const MOST_NAMED = 24; // curves

/** host: the element with the canvas, whose colours and font the picture has. */
export async function save(host: HTMLElement, title: string, curves: readonly Curve[]): Promise<void> {
  try {
    const canvas = pictureOf(host, title, curves);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/png'));
    if (!blob) throw new Error('The browser could not make a picture of it.');
    saveAs(blob, fileNameOf(title, 'png'));
  } catch (problem) {
    toasts.complain(problem);
  }
}

export function saveAs(blob: Blob, download: string): void {
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement('a'), { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

function pictureOf(host: HTMLElement, title: string, curves: readonly Curve[]): HTMLCanvasElement {
  const drawn = host.querySelector('canvas');
  if (!drawn) throw new Error('Nothing is drawn yet.');
  const style = getComputedStyle(host);
  const token = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const ratio = devicePixelRatio;
  const width = drawn.width / ratio + 2 * MARGIN;
  const picture = document.createElement('canvas');
  const pen = picture.getContext('2d');
  if (!pen) throw new Error('The browser could not make a picture of it.');
  const font = (size: number, weight = 400): string => `${weight} ${size}px ${token('font')}`;
  pen.font = font(NAME);
  const rows = rowsOf(curves, width - 2 * MARGIN, (text) => pen.measureText(text).width);
  const height = MARGIN + TITLE * 1.8 + drawn.height / ratio + rows.length * NAME * 1.6 + MARGIN;
  picture.width = Math.round(width * ratio);
  picture.height = Math.round(height * ratio);
  pen.scale(ratio, ratio);
  pen.fillStyle = token('panel');
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = token('text');
  pen.textBaseline = 'middle';
  pen.font = font(TITLE, 650);
  pen.fillText(title, MARGIN, MARGIN + TITLE / 2, width - 2 * MARGIN);
  const top = MARGIN + TITLE * 1.8;
  pen.drawImage(drawn, MARGIN, top, drawn.width / ratio, drawn.height / ratio);
  pen.font = font(NAME);
  const palette = new Palette(host);
  for (const [row, names] of rows.entries()) {
    const y = top + drawn.height / ratio + (row + 0.8) * NAME * 1.6;
    for (const { curve, x } of names) {
      pen.strokeStyle = palette.of(curve);
      pen.lineWidth = 3;
      pen.setLineDash(dashOf(curve) ?? []);
      pen.beginPath();
      pen.moveTo(MARGIN + x, y);
      pen.lineTo(MARGIN + x + 18, y);
      pen.stroke();
      pen.fillStyle = token('text');
      pen.fillText(curve.label, MARGIN + x + 24, y, width - 2 * MARGIN - x - 24);
    }
  }
  return picture;
}

/** Names of curves in rows that are not wider than the picture; of a hundred there are none. */
export function rowsOf(curves: readonly Curve[], width: number, widthOf: (text: string) => number): { curve: Curve; x: number }[][] {
  if (curves.length > MOST_NAMED) return [];
  const rows: { curve: Curve; x: number }[][] = [];
  let x = Infinity;
  for (const curve of curves) {
    const needed = 24 + widthOf(curve.label) + 20;
    if (x + needed > width) {
      rows.push([]);
      x = 0;
    }
    rows.at(-1)!.push({ curve, x });
    x += needed;
  }
  return rows;
}
