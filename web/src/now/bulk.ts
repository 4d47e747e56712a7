/** One act on many simulations, and a sentence about what became of it. */
const AT_ONCE = 6;

export interface Outcome {
  done: string[];
  /** Ids by the reason why they were refused. */
  refused: ReadonlyMap<string, string[]>;
}

/** Do it to each, a few at a time. act: resolves with an empty text, or with the reason why it was refused. */
export async function forEach(ids: readonly string[], act: (id: string) => Promise<string>, progress: (count: number) => void = () => {}): Promise<Outcome> {
  const done: string[] = [];
  const refused = new Map<string, string[]>();
  const waiting = [...ids];
  async function worker(): Promise<void> {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      const reason = await act(id).catch((problem: unknown) => (problem as Error).message);
      if (reason) refused.set(reason, [...(refused.get(reason) ?? []), id]);
      else done.push(id);
      progress(ids.length - waiting.length);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return { done, refused };
}

/** A name with {name} in it, for one that is called so. */
export function nameFrom(template: string, name: string): string {
  return template.replaceAll('{name}', () => name).slice(0, 200); // as a text, `$` would be a pattern
}

/** Cancelled 10 of 12 simulations. 2 refused: It is FINISHED. */
export function sentenceOf(verb: string, { done, refused }: Outcome): string {
  const bad = [...refused.values()].reduce((sum, ids) => sum + ids.length, 0);
  const all = done.length + bad;
  const noun = all === 1 ? 'simulation' : 'simulations';
  const whole = bad ? `${verb} ${done.length} of ${all} ${noun}.` : `${verb} ${all} ${noun}.`;
  const reasons = [...refused].map(([reason, ids]) => `${ids.length} refused: ${reason}${/[.!?]$/.test(reason) ? '' : '.'}`);
  return [whole, ...reasons.slice(0, 3), ...(reasons.length > 3 ? ['Others were refused for other reasons.'] : [])].join(' ');
}
