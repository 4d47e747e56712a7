/** A WebSocket whose messages keep whole numbers beyond 2^53 as their digits. */
import { exact, isLong } from './json';

export class ExactSocket extends WebSocket {
  constructor(url: string | URL, protocols?: string | string[]) {
    super(url, protocols);
    // Before graphql-ws's own listener, which takes what was parsed already as it is.
    this.addEventListener('message', (event: MessageEvent<unknown>) => {
      const { data } = event;
      if (typeof data === 'string' && isLong(data)) Object.defineProperty(event, 'data', { value: exact(data) });
    });
  }
}
