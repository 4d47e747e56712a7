/**
 * An exponential moving average of a series, begun without a bias to zero (Kingma & Ba 2015, section 3, do the same to
 * Adam's moments). It is of the whole series, so that zooming does not change it, and goes on where it was when points
 * come. What is not finite stays a gap and does not touch the average.
 */
import { type Series, wider } from './series';

export class Smoothed {
  values = new Float64Array(1_024);
  readonly weight: number;
  #length = 0;
  #cuts = 0;
  #average = 0;
  #left = 1; // weight ** count: what the average lacks

  /** weight: 0 (nothing is smoothed) to below 1. */
  constructor(weight: number) {
    this.weight = weight;
  }

  /** Bring it up to the series' end. */
  follow(series: Series): Float64Array {
    if (this.#cuts !== series.cuts) {
      this.#cuts = series.cuts;
      this.#length = this.#average = 0;
      this.#left = 1;
    }
    if (this.values.length < series.length) this.values = wider(this.values, series.values.length);
    for (; this.#length < series.length; this.#length++) {
      const value = series.values[this.#length]!;
      if (Number.isFinite(value)) {
        this.#average = this.weight * this.#average + (1 - this.weight) * value;
        this.#left *= this.weight;
        this.values[this.#length] = this.#average / (1 - this.#left);
      } else {
        this.values[this.#length] = NaN;
      }
    }
    return this.values;
  }
}
