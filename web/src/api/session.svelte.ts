/** Who one is for the server: asked at `/session`, where a token is exchanged for a cookie that scripts can't read. */
import { reconnect } from './client';
import { clock } from './clock.svelte';
import { connection } from './connection.svelte';

export interface Who {
  name: string;
  role: 'VIEWER' | 'OPERATOR' | 'ADMIN';
  /** ISO 8601; null: never. */
  expiresAt: string | null;
}

class Session {
  who = $state<Who | null>(null);

  /** Whether somebody with a role, or a higher one, asks. */
  may(role: Who['role']): boolean {
    const ranks = ['VIEWER', 'OPERATOR', 'ADMIN'];
    return this.who !== null && ranks.indexOf(this.who.role) >= ranks.indexOf(role);
  }

  /** Ask who one is. */
  async look(): Promise<void> {
    try {
      const response = await fetch('/session', { headers: { accept: 'application/json' } });
      clock.set(response.headers.get('date'));
      if (response.status === 401) connection.enter('signed-out');
      this.who = response.ok ? ((await response.json()) as Who) : null;
    } catch {
      // Not reachable: the connection says so.
    }
  }

  /** Exchange a token for a cookie. Throws an `Error` whose message is the server's sentence. */
  async signIn(token: string): Promise<void> {
    const response = await fetch('/session', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify({ token }),
    }).catch(() => {
      throw new Error('The server cannot be reached.');
    });
    if (!response.ok) throw new Error(await sentenceOf(response));
    this.who = (await response.json()) as Who;
    reconnect();
  }

  async signOut(): Promise<void> {
    await fetch('/session', { method: 'DELETE' });
    this.who = null;
    reconnect();
  }
}

async function sentenceOf(response: Response): Promise<string> {
  try {
    const { errors } = (await response.json()) as { errors?: { message: string }[] };
    return errors?.[0]?.message ?? `The server answered with ${response.status}.`;
  } catch {
    return `The server answered with ${response.status}.`;
  }
}

export const session = new Session();
