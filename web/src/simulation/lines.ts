/** The newest lines of a log, as they are shown: so many, each of bounded length, without a terminal's colours. */
import type { ResultOf } from '../api/graphql';
import type { LOGS } from './logs';

export type Chunk = ResultOf<typeof LOGS>['logs'];

export interface Line {
  number: number;
  attempt: number;
  stream: Chunk['stream'];
  text: string;
}

export const MOST_LINES = 2_000;
const LONGEST_LINE = 4_000;
const COLOURS = /\x1b\[[0-9;?]*[A-Za-z]/g; // ECMA-48, control sequences

export class Lines {
  list: Line[] = [];
  /** How many there were in all. */
  count = 0;

  /** Add a chunk: whole lines, joined by line ends. */
  add({ attempt, stream, text }: Pick<Chunk, 'attempt' | 'stream' | 'text'>): void {
    const parts = text.replaceAll(COLOURS, '').split(/\r\n|\n|\r/);
    this.count += parts.length;
    let number = this.count - parts.length;
    for (const part of parts) {
      const more = part.length - LONGEST_LINE;
      const shown = more > 0 ? `${part.slice(0, LONGEST_LINE)} … ${more.toLocaleString()} more characters` : part;
      this.list.push({ number: ++number, attempt, stream, text: shown });
    }
    if (this.list.length > 2 * MOST_LINES) this.list.splice(0, this.list.length - MOST_LINES);
  }

  get shown(): Line[] {
    return this.list.slice(-MOST_LINES);
  }
}
