/**
 * The server's time, as far as this page knows it: it ticks once a second while the connection lives, and stands still
 * while it is lost, for nothing is known of what goes on then.
 */
import { connection } from './connection.svelte';

class Clock {
  /** Milliseconds since 1970, UTC. */
  now = $state(Date.now());
  #ahead = 0; // of this computer's clock, in milliseconds

  constructor() {
    setInterval(() => {
      if (connection.live) this.now = this.#time();
    }, 1_000);
  }

  /** Take the `Date` of an answer that has just come: whole seconds, so a small difference is no evidence. */
  set(date: string | null): void {
    const ahead = date === null ? 0 : Date.parse(date) + 500 - Date.now();
    if (Number.isFinite(ahead)) this.#ahead = Math.abs(ahead) > 1_500 ? ahead : 0;
    this.now = this.#time();
  }

  #time(): number {
    return Date.now() + this.#ahead;
  }
}

export const clock = new Clock();
