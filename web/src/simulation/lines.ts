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

  /** Add a chunk: whole lines, joined by line ends. One that begins with a carriage return replaces its stream's last. */
  add({ attempt, stream, text }: Pick<Chunk, 'attempt' | 'stream' | 'text'>): void {
    let number = this.count;
    for (const written of text.replaceAll(COLOURS, '').replaceAll('\r\n', '\n').split(/\n|(?<!^|\n)\r/)) {
      const part = written.replace(/^\r/, '');
      const last = this.list.at(-1);
      if (written.length > part.length && last?.stream === stream && last.attempt === attempt) {
        this.list.pop();
        number--;
      }
      const more = part.length - LONGEST_LINE;
      const shown = more > 0 ? `${part.slice(0, LONGEST_LINE)} … ${more.toLocaleString()} more characters` : part;
      this.list.push({ number: ++number, attempt, stream, text: shown });
    }
    this.count = number;
    if (this.list.length > 2 * MOST_LINES) this.list.splice(0, this.list.length - MOST_LINES);
  }

  get shown(): Line[] {
    return this.list.slice(-MOST_LINES);
  }
}
