/** Marks over the canvas at what is read: a line at its x, and a dot on each curve. */
import type uPlot from 'uplot';

import type { Palette } from './palette';
import type { Reading } from './reading';
import type { Trace } from './trace';

export class Pointer {
  readonly #uplot: uPlot;
  readonly #palette: Palette;
  readonly #line: HTMLElement;
  readonly #dots: HTMLElement[];

  /** count: of curves. */
  constructor(uplot: uPlot, palette: Palette, count: number) {
    const mark = (className: string): HTMLElement => uplot.over.appendChild(Object.assign(document.createElement('div'), { className, hidden: true }));
    this.#uplot = uplot;
    this.#palette = palette;
    this.#line = mark('plot-line');
    this.#dots = Array.from({ length: count }, () => mark('plot-dot'));
  }

  /** Mark these readings, all of one x; none: nothing is marked. log: the y axes have no place for what isn't positive. */
  show(readings: readonly Reading[], traces: readonly Trace[], log: boolean): void {
    const x = readings[0]?.x;
    for (const [at, dot] of this.#dots.entries()) {
      const reading = readings.find((each) => each.curve === traces[at]?.curve);
      const y = reading ? (reading.smoothed ?? reading.value) : NaN;
      const placed = Number.isFinite(y) && (!log || y > 0);
      dot.hidden = !reading || !placed;
      if (!reading || !placed) continue;
      const left = this.#uplot.valToPos(reading.x, 'x');
      const top = this.#uplot.valToPos(y, reading.curve.scale);
      dot.style.transform = `translate(${left}px, ${top}px)`;
      dot.style.background = this.#palette.of(reading.curve);
    }
    this.#line.hidden = x === undefined;
    if (x !== undefined) this.#line.style.transform = `translateX(${this.#uplot.valToPos(x, 'x')}px)`;
  }
}
