/** Which of several metrics one looks at first. */

const SOUNDS_LIKE_A_LOSS = /loss|error|residual|perplexity/i;

/** For sorting: what sounds like a loss comes first, then by name. */
export function mainFirst(one: string, other: string): number {
  return Number(SOUNDS_LIKE_A_LOSS.test(other)) - Number(SOUNDS_LIKE_A_LOSS.test(one)) || (one < other ? -1 : Number(one > other));
}

/** The one that a list shows. */
export function mainMetric(metrics: readonly { name: string }[]): string | null {
  return metrics.map(({ name }) => name).sort(mainFirst)[0] ?? null;
}
