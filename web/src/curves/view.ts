/** What part of the x axis is shown. It belongs to the reader: points that come never change it while one is zoomed in. */
export type Range = readonly [min: number, max: number];

export class View {
  /** Null: all of it, the newest point included. */
  #range: Range | null = null;
  /** With a range: it goes along with the newest point. */
  #following = false;

  /** Whether the newest point stays in sight. */
  get following(): boolean {
    return this.#range === null || this.#following;
  }

  get whole(): boolean {
    return this.#range === null;
  }

  /** all: from the first point to the newest one. */
  range(all: Range): Range {
    if (this.#range === null) return all;
    if (!this.#following) return this.#range;
    const width = this.#range[1] - this.#range[0];
    return [all[1] - width, all[1]];
  }

  showAll(): void {
    this.#range = null;
    this.#following = false;
  }

  zoomTo(min: number, max: number): void {
    if (!(max > min)) return;
    this.#range = [min, max];
    this.#following = false;
  }

  /** Go along with the newest point, as close as one is. */
  follow(all: Range): void {
    if (this.#range === null) return;
    this.#range = this.range(all);
    this.#following = true;
  }

  /** factor: below 1 goes closer. at: what stays where it is. */
  zoomBy(factor: number, at: number, all: Range): void {
    const [min, max] = this.range(all);
    if (factor > 1 && (max - min) * factor >= all[1] - all[0]) this.showAll();
    else this.zoomTo(at - (at - min) * factor, at + (max - at) * factor);
  }

  /** share: of what is shown; below 0 goes back. It ends at the first and at the newest point. */
  panBy(share: number, all: Range): void {
    if (this.#range === null) return;
    const [min, max] = this.range(all);
    const width = max - min;
    const from = Math.max(Math.min(all[0], min), Math.min(Math.max(all[1] - width, min), min + share * width));
    this.zoomTo(from, from + width);
  }
}
