/**
 * Which points of a curve are drawn: of each pixel column the first, the least, the greatest and the last, in their
 * order. So no peak gets lost, and the picture is the same as that of all points.
 */
import { lowerBound } from './series';

/** What is drawn of a curve: a line that is interrupted where y is NaN. Kept and filled again from frame to frame. */
export class Line {
  xs: number[] = [];
  ys: number[] = [];
  /** Stretches that are not finite, as x of their begin and of the next finite point. */
  gaps: [number, number][] = [];
  least = Infinity;
  greatest = -Infinity;
  /** Values at or below zero that a logarithmic scale has no place for. */
  unplaced = 0;

  clear(): void {
    this.xs.length = this.ys.length = this.gaps.length = 0;
    this.least = Infinity;
    this.greatest = -Infinity;
    this.unplaced = 0;
  }

  add(x: number, y: number): void {
    this.xs.push(x);
    this.ys.push(y);
    if (y < this.least) this.least = y;
    if (y > this.greatest) this.greatest = y;
  }

  interrupt(x: number): void {
    if (this.ys.length && !Number.isNaN(this.ys.at(-1)!)) {
      this.xs.push(x);
      this.ys.push(NaN);
    }
  }
}

/**
 * Choose from xs[0 .. length), which rises, what lies from `min` to `max`, and one neighbour on each side.
 *
 * columns: pixels from `min` to `max`. positive: the scale is logarithmic.
 */
export function sample(
  line: Line,
  xs: Float64Array,
  ys: Float64Array,
  length: number,
  [min, max]: readonly [number, number],
  columns: number,
  positive: boolean,
): void {
  line.clear();
  const begin = Math.max(0, lowerBound(xs, length, min) - 1);
  let end = lowerBound(xs, length, max);
  while (end < length && xs[end]! <= max) end++;
  end = Math.min(length, end + 1);
  const width = (max - min) / Math.max(1, columns) || 1;

  let broken = false; // since the last point that was taken
  let gap = -1; // where the stretch that is not finite began
  for (let at = begin; at < end; ) {
    const column = Math.floor((xs[at]! - min) / width);
    const next = min + (column + 1) * width;
    let first = -1;
    let last = -1;
    let least = -1;
    let greatest = -1;
    let brokenBefore = broken;
    do {
      const y = ys[at]!;
      const finite = y - y === 0;
      if (finite && (!positive || y > 0)) {
        if (first < 0) {
          first = least = greatest = at;
          brokenBefore = broken;
        } else if (y < ys[least]!) least = at;
        else if (y > ys[greatest]!) greatest = at;
        last = at;
        broken = false;
      } else {
        broken = true;
        if (finite) line.unplaced++;
      }
      if (finite && gap >= 0) {
        noteGap(line, xs[gap]!, xs[at]!, width);
        gap = -1;
      } else if (!finite && gap < 0) gap = at;
      at++;
    } while (at < end && xs[at]! < next);
    if (first < 0) continue;
    if (brokenBefore) line.interrupt(xs[first]!);
    line.add(xs[first]!, ys[first]!);
    const [one, other] = least < greatest ? [least, greatest] : [greatest, least];
    if (one > first) line.add(xs[one]!, ys[one]!);
    if (other > first && other !== one) line.add(xs[other]!, ys[other]!);
    if (last > other && last > first) line.add(xs[last]!, ys[last]!);
  }
  if (gap >= 0) noteGap(line, xs[gap]!, xs[end - 1]!, width);
}

/** Stretches that lie in the same pixels are shown as one. */
function noteGap(line: Line, from: number, to: number, width: number): void {
  const newest = line.gaps.at(-1);
  if (newest && from - newest[1] < width) newest[1] = to;
  else line.gaps.push([from, to]);
}
