/**
 * A command line as people type it, cut into the argv that is run. No shell ever reads it: only spaces, quotes and
 * backslashes mean something, and mean what they mean in POSIX sh (Shell Command Language, 2.2 Quoting).
 */
export interface Parsed {
  argv: string[];
  /** Why it can't be cut; empty: it can. */
  fault: string;
  /** What a shell would have done, and is not done here. */
  notices: string[];
}

const ESCAPED_IN_QUOTES = '$`"\\\n';
const OPERATORS = /[|&;<>]+|^#/;
const PATTERNS = /[*?]|\[.+\]/;

export function parse(line: string): Parsed {
  const argv: string[] = [];
  let bare = ''; // what stood outside of quotes in this word: a shell would look at it
  let word: string | null = null;
  const seen = new Set<string>();

  function end(): void {
    if (word === null) return;
    for (const notice of noticesOf(bare, argv.length === 0)) seen.add(notice);
    argv.push(word);
    word = null;
    bare = '';
  }

  for (let at = 0; at < line.length; at += 1) {
    const character = line[at]!;
    if (/\s/.test(character)) {
      end();
    } else if (character === '\\') {
      at += 1;
      if (at === line.length) return failed(argv, 'The last \\ has nothing behind it that it could take literally.');
      if (line[at] !== '\n') word = (word ?? '') + line[at];
    } else if (character === "'") {
      const close = line.indexOf("'", at + 1);
      if (close < 0) return failed(argv, unclosed("'", at));
      word = (word ?? '') + line.slice(at + 1, close);
      at = close;
    } else if (character === '"') {
      const open = at;
      word ??= '';
      for (at += 1; line[at] !== '"'; at += 1) {
        if (at >= line.length) return failed(argv, unclosed('"', open));
        if (line[at] === '\\' && ESCAPED_IN_QUOTES.includes(line[at + 1] ?? ' ')) {
          at += 1;
          if (line[at] === '\n') continue;
        } else if (/^\$[\w{(]/.test(line.slice(at, at + 2))) {
          bare += line.slice(at, at + 2);
        }
        word += line[at];
      }
    } else {
      word = (word ?? '') + character;
      bare += character;
    }
  }
  end();
  return { argv, fault: '', notices: [...seen] };
}

/** The same line, read by a shell on the machine. */
export function throughShell(line: string): string {
  return `sh -c '${line.trim().replaceAll("'", `'\\''`)}'`;
}

function noticesOf(bare: string, first: boolean): string[] {
  const notices: string[] = [];
  const operator = OPERATORS.exec(bare);
  if (operator) notices.push(`${operator[0]} is passed on as a character.`);
  if (/\$[\w{(]/.test(bare) || bare.includes('`')) notices.push('$ and ` are passed on as they stand: no variable is put in.');
  if (PATTERNS.test(bare)) notices.push('* and ? are passed on as they stand: no file names are put in.');
  if (bare.startsWith('~')) notices.push('~ is passed on as a character: no home directory is put in.');
  if (first && /^\w+=/.test(bare)) notices.push('The first word is the program: variables have their own place, under Environment.');
  return notices;
}

function failed(argv: string[], fault: string): Parsed {
  return { argv, fault, notices: [] };
}

function unclosed(quote: string, at: number): string {
  return `The ${quote} at character ${at + 1} is not closed.`;
}

/** Options of a command that are called as one of these parameters, with the value that stands there. */
export function writtenOut(argv: readonly string[], names: readonly string[]): { name: string; value: string }[] {
  const plain = (name: string): string => name.toLowerCase().replaceAll('-', '_');
  const byOption = new Map(names.filter(Boolean).map((name) => [plain(name), name]));
  const found = argv.flatMap((word, at) => {
    const [option, ...rest] = word.split('=') as [string, ...string[]];
    const name = byOption.get(plain(option.replace(/^-+/, '')));
    const value = rest.length ? rest.join('=') : word.startsWith('-') ? argv[at + 1] : undefined;
    return name === undefined || value === undefined || value === `{${name}}` ? [] : [{ name, value }];
  });
  return [...new Map(found.map((each) => [each.name, each])).values()];
}
