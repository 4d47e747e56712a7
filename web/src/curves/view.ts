/** What part of the x axis is shown. It belongs to the reader: points that come never change it while one is zoomed in. */
export type Range = readonly [min: number, max: number];

export class View {
  /** Null: all of it, the newest point included. */
  #range: Range | null = null;
  /** With a range: it goes along with the newest point. */
  #following = false;
  /** Where the whole ends, if that is beyond the newest point: a forecast. */
  ahead = -Infinity;

  /** Whether the newest point stays in sight. */
  get following(): boolean {
    return this.#range === null || this.#following;
  }

  get whole(): boolean {
    return this.#range === null;
  }

  /** all: from the first point to the newest one. */
  range(all: Range): Range {
    if (this.#range === null) return this.#whole(all);
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
    const [first, last] = this.#whole(all);
    if (factor > 1 && (max - min) * factor >= last - first) this.showAll();
    else this.zoomTo(at - (at - min) * factor, at + (max - at) * factor);
  }

  /** share: of what is shown; below 0 goes back. It ends with the whole. */
  panBy(share: number, all: Range): void {
    if (this.#range === null) return;
    const [min, max] = this.range(all);
    const width = max - min;
    const [first, last] = this.#whole(all);
    const from = Math.max(Math.min(first, min), Math.min(Math.max(last - width, min), min + share * width));
    this.zoomTo(from, from + width);
  }

  #whole(all: Range): Range {
    return [all[0], Math.max(all[1], this.ahead)];
  }
}
