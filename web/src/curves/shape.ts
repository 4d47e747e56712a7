/**
 * A line of many points as the area that it covers, pixel column by pixel column. Where a column holds several points a
 * stroke would go up and down in it again and again: browsers take a hundred times as long for it, and it looks the same.
 */
export class Shape {
  /** To be filled, and to be stroked where points lie further apart than a column. */
  readonly fill = new Path2D();
  readonly stroke = new Path2D();
  #columns: number[] = [];
  #tops: number[] = [];
  #bottoms: number[] = [];
  #last = 0; // y of the newest point
  readonly #half: number;

  /** width: of the line, in canvas pixels. */
  constructor(width: number) {
    this.#half = width / 2;
  }

  /** x and y in canvas pixels, x never falling. */
  add(x: number, y: number): void {
    const column = Math.floor(x);
    const at = this.#columns.length - 1;
    if (at >= 0 && column === this.#columns[at]) {
      if (y < this.#tops[at]!) this.#tops[at] = y;
      if (y > this.#bottoms[at]!) this.#bottoms[at] = y;
    } else {
      const last = this.#last;
      const gap = at >= 0 ? column - this.#columns[at]! : 0;
      if (gap > 1) {
        this.stroke.moveTo(this.#columns[at]! + 0.5, last);
        this.stroke.lineTo(column + 0.5, y);
        this.interrupt();
      }
      this.#columns.push(column);
      this.#tops.push(gap === 1 ? Math.min(y, last) : y);
      this.#bottoms.push(gap === 1 ? Math.max(y, last) : y);
    }
    this.#last = y;
  }

  /** What comes next does not belong to what was there. */
  interrupt(): void {
    const { fill } = this;
    const columns = this.#columns;
    const end = columns.length;
    if (!end) return;
    fill.moveTo(columns[0]!, this.#tops[0]! - this.#half);
    for (let at = 0; at < end; at++) {
      fill.lineTo(columns[at]!, this.#tops[at]! - this.#half);
      fill.lineTo(columns[at]! + 1, this.#tops[at]! - this.#half);
    }
    for (let at = end - 1; at >= 0; at--) {
      fill.lineTo(columns[at]! + 1, this.#bottoms[at]! + this.#half);
      fill.lineTo(columns[at]!, this.#bottoms[at]! + this.#half);
    }
    fill.closePath();
    columns.length = this.#tops.length = this.#bottoms.length = 0;
  }
}
