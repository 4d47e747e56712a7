/** Durations as people type them, read as the command line reads them: 90, 90s, 15m, 1.5h, 1h30m, 2d. */
const SECONDS: Record<string, number> = { s: 1, m: 60, min: 60, h: 3_600, d: 86_400, w: 604_800 };
const PART = /^(\d+(?:\.\d+)?)\s*(min|s|m|h|d|w)?\s*/;

/** Whole seconds, rounded up; null where it is no duration. */
export function secondsOf(text: string): number | null {
  let rest = text.trim().toLowerCase();
  if (!rest) return null;
  if (/^\d+(\.\d+)?$/.test(rest)) return Math.ceil(Number(rest)) || null; // only a number on its own may go without a unit
  let seconds = 0;
  while (rest) {
    const part = PART.exec(rest);
    if (!part?.[2]) return null;
    seconds += Number(part[1]) * SECONDS[part[2]]!;
    rest = rest.slice(part[0].length);
  }
  return Math.ceil(seconds) || null;
}

/** 5400 as 1h30m: as short as it can be typed. */
export function typedDuration(seconds: number): string {
  let text = '';
  let rest = seconds;
  for (const [unit, size] of [['d', 86_400], ['h', 3_600], ['m', 60], ['s', 1]] as const) {
    if (rest >= size) text += `${Math.floor(rest / size)}${unit}`;
    rest %= size;
  }
  return text;
}
