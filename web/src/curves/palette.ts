/** Colours of a chart: the theme's custom properties, read once per theme because canvases can't use them. */
import { theme } from '../ui/theme.svelte';
import { COLOURS, shadeOf } from './ramp';

const NAMES = ['soft', 'line', 'line-strong', 'raised', 'panel', 'text', 'bad', 'font'] as const;

export class Palette {
  readonly #host: HTMLElement;
  #values = new Map<string, string>();
  #hatching: CanvasPattern | null = null;

  constructor(host: HTMLElement) {
    this.#host = host;
    this.read();
  }

  /** Read the theme's colours again. */
  read(): void {
    const style = getComputedStyle(this.#host);
    const curves = Array.from({ length: COLOURS }, (_, at) => `curve-${at + 1}`);
    this.#values = new Map([...NAMES, ...curves].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.#hatching = hatched(this.token('bad'));
  }

  token(name: (typeof NAMES)[number]): string {
    return this.#values.get(name)!;
  }

  /** Colour of the curve with this number: 0, 1, 2 ... */
  colour(number: number): string {
    return this.#values.get(`curve-${(number % COLOURS) + 1}`)!;
  }

  /** The same of a curve that may have a place on the ramp instead. */
  of({ colour, shade }: { colour: number; shade?: number | null }): string {
    if (shade === undefined) return this.colour(colour);
    return shade === null ? this.token('line-strong') : shadeOf(shade, theme.dark);
  }

  /** Pattern over stretches whose values are not finite. */
  get hatching(): CanvasPattern | null {
    return this.#hatching;
  }
}

function hatched(colour: string): CanvasPattern | null {
  const size = 8 * devicePixelRatio;
  const canvas = Object.assign(document.createElement('canvas'), { width: size, height: size });
  const context = canvas.getContext('2d');
  if (!context) return null;
  context.globalAlpha = 0.4;
  context.strokeStyle = colour;
  context.lineWidth = 1.25 * devicePixelRatio;
  context.beginPath();
  for (const shift of [-size, 0, size]) {
    context.moveTo(shift - 1, size + 1);
    context.lineTo(shift + size + 1, -1);
  }
  context.stroke();
  return context.createPattern(canvas, 'repeat');
}
