/** Previews of stored files: which there are, and the beginning of a text. A file is data of a simulation: never markup. */
import { straight } from '../api/json';

const PREVIEW_BYTES = 65_536;
const MOST_ROWS = 50;
const MOST_COLUMNS = 30;
const MOST_PICTURE_BYTES = 20_000_000;
const PICTURES = /\.(png|jpe?g|gif|webp)$/i;
const TABLES = /\.(csv|tsv)$/i;
const TEXTS = /\.(txt|log|json|jsonl|ya?ml|toml|ini|cfg|conf|md|rst|py|sh|xml|html|svg|out|err)$/i;

export type Kind = 'picture' | 'table' | 'text' | null;

export interface Beginning {
  text: string;
  isCut: boolean;
}

/** How a file is previewed; null: not at all. */
export function kindOf(path: string, sizeBytes: number): Kind {
  if (PICTURES.test(path)) return sizeBytes <= MOST_PICTURE_BYTES ? 'picture' : null;
  if (TABLES.test(path)) return 'table';
  return TEXTS.test(path) ? 'text' : null;
}

/** Read the beginning of a file as UTF-8. Throws an Error with a sentence. */
export async function read(url: string, sizeBytes: number): Promise<Beginning> {
  const headers: Record<string, string> = sizeBytes > PREVIEW_BYTES ? { Range: `bytes=0-${PREVIEW_BYTES - 1}` } : {};
  const response = await fetch(url, { headers });
  if (!response.ok) throw new Error(`The file could not be read (HTTP ${response.status}).`);
  return { text: straight(new TextDecoder().decode(await response.arrayBuffer())), isCut: sizeBytes > PREVIEW_BYTES };
}

/** The first rows of a table (RFC 4180); of a text that was cut off, without its last line. */
export function rowsOf({ text, isCut }: Beginning, path: string): string[][] {
  const separator = /\.tsv$/i.test(path) ? '\t' : ',';
  const whole = isCut ? text.slice(0, text.lastIndexOf('\n')) : text;
  const rows: string[][] = [];
  let row: string[] = [];
  let field = '';
  let isQuoted = false;
  const endField = (): void => {
    if (row.length < MOST_COLUMNS) row.push(field);
    field = '';
  };
  for (let at = 0; at < whole.length && rows.length < MOST_ROWS; at++) {
    const letter = whole[at] as string;
    if (isQuoted) {
      if (letter !== '"') field += letter;
      else if (whole[at + 1] === '"') field += whole[at++];
      else isQuoted = false;
    } else if (letter === '"' && field === '') isQuoted = true;
    else if (letter === separator) endField();
    else if (letter === '\n') {
      endField();
      rows.push(row);
      row = [];
    } else if (letter !== '\r') field += letter;
  }
  if (rows.length < MOST_ROWS && (field !== '' || row.length)) {
    endField();
    rows.push(row);
  }
  return rows;
}

/** A number of bytes, as a person reads it. */
export function sizeOf(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}
