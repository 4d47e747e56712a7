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

/** Too many sign-ins failed from this address: seconds until the next try is allowed. */
export class TooSoon extends Error {
  readonly seconds: number;

  constructor(sentence: string, seconds: number) {
    super(sentence);
    this.seconds = seconds;
  }
}

class Session {
  who = $state<Who | null>(null);
  /** Who one was, when that has ended without being asked to: expired, revoked, signed out elsewhere. */
  ended = $state<Who | null>(null);
  readonly #partings: (() => void)[] = [];

  /** Called when the user changes: data kept for the user before must not be shown to the next. */
  atParting(act: () => void): void {
    this.#partings.push(act);
  }

  /** True if the user has this role or a higher one. */
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
      if (response.ok) this.who = (await response.json()) as Who;
    } catch {
      // Not reachable: the banner shows it.
    }
  }

  /** The server asks for a token, and this page thought that it had shown one. */
  over(): void {
    if (this.who !== null) this.ended = this.who;
    this.who = null;
  }

  /** Exchange a token for a cookie. Throws an `Error` whose message is the server's sentence. */
  async signIn(token: string): Promise<void> {
    const response = await fetch('/session', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify({ token }),
    }).catch(() => {
      throw new Error('The server cannot be reached. Try again in a moment.');
    });
    if (response.status === 429) throw new TooSoon(await sentenceOf(response), Number(response.headers.get('retry-after')) || 60);
    if (!response.ok) throw new Error(await sentenceOf(response));
    const who = (await response.json()) as Who;
    if (this.ended !== null && this.ended.name !== who.name) this.#part();
    [this.who, this.ended] = [who, null];
    reconnect();
  }

  /** End the cookie. Throws an `Error` if the server was not reached: the user is then still signed in. */
  async signOut(): Promise<void> {
    const response = await fetch('/session', { method: 'DELETE' }).catch(() => null);
    if (!response?.ok) throw new Error('You are still signed in: the server could not be told.');
    [this.who, this.ended] = [null, null];
    this.#part();
    reconnect();
    await this.look();
  }

  #part(): void {
    for (const act of this.#partings) act();
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
