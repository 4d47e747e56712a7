/** Mouse, wheel and fingers on a chart: they change which part of the x axis is shown, and where values are read. */
import type uPlot from 'uplot';

import { touch } from './touch';
import type { Range, View } from './view';

/** Callbacks to the page. */
export interface Listener {
  /** Another part of the x axis is shown. */
  moved: () => void;
  /** The pointer is at x, and so many pixels below the top; null: away. */
  pointed: (x: number | null, top: number) => void;
}

const LEAST_DRAG = 4; // pixels: less is a click

export class Interaction {
  readonly #view: View;
  readonly #all: () => Range;
  readonly #listener: Listener;
  #panning: AbortController | null = null;

  /** all: from the first point of all curves to the newest one. */
  constructor(view: View, all: () => Range, listener: Listener) {
    this.#view = view;
    this.#all = all;
    this.#listener = listener;
  }

  /** uPlot's part: dragging to zoom, double-click, Shift and drag. */
  get options(): Pick<uPlot.Options, 'cursor'> & { hooks: uPlot.Hooks.Arrays } {
    return {
      cursor: {
        x: false,
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false },
        bind: {
          dblclick: () => () => {
            this.#view.showAll();
            this.#listener.moved();
            return null;
          },
          mousedown: (u, _target, handler) => (event) => {
            if (!event.shiftKey) return handler(event);
            this.#pan(event, u.over.clientWidth);
            return null;
          },
        },
      },
      hooks: {
        setCursor: [(u) => this.#pointed(u)],
        setSelect: [(u) => this.#selected(u)],
      },
    };
  }

  /** What uPlot has no part for. */
  attach(u: uPlot): void {
    const { over } = u;
    over.addEventListener('wheel', (event) => this.#wheel(event, u), { passive: false });
    over.addEventListener('mouseleave', () => this.#listener.pointed(null, 0));
    touch(over, {
      moved: (before, now) => {
        this.#view.panBy((before - now) / over.clientWidth, this.#all());
        this.#listener.moved();
      },
      spread: (times, at) => {
        this.#view.zoomBy(1 / times, u.posToVal(at, 'x'), this.#all());
        this.#listener.moved();
      },
    });
  }

  destroy(): void {
    this.#panning?.abort();
  }

  #pointed(u: uPlot): void {
    const left = u.cursor.left ?? -1;
    if (left >= 0) this.#listener.pointed(u.posToVal(left, 'x'), u.cursor.top ?? 0);
  }

  #selected(u: uPlot): void {
    const { left, width } = u.select;
    if (width < LEAST_DRAG) return;
    this.#view.zoomTo(u.posToVal(left, 'x'), u.posToVal(left + width, 'x'));
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#listener.moved();
  }

  /** Sideways it pans; with Ctrl or Cmd, as a pinch on a touchpad comes, it zooms; else it scrolls the page. */
  #wheel(event: WheelEvent, u: uPlot): void {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      const at = u.posToVal(event.clientX - u.over.getBoundingClientRect().left, 'x');
      this.#view.zoomBy(Math.exp(Math.max(-50, Math.min(50, event.deltaY)) / 150), at, this.#all());
    } else if (!this.#view.whole && Math.abs(sideways) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
      this.#view.panBy(sideways / u.over.clientWidth, this.#all());
    } else return;
    event.preventDefault();
    this.#listener.moved();
  }

  #pan(begin: MouseEvent, width: number): void {
    let x = begin.clientX;
    this.#panning = new AbortController();
    const { signal } = this.#panning;
    addEventListener('mouseup', () => this.#panning?.abort(), { signal });
    addEventListener(
      'mousemove',
      (event) => {
        this.#view.panBy((x - event.clientX) / width, this.#all());
        x = event.clientX;
        this.#listener.moved();
      },
      { signal },
    );
  }
}
