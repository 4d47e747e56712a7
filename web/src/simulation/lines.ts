/** Lines of a log: the newest as they are shown, so many, each of bounded length; and all of them as a text. */
import type { ResultOf } from '../api/graphql';
import { runsOf, type Run } from './ansi';
import type { LOGS } from './logs';

export type Chunk = ResultOf<typeof LOGS>['logs'];
type Written = Pick<Chunk, 'attempt' | 'stream' | 'text'>;

export interface Line {
  number: number;
  attempt: number;
  stream: Chunk['stream'];
  text: string;
  /** The text in its colours; undefined: it has none. */
  runs?: Run[];
}

export const MOST_LINES = 2_000;
const LONGEST_LINE = 4_000;

export class Lines {
  list: Line[] = [];
  /** How many there were in all. */
  count = 0;

  /** Add a chunk. A line that begins with a carriage return replaces its stream's last. */
  add({ attempt, stream, text }: Written): void {
    let number = this.count;
    for (const { part, replaces } of linesOf(text)) {
      const last = this.list.at(-1);
      if (replaces && last?.stream === stream && last.attempt === attempt) {
        this.list.pop();
        number--;
      }
      this.list.push({ number: ++number, attempt, stream, ...shownOf(part) });
    }
    this.count = number;
    if (this.list.length > 2 * MOST_LINES) this.list.splice(0, this.list.length - MOST_LINES);
  }

  get shown(): Line[] {
    return this.list.slice(-MOST_LINES);
  }
}

/** A whole log as text, chunk by chunk: each line in its last state, without colours, attempts told apart. */
export class PlainText {
  #last: Written | null = null;

  /** Take a chunk; returns the lines that nothing can replace any more. */
  add(chunk: Written): string {
    const done: string[] = [];
    if (chunk.attempt !== (this.#last?.attempt ?? 1)) done.push(this.rest(), `--- attempt ${chunk.attempt} ---\n`);
    for (const { part, replaces } of linesOf(chunk.text)) {
      if (this.#last !== null && !(replaces && this.#last.stream === chunk.stream)) done.push(`${this.#last.text}\n`);
      this.#last = { attempt: chunk.attempt, stream: chunk.stream, text: part };
    }
    return done.join('');
  }

  /** The last line. */
  rest(): string {
    const last = this.#last;
    this.#last = null;
    return last === null ? '' : `${last.text}\n`;
  }
}

/** The lines of a chunk, which are joined by line ends; whether each replaces the one before. */
function linesOf(text: string): { part: string; replaces: boolean }[] {
  return text
    .replaceAll('\r\n', '\n')
    .split(/\n|(?<!^|\n)\r/)
    .map((written) => ({ part: written.replace(/^\r/, ''), replaces: written.startsWith('\r') }));
}

function shownOf(part: string): Pick<Line, 'text' | 'runs'> {
  const runs = part.includes('\x1b') ? runsOf(part) : undefined;
  const text = runs ? runs.map((run) => run.text).join('') : part;
  const more = text.length - LONGEST_LINE;
  if (more > 0) return { text: `${text.slice(0, LONGEST_LINE)} … ${more.toLocaleString()} more characters` };
  return runs?.some(({ look }) => look) ? { text, runs } : { text };
}
