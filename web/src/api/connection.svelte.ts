/**
 * What is known of the way to the server. Whatever is shown while it is not `connected` is old: the banner says so,
 * clocks stop, and data are greyed out.
 */
export type Status =
  | 'connecting' // for the first time
  | 'connected'
  | 'lost' // it was there; it is tried again and again
  | 'signed-out'; // the server asks for a token

class Connection {
  status = $state<Status>('connecting');
  /** When the status was entered, by this computer's clock, in milliseconds. */
  since = $state(Date.now());

  get live(): boolean {
    return this.status === 'connected';
  }

  enter(status: Status): void {
    if (this.status === status) return;
    // Before the first connection there is nothing yet that could be out of date; but "connecting" may take too long.
    this.status = status;
    this.since = Date.now();
  }
}

export const connection = new Connection();
