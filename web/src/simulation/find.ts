/** Search within the lines that are shown, without regard to case. */
import type { Run } from './ansi';
import type { Line } from './lines';

export interface Match {
  /** The line's number. */
  line: number;
  start: number;
}

export interface Piece extends Run {
  /** Where the match that it belongs to starts; -1: none. */
  match: number;
}

/** All matches, oldest first; they don't overlap. */
export function matchesOf(lines: readonly Line[], sought: string): Match[] {
  const matches: Match[] = [];
  if (!sought) return matches;
  for (const line of lines) {
    for (const start of startsIn(line.text, sought)) matches.push({ line: line.number, start });
  }
  return matches;
}

/** The match to go to from another one, which may have left with its line; `by`: 1 or -1, round the ends. */
export function step(matches: readonly Match[], from: Match | null, by: 1 | -1): Match | null {
  if (!matches.length) return null;
  if (from === null) return by > 0 ? matches[0]! : matches.at(-1)!;
  const behind = matches.findIndex((each) => isBehind(each, from));
  const end = behind < 0 ? matches.length : behind;
  if (by > 0) return matches[end % matches.length]!;
  const same = indexOf(matches, from);
  return matches.at((same < 0 ? end : same) - 1)!;
}

export function indexOf(matches: readonly Match[], sought: Match | null): number {
  return sought === null ? -1 : matches.findIndex(({ line, start }) => line === sought.line && start === sought.start);
}

/** A line as it is drawn: cut where its look changes, and where matches start and end. */
export function piecesOf(line: Line, sought: string): Piece[] {
  const starts = sought ? startsIn(line.text, sought) : [];
  const pieces: Piece[] = [];
  let at = 0;
  for (const { text, look } of line.runs ?? [{ text: line.text, look: '' }]) {
    const end = at + text.length;
    const bounds = starts.flatMap((start) => [start, start + sought.length]).filter((bound) => bound > at && bound < end);
    for (const cut of new Set([...bounds, end])) {
      const match = starts.find((start) => start <= at && at < start + sought.length) ?? -1;
      pieces.push({ text: line.text.slice(at, cut), look, match });
      at = cut;
    }
  }
  return pieces;
}

function startsIn(text: string, sought: string): number[] {
  const starts: number[] = [];
  const low = lower(text);
  const needle = lower(sought);
  for (let at = low.indexOf(needle); at >= 0; at = low.indexOf(needle, at + needle.length)) starts.push(at);
  return starts;
}

/** In lower case, of the same length: `İ` would become two characters. */
function lower(text: string): string {
  const low = text.toLowerCase();
  return low.length === text.length ? low : text.replace(/[^İ]+/g, (part) => part.toLowerCase());
}

function isBehind(each: Match, from: Match): boolean {
  return each.line > from.line || (each.line === from.line && each.start > from.start);
}
