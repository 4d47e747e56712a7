/**
 * A WebSocket whose messages keep whole numbers beyond 2^53 as their digits, and have no characters that change the
 * direction of text.
 */
import { exact, isLong, straight } from './json';

export class ExactSocket extends WebSocket {
  constructor(url: string | URL, protocols?: string | string[]) {
    super(url, protocols);
    // Before graphql-ws's own listener, which takes what was parsed already as it is.
    this.addEventListener('message', (event: MessageEvent<unknown>) => {
      const { data } = event;
      if (typeof data !== 'string') return;
      const text = straight(data);
      if (text !== data || isLong(text)) Object.defineProperty(event, 'data', { value: exact(text) });
    });
  }
}
